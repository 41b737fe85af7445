"""lm-eval with our tasks and our engine, so that a model keeps its calculator while it is scored."""

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lm_eval import simple_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager, get_task_dict

TASKS = Path(__file__).parent / "tasks"


@register_model("nanohf")
class NanoHFLM(HFLM):
    """lm-eval's Hugging Face model, except that it generates with `generate`: the engine's, which has a calculator."""

    def __init__(self, *args, generate: Callable, **kwargs):
        super().__init__(*args, **kwargs)
        self.generate = generate

    def tok_decode(self, tokens, skip_special_tokens=False):
        """With special tokens, as the reward reads a completion: without them `#### ` and two calls are one number."""
        return super().tok_decode(tokens, skip_special_tokens=skip_special_tokens)

    def generate_until(self, requests, disable_tqdm: bool = False):
        """An answer gets at most half of the positions that the model was trained on: the question needs some too."""
        for request in requests:
            context, wanted = request.args
            wanted = normalize_gen_kwargs(wanted, self.max_gen_toks)
            wanted["max_gen_toks"] = min(wanted["max_gen_toks"], self.max_length // 2)
            request.arguments = (context, wanted)
        return super().generate_until(requests, disable_tqdm)

    def _model_generate(self, context, max_length, stop, attention_mask=None, temperature=0.0, **kwargs):
        prompts = [row[mask.bool()].tolist() for row, mask in zip(context, attention_mask, strict=True)]
        new = max_length - context.shape[1]
        heat = temperature if kwargs.get("do_sample") else 0.0
        groups = self.generate(prompts, max_new_tokens=new, temperature=heat)
        output = context.new_full((len(prompts), new), self.tokenizer.pad_token_id)
        for row, (completion,) in zip(output, groups, strict=True):
            row[: len(completion.ids)] = torch.tensor(completion.ids)
        return torch.cat([context, output], dim=1)


def find_tasks(tasks: list[str]) -> TaskManager | None:
    """What knows the tasks, ours (nanohf_*) and the harness's, whose 15,000 files are read only if one is wanted.

    Raises:
        ValueError: an unknown task.
    """
    if not tasks:
        return None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    ours_only = all(task.startswith("nanohf_") for task in tasks)
    manager = TaskManager(include_path=str(TASKS), include_defaults=not ours_only)
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        ours = ", ".join(path.stem for path in TASKS.glob("nanohf_*.yaml"))
        raise ValueError(f"tasks={unknown} are unknown to lm-eval and to us; ours are {ours}")
    return manager


def run_tasks(
    model, tokenizer, generate: Callable, tasks: list[str], manager: TaskManager, limit: int | None, batch_size: int
) -> dict[str, dict]:
    """Each task's main metric: {task: {"metric", "value", "stderr", "n"}}. manager: `find_tasks(tasks)`."""
    if not tasks:
        return {}
    device = str(model.device)
    lm = NanoHFLM(pretrained=model, tokenizer=tokenizer, generate=generate, batch_size=batch_size, device=device)
    results = simple_evaluate(
        lm,
        tasks=tasks,
        samples=drawn(tasks, manager, limit),
        task_manager=manager,
        apply_chat_template=True,
        log_samples=False,
        bootstrap_iters=100,
    )
    return {task: main_metric(results, task) for task in tasks}


def drawn(tasks: list[str], manager: TaskManager, limit: int | None) -> dict[str, list[int]] | None:
    """At most `limit` rows of each task, drawn by a fixed seed: MMLU's first thousand are eight of its 57 subjects."""
    if limit is None:
        return None
    sizes = {name: len(list(task.eval_docs)) for name, task in members(get_task_dict(tasks, manager))}
    return {name: sorted(random.Random(0).sample(range(n), min(limit, n))) for name, n in sizes.items()}


def task_questions(task: str, limit: int | None) -> list[str]:
    """What the rows that `run_tasks` scores ask, without examples; those of a group are its members'."""
    manager = find_tasks([task])
    rows = drawn([task], manager, limit) or {}
    texts = []
    for name, member in members(get_task_dict([task], manager)):
        docs = member.eval_docs
        texts += [member.doc_to_text(docs[i]) for i in rows.get(name, range(len(docs)))]
    return [text for text in texts if isinstance(text, str)]


def members(tasks: dict) -> Iterator[tuple]:
    """The tasks with their names, those inside groups (mmlu and its subjects) too."""
    for name, task in tasks.items():
        yield from members(task) if isinstance(task, dict) else [(name, task)]


def main_metric(results: dict, task: str) -> dict:
    """The task's first metric with its standard error and the number of rows it was measured on."""
    values = results["results"][task]
    key = next(k for k in values if "," in k and "stderr" not in k)
    name, _, kind = key.partition(",")
    stderr = values.get(f"{name}_stderr,{kind}")
    return {
        "metric": name,
        "value": values[key],
        "stderr": stderr if isinstance(stderr, float) else None,
        "n": results["n-samples"][task]["effective"] if task in results["n-samples"] else None,
    }
