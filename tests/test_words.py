"""Plain English: the words of DESIGN in what a person reads, found by searching for those that read translated.

Searched: the Markdown a user reads, comments of YAML files, templates, and all strings and comments of the package. The
texts of the toy world and of the spelling examples are data and are left as they are.
"""

import ast
import re
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = {ROOT / "nanohf/data/spelling.py", *(ROOT / "nanohf/data/toy_world").glob("*.py")}
SOURCES = (
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "docs/**/*.md",
    "recipes/**/*.yaml", "accelerate_configs/*.yaml", "nanohf/**/*.yaml", "model_cards/*.jinja", "nanohf/**/*.py",
)  # fmt: skip
FILES = sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)})

COUNTED = (
    "bits?|bytes?|calls?|channels|characters|chars|completions|conversations|documents|dollars|epochs|examples|files|"
    "FLOPs|GB|GiB|hours|kB|layers|lines|losses|MB|MiB|milliseconds|minutes|ms|multiplications?|nats|operations|pages|"
    "parameters|passes|positions|problems|products|prompts|repos|rows|samples|seconds|shards|steps|times?|tokens|"
    "values|weights|words|loss|once|twice"
)
UNIT = (
    "batch|byte|card|channel|character|checkpoint|completion|conversation|device|document|epoch|example|file|GPU|group|"
    "head|hour|key|layer|line|micro-batch|minute|month|page|paragraph|parameter|position|problem|process|prompt|rank|repo|row|"
    "run|sample|second|shard|size|source|stage|step|token|topic|value|weight|word|word problem"
)
FLAGS = re.MULTILINE | re.IGNORECASE
# What is not written, what is written instead, and one sentence that must be found.
WORDS = {
    rf"\b(?:{COUNTED}) an? (?:trained )?(?:{UNIT})\b": ("per: tokens per second", "18,652 tokens a second"),
    rf"(?:[\d}}]|\bone [\w-]+) an? (?:{UNIT})\b": ("per: 64 per layer, one file per stage", "the ratio is 64 a layer"),
    r"\bheed(?:s|ed|ing)?\b": ("follow, respect", "the model does not heed position_ids"),
    r"\bmend(?:s|ed|ing)?\b": ("fix", "or mend its mask"),
    r"\banew\b": ("again", "the stage begins anew"),
    r"\b(?:go|goes|went|gone) on\b": ("continue, resume; Next steps", "the run goes\non where it ended"),
    r"(?<!there\s)\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|fewer\b)": ("is not a", "DATASET is no folder"),
    r"\bof the launcher\b": ("accelerate launch's", "an option of the launcher"),
    r"\bno (?:step|stage|run|row|file|source)['’]s\b": ("belongs to no step", "what came before is no step's"),
    r"\bwhole passes\b|\bpass of (?:a|the|one) (?:row|model)\b": ("micro-batch", "rounded to whole passes"),
}


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """What a person reads in a file, each piece with the line it begins in."""
    if path.suffix == ".py":
        yield from python_words(path)
    elif path.suffix == ".yaml" and path.is_relative_to(ROOT / "recipes"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield number, line.partition("#")[2]
    else:
        yield 1, path.read_text(encoding="utf-8")


def python_words(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and strings; neighbours are joined, so that a phrase is found across lines. Of data, docstrings only."""
    docstrings = docstring_lines(path)
    with tokenize.open(path) as file:
        tokens = [t for t in tokenize.generate_tokens(file.readline) if t.type not in (tokenize.NL, tokenize.INDENT)]
    names = {tokenize.COMMENT: "comment", tokenize.STRING: "string", getattr(tokenize, "FSTRING_MIDDLE", -1): "string"}
    ignored = {getattr(tokenize, name, -1) for name in ("FSTRING_START", "FSTRING_END")}
    kinds = groupby((t for t in tokens if t.type not in ignored), key=lambda t: names.get(t.type))
    for kind, run in kinds:
        if kind is None:
            continue
        pieces = list(run)
        line = pieces[0].start[0]
        if kind == "string" and path in DATA and line not in docstrings:
            continue
        edges = "# " if kind == "comment" else "rbfRBF\"'"
        yield line, " ".join(piece.string.strip(edges) for piece in pieces)


def docstring_lines(path: Path) -> set[int]:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds))
    return {node.body[0].lineno for node in nodes if ast.get_docstring(node, clean=False) is not None}


def hits(text: str, first_line: int = 1) -> list[str]:
    """`line: "what was found" -> what to write`; a space in a pattern is any white space."""
    return [
        f'{first_line + text[: match.start()].count(chr(10))}: "{" ".join(match[0].split())}" -> {instead}'
        for pattern, (instead, _) in WORDS.items()
        for match in re.finditer(pattern.replace(" ", r"\s+"), text, FLAGS)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_plain_english(path):
    found = [hit for line, text in words_of(path) for hit in hits(text, line)]
    assert not found, "\n".join([str(path.relative_to(ROOT)), *found])


@pytest.mark.parametrize(("pattern", "sentence"), [(pattern, found) for pattern, (_, found) in WORDS.items()])
def test_each_word_would_be_found(pattern, sentence):
    assert re.search(pattern.replace(" ", r"\s+"), sentence, FLAGS)


@pytest.mark.parametrize(
    "sentence",
    [
        "18,652 tokens per second",
        "there is no CUDA device",
        "it is no longer needed",
        "a token of the vocabulary",
        "the steps a reader takes",
        "it starts a stage and reads a row",
    ],
)
def test_good_english_is_left_alone(sentence):
    assert hits(sentence) == []


def test_a_phrase_is_found_wherever_it_stands(tmp_path):
    (tmp_path / "a.py").write_text(
        '"""The run goes\n    on."""\n\n# a comment that\n# goes on\nx = f"{1:,} tokens " "a step"\ny = 2\n'
    )
    found = [hit for line, text in words_of(tmp_path / "a.py") for hit in hits(text, line)]
    assert [hit.partition(":")[0] for hit in found] == ["1", "4", "6"]
