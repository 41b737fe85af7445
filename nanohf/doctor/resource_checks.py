"""The cheap part: is there enough memory and disk? Formulas only, no model and no data."""

import shutil
import subprocess
import sys
from functools import cache

from nanohf.doctor.check_result import Result, attempt
from nanohf.hardware.device import multiplies_bf16
from nanohf.plan.stage_memory import Size, model_size, needed, work_of
from nanohf.recipe.loading import Recipe
from nanohf.recipe.stage_names import MODEL_STAGES
from nanohf.runs import run_folder as runs
from nanohf.scaling.activations import cache_bytes

CERTAINLY = 3.0  # times the free memory: no error of the estimate makes that fit


def quick(recipes: dict[str, Recipe], todo: list[str]) -> list[Result]:
    """What `nanohf run` looks at before its stages `todo`. It fails only on what is certain.

    That is a disk without room for the files, and several times more memory than there is, for the estimate is rough.
    """
    if not (size := model_size(recipes)):
        return []
    memory_results = [memory_enough(stage, recipes[stage], size, CERTAINLY) for stage in MODEL_STAGES if stage in todo]
    return [*memory_results, disk_enough(recipes, size, todo)]


def resources(recipes: dict[str, Recipe]) -> list[Result]:
    """Memory and disk for the stages of these recipes, those that are finished left out."""
    size = model_size(recipes)
    if not size:
        return []
    todo = [stage for stage in MODEL_STAGES if stage in recipes and not runs.done(recipes[stage].run_dir, stage)]
    results = [r for stage in todo for r in attempt(stage, "memory", memory_enough, stage, recipes[stage], size)]
    return results + list(attempt("run", "disk", disk_enough, recipes, size, todo))


def memory_enough(stage: str, recipe: Recipe, size: Size, too_much: float = 1.0) -> Result:
    """Weights, gradients, optimizer, and logits and activations of one micro-batch, against what is free now.

    It fails above too_much times what is free.
    """
    import torch

    cuda = torch.cuda.is_available()
    # To ask a GPU would leave a CUDA context in this process.
    batch, sequences = work_of(stage, recipe, bf16=cuda or multiplies_bf16("cpu") is not None)
    cached = cache_bytes(size.depth, sequences, batch.length)
    need, free = needed(size, batch, sequences), available_memory(cuda)
    figure = (
        f"about {gigabytes(need)} of {gigabytes(free)} free: weights, gradients and optimizer "
        f"{gigabytes(size.bytes.total)}, {batch.rows} rows x {batch.length} tokens "
        f"{gigabytes(size.micro_batch(batch))}{f', keys and values {gigabytes(cached)}' if sequences else ''}"
    )
    fix = "lower per_device_train_batch_size; a step stays as large"
    if need > too_much * free:
        return Result("fail", stage, "memory", figure, f"more than there is; {fix}")
    if need > 0.8 * free:
        return Result("warn", stage, "memory", figure, f"above 80% of it; if it runs out, {fix}")
    return Result("ok", stage, "memory", figure)


@cache
def available_memory(cuda: bool) -> int:
    """Bytes free now: the GPU's, or the machine's.

    The GPU is asked by a process of its own: a CUDA context takes half a gigabyte of it, as long as its process lives,
    and that of `nanohf run` lives as long as all stages.
    """
    import psutil

    if not cuda:
        return psutil.virtual_memory().available
    asked = [sys.executable, "-c", "import torch; print(torch.cuda.mem_get_info()[0])"]
    return int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)


def disk_enough(recipes: dict[str, Recipe], size: Size, todo: list[str]) -> Result:
    """The results of all stages to come and the most checkpoints kept at a time, against the free disk.

    A stage's checkpoints are deleted when it finishes; while one is written, the ones it replaces are still there.
    Those of an interrupted run count as free, because new ones take their place.
    """
    run_dir = next(iter(recipes.values())).run_dir
    todo = [stage for stage in MODEL_STAGES if stage in todo]
    result, checkpoint = size.bytes.weights, size.bytes.weights + size.bytes.optimizer
    kept = {stage: recipes[stage].training.save_total_limit for stage in todo}
    most = max((limit or 1 for limit in kept.values()), default=0) + 1 if todo else 0
    need = len(todo) * result + most * checkpoint

    folder = run_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    replaced = sum(path.stat().st_size for path in (run_dir / "checkpoints").rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free + replaced
    figure = (
        f"{gigabytes(need)} of {gigabytes(free)} free: {len(todo)} results of {gigabytes(result)}, "
        f"{most} checkpoints of {gigabytes(checkpoint)}"
    )
    if need > free:
        why = f"too little disk in {folder}; free some, lower save_total_limit, or work in another folder"
        return Result("fail", "run", "disk", figure, why)
    if unlimited := [stage for stage, limit in kept.items() if limit is None]:
        why = f"{', '.join(unlimited)} keeps every checkpoint, {gigabytes(checkpoint)} each; set save_total_limit"
        return Result("warn", "run", "disk", figure, why)
    return Result("ok", "run", "disk", figure)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
