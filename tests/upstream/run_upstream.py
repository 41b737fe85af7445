"""Runs transformers' own common model tests against both presets. Not a part of `make test`: it needs the network.

    python tests/upstream/run_upstream.py [PYTEST_OPTION ...]

The tests are not in transformers' wheel but in its source distribution, which is fetched in the installed version into
a temporary folder, with `parameterized`, which they import. What the source distribution lacks itself, the generation
and export mixins, is left out; tests/model has our own checks of generation.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

CASES = Path(__file__).with_name("upstream_cases.py")
ROOT = Path(__file__).parents[2]
MISSING = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}


def main(options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as work:
        sources = fetched(Path(work))
        for name, content in MISSING.items():
            stub = sources / "tests" / name
            stub.parent.mkdir(exist_ok=True)
            if not stub.exists():
                stub.write_text(content)
        for folder in (sources / "tests").rglob("*"):
            if folder.is_dir():
                (folder / "__init__.py").touch()
        (sources / "tests/__init__.py").touch()
        (sources / "tests/test_nanohf.py").write_text(CASES.read_text(encoding="utf-8"))
        path = os.pathsep.join(map(str, (sources, ROOT, Path(work) / "packages")))
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--import-mode=importlib"]
        command += ["-W", "ignore", "tests/test_nanohf.py", *options]
        return subprocess.run(command, cwd=sources, env=os.environ | {"PYTHONPATH": path}).returncode


def fetched(work: Path) -> Path:
    """The unpacked source distribution of the transformers that is installed."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--target", str(work / "packages"), "parameterized"], check=True)
    wanted = f"transformers=={version('transformers')}"
    options = ["--no-binary", "transformers", "--no-deps", "--no-build-isolation", "--dest", str(work)]
    subprocess.run([*pip, "download", *options, wanted], check=True)
    (archive,) = work.glob("transformers-*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(work, filter="data")
    return work / archive.name.removesuffix(".tar.gz")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
