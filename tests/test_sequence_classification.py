"""The data of sequence_classification/ keep what their card says, and its helpers refuse what is wrong."""

import json
import re
import sys
from collections import Counter, defaultdict
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset
from notebooks import PAIR, ROOT, common_of, largest_difference
from offline import STORE
from oracles import definitions
from scripts import export, job
from stand_ins import byte_level
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)
from transformers.loss.loss_utils import ForSequenceClassificationLoss

FOLDER = ROOT / "sequence_classification"
SIZES = {"train": 720, "validation": 180, "test": 180}

common = common_of("sequence_classification")
label_kinds = sys.modules["label_kinds"]
CHECKPOINT = str(STORE / "models" / "sentence-transformers" / "all-MiniLM-L6-v2")


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


def load(path, rows=None, columns=None, **splits):
    """What common.load_splits makes of JSON lines: the same rows in every split, or those of each split."""
    path.mkdir(exist_ok=True)
    for split in SIZES:
        lines = [json.dumps(row) + "\n" for row in splits.get(split, rows)]
        (path / f"{split}.jsonl").write_text("".join(lines))
    return common.load_splits(str(path), None, columns or {})


def with_labels(labels):
    return [{"text": f"text {i}", "label": label, "note": "an extra column"} for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    "labels, names",
    [
        (["b", "a", "b"], ["a", "b"]), ([1, 5, 3], ["1", "3", "5"]), ([10, 2, 11], ["2", "10", "11"]), ([-1, 1, -1], ["-1", "1"]),
        ([True, False, True], ["0", "1"]), ([0.0, 2.0, 0.0], ["0", "2"]), (["None", "nan", "None"], ["None", "nan"]),
    ],
    ids=["words", "stars", "many", "signs", "bools", "whole floats", "words for nothing"],
)
def test_labels_may_be_words_or_whole_numbers(tmp_path, labels, names):
    loaded = load(tmp_path, with_labels(labels))
    assert label_kinds.problem_type(loaded) == "single_label_classification"
    assert loaded["test"].column_names == ["text", "label"]
    assert label_kinds.label_names(loaded) == names
    assert loaded["test"]["label"][:] == [sorted(set(labels)).index(label) for label in labels]


def test_the_same_class_may_be_written_as_a_whole_number_and_as_a_float(tmp_path):
    for split, text in {"train": "a,0\nb,1\n", "validation": "c,0.0\nd,1.0\n", "test": "e,1\n"}.items():
        (tmp_path / f"{split}.csv").write_text("text,label\n" + text)
    loaded = common.load_splits(str(tmp_path), None, {})
    assert label_kinds.label_names(loaded) == ["0", "1"] and loaded["validation"]["label"][:] == [0, 1]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_numbers_with_decimals_are_scores(tmp_path, form):
    for split, scores in {"train": [0.5, 2, -1.25], "validation": [1, 2, 3], "test": [0.25]}.items():
        rows = with_labels(scores)
        if form == "csv":
            pd.DataFrame(rows).to_csv(tmp_path / f"{split}.csv", index=False)
        else:
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = common.load_splits(str(tmp_path), None, {})
    assert label_kinds.problem_type(loaded) == "regression" and label_kinds.label_names(loaded) == ["score"]
    assert loaded["validation"]["label"][:] == [1.0, 2.0, 3.0] and loaded["train"]["label"][:] == [0.5, 2.0, -1.25]


@pytest.mark.parametrize("labels, names, expected", [
    ([["b"], ["a", "b"], []], ["a", "b"], [[0, 1], [1, 1], [0, 0]]),
    ([[3], [1, 3], [1]], ["1", "3"], [[0, 1], [1, 1], [1, 0]]),
    ([[0, 0, 1], [1, 1, 1], [0, 1, 0]], ["0", "1", "2"], [[0, 0, 1], [1, 1, 1], [0, 1, 0]]),
    ([[0, 1], [1, 0], [0, 1]], ["0", "1"], [[0, 1], [1, 0], [0, 1]]),
    (['["b"]', "['a', 'b']", "[]"], ["a", "b"], [[0, 1], [1, 1], [0, 0]]),
], ids=["words", "ids", "zeros and ones", "one of two", "lists as a CSV has them"])
def test_a_text_may_have_any_number_of_labels(tmp_path, labels, names, expected):
    loaded = load(tmp_path, with_labels(labels))
    assert label_kinds.problem_type(loaded) == "multi_label_classification" and label_kinds.label_names(loaded) == names
    assert label_kinds.label_array(loaded["test"]["label"][:], len(names)).tolist() == expected


