"""Several machines in one stage: they meet before it begins, and none leaves before rank 0 has ended.

run_dir has to be on a disk that all machines see: rank 0 writes records and results there, every rank its part of a
checkpoint. And where rank 0 works alone (tokenizer, evaluate, saving), the others have to stay: a launcher whose
processes have all ended waits 300 seconds for the other machines, and then reports success.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from uuid import uuid4

from torch.distributed import DistError, PrefixStore, rendezvous

from nanohf.errors import NanoHFError, RecipeError
from nanohf.recipe.loading import Recipe
from nanohf.runs import run_folder as runs
from nanohf.runs.lock import run_folder_made

SEEN_WITHIN = 5.0  # seconds until what one machine has written is seen by the others
LOOK_EVERY = 0.5
MEETING = timedelta(minutes=10)  # the launcher waits as long for the machines themselves


@contextmanager
def together(recipe: Recipe) -> Iterator[None]:
    """On one machine nothing: there the launcher waits for every process.

    Raises:
        RecipeError: run_dir is not on a disk that all machines share, or they were started with different recipes.
            On every machine, and within SEEN_WITHIN seconds.
        NanoHFError: rank 0 has failed.
    """
    machine, machines = (int(os.environ.get(name, n)) for name, n in (("GROUP_RANK", 0), ("GROUP_WORLD_SIZE", 1)))
    if machines == 1:
        yield
        return
    store = PrefixStore("nanohf", next(rendezvous("env://", timeout=MEETING))[0])
    speaks = os.environ["LOCAL_RANK"] == "0"  # one of each machine
    if not speaks:
        store.wait(["go"])  # where a machine is refused, the launcher ends this process
    elif machine == 0:
        welcome(store, recipe, machines)
    else:
        join(store, recipe, machine)
    yield
    if speaks and machine == 0:
        store.set("ended", "done" if runs.is_done(recipe.run_dir, recipe.stage) else "stopped")
    elif speaks:
        wait_for_rank_0(store, recipe)


def welcome(store, recipe: Recipe, machines: int) -> None:
    """What rank 0 does: writes a file, and asks the other machines whether they see it."""
    sign = recipe.run_dir / f".sign-{uuid4().hex}"
    sign.touch()
    try:
        store.set("invitation", json.dumps({"sign": sign.name, "stage": recipe.stage, "recipe": digest(recipe)}))
        answers = [store.get(f"answer-{machine}").decode() for machine in range(1, machines)]
    finally:
        sign.unlink()
    if refused := sorted(filter(None, set(answers))):
        raise RecipeError(refused)
    store.set("go", "")


def join(store, recipe: Recipe, machine: int) -> None:
    """What the first process of another machine does."""
    invitation = json.loads(store.get("invitation"))
    refusal = ""
    with run_folder_made(recipe.run_dir):
        is_shared = seen(recipe.run_dir, lambda: (recipe.run_dir / invitation["sign"]).exists())
    if not is_shared:
        refusal = (
            f"run_dir={recipe.run_dir} must be on a disk that all machines share: machine {machine} does not see what "
            "the first one writes there. Give a folder on a network disk, the same on every machine."
        )
    elif (recipe.stage, digest(recipe)) != (invitation["stage"], invitation["recipe"]):
        refusal = (
            f"machine {machine} has another recipe ({recipe.stage}) than the first one ({invitation['stage']}). Start "
            "the same command with the same recipes on every machine."
        )
    store.set(f"answer-{machine}", refusal)
    if refusal:
        raise RecipeError(refusal)
    store.wait(["go"])


def wait_for_rank_0(store, recipe: Recipe) -> None:
    """As long as it works: a machine that dies closes its connection, and one that loses power is given up by TCP."""
    try:
        while not store.check(["ended"]):
            time.sleep(LOOK_EVERY)
        done = store.get("ended") == b"done"
    except DistError as error:
        raise NanoHFError(f"{recipe.stage}: the first machine has failed; its output says why") from error
    if done:
        seen(recipe.run_dir, lambda: runs.is_done(recipe.run_dir, recipe.stage))  # where `nanohf run` is going to look


def seen(folder: Path, there: Callable[[], bool]) -> bool:
    """Whether something is there, in time. NFS remembers what was not, until this machine changes the folder itself."""
    give_up = time.monotonic() + SEEN_WITHIN
    while True:
        with NamedTemporaryFile(dir=folder, prefix=".looking-"):
            pass
        if there():
            return True
        if time.monotonic() > give_up:
            return False
        time.sleep(LOOK_EVERY)


def digest(recipe: Recipe) -> str:
    """Of what the machines have to agree on."""
    written = {k: v for k, v in recipe.written.items() if k not in runs.FREE_TO_CHANGE}
    return hashlib.sha256(json.dumps(written, sort_keys=True, default=str).encode()).hexdigest()
