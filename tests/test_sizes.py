"""Files and functions of a size that a reader takes in: DESIGN's figures."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "nanohf"
FILES = sorted(PACKAGE.rglob("*.py"))


def code_lines(function: ast.FunctionDef, lines: list[str]) -> int:
    """Lines of code: no docstring, no comments, no blank ones."""
    body = range(function.lineno - 1, function.end_lineno or function.lineno)
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = range(first.lineno - 1, first.end_lineno or first.lineno) if is_docstring else range(0)
    return sum(bool(lines[i].strip()) and not lines[i].lstrip().startswith("#") for i in body if i not in docstring)


def functions() -> dict[str, int]:
    found = {}
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                found[f"{path.relative_to(PACKAGE)}:{node.name}:{node.lineno}"] = code_lines(node, text.splitlines())
    return found


def test_no_file_is_over_400_lines():
    assert {str(p): n for p in FILES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400} == {}


def test_no_function_is_over_60_lines_and_few_are_over_40():
    sizes = functions()
    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert len(over := {name: size for name, size in sizes.items() if size > 40}) <= 6, over
