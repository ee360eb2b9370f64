"""The data of semantic_search/ keep what their card says, its collection is whole, and its helpers refuse what is wrong."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from functools import cache

import bm25s
import faiss
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, load_dataset
from hypothesis import given
from hypothesis import strategies as st
from notebooks import PAIR, ROOT, common_of
from oracles import definitions
from sklearn.metrics import ndcg_score
from transformers import AutoModel, AutoTokenizer

FOLDER = ROOT / "semantic_search"
SIZES = {"train": 1002, "validation": 122, "test": 303}

common = common_of("semantic_search")
spec = importlib.util.spec_from_file_location("stdlib_docs", FOLDER / "data" / "stdlib.py")
stdlib = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stdlib)


# ---------------------------------------------------------------------------------------------------- the data


@pytest.fixture(scope="module")
def data():
    return load_dataset(str(FOLDER / "data"))


# stdlib.py run as a program, which then says which modules of a list it has imported
WALK = """
import json, runpy, sys
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
print(json.dumps([name for name in ("antigravity", "idlelib", "tkinter", "turtle", "winreg") if name in sys.modules]))
"""


@cache
def walk(command):
    """The entries that a Python finds, and those of the modules above that it imported for it."""
    done = subprocess.run([command, "-I", "-c", WALK, FOLDER / "data" / "stdlib.py"], capture_output=True, text=True, check=True)
    *entries, imported = map(json.loads, done.stdout.splitlines())
    return entries, imported


@pytest.fixture(scope="module")
def entries():
    """name -> (signature, documentation) in the running Python."""
    return {name: (signature, text) for name, signature, text in walk(sys.executable)[0]}


def pythons():
    """The supported versions of Python that this machine has, the running one first."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in (11, 12, 13):
        command = shutil.which(f"python3.{minor}")
        if command and (3, minor) not in found:
            asked = subprocess.run([command, "-c", "import sys; print(sys.version_info[1])"], capture_output=True, text=True)
            if asked.returncode == 0 and asked.stdout.strip() == str(minor):
                found[3, minor] = command
    return found


def openings(questions, most):
    counts = Counter(tuple(re.findall(r"[\w']+", question.lower())[:2]) for question in questions)
    return {opening: n for opening, n in counts.items() if n > most}


def test_splits_and_columns(data):
    assert {split: len(data[split]) for split in data} == SIZES
    for rows in data.values():
        assert rows.column_names == ["question", "answers", "since"]
        assert all(1 <= len(names) <= 5 and len(names) == len(since) for names, since in zip(rows["answers"], rows["since"]))


def test_questions_are_short_varied_and_do_not_name_their_answers(data):
    questions = [question for rows in data.values() for question in rows["question"]]
    assert len(set(questions)) == sum(SIZES.values()) and openings(questions, most=18) == {}
    for rows in data.values():
        for question, answers in zip(rows["question"], rows["answers"]):
            assert 3 <= len(question.split()) <= 29 and question == question.strip()
            dotted = [name for name in answers if "." in name]  # a plain one, such as `round`, may be a word of the question
            assert not any(re.search(rf"\b{re.escape(name)}\b", question) for name in dotted), question


def test_no_entry_answers_questions_of_two_splits_and_few_answer_many(data):
    splits, counts = {}, Counter()
    for split, rows in data.items():
        for answers in rows["answers"]:
            counts.update(answers)
            for name in answers:
                splits.setdefault(name, set()).add(split)
    assert [name for name, found in splits.items() if len(found) > 1] == [] and max(counts.values()) <= 3


