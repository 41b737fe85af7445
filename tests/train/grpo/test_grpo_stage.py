"""The grpo stage as a process: killed and resumed, on two processes, with other optimizers, with vLLM's settings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_run import ENVIRONMENT, ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from nanohf.convert.formats import convert
from nanohf.data.question_split import place
from nanohf.data.word_problems import prompt_ids
from nanohf.errors import RecipeError
from nanohf.generation.engine import Engine
from nanohf.recipe.schemas import PretrainConfig
from nanohf.report.run_report import write_report
from nanohf.stages import evaluate, grpo
from nanohf.train.grpo.pass_at_k_callback import PassAtK
from nanohf.train.pretrain_loop import build_model

WORDS = ("no", "one", "two", "three", "four")
PAIRS = [(a, b) for a in range(5) for b in range(4)]
RECIPE = {
    "dataset_config": None,
    "num_generations": 4,
    "problems_per_step": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 6,
    "top_k": 50,
    "beta": 0.0,
    "scale_rewards": "none",
    "loss_type": "per_word_problem",
    "lr_scale": 0.2,
    "max_steps": 12,
    "eval_every": 4,
    "validation": 0.3,
    "eval_problems": 8,
    "eval_generations": 2,
    "per_device_eval_batch_size": 4,
    "logging_steps": 1,
    "save_steps": 2,
}


def question(a: int, b: int) -> dict:
    """In words: numbers are masked before it is decided what a question is for."""
    return {"question": f"What is {WORDS[a]} plus {WORDS[b]} modulo 3?", "answer": f"#### {(a + b) % 3}"}


@pytest.fixture(scope="module")
def guesser(tokenizer, tmp_path_factory) -> Path:
    """A folder with a model that answers every question with `#### ` and 0, 1 or 2 by chance, and problems for it."""
    torch.manual_seed(0)
    model = build_model(PretrainConfig(depth=1, preset="classic", num_attention_heads=2, max_length=24), tokenizer)
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": question(a, b)["question"]}]) for a, b in PAIRS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    digits = torch.Generator().manual_seed(0)
    for _ in range(40):
        rows, labels = [], []
        for prompt in prompts:
            digit = torch.randint(3, (1,), generator=digits).item()
            said = [*tokenizer.encode(f"#### {digit}", add_special_tokens=False), tokenizer.eos_token_id]
            rows.append(torch.tensor(prompt + said))
            labels.append(torch.tensor([-100] * len(prompt) + said))
        ids = torch.nn.utils.rnn.pad_sequence(rows, True, tokenizer.pad_token_id)
        labels = torch.nn.utils.rnn.pad_sequence(labels, True, -100)
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("guesser")
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "problems").mkdir()
    lines = [json.dumps(question(a, b) | {"source": "odd" if b % 2 else "even"}) + "\n" for a, b in PAIRS]
    (folder / "problems/train.jsonl").write_text("".join(lines))
    return folder


def command(guesser: Path, run_dir: Path, **changes) -> list[str]:
    one = {"dataset": str(guesser / "problems"), "dataset_rows": len(PAIRS)} if "word_problems" not in changes else {}
    recipe = RECIPE | {"model_name_or_path": str(guesser / "model")} | one | changes
    run_dir.parent.mkdir(exist_ok=True)
    file = run_dir.parent / f"{run_dir.name}.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in recipe.items() if v is not None}))
    return ["-m", "nanohf.stages.grpo", "--config", str(file), "--run_dir", str(run_dir)]


def stage(guesser: Path, run_dir: Path, *launcher: str, **changes) -> tuple[dict, str]:
    """The finished stage's record and what it printed."""
    result = subprocess.run(
        [sys.executable, *launcher, *command(guesser, run_dir, **changes)],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((run_dir / "grpo/stage.json").read_text()), result.stdout + result.stderr


def passes(record: dict) -> list[dict]:
    return [{k: v for k, v in result.items() if k != "seconds"} for result in record["word_problems"]]


def ladder(guesser: Path) -> dict:
    """Two sources, and most problems that teach nothing are passed over."""
    sources = [
        {"dataset": str(guesser / "problems"), "name": name, "where": {"source": [name]}} for name in ("odd", "even")
    ]
    return {"word_problems": sources, "skip_settled": 0.7}


@pytest.fixture(scope="module")
def whole(guesser, tmp_path_factory):
    """Four epochs, uninterrupted: folder, record, output."""
    run_dir = tmp_path_factory.mktemp("run") / "whole"
    return run_dir, *stage(guesser, run_dir, **ladder(guesser))


@pytest.fixture
def last_is_best(monkeypatch):
    """Few samples of few word problems would choose any step, for what is to be seen of training itself."""
    monkeypatch.setattr(PassAtK, "pass_at_1", lambda self, step: step)


@pytest.mark.slow
def test_killed_in_its_second_epoch_it_ends_as_if_it_had_not_been(guesser, whole, tmp_path):
    run_dir = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, *command(guesser, run_dir, **ladder(guesser))],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (run_dir / "checkpoints/grpo/checkpoint-4/trainer_state.json").is_file():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run_dir / "grpo").exists()

    record, output = stage(guesser, run_dir, **ladder(guesser))
    assert "resumed from checkpoint-" in output
    assert record["rewards"] == whole[1]["rewards"]
    assert record["timed_steps"] <= 8
    assert record["tokens"] < whole[1]["tokens"]  # of this process
    assert passes(record) == passes(whole[1])
    assert (record["chosen"], record["drawn"]) == (whole[1]["chosen"], whole[1]["drawn"])
    assert [result["step"] for result in record["word_problems"]] == [0, 4, 8, 12]
    assert (run_dir / "grpo/samples.md").read_text() == (whole[0] / "grpo/samples.md").read_text()
    weights, resumed = (load_file(d / "grpo/model.safetensors") for d in (whole[0], run_dir))
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    begun = load_file(guesser / "model/model.safetensors")
    assert not torch.equal(begun["lm_head.weight"], weights["lm_head.weight"])


