"""The pretraining loop in one process: precision, passes, signals, and steps that must not be applied."""

import copy
import math
import os
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from nanohf.data.packing import PackedLoader
from nanohf.data.sources import text_stream
from nanohf.errors import RecipeError
from nanohf.hardware import device as hardware
from nanohf.hardware.device import choose_precision, compiled, peak_flops, use_onednn
from nanohf.optim.groups import build_optimizer
from nanohf.recipe.loading import load_recipe
from nanohf.recipe.schemas import PretrainConfig
from nanohf.runs.checkpoint_files import SEAL, newest_whole, seal
from nanohf.scaling.flops import flops_per_token
from nanohf.tokenizer.train_bpe import encode_documents
from nanohf.train.pretrain_horizon import Horizon
from nanohf.train.pretrain_loop import build_model, no_wrapped_forward, pretrain, train_step

CPU = "cpu"


@pytest.mark.parametrize(
    ("launched", "wanted", "native", "chosen"),
    [
        ("no", "auto", "AMX", "bf16"),
        ("no", "auto", None, "no"),
        ("no", "no", "AMX", "no"),
        ("no", "bf16", None, "bf16"),
        ("bf16", "no", None, "bf16"),
    ],
)
def test_the_launcher_then_the_recipe_then_the_machine(monkeypatch, capsys, launched, wanted, native, chosen):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda device_type: native)
    assert choose_precision(wanted, CPU) == chosen
    assert ("fp32 (" if chosen == "no" else "bf16 (") in capsys.readouterr().err


def test_a_bare_no_in_yaml_means_no(tmp_path):
    recipe_file = tmp_path / "pretrain.yaml"
    recipe_file.write_text("mixed_precision: no\n")
    assert load_recipe("pretrain", ["--config", str(recipe_file)]).settings.mixed_precision == "no"
    recipe_file.write_text("mixed_precision: fp16\n")
    with pytest.raises(RecipeError, match="must be auto, no or bf16"):
        load_recipe("pretrain", ["--config", str(recipe_file)])


def test_fp16_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(RecipeError, match="fp16 must be bf16 or no"):
        choose_precision("auto", CPU)


def test_without_a_compiler_the_model_is_not_compiled(monkeypatch, model, capsys):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/no/compiler"))
    monkeypatch.setenv("PATH", "/nowhere")
    torch._dynamo.reset()
    with torch._inductor.utils.fresh_cache():
        assert compiled(model, torch.device(CPU)) is model
    assert "not on this machine" in capsys.readouterr().err


def test_a_compiler_that_fails_in_the_backward_is_found_too(monkeypatch, model, capsys):
    def forward_only(function):
        return lambda x: function(x).detach()

    monkeypatch.setattr(torch, "compile", forward_only)
    assert compiled(model, torch.device(CPU)) is model
    assert "it trains without" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla T4", None),
        ("CPU", None),
    ],
)
def test_peak_by_name(name, peak):
    assert peak_flops(name, "bf16") == peak
    assert peak_flops(name, "no") is None


def test_flops_are_those_that_torch_counts(model):
    """Of the matrices to the operation; attention, which torch counts without the mask, for itself."""
    config, (rows, length) = model.config, (2, 64)
    ids = torch.randint(20, 500, (rows, length))
    model.set_attn_implementation("eager")
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    matrices = model.num_parameters() - model.get_input_embeddings().weight.numel()
    layers, width = config.num_hidden_layers, config.hidden_size
    masked = 12 * layers * width * length // 2
    per_token = flops_per_token(matrices, layers, width, length)
    assert counter.get_total_flops() == rows * length * (per_token + masked)


@pytest.fixture
def accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_eight_passes_of_a_row_are_one_pass_of_eight(accelerator, model):
    rows = torch.randint(20, 500, (8, 32))
    results = []
    for passes in (1, 8):
        trained = copy.deepcopy(model).train()
        prepared, optimizer = accelerator.prepare(trained, torch.optim.SGD(trained.parameters(), lr=1.0))
        loss, norm, *_ = train_step(accelerator, prepared, optimizer, iter(rows.chunk(passes)), passes, 0.5)
        results.append((loss, norm, trained))
    (one_loss, one_norm, one), (eight_loss, eight_norm, eight) = results
    assert eight_loss == pytest.approx(one_loss, rel=1e-6)
    assert eight_norm == pytest.approx(one_norm, rel=1e-5)
    assert one_norm > 0.5, "it clips"
    for (name, a), b in zip(one.named_parameters(), eight.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)
        assert not torch.equal(a, model.get_parameter(name))


CONFIG = PretrainConfig(
    max_length=32, per_device_train_batch_size=4, batch_tokens=256, eval_steps=100, save_steps=4, logging_steps=2,
    max_nonfinite_steps=3,
)  # fmt: skip


