"""What a process ends with: 0, 2 for the user's input, 1 for the world, also through accelerate's launcher."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import ENVIRONMENT, ROOT

from nanohf import console, pipeline
from nanohf.errors import PushError, RecipeError

LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file"]
CONFIGS = ROOT / "accelerate_configs"


def raises(error: BaseException):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "says"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raises(RecipeError("depth=0")), 2, "error: depth=0\n"),
        (raises(RecipeError(["one", "two"])), 2, "error: one\nerror: two\n"),
        (raises(PushError("no network")), 1, "error: no network\n"),
        (raises(KeyboardInterrupt()), 130, "\ninterrupted\n"),
    ],
)
def test_what_is_raised_becomes_a_message_and_a_status(capsys, work, status, says):
    assert console.exit_status(work) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", says)


def test_our_own_faults_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        console.exit_status(raises(ZeroDivisionError()))


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stage(cwd: Path, body: str) -> list[str]:
    """A program like a stage's, as a module of the working directory."""
    lines = ["from nanohf import console", "from nanohf.errors import PushError, RecipeError", "def main(argv):"]
    (cwd / "a_stage.py").write_text("\n".join([*lines, f"    {body}", "console.run_as_program(main)\n"]))
    return ["-m", "a_stage"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return", 0),
        ("raise RecipeError('depth=0')", 2),
        ("raise PushError('no network')", 1),
        ("raise ZeroDivisionError", 1),
        ("import os; os.kill(os.getpid(), 9)", None),  # whatever the launcher makes of it, not 0
    ],
)
def test_a_stage_that_the_pipeline_launches(cwd, monkeypatch, body, status):
    monkeypatch.setenv("PYTHONPATH", f"{cwd}{os.pathsep}{ROOT}")
    found = pipeline.launch([*LAUNCHER, str(CONFIGS / "cpu.yaml"), *stage(cwd, body)])
    assert found == status if status is not None else found not in (0, 2)


@pytest.mark.slow
def test_one_of_two_processes_has_the_users_error(cwd, monkeypatch):
    """Of rank 1, while rank 0 is at work and is ended by the launcher."""
    monkeypatch.setenv("PYTHONPATH", f"{cwd}{os.pathsep}{ROOT}")
    body = "import os, time; assert os.environ['WORLD_SIZE'] == '2'\n"
    body += "    if os.environ['RANK'] == '1': raise RecipeError('depth=0')\n    time.sleep(60)"
    two = ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    started = time.monotonic()
    assert pipeline.launch([*LAUNCHER, str(CONFIGS / "ddp.yaml"), *two, *stage(cwd, body)]) == 2
    assert time.monotonic() - started < 55


@pytest.mark.slow
def test_nanohf_run_ends_in_2_where_a_stage_finds_the_users_error(cwd):
    """Text that is not enough for the vocabulary is known only when the tokenizer is trained."""
    (cwd / "recipe").mkdir()
    (cwd / "recipe/tokenizer.yaml").write_text("dataset: builtin\nmax_chars: 100\nvocab_size: 4096\n")
    command = [sys.executable, "-m", "nanohf.cli", "run", "recipe", "--until", "tokenizer"]
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "error: tokenizer ended with exit status 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (cwd / "runs/recipe/tokenizer").exists()


@pytest.mark.parametrize("argv", [["--set", "pretrain.dpeth=3"], ["--set", "grpo.num_generation=3"]])
def test_an_unknown_key_is_answered_without_the_heavy_libraries(cwd, argv):
    code = (
        f"import sys; from nanohf.cli import main; status = main(['run', 'recipes/d4', *{argv!r}])\n"
        "print(status, sorted({'torch', 'numpy', 'transformers', 'datasets', 'trl', 'accelerate'} & set(sys.modules)))"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert "Did you mean" in done.stderr
    assert time.monotonic() - started < 10  # a second and a half on a machine that does nothing else
