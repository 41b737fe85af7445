"""Two processes over gloo, launched as a user launches them, against one: DDP with a sharded optimizer, and FSDP2."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import two_processes
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nanohf.data.packing import PackedLoader
from nanohf.data.sources import text_stream
from nanohf.errors import RecipeError
from nanohf.evals.bpb import bits_per_byte
from nanohf.hardware.device import check_fsdp2, refuse_fsdp
from nanohf.optim import muon
from nanohf.recipe.loading import load_recipe
from nanohf.recipe.schemas import PretrainConfig
from nanohf.runs.run_folder import OPTIMIZER
from nanohf.stages import sft
from nanohf.stages import tokenizer as tokenizer_stage
from nanohf.tokenizer.train_bpe import encode_documents, token_bytes
from nanohf.train.trl_arguments import training_arguments

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
RECIPE = {
    "depth": 1,
    "num_attention_heads": 2,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "batch_tokens": 512,
    "max_steps": 8,
    "save_steps": 3,
    "eval_tokens": 1024,
    "keep_optimizer": True,
    "mixed_precision": "no",
}
SETTINGS = json.dumps({"weight_decay": 0.1, "normuon": 0.9})


def start(config: str, mode: str, folder: Path, *arguments: str) -> subprocess.Popen:
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        ROOT / f"accelerate_configs/{config}",
    ]
    options = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    command = [*launch, *options, two_processes.__file__, mode, folder, *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(part) for part in command], env=os.environ | ENVIRONMENT, **streams)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """All that is launched, at once: most of its time goes into imports."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("ddp", "fsdp2", "bf16", "whole", "killed")}
    text = ["--config", str(ROOT / "recipes/demo/tokenizer.yaml"), "--vocab_size", "512", "--max_chars", "100000"]
    tokenizer_stage.main([*text, "--run_dir", str(folders["whole"])])
    recipe = RECIPE | {"tokenizer": folders["whole"] / "tokenizer"}
    arguments = [
        "--config",
        ROOT / "recipes/demo/pretrain.yaml",
        *(p for k, v in recipe.items() for p in (f"--{k}", v)),
    ]
    started = [
        start("ddp.yaml", "train", folders["ddp"], SETTINGS),
        start("fsdp2.yaml", "train", folders["fsdp2"], SETTINGS),
        start("fsdp2.yaml", "bf16", folders["bf16"], *arguments),
        start("fsdp2.yaml", "stage", folders["whole"], *arguments),
        start("fsdp2.yaml", "killed", folders["killed"], *arguments),
    ]
    try:
        for process in started:
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.terminate()  # the launcher ends its workers
    return folders


@pytest.fixture
def single(tmp_path, monkeypatch):
    monkeypatch.setattr(muon, "_working_dtype", muon._working_dtype)  # train changes it
    AcceleratorState._reset_state(reset_partial_state=True)  # another test's precision would stay
    return lambda **settings: two_processes.train(tmp_path, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("ddp", "DistributedType.MULTI_CPU"), ("fsdp2", "DistributedType.FSDP")])
def test_two_processes_are_one(runs, single, name, kind):
    one = single(**json.loads(SETTINGS))
    ranks = [json.loads((runs[name] / f"found-{rank}.json").read_text()) for rank in range(2)]
    for found in ranks:
        assert (found["type"], found["world_size"]) == (kind, 2)
        assert found["losses"] == pytest.approx(one["losses"], abs=1e-5, rel=0)
        assert found["state"] == pytest.approx(one["state"] / 2, rel=0.05)
        assert found["resumed"] == found["losses"][10:]
        assert found["named"] == pytest.approx(one["named"], rel=1e-3)
        assert found["carried"]
        assert found["same"], "a resumed run ends with the weights of an uninterrupted one"
    assert sum(found["state"] for found in ranks) == one["state"]
    assert [found["collected"] for found in ranks] == [one["state"], 0], "rank 0 alone holds what is to be written"
    assert ranks[1]["packed"] < 100, "step counts at most"
    assert one["losses"][-1] < 0.7 * one["losses"][0]