def test_names_of_a_card_keep_their_order_also_in_lists(tmp_path):
    feature = Features({"text": Value("string"), "label": List(ClassLabel(names=["z", "a"]))})
    rows = {split: Dataset.from_dict({"text": ["x", "y"], "label": [[0], [1, 0]]}, features=feature) for split in SIZES}
    DatasetDict(rows).save_to_disk(tmp_path / "data")
    loaded = common.load_splits(str(tmp_path / "data"), None, {})
    assert label_kinds.label_names(loaded) == ["z", "a"] and loaded["test"]["label"][:] == [[0], [1, 0]]


def test_texts_that_are_numbers_are_read_as_texts(tmp_path):
    assert load(tmp_path, [{"text": 404, "label": "a"}, {"text": 500, "label": "b"}])["test"]["text"][:] == ["404", "500"]


def test_pairs_of_texts_are_one_sequence_of_two_segments(tmp_path):
    rows = [{"premise": "ba be", "hypothesis": "bi", "label": i % 2} for i in range(4)]
    loaded = load(tmp_path, rows, {"text": "premise", "text_pair": "hypothesis"})
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    encoded = common.tokenize(loaded["test"][:2], tokenizer, 16, 2)
    assert encoded["input_ids"][0] == tokenizer("ba be", "bi")["input_ids"] != tokenizer("ba be bi")["input_ids"]
    assert encoded["labels"] == [0, 1] and common.joined(loaded["test"])[0] == "ba be | bi"


@pytest.mark.parametrize("row", [{"text": "\u200b\u200d ", "label": "a"}, {"text": None, "label": "a"}, {"text": "x", "label": None}],
                         ids=["zero width", "no text", "no label"])
def test_rows_without_text_or_label_are_left_out_and_counted(tmp_path, capsys, row):
    loaded = load(tmp_path, [*with_labels("abab"), row])
    assert [len(loaded[split]) for split in SIZES] == [4, 4, 4]
    assert "1 rows of 'train' have a blank text or no label" in capsys.readouterr().out


def test_minus_one_is_no_class_where_the_classes_have_names(tmp_path):
    feature = Features({"text": Value("string"), "label": ClassLabel(names=["yes", "no"])})
    rows = Dataset.from_dict({"text": ["x", "y", "z"], "label": [0, -1, 1]}, features=feature)
    DatasetDict(dict.fromkeys(SIZES, rows)).save_to_disk(tmp_path / "data")
    assert common.load_splits(str(tmp_path / "data"), None, {})["train"]["text"][:] == ["x", "z"]


def test_decimals_may_be_written_with_a_comma_and_a_line_says_so(tmp_path, capsys):
    loaded = load(tmp_path, with_labels(["3,5", "4", "-0,25", "5,0"]))
    assert label_kinds.problem_type(loaded) == "regression" and loaded["test"]["label"][:] == [3.5, 4.0, -0.25, 5.0]
    assert "labels such as '3,5' are read as numbers with decimals" in capsys.readouterr().out


def test_names_that_are_other_names_with_a_separator_between_are_told_to_be_classes(tmp_path, capsys):
    loaded = load(tmp_path, with_labels(["too late", "rude", "too late; rude", "rude, that is"]))
    assert len(label_kinds.label_names(loaded)) == 4
    assert "'too late; rude' are taken for classes of their own" in (said := capsys.readouterr().out)
    assert "['too late', 'rude']" in said and "that is" not in said


def test_a_blank_label_is_a_missing_one(tmp_path):
    loaded = load(tmp_path, with_labels("abab"), train=with_labels(["a", "", "b", " "]))
    assert label_kinds.label_names(loaded) == ["a", "b"] and loaded["train"]["text"][:] == ["text 0", "text 2"]


def no_text(text):
    return [{"text": text, "label": label} for label in "abab"]


