"""Imports go down only (CONTRIBUTING.md): found by reading the source, so that lazy imports count too."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nanohf"
LAYERS = (
    ("errors",),
    ("console",),
    ("model", "optim", "tokenizer", "generation", "scaling"),
    ("data", "hardware", "convert"),
    ("recipe", "evals"),
    ("runs",),
    ("train", "hub", "plan", "chat"),
    ("report", "doctor"),
    ("stages", "pipeline"),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
# Which rooms (or files) touch a library. What is not listed here may be imported anywhere.
ONLY_IN = {
    "trl": {"stages", "train"},
    "lm_eval": {"evals"},
    "huggingface_hub": {"hub", "data", "model"},
    "peft": {"train", "stages"},
}
# No torch, not even through a library that brings it along.
LIGHT = {"errors", "console", "scaling", "recipe", "plan", "runs", "cli"}
HEAVY = {"torch", "transformers", "datasets", "accelerate", "trl", "peft", "lm_eval", "numpy"}


def imports(path: Path, package: Path = PACKAGE) -> dict[str, bool]:
    """Absolute names of all modules a file imports, at any depth; and whether that happens when it is loaded."""
    found: dict[str, bool] = {}

    def visit(node: ast.AST, loaded: bool) -> None:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(package.parent).parts[: -node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            whole = base == "nanohf" or (package.parent / base.replace(".", "/")).is_dir()
            names = [f"{base}.{alias.name}" for alias in node.names] if whole else [base]
        else:
            names = []
            loaded = loaded and not isinstance(node, ast.FunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                visit(child, loaded)
        for name in names:
            found[name] = found.get(name, False) or loaded

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def room_of(path: Path, package: Path = PACKAGE) -> str:
    """The first part of its path: a package, or a file at the top."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def wrong_imports(path: Path, package: Path = PACKAGE) -> list[str]:
    """What a file imports from its own level or above it."""
    own = room_of(path, package)
    if own == "__init__":
        return []
    rooms = {name.split(".")[1]: name for name in imports(path, package) if name.startswith("nanohf.")}
    return [
        f"{own} (level {LEVEL[own]}) imports {name} (level {LEVEL[room]})"
        for room, name in rooms.items()
        if room not in (own, "__version__") and LEVEL[room] >= LEVEL[own]
    ]


def circle(package: Path = PACKAGE) -> list[str]:
    """Files that import each other in a ring, lazily or not; [] if there is none."""
    files = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in package.rglob("*.py")
    }
    edges = {name: {n for n in imports(path, package) if n in files and n != name} for name, path in files.items()}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for after in sorted(edges[name]):
            if found := walk(after, [*trail, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(edges) if name != "nanohf" if (found := walk(name, []))), [])


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers(path):
    assert not wrong_imports(path)
    place = path.relative_to(PACKAGE)
    for name in imports(path):
        library = name.split(".")[0]
        assert library not in ONLY_IN or place.parts[0] in ONLY_IN[library], f"{place} imports {name}"


def test_every_room_has_a_level():
    assert {room_of(path) for path in FILES} - {"__init__"} == set(LEVEL)


def test_no_circle():
    assert circle() == []


def test_a_planted_circle_is_found(tmp_path):
    package = tmp_path / "nanohf"
    (package / "data").mkdir(parents=True)
    (package / "data/a.py").write_text("from nanohf.data import b\n")
    (package / "data/b.py").write_text("def f():\n    from nanohf.data.a import g\n")
    assert circle(package) == ["nanohf.data.a", "nanohf.data.b", "nanohf.data.a"]
    (package / "optim").mkdir()
    (package / "optim/c.py").write_text("import nanohf.data.a\n")
    assert wrong_imports(package / "optim/c.py", package) == ["optim (level 2) imports nanohf.data.a (level 3)"]


def test_file_names_are_unique():
    names = Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", [f for f in FILES if room_of(f) in LIGHT], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_light_files_load_nothing_heavy(path):
    assert {n.split(".")[0] for n, loaded in imports(path).items() if loaded} & HEAVY == set()


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
    code = (
        "import sys; from nanohf.cli import main\n"
        f"try: main({argument.split()!r})\n"
        f"except SystemExit: pass\nprint([m for m in {sorted(HEAVY | {'yaml'})!r} if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.rstrip().endswith("[]"), output
