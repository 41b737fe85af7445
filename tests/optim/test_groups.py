"""The optimizer over a model: which parameter is trained how, and state that goes on bit for bit."""

import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model

from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.optim.groups import build_groups, build_optimizer


def tiny(**fields) -> NanoHFForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2}
    return NanoHFForCausalLM(NanoHFConfig.from_depth(2, vocab_size=64, **(sizes | fields)))


def by_rule(model, **settings) -> dict[str, set[str]]:
    names = {p: name for name, p in model.named_parameters()}
    groups = build_groups(model.named_parameters(), model.config.hidden_size, **settings)
    assert all(group["kind"] == ("muon" if group["name"] == "matrices" else "adamw") for group in groups)
    covered = [p for group in groups for p in group["params"]]
    assert len(covered) == len(set(covered))
    assert {names[p] for p in covered} == {name for name, p in model.named_parameters() if p.requires_grad}
    return {group["name"]: {names[p] for p in group["params"]} for group in groups}


def test_groups_cover_every_parameter_once():
    model = tiny()
    found = by_rule(model)
    assert found["embedding"] == {"model.embed_tokens.weight"}
    assert found["lm_head"] == {"lm_head.weight"}
    assert found["matrices"] == {name for name, _ in model.named_parameters() if ".layers." in name}
    assert set(found) == {"embedding", "lm_head", "matrices"}


def test_tied_embeddings_are_one_parameter():
    found = by_rule(tiny(tie_word_embeddings=True))
    assert found["embedding"] == {"model.embed_tokens.weight"}
    assert "lm_head" not in found


def test_lora_trains_its_adapters_alone():
    model = get_peft_model(tiny(), LoraConfig(target_modules="all-linear", r=2))
    found = by_rule(model)
    assert set(found) == {"matrices"}
    assert all(".lora_" in name for name in found["matrices"])
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = build_optimizer(model)
    for step in range(2):
        ids = torch.randint(64, (2, 8), generator=torch.Generator().manual_seed(step))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    assert all(p.isfinite().all() for p in model.parameters())


def test_vectors_go_to_adamw():
    named = [
        ("model.layers.0.scale", torch.nn.Parameter(torch.ones(4))),
        ("model.x.conv", torch.nn.Parameter(torch.ones(2, 2, 2))),
    ]
    (group,) = build_groups(named, 64)
    assert (group["name"], group["kind"], len(group["params"])) == ("other", "adamw", 2)


@pytest.mark.parametrize(("hidden_size", "width"), [(768, 1.0), (192, 2.0), (3072, 0.5)])
def test_learning_rates_are_nanochats(hidden_size, width):
    named = [
        (name, torch.nn.Parameter(torch.ones(2, 2)))
        for name in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.fc1.weight")
    ]
    groups = {group["name"]: group for group in build_groups(named, hidden_size)}
    assert groups["embedding"]["lr"] == pytest.approx(0.2 * width)
    assert groups["lm_head"]["lr"] == pytest.approx(0.004 * width)
    assert groups["matrices"]["lr"] == 0.02
    for name in ("embedding", "lm_head"):
        assert (groups[name]["betas"], groups[name]["eps"], groups[name]["weight_decay"]) == ((0.8, 0.95), 1e-10, 0.0)
    assert (groups["matrices"]["momentum"], groups["matrices"]["nesterov"]) == (0.95, True)
    scaled = {group["name"]: group["lr"] for group in build_groups(named, hidden_size, lr_scale=0.02)}
    assert scaled == pytest.approx({name: group["lr"] * 0.02 for name, group in groups.items()})


def test_groups_of_all_that_a_config_can_add():
    model = tiny(preset="modern", backout=True)
    found = by_rule(model)
    scales = {f"model.layers.{i}.{name}_scale" for i in (0, 1) for name in ("residual", "input")}
    assert found["value embeddings"] == {"model.layers.1.self_attn.value_embedding.weight"}
    assert found["scalars"] == {"model.backout_scale", *scales}
    blocks = {name for name, _ in model.named_parameters() if ".layers." in name}
    assert found["matrices"] == blocks - found["value embeddings"] - scales
    assert set(found) == {"embedding", "value embeddings", "lm_head", "matrices", "scalars"}


@pytest.mark.parametrize(("hidden_size", "width"), [(768, 1.0), (192, 2.0), (3072, 0.5)])
def test_learning_rates_of_what_is_neither_matrix_nor_embedding_nor_head(hidden_size, width):
    shapes = {"value_embedding.weight": (2, 2), "residual_scale": (1,), "bias": (4,)}
    named = [(f"model.layers.0.{name}", torch.nn.Parameter(torch.ones(shape))) for name, shape in shapes.items()]
    rates = {group["name"]: group["lr"] for group in build_groups(named, hidden_size)}
    assert rates == pytest.approx({"value embeddings": 0.1 * width, "scalars": 0.005, "other": 0.004 * width})


def test_every_setting_reaches_its_group():
    named = list(tiny(preset="modern").named_parameters())
    rates = {"matrix_lr": 0.03, "embedding_lr": 0.5, "lm_head_lr": 0.007}
    decay = {"weight_decay": 0.3, "normuon": 0.9}
    groups = {group["name"]: group for group in build_groups(named, 768, **rates, **decay)}
    expected = {"embedding": 0.5, "value embeddings": 0.25, "lm_head": 0.007, "matrices": 0.03, "scalars": 0.005}
    assert {name: group["lr"] for name, group in groups.items()} == expected
    assert {key: groups["matrices"][key] for key in decay} == decay
    assert all(group["weight_decay"] == 0 for name, group in groups.items() if name != "matrices")
    (plain,) = (group for group in build_groups(named, 768) if group["name"] == "matrices")
    assert {key: plain[key] for key in decay} == {"weight_decay": 0.0, "normuon": 0.0}


# ---------------------------------------------------------------- state


def train(model, optimizer, steps: range, accelerator=None) -> list[float]:
    losses = []
    for step in steps:
        ids = torch.randint(8, (4, 16), generator=torch.Generator().manual_seed(step)).cumsum(1) % 64
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        (accelerator.backward if accelerator else torch.Tensor.backward)(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_state_goes_on_bit_for_bit(tmp_path):
    model = tiny()
    optimizer = build_optimizer(model)
    train(model, optimizer, range(5))
    optimizer.param_groups[0]["lr"] *= 0.5
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    losses = train(model, optimizer, range(5, 10))

    resumed = tiny()
    again = build_optimizer(resumed)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(state["model"])
    again.load_state_dict(state["optimizer"])
    assert train(resumed, again, range(5, 10)) == losses
    assert same(model, resumed)


def test_state_goes_on_through_accelerate(tmp_path):
    def prepared():
        accelerator = Accelerator(cpu=True)
        model = tiny()
        return accelerator, *accelerator.prepare(model, build_optimizer(model))

    accelerator, model, optimizer = prepared()
    train(model, optimizer, range(5), accelerator)
    accelerator.save_state(str(tmp_path))
    losses = train(model, optimizer, range(5, 10), accelerator)

    accelerator, resumed, again = prepared()
    accelerator.load_state(str(tmp_path))
    assert train(resumed, again, range(5, 10), accelerator) == losses
    assert same(model, resumed)


def test_the_loss_falls():
    model = tiny()
    losses = train(model, build_optimizer(model), range(60))
    assert losses[0] == pytest.approx(torch.tensor(64.0).log().item(), rel=0.02)
    assert sum(losses[-5:]) / 5 < 0.75 * losses[0]