@pytest.mark.parametrize("splits, message", [
    (dict.fromkeys(SIZES, no_text({"en": "yes"})), "row 0 of 'train' has the text {'en': 'yes'}, which is not a text"),
    (dict.fromkeys(SIZES, no_text(["yes", "no"])), "row 0 of 'train' has the text .'yes', 'no'., which is not a text"),
    (dict.fromkeys(SIZES, with_labels([{"name": "a"}, {"name": "b"}])), "a label is a dict, such as {'name': 'a'}"),
    (dict.fromkeys(SIZES, with_labels(["[a, b]", "[b]"])), r"there is a label \[a, b\]: a list needs quotation marks"),
    ({"test": no_text(" ")}, "no row of 'test' has both a text and a label: leave this split out"),
    ({"validation": with_labels("abc")}, r"split 'validation' has labels that 'train' has not: \['c'\]"),
    ({"train": with_labels("aaaa"), "validation": with_labels("a"), "test": with_labels("a")}, "all rows of 'train' have the label"),
    (dict.fromkeys(SIZES, with_labels([f"id {i}" for i in range(40)])), "'train' has 40 labels in 40 rows.* too many for classes"),
    (dict.fromkeys(SIZES, with_labels([[0.2, 0.8], [0.9, 0.1]])), "a list of numbers with decimals"),
])
def test_what_would_train_on_garbage_is_an_error(tmp_path, splits, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, with_labels("abab"), **splits)


@pytest.mark.parametrize("used, message", [
    ({"train": [0, 0], "validation": [0, 0], "test": [0, 0]}, r"all rows of 'train' have the label \['z'\]"),
    ({"train": [0, 1], "validation": [0, 2], "test": [0, 1]}, r"'validation' has labels that 'train' has not: \['m'\]"),
], ids=["one label", "a label that train lacks"])
def test_what_is_no_class_in_train_is_an_error_also_where_the_classes_have_names(tmp_path, used, message):
    feature = Features({"text": Value("string"), "label": ClassLabel(names=["z", "a", "m"])})
    splits = {split: Dataset.from_dict({"text": ["x", "y"], "label": labels}, features=feature) for split, labels in used.items()}
    DatasetDict(splits).save_to_disk(tmp_path / "data")
    with pytest.raises(ValueError, match=message):
        common.load_splits(str(tmp_path / "data"), None, {})


# ----------------------------------------------------------------- one file, of which the splits are drawn