def test_the_best_step_is_the_result_and_the_report_says_so(whole):
    """By the mean over the sources, the earliest of equals; what is reported of it was sampled again."""
    run_dir, record, _ = whole
    rates = {p["step"]: sum(s["pass@1"][0] for s in p["sources"].values()) / 2 for p in record["word_problems"]}
    best = max(rates, key=lambda step: (rates[step], -step))
    assert (record["chosen"]["step"], record["before"]) == (best, rates[0])
    assert record["after"] == record["chosen"]["pass@1"]
    groups = {name: drawn["groups"] for name, drawn in record["drawn"].items()}
    assert sum(groups.values()) == 12 * 4
    report = write_report(run_dir)
    assert f"its result is that of step {best} of 12" in report
    assert f"| odd | {groups['odd']} |" in report


def test_evaluate_scores_each_source_on_what_was_kept_apart(guesser, whole, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(whole[0], run_dir)
    sources = [source | {"held_out": 0.3} for source in ladder(guesser)["word_problems"]]
    recipe = {"stages": ["grpo"], "word_problems": sources, "num_generations": 2, "max_completion_length": 6}
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(recipe | {"eval_tokens": 64, "max_length": 16}))
    evaluate.main(["--config", str(tmp_path / "evaluate.yaml"), "--run_dir", str(run_dir)])
    scores = json.loads((run_dir / "results.json").read_text())["stages"]["grpo"]["word_problems"]
    kept = [b % 2 for a, b in PAIRS if place(question(a, b)["question"]) < 0.3]
    assert {name: of["n"] for name, of in scores.items()} == {"odd": kept.count(1), "even": kept.count(0)}
    mean, low, high = (100 * value for value in scores["even"]["pass@1"])
    report = write_report(run_dir)
    assert "| stage | bits per byte | odd pass@1 | even pass@1 |" in report
    assert f" | {mean:.1f}% [{low:.1f}, {high:.1f}] |\n" in report


def test_a_model_that_cannot_do_it_is_refused_and_may_be_forced(guesser, tmp_path, monkeypatch):
    """Answers that it never gives. Nothing is lost: the same folder goes on with force."""
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "hard"
    folder.mkdir()
    rows = [question(a, b) | {"answer": "#### 77"} for a, b in PAIRS]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"dataset": str(folder), "max_steps": 1}
    with pytest.raises(RecipeError, match=r"(?s)only 0% of .* all are wrong in 100%.*--set grpo\.force=true"):
        grpo.main(command(guesser, tmp_path / "run", **options)[2:])
    assert not (tmp_path / "run/grpo").exists()
    grpo.main(command(guesser, tmp_path / "run", **options, force=True)[2:])
    record = json.loads((tmp_path / "run/grpo/stage.json").read_text())
    assert record["chosen"]["step"] == 0


