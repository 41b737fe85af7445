"""A hundred mistakes, each answered by a helpful message and status 2, before any work and leaving nothing behind."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_run import ROOT

from nanohf.cli import main

SECONDS = 10
CHAT = "{dataset: builtin, config: problems, rows: 5, converter: gsm8k}"
SFT = f"stage: sft\nmixture: [{CHAT}]\neval_mixture: [{CHAT}]\nconversations_per_step: 8\n"


def flags(*options: str) -> list[str]:
    return ["run", "recipe", *options]


def setting(key: str, value: object) -> list[str]:
    return flags("--set", f"{key}={value}")


# What is typed, and words of the answer.
TYPED = [
    (setting("pretrain.dpeth", 3), "Did you mean 'depth'?"),
    (setting("pretrian.depth", 3), "Did you mean 'pretrain'?"),
    (setting("grpo.loss_type", "grop"), "loss_type='grop' must be one of per_word_problem, grpo"),
    (setting("grpo.scale_rewards", "sum"), "scale_rewards='sum' must be one of group, batch, none"),
    (setting("sft.packing_strategy", "ffd"), "packing_strategy='ffd' must be one of bfd, bfd_split, wrapped"),
    (setting("grpo.num_generation", 4), "Did you mean 'num_generations'?"),
    (flags("--set", "pretrain.depth"), "STAGE.KEY=VALUE"),
    (flags("--set", "grpo="), "STAGE=RECIPE"),
    (flags("--set", "grpo=grpo_fst"), "grpo_fst.yaml cannot be read"),
    (flags("--from", "pretain"), "Did you mean 'pretrain'?"),
    (flags("--until", "rlhf"), "tokenizer, pretrain, midtrain, sft, grpo, evaluate"),
    (flags("--from", "sft", "--until", "pretrain"), "--from sft comes after --until pretrain"),
    (flags("--name", "../elsewhere"), "must be a plain name"),
    (flags("--name", "."), "must be a plain name"),
    (flags("--accelerate-config", "nope.yaml"), "does not exist"),
    (["run", "recipes/d5"], "no such recipe folder"),
    (["run", "empty"], "cannot be read"),
    (["doctor", "recipez"], "no such recipe folder"),
    (["plan", "recipez"], "no such recipe folder"),
    (["plan", "--depth", "0"], "depth=0 must be positive"),
    (["plan", "--depth", "-1"], "depth=-1 must be positive"),
    (["plan", "--depth", "4", "--vocab-size", "0"], "vocab_size=0 must be positive"),
    (["plan", "--depth", "4", "--batch-tokens", "0"], "batch_tokens=0 must be positive"),
    (["plan", "recipes/d4", "--preset", "modern"], "the recipes say preset"),
    (["push", "runs/none", "--to", "me/x"], "runs/none"),
    (["push", "empty", "--to", "me/x"], "has no finished stage"),
    (["push", "empty", "sftt", "--to", "me/x"], "unknown stage 'sftt'"),
    (["push", "empty", "--to", "me"], "USER/NAME"),
    (["push", "empty", "--to", "me/a b"], "Repo id must use"),
    (["chat", "runs/none"], "runs/none"),
    (["chat", "empty"], "holds no finished stage and no model"),
    (["convert", "empty", "there"], "empty"),
    (["convert", "nowhere", "there"], "nowhere"),
    # The tokenizer's keys
    (setting("tokenizer.vocab_size", 100), "hold 256 bytes + 9 special tokens"),
    (setting("tokenizer.vocab_size", 1000), "Try 1,024"),
    (setting("tokenizer.vocab_size", "many"), "must be a whole number"),
    (setting("tokenizer.max_chars", 0), "must be at least 1"),
    # Word problems from several sources
    (setting("grpo.validation", 0), "validation=0 must be above 0 and at most 0.5"),
    (setting("grpo.dataset_rows", 0), "dataset_rows=0 must be at least 1"),
    (setting("grpo.word_problems", "[builtin]"), "it must be a mapping with a dataset"),
    (setting("grpo.word_problems", "[{dataset: builtin, row: 5}]"), "Did you mean 'rows'?"),
    (setting("grpo.word_problems", "[{dataset: builtin, rows: 0}]"), "rows=0 must be at least 1"),
    (setting("grpo.word_problems", "[{dataset: builtin, rows: 5}]"), "dataset_rows: leave it out, word_problems lists"),
    (setting("evaluate.word_problems", "[{dataset: a/b}, {dataset: c/b}]"), "two sources called b; give each a name"),
    (setting("evaluate.word_problems", "[{dataset: a/b, held_out: 2}]"), "held_out=2 must be between 0 and 1"),
    (setting("evaluate.word_problems", "[{dataset: a/b, name: a|b}]"), "must be one line of text without |"),
    (setting("evaluate.word_problems", "[{dataset: a/b, where: {source: x}}]"), "must list the values to take"),
    (setting("evaluate.word_problems", "[{dataset: a/b, columns: {q: x}}]"), "must say what question and answer are"),
    (setting("evaluate.word_problems", "[{dataset: a/b, license: MIT!}]"), "license="),
    # Pretraining's
    (setting("pretrain.depth", "two"), "depth='two' must be a whole number"),
    (setting("pretrain.depth", 0), "depth=0 must be at least 1"),
    (setting("pretrain.depth", 2.5), "depth=2.5 must be a whole number"),
    (setting("pretrain.preset", "newest"), "must be classic or modern"),
    (setting("pretrain.max_length", 1), "max_length=1 must be at least 2"),
    (setting("pretrain.batch_tokens", 5000), "Try 4,096"),
    (setting("pretrain.max_steps", 0), "or -1 for the horizon"),
    (setting("pretrain.num_attention_heads", 5), "must divide hidden_size=128"),
    (setting("pretrain.max_grad_norm", -1), "must be at least 0"),
    (setting("pretrain.warmup_steps", -5), "must be at least 0"),
    (setting("pretrain.warmdown_ratio", 2), "must be between 0 and 1"),
    (setting("pretrain.normuon", 1), "from 0 to below 1"),
    (setting("pretrain.lr_scale", 0), "must be above 0"),
    (setting("pretrain.tokens_per_parameter", 0), "must be above 0"),
    (setting("pretrain.mixed_precision", "fp8"), "must be auto, no or bf16"),
    (setting("pretrain.report_to", "notes"), "must be none, trackio, tensorboard or wandb"),
    (setting("pretrain.report_to", "wandb"), "pip install wandb"),
    (setting("pretrain.torch_compile", "maybe"), "must be true or false"),
    (setting("pretrain.save_total_limit", 0), "must be at least 1"),
    (setting("pretrain.max_nonfinite_steps", 0), "must be at least 1"),
    # Midtraining's and SFT's
    (setting("sft.output_dir", "elsewhere"), "leave it out"),
    (setting("sft.resume_from_checkpoint", "last"), "leave it out"),
    (setting("sft.learning_rate", 0.1), "lr_scale"),
    (setting("sft.lr_scale", -1), "must be at least 0"),
    (setting("sft.lora_r", 4), "does nothing without use_peft: true"),
    (setting("sft.optimizer", "adam"), "must be muon or trl"),
    (setting("sft.report_to", "wandb"), "pip install wandb"),
    (setting("midtrain.max_length", 64.5), "must be a whole number"),
    (setting("midtrain.carry_optimizer", "true"), "keep_optimizer: true in pretrain's recipe"),
    (setting("midtrain.packing", "perhaps"), "must be true or false"),
    (setting("midtrain.lr_scheduler_type", "steep"), "steep"),
    # GRPO's
    (setting("grpo.num_generations", 5), "not a multiple of 64 rows"),
    (setting("grpo.top_k", -1), "top_k=-1 must be at least 0"),
    (setting("grpo.top_p", 0.9), "temperature and top_k only"),
    (setting("grpo.eval_every", 0), "at least 1"),
    (setting("grpo.skip_settled", 1), "from 0 to below 1"),
    (setting("grpo.num_iterations", 2), "Try 24"),
    (setting("grpo.use_vllm", "true"), "use_vllm needs"),
    (setting("grpo.dataset_config", "nonsense"), "the kinds are"),
    (setting("grpo.optimizer", "trl"), "does nothing with optimizer: trl"),
    (setting("grpo.dataset", "./nowhere"), "./nowhere"),
    # Evaluation's
    (setting("evaluate.tasks", "nanohf_gms8k"), "nanohf_gsm8k"),
    (setting("evaluate.stages", "tokenizer"), "pretrain, midtrain, sft and grpo"),
    (setting("evaluate.limit", 0), "at least 1"),
    (setting("evaluate.temperature", -1), "must be at least 0"),
    (setting("evaluate.text_dataset", "./nowhere"), "./nowhere"),
]


def recipe(name: str, text: str | bytes) -> Callable[[Path], None]:
    """Replaces a recipe of the folder."""
    content = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / "recipe" / name).write_bytes(content) and None


def texts(name: str, content: str | bytes) -> Callable[[Path], None]:
    """A folder mine/ with one file, as pretraining's and the tokenizer's text."""

    def make(folder: Path) -> None:
        (folder / "mine").mkdir()
        (folder / "mine" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        for stage in ("tokenizer", "pretrain"):
            path = folder / "recipe" / f"{stage}.yaml"
            path.write_text(path.read_text().replace("dataset: builtin", "dataset: ./mine"))

    return make


def rows(*table: dict, **source: object) -> Callable[[Path], None]:
    """A folder mine/ of conversations, as SFT's only source."""

    def make(folder: Path) -> None:
        (folder / "mine").mkdir()
        lines = [json.dumps(row) for row in table]
        (folder / "mine/train.jsonl").write_text("\n".join(lines) + "\n")
        entry = json.dumps({"dataset": "./mine"} | source)
        (folder / "recipe/sft.yaml").write_text(SFT.replace(CHAT, entry, 1))

    return make