def load_file(path, labels, columns=None, **more):
    rows = [{**row, **more} for row in with_labels(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return common.load_splits(str(path), None, columns or {})


@pytest.mark.parametrize("form", [str, lambda label: [label]], ids=["a label", "a list"])
def test_of_one_file_the_only_row_of_a_class_stays_in_train(tmp_path, form):
    loaded = load_file(tmp_path / "rows.jsonl", [form(f"rare {i}" if i < 20 else f"class {i % 3}") for i in range(90)])
    assert len(label_kinds.label_names(loaded)) == 23 and sum(len(rows) for rows in loaded.values()) == 90
    in_train = set(map(str, loaded["train"]["label"]))
    assert min(len(rows) for rows in loaded.values()) > 5
    assert all(str(label) in in_train for split in ("validation", "test") for label in loaded[split]["label"])


@pytest.mark.parametrize("labels", [[f"id {i}" for i in range(40)], list(range(40)), [[f"id {i}"] for i in range(40)]],
                         ids=["words", "numbers", "lists"])
def test_of_one_file_ids_are_told_to_be_no_classes(tmp_path, labels):
    with pytest.raises(ValueError, match="too many for classes"):
        load_file(tmp_path / "rows.jsonl", labels)


def test_missing_labels_are_left_out_in_every_kind(tmp_path, capsys):
    nan = float("nan")
    scores = load_file(tmp_path / "scores.jsonl", [i / 4 if i % 10 else nan for i in range(60)])
    assert label_kinds.problem_type(scores) == "regression" and sum(len(rows) for rows in scores.values()) == 54
    stars = load_file(tmp_path / "stars.jsonl", [float(i % 3) if i % 10 else nan for i in range(60)])
    assert label_kinds.label_names(stars) == ["0", "1", "2"]
    lists = load_file(tmp_path / "lists.jsonl", [["a", "b"][: i % 3] if i % 10 else [None] for i in range(60)])
    assert label_kinds.label_names(lists) == ["a", "b"] and sum(len(rows) for rows in lists.values()) == 54
    assert "have a blank text or no label" in capsys.readouterr().out


def test_blanks_around_a_label_make_no_other_class(tmp_path):
    assert label_kinds.label_names(load_file(tmp_path / "rows.jsonl", ["a", "b", " a", "b "] * 10)) == ["a", "b"]


def test_a_column_that_is_named_as_the_second_text_has_to_be_there(tmp_path):
    with pytest.raises(ValueError, match="no column .'hypotesis'"):
        load_file(tmp_path / "rows.jsonl", ["a", "b"] * 20, {"text_pair": "hypotesis"}, hypothesis="x")


def test_tokenize_truncates_and_does_not_pad():
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    encoded = common.tokenize({"text": ["ba", "ba be bi bo bu da de di"], "label": [0, 1]}, tokenizer, 6, 2)
    assert len(encoded["input_ids"][1]) == 6 > len(encoded["input_ids"][0])


def test_words_are_counted_in_scripts_with_and_without_spaces():
    assert [common.count_words(text) for text in ("one two-three, four", "我们 去abc", "")] == [3, 4, 0]
    assert re.findall(common.WORD, "I went to 东京 twice") == ["went", "to", "东", "京", "twice"]


# ---------------------------------------------------------------------------------------------------- scores and losses

RNG = np.random.default_rng(0)


def test_scores_of_several_labels_are_those_of_scikit_learn():
    true, guessed = (RNG.integers(0, 2, (50, 4)) for _ in range(2))
    found = label_kinds.score("multi_label_classification", guessed, true)
    by_label = []
    for t, g in zip(true.T, guessed.T):
        by_label.append(2 * (t & g).sum() / (t.sum() + g.sum()))
    assert found["f1"] == pytest.approx(np.mean(by_label))
    assert found["f1_micro"] == pytest.approx(2 * (true & guessed).sum() / (true.sum() + guessed.sum()))
    assert found["accuracy"] == (true == guessed).all(axis=1).mean()


def test_scores_of_numbers_are_correlations_and_the_squared_error():
    true, guessed = RNG.normal(size=(2, 50))
    found = label_kinds.score("regression", guessed, true)
    ranks = [np.argsort(np.argsort(values)) for values in (guessed, true)]
    assert found["pearson"] == pytest.approx(np.corrcoef(guessed, true)[0, 1])
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found["mse"] == pytest.approx(((guessed - true) ** 2).mean())
    assert label_kinds.score("regression", np.full(50, 2.0), true)["pearson"] == 0.0


def test_many_classes_are_shown_by_the_pairs_most_often_confused():
    names, true = [f"class {i}" for i in range(30)], np.repeat(np.arange(30), 4)
    guessed = true.copy()
    guessed[:3], guessed[4], guessed[8:10] = 7, 0, 29
    table = label_kinds.plot_predictions("single_label_classification", guessed, true, names)
    assert table.to_numpy().tolist() == [["class 0", "class 7", 3], ["class 2", "class 29", 2], ["class 1", "class 0", 1]]
    assert label_kinds.plot_predictions("single_label_classification", true, true, names).empty


def test_several_labels_are_shown_by_the_f1_of_each():
    true, guessed = np.array([[1, 0], [1, 1], [1, 0]]), np.array([[1, 1], [1, 0], [0, 0]])
    table = label_kinds.plot_predictions("multi_label_classification", guessed, true, ["a", "b"])
    assert table.to_numpy().tolist() == [["a", 3, 0.8], ["b", 1, 0.0]]


def test_scores_are_shown_as_points_beside_the_diagonal(monkeypatch):
    monkeypatch.setattr(label_kinds.plt, "show", lambda: None)
    label_kinds.plot_predictions("regression", np.array([2.0, 3.0, 1.0]), np.array([1.0, 3.0, 2.0]), ["score"])
    (ax,) = label_kinds.plt.gcf().axes
    assert ax.collections[0].get_offsets().tolist() == [[1, 2], [3, 3], [2, 1]] and ax.lines[0].get_slope() == 1
    label_kinds.plt.close("all")


def test_labels_are_counted_and_named_in_every_kind():
    several = {"train": np.array([[1, 1], [0, 1], [0, 0]])}
    assert label_kinds.count(several, ["a", "b"])["train"].to_dict() == {"a": 1, "b": 2}
    assert [label_kinds.in_words(row, ["a", "b"]) for row in several["train"]] == ["a, b", "b", "(none)"]
    many = label_kinds.count({"train": np.repeat(np.arange(40), np.arange(40))}, [f"class {i}" for i in range(40)])
    assert len(many) == 30 and many["train"].iloc[0] == 39 and many.index[0] == "class 39"
    assert label_kinds.count({"train": np.array([1.0, 2.0])}, ["score"])["train"]["mean"] == 1.5
    assert label_kinds.in_words(np.float32(0.346), ["score"]) == "0.35"


LOGITS = torch.tensor(RNG.normal(size=(6, 3)), dtype=torch.float32)


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("problem, labels", [
    ("single_label_classification", torch.tensor([0, 2, 1, 1, 0, 2])),
    ("multi_label_classification", torch.tensor(RNG.integers(0, 2, (6, 3)), dtype=torch.float32)),
    ("regression", torch.tensor(RNG.normal(size=6), dtype=torch.float32)),
])
def test_without_accumulation_the_loss_is_that_of_the_library(name, problem, labels):
    logits = LOGITS[:, :1] if problem == "regression" else LOGITS
    config = SimpleNamespace(problem_type=problem, num_labels=logits.shape[1])
    wanted = ["row_losses", "decide", "compute_loss"] + ["is_real"] * (name == "accelerate_loop")
    row_losses, decide, compute_loss, *_ = definitions("sequence_classification", name, *wanted, F=F, problem_type=problem)
    expected = ForSequenceClassificationLoss(labels, logits, config).item()
    assert row_losses(logits, labels).shape == (6,)
    # Trainer counts the numbers in `labels`, of which there are several for each text that may have several labels
    num_items = labels.numel() if name == "trainer_api" else 6
    assert compute_loss(SimpleNamespace(logits=logits), labels, num_items).item() == pytest.approx(expected, rel=1e-6)
    by_hand = {
        "single_label_classification": logits.argmax(-1), "multi_label_classification": (logits.sigmoid() > 0.5).int(),
        "regression": logits[:, 0]}[problem]
    assert decide(logits).tolist() == by_hand.tolist()


TINY = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4}
MODELS = {
    "BERT": (BertForSequenceClassification, BertConfig(**TINY), {"classifier.weight", "classifier.bias"}),
    "DistilBERT": (DistilBertForSequenceClassification, DistilBertConfig(vocab_size=9, dim=4, n_layers=1, n_heads=2, hidden_dim=4),
                   {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"}),
    "GPT-2": (GPT2ForSequenceClassification, GPT2Config(vocab_size=9, n_embd=4, n_layer=1, n_head=2, n_positions=8), {"score.weight"}),
}


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("architecture", MODELS)
def test_the_head_has_a_learning_rate_of_its_own_and_biases_and_norms_no_weight_decay(name, architecture):
    kind, config, head = MODELS[architecture]
    model = kind(config)
    parameter_groups = definitions("sequence_classification", name, "parameter_groups", learning_rate=0.1, head_learning_rate=0.7)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in parameter_groups(model) for p in group["params"]}
    norms = {f"{part}.{p}" for part, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm) for p in ("weight", "bias")}
    assert norms and found == {
        name: (0.7 if name in head else 0.1, 0.0 if name in norms or name.endswith("bias") else 0.01) for name in names.values()}
    assert sum(len(group["params"]) for group in parameter_groups(model)) == len(names)


# ---------------------------------------------------------------------------------------------------- both notebooks


def chat_like(path):
    """A random GPT-2 without a token for padding."""
    tokenizer = byte_level()
    tokenizer.pad_token = None
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64)).save_pretrained(path)
    tokenizer.save_pretrained(path)


