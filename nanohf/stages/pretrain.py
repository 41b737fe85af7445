"""Stage 2: pretrain the depth-scaled GPT from random weights.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.pretrain \
        --config recipes/demo/pretrain.yaml
"""

from functools import partial
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoTokenizer

from nanohf import console
from nanohf.data.hub_names import pretrained
from nanohf.data.packing import PackedLoader
from nanohf.data.source_state import source_state
from nanohf.data.sources import skipped_files, text_stream
from nanohf.evals.bpb import bits_per_byte
from nanohf.generation.engine import complete
from nanohf.hardware.device import (
    check_fsdp2,
    choose_precision,
    compiled,
    device_name,
    device_type,
    peak_flops,
    peak_memory,
    require_all_processes,
    use_onednn,
)
from nanohf.optim.groups import build_optimizer
from nanohf.optim.named_state import named_state
from nanohf.recipe.credentials import without_credentials
from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.runs import run_folder as runs
from nanohf.runs.checkpoint_files import last_good
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import stage_lock
from nanohf.tokenizer.train_bpe import encode_documents, token_bytes
from nanohf.train.compute import training_flops
from nanohf.train.finite_weights import refuse_nonfinite
from nanohf.train.optimizer_handover import save_moments
from nanohf.train.pretrain_checkpoints import progress_of
from nanohf.train.pretrain_horizon import Horizon, derive_horizon, kept_horizon
from nanohf.train.pretrain_loop import build_model, pretrain
from nanohf.train.resuming import chosen_checkpoint, warn_of_changed_data
from nanohf.train.sample import text_sample
from nanohf.train.together import together


def main(argv: list[str]) -> None:
    recipe = load_recipe("pretrain", argv)
    with disk_full_said(recipe.run_dir), stage_lock(recipe.run_dir), together(recipe):
        work(recipe)


