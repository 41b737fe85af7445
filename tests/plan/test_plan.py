"""The plan against figures worked out by hand, and against ledgers as runs leave them."""

import json
import re
import subprocess
import sys

import pytest

from nanohf.cli import main
from nanohf.plan.plan_text import make_plan, render, table
from nanohf.plan.recipe_plan import recipe_plan
from nanohf.runs.ledger import last_speeds
from nanohf.scaling import horizon
from nanohf.scaling import parameters as counts
from nanohf.scaling.horizon import pretraining
from nanohf.scaling.memory import memory
from nanohf.scaling.stage_steps import Part, chat_stage, problem_stage

# depth: (hidden_size, heads, parameters at 65,536, parameters at 12,288), from 2·V·C + 12·depth·C² by hand
LADDER = {
    1: (64, 1, 8_437_760, 1_622_016),
    2: (128, 1, 17_170_432, 3_538_944),
    3: (192, 2, 26_492_928, 6_045_696),
    4: (256, 2, 36_700_160, 9_437_184),
    6: (384, 3, 60_948_480, 20_054_016),
    10: (640, 5, 133_038_080, 64_880_640),
    20: (1280, 10, 560_988_160, 424_673_280),
}


@pytest.mark.parametrize("depth", LADDER)
def test_counts_by_hand(depth):
    width, heads, large, small = LADDER[depth]
    assert counts.hidden_size(depth) == width
    assert counts.num_attention_heads(depth) == heads
    assert counts.parameters(depth, 65_536).total == counts.closed_formula(depth, 65_536) == large
    assert counts.parameters(depth, 12_288).total == counts.closed_formula(depth, 12_288) == small


def test_the_honest_1m_and_5m():
    assert counts.parameters(2, 2_048).total == 917_504
    p = counts.parameters(4, 4_096)
    assert (p.embedding, p.lm_head, p.attention, p.mlp) == (1_048_576, 1_048_576, 1_048_576, 2_097_152)
    assert (p.total, p.scaling) == (5_242_880, 4_194_304)


@pytest.mark.parametrize("depth", range(1, 65))
def test_heads_divide_into_even_sizes_and_no_smaller_count_would(depth):
    width, heads = counts.hidden_size(depth), counts.num_attention_heads(depth)
    first = max(1, (width + 127) // 128)
    assert width % heads == 0
    assert width // heads % 2 == 0
    assert not [n for n in range(first, heads) if width % n == 0 and width // n % 2 == 0]
    assert heads == first or depth % 2


def test_heads_where_the_formula_does_not_divide():
    assert [counts.num_attention_heads(depth) for depth in (5, 7, 9, 11, 13)] == [4, 4, 6, 8, 8]


def test_horizon_and_shards():
    d4 = counts.parameters(4, 4_096)
    assert pretraining(d4).tokens == 104_857_600
    assert pretraining(d4, tokens_per_parameter=8).tokens == 41_943_040
    assert pretraining(d4, tokens_per_scaling_parameter=12).tokens == 12 * (4 * 12 * 256**2 + 4_096 * 256)
    # 100M tokens of 5M parameters are 480M characters, 2 shards
    assert horizon.characters(100_000_000) == 480_000_000
    assert horizon.shards(480_000_000) == 2
    assert [horizon.shards(n) for n in (1, 250_000_000, 250_000_001, 500_000_000)] == [1, 1, 2, 2]
    assert make_plan(4, 4_096).shards == 3  # 5,242,880 parameters are 503,316,480 characters: just over two


def test_steps_of_every_stage():
    assert horizon.rl_steps(7_473, 16, 1) == 467
    assert horizon.rl_steps(7_473, 16, 2) == 934  # an epoch drops its remainder, so not 14,946 // 16
    d4 = counts.parameters(4, 4_096)
    assert pretraining(d4, batch_tokens=32_768).steps == 3_200
    assert pretraining(d4, batch_tokens=32_769).steps == 3_199
    assert pretraining(d4, batch_tokens=2**30).steps == 1
    assert horizon.sft_steps(23_000, 32) == 719  # 718.75
    assert horizon.midtrain_steps(850_000, 600, 2**19) == 973  # 972.75
    steps = [(name, stage.steps) for name, stage in make_plan(4, 4_096, batch_tokens=32_768).stages.items()]
    trained = [("pretrain", 3_200), ("midtrain", 973), ("sft", 719), ("grpo", 467)]
    assert steps == [("tokenizer", None), *trained, ("evaluate", None)]


def test_batch_and_learning_rates_follow_from_the_horizon():
    d12 = counts.parameters(12, 32_768)
    assert pretraining(d12, batch_tokens=524_288).lr_scale == 1.0  # where nanochat tuned them
    quarter = pretraining(d12, batch_tokens=131_072)
    assert quarter.lr_scale == pytest.approx(0.5)
    short = pretraining(d12, batch_tokens=524_288, max_steps=516)
    assert short.tokens == 516 * 524_288 == pytest.approx(d12.total * 2, rel=1e-4)
    assert short.lr_scale == pytest.approx(10**0.32, rel=1e-4)

    d4 = pretraining(counts.parameters(4, 4_096))
    assert (d4.batch_tokens, d4.steps) == (16_384, 6_400)  # log2(0.58 * 104,857,600^0.571) = 14.4
    three = pretraining(counts.parameters(4, 4_096), micro_batch_tokens=3 * 4_096)
    assert three.batch_tokens == 12_288, "a multiple of what three processes read at a time"
    given = pretraining(counts.parameters(4, 4_096), batch_tokens=8_192, lr_scale=0.3)
    assert (given.batch_tokens, given.batch_from, given.lr_scale, given.lr_from) == (8_192, "given", 0.3, "given")


def test_memory_by_hand():
    sizes = memory(counts.parameters(4, 4_096))
    embedding, mlp, total = sizes["embedding"], sizes["mlp"], sizes["total"]
    assert (embedding.weights, embedding.optimizer) == (4_194_304, 8_388_608)  # AdamW: two moments
    assert (mlp.weights, mlp.optimizer) == (8_388_608, 8_388_608)  # Muon: one momentum
    assert (total.weights, total.gradients, total.optimizer) == (20_971_520, 20_971_520, 29_360_128)
    assert total.total == 71_303_168


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_plan(0), r"depth=0 must be positive.*--depth 4"),
        (lambda: make_plan(-2), r"depth=-2 must"),
        (lambda: make_plan(4, 0), r"vocab_size=0 must be positive.*--vocab-size 4096"),
        (lambda: make_plan(4, batch_tokens=0), r"batch_tokens=0 must be positive"),
        (lambda: make_plan(4, tokens_per_parameter=0), r"tokens_per_parameter=0 must"),
        (lambda: make_plan(4, tokens_per_scaling_parameter=-1), r"tokens_per_scaling_parameter=-1 must"),
        (lambda: make_plan(4, chars_per_token=float("nan")), r"chars_per_token=nan must"),
        (lambda: horizon.StageInputs(sft_rows_per_step=0), r"sft_rows_per_step=0 must"),
        (lambda: horizon.rl_steps(10, 16), r"train_problems=10 is fewer than examples_per_step=16.*Take 10"),
    ],
)
def test_errors_give_value_rule_and_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def line(stage="pretrain", finished="2026-01-02T00:00:00+00:00", host="here", **more):
    return {"stage": stage, "finished": finished, "host": host} | more