# What lies in the folder, and words of the answer.
WRITTEN = [
    (recipe("sft.yaml", "a: [1"), "sft.yaml is not valid YAML"),
    (recipe("sft.yaml", "- 1"), "must map keys to values"),
    (recipe("sft.yaml", SFT.encode("utf-16")), "is not UTF-8"),
    (recipe("sft.yaml", "stage: sft"), "mixture is empty"),
    (recipe("sft.yaml", "mixture: builtin"), "must be a list"),
    (recipe("sft.yaml", "base: missing.yaml"), "missing.yaml cannot be read"),
    (recipe("sft.yaml", "base: sft.yaml"), "leads back to this recipe"),
    (recipe("sft.yaml", "base: 3"), "must be the path of another recipe"),
    (recipe("sft.yaml", SFT.replace("gsm8k}]\neval", "gsm9k}]\neval")), "gsm9k"),
    (recipe("sft.yaml", SFT.replace("rows: 5", "rows: 0")), "set rows"),
    (recipe("sft.yaml", SFT.replace("rows: 5", "rowz: 5")), "rowz"),
    (recipe("sft.yaml", SFT.replace("builtin", "./no")), "./no"),
    (recipe("sft.yaml", SFT.replace("rows: 5", "rows: 5, epochs: 0")), "epochs=0 must be above 0"),
    (recipe("sft.yaml", SFT + "lora_target_modules: all-linear\n"), "must be a list"),
    (texts("a.jsonl", ""), "mine"),
    (texts("a.jsonl", '{"text": "  "}\n' * 200), "with text"),
    (texts("a.jsonl", '{"body": "one"}\n' * 200), "text_column"),
    (texts("a.jsonl", "not json\n" * 3), "mine"),
    (texts("a.docx", b"PK\x03\x04"), "no data files"),
    (rows({"messages": [{"role": "user", "content": "a"}]}, converter="messages"), "malformed"),
]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "recipes/demo", tmp_path / "recipe")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nanohf.pipeline.launch", lambda command: pytest.fail("a stage was started"))
    return tmp_path


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


def answered(workspace: Path, capsys, argv: list[str], says: str) -> None:
    before, started = files(workspace), time.monotonic()
    assert main(argv) == 2
    assert time.monotonic() - started < SECONDS
    error = capsys.readouterr().err
    assert says in error
    assert "error: " in error
    assert "Traceback" not in error
    assert files(workspace) == before


def test_there_are_a_hundred():
    assert len(TYPED) + len(WRITTEN) >= 100


@pytest.mark.parametrize(
    ("argv", "says"), TYPED, ids=lambda value: " ".join(value[-1:]) if isinstance(value, list) else ""
)
def test_typed(workspace, capsys, argv, says):
    answered(workspace, capsys, argv, says)


@pytest.mark.parametrize(("write", "says"), WRITTEN, ids=lambda value: value if isinstance(value, str) else "")
def test_written(workspace, capsys, write, says):
    write(workspace)
    answered(workspace, capsys, ["run", "recipe"], says)