def test_it_says_where_the_time_went(whole):
    run_dir, record, _ = whole
    seconds = record["seconds_by_phase"]
    assert set(seconds) == {"generation", "reward", "forward", "backward", "optimizer", "evaluation", "other"}
    assert all(s > 0 for s in seconds.values())
    assert seconds["evaluation"] >= sum(result["seconds"] for result in record["word_problems"]) * 0.99
    training = sum(seconds.values()) - seconds["evaluation"]
    assert training <= record["minutes"] * 60 * 1.01
    assert record["timed_steps"] == 12
    report = write_report(run_dir)
    assert "| grpo, 12 steps | generation | reward | forward | backward | optimizer | other | all of a step |" in report
    assert f"| {seconds['generation'] / 12:.3f} |" in report


@pytest.mark.slow
def test_it_claims_the_longest_prompt_and_answer(guesser, whole):
    """And its cache is on, which the trainer had switched off."""
    tokenizer = AutoTokenizer.from_pretrained(whole[0] / "grpo")
    prompts = [prompt_ids(tokenizer, [{"role": "user", "content": question(a, b)["question"]}]) for a, b in PAIRS]
    config = json.loads((whole[0] / "grpo/config.json").read_text())
    assert config["max_position_embeddings"] == tokenizer.model_max_length == max(map(len, prompts)) + 6
    assert config["use_cache"]