def write_ledger(runs, name, *lines):
    (runs / name).mkdir(parents=True)
    text = "\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in lines)
    (runs / name / "ledger.jsonl").write_text(text + "\n")


def test_ledger_takes_the_newest_of_this_host(tmp_path):
    d2 = {"depth": 2, "vocab_size": 2_048, "parameters": 917_504}
    write_ledger(
        tmp_path,
        "a",
        line(tokens_per_second=100.0, minutes=1.5, device="cpu", **d2),
        line(finished="2026-01-01T00:00:00Z", tokens_per_second=1.0),
        line(finished="2026-01-03T00:00:00+00:00", host="elsewhere", tokens_per_second=9e9),
        line("sft", tokens_per_second=7),
    )
    older = "2026-01-02T01:00:00+02:00"  # 23:00 UTC on the day before
    write_ledger(tmp_path, "b", line("sft", finished=older, tokens_per_second=8))
    speeds = last_speeds(tmp_path, "here")
    assert list(speeds) == ["pretrain", "sft"]
    pretrain = speeds["pretrain"]
    assert (pretrain.tokens_per_second, pretrain.parameters, pretrain.minutes) == (100.0, 917_504, 1.5)
    assert (pretrain.depth, pretrain.vocab_size, pretrain.device) == (2, 2_048, "cpu")
    assert (speeds["sft"].tokens_per_second, speeds["sft"].depth) == (7, None)


def test_ledger_skips_broken_lines_and_forgives_missing_keys(tmp_path):
    whole = line("grpo", depth=2, vocab_size=2_048, minutes=2, tokens=120_000)
    broken = [json.dumps(whole)[:-9], "", "[1, 2]", "null", "7", '{"stage": "grpo"}', "\x00", '{"a": NaN']
    odd = [line("grpo", finished="yesterday"), line("grpo", finished=7), line("brewing"), line(["grpo"])]
    useless = line("sft", "2026-01-05T00:00:00", minutes=-1, tokens="many", tokens_per_second=0, depth=True)
    write_ledger(tmp_path, "a", whole, useless, *odd, *broken)
    speeds = last_speeds(tmp_path, "here")
    assert list(speeds) == ["sft", "grpo"]
    sft, grpo = speeds.values()
    assert (grpo.parameters, grpo.tokens_per_second) == (917_504, 1_000)  # filled in from the rest
    assert (sft.minutes, sft.tokens, sft.tokens_per_second, sft.depth, sft.parameters) == (None,) * 5
    assert "unknown: its last run here recorded no time" in minutes_of(render(make_plan(4, 4_096), speeds))["sft"]


