"""`nanohf chat` as a command: pipes, signals, models that are not there."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from small_run import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow
CHAT = [sys.executable, "-m", "nanohf.cli", "chat"]
ENV = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def folder(model, tokenizer, tmp_path):
    model.config.max_position_embeddings = 128
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def chat(*options, stdin: bytes = b"", **environment) -> subprocess.CompletedProcess:
    return subprocess.run([*CHAT, *options], input=stdin, env=ENV | environment, capture_output=True, timeout=120)


def test_each_line_of_a_pipe_is_answered_by_itself(folder):
    options = (folder, "--max-new-tokens", "8")
    alone = chat(*options, "--prompt", "How many plums?").stdout
    assert alone.strip()
    both = chat(*options, stdin=b"How many plums?\n\nHow many plums?\n")
    assert (both.returncode, both.stdout) == (0, 2 * alone)
    long = b"plums " * 200
    third = chat(*options, stdin=b"How many plums?\n" + long + b"\nHow many \xff plums?\n")
    assert third.returncode == 2
    assert b"error: line 2: " in third.stderr
    assert b"Traceback" not in third.stderr
    assert third.stdout.startswith(alone)
    assert len(third.stdout) > len(alone)


def test_a_closed_pipe_and_ctrl_c_end_it_quietly(folder):
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENV}
    process = subprocess.Popen([*CHAT, folder, "--max-new-tokens", "8"], **options)
    process.stdin.write(b"How many plums?\n" * 50)
    process.stdin.flush()
    assert process.stdout.read(1)
    process.stdout.close()
    process.stdin.close()
    assert process.wait(60) == 0
    assert b"Traceback" not in process.stderr.read()

    def heard() -> None:  # whoever started the tests in the background had it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen([*CHAT, folder, "--max-new-tokens", "8"], preexec_fn=heard, **options)
    process.stdin.write(b"How many plums?\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert b"Traceback" not in process.stderr.read()


@pytest.fixture
def hub():
    """hub(status): the address of a Hub that answers everything so."""
    servers = []

    def start(status: int) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(status)
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD

            def log_message(self, *args):
                pass

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()


def online(address: str, tmp_path) -> dict:
    return {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_x"}


def said(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in done.stderr.decode().splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("status", "message"), [(404, "no such repo on the Hub. If it is private, log in"), (403, "Ask for access")]
)
def test_a_model_that_is_not_there_is_the_users_error(hub, tmp_path, status, message):
    done = chat("alice/missing", "--prompt", "Hi", **online(hub(status), tmp_path))
    assert done.returncode == 2
    (line,) = said(done)
    assert "alice/missing" in line
    assert message in line
    assert b"Traceback" not in done.stderr


def test_a_hub_that_is_not_there_is_not(tmp_path):
    done = chat("alice/missing", "--prompt", "Hi", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode == 1
    (line,) = said(done)
    assert "the Hub cannot be reached" in line
    assert b"Traceback" not in done.stderr


def test_nor_is_a_refused_connection(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = chat("alice/missing", "--prompt", "Hi", **online(address, tmp_path))  # it tries six times
    assert done.returncode == 1
    assert "the Hub cannot be reached: [Errno 111]" in said(done)[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [("{", "is not a model"), ("{}", "has no model_type"), ('{"model_type": "llama"}', "is a llama model")],
)
def test_a_folder_that_is_no_model_of_ours(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    done = chat(str(tmp_path), "--prompt", "Hi")
    assert done.returncode == 2
    assert message in said(done)[0]
    assert os.listdir(tmp_path) == ["config.json"]