def test_some_questions_share_many_words_with_their_answers_and_some_hardly_any(data, entries):
    shares, words_of = [], definitions("semantic_search", PAIR[0], "words_of", bm25s=bm25s, common=common)
    for rows in data.values():
        for question, answers in zip(rows["question"], rows["answers"]):
            asked = words_of(question)
            known = [asked & words_of(" ".join(entries[name])) for name in answers if name in entries]
            shares.append(max(map(len, known)) / max(1, len(asked)))
    assert 0.15 < np.mean(np.array(shares) >= 0.5) < 0.4 and 0.3 < np.mean(np.array(shares) <= 0.2) < 0.7


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_every_answer_is_in_the_collection_of_this_version_or_marked_as_newer(data, version):
    if version not in pythons():
        pytest.skip(f"no Python {version[0]}.{version[1]} here")
    names = {name for name, _, _ in walk(pythons()[version])[0]}
    for rows in data.values():
        for answers, since in zip(rows["answers"], rows["since"]):
            assert "" in since, "every question has an answer in every version"
            for name, first in zip(answers, since):
                assert (name in names) == (not first or tuple(map(int, first.split("."))) <= version), name


# ---------------------------------------------------------------------------------------------------- the collection


def test_the_collection_is_large_and_each_entry_has_a_name_of_its_own(entries):
    assert 5000 < len(entries) < 7000
    assert len(entries) == len(walk(sys.executable)[0])
    assert all(text.strip() and not name.startswith("builtins.") for name, (_, text) in entries.items())


@pytest.mark.parametrize(
    "name, signature, start",
    [
        ("itertools.chain", "(*iterables)", "Return a chain object"),  # in C
        ("str.join", "(iterable, /)", "Concatenate any number of strings"),  # a method of a built-in type
        ("json.JSONDecoder.decode", None, "Return the Python representation"),  # known by the name of the package
        ("os.getenv", "(key, default=None)", "Get an environment variable"),  # exported by a call
        ("os.kill", None, "Kill a process with a signal"),  # in C, from the module behind os
        ("os.path.join", "(a, *p)", "Join two or more pathname components"),  # the same on every platform
        ("random.choice", "(seq)", "Choose a random element"),  # a method of an object in the module
        ("unittest.TestCase.assertEqual", None, "Fail if the two objects are unequal"),
        ("ipaddress.IPv4Network.hosts", "()", "Generate Iterator over usable hosts"),  # in a base that is not public
        ("asyncio.wait_for", "(fut, timeout)", "Wait for the single Future or coroutine"),
        ("collections.abc.MutableMapping.setdefault", None, "D.setdefault(k[,d])"),
        ("faulthandler.enable", None, "enable(file=sys.stderr"),  # which a notebook's kernel replaces
        ("types.new_class", None, "Create a class object dynamically"),  # __all__ is computed
    ],
)
def test_entries_of_all_kinds(entries, name, signature, start):
    assert entries[name][1].startswith(start)
    if signature is not None:
        assert entries[name][0] == signature


def test_an_object_has_one_name_and_private_ones_have_none(entries):
    assert "unittest.TestCase" in entries and "unittest.case.TestCase" not in entries
    assert not [name for name in entries if any(part.startswith("_") for part in name.split("."))]
    assert not [name for name in entries if name.split(".")[0] in {"test", "idlelib", "antigravity", "this"}]


def test_sources_are_read_and_not_imported():
    assert walk(sys.executable)[1] == []


@pytest.mark.parametrize(
    "doc, signature, text",
    [
        ("f(x, y) -> int\n\nAdd.", "(x, y)", "Add."),
        ("f(x)\nf(x, y)\n\nAdd.", "(x)", "Add."),
        ("Add f(x).", "()", "Add f(x)."),
        ("f(x)", "(x)", "f(x)"),
    ],
)
def test_calls_at_the_top_of_a_documentation_become_the_signature(doc, signature, text):
    assert stdlib.tidy("module.f", "()", doc) == ("module.f", signature, text)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("Do it. Then more.", "Do it."), ("Do it,\nin two lines. More.", "Do it, in two lines."), ("No end\n\nNext.", "No end"),
        ("Use e.g. this one. More.", "Use e.g. this one."), ("Version 3.11 only! More.", "Version 3.11 only!"),
    ],
)
def test_first_sentence(text, sentence):
    assert stdlib.first_sentence(text) == sentence