def test_minutes_need_parameters(tmp_path):
    write_ledger(tmp_path, "a", line("sft", tokens_per_second=100))
    rows = minutes_of(render(make_plan(4, 4_096), last_speeds(tmp_path, "here")))
    assert rows["sft"].startswith("unknown: its last run here recorded no parameters")


def test_no_runs_at_all(tmp_path):
    assert last_speeds(tmp_path / "missing", "here") == {} == last_speeds(tmp_path, "here")


def test_render_says_where_every_number_comes_from():
    text = render(make_plan(4, 4_096), {})
    for part in (
        "num_attention_heads: 2 = max(1, (256 + 127) // 128)",
        "5,242,880 = 2 x 4,096 x 256 + 12 x 4 x 256^2",
        "horizon: 104,857,600 tokens = 20.0 x 5,242,880 parameters",
        "shards: 3 = ceil(503,316,480 / 250,000,000 characters per shard)",
        "batch: 16,384 tokens per step = about 0.58 x 104,857,600^0.571",
        "learning rates: x 0.5 = (16,384 / 524,288)^0.5 x (2,705,326,080 / 104,857,600)^0.32",
        "6,400 = max(1, 104,857,600 tokens // 16,384 tokens per step)",
        "467 = 7,473 problems // 16 per step",
        "Run: nanohf run recipes/demo",
    ):
        assert part in text
    assert "4 = the first count that divides 320 into an even head size, from 3 = max(" in render(make_plan(5), {})


def minutes_of(text):
    section = text.split("\nminutes\n")[1].splitlines()
    return dict(row.strip().split(maxsplit=1) for row in section)


def test_minutes_scale_with_parameters(tmp_path):
    d2 = {"depth": 2, "vocab_size": 2_048, "parameters": 917_504, "device": "cpu"}
    pretrain, evaluate = line(tokens_per_second=20_000, **d2), line("evaluate", minutes=7, **d2)
    write_ledger(tmp_path, "a", line("tokenizer", minutes=0.5), pretrain, evaluate)
    rows = minutes_of(render(make_plan(4, 4_096), last_speeds(tmp_path, "here")))
    # 5,242,880 / 917,504 = 40 / 7, so 3,500 tokens/s: 104,857,600 / 3,500 / 60 = 499.3 minutes
    assert rows["pretrain"].startswith("499.3 = 104,857,600 tokens")
    rate = "3,500 tokens/s (20,000 x 917,504 / 5,242,880 parameters), scaled from depth 2 (cpu)"
    assert rows["pretrain"].endswith(rate)
    assert rows["evaluate"].startswith("40.0 = 7.0 of the last run")
    assert rows["evaluate"].endswith("scaled from depth 2 (cpu)")
    assert rows["tokenizer"].startswith("0.5 = ")
    assert "scaled" not in rows["tokenizer"]
    assert "it has not run on this machine yet" in rows["grpo"]

    same = minutes_of(render(make_plan(2, 2_048), last_speeds(tmp_path, "here")))["pretrain"]
    assert same.startswith("15.3 = ")  # 560 steps x 32,768 = 18,350,080 tokens / 20,000 / 60
    assert "scaled" not in same
    other = minutes_of(render(make_plan(2, 4_096), last_speeds(tmp_path, "here")))["pretrain"]
    assert "scaled from depth 2 with vocabulary 2,048" in other


def test_table():
    header, *rows = table().splitlines()
    columns = ["depth", "hidden_size", "heads", "parameters at 65,536", "parameters at 12,288"]
    assert re.split(r" {2,}", header) == columns
    numbers = [[int(cell.replace(",", "")) for cell in row.split()] for row in rows]
    assert numbers == [[depth, *figures] for depth, figures in LADDER.items()]


def run(*argv):
    return main(["plan", *argv])


def test_command(tmp_path, capsys):
    d4 = ("--depth", "4", "--vocab-size", "4096", "--batch-tokens", "65536")
    assert run(*d4, "--runs", str(tmp_path)) == 0
    assert "1,600 = max(1, 104,857,600 tokens // 65,536 tokens per step)" in capsys.readouterr().out
    assert run("--table") == 0
    assert capsys.readouterr().out == table() + "\n"
    assert run("--table", "--vocab-size", "4096") == 0
    assert "parameters at 4,096" in capsys.readouterr().out
    assert run("--depth", "0") == 2
    assert "depth=0" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run()
    assert stop.value.code == 2
    assert "recipe_dir --depth --table is required" in capsys.readouterr().err