def work(recipe: Recipe) -> None:
    config = recipe.settings
    accelerator = open_accelerator(recipe)
    checkpoints = runs.claim(recipe)

    tokenizer = AutoTokenizer.from_pretrained(**pretrained(runs.resolve(config.run_dir, config.tokenizer)))
    tokenizer.model_max_length = config.max_length
    model = build_model(config, tokenizer)
    parameters = model.num_parameters()
    console.progress(f"model: depth {config.depth}, {parameters:,} parameters, vocabulary {len(tokenizer):,}")
    rank, processes = accelerator.process_index, accelerator.num_processes
    sources = source_state([config.dataset])
    horizon = chosen_horizon(config, len(tokenizer), processes, checkpoints, sources)

    # The same rows with any number of processes, shared out between them.
    batches = max(processes, config.eval_tokens // (config.per_device_train_batch_size * config.max_length))
    held_out = open_loader(config, tokenizer, "validation", config.per_device_train_batch_size)
    validation = list(islice(held_out, batches))[rank::processes]
    optimizer = build_optimizer(
        model,
        lr_scale=horizon.lr_scale,
        matrix_lr=config.matrix_lr,
        embedding_lr=config.embedding_lr,
        lm_head_lr=config.lm_head_lr,
        weight_decay=config.weight_decay,
        normuon=config.normuon,
        sharded=True,
    )
    result = pretrain(
        accelerator,
        compiled(model, accelerator.device) if config.torch_compile else model,
        optimizer,
        open_loader(config, tokenizer, "train", horizon.rows, rank, processes),
        horizon,
        config,
        checkpoints,
        measure=partial(measure, accelerator, tokenizer, validation, model),  # not compiled: its lengths vary
        peak_rate=peak_rate(accelerator, model, config.max_length),
        sources=sources,
    )

    weights = accelerator.get_state_dict(model)  # of all processes, under FSDP
    moments = named_state(optimizer, model) if config.keep_optimizer else None  # likewise
    accelerator.end_training()
    if result and accelerator.is_main_process:
        figures = result | figures_of(config, accelerator, len(tokenizer), parameters, result)
        whole = build_model(config, tokenizer)
        whole.load_state_dict(weights)
        figures |= {"flops": result["tokens"] * training_flops(whole, config.max_length)}
        figures |= {"sample": text_sample(whole, tokenizer)}
        runs.finish(recipe, figures, partial(save, whole, tokenizer, moments))


def open_accelerator(recipe: Recipe) -> Accelerator:
    """Precision, trackers and seed as the recipe says."""
    config = recipe.settings
    accelerator = Accelerator(
        mixed_precision=choose_precision(config.mixed_precision, device_type()),
        log_with=None if config.report_to == "none" else config.report_to,
        project_config=ProjectConfiguration(logging_dir=str(recipe.run_dir / "logs/pretrain")),  # of TensorBoard
    )
    require_all_processes(accelerator.num_processes)
    use_onednn(accelerator.device.type)
    check_fsdp2(accelerator, config)
    if accelerator.is_fsdp2:  # autocast alone casts, as without sharding; FSDP would make a bf16 residual stream
        accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy()
    settings = without_credentials(vars(config))
    space = {"trackio": {"space_id": config.trackio_space_id}} if config.trackio_space_id else {}
    accelerator.init_trackers("nanohf", {key: str(value) for key, value in settings.items()}, init_kwargs=space)
    set_seed(config.seed)
    return accelerator


def chosen_horizon(config, vocab_size: int, processes: int, checkpoints: Path, sources: dict) -> Horizon:
    """The checkpoint's, where there is one to resume from; else what the recipe implies."""
    if newest := chosen_checkpoint(checkpoints):
        progress = progress_of(newest)
        warn_of_changed_data(progress["sources"], sources)
        return kept_horizon(progress["horizon"], processes)
    return derive_horizon(config, vocab_size, processes)


def figures_of(config, accelerator, vocab_size: int, parameters: int, result: dict) -> dict:
    """For the record, beside what the loop has measured."""
    return {
        "depth": config.depth,
        "vocab_size": vocab_size,
        "parameters": parameters,
        "device": accelerator.device.type,
        "device_name": device_name(accelerator.device),
        "world_size": accelerator.num_processes,
        "peak_memory_bytes": peak_memory(accelerator.device.type),
        "mixed_precision": accelerator.mixed_precision,
        "metric": "bits per byte",
        "before": result["before"]["bpb"],
        "after": result["after"]["bpb"],
        "skipped_files": sorted(skipped_files),
    }


def open_loader(config, tokenizer, part: str, rows: int, rank: int = 0, processes: int = 1) -> PackedLoader:
    return PackedLoader(
        text_stream(config.dataset, part, config.dataset_config, config.text_column, config.split, config.seed),
        partial(encode_documents, tokenizer),
        rows,
        config.max_length,
        rank,
        processes,
    )


def peak_rate(accelerator, model, length: int) -> float | None:
    """Tokens/s of all processes if their devices ran at their peak; None if that is not known."""
    name = torch.cuda.get_device_name(accelerator.device) if accelerator.device.type == "cuda" else "CPU"
    if (peak := peak_flops(name, accelerator.mixed_precision)) is None:
        return None
    flops = training_flops(model, length)
    console.progress(f"peak of {name} in bf16: {peak / 1e12:,.0f} TFLOP/s; {flops:,} FLOPs per token")
    return peak * accelerator.num_processes / flops


def measure(accelerator, tokenizer, validation: list[torch.Tensor], model, step: int) -> dict:
    """Bits per byte on the same validation rows every time, and a sample to look at."""
    with accelerator.autocast():
        bpb = bits_per_byte(model, validation, torch.tensor(token_bytes(tokenizer)), accelerator.gather)
        # Under FSDP no process has the whole weights to draw a sample with.
        sample = "" if accelerator.is_fsdp2 else f" | {complete(model, tokenizer, 'There is a', max_new_tokens=32)!r}"
    console.progress(f"step {step:,} | {bpb:.4f} bits per byte{sample}")
    return {"bpb": bpb}


def save(model, tokenizer, moments: dict | None, folder) -> None:
    refuse_nonfinite(model.named_parameters(), "pretrain", last_good(runs.checkpoints(folder.parent, "pretrain")))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if moments:
        save_moments(moments, folder)


if __name__ == "__main__":
    console.run_as_program(main)
