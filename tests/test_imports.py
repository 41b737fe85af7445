"""Who may import whom (CONTRIBUTING.md): found by reading the source, so that lazy imports count too."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nanohf"
LOW = {"data", "optim", "model", "tokenizer", "plan"}
MAY_IMPORT = {
    "model": set(),
    "optim": set(),
    "tokenizer": set(),
    "data": set(),
    "plan": set(),
    "train": LOW | {"configs", "recipe", "runs"},
    "rollout": LOW,
    "evals": LOW,
    "hub": LOW | {"recipe", "runs"},
}
ONLY_IN = {
    "trl": {"stages/sft.py", "stages/grpo.py", "recipe.py", "train"},
    "lm_eval": {"evals"},
    "huggingface_hub": {"hub", "data", "model/configuration_nanohf.py"},
    "peft": {"train", "stages"},
}


def imports(path: Path) -> set[str]:
    """Absolute names of all modules a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names} if base == "nanohf" else {base}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers(path):
    place = path.relative_to(PACKAGE)
    room = place.parts[0] if len(place.parts) > 1 else None
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "nanohf" and len(parts) > 1:
            assert parts[1] != "stages" or room == "stages" or str(place) in ("cli.py", "pipeline.py"), name
            if room in MAY_IMPORT and parts[1] != room:
                assert parts[1] in MAY_IMPORT[room] or parts[1] == "__version__", f"{place} imports {name}"
        if parts[0] in ONLY_IN:
            allowed = ONLY_IN[parts[0]]
            assert str(place) in allowed or room in allowed, f"{place} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "model").glob("*_nanohf.py")), ids=lambda p: p.name)
def test_what_travels_to_the_hub_needs_torch_and_transformers_only(path):
    allowed = {"torch", "transformers", "huggingface_hub", "collections", "nanohf"}
    for name in imports(path):
        assert name.split(".")[0] in allowed, name
        if name.startswith("nanohf"):
            assert name == "nanohf.model.configuration_nanohf", name


def test_optim_needs_torch_only():
    names = set().union(*(imports(p) for p in (PACKAGE / "optim").glob("*.py")))
    assert {n.split(".")[0] for n in names} <= {"torch", "nanohf", "collections", "functools", "math"}


@pytest.mark.parametrize("argument", ["--help", "plan --help"])
def test_help_loads_nothing_heavy(argument):
    heavy = ("torch", "transformers", "datasets", "accelerate", "trl", "huggingface_hub", "yaml", "numpy")
    code = (
        "import sys; from nanohf.cli import main\n"
        f"try: main({argument.split()!r})\n"
        f"except SystemExit: pass\nprint([m for m in {heavy!r} if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.rstrip().endswith("[]"), output
