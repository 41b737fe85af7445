"""Stage 6: score every stage of the run side by side: bits per byte, pass@1 on word problems, lm-eval tasks.

    accelerate launch --config_file accelerate_configs/cpu.yaml -m nanohf.stages.evaluate \
        --config recipes/demo/evaluate.yaml
"""

import time
from functools import partial
from itertools import islice

import torch
from datasets import Dataset
from transformers import AutoTokenizer

from nanohf import console
from nanohf.data.packing import PackedLoader
from nanohf.data.sources import text_stream
from nanohf.data.word_problem_source import WordProblemSource
from nanohf.data.word_problems import problems, prompt_ids
from nanohf.errors import RecipeError
from nanohf.evals.bpb import bits_per_byte
from nanohf.evals.lm_eval_model import find_tasks, run_tasks
from nanohf.evals.pass_at_k import score, shown, without_details
from nanohf.generation.engine import Engine
from nanohf.hardware.device import device_type
from nanohf.model import NanoHFForCausalLM
from nanohf.recipe.loading import Recipe, load_recipe
from nanohf.runs import run_folder as runs
from nanohf.runs.disk_full import disk_full_said
from nanohf.runs.lock import stage_lock
from nanohf.tokenizer.render import readable
from nanohf.tokenizer.train_bpe import encode_documents, token_bytes
from nanohf.train.together import together


def main(argv: list[str]) -> None:
    recipe = load_recipe("evaluate", argv)
    with disk_full_said(recipe.run_dir), stage_lock(recipe.run_dir), together(recipe):
        if console.is_first():
            work(recipe)


def work(recipe: Recipe) -> None:
    config = recipe.settings
    started = time.perf_counter()
    folders = {stage: runs.resolve(config.run_dir, stage) for stage in config.stages}
    try:
        manager = find_tasks(config.tasks)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    tests = {source.label: test_problems(config, source) for source in config.ladder}
    stages = {}
    for stage, folder in folders.items():
        model, tokenizer = load_model(folder)
        engine = Engine(model, tokenizer)
        stages[stage] = {
            "parameters": model.num_parameters(),
            "bpb": held_out_bpb(config, model, tokenizer),
            "word_problems": {name: solve(config, engine, test) for name, test in tests.items()},
            "tasks": run_tasks(
                model, tokenizer, engine.generate, config.tasks, manager, config.limit, config.batch_size
            ),
        }
        console.progress(f"{stage}: {stages[stage]['bpb']:.4f} bits per byte")
        for name, result in stages[stage]["word_problems"].items():
            console.progress(f"{stage}: word problems {name}: {shown(result)}")

    figures = {
        "stages": stages,
        "finished": {stage: runs.done(config.run_dir, stage).finished for stage in config.stages},
        "conversation": conversation(engine, next(iter(tests.values()))),
        "minutes": (time.perf_counter() - started) / 60,
        "device": model.device.type,
    }
    runs.finish_evaluation(recipe, figures)


def test_problems(config, source: WordProblemSource) -> Dataset:
    found, left_out = problems(source, "test", min(config.problems, config.limit or config.problems))
    if left_out:
        console.warning(f"{len(left_out):,} word problems of {source.label} are left out: {left_out.summary()}")
    return found


def load_model(folder: str):
    model = NanoHFForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.to(device_type())  # type: ignore[arg-type]  # declared as a function, not a method
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def held_out_bpb(config, model, tokenizer) -> float:
    source = (config.text_dataset_config, config.text_column, config.text_split)
    stream = text_stream(config.text_dataset, "validation", *source)
    loader = PackedLoader(stream, partial(encode_documents, tokenizer), rows=8, length=config.max_length)
    batches = islice(loader, max(1, config.eval_tokens // (8 * config.max_length)))
    return bits_per_byte(model, batches, torch.tensor(token_bytes(tokenizer)))


def solve(config, engine: Engine, test) -> dict:
    result = score(
        engine.generate,
        engine.tokenizer.decode,
        [seen(engine, prompt_ids(engine.tokenizer, row["prompt"])) for row in test],
        list(test["answer"]),
        config.num_generations,
        config.batch_size,
        seed=config.seed,
        max_new_tokens=config.max_completion_length,
        temperature=config.temperature,
        top_k=config.top_k,
    )
    return without_details(result)


def seen(engine: Engine, prompt: list[int]) -> list[int]:
    """A prompt, or where it is longer than the model's context its end: a base model may have seen short rows only."""
    return prompt[1 - engine.model.config.max_position_embeddings :]


def conversation(engine: Engine, test) -> str:
    """What the last stage says, greedily, to the first held-out problem for which it uses its calculator."""
    for row in islice(test, 20):
        ids = seen(engine, prompt_ids(engine.tokenizer, row["prompt"]))
        (completion,) = engine.generate([ids], temperature=0.0, max_new_tokens=256)[0]
        text = engine.tokenizer.decode(ids + completion.ids)
        if completion.calls:
            break
    return readable(text)


if __name__ == "__main__":
    console.run_as_program(main)