@pytest.mark.slow
def test_two_processes_are_one(guesser, tmp_path):
    """The same word problems, samples and rewards in each step, the same pass@k, and weights as far as Muon's bf16."""
    config = ("--config_file", str(ROOT / "accelerate_configs/ddp.yaml"))
    two = ("--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0")
    launchers = {"one": (), "two": ("-m", "accelerate.commands.launch", *config, *two)}
    few = {"bf16": False, "lr_scale": 0.02, "max_steps": 6, "per_device_train_batch_size": 4} | ladder(guesser)
    found = {name: stage(guesser, tmp_path / name, *launcher, **few) for name, launcher in launchers.items()}
    (one, _), (two, output) = found["one"], found["two"]
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert [reward for _, reward in two["rewards"]] == pytest.approx([reward for _, reward in one["rewards"]], abs=1e-4)
    assert len({reward for _, reward in one["rewards"]}) > 1
    assert passes(two) == passes(one)
    assert [result["step"] for result in two["word_problems"]] == [0, 4, 6]
    assert output.count("step 0 |") == 1
    begun, weights, expected = (
        load_file(f / "model.safetensors") for f in (guesser / "model", tmp_path / "two/grpo", tmp_path / "one/grpo")
    )
    for name, weight in expected.items():
        moved = (weight - begun[name]).norm()  # nowhere where the best step is the first one
        assert (weights[name] - weight).norm() <= 0.02 * moved, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "trl", "learning_rate": 1e-3, "lr_scale": None},
        {"use_peft": True, "lora_r": 4, "lr_scale": 1.0},
        {"optimizer": "trl", "learning_rate": 1e-2, "lr_scale": None, "use_peft": True},
    ],
    ids=["AdamW", "LoRA", "LoRA and AdamW"],
)
@pytest.mark.usefixtures("last_is_best")
def test_other_optimizers_and_lora_leave_a_plain_model(guesser, tmp_path, monkeypatch, changes):
    monkeypatch.chdir(ROOT)
    exact = {"bf16": False}  # three answers are about as likely: rounding would choose another of them
    arguments = command(guesser, tmp_path / "run", **changes | exact | {"max_steps": 3, "eval_every": 9})
    grpo.main(arguments[2:])
    folder = tmp_path / "run/grpo"
    assert not list(folder.glob("adapter*"))
    begun, ended = (load_file(f / "model.safetensors") for f in (guesser / "model", folder))
    assert begun.keys() == ended.keys()
    moved = {name for name in begun if not torch.equal(begun[name], ended[name])}
    assert moved == {name for name in begun if "layers" in name} if "use_peft" in changes else moved == begun.keys()
    after = json.loads((folder / "stage.json").read_text())["chosen"]["sources"]["problems"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = next(q for a, b in PAIRS if place(q := question(a, b)["question"]) < RECIPE["validation"])
    prompt = prompt_ids(tokenizer, [{"role": "user", "content": asked}])
    (said,) = Engine(model, tokenizer).generate([prompt], 1, 6, seed=42 + grpo.FRESH)[0]
    assert tokenizer.decode(prompt + said.ids) == after["example"]  # what the trained model said, the saved one says


@pytest.mark.parametrize("lora", [{}, {"use_peft": True, "lora_r": 2, "lora_dropout": 0.2}], ids=["whole", "LoRA"])
@pytest.mark.slow
@pytest.mark.usefixtures("last_is_best")
def test_the_seed_decides(guesser, tmp_path, monkeypatch, lora):
    """Adapters, dropout, the order of the word problems, samples: the same weights bit for bit."""
    monkeypatch.chdir(ROOT)
    few = {"bf16": False, "lr_scale": 1.0, "max_steps": 2, "eval_every": 9, "eval_problems": 1, "eval_generations": 1}
    weights = []
    for run, seed in (("first", 1), ("again", 1), ("other", 2)):
        grpo.main(command(guesser, tmp_path / run, **few | lora | {"seed": seed})[2:])
        weights.append(load_file(tmp_path / run / "grpo/model.safetensors"))
    first, again, other = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_nanochat_model_learns_too(guesser, tmp_path, monkeypatch):
    """What vLLM needs; here our engine generates."""
    monkeypatch.chdir(ROOT)
    assert convert(guesser / "model", tmp_path / "nanochat", "nanochat") == 0
    grpo.main(command(guesser, tmp_path / "run", model_name_or_path=str(tmp_path / "nanochat"), max_steps=2)[2:])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run/grpo").config.model_type == "nanochat"


class TestVLLM:
    def test_it_needs_a_gpu(self, guesser, tmp_path, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr("nanohf.recipe.post_training_schemas.find_spec", lambda name: True)
        with pytest.raises(RecipeError, match="use_vllm needs a CUDA GPU"):
            grpo.main(command(guesser, tmp_path / "run", use_vllm=True, vllm_mode="colocate")[2:])
        assert not (tmp_path / "run").exists()

    def test_it_needs_vllm(self, guesser, tmp_path, monkeypatch):
        if find_spec("vllm"):
            pytest.skip("it is installed here")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr("nanohf.hardware.device.multiplies_bf16", lambda device: None)
        with pytest.raises(RecipeError, match="needs vLLM"):
            grpo.main(command(guesser, tmp_path / "run", use_vllm=True, bf16=False, use_cpu=True)[2:])

    @pytest.fixture
    def on_a_gpu(self, monkeypatch):
        """As if a GPU and vLLM were here, up to where the trainer is made."""
        made = {}

        def trainer(**options):
            made.update(options)
            raise InterruptedError

        monkeypatch.setattr(grpo, "WordProblemTrainer", trainer)
        monkeypatch.setattr("nanohf.recipe.post_training_schemas.WordProblemConfig.errors_with", lambda *_: [])
        monkeypatch.setattr("nanohf.train.trl_arguments.check_vllm", lambda recipe: None)
        return made

    def test_it_generates_in_place_of_our_engine(self, guesser, tmp_path, on_a_gpu):
        convert(guesser / "model", tmp_path / "nanochat", "nanochat")
        with pytest.raises(InterruptedError):
            grpo.main(
                command(guesser, tmp_path / "run", model_name_or_path=str(tmp_path / "nanochat"), use_vllm=True)[2:]
            )
        assert on_a_gpu["rollout_func"] is None
        assert on_a_gpu["args"].use_vllm

    def test_it_does_not_know_nanohf_models(self, guesser, tmp_path, on_a_gpu):
        with pytest.raises(RecipeError, match="nanohf convert"):
            grpo.main(command(guesser, tmp_path / "run", use_vllm=True)[2:])
        assert not on_a_gpu
