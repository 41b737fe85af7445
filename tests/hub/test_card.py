"""A card says what the records say: nothing invented, nothing unfilled, nothing about the machine."""

import copy
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from records import a_record

from nanohf.hub.card import card, eval_results_yaml, hub_id, public
from nanohf.hub.publish import write_card
from nanohf.recipe.stage_names import RESULT_STAGES
from nanohf.runs.stage_record import EvaluationRecord
from nanohf.scaling.parameters import PRESETS, parameters

COMMON = {"finished": "2026-01-02T03:04:05+00:00", "minutes": 12.5, "host": "secret-machine", "vocab_size": 4096}
COMMON |= {"peak_memory_bytes": 1234 * 2**20}
MODEL = COMMON | {"depth": 4, "parameters": 5242880, "device": "cpu", "tokens": 1638400, "tokens_per_second": 42869.67}
MIXTURE = [
    {"dataset": "HuggingFaceTB/smol-smoltalk", "converter": "messages", "rows": 9000},
    {"dataset": "openai/gsm8k", "config": "main", "converter": "gsm8k", "epochs": 2.5},
    {"dataset": "/home/alice/secrets/chats", "converter": "messages"},
    {"dataset": "karpathy/climbmix-400b-shuffle", "converter": "document", "share": 0.2},
]
HELD_OUT = [{"dataset": "builtin", "config": "problems", "split": "test", "rows": 200, "converter": "gsm8k"}]
HELD_OUT += [{"dataset": "some/text", "split": "validation", "rows": 100, "converter": "document"}]
PASSES = {"n": 400, "num_samples": 8, "pass@1": [0.4125, 0.3801, 0.4455], "pass@8": [0.731, 0.6854, 0.7722]}
CHAT = MODEL | {"metric": "loss on held-out conversations", "before": 1.987, "after": 0.955}
CLIMBMIX = {
    "dataset": "karpathy/climbmix-400b-shuffle",
    "place": "dataset",
    "licence": "cc-by-nc-4.0",
    "origin": "its card",
}
PRETRAINED = [CLIMBMIX | {"stage": "tokenizer"}, CLIMBMIX | {"stage": "pretrain", "tokens": 1638400}]
CHATS = [
    {"dataset": "HuggingFaceTB/smol-smoltalk", "place": "dataset", "licence": "apache-2.0", "origin": "its card"},
    {"dataset": "openai/gsm8k", "place": "dataset", "licence": "mit", "origin": "its card"},
    {"dataset": "/home/alice/secrets/chats", "place": "local", "licence": "cc-by-sa-4.0", "origin": "stated"},
    CLIMBMIX,
]
DATA = {
    "tokenizer": PRETRAINED[:1],
    "pretrain": PRETRAINED,
    "midtrain": [source | {"stage": "midtrain"} for source in CHATS] + PRETRAINED,
    "sft": [source | {"stage": "sft"} for source in CHATS] + PRETRAINED,
    "grpo": [CHATS[1] | {"stage": "grpo"}, *PRETRAINED],
}
RECORDS = {
    "tokenizer": COMMON
    | {
        "metric": "characters per token",
        "before": 1.0,
        "after": 2.989,
        "characters": 2000000,
        "characters_per_token": 2.989,
    }
    | {"bytes_per_token": 3.017, "round_trip": 1.0, "recipe": {"dataset": "karpathy/climbmix-400b-shuffle"}},
    "pretrain": MODEL
    | {"metric": "bits per byte", "before": 3.3337, "after": 0.3198}
    | {"flops": 42_000_000_000_000, "mfu": 0.351, "device_name": "NVIDIA H", "sample": "There is a lamp."}
    | {"losses": [[10, 5.1], [20, 4.2]], "validation": [[0, 3.3337], [20, 0.3198]]}
    | {"recipe": {"run_dir": "/home/alice/runs/d4", "dataset": "karpathy/climbmix-400b-shuffle", "max_steps": 200}},
    "midtrain": CHAT | {"recipe": {"stage": "midtrain", "mixture": MIXTURE, "eval_mixture": HELD_OUT}},
    "sft": CHAT
    | {"recipe": {"model_name_or_path": "midtrain", "mixture": MIXTURE, "eval_mixture": HELD_OUT, "lr_scale": 0.3}},
    "grpo": MODEL
    | {"metric": "pass@1", "before": 0.25, "after": 0.4125, "steps": 60, "resumed": True}
    | {
        "word_problems": [
            {"step": 0, "pass@1": 0.25, "sources": {"gsm8k": PASSES | {"pass@1": [0.25, 0.2102, 0.2941]}}},
            {"step": 60, "pass@1": 0.43, "sources": {"gsm8k": PASSES}},
        ],
        "chosen": {"step": 60, "pass@1": 0.4125, "sources": {"gsm8k": PASSES | {"example": "#### 4"}}},
    }
    | {"recipe": {"model_name_or_path": "sft", "dataset": "openai/gsm8k", "dataset_config": "main", "beta": 0.0}},
}
for name, figures in RECORDS.items():
    figures["data"] = DATA[name]
