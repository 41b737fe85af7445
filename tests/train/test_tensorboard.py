"""TensorBoard's files are left in the run's folder, whichever stage wrote them, when its checkpoints are gone."""

import pytest
from tiny_stages import CHAT, PRETRAIN, run

from nanohf.stages import pretrain, sft

pytest.importorskip("tensorboard")


@pytest.mark.parametrize(
    ("main", "stage", "recipe"),
    [(pretrain.main, "pretrain", PRETRAIN), (sft.main, "sft", CHAT)],
    ids=["pretrain", "sft"],
)
def test_events_are_kept(folder, main, stage, recipe):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(main, folder, stage, recipe + "report_to: tensorboard\nlogging_steps: 1\n", "run")
    (folder_of_events,) = {file.parent for file in (folder / f"run/logs/{stage}").rglob("events.*") if scalars(file)}
    events = EventAccumulator(str(folder_of_events)).Reload()
    (loss,) = (name for name in events.Tags()["scalars"] if name.split("/")[-1] == "loss")
    assert [event.step for event in events.Scalars(loss)] == [1, 2, 3]


def scalars(file) -> bool:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return any(
        value.tag.endswith("loss") for event in EventFileLoader(str(file)).Load() for value in event.summary.value
    )
