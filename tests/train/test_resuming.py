"""A step has as many rows with any number of processes, or the resumption is refused with the numbers that work."""

import pytest

from nanohf.errors import RecipeError
from nanohf.train.pretrain_horizon import kept_horizon
from nanohf.train.resuming import Batch


@pytest.mark.parametrize("before", [Batch(2, 4, 1), Batch(1, 8, 3), Batch(8, 1, 2), Batch(3, 5, 4)])
@pytest.mark.parametrize("processes", range(1, 9))
def test_a_step_keeps_its_rows_and_no_micro_batch_grows(before, processes):
    if before.total % processes:
        with pytest.raises(RecipeError, match=f"written by {before.processes} process.*--num_processes"):
            before.on(processes)
        return
    batch = before.on(processes)
    assert batch.total == before.total
    assert batch.processes == processes
    assert batch.rows <= before.rows
    assert batch.on(before.processes).total == before.total


def test_the_micro_batch_stays_where_it_can():
    assert Batch(2, 4, 1).on(1) == Batch(1, 4, 2)
    assert Batch(1, 4, 2).on(2) == Batch(2, 4, 1)
    assert Batch(1, 4, 1).on(2) == Batch(2, 2, 1)
    assert Batch(1, 6, 1).on(1) == Batch(1, 6, 1)


def test_a_generation_is_shared_out_as_well():
    """48 rows per step in generations of 24: five processes can share neither, 16 only the step."""
    assert Batch(1, 12, 4).on(2, 24) == Batch(2, 12, 2)
    assert Batch(1, 12, 4).on(3, 24) == Batch(3, 8, 2)
    with pytest.raises(RecipeError, match="24 rows evenly"):
        Batch(1, 12, 4).on(16, 24)


def test_steps_tokens_and_rates_are_the_checkpoints(capsys):
    written = {"steps": 30, "accumulation": 1, "batch_tokens": 512, "lr_scale": 0.5, "rows": 4, "processes": 2}
    horizon = kept_horizon(written, 1)
    assert (horizon.steps, horizon.batch_tokens, horizon.lr_scale, horizon.tokens) == (30, 512, 0.5, 30 * 512)
    assert (horizon.rows, horizon.accumulation, horizon.processes) == (4, 2, 1)
    assert "written by 2 process(es), now 1: still 8 rows per step" in capsys.readouterr().err
    with pytest.raises(RecipeError, match=r"3 cannot share its 8 rows evenly\. Resume with 1 or 2 or 4 or 8"):
        kept_horizon(written, 3)