CHAT = """
stage: {stage}
model_name_or_path: {folder}/model
mixture: [{{dataset: {folder}/talks, converter: messages}}]
eval_mixture: [{{dataset: {folder}/talks, split: test, converter: messages}}]
max_length: 64
max_steps: 4
logging_steps: 1
per_device_train_batch_size: 1
lr_scale: 0.1
bf16: false
"""


def on_one_and_two_processes(module: str, recipe: Path, folder: Path, stage: str) -> list[dict]:
    """The records of a stage that was launched twice."""
    records = []
    for processes, config in (("1", "cpu.yaml"), ("2", "ddp.yaml")):
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
        command = [*launch, ROOT / "accelerate_configs" / config, "--num_processes", processes]
        command += ["--main_process_port", "0", "-m", f"nanohf.stages.{module}"]
        command += ["--config", recipe, "--run_dir", folder / processes]
        done = subprocess.run(
            [str(part) for part in command], env=os.environ | ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        records.append(json.loads((folder / processes / stage / "stage.json").read_text()))
    return records


PRETRAIN = """
dataset: {folder}/text
tokenizer: {folder}/model
depth: 2
preset: modern
num_attention_heads: 2
max_length: {length}
per_device_train_batch_size: 1
batch_tokens: {batch}
max_steps: 4
logging_steps: 1
eval_tokens: {batch}
lr_scale: 0.1
mixed_precision: "no"
torch_compile: false
"""


@pytest.mark.slow
def test_two_processes_of_pretrain_are_one(folder, tokenizer):
    """By the recipe alone. Each process packs documents of its own into rows, so here all documents fill a row alike.

    With real text the rows of a step are others with another number of processes, and so is its loss.
    """
    text = "Mia has 3 plums and finds 4 in the kitchen. How many plums are there now?"
    (folder / "text").mkdir()
    for split in ("train", "validation"):
        (folder / f"text/{split}.jsonl").write_text((json.dumps({"text": text}) + "\n") * 40)
    length = len(encode_documents(tokenizer, [text])[0])
    (folder / "pretrain.yaml").write_text(PRETRAIN.format(folder=folder, length=length, batch=4 * length))
    one, two = on_one_and_two_processes("pretrain", folder / "pretrain.yaml", folder, "pretrain")
    assert (one["world_size"], two["world_size"], one["tokens"]) == (1, 2, 16 * length)
    assert two["tokens"] == one["tokens"]
    assert [step for step, _ in two["losses"]] == [1, 2, 3, 4]
    losses = [loss for _, loss in one["losses"]]
    assert [loss for _, loss in two["losses"]] == pytest.approx(losses, abs=1e-4)
    assert losses[-1] < losses[0] - 0.01
    assert two["after"] == pytest.approx(one["after"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "batch"), [("midtrain", "packing: true\nbatch_tokens: 128\n"), ("sft", "conversations_per_step: 4\n")]
)
def test_two_processes_of_midtrain_and_sft_are_one(folder, stage, batch):
    """By the recipe alone: the same rows per step, so the same losses. At full rates Muon's bf16 magnifies rounding."""
    (folder / "chat.yaml").write_text(CHAT.format(stage=stage, folder=folder) + batch)
    one, two = on_one_and_two_processes("sft", folder / "chat.yaml", folder, stage)
    assert (one["world_size"], two["world_size"]) == (1, 2)
    assert [step for step, _ in two["losses"]] == [1, 2, 3, 4]
    assert [loss for _, loss in two["losses"]] == pytest.approx([loss for _, loss in one["losses"]], abs=1e-4)
    assert two["after"] == pytest.approx(one["after"], abs=1e-4)


@pytest.mark.slow
def test_eight_passes_are_one(single):
    assert single(passes=8)["losses"] == pytest.approx(single()["losses"], abs=1e-5, rel=0)


def test_one_process_goes_on_from_the_state_of_two(runs):
    """What DDP's main process saves is the whole state, as one process would have written it."""
    two = torch.load(runs["ddp"] / "state/optimizer.bin", weights_only=True)["state"]
    whole = two_processes.build_optimizer(two_processes.tiny()).param_groups
    shapes = [p.shape for group in whole for p in group["params"]]
    assert [next(t.shape for k, t in state.items() if k != "step") for state in two.values()] == shapes


def test_the_stage_under_fsdp2(runs):
    """Killed and resumed it saves what it saves without interruption, and what it saves is what it measured."""
    killed, whole = runs["killed"] / "pretrain", runs["whole"] / "pretrain"
    weights = load_file(killed / "model.safetensors")
    expected = load_file(whole / "model.safetensors")
    assert all(torch.equal(expected.pop(name), t) for name, t in weights.items())
    assert not expected
    kept, expected = load_file(killed / OPTIMIZER), load_file(whole / OPTIMIZER)
    assert all(torch.equal(expected.pop(name), t) for name, t in kept.items())
    assert not expected
    assert {name: t.shape for name, t in weights.items()} == {
        name.removesuffix(f".{kind}"): t.shape
        for name, t in kept.items()
        if (kind := name.rpartition(".")[2]) in ("momentum", "exp_avg")
    }

    tokenizer = AutoTokenizer.from_pretrained(killed)
    model = AutoModelForCausalLM.from_pretrained(killed)
    batches = RECIPE["eval_tokens"] // (RECIPE["per_device_train_batch_size"] * RECIPE["max_length"])
    loader = PackedLoader(text_stream("builtin", "validation"), lambda t: encode_documents(tokenizer, t), 2, 64)
    rows = [next(loader) for _ in range(batches)]
    bpb = bits_per_byte(model, rows, torch.tensor(token_bytes(tokenizer)))
    record = json.loads((killed / "stage.json").read_text())
    assert record["after"] == pytest.approx(bpb, rel=1e-5)
    assert record["world_size"] == json.loads((whole / "stage.json").read_text())["world_size"] == 2


def test_fsdp2_in_bf16_casts_what_one_process_casts(runs, tmp_path):
    """The residual stream, cos and sin stay fp32."""
    AcceleratorState._reset_state(reset_partial_state=True)
    one = two_processes.bf16_losses(Accelerator(cpu=True, mixed_precision="bf16"), tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    single, sharded = (json.loads((folder / "dtypes.json").read_text()) for folder in (tmp_path, runs["bf16"]))
    assert sharded == single == {"hidden": "torch.float32", "rotary": ["torch.float32"] * 2}
    assert json.loads((runs["bf16"] / "losses.json").read_text()) == pytest.approx(one, abs=1e-4)


def test_what_fsdp2_cannot_do_is_said():
    check_fsdp2(Accelerator(cpu=True), PretrainConfig())
    check_fsdp2(SimpleNamespace(is_fsdp2=True), PretrainConfig(torch_compile=False))
    with pytest.raises(RecipeError, match="torch_compile=true does not go with FSDP"):
        check_fsdp2(SimpleNamespace(is_fsdp2=True), PretrainConfig())


def test_fsdp1_is_refused_and_by_other_stages_fsdp2_too(monkeypatch, tmp_path):
    """By these before anything is tokenised; by whichever way it was asked for."""
    refuse_fsdp()
    recipe = load_recipe("sft", ["--config", str(ROOT / "recipes/demo/sft.yaml")])
    with pytest.raises(RecipeError, match="by the pretrain stage only"):
        training_arguments(replace(recipe, trl=replace(recipe.trl, fsdp="full_shard")), str(tmp_path))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RecipeError, match="by the pretrain stage only"):
        check_fsdp2(SimpleNamespace(is_fsdp2=False), PretrainConfig())
    with pytest.raises(RecipeError, match="by the pretrain stage only"):
        sft.main(["--config", str(ROOT / "recipes/demo/sft.yaml"), "--run_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