TASKS = {
    "nanohf_gsm8k": {"metric": "exact_match", "value": 0.3404, "stderr": 0.013, "n": 1319},
    "arc_easy": {"metric": "acc", "value": 0.2712, "stderr": None, "n": 20},
}
SCORES = {"bpb": 0.8765, "word_problems": {"gsm8k": PASSES}, "tasks": TASKS}


def results_of(**stages):
    return EvaluationRecord(stages, {}, "", 1.0, {"dataset": "openai/gsm8k"})


RESULTS = results_of(grpo=SCORES, pretrain={"bpb": 0.8765, "tasks": {}})
FIGURE = re.compile(r"(?<![\w.@-])-?\d[\d,]*(?:\.\d+)?")


@pytest.fixture(params=RESULT_STAGES)
def stage(request):
    return request.param


def render(stage, results=RESULTS, base_model=None):
    return card(a_record(stage, **RECORDS[stage]), results, f"tester/nanohf-d4-{stage}", base_model)


@pytest.mark.parametrize("results", [None, RESULTS])
def test_card_is_complete_and_its_metadata_parses(stage, results):
    text = render(stage, results)
    data = ModelCard(text).data
    assert data.library_name == "transformers"
    assert data.tags == ["nanohf", stage]
    assert data.license == "cc-by-nc-4.0"
    assert data.pipeline_tag == (None if stage == "tokenizer" else "text-generation")
    assert bool(data.eval_results) == (stage != "tokenizer")
    for left in ("None", "{{", "{%", "{#", "Undefined"):
        assert left not in text
    assert "\n\n\n" not in text
    assert f'"tester/nanohf-d4-{stage}"' in text
    assert ("nanohf chat" in text) == (stage in ("midtrain", "sft", "grpo"))


def test_every_figure_is_one_of_the_records(stage):
    unmeasured = {"before": 9.75, "after": 9.75, "minutes": 9.75, "finished": ""}
    bare = set(FIGURE.findall(card(a_record(stage, **unmeasured), None, f"tester/nanohf-d4-{stage}"))) - {"9.75"}
    text = render(stage).replace("95% interval", "")
    known = {float(n) for n in numbers(RECORDS[stage])} | {float(n) for n in numbers(RESULTS.stages.get(stage, {}))}
    known |= {100 * n for n in known} | {1234, 42}  # MiB, and 10¹² FLOPs
    known |= {2, 12, 64 * 4}  # the formula's own, and the hidden size
    known |= {0.3404 - 1.96 * 0.013, 0.3404 + 1.96 * 0.013}  # the interval of a task with a standard error
    for shown in set(FIGURE.findall(text.replace(RECORDS[stage]["finished"], ""))) - bare:
        value = float(shown.replace(",", ""))
        assert any(abs(value - n) <= max(0.051 if n > 1 else 0, abs(n) * 5e-4) for n in known), shown


def test_peak_memory_is_told_in_mib(stage):
    assert "| peak memory of a process, MiB | 1,234 |" in render(stage)


