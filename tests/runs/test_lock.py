"""One run at a time in a folder: real processes, of which some are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from small_run import ENVIRONMENT

from nanohf.errors import RecipeError
from nanohf.runs.lock import RUN, STAGE, run_lock, stage_lock

HOLDS = """
import sys, time
from nanohf.runs import lock
with getattr(lock, sys.argv[1])(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""
LAUNCHES = """
import subprocess, sys, time
from nanohf.runs.lock import run_lock
with run_lock(sys.argv[1]):
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "stage_lock", sys.argv[1]], start_new_session=True)
    print(child.pid, flush=True)
    child.wait()
"""


def start(code: str, *arguments) -> tuple[subprocess.Popen, str]:
    """A process and the first line that it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize("first", ["run_lock", "stage_lock"])
@pytest.mark.parametrize("second", [run_lock, stage_lock])
def test_a_second_one_is_refused_until_the_first_is_killed(tmp_path, first, second, capsys):
    process, said = start(HOLDS, first, tmp_path)
    assert said == "held"
    started = time.monotonic()
    with pytest.raises(RecipeError) as refused, second(tmp_path):
        pass
    assert time.monotonic() - started < 3
    for words in (f"process {process.pid} on {socket.gethostname()}", f"kill {process.pid}", "--name"):
        assert words in str(refused.value)
    kill(process)
    with second(tmp_path):
        assert f"taken over from process {process.pid}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "who ends leaves no lock"


def test_a_stage_works_under_the_run_that_started_it_and_outlives_it(tmp_path):
    run, pid = start(LAUNCHES, tmp_path, HOLDS)
    assert run.stdout.readline().strip() == "held", "the stage is not refused by its own run"
    run.kill()
    run.wait()
    with pytest.raises(RecipeError, match=f"process {pid} "), run_lock(tmp_path):
        pass
    os.kill(int(pid), signal.SIGKILL)
    with run_lock(tmp_path):
        pass


def test_what_another_host_left_is_refused_with_the_way_out(tmp_path):
    holder = {"pid": 7, "host": "elsewhere", "started": "2026-01-01T00:00:00+00:00", "token": "x"}
    (tmp_path / RUN).write_text(json.dumps(holder))
    with pytest.raises(RecipeError, match=f"process 7 on elsewhere.*rm {tmp_path / RUN}"), stage_lock(tmp_path):
        pass
    (tmp_path / RUN).unlink()
    with stage_lock(tmp_path):
        assert {p.name for p in tmp_path.iterdir()} == {RUN, STAGE}


def test_a_lock_cut_short_stands_in_nobodys_way(tmp_path):
    (tmp_path / RUN).write_text('{"pid": 7, "ho')
    with run_lock(tmp_path):
        assert json.loads((tmp_path / RUN).read_text())["pid"] == os.getpid()


def test_other_ranks_take_none(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with stage_lock(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


def test_a_folder_that_stayed_empty_is_not_left_behind(tmp_path):
    with pytest.raises(RecipeError, match="no tokenizer"), stage_lock(tmp_path / "runs/new"):
        raise RecipeError("no tokenizer")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="choose another folder"), stage_lock(tmp_path / "file"):
        pass