WORDS = ["ba", "be", "bi", "bo", "bu", "da", "de", "di"]
KINDS = {
    "several labels": lambda i: {"label": [["x"], ["x", "y"], [], ["z"]][i % 4]},
    "scores": lambda i: {"label": i % 5 / 2},
    "pairs": lambda i: {"label": "yes" if i % 2 else "no", "text_pair": WORDS[i % 8]},
    "a decoder": lambda i: {"label": ["text", "score", "None"][i % 3]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_pair_agrees_on_every_kind_of_label(kind, hub, scripts, tmp_path):
    rows = [{"text": " ".join(WORDS[(i + k) % 8] for k in range(i % 7 + 1)), **KINDS[kind](i)} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parameters = {"dataset_id": str(tmp_path / "rows.jsonl"), "num_epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 2,
                  "max_length": 1000, "checkpoint": "distilbert/distilbert-base-uncased"}
    if kind == "a decoder":
        chat_like(tmp_path / "gpt2")
        parameters["checkpoint"] = str(tmp_path / "gpt2")
    target = tmp_path / "run"
    statuses = scripts.run(*(
        job(target, export("sequence_classification", name, target, parameters), log=f"{name}.log") for name in PAIR))
    assert statuses == [0, 0], "\n\n".join((target / f"{name}.log").read_text()[-3000:] for name in PAIR)
    trainer, loop = (json.loads((target / f"{name}.json").read_text()) for name in PAIR)
    assert len(trainer["losses"]) == 10 and largest_difference(trainer["losses"], loop["losses"]) == 0.0
    assert trainer["metrics"] == loop["metrics"]
