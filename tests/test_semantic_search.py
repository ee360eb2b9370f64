"""The data of semantic_search/ keep what their card says, its collection is whole, and its helpers refuse what is wrong."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache

import faiss
import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from hypothesis import given
from hypothesis import strategies as st
from notebooks import PAIR, ROOT, common_of
from sklearn.metrics import ndcg_score
from transformers import AutoModel, AutoTokenizer

FOLDER = ROOT / "semantic_search"
SIZES = {"train": 150, "validation": 50, "test": 100}
TINY = "distilbert/distilbert-base-uncased"

common = common_of("semantic_search")
spec = importlib.util.spec_from_file_location("stdlib_docs", FOLDER / "stdlib.py")
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
    done = subprocess.run([command, "-I", "-c", WALK, FOLDER / "stdlib.py"], capture_output=True, text=True, check=True)
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
    assert len(set(questions)) == 300 and openings(questions, most=4) == {}
    for rows in data.values():
        for question, answers in zip(rows["question"], rows["answers"]):
            assert 4 <= len(question.split()) <= 25 and question.isascii() and question == question.strip()
            assert not any(re.search(rf"\b{re.escape(name)}\b", question) for name in answers), question


def test_every_name_answers_one_question_only(data):
    names = [name for rows in data.values() for answers in rows["answers"] for name in answers]
    assert [name for name, n in Counter(names).items() if n > 1] == []


def test_most_questions_share_few_words_with_their_answers(data, entries):
    few = []
    for rows in data.values():
        for question, answers in zip(rows["question"], rows["answers"]):
            asked = common.words_of(question)
            known = [asked & common.words_of(" ".join(entries[name])) for name in answers if name in entries]
            few.append(max(map(len, known)) <= len(asked) / 4)
    assert 0.5 < np.mean(few) < 0.95, "most share few, some share more"


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
    assert common.first_sentence(text) == sentence


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
        ([{"name": "a", "text": "x"}], "has no column 'id', .*columns = "),
        ([{"id": "a", "body": "x"}], "has no column 'text'"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "has 1 ids more than once"),
        ([{"id": "a", "text": "x"}, {"id": "b", "text": " "}], "the text with the id b is ' ': drop it"),
        ([{"id": "a", "text": 3}], "the text with the id a is 3: .*cast"),
    ],
)
def test_a_bad_collection_is_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        common.load_collection(rows_at(tmp_path, rows), {})


GOOD = [{"question": "what", "answers": ["a"]}]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"train": [{"question": "what", "answers": ["z"]}]}, r"row 0 of split 'train' has answers .* not in the collection: \['z'\]"),
        ({"test": [{"question": " ", "answers": ["c"]}]}, "row 0 of split 'test' has the question ' ': drop it"),
        ({"test": [{"question": "what", "answers": []}]}, "row 0 of split 'test' has no answer"),
        ({"test": [{"question": "what", "answers": ["a"]}]}, r"\['a'\] answer questions in 'train' and in 'test'"),
        ({split: [{"text": "what", "answers": ["a"]}] for split in SIZES}, "has no column 'question', .*columns = "),
        ({"validation": None}, "has no split 'validation'"),
    ],
)
def test_bad_questions_are_refused(tmp_path, wrong, message):
    good = {"train": GOOD, "validation": [{"question": "who", "answers": ["b"]}], "test": [{"question": "why", "answers": ["c"]}]}
    for split, rows in (good | wrong).items():
        if rows is not None:
            rows_at(tmp_path, rows, split)
    with pytest.raises(ValueError, match=message):
        common.load_questions(str(tmp_path), ["a", "b", "c"], {})


def test_answers_of_a_later_python_are_left_out():
    row = {"question": "what", "answers": ["a", "b", "c"], "since": ["", "3.99", "3.4"]}
    assert common.answers_here(row) == ["a", "c"]
    assert common.answers_here({"question": "what", "answers": ["a", 7]}) == ["a", "7"]
    assert common.answers_here({"question": "what", "answers": None}) == []


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
        {"question": "The first one is here.", "id": "a", "document": f"a():  {long}"}
    ]
    questions = Dataset.from_list([{"question": "which", "answers": ["e", "a"]}])
    assert common.question_pairs(questions, collection) == [{"question": "which", "id": "e", "document": collection[4]["text"]}]


# ---------------------------------------------------------------------------------------------------- vectors and scores


def test_only_whole_batches_are_trained_on_and_less_than_one_is_refused():
    rows = [{"id": i} for i in range(7)]
    assert common.whole_batches(rows, 3) == rows[:6] and common.whole_batches(rows, 7) == rows
    with pytest.raises(ValueError, match="7 pairs do not fill a batch of 8: use a smaller batch_size, or a larger num_pairs"):
        common.whole_batches(rows, 8)


def test_pooling_leaves_padding_out_and_gives_length_one():
    hidden = torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]], [[0.0, 2.0], [7.0, 7.0], [7.0, 7.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert torch.allclose(common.pool(hidden, mask), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


@given(st.lists(st.integers(1, 60)), st.integers(1, 200))
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    batches = common.token_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) * max(lengths[i] for i in batch) <= budget or len(batch) == 1


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
    scores = common.validate(queries, documents, temperature=1.0)
    assert scores["mrr@10"] == pytest.approx((1 + 1 / 2) / 2)
    e = np.exp
    assert scores["loss"] == pytest.approx((np.log(e(1) + 3) - 1 + np.log(e(1) + e(0.5) + 2) - 0.5) / 2, abs=1e-6)


def test_fusion_by_reciprocal_rank():
    assert common.fuse([1, 2, 3], [3, 2, 9]) == [3, 2, 1, 9]
    assert common.fuse([1, 2], [2, 1], k=0) == [1, 2]


def test_a_query_is_checked(hub):
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    with pytest.raises(ValueError, match="the query is empty: write what"):
        common.check_query("  ", tokenizer, 8)
    with pytest.warns(UserWarning, match="the query has 12 tokens, and only the first 8 are read: make it shorter"):
        common.check_query("ba " * 10, tokenizer, 8)
    assert common.check_query("ba be", tokenizer, 8) == "ba be"


# ---------------------------------------------------------------------------------------------------- the index


def unit(n, width=4, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    faiss.normalize_L2(vectors)
    return vectors


def test_the_nearest_have_the_largest_inner_product_and_come_first():
    vectors, query = unit(50), unit(1, seed=1)
    scores, found = common.nearest(common.build_index([str(i) for i in range(50)], vectors), query, 5)
    order = np.argsort(-(vectors @ query[0]))[:5]
    assert found[0].tolist() == order.tolist()
    assert scores[0] == pytest.approx((vectors @ query[0])[order], abs=1e-6)


def test_ids_and_vectors_must_be_equally_many():
    with pytest.raises(ValueError, match="3 ids and 2 vectors: embed the whole collection"):
        common.build_index(["a", "b", "c"], unit(2))


def test_vectors_of_another_width_are_refused():
    with pytest.raises(ValueError, match="have 5 numbers and those in the index 4: use the model that made the index"):
        common.nearest(common.build_index(["a", "b"], unit(2)), unit(1, width=5), 1)


def test_an_index_is_read_back_and_refused_for_another_model(tmp_path):
    model, other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    common.save_index(tmp_path / "index", common.build_index(["a", "b"], unit(2)), ["a", "b"], model)
    index, ids = common.load_index(tmp_path / "index", model)
    assert ids == ["a", "b"] and np.array_equal(index.reconstruct_n(0, 2), unit(2))
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == ["index.faiss", "index.json"]
    with pytest.raises(ValueError, match="made by another model, .*embed the collection again"):
        common.load_index(tmp_path / "index", other)
    common.save_index(tmp_path / "index", index, ["a"], model)
    with pytest.raises(ValueError, match="1 ids and 2 vectors"):
        common.load_index(tmp_path / "index", model)


def test_an_index_can_be_used_by_a_model_loaded_again(hub, tmp_path):
    """A pooling layer that was not saved gets new random weights on every load, and must not count."""
    model = AutoModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    model.pooler = None
    model.save_pretrained(tmp_path / "model")
    common.save_index(tmp_path / "index", common.build_index(["a", "b"], unit(2)), ["a", "b"], model)
    for _ in range(2):
        assert common.load_index(tmp_path / "index", AutoModel.from_pretrained(tmp_path / "model"))[1] == ["a", "b"]


def test_more_entries_than_there_are_can_not_be_asked_for():
    with pytest.raises(ValueError, match="3 entries are asked for and the index has 2: ask for fewer"):
        common.nearest(common.build_index(["a", "b"], unit(2)), unit(1), 3)


def test_approximate_indexes_trade_recall_for_time():
    table = common.trade(unit(2000, width=8), unit(20, width=8, seed=1), lists=16)
    assert table["kind"].value_counts().to_dict() == {"IVF": 6, "HNSW": 6, "exact": 1}
    recall = table.set_index("setting")["recall"]
    assert recall[""] == 1.0 and recall["nprobe=16"] == 1.0, "all lists searched is an exact search"
    assert recall["nprobe=1"] < recall["nprobe=4"] <= 1.0
    assert (table[["ms", "build s", "MB"]] >= 0).all().all() and table["MB"].max() < 10


def test_comparing_tells_ranks_and_shared_words():
    collection = Dataset.from_dict({"id": ["x", "y", "z"], "text": ["sort names", "open files", "names"]})
    (row,) = common.compare(["sort the names"], [[0]], collection, [[2, 0]], [[1, 2]]).to_dict("records")
    assert (row["BM25"], row["encoder"], row["answer"], row["BM25's first"]) == (2, 3, "x", "z")
    assert (row["shared with the answer"], row["shared with that"]) == ("names, sort", "names")


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
