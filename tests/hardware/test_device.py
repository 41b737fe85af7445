"""What a stage's process held at most, and whether it has found the others."""

import subprocess
import sys

import pytest

from nanohf.errors import RecipeError
from nanohf.hardware.device import require_all_processes

HOLDS_400_MB_FOR_A_MOMENT = """
from nanohf.hardware.device import peak_memory
import numpy
before = peak_memory("cpu")
numpy.ones(50_000_000)
print(before, peak_memory("cpu"))
"""


@pytest.mark.slow
def test_peak_memory_counts_what_was_freed_again_and_nothing_of_the_parent():
    held_here = bytearray(b"x") * 1_500_000_000
    command = [sys.executable, "-c", HOLDS_400_MB_FOR_A_MOMENT]
    before, after = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert before < len(held_here) / 2
    assert 390e6 < after - before < 450e6


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch):
    require_all_processes(1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    require_all_processes(2)
    with pytest.raises(RecipeError, match=r"2 processes were launched, and each is alone.*ACCELERATE_USE_CPU=true"):
        require_all_processes(1)
