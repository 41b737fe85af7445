"""What the machine can do: its precision, its compiler, its peak; and what cannot be spread over its processes."""

import os
import platform
import re
import resource
from pathlib import Path

import torch
from accelerate.utils import get_int_from_env, parse_flag_from_env

from nanohf import console
from nanohf.errors import RecipeError

# Dense bf16 FLOP/s by name (the makers' data sheets, without sparsity).
PEAK = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def device_type() -> str:
    """The one Accelerator is going to choose. Asking accelerate would already settle it."""
    if parse_flag_from_env("ACCELERATE_USE_CPU"):
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def choose_precision(wanted: str, device_type: str) -> str:
    """`mixed_precision` for the Accelerator, printed with its reason. Weights and optimizer state stay fp32.

    From accelerate launch "no" counts as no choice: it says so where nobody chose.

    Raises:
        RecipeError: the launcher chose something else than bf16.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", "bf16"):
        raise RecipeError(f"accelerate's mixed_precision={launched} must be bf16 or no: pretraining scales no losses")
    if launched == "bf16":
        chosen, why = "bf16", "chosen with accelerate launch or its config"
    elif wanted != "auto":
        chosen, why = wanted, "chosen in the recipe"
    elif native := multiplies_bf16(device_type):
        chosen, why = "bf16", f"auto: this machine's {native} multiplies it"
    else:
        chosen, why = "no", f"auto: {device_type} does not multiply bf16 by itself"
    console.progress(f"precision: {'fp32' if chosen == 'no' else chosen} ({why}); weights and optimizer state fp32")
    return chosen


def multiplies_bf16(device_type: str) -> str | None:
    """The unit that does, or None."""
    if device_type == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device_type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX-512 BF16" if device_type == "cpu" and torch.cpu._is_avx512_bf16_supported() else None


def use_onednn(device_type: str) -> None:
    """fp32 products on the CPU by oneDNN, not MKL, 2.2x as fast on an AMD EPYC with AVX-512, where they stay fp32.

    torch takes oneDNN only if it may round to bf16. Without AMX oneDNN does not: a product of numbers that only fp32
    can hold is tried, and if it comes out rounded, all stays as it was. Where a GPU does the work, nothing changes: the
    same setting would have it multiply in TF32.
    """
    if device_type != "cpu":
        return
    # Not backends.mkldnn.matmul.fp32_precision: after that get_float32_matmul_precision raises, and inductor calls it.
    torch.set_float32_matmul_precision("medium")
    x = torch.eye(256) * (1 + 2**-11)
    if not torch.equal(x @ x, torch.eye(256) * (1 + 2**-11) ** 2):
        torch.set_float32_matmul_precision("highest")


def launched_processes() -> int:
    """How many share the work, before accelerate has looked; it reads the same names."""
    return get_int_from_env(["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"], 1)


def require_all_processes(found: int) -> None:
    """
    Raises:
        RecipeError: accelerate has fewer processes than were launched: each would train alone, in the same folder.
    """
    if found != (launched := int(os.environ.get("WORLD_SIZE", found))):
        raise RecipeError(
            f"{launched} processes were launched, and each is alone: this machine has no GPU for them. Use "
            "accelerate_configs/cpu.yaml, or set ACCELERATE_USE_CPU=true to have them share the CPU."
        )


def compiled(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """torch.compile, or the model as it is where the machine has no compiler for the device it is going to run on."""
    try:
        torch.compile(_trial)(torch.ones(64, 64, device=device, requires_grad=True)).backward()
    except Exception as error:  # a missing compiler, header or Triton: each has an exception of its own
        console.progress(
            f"torch_compile: not on this machine ({str(error).strip().splitlines()[0]}); it trains without"
        )
        return model
    return torch.compile(model, dynamic=False)  # type: ignore[return-value]  # a module, declared as a function


def _trial(x: torch.Tensor) -> torch.Tensor:
    """What a model's kernels are made of: a product, bf16, powers, functions, sums, and all of it backwards."""
    rows = torch.nn.functional.rms_norm((x @ x).bfloat16(), x.shape[-1:])
    return torch.nn.functional.cross_entropy(rows.float().tanh(), torch.zeros_like(x[0], dtype=torch.long))


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return found[1] if found and device.type == "cpu" else f"{device.type.upper()} ({platform.machine()})"


def peak_flops(device_name: str, precision: str) -> float | None:
    """Of one device in that precision; None if it is not known: MFU is then left out."""
    if precision != "bf16":
        return None
    return next((peak for name, peak in PEAK.items() if re.search(rf"\b{name}\b", device_name)), None)


def peak_memory(device_type: str) -> int:
    """The most bytes this process held: of the GPU as torch allocated them, else resident, libraries included."""
    if device_type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would begin with what the parent process had
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes


def refuse_fsdp(by_the_recipe: object = None) -> None:
    """For the stages whose saving and generating would have to gather sharded parameters first."""
    if by_the_recipe or parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise RecipeError(
            "FSDP is supported by the pretrain stage only, in version 2. Use accelerate_configs/ddp.yaml: every GPU "
            "holds the whole model."
        )


def check_fsdp2(accelerator, config) -> None:
    """For the pretrain stage: what of its recipe works without sharding only."""
    if not accelerator.is_fsdp2:
        refuse_fsdp()
    elif config.torch_compile:
        raise RecipeError(
            "torch_compile=true does not go with FSDP. Set it to false, or use accelerate_configs/ddp.yaml."
        )