def trainer(
    accelerator, model, tokenizer, checkpoints, steps: int = 12, config=CONFIG, measure=lambda step: {"bpb": 1.0}
):
    """pretrain() over a copy of the model, the copy, its optimizer and the losses of its passes."""
    accelerator.free_memory()
    model = copy.deepcopy(model)
    loader = PackedLoader(text_stream("builtin", "train"), partial(encode_documents, tokenizer), 4, 32, buffer_size=16)
    optimizer = build_optimizer(model)
    go = partial(pretrain, accelerator, model, optimizer, loader, Horizon(steps, 2, 256), config, checkpoints, measure)
    return go, model, optimizer


def break_passes(model, passes: set[int], value: float) -> None:
    """The loss of these passes, counted from 1, is multiplied by a value."""
    count = 0

    def hook(module, args, output):
        nonlocal count
        count += 1
        if count in passes:
            output.loss = output.loss * value

    model.register_forward_hook(hook)


def same(model, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_not_applied(accelerator, model, tokenizer, tmp_path, capsys, value):
    """Of four steps the last has a broken pass: weights and optimizer are those of three."""
    go, three, optimizer_of_three = trainer(accelerator, model, tokenizer, tmp_path / "three", steps=4)
    stop_after(three, passes=5)
    assert go() is None
    go, four, optimizer_of_four = trainer(accelerator, model, tokenizer, tmp_path / "four", steps=4)
    break_passes(four, {7}, value)
    result = go()
    assert result["nonfinite_steps"] == 1
    assert "not applied (1 in a row)" in capsys.readouterr().err
    assert same(three, four)
    expected, found = (o.state_dict()["state"] for o in (optimizer_of_three, optimizer_of_four))
    assert all(torch.equal(expected[i][name], found[i][name]) for i in expected for name in expected[i])


def test_many_in_a_row_end_the_training(accelerator, model, tokenizer, tmp_path):
    go, broken, _ = trainer(accelerator, model, tokenizer, tmp_path)
    break_passes(broken, {3, 5, 13, 16, 18}, math.nan)  # steps 2 and 3, then 7 to 9
    with pytest.raises(
        RecipeError, match=r"max_nonfinite_steps=3 .* at step 9 .* checkpoint is .*step-00000004"
    ) as error:
        go()
    assert "nan" in str(error.value)
    assert newest_whole(tmp_path).name == "step-00000004", "none while steps fail"


def stop_after(model, passes: int) -> None:
    """SIGTERM in the midst of a pass."""
    count = 0

    def hook(module, args):
        nonlocal count
        count += 1
        if count == passes:
            os.kill(os.getpid(), signal.SIGTERM)

    model.register_forward_pre_hook(hook)


@pytest.mark.slow
def test_sigterm_saves_and_the_next_run_ends_as_if_it_had_not_been(accelerator, model, tokenizer, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    go, whole, _ = trainer(accelerator, model, tokenizer, tmp_path / "whole")
    expected = go()
    assert expected["tokens"] == 12 * 256
    assert [step for step, _ in expected["losses"]] == [2, 4, 6, 8, 10, 12]
    assert expected["validation"] == [[0, 1.0], [12, 1.0]]

    go, stopped, _ = trainer(accelerator, model, tokenizer, tmp_path / "stopped")
    stop_after(stopped, passes=11)
    assert go() is None
    assert "SIGTERM: stopped after step 6 with a checkpoint; the same command resumes" in capsys.readouterr().err
    assert newest_whole(tmp_path / "stopped").name == "step-00000006"
    assert signal.getsignal(signal.SIGTERM) is before

    go, resumed, _ = trainer(accelerator, model, tokenizer, tmp_path / "stopped")
    result = go()
    assert result["before"] == {"bpb": 1.0}
    assert [result[name] for name in ("losses", "validation")] == [expected[name] for name in ("losses", "validation")]
    assert same(resumed, whole)
    assert not same(resumed, stopped)


def test_a_checkpoint_is_read_without_unpickling_and_refused_where_it_does_not_fit(
    accelerator, model, tokenizer, small_model, tmp_path
):
    go, trained, _ = trainer(accelerator, model, tokenizer, tmp_path, steps=4)
    stop_after(trained, passes=1)
    assert go() is None
    (checkpoint,) = tmp_path.iterdir()
    assert {path.suffix for path in checkpoint.iterdir()} == {".json", ".safetensors"}
    other = small_model(1, len(tokenizer))
    go, *_ = trainer(accelerator, other, tokenizer, tmp_path, steps=4)
    with pytest.raises(RecipeError, match=r"step-00000001 is of another model than the recipe's: .*"):
        go()
    (checkpoint / "optimizer.safetensors").rename(checkpoint / "optimizer.bin")
    (checkpoint / SEAL).unlink()
    seal(checkpoint)
    go, *_ = trainer(accelerator, model, tokenizer, tmp_path, steps=4)
    with pytest.raises(RecipeError, match=r"has no optimizer\.safetensors: an older nanohf or FSDP wrote it"):
        go()


@pytest.mark.slow
def test_the_schedule_is_followed_and_gone_on_with(accelerator, model, tokenizer, tmp_path):
    """Stopped in its warmup: the rates to come follow from the recipe's, not from the last one."""
    config, seen = copy.copy(CONFIG), []
    config = replace(config, warmup_steps=2, warmdown_ratio=0.5)
    for stop in (True, False):
        go, trained, optimizer = trainer(accelerator, model, tokenizer, tmp_path, steps=8, config=config)
        wanted = {group["name"]: group["lr"] for group in optimizer.param_groups}
        optimizer.register_step_pre_hook(lambda its, *_: seen.append([dict(group) for group in its.param_groups]))
        if stop:
            stop_after(trained, passes=1)
        go()
    for step, (factor, groups) in enumerate(zip([0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25], seen, strict=True)):
        assert {g["name"]: g["lr"] for g in groups} == pytest.approx({name: r * factor for name, r in wanted.items()})
        (momentum,) = (group["momentum"] for group in groups if group["kind"] == "muon")
        assert momentum == pytest.approx(0.85 + 0.1 * step / 300)


def test_checkpoints_by_the_clock(accelerator, model, tokenizer, tmp_path):
    config = copy.copy(CONFIG)
    config = replace(config, save_steps=1000, save_minutes=1e-9, save_total_limit=3)
    go, _, _ = trainer(accelerator, model, tokenizer, tmp_path, steps=4, config=config)
    (tmp_path / ".step-00000007.partial").mkdir()  # a killed run's
    go()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000002", "step-00000003"]


@pytest.mark.slow
def test_a_text_source_that_dies_says_where_to_go_on(accelerator, model, tokenizer, tmp_path):
    go, *_ = trainer(accelerator, model, tokenizer, tmp_path)
    loader = go.args[3]
    read, chunks = loader._read, iter(range(100))

    def dies(place=None):
        if next(chunks) > 2:
            raise ConnectionError("the text source failed 6 times in a row")
        return read(place)

    loader._read = dies
    loader.buffer_size = 300
    go = partial(pretrain, *go.args[:4], Horizon(2000, 2, 256), *go.args[5:])
    with pytest.raises(RecipeError, match=r"failed 6 times in a row: the same command resumes from .*step-"):
        go()


def test_weights_that_are_not_finite_are_not_written(accelerator, model, tokenizer, tmp_path):
    """An update can break them where loss and gradient were finite."""
    go, broken, optimizer = trainer(accelerator, model, tokenizer, tmp_path)

    def overflow(*_):
        if newest_whole(tmp_path):
            broken.lm_head.weight.data[0, 0] = math.inf

    optimizer.register_step_post_hook(overflow)
    config = replace(CONFIG, save_steps=1)
    go = partial(pretrain, *go.args[:5], config, *go.args[6:])
    with pytest.raises(RecipeError, match=r"step-00000002 is not written: 1 of its weights .*lm_head.*step-00000001;"):
        go()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.slow
def test_a_compiled_models_checkpoint_needs_no_compiler(accelerator, model, tokenizer, tmp_path):
    """Nor does a plain one's forbid it: torch_compile may change between two runs."""
    go, whole, _ = trainer(accelerator, model, tokenizer, tmp_path / "whole")
    go()
    for compiles in (True, False, True):  # each four steps further
        go, trained, _ = trainer(accelerator, model, tokenizer, tmp_path / "mixed")
        chosen = torch.compile(trained, backend="eager") if compiles else trained
        stop_after(trained, passes=7)
        partial(pretrain, go.args[0], chosen, *go.args[2:])()
    newest = newest_whole(tmp_path / "mixed")
    assert not [name for name in load_file(newest / "model.safetensors") if "_orig_mod" in name or "module." in name]
    assert same(trained, whole)


@pytest.mark.parametrize("rounds", [False, True])
def test_products_of_fp32_stay_fp32(monkeypatch, rounds):
    """On any machine; `rounds` plays one where oneDNN takes the permission it is given."""
    exact = torch.Tensor.__matmul__
    with monkeypatch.context() as patch:
        if rounds:
            patch.setattr(torch.Tensor, "__matmul__", lambda a, b: exact(a.bfloat16().float(), b.float()))
        use_onednn(CPU)
    assert torch.get_float32_matmul_precision() in (("highest",) if rounds else ("highest", "medium"))
    a, b = torch.randn(512, 256), torch.randn(256, 512)
    assert (a @ b - (a.double() @ b.double())).abs().max() < 1e-4  # rounded to bf16 it would be 0.1


def test_where_a_gpu_works_products_stay_as_they_are():
    use_onednn("cuda")
    assert torch.get_float32_matmul_precision() == "highest"


def test_logits_are_not_copied_to_fp32(tokenizer):
    """Under bf16 the loss alone is fp32; accelerate's own wrapper would copy the largest tensor there is."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    model = build_model(PretrainConfig(depth=1, num_attention_heads=2), tokenizer)
    with no_wrapped_forward(accelerator):
        model = accelerator.prepare(model)
    ids = torch.randint(len(tokenizer), (2, 16))
    with accelerator.autocast():
        output = model(input_ids=ids, labels=ids)
    assert (output.logits.dtype, output.loss.dtype) == (torch.bfloat16, torch.float32)
    AcceleratorState._reset_state(reset_partial_state=True)