def numbers(value):
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [n for part in parts for n in numbers(part)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_an_empty_record_says_not_measured(stage):
    text = card(a_record(stage), None, "tester/x")
    assert "not measured" in text
    assert "None" not in text


def test_neither_host_nor_paths_are_told(stage):
    record = copy.deepcopy(RECORDS[stage])
    text = render(stage)
    assert "secret-machine" not in text
    assert "alice" not in text
    assert "pushed_to" not in text
    assert record == RECORDS[stage]  # rendering changes no record


def test_the_published_record_has_no_paths_of_its_owner_either():
    figures = {"host": "secret-machine", "mixture": [{"name": "/home/alice/secrets/chats train", "tokens": 5}]}
    figures |= {"held_out": [{"source": "~alice/chats test"}], "skipped_files": ["/home/alice/text/bad.parquet"]}
    told = public(a_record("sft", **figures))
    assert told["mixture"] == [{"name": "./chats train", "tokens": 5}]
    assert told["skipped_files"] == ["./bad.parquet"]
    assert "alice" not in str(told)


def test_datasets_are_those_of_the_hub_that_were_trained_on():
    used = ["HuggingFaceTB/smol-smoltalk", "openai/gsm8k", "karpathy/climbmix-400b-shuffle"]
    assert ModelCard(render("sft")).data.datasets == used
    assert ModelCard(render("pretrain")).data.datasets == ["karpathy/climbmix-400b-shuffle"]
    assert ModelCard(card(a_record("pretrain", recipe={"dataset": "builtin"}), None, "a/b")).data.datasets is None


def test_a_folder_is_no_hub_id(tmp_path, monkeypatch):
    (tmp_path / "data" / "text").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = ("openai/gsm8k", "builtin", "data/text", "./data/other", str(tmp_path), None)
    assert [hub_id(name) for name in names] == ["openai/gsm8k", None, None, None, None, None]


def test_base_model_is_named_only_if_it_is_on_the_hub():
    assert ModelCard(render("sft")).data.base_model is None
    assert ModelCard(render("sft", base_model="tester/m")).data.base_model == "tester/m"


def test_evaluation_table_has_n_and_intervals():
    text = render("grpo")
    assert "| pass@1 | 41.2% | [38.0%, 44.5%] | 400 |" in text
    assert "| nanohf_gsm8k (exact_match) | 0.3404 | [0.3149, 0.3659] | 1,319 |" in text
    assert "| arc_easy (acc) | 0.2712 | not measured | 20 |" in text
    assert "was interrupted and resumed" in text
    assert "has not been evaluated" in render("grpo", None)


def test_model_index_names_the_data_of_each_figure():
    results = {(r.metric_name, r.dataset_type): r.metric_value for r in ModelCard(render("grpo")).data.eval_results}
    assert results[("pass@1 (n = 400)", "openai/gsm8k")] == 0.4125
    assert results[("exact_match (n = 1,319)", "openai/gsm8k")] == 0.3404
    (loss,) = ModelCard(render("sft")).data.eval_results
    assert (loss.dataset_type, loss.metric_value) == ("builtin", 0.955)


def test_only_the_whole_of_gsm8k_enters_a_leaderboard():
    (entry,) = yaml.safe_load(eval_results_yaml("grpo", RESULTS))
    assert entry["dataset"] == {"id": "openai/gsm8k", "task_id": "gsm8k"}
    assert entry["value"] == 34.04
    limited = results_of(grpo={"tasks": {"nanohf_gsm8k": TASKS["nanohf_gsm8k"] | {"n": 20}}})
    assert eval_results_yaml("grpo", limited) is None
    assert eval_results_yaml("pretrain", RESULTS) is None
    assert eval_results_yaml("sft", None) is None


@pytest.mark.parametrize("stage", ["midtrain", "sft"])
def test_which_tokens_were_trained_is_said_as_it_was(stage):
    for only, says in ((True, "the assistant's tokens only"), (False, "all tokens, the user's too")):
        assert f"(loss on {says};" in card(
            a_record(stage, **RECORDS[stage] | {"assistant_only_loss": only}), None, "tester/x"
        )


def test_the_recipe_stands_in_the_card_as_it_would_in_a_file():
    recipe = {"max_steps": 1000, "cautious": True, "matrix_lr": 0.01, "dataset": "builtin", "seed": 7}
    text = card(a_record("pretrain", recipe=recipe), None, "tester/x")
    assert yaml.safe_load(text.partition("```yaml")[2].partition("```")[0]) == recipe


def test_documents_in_a_mixture_are_named_and_have_no_part_in_the_loss_of_conversations():
    text = render("sft", results=None)
    line = next(line for line in text.splitlines() if line.startswith("- [karpathy/climbmix-400b-shuffle]"))
    assert "plain documents, all of their tokens, 20% of the tokens" in line
    (entry,) = yaml.safe_load(text.split("---")[1])["model-index"][0]["results"]
    assert entry["dataset"]["name"] == "nanohf's builtin toy world"


@pytest.mark.parametrize("inside", ["```\n# Not the card's\n", "`````", "a ` b"])
def test_no_text_ends_its_code_block(inside):
    """Neither the model's nor the recipe's: read as CommonMark reads fences."""
    fields = copy.deepcopy(RECORDS["grpo"])
    fields["chosen"]["sources"]["gsm8k"]["example"] = f"{inside}\n# Mine"
    fields["recipe"]["model_name_or_path"] = f"{inside}\n# Mine"
    text = card(a_record("grpo", **fields), RESULTS, "tester/x")
    fence, outside = "", []
    for line in text.splitlines():
        marks = re.match(r" {0,3}(`{3,})([^`]*)$", line)
        if not fence and marks:
            fence = marks[1]
        elif fence and marks and len(marks[1]) >= len(fence) and not marks[2].strip():
            fence = ""
        elif not fence:
            outside.append(line)
    assert not fence
    headings = [line for line in outside if line.startswith("#")]
    assert headings[0] == "# x"
    assert headings[-1] == "## Citation"
    assert "# Mine" not in headings
    assert "# Not the card's" not in headings


def test_the_data_of_an_evaluation_is_told_without_its_path():
    results = copy.deepcopy(RESULTS)
    results.recipe["dataset"] = "/home/alice/secrets/problems"
    text = render("grpo", results)
    assert "alice" not in text
    assert "held-out word problems (./problems)" in text


def test_a_stage_whose_parent_is_not_of_the_run_is_made_again_alone(tmp_path):
    folder = tmp_path / "run/sft"
    folder.mkdir(parents=True)
    recipe = {"model_name_or_path": "alice/base@v1", "push_to_hub": True, "hub_model_id": "alice/x", "max_steps": 5}
    a_record("sft", recipe=recipe, data=DATA["sft"]).write(folder / "stage.json")
    write_card(folder, "sft", "alice/x-sft")
    assert yaml.safe_load((folder / "recipe/sft.yaml").read_text()) == {
        "model_name_or_path": "alice/base@v1",
        "max_steps": 5,
    }
    assert [path.name for path in (folder / "recipe").iterdir()] == ["sft.yaml"]
    assert "nanohf run x-sft/recipe --from sft --until sft --name x-sft" in (folder / "README.md").read_text()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_size_is_explained_only_where_the_sum_is_right(preset):
    def told(total: int) -> str:
        return card(a_record("pretrain", depth=4, vocab_size=4096, parameters=total), None, "a/b")

    total = parameters(4, 4096, preset).total
    (line,) = (line for line in told(total).splitlines() if line.startswith("| parameters"))
    assert f"{total:,} = " in line
    if preset == "modern":
        parts = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) \(", line)]
        assert sum(parts) == total
    assert "= " not in next(line for line in told(total + 1).splitlines() if line.startswith("| parameters"))


def test_the_space_is_linked_and_languages_are_those_of_the_data():
    data = [source | {"languages": languages} for source, languages in zip(CHATS, (["en"], ["fr", "en"]), strict=False)]
    recipe = {"trackio_space_id": "alice/curves", "mixture": MIXTURE}
    text = card(a_record("sft", recipe=recipe, data=[one | {"stage": "sft"} for one in data]), None, "a/b")
    assert "[alice/curves](https://huggingface.co/spaces/alice/curves)" in text
    assert ModelCard(text).data.language == ["en", "fr"]
    assert ModelCard(render("sft")).data.language is None


def test_several_sources_of_word_problems_are_named_one_by_one():
    fields = copy.deepcopy(RECORDS["grpo"])
    lines = [
        {"dataset": "openai/gsm8k", "config": "main"},
        {"dataset": "a/b", "name": "school", "split": "train+test", "held_out": 0.2, "where": {"source": ["x", "y"]}},
    ]
    fields["recipe"] = {"word_problems": lines}
    solved = {"gsm8k": PASSES | {"n": 1319}, "school": PASSES | {"n": 400}}
    results = EvaluationRecord({"grpo": SCORES | {"word_problems": solved}}, {}, "", 1.0, {"word_problems": lines})
    text = card(a_record("grpo", **fields), results, "tester/x")
    assert "train+test, only source = \\['x', 'y'\\], without the 20% of its questions that are kept apart" in text
    assert "| gsm8k: pass@1 |" in text
    assert "| school: pass@1 |" in text
    metadata = ModelCard(text).data.to_dict()
    entries = [r for r in metadata["model-index"][0]["results"] if r["metrics"][0]["type"] == "pass@1"]
    assert [entry["dataset"]["type"] for entry in entries] == ["openai/gsm8k", "a/b"]
