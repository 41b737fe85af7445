"""Pushing to a real Hub protocol: what arrives, that it loads without nanohf, and what is said when it fails."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from records import a_recipe, write_results

from nanohf.errors import PushError
from nanohf.hub.publish import published, push_stage, stage_repo, update_card
from nanohf.model import NanoHFConfig, NanoHFForCausalLM
from nanohf.runs import run_folder as runs
from nanohf.tokenizer.train_bpe import train_tokenizer

on_hub = [
    pytest.mark.hub,
    pytest.mark.skipif(
        not os.environ.get("HF_ENDPOINT", "").startswith("http://127.0.0.1"), reason="needs a Hub on 127.0.0.1"
    ),
]
RECORD = {"minutes": 1.0, "metric": "pass@1", "before": 0.25, "after": 0.4125}
LOAD_WITHOUT_NANOHF = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "nanohf":
            raise ImportError("nanohf is not here")

sys.meta_path.insert(0, Absent())
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
messages = [{"role": "user", "content": "one and two"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
assert "nanohf" not in sys.modules
print(output[0].tolist())
"""


@pytest.fixture(scope="module")
def tiny():
    words = [a + b for a in ("one", "two", "red", "lamp", "tree", "bird") for b in ("", "s", "ed", "ing", "er")]
    rng = random.Random(0)
    tokenizer = train_tokenizer((" ".join(rng.choices(words, k=40)) for _ in range(200)), 320)
    torch.manual_seed(0)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    model = NanoHFForCausalLM(NanoHFConfig.from_depth(1, 320, max_position_embeddings=64, **ids))
    for p in model.parameters():  # as initialised, all logits are 0, and any weights would pass
        torch.nn.init.normal_(p, std=0.2)
    return model.eval(), tokenizer


@pytest.fixture
def run_dir(tmp_path, tiny):
    add_stage(tmp_path / "toy", "grpo", tiny)
    return tmp_path / "toy"


def add_stage(run_dir, stage, tiny, **save):
    def write(folder):
        tiny[0].save_pretrained(folder, **save)
        tiny[1].save_pretrained(folder)
        (folder / "training_args.bin").write_bytes(b"never published")
        (folder / runs.OPTIMIZER).parent.mkdir()
        (folder / runs.OPTIMIZER).write_bytes(b"never published")

    runs.finish(a_recipe(run_dir, stage, model_name_or_path="sft", hub_license="apache-2.0"), RECORD, write)


def test_unpushed_stage_has_its_card(run_dir):
    assert update_card(run_dir, "grpo") is None  # never pushed: nothing to push to
    assert "toy-grpo" in (run_dir / "grpo" / "README.md").read_text()


def test_results_of_a_predecessor_are_left_out(run_dir):
    write_results(run_dir, {"grpo": {"bpb": 0.8765}})
    update_card(run_dir, "grpo")
    assert "0.8765" in (run_dir / "grpo" / "README.md").read_text()
    write_results(run_dir, {"grpo": {"bpb": 0.8765}}, grpo="before")
    update_card(run_dir, "grpo")
    assert "0.8765" not in (run_dir / "grpo" / "README.md").read_text()


def test_the_optimizers_state_is_not_published(run_dir):
    assert (run_dir / "grpo" / runs.OPTIMIZER).is_file()
    names = {path.name for path in published(run_dir / "grpo")}
    assert "model.safetensors" in names
    assert not names & {"state.safetensors", "training_args.bin"}


def test_unfinished_stage(tmp_path):
    with pytest.raises(PushError, match="no finished stage 'sft'"):
        push_stage(tmp_path, "sft", "tester/x-sft")


@pytest.mark.parametrize("to", ["nanohf", "a/b/c", "/b", "a/", "a/-b", "a/b c"])
def test_bad_repo_ids(to):
    with pytest.raises(ValueError, match=r"USER/NAME|Repo id|repo name"):
        stage_repo(to, "sft")