def rows_at(path, rows, split="train"):
    path.mkdir(exist_ok=True)
    (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_any_texts_with_an_id_are_a_collection(tmp_path):
    found = common.load_collection(rows_at(tmp_path, [{"id": 7, "text": "One. Two.", "more": 1}, {"id": 8, "text": "Three"}]), {})
    assert found[0] == {"id": "7", "summary": "One.", "text": "One. Two."}


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"name": "a", "text": "x"}], r"has no column \['id'\], only \['name', 'text'\]: each text needs an id"),
        ([{"id": "a", "body": "x"}], r"has no column \['text'\], only \['id', 'body'\]"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "several texts with the id 'a': give each"),
    ],
)
def test_a_bad_collection_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        common.load_collection(rows_at(tmp_path, rows), {})


def test_blank_texts_are_left_out_and_counted_and_a_row_that_comes_twice_is_one(tmp_path, capsys):
    rows = [{"id": "a", "text": "One."}, {"id": "b", "text": " \u200b"}, {"id": "c", "text": None}, {"id": "a", "text": "One."}]
    assert common.load_collection(rows_at(tmp_path, rows), {}).to_list() == [{"id": "a", "summary": "One.", "text": "One."}]
    assert "2 texts are blank and left out" in capsys.readouterr().out


def test_a_text_without_any_end_has_a_summary_of_bounded_length(tmp_path):
    (row,) = common.load_collection(rows_at(tmp_path, [{"id": "a", "text": "word " * 9_999}]), {})
    assert row["summary"] == ("word " * 60) + " ..." and len(row["text"]) > 49_000


GOOD = [{"question": "what", "answers": ["a"]}]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"train": [{"question": "what", "answers": ["z"]}]}, r"row 0 of split 'train' has answers .* not in the collection: \['z'\]"),
        ({"test": [{"question": " ", "answers": ["c"]}]}, "row 0 of split 'test' has the question ' ' and .*: remove it"),
        ({"test": [{"question": "what", "answers": []}]}, r"row 0 of split 'test' has the question 'what' and the answers \[\]: remove it"),
        ({"test": [{"question": "\u200b", "answers": ["c"]}]}, "row 0 of split 'test' has the question '.u200b' and .*: remove it"),
        ({split: [{"text": "what", "answers": ["a"]}] for split in SIZES}, r"'train' has no column \['question'\], only .*'text'"),
        ({"train": None}, "there is no split 'train'"),
    ],
)
def test_bad_questions_are_refused(tmp_path, wrong, message):
    good = {"train": GOOD, "validation": [{"question": "who", "answers": ["b"]}], "test": [{"question": "why", "answers": ["c"]}]}
    for split, rows in (good | wrong).items():
        if rows is not None:
            rows_at(tmp_path, rows, split)
    with pytest.raises(ValueError, match=message):
        common.load_questions(str(tmp_path), ["a", "b", "c"], {})


def test_answers_of_a_later_python_are_left_out(tmp_path):
    assert stdlib.in_this_python(["a", "b", "c"], ["", "3.99", "3.4"]) == ["a", "c"]
    rows = {split: [{"question": split, "answers": [split, "new"], "since": ["", "3.99"]}] for split in SIZES}
    for split in SIZES:
        rows_at(tmp_path, rows[split], split)
    found = common.load_questions(str(tmp_path), [*SIZES], {})
    assert {split: found[split].to_list() for split in SIZES} == {split: [{"question": split, "answers": [split]}] for split in SIZES}


