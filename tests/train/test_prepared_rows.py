"""A mixture's rows: the same however they are made, made once, and again when anything they depend on changes."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset, concatenate_datasets

from nanohf.data import mixture as data
from nanohf.data import toy_world as world
from nanohf.data.chat_source import ChatSource
from nanohf.data.conversations import conversations
from nanohf.errors import RecipeError
from nanohf.runs import checkpoint_files
from nanohf.train import prepared_rows as prepared

pytestmark = pytest.mark.usefixtures("offline")
SHARE = 0.3


def settings(**other) -> SimpleNamespace:
    return SimpleNamespace(
        **{"seed": 0, "max_length": 64, "packing": True, "packing_strategy": "bfd", "dataset_num_proc": 1}
        | {"assistant_only_loss": True}
        | other
    )


@pytest.fixture
def sources(tmp_path, monkeypatch) -> list[ChatSource]:
    """With malformed rows, rows without a trained token, cut ones, repeats, documents and a share of them."""
    monkeypatch.setattr(data, "AT_ONCE", 7)
    rows = [{"messages": row["messages"]} for row in world.rows("conversations", "train", 40)]
    rows[3] = rows[20] = {"messages": []}
    rows[11] = {"messages": [{"role": "user", "content": "plum " * 80}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        ChatSource(str(tmp_path / "chat"), "messages", epochs=1.5),
        ChatSource("builtin", "document", share=SHARE),
        ChatSource("builtin", "gsm8k", config="problems", rows=30),
        ChatSource("builtin", "document", rows=15),
    ]


HELD_OUT = [ChatSource("builtin", "gsm8k", config="problems", split="test", rows=10)]


def row_by_row(tokenizer, sources: list[ChatSource], args) -> list[dict]:
    """The mixture without processes, pieces or files."""

    def of_conversations(source) -> list[dict]:
        rows = []
        for messages in conversations(source)[0]["messages"]:
            out = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            ids, mask = out["input_ids"][: args.max_length], out["assistant_masks"][: args.max_length]
            labels = [i if trained else -100 for i, trained in zip(ids, mask, strict=True)]
            rows += [{"input_ids": ids, "labels": labels}] if any(mask[1:]) else []
        return [rows[i % len(rows)] for i in range(round(len(rows) * source.epochs))]

    def of_documents(texts, tokens=float("inf")) -> list[dict]:
        rows, taken = [], 0
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            room = args.max_length - 1
            new = [[tokenizer.bos_token_id, *ids[at : at + room]] for at in range(0, len(ids), room)]
            if taken < tokens:
                rows += [{"input_ids": piece, "labels": piece} for piece in new]
                taken += sum(map(len, new))
        return rows

    chat, problems = of_conversations(sources[0]), of_conversations(sources[2])
    texts = [row["text"] for row in world.rows("documents", "train", 400)]
    documents = of_documents(texts[:15])
    others = sum(len(row["input_ids"]) for row in chat + problems + documents)
    share = of_documents(texts, others * SHARE / (1 - SHARE))
    parts = [Dataset.from_list(part, data.ROWS) for part in (chat, share, problems, documents)]
    return concatenate_datasets(parts).shuffle(seed=args.seed).to_list()


def test_the_same_rows_by_any_number_of_processes_and_from_the_files(tokenizer, sources, tmp_path):
    expected = row_by_row(tokenizer, sources, settings())
    rows, given = data.mixture(tokenizer, sources, settings())
    assert rows.to_list() == expected
    assert (given[0].malformed, given[0].untrained) == (2, 1)
    assert given[0].cut > 0
    (part,) = data.mixture_parts(tokenizer, HELD_OUT[:1], settings(), measured=True)
    held_out = data.repeated(part, HELD_OUT[0])[0].to_list()
    for number, processes in enumerate((1, 3)):
        args = settings(dataset_num_proc=processes)
        for _ in ("made", "found"):
            got = prepared.prepared_rows(tmp_path / f"{number}", tokenizer, sources, HELD_OUT, args)
            assert got[0].to_list() == expected
            assert got[1] == given
            assert [part.to_list() for part in got[2]] == [held_out]
        other = prepared.prepared_rows(tmp_path / f"{number}", tokenizer, sources, HELD_OUT, settings(seed=1))
        assert other[0].to_list() == row_by_row(tokenizer, sources, settings(seed=1)) != expected


def test_a_second_start_makes_nothing(tokenizer, sources, tmp_path, monkeypatch):
    first = prepared.prepared_rows(tmp_path / "rows", tokenizer, sources, HELD_OUT, settings())
    monkeypatch.setattr(prepared, "mixture_parts", None)
    again = prepared.prepared_rows(tmp_path / "rows", tokenizer, sources, HELD_OUT, settings(dataset_num_proc=3))
    assert again[0].to_list() == first[0].to_list()


def test_the_key_is_of_all_that_the_rows_depend_on(tokenizer, sources, tmp_path, monkeypatch):
    def key(given=sources, held_out=HELD_OUT, **other) -> str:
        return prepared.content_key(tokenizer, given, held_out, settings(**other))

    same = key()
    assert key(seed=1, dataset_num_proc=8) == same
    assert key([ChatSource(**asdict(source) | {"license": "mit"}) for source in sources]) == same
    others = [key(max_length=65), key(packing=False), key(packing_strategy="wrapped"), key(assistant_only_loss=False)]
    others += [key(sources[1:]), key(sources[::-1]), key(sources[:-1], [sources[-1], *HELD_OUT])]
    for change in ({"rows": 31}, {"epochs": 2.0}, {"split": "test"}, {"columns": {"question": "answer"}}):
        others.append(key([*sources[:2], ChatSource(**asdict(sources[2]) | change), sources[3]]))
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "chat_template", tokenizer.chat_template + " ")
        others.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "version", lambda name: "0" if name == "tokenizers" else "1")
        others.append(key())
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "ROOMS", ("data", "tokenizer"))
        others.append(key())
    with (tmp_path / "chat/train.jsonl").open("a") as file:
        file.write("\n")
    others.append(key())
    assert len({same, *others}) == 1 + len(others)


def test_a_source_whose_state_is_not_known_is_read_again(tokenizer, monkeypatch):
    """Offline, a Hub id without a copy in the cache; with one, the copy is what is known."""
    monkeypatch.setattr(prepared, "source_state", lambda names: {"a/b": {}})
    keys = {prepared.content_key(tokenizer, [ChatSource("a/b")], [], settings()) for _ in range(2)}
    assert len(keys) == 2
    copy = Path(prepared.datasets.config.HF_DATASETS_CACHE, "a___b/default/0.0.0/1f/dataset_info.json")
    copy.parent.mkdir(parents=True)
    copy.write_text("{}")
    keys = {prepared.content_key(tokenizer, [ChatSource("a/b")], [], settings()) for _ in range(2)}
    assert len(keys) == 1


def cut(folder: Path) -> None:
    os.truncate(folder / "0.arrow", 1000)


def altered(folder: Path) -> None:
    content = bytearray((folder / "1.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "1.arrow").write_bytes(content)


def unsealed(folder: Path) -> None:
    (folder / checkpoint_files.SEAL).unlink()


@pytest.mark.parametrize("damage", [cut, altered, unsealed])
def test_damaged_rows_are_made_again(tokenizer, sources, tmp_path, capsys, damage):
    first = prepared.prepared_rows(tmp_path / "rows", tokenizer, sources, [], settings())[0].to_list()
    [folder] = (path for path in (tmp_path / "rows").iterdir() if path.is_dir())
    damage(folder)
    assert prepared.prepared_rows(tmp_path / "rows", tokenizer, sources, [], settings())[0].to_list() == first
    assert (f"warning: {folder} is damaged" in capsys.readouterr().err) == (damage is not unsealed)
    assert checkpoint_files.fault(folder) is None


def test_nothing_is_left_of_other_rows_or_after_an_interruption(tokenizer, sources, tmp_path, monkeypatch):
    rows = tmp_path / "rows"
    (rows / ".partial").mkdir(parents=True)  # of a killed process
    prepared.prepared_rows(rows, tokenizer, sources, [], settings())
    first = sorted(rows.iterdir())
    prepared.prepared_rows(rows, tokenizer, sources, [], settings(max_length=32))
    assert len(sorted(rows.iterdir())) == len(first) == 2  # with the lock
    assert sorted(rows.iterdir()) != first

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_conversation", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared.prepared_rows(rows, tokenizer, sources, [], settings(max_length=48))
    assert [path.name for path in rows.iterdir()] == [prepared.LOCK]


def slowly(folder: Path) -> None:
    time.sleep(1)
    (folder / "rows").write_text("rows")


def failing(folder: Path) -> None:
    time.sleep(1)
    raise RecipeError("a source gives no row")


def process(rank: int, final: Path, make, told) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    try:
        prepared.made_once(final, make)
        told.put((rank, (final / "rows").read_text()))
    except RecipeError as error:
        told.put((rank, str(error)))


def started(final: Path, make, ranks=(1, 0, 2)) -> tuple[dict, dict]:
    """By rank, what each process has to say and the process."""
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    processes = {rank: fork.Process(target=process, args=(rank, final, make, told), daemon=True) for rank in ranks}
    for one in processes.values():
        one.start()
    return told, processes


def test_the_first_process_makes_and_the_others_wait(tmp_path):
    told, _ = started(tmp_path / "rows/key", slowly)
    assert dict(told.get(timeout=20) for _ in range(3)) == dict.fromkeys(range(3), "rows")


def test_two_machines_with_one_disk_make_once(tmp_path):
    (tmp_path / "log").touch()

    def make(folder: Path) -> None:
        slowly(folder)
        with (tmp_path / "log").open("a") as log:
            log.write("made\n")

    first, _ = started(tmp_path / "rows/key", make, (0, 1))
    second, _ = started(tmp_path / "rows/key", make, (0, 1))
    assert [told.get(timeout=20)[1] for told in (first, first, second, second)] == ["rows"] * 4
    assert (tmp_path / "log").read_text() == "made\n"


def test_the_others_do_not_wait_for_one_that_failed(tmp_path):
    told, _ = started(tmp_path / "rows/key", failing)
    heard = dict(told.get(timeout=20) for _ in range(3))
    assert heard[0] == "a source gives no row"
    assert heard[1] == heard[2] == f"the process that made the rows in {tmp_path}/rows failed; its error is above"


def test_the_others_do_not_wait_for_one_that_was_killed(tmp_path):
    told, processes = started(tmp_path / "rows/key", slowly)
    while not (tmp_path / "rows/key").parent.joinpath(".partial").exists():
        time.sleep(0.02)
    time.sleep(2 * prepared.LOOK_EVERY)
    os.kill(processes[0].pid, signal.SIGKILL)
    heard = dict(told.get(timeout=20) for _ in range(2))
    assert all("failed" in heard[rank] for rank in (1, 2))
    told, _ = started(tmp_path / "rows/key", slowly)
    assert dict(told.get(timeout=20) for _ in range(3)) == dict.fromkeys(range(3), "rows")


def test_waiting_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(prepared, "HOURS", 0.3 / 3600)
    with pytest.raises(RecipeError, match="no rows after"):
        prepared.made_once(tmp_path / "rows/key", slowly)


RECIPE = """
stage: sft
model_name_or_path: {folder}/model
mixture: [{{dataset: builtin, config: problems, rows: 60, converter: gsm8k}}]
eval_mixture: [{{dataset: builtin, config: problems, split: test, rows: 5, converter: gsm8k}}]
max_length: 128
packing: true
batch_tokens: 512
per_device_train_batch_size: 1
max_steps: 2
bf16: false
"""


@pytest.mark.slow
def test_two_processes_share_them_and_so_does_the_next_start(model, tokenizer, tmp_path):
    """The stage as it is launched, killed when its rows are there and started again."""
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "sft.yaml").write_text(RECIPE.format(folder=tmp_path))
    rows = tmp_path / "run/rows/sft"
    first = launched(tmp_path)
    while not (found := list(rows.glob("*/" + checkpoint_files.SEAL))) or found[0].parent.name == ".partial":
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.05)
    first.terminate()
    output = first.communicate(timeout=60)[0]
    assert output.count("mixture: tokenised") == 1, output
    second = launched(tmp_path)
    output = second.communicate(timeout=300)[0]
    assert second.returncode == 0, output
    assert "mixture: its rows are there already" in output
    assert "mixture: tokenised" not in output
    assert json.loads((tmp_path / "run/sft/stage.json").read_text())["world_size"] == 2
    assert not rows.exists()


def launched(folder: Path) -> subprocess.Popen:
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        root / "accelerate_configs/ddp.yaml",
    ]
    command += [
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
        "--main_process_port",
        "0",
        "-m",
        "nanohf.stages.sft",
    ]
    command += ["--config", folder / "sft.yaml", "--run_dir", folder / "run"]
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([str(part) for part in command], env=os.environ | environment, **streams)