def test_without_a_network_the_message_says_how_to_push_later(run_dir):
    """In a process of its own: HF_HUB_OFFLINE is read at import."""
    code = (
        "import sys; from nanohf.errors import PushError; from nanohf.hub.publish import push_stage\n"
        "try: push_stage(sys.argv[1], 'grpo', 'tester/later-grpo', token='hf_sEcReT')\n"
        "except PushError as e: print(e)\n"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)], env=environment, capture_output=True, text=True, check=True
    )
    assert f"nanohf push {run_dir} grpo --to tester/later" in done.stdout.splitlines()[-1]
    assert "safe" in done.stdout
    assert "sEcReT" not in done.stdout + done.stderr
    assert (run_dir / "grpo" / "README.md").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stagee", "--to", "tester/x"], "unknown stage 'stagee'"),
        (["sft", "--to", "tester/x"], "sft of .* is not finished"),
        (["--to", "tester"], "not USER/NAME"),
        ([], "--to"),
    ],
)
def test_stage_push_exits_2_on_the_users_errors(run_dir, argv, message):
    command = [sys.executable, "-m", "nanohf.cli", "push", str(run_dir), *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


class TestHub:
    pytestmark = on_hub

    def test_pushed_stage_loads_and_generates_where_nanohf_is_not_installed(self, run_dir, tiny, tmp_path):
        url = push_stage(run_dir, "grpo", "tester/tiny-grpo", private=True)
        assert url.endswith("/tester/tiny-grpo")
        api = HfApi()
        info = api.model_info("tester/tiny-grpo", files_metadata=True)
        names = {f.rfilename for f in info.siblings} - {".gitattributes"}
        folder = run_dir / "grpo"
        local = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names == local - {"training_args.bin", runs.OPTIMIZER}
        assert info.private
        commits = [c.title for c in api.list_repo_commits("tester/tiny-grpo")]
        assert commits[0] == "grpo: pass@1 0.25 -> 0.4125"
        stage = json.loads(download(api, "tester/tiny-grpo", "stage.json"))
        assert "host" not in stage
        assert stage["after"] == 0.4125

        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [sys.executable, "-I", "-c", LOAD_WITHOUT_NANOHF, "tester/tiny-grpo"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        model, tokenizer = tiny
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": "one and two"}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        expected = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)[0].tolist()
        assert json.loads(done.stdout.splitlines()[-1]) == expected

    def test_a_second_push_leaves_no_stale_weights(self, tmp_path, tiny):
        api = HfApi()
        add_stage(tmp_path / "toy", "grpo", tiny, max_shard_size="80KB")
        push_stage(tmp_path / "toy", "grpo", "tester/shards-grpo")
        before = weights(api, "tester/shards-grpo")
        assert len(before) > 2
        assert "model.safetensors.index.json" in before
        api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="tester/shards-grpo")
        add_stage(tmp_path / "toy", "grpo", tiny)
        push_stage(tmp_path / "toy", "grpo", "tester/shards-grpo")
        assert weights(api, "tester/shards-grpo") == {"model.safetensors"}
        assert "notes.txt" in api.list_repo_files("tester/shards-grpo")  # the owner's own file stays
        assert len(api.list_repo_commits("tester/shards-grpo")) == 4  # the first one, two pushes, the notes

    def test_default_name_and_base_model(self, run_dir, tiny):
        add_stage(run_dir, "sft", tiny)
        assert push_stage(run_dir, "sft", "toy-sft").endswith("/tester/toy-sft")
        push_stage(run_dir, "grpo", "toy-grpo")
        assert HfApi().model_info("tester/toy-grpo").card_data.base_model == "tester/toy-sft"

    def test_card_after_an_evaluation(self, run_dir):
        push_stage(run_dir, "grpo", "tester/scored-grpo")
        gsm8k = {"metric": "exact_match", "value": 0.25, "stderr": 0.01, "n": 1319}
        write_results(run_dir, {"grpo": {"bpb": 0.5, "tasks": {"nanohf_gsm8k": gsm8k}}})
        assert update_card(run_dir, "grpo") == "tester/scored-grpo"
        api = HfApi()
        files = api.list_repo_files("tester/scored-grpo")
        assert ".eval_results/nanohf.yaml" in files
        assert "nanohf_gsm8k" in download(api, "tester/scored-grpo", "README.md")
        write_results(run_dir, {})
        update_card(run_dir, "grpo")
        assert ".eval_results/nanohf.yaml" not in api.list_repo_files("tester/scored-grpo")

    def test_a_wrong_token_is_not_told_and_the_way_out_is(self, run_dir):
        with pytest.raises(PushError) as error:
            push_stage(run_dir, "grpo", "somebody/else-grpo", token="hf_wrongwrongwrong")
        message = str(error.value)
        assert f"nanohf push {run_dir} grpo --to somebody/else" in message
        assert "safe" in message
        assert "wrongwrong" not in message
        assert "hf_dummy" not in message

    def test_stage_push(self, run_dir):
        command = [sys.executable, "-m", "nanohf.cli", "push", str(run_dir), "--to", "tester/verb"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "/tester/verb-grpo" in done.stderr
        assert runs.done(run_dir, "grpo").pushed_to == "tester/verb-grpo"
        elsewhere = subprocess.run([*command[:-1], "somebody/else"], capture_output=True, text=True)
        assert elsewhere.returncode == 1
        assert "--to somebody/else" in elsewhere.stderr
        assert "Traceback" not in elsewhere.stderr


def weights(api, repo_id):
    return {name for name in api.list_repo_files(repo_id) if "safetensors" in name}


def download(api, repo_id, name):
    return Path(api.hf_hub_download(repo_id, name)).read_text(encoding="utf-8")