def test_pairs_from_first_sentences_leave_the_sentence_out():
    long = "and this is what follows it, long enough to tell what the entry is about."
    collection = Dataset.from_list([
        {"id": "a", "summary": "The first one is here.", "text": f"a(): The first one is here. {long}"},
        {"id": "b", "summary": "This is said twice over.", "text": f"b(): This is said twice over. {long}"},
        {"id": "c", "summary": "This is said twice over.", "text": f"c(): This is said twice over. {long}"},
        {"id": "d", "summary": "There is nothing after it.", "text": "d(): There is nothing after it."},
        {"id": "e", "summary": "That one is an answer.", "text": f"e(): That one is an answer. {long}"},
    ])
    assert common.sentence_pairs(collection, 5, seed=0, without={"e"}) == [
        {"question": "The first one is here.", "id": "a", "document": f"a():  {long}", "answers": ["a"]}
    ]
    questions = Dataset.from_list([{"question": "which", "answers": ["e", "a"]}])
    pair = {"question": "which", "id": "e", "document": collection[4]["text"], "answers": ["e", "a"]}
    assert common.question_pairs(questions, collection) == [pair]


# ---------------------------------------------------------------------------------------------------- vectors and scores


def test_pooling_leaves_padding_out_and_gives_length_one():
    hidden = torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]], [[0.0, 2.0], [7.0, 7.0], [7.0, 7.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert torch.allclose(common.pool(hidden, mask), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_rank_metrics_by_hand():
    found = [[9, 4, 8, 5], [1, 2, 3, 4], [7, 8, 9, 0], [*range(10, 20), 3]]
    answers = [[4, 5], [1], [3], [3]]
    expected = {"recall@1": (0 + 1 + 0 + 0) / 4, "recall@10": (1 + 1 + 0 + 0) / 4, "mrr@10": (1 / 2 + 1 + 0 + 0) / 4,
                "ndcg@10": ((1 / np.log2(3) + 1 / np.log2(5)) / (1 + 1 / np.log2(3)) + 1) / 4}
    assert common.rank_metrics(found, answers) == pytest.approx(expected)


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_ndcg_is_that_of_scikit_learn(seed, answers):
    rng = np.random.default_rng(seed)
    scores, relevant = rng.permutation(30).astype(float), rng.choice(30, answers, replace=False)
    truth = np.isin(np.arange(30), relevant).astype(float)
    found = common.rank_metrics([np.argsort(-scores).tolist()], [relevant.tolist()])["ndcg@10"]
    assert found == pytest.approx(ndcg_score(truth[None], scores[None], k=10))


def test_validation_ranks_the_answer_among_all_texts():
    queries = torch.eye(3)[:2]
    documents = torch.stack([torch.stack([torch.eye(3)[0], torch.eye(3)[2]]), torch.stack([0.5 * torch.eye(3)[1], torch.eye(3)[1]])])
    given = {"torch": torch, "F": torch.nn.functional, "temperature": 1.0}
    _, validate = definitions("semantic_search", PAIR[0], "compute_cosines", "validate", **given)
    scores = validate(queries=queries, documents=documents, texts=torch.arange(4).view(2, 2), right=torch.tensor([[0], [2]]))
    assert scores["mrr@10"] == pytest.approx((1 + 1 / 2) / 2)
    e = np.exp
    assert scores["loss"] == pytest.approx((np.log(e(1) + 3) - 1 + np.log(e(1) + e(0.5) + 2) - 0.5) / 2, abs=1e-6)


def test_fusion_adds_a_share_of_the_highest_word_score_to_the_cosine():
    fuse = definitions("semantic_search", PAIR[0], "fuse")
    words = np.array([[8.0, 4.0, 0.0]]), np.array([[5, 2, 7]])
    meaning = np.array([[0.6, 0.5, 0.1]]), np.array([[2, 3, 4]])
    assert fuse(words, meaning, 0.0) == [[2, 3, 4]], "the encoder alone, and as many entries"
    assert fuse(words, meaning, 0.2) == [[2, 3, 5]], "0.6 + 0.1, then 0.5, then the lowest cosine + 0.2"
    assert fuse(words, meaning, 0.9) == [[2, 5, 3]], "0.6 + 0.45, then 0.1 + 0.9, then 0.5"
    assert fuse(words, meaning, 2.0) == [[5, 2, 3]], "0.1 + 2, then 0.6 + 1, then 0.5"
    silent = np.zeros((1, 3)), np.array([[5, 2, 7]])
    assert fuse(silent, meaning, 0.5)[0][:2] == [2, 3], "no word is known; what comes third has the lowest cosine in any case"
    two = fuse(*(tuple(np.concatenate(pair) for pair in zip(one, one)) for one in (words, meaning)), 0.9)
    assert two == [[2, 5, 3]] * 2


# ---------------------------------------------------------------------------------------------------- the index


def unit(n, width=4, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    faiss.normalize_L2(vectors)
    return vectors


def test_the_nearest_have_the_largest_inner_product_and_come_first():
    vectors, query = unit(50), unit(1, seed=1)
    nearest = definitions("semantic_search", PAIR[0], "nearest", faiss=faiss, top_k=100)
    scores, found = nearest(vectors, query, 5)
    assert nearest(vectors, query)[1].shape == (1, 50), "no more than there are"
    order = np.argsort(-(vectors @ query[0]))[:5]
    assert found[0].tolist() == order.tolist()
    assert scores[0] == pytest.approx((vectors @ query[0])[order], abs=1e-6)


def test_approximate_indexes_trade_recall_for_time():
    measure = definitions("semantic_search", PAIR[0], "measure_indexes", faiss=faiss, np=np, pd=pd, time=time)
    table = measure(unit(2000, width=8), unit(20, width=8, seed=1), num_lists=16)
    assert table["index"].value_counts().to_dict() == {"IVF": 6, "HNSW": 6, "exact": 1}
    recall = table.set_index("setting")["recall"]
    assert recall[""] == 1.0 and recall["nprobe=16"] == 1.0, "all lists searched is an exact search"
    assert recall["nprobe=1"] < recall["nprobe=4"] <= 1.0
    assert (table[["ms", "build s", "MB"]] >= 0).all().all() and table["MB"].max() < 10


# ---------------------------------------------------------------------------------------------------- what the notebooks saved


@pytest.mark.parametrize("name", PAIR)
def test_a_saved_model_loads_in_sentence_transformers_and_gives_the_same_vectors(recorded_run, name):
    from sentence_transformers import SentenceTransformer

    target = recorded_run("semantic_search")
    path = str(target / "outputs" / name / "run-001" / "model")
    texts = ["ba be bi bo", "ron " * 60, "du dan dero ka"]
    tokenizer, encoder = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        ours = common.pool(encoder(**inputs).last_hidden_state, inputs["attention_mask"])
    theirs = torch.nn.functional.normalize(SentenceTransformer(path, device="cpu").encode(texts, convert_to_tensor=True), dim=-1)
    assert inputs["input_ids"].shape[1] == 48, "the saved tokenizer remembers how much is read"
    assert ((ours * theirs).sum(dim=-1) > 0.9999).all()


def test_the_lines_for_sentence_transformers_train(hub, tmp_path, monkeypatch):
    cells = nbformat.read(FOLDER / f"{PAIR[0]}.ipynb", as_version=4).cells
    (block,) = re.findall(r"```python\n(.*?)```", "\n".join(cell.source for cell in cells if cell.cell_type == "markdown"), flags=re.S)
    monkeypatch.chdir(tmp_path)
    here = {"checkpoint": "distilbert/distilbert-base-uncased", "max_length": 16, "num_epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    rows = [{"question": f"ba be {word}", "document": f"{word} bo", "negatives": ["du du"]} for word in "abcdefgh"]
    here |= {"temperature": 0.05, "train_rows": rows}
    exec(block, here)
    assert here["st_trainer"].state.global_step == 2
