"""The data of sequence_classification/ keep what their card says, and its helpers refuse what is wrong."""

import re
from collections import Counter, defaultdict
from itertools import combinations

import numpy as np
import pytest
from datasets import Dataset, load_dataset
from notebooks import ROOT, common_of
from transformers import AutoTokenizer

FOLDER = ROOT / "sequence_classification"
SIZES = {"train": 720, "validation": 180, "test": 180}

common = common_of("sequence_classification")


# ---------------------------------------------------------------------------------------------------- the data


@pytest.fixture(scope="module")
def data():
    return load_dataset(str(FOLDER / "data"))


def words(text):
    return re.findall(r"[\w']+", text.lower())


def four_grams(text):
    return set(zip(*(words(text)[i:] for i in range(4))))


def shared_four_grams(splits):
    """Four-grams that occur in more than one split, with the rows (split, index) they occur in."""
    places = defaultdict(set)
    for split in splits:
        for i, text in enumerate(splits[split]):
            for gram in four_grams(text):
                places[gram].add((split, i))
    return {" ".join(gram): rows for gram, rows in places.items() if len({split for split, _ in rows}) > 1}


def frequent_openings(texts, most):
    counts = Counter(tuple(words(text)[:4]) for text in texts)
    return [opening for opening, n in counts.items() if n > most]


def test_splits_labels_and_columns(data):
    assert {split: len(data[split]) for split in data} == SIZES
    for split, rows in data.items():
        assert rows.column_names == ["text", "label"]
        assert rows.features["label"].names == ["sadness", "joy", "love", "anger", "fear", "surprise"]
        assert np.bincount(rows["label"]).tolist() == [SIZES[split] // 6] * 6


def test_texts_have_6_to_40_words_and_plain_characters(data):
    for rows in data.values():
        for text in rows["text"]:
            assert 6 <= len(text.split()) <= 40, text
            assert text.isascii() and text == text.strip() and "  " not in text, text


def test_no_two_splits_share_four_words_in_a_row(data):
    assert shared_four_grams({split: data[split]["text"][:] for split in data}) == {}


def test_no_opening_recurs(data):
    assert frequent_openings([text for rows in data.values() for text in rows["text"]], most=2) == []


def test_no_two_texts_have_most_words_in_common(data):
    bags = [set(words(text)) for rows in data.values() for text in rows["text"]]
    alike = [(a, b) for a, b in combinations(bags, 2) if len(a & b) > 0.6 * min(len(a), len(b)) and min(len(a), len(b)) > 8]
    assert alike == []


def test_the_two_checks_find_what_they_look_for():
    far = {"train": ["She left the keys on a table."], "test": ["They found the keys on my shelf."]}
    assert shared_four_grams(far) == {}
    near = {"train": far["train"], "test": ["Who left the keys on this floor?"]}
    assert list(shared_four_grams(near)) == ["left the keys on"]
    assert frequent_openings(["We did not know that."] * 2 + ["Nobody knew it at all."], most=1) == [("we", "did", "not", "know")]


# ---------------------------------------------------------------------------------------------------- common.py


GOOD = {"text": ["one", "two", "three", "four"], "label": ["a", "b", "a", "b"]}


def folder_of(path, **splits):
    """A folder with a CSV per split. Splits not given are good, None is left out."""
    path.mkdir(exist_ok=True)
    for split, columns in ({"train": GOOD, "validation": GOOD, "test": GOOD} | splits).items():
        if columns is not None:
            Dataset.from_dict(columns).to_csv(path / f"{split}.csv", index=False)
    return str(path)


@pytest.mark.parametrize(
    "labels, names",
    [
        (["b", "a", "b"], ["a", "b"]), ([1, 5, 3], ["1", "3", "5"]), ([10, 2, 11], ["2", "10", "11"]), ([-1, 1, -1], ["-1", "1"]),
        ([True, False, True], ["false", "true"]), ([0.5, 2.5, 0.5], ["0.5", "2.5"]),
    ],
    ids=["words", "stars", "many", "signs", "bools", "floats"],
)
def test_labels_may_be_words_or_numbers(tmp_path, labels, names):
    columns = {"text": ["x", "y", "z"], "label": labels, "note": ["extra", "columns", "go"]}
    loaded = common.load_splits(folder_of(tmp_path, train=columns, validation=columns, test=columns), {})
    assert loaded["test"].column_names == ["text", "label"]
    assert loaded["test"].features["label"].names == names
    assert loaded["test"]["label"][:] == [sorted(set(labels)).index(label) for label in labels]


def test_texts_that_are_numbers_are_read_as_texts(tmp_path):
    columns = {"text": [404, 500], "label": ["a", "b"]}
    assert common.load_splits(folder_of(tmp_path, train=columns, validation=columns, test=columns), {})["test"]["text"][:] == ["404", "500"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"validation": {"text": ["x"], "label": ["c"]}}, "Invalid string class label c"),
        ({split: {"sentence": ["x"], "label": ["a"]} for split in SIZES}, r"\['text'.*\] not in the dataset. Current columns .*'sentence'"),
        ({"train": {"text": ["x", "  "], "label": ["a", "b"]}}, r"row 1 of split 'train' has the text '  ' and the label 'b': remove it"),
        ({"test": {"text": ["x", None], "label": ["a", "b"]}}, r"row 1 of split 'test' has the text None"),
        ({"train": {"text": ["x", "y"], "label": ["a", None]}}, r"row 1 of split 'train' has the text 'y' and the label None: remove it"),
        ({"validation": None}, r"has no split \['validation'\], only .*train_test_split"),
    ],
)
def test_what_would_train_on_garbage_is_an_error(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        common.load_splits(folder_of(tmp_path / "data", **wrong), {})


def test_tokenize_truncates_and_does_not_pad(hub):
    tokenizer = AutoTokenizer.from_pretrained("distilbert/distilbert-base-uncased")
    encoded = common.tokenize({"text": ["ba", "ba be bi bo bu da de di"]}, tokenizer, max_length=6)
    assert [len(ids) for ids in encoded["input_ids"]] == [3, 6]
