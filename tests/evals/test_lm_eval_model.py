"""Tasks are found before anything is scored, and drawn alike whether they stand alone or in a group."""

from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from records import FIGURES, a_recipe

from nanohf.data.sources import builtin_examples
from nanohf.errors import RecipeError
from nanohf.evals.lm_eval_model import TASKS, NanoHFLM, drawn, find_tasks, task_questions
from nanohf.generation.engine import Engine
from nanohf.runs import run_folder as runs
from nanohf.stages import evaluate

RECIPE = Path(__file__).parents[2] / "recipes/demo/evaluate.yaml"


@pytest.mark.slow
def test_what_is_missing_is_said_before_the_first_stage_is_scored(tmp_path):
    runs.finish(a_recipe(tmp_path, "pretrain"), FIGURES, lambda folder: None)  # no model in it: loading it would fail
    argv = ["--config", str(RECIPE), "--run_dir", str(tmp_path), "--stages", "pretrain"]
    with pytest.raises(RecipeError, match="no finished stage 'grpo'"):
        evaluate.main([*argv, "grpo"])
    with pytest.raises(RecipeError, match=r"no_such_task.* unknown"):
        evaluate.main([*argv, "--tasks", "no_such_task"])


def test_rows_are_drawn_from_the_tasks_of_a_group_too(tmp_path):
    (tmp_path / "both.yaml").write_text("group: both\ntask: [nanohf_toy_problems, nanohf_toy_choices]\n")
    manager = TaskManager(include_path=[str(TASKS), str(tmp_path)], include_defaults=False)
    alone = drawn(["nanohf_toy_problems", "nanohf_toy_choices"], manager, 5)
    assert drawn(["both"], manager, 5) == alone
    assert [len(rows) for rows in alone.values()] == [5, 5]


def test_what_a_task_asks_is_the_rows_that_are_scored():
    asked = builtin_examples("problems", "test", 1000)["question"]
    assert task_questions("nanohf_toy_problems", None) == list(asked)
    (drawn_rows,) = drawn(["nanohf_toy_problems"], find_tasks(["nanohf_toy_problems"]), 5).values()
    assert task_questions("nanohf_toy_problems", 5) == [asked[i] for i in drawn_rows]


def test_it_keeps_to_the_positions_that_were_trained(model, tokenizer):
    """A question longer than the model reads, and room for an answer longer than the model: neither is a failure."""
    model.config.max_position_embeddings = 24
    engine, seen = Engine(model, tokenizer), []

    def generate(prompts, **options):
        seen.extend((len(prompt), options["max_new_tokens"]) for prompt in prompts)
        return engine.generate(prompts, **options)

    lm = NanoHFLM(pretrained=model, tokenizer=tokenizer, generate=generate, batch_size=2, device="cpu")
    assert lm.max_length == 24
    texts = ["How many?", "There are 12 boys and 7 girls in the old school near the river. How many are there? " * 3]
    wanted = {"until": [], "do_sample": False, "max_gen_toks": 256}
    requests = [Instance("generate_until", {}, (text, dict(wanted)), i) for i, text in enumerate(texts)]
    assert len(lm.generate_until(requests, disable_tqdm=True)) == 2
    assert [new for _, new in seen] == [12, 12]
    assert sorted(length for length, _ in seen)[1] == 12
