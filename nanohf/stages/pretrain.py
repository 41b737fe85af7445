"""Stage 2: pretrain the depth-scaled GPT from random weights.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.pretrain \
        --config recipes/demo/pretrain.yaml
"""

from functools import partial
from itertools import islice

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoTokenizer

from nanohf import console
from nanohf.data.packing import PackedLoader
from nanohf.data.sources import skipped_files, text_stream
from nanohf.evals.bpb import bits_per_byte
from nanohf.generation.engine import complete
from nanohf.hardware.device import (
    check_fsdp2,
    choose_precision,
    compiled,
    device_type,
    peak_flops,
    peak_memory,
    use_onednn,
)
from nanohf.hub.publish import publish
from nanohf.optim.groups import build_optimizer
from nanohf.optim.named_state import named_state
from nanohf.recipe import loading as recipe
from nanohf.runs import run_folder as runs
from nanohf.scaling.flops import flops_per_token
from nanohf.tokenizer.train_bpe import encode_documents, token_bytes
from nanohf.train.optimizer_handover import save_moments
from nanohf.train.pretrain_loop import build_model, derive_horizon, pretrain


def main(argv: list[str]) -> None:
    (config,) = recipe.load("pretrain", argv)
    checkpoints = runs.claim(config.run_dir, "pretrain", recipe.written(argv))
    accelerator = Accelerator(
        mixed_precision=choose_precision(config.mixed_precision, device_type()),
        log_with=None if config.report_to == "none" else config.report_to,
    )
    use_onednn()
    check_fsdp2(accelerator, config)
    accelerator.init_trackers("nanohf", config=vars(config))
    set_seed(config.seed)

    tokenizer = AutoTokenizer.from_pretrained(runs.resolve(config.run_dir, config.tokenizer))
    model = build_model(config, tokenizer)
    parameters = model.num_parameters()
    console.progress(f"model: depth {config.depth}, {parameters:,} parameters, vocabulary {len(tokenizer):,}")
    horizon = derive_horizon(config, len(tokenizer), accelerator.num_processes)

    load = partial(open_loader, config, tokenizer, accelerator)
    batches = max(1, config.eval_tokens // (config.per_device_train_batch_size * config.max_length))
    validation = list(islice(load("validation"), max(1, batches // accelerator.num_processes)))
    optimizer = build_optimizer(
        model,
        lr_scale=horizon.lr_scale,
        matrix_lr=config.matrix_lr,
        embedding_lr=config.embedding_lr,
        head_lr=config.head_lr,
        weight_decay=config.weight_decay,
        normuon=config.normuon,
        sharded=True,
    )
    loader = load("train")
    console.progress(loader.described(horizon.tokens))
    result = pretrain(
        accelerator,
        compiled(model, accelerator.device) if config.torch_compile else model,
        optimizer,
        loader,
        horizon,
        config,
        checkpoints,
        measure=partial(measure, accelerator, tokenizer, validation, model),  # not compiled: its lengths vary
        peak_rate=peak_rate(accelerator, model, config.max_length),
    )

    weights = accelerator.get_state_dict(model)  # of all processes, under FSDP
    moments = named_state(optimizer, model) if config.keep_optimizer else None  # likewise
    accelerator.end_training()
    if result and accelerator.is_main_process:
        record = result | {
            "depth": config.depth,
            "vocab_size": len(tokenizer),
            "parameters": parameters,
            "device": accelerator.device.type,
            "peak_memory": peak_memory(accelerator.device.type),
            "mixed_precision": accelerator.mixed_precision,
            "metric": "bits per byte",
            "before": result["before"]["bpb"],
            "after": result["after"]["bpb"],
            "skipped_files": sorted(skipped_files),
            "recipe": recipe.written(argv),
        }
        whole = build_model(config, tokenizer)
        folder = runs.finish(config.run_dir, "pretrain", record, partial(save, whole, weights, tokenizer, moments))
        publish(config, "pretrain", folder)


def open_loader(config, tokenizer, accelerator, split: str) -> PackedLoader:
    return PackedLoader(
        text_stream(config.dataset, split, config.dataset_config, config.text_column, seed=config.seed),
        partial(encode_documents, tokenizer),
        config.per_device_train_batch_size,
        config.max_length,
        accelerator.process_index,
        accelerator.num_processes,
    )


def peak_rate(accelerator, model, length: int) -> float | None:
    """Tokens/s of all processes if their devices ran at their peak; None if that is not known."""
    name = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else "CPU"
    if (peak := peak_flops(name, accelerator.mixed_precision)) is None:
        return None
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    flops = flops_per_token(matrices, model.config.num_hidden_layers, model.config.hidden_size, length)
    console.progress(f"peak of {name} in bf16: {peak / 1e12:,.0f} TFLOP/s; {flops:,} FLOPs a token")
    return peak * accelerator.num_processes / flops


def measure(accelerator, tokenizer, validation: list[torch.Tensor], model, step: int) -> dict:
    """Bits per byte on the same validation rows every time, and a sample to look at."""
    with accelerator.autocast():
        bpb = bits_per_byte(model, validation, torch.tensor(token_bytes(tokenizer)), accelerator.gather)
        # Under FSDP no process has the whole weights to draw a sample with.
        sample = "" if accelerator.is_fsdp2 else f" | {complete(model, tokenizer, 'There is a', max_new_tokens=32)!r}"
    console.progress(f"step {step:,} | {bpb:.4f} bits per byte{sample}")
    return {"bpb": bpb}


def save(model, weights: dict, tokenizer, moments: dict | None, folder) -> None:
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if moments:
        save_moments(moments, folder)


if __name__ == "__main__":
    recipe.run_stage(main)
