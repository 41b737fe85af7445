"""Names and texts that would break YAML, Jinja or Markdown stand in a card as text: read with a parser of each."""

import copy
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from markdown_it import MarkdownIt
from records import a_record
from test_card import RECORDS, RESULTS

from nanohf.hub.card import card
from nanohf.hub.publish import write_card
from nanohf.recipe.stage_names import RESULT_STAGES
from nanohf.runs.curves import draw

HOSTILE = {
    "a data set": "a: b {{x}} | <script>",
    "a link": "[free money](https://evil.example) ![x](https://evil.example/x.png) <https://evil.example>",
    "Jinja": "{% for x in range(9) %}{{ 7 * 191 }}{% endfor %}{# no #}",
    "YAML": "x\n---\nlicense: mit\n---\n# Mine",
    "HTML": "</td></table><img src=x onerror=alert(1)>&lt;b&gt;&#60;i&#62;",
    "fences": "```\n~~~\n``` `code` | cell |\n\n# Mine\n\n- [ ] item",
    "10,000 characters": "long/" + "x" * 9995,
    "control characters": "a\x00b\x1b[31mc\r\nd\u2028e\ud800f",
}
OUR_LINKS = re.compile(
    r"curves\.svg|https://github\.com/(karpathy/nanochat|EleutherAI/lm-evaluation-harness)|"
    r"https://huggingface\.co/(datasets/)?(HuggingFaceTB/smol-smoltalk|openai/gsm8k|karpathy/climbmix-400b-shuffle)"
)


def everywhere(value, text: str):
    """The value with the text wherever data, recipes or strangers' records put theirs. What code branches on stays."""
    if isinstance(value, list):
        return [everywhere(part, text) for part in value]
    if isinstance(value, dict):
        names = ("dataset", "config", "split", "text_column", "example", "sample", "origin", "licence", "device_name")
        return {k: text if k in names else everywhere(part, text) for k, part in value.items()}
    return value


def hostile_card(stage: str, text: str) -> str:
    figures = everywhere(copy.deepcopy(RECORDS[stage]), text)
    figures["recipe"] |= {"dataset": text, "text_column": text, "model_name_or_path": text, "trackio_space_id": text}
    figures |= {"sample": text, "finished": text, "device": text, "versions": {text: text}, "metric": text}
    figures["data"] = [*figures["data"], *RECORDS[stage]["data"]]
    figures["data"] += [{"dataset": text, "stage": stage, "place": "model", "licence": text, "origin": text}]
    results = copy.deepcopy(RESULTS)
    results.recipe["dataset"] = text
    for scores in results.stages.values():
        scores["tasks"] = {text: {"metric": text, "value": 0.5, "stderr": 0.1, "n": 7}}
    return card(a_record(stage, **figures), results, f"tester/{text}")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("stage", RESULT_STAGES)
def test_it_is_text_and_nothing_else(stage, text):
    said = hostile_card(stage, text)
    plain = card(a_record(stage, **RECORDS[stage] | {"sample": "Hello."}), RESULTS, "tester/x")
    assert ModelCard(said).data.tags == ["nanohf", stage]
    assert yaml.safe_load(REGEX_YAML_BLOCK.search(said)[2])["license"] == ModelCard(said).data.license
    assert "1337" not in said

    tokens, of_plain = (parsed(one) for one in (said, plain))
    for kind in ("html_block", "html_inline", "image"):
        assert [t.attrs.get("src") for t in tokens if t.type == kind] == [
            t.attrs.get("src") for t in of_plain if t.type == kind
        ]
    assert all(OUR_LINKS.fullmatch(t.attrs["href"]) for t in tokens if t.type == "link_open")
    assert headings(tokens)[1:] == headings(of_plain)[1:]
    for head, *rows in tables(tokens):
        assert {len(row) for row in rows} <= {len(head)}
    longest = max((len(line) for line in outside_code(said).splitlines()), default=0)
    assert longest < 1500, "a long value is cut short wherever it is not the recipe or a sample"


def parsed(text: str):
    body = ModelCard(text).text
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(body):
        found += [token, *(token.children or [])]
    return found


def headings(tokens) -> list[str]:
    return [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]


def tables(tokens) -> list[list[list[str]]]:
    """The rows of each table, the head first."""
    found: list[list[list[str]]] = []
    for token in tokens:
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("td_open", "th_open"):
            found[-1][-1].append(token.type)
    return found


def outside_code(text: str) -> str:
    body = ModelCard(text).text
    fences = [t.map for t in MarkdownIt("commonmark").parse(body) if t.type == "fence"]
    return "\n".join(
        line for i, line in enumerate(body.splitlines()) if not any(start <= i < end for start, end in fences)
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_it_is_written_with_a_picture_that_is_xml_and_a_recipe_that_is_the_recipe(tmp_path, text):
    recipe = {"dataset": text.replace("\x00", ""), "text_column": text, "license": "mit", "max_steps": 20}
    curves = {"losses": [[1, 5.0], [2, 4.0]], "validation": [[0, 3.0], [2, 3.0]]}
    folder = tmp_path / "run/pretrain"
    folder.mkdir(parents=True)
    a_record("pretrain", recipe=recipe, **curves).write(folder / "stage.json")
    write_card(folder, "pretrain", "tester/x-pretrain")
    ElementTree.parse(folder / "curves.svg")
    assert yaml.safe_load((folder / "recipe/pretrain.yaml").read_text())["max_steps"] == 20
    assert ModelCard((folder / "README.md").read_text()).data.license == "other"  # of a tokenizer that is not there


def test_a_curve_is_drawn_as_it_was_measured():
    """The line's ends stand where the axes say, a flat line is drawn, and what is not finite or too short is not."""
    points = [[step, 5 - step / 100] for step in range(0, 300, 10)]
    record = a_record("pretrain", losses=points, validation=[[0, 1.0], [290, 1.0]], rewards=[[1, float("nan")], [2, 1]])
    picture = ElementTree.fromstring(draw(record))
    lines = list(picture.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 2
    ends = [tuple(map(float, point.split(","))) for point in lines[0].attrib["points"].split()]
    assert len(ends) == len(points)
    assert (ends[0][0], ends[-1][0]) == (64, 616)
    assert ends[0][1] < ends[-1][1], "a falling loss falls"
    labels = [e.text for e in picture.iter("{http://www.w3.org/2000/svg}text")]
    for label in ("training loss, nats per token", "5", "2.1", "290", "bits per byte on validation text"):
        assert label in labels
    passes = [
        {"step": s, "sources": {"a": {"num_samples": 4, "pass@1": [p, p - 0.1, p + 0.1], "pass@4": [p, p, p]}}}
        for s, p in ((0, 0.2), (9, 0.4))
    ]
    grpo = ElementTree.fromstring(draw(a_record("grpo", word_problems=passes)))
    assert len(list(grpo.iter("{http://www.w3.org/2000/svg}polygon"))) == 2
    assert draw(a_record("grpo", word_problems=passes[:1], losses=[[1, 2.0]])) is None
    several = [point | {"sources": point["sources"] | {"<b>": point["sources"]["a"]}} for point in passes]
    picture = draw(a_record("grpo", word_problems=several))
    assert (picture.count("<polyline"), picture.count("<polygon"), "<b>" in picture) == (2, 0, False)
    many = draw(a_record("sft", losses=[[step, 1 / step] for step in range(1, 20_001)]))
    assert len(many) < 20_000
    assert Path("curves.svg").name in card(a_record("sft", losses=points), None, "a/b")