# by hand: rows x tokens of each source / (1 - share) / (rows of a step x max_length); problems // those of a step
RECIPES = {
    "demo": {
        "parameters": 655_360,  # 2 x 1,024 x 128 + 12 x 2 x 128^2
        "pretrain": (250, 2_048_000),  # max_steps x 8,192
        "midtrain": (124, 1_014_919),  # (2,000 x 51 + 7,473 x 95) / 0.8; / (8 x 1,024) = 123.9
        "sft": (104, 845_483),  # (1,000 x 51 + 7,473 x 95) / 0.9; 103.2
        "grpo": (160, 3_932_160),  # max_steps x 16 problems x 16 x 96
    },
    "d4": {
        "parameters": 7_340_136,  # 5,242,880 + 2 x 4,096 x 256 + 2 x 12 x 4 + 8
        "pretrain": (5_376, 88_080_384),  # 12 x 7,340,136 = 88,081,632 // 16,384
        # 6,000 x 236 + 38,000 x 90 + 7,099 x 265 + 2,000 x 66 + 3,000 x 45 + 3,000 x 38 = 7,098,235, / 0.8
        "midtrain": (542, 8_872_794),  # / (16 x 1,024) = 541.6
        # 2,000 x 236 + 19,000 x 90 + 7,099 x 265 + 1,000 x 66 + 1,000 x 45 + 500 x 38 = 4,193,235, / 0.9
        "sft": (285, 4_659_150),  # 284.4
        "grpo": (100, 4_096_000),  # max_steps x 16 problems x 16 x 160
    },
    "d12": {
        "parameters": 135_266_304,
        "pretrain": (5_160, 2_705_326_080),
        # 560,000 x 600 + 7,473 x 265 + 2,000 x 66 + 200,000 x 38 + 80,000 x 101 = 353,792,345, / 0.8
        "midtrain": (3_375, 442_240_431),  # / (64 x 2,048) = 3,374.03
        # 13,400 x 600 + 7,473 x 265 + 1,000 x 66 + 300 x 38 + 300 x 101 = 10,128,045, / 0.9
        "sft": (687, 11_253_383),  # / (8 x 2,048) = 686.9
        "grpo": (443, 29_032_448),  # 7,473 x 0.95 // 16, x 16 x 16 x 256
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_by_hand(name):
    planned = make_plan(**recipe_plan(f"recipes/{name}"))
    by_hand = dict(RECIPES[name])
    assert planned.parameters.total == by_hand.pop("parameters")
    assert {stage: (planned.stages[stage].steps, planned.stages[stage].tokens) for stage in by_hand} == by_hand
    assert list(planned.stages) == ["tokenizer", *by_hand, "evaluate"]
    assert ("midtrain: HuggingFaceTB/smol-smoltalk train has 460,000 rows" in planned.assumed) == (name == "d12")
    text = render(planned, {})
    if name == "demo":
        assert "num_attention_heads: 4 = the recipe's" in text
        assert "horizon: 2,048,000 tokens = max_steps 250 x 8,192 per step" in text
    assert all(line in text.split("\nassumed, for the recipe does not say\n")[1] for line in planned.assumed)


def test_what_a_recipe_does_not_say():
    mine = [Part("mine train", 90), Part("theirs train"), Part("text train", share=0.25)]
    stage, assumed = chat_stage("sft", mine, 8, max_length=None, epochs=2)
    assert (stage.steps, stage.tokens) == (30, 144_000)  # 90 / 0.75 x 2 = 240 rows of 600
    assert assumed[0] == "sft: theirs train is not counted, because the recipe does not give its rows"
    stage, _ = chat_stage("sft", mine, 8, max_length=None, epochs=2, max_steps=10)
    assert (stage.steps, stage.tokens) == (10, 48_000)
    stage, _ = problem_stage([Part("theirs train")], 16, 16, 256)
    assert (stage.steps, stage.tokens) == (None, None)
    assert problem_stage([Part("theirs train", 100)], 16, 8, 10, epochs=2)[0].steps == 12
    ladder = [Part("a train", 100, epochs=0.75), Part("openai/gsm8k main train", epochs=0.95)]
    assert problem_stage(ladder, 16, 8, 10)[0].steps == (75 + 7099) // 16
    assert counts.parameters(4, 4_096, "modern", heads=4).value_gates == 96  # 2 x 12 x 4


def test_a_recipe_says_its_dials_itself(capsys):
    assert run("recipes/d4", "--preset", "modern") == 2
    assert "the recipes say preset" in capsys.readouterr().err


def test_imports_nothing_heavy():
    probe = (
        "import sys; from nanohf.cli import main; main(['plan', 'recipes/d4'])\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'datasets', 'trl'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
