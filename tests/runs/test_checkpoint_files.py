"""Checkpoints on disk: what is damaged is found, said and never loaded; what is half-written is no checkpoint."""

import errno
import os
from pathlib import Path

import pytest
import torch
from records import FIGURES, a_recipe
from safetensors.torch import save_file

from nanohf.errors import DiskFullError, RecipeError
from nanohf.runs import run_folder as runs
from nanohf.runs.checkpoint_files import SEAL, fault, newest_whole, numbered, put_in_place
from nanohf.runs.disk_full import disk_full_said, is_disk_full


def checkpoint(folder, name: str):
    partial = folder / ".partial"
    (partial / "inside").mkdir(parents=True)
    save_file({"weight": torch.arange(100.0)}, partial / "model.safetensors")
    torch.save({"state": torch.ones(3)}, partial / "optimizer.pt")
    (partial / "inside/state.json").write_text('{"step": 1}')
    put_in_place(partial, folder / name)
    return folder / name


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": (lambda c: os.truncate(c / "model.safetensors", 100), "model.safetensors has 100 bytes of "),
    "emptied": (lambda c: os.truncate(c / "optimizer.pt", 0), "optimizer.pt has 0 bytes of "),
    "altered": (lambda c: flip(c / "model.safetensors"), "model.safetensors is not what was written"),
    "missing": (lambda c: (c / "inside/state.json").unlink(), "inside/state.json is missing"),
    "no seal": (lambda c: (c / SEAL).unlink(), f"it has no {SEAL}"),
    "half a seal": (lambda c: os.truncate(c / SEAL, 20), f"{SEAL} cannot be read"),
    "an odd seal": (lambda c: (c / SEAL).write_text("[1]"), f"{SEAL} cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_newest_checkpoint_gives_way_to_the_older_one(tmp_path, capsys, kind):
    older, newest = checkpoint(tmp_path, "step-00000900"), checkpoint(tmp_path, "step-00001000")
    assert newest_whole(tmp_path) == newest
    damage, said = DAMAGE[kind]
    damage(newest)
    assert newest_whole(tmp_path) == older
    warning = capsys.readouterr().err
    for words in ("warning: ", said, "resuming from the older step-00000900"):
        assert words in warning
    assert numbered(tmp_path) == [older]
    assert (tmp_path / ".step-00001000.damaged").is_dir(), "nothing is deleted"
    assert newest_whole(tmp_path) == older
    assert not capsys.readouterr().err, "said once"


def test_where_all_are_damaged_nothing_is_begun_again_without_a_word(tmp_path):
    folder = tmp_path / "pretrain"
    for name in ("step-00000001", "step-00000002"):
        (checkpoint(folder, name) / "optimizer.pt").unlink()
    with pytest.raises(RecipeError, match=r"step-00000002 is damaged(.|\n)*no checkpoint is left.*--from pretrain"):
        newest_whole(folder)
    assert len(numbered(folder)) == 2


def test_what_is_half_written_is_no_checkpoint(tmp_path):
    """Neither to resume from nor to refuse another recipe for."""
    folder = runs.claim(a_recipe(tmp_path, "pretrain", max_steps=1))
    for name in (".step-00000001.partial", ".partial/checkpoint-4", "notes-of-mine", "checkpoint-x"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_text("half")
    assert newest_whole(folder) is None
    assert runs.claim(a_recipe(tmp_path, "pretrain", max_steps=2)) == folder


def test_the_newest_is_by_number_and_one_of_the_same_name_is_replaced(tmp_path):
    nine, ten = checkpoint(tmp_path, "checkpoint-9"), checkpoint(tmp_path, "checkpoint-10")
    assert numbered(tmp_path) == [nine, ten]
    (ten / "optimizer.pt").unlink()
    assert fault(checkpoint(tmp_path, "checkpoint-10")) is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a device that is always full")
@pytest.mark.parametrize(
    "write",
    [
        lambda: Path("/dev/full").write_text("x" * 100_000),
        lambda: torch.save({"weight": torch.ones(100_000)}, "/dev/full"),
    ],
    ids=["text", "torch"],
)
def test_a_full_disk_is_one_line(tmp_path, write):
    said = r"the disk is full .* Make room.* the same command resumes"
    with pytest.raises(DiskFullError, match=said) as full, disk_full_said(tmp_path / "run"):
        write()
    assert full.value.exit_status == 1


def test_other_faults_keep_their_names(tmp_path):
    with pytest.raises(FileNotFoundError), disk_full_said(tmp_path):
        (tmp_path / "missing").read_text()


def test_a_full_disk_is_found_behind_other_exceptions():
    error = RuntimeError("could not save")
    error.__cause__ = OSError(errno.EDQUOT, "quota")
    assert is_disk_full(error)
    assert not is_disk_full(RuntimeError("could not save"))


def test_a_result_that_does_not_fit_leaves_no_half_of_itself(tmp_path):
    def fill(folder):
        (folder / "model.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError), disk_full_said(tmp_path):
        runs.finish(a_recipe(tmp_path), FIGURES, fill)
    assert not list(tmp_path.iterdir())
