"""The collection of masked_language_modeling/ is whole and split by module, and its helpers mask, measure and refuse as they say."""

import copy
import importlib.util
import inspect
import json
import math
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from types import SimpleNamespace

import notebooks
import numpy as np
import pandas as pd
import pytest
import stand_ins
import torch
import torch.nn.functional as F
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from notebooks import ROOT, common_of
from oracles import cell_that_makes, definitions
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, ByT5Tokenizer, set_seed

FOLDER = "masked_language_modeling"
TINY = "distilbert/distilbert-base-uncased"
SPLITS = ["train", "validation", "test"]
FILE = ROOT / FOLDER / "data" / "docstrings.py"

common = common_of(FOLDER)


def module_of(file):
    spec = importlib.util.spec_from_file_location("docstrings", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs = module_of(FILE)


# ---------------------------------------------------------------------------------------------------- the collection


@pytest.fixture(scope="module")
def collection():
    return common.load_splits("stdlib", None, {})


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


# What another Python makes of the module: the texts with label and split, and what was imported.
WATCHED = ("antigravity", "idlelib", "this", "tkinter", "turtle", "winreg")
ALONE = f"""
import json, runpy, sys

rows = [[row["text"], row["label"], split] for split, rows in runpy.run_path({str(FILE)!r})["load"]().items() for row in rows]
print(json.dumps([rows, [name for name in {WATCHED} if name in sys.modules]]))
"""


@cache
def collection_of(command):
    done = subprocess.run([command, "-I", "-c", ALONE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_collection_is_large_and_no_text_is_there_twice(collection):
    assert list(collection) == ["train", "validation", "test"]
    assert collection["train"].num_rows > 5000 and min(collection["validation"].num_rows, collection["test"].num_rows) > 300
    texts = [text for rows in collection.values() for text in rows["text"]]
    assert len(texts) == len(set(texts)) and all(text and text == text.strip() for text in texts)
    assert all(rows.column_names == ["text", "label"] for rows in collection.values())


def test_no_module_is_in_two_splits(collection):
    modules = {split: set(rows["label"]) for split, rows in collection.items()}
    assert sum(map(len, modules.values())) == len(set().union(*modules.values())) > 100
    assert min(map(len, modules.values())) >= 10
    assert "topics" in modules["train"]
    assert not set().union(*modules.values()) & docs.LEFT_OUT
    assert all(name and not name.startswith("_") for names in modules.values() for name in names)


@pytest.mark.parametrize(
    "module, name, label",
    [
        ("json", "JSONDecoder", "json"),
        ("json.encoder", "JSONEncoder.iterencode", "json"),
        ("_pydecimal", "Context.quantize", "decimal"),
        ("_collections_abc", "MutableSet", "collections"),
        ("unittest.case", "TestCase.assertEqual", "unittest"),
        ("textwrap", "", "textwrap"),
        ("asyncio.tasks", "wait_for", "asyncio"),
    ],
)
def test_a_documentation_is_under_the_name_of_its_module(collection, module, name, label):
    found = __import__(module, fromlist=["_"])
    for part in filter(None, name.split(".")):
        found = getattr(found, part)
    labels = [row["label"] for rows in collection.values() for row in rows if row["text"] == inspect.getdoc(found).strip()]
    assert labels == [label]


def test_help_topics_are_there_and_only_in_train(collection):
    topics = [text for text, label in zip(collection["train"]["text"], collection["train"]["label"]) if label == "topics"]
    assert len(topics) > 50 and any('The "assert" statement' in text for text in topics)
    assert "topics" not in {*collection["validation"]["label"], *collection["test"]["label"]}


def test_another_process_finds_the_same_texts_in_the_same_order(collection):
    rows, _ = collection_of(sys.executable)
    for split in collection:
        assert [[text, label] for text, label, where in rows if where == split] == list(
            map(list, zip(collection[split]["text"], collection[split]["label"]))
        )


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_the_collection_is_alike_in_every_version(collection, version):
    if version not in pythons():
        pytest.skip(f"no Python {version[0]}.{version[1]} here")
    rows, imported = collection_of(pythons()[version])
    assert imported == [], "sources are read and not imported"
    assert abs(len(rows) / sum(collection.num_rows.values()) - 1) < 0.1
    assert len({text for text, _, _ in rows}) == len(rows)
    here = {label: split for split in collection for label in collection[split]["label"]}
    there = {(label, split) for _, label, split in rows}
    assert len({label for label, _ in there}) == len(there), "no module is in two splits"
    assert {(label, split) for label, split in there if label in here} <= set(here.items())
    assert len(here.items() & there) > 0.8 * len(here)


@pytest.mark.parametrize(
    "module, split", [("json", "train"), ("email", "test"), ("xml", "validation"), ("collections", "test"), ("topics", "train")]
)
def test_a_module_never_changes_its_split(module, split):
    assert docs.split_of(module) == split


def test_about_a_tenth_of_all_names_are_in_each_of_the_small_splits():
    splits = [docs.split_of(f"module_{i}") for i in range(3000)]
    assert splits.count("validation") / 3000 == pytest.approx(0.1, abs=0.02)
    assert splits.count("test") / 3000 == pytest.approx(0.1, abs=0.02)


# ---------------------------------------------------------------------------------------------------- other data sets


def texts(n, name="text", **more):
    return [{name: f"{name} {i}", **more} for i in range(n)]


def folder_of(path, card="", **splits):
    """A folder with a JSON lines file per split, of rows or of what is written there."""
    path.mkdir(exist_ok=True)
    for split, rows in splits.items():
        lines = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (path / f"{split}.jsonl").write_text(lines)
    if card:
        (path / "README.md").write_text(card)
    return str(path)


def test_a_folder_with_labels_keeps_them_and_leaves_out_what_is_not_needed(tmp_path):
    rows = [{"id": i, "text": f"text {i}", "label": "ab"[i % 2], "url": "x"} for i in range(40)]
    files = {"train": rows[:30], "validation": rows[30:33], "test": rows[33:], "spare": rows[:2]}
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
    card += "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in files) + "---\n"
    loaded = common.load_splits(folder_of(tmp_path, card=card, **files), None, {})
    assert isinstance(loaded, DatasetDict) and list(loaded) == ["train", "validation", "test"]
    for split in loaded:
        assert loaded[split].to_list() == [{"text": row["text"], "label": row["label"]} for row in files[split]]


def test_a_label_is_not_needed(tmp_path):
    loaded = common.load_splits(folder_of(tmp_path, train=texts(20, more=1), validation=texts(1, more=2), test=texts(2, more=3)), None, {})
    assert {split: rows.column_names for split, rows in loaded.items()} == {split: ["text"] for split in SPLITS}
    assert loaded.num_rows == {"train": 20, "validation": 1, "test": 2}


@pytest.mark.parametrize(
    "given, sizes",
    [
        ([], {"train": 128, "validation": 40, "test": 32}),
        (["validation"], {"train": 160, "validation": 3, "test": 40}),
        (["test"], {"train": 160, "validation": 40, "test": 3}),
    ],
)
def test_a_missing_split_is_drawn_from_train(tmp_path, given, sizes):
    files = {"train": texts(200)} | {split: [{"text": f"{split} {i}"} for i in range(3)] for split in given}
    loaded, again = (common.load_splits(folder_of(tmp_path / name, **files), None, {}) for name in ("one", "two"))
    assert loaded.num_rows == sizes
    found = {split: loaded[split]["text"][:] for split in loaded}
    assert found == {split: again[split]["text"][:] for split in again}
    assert sorted(sum(found.values(), [])) == sorted(row["text"] for rows in files.values() for row in rows), "each row once"
    assert all(found[split] == [row["text"] for row in files[split]] for split in given)


def with_row(n, text):
    """25 rows of which row `n` has this text."""
    rows = texts(25)
    rows[n] = {"text": text}
    return rows


@pytest.mark.parametrize(
    "files, message",
    [
        ({"train": texts(30, "body")}, r"split 'train' has no column \['text'\], only \['body'\]: name yours"),
        ({"tests": texts(30), "test": texts(30)}, r"there is no split 'train', only \['test'\]: rename one"),
    ],
)
def test_bad_input_is_refused_with_a_cure(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        common.load_splits(folder_of(tmp_path / "data", **files), None, {})


@pytest.mark.parametrize("blank", ["", " \n\t", None, "\u200b"])
def test_blank_rows_are_nothing(tmp_path, capsys, blank):
    files = {"train": with_row(24, blank), "validation": with_row(2, blank), "test": texts(5)}
    loaded = common.load_splits(folder_of(tmp_path / "data", **files), None, {})
    assert loaded.num_rows == {"train": 24, "validation": 24, "test": 5}
    assert "2 blank rows are left out" in capsys.readouterr().out


def test_a_text_file_with_paragraphs_is_read(tmp_path):
    (tmp_path / "book.txt").write_text("".join(f"paragraph {i}\n\n" for i in range(60)))
    loaded = common.load_splits(str(tmp_path / "book.txt"), None, {})
    assert loaded.num_rows == {"train": 39, "validation": 12, "test": 9}
    assert {text[:10] for text in loaded["train"]["text"]} == {"paragraph "}


def test_a_label_that_some_splits_lack_is_left_out(tmp_path):
    files = {"train": texts(25, label=0.5), "validation": texts(5), "test": texts(5)}
    assert common.load_splits(folder_of(tmp_path / "data", **files), None, {})["train"].column_names == ["text"]


def test_a_label_that_was_named_must_be_there(tmp_path):
    folder = folder_of(tmp_path / "data", train=texts(30, label="a"), validation=texts(2, label="a"), test=texts(2, label="b"))
    assert common.load_splits(folder, None, {"label": "label"})["test"]["label"][:] == ["b", "b"]
    with pytest.raises(ValueError, match=r"has no column \['part'\]"):
        common.load_splits(folder, None, {"label": "part"})


def test_texts_that_are_numbers_become_strings(tmp_path):
    folder = folder_of(tmp_path / "data", train=[{"text": i} for i in range(1, 31)])
    assert set(common.load_splits(folder, None, {})["train"]["text"]) <= {str(i) for i in range(1, 31)}


# ---------------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("make", [stand_ins.byte_level, stand_ins.unigram])
def test_a_checkpoint_without_a_mask_token_is_refused(tmp_path, make):
    make().save_pretrained(tmp_path)
    with pytest.raises(AssertionError, match="has no mask token: choose an encoder"):
        cell_that_makes(FOLDER, "trainer_api", "tokenizer", checkpoint=str(tmp_path), AutoTokenizer=AutoTokenizer, block_size=16)


@pytest.mark.parametrize("asked, expected", [(64, 64), (129, 128)])
def test_blocks_are_no_longer_than_the_checkpoint_reads_and_the_saved_tokenizer_stays_as_it_was(hub, asked, expected):
    given = {"common": common, "AutoTokenizer": AutoTokenizer, "AutoConfig": AutoConfig, "pd": pd, "display": lambda table: None}
    found = cell_that_makes(FOLDER, "trainer_api", "tokenizer", checkpoint=TINY, block_size=asked, **given)
    assert (found["block_size"], found["tokenizer"].model_max_length) == (expected, 128)


def test_a_tokenizer_that_does_not_know_its_words_is_refused():
    with pytest.raises(ValueError, match="word_ids\\(\\) is not available"):
        common.tokenize({"text": ["ba"]}, ByT5Tokenizer(mask_token="<mask>"))


def byte_level():
    tokenizer = stand_ins.byte_level()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return tokenizer


def unigram():
    """The stand-in with a piece for each printable character and, as in many of its kind, for each byte of the others."""
    tokenizer = stand_ins.unigram()
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    known = {piece for piece, _ in description["model"]["vocab"]}
    extra = [chr(i) for i in (10, *range(33, 127))] + ["’", "…", "é", *(f"<0x{i:02X}>" for i in range(256))]
    description["model"]["vocab"] += [[piece, -10.0] for piece in extra if piece not in known]
    description["model"]["byte_fallback"] = True
    return type(tokenizer)(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)), model_max_length=128, eos_token="</s>", unk_token="<unk>",
        pad_token="<pad>", mask_token="<mask>",
    )


KINDS = {"byte-level BPE": byte_level, "Unigram": unigram}
ALL_KINDS = ["WordPiece", *KINDS]


@cache
def tokenizer_of(kind):
    """WordPiece is BERT's own, with its whole vocabulary."""
    return KINDS[kind]() if kind in KINDS else AutoTokenizer.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")


# ---------------------------------------------------------------------------------------------------- words


def words_found(text, tokenizer):
    """The words that `tokenize` marks, read from the text by the places of their tokens."""
    encoded = common.tokenize({"text": [text]}, tokenizer)
    (ids,), (numbers,) = encoded["input_ids"], encoded["word_ids"]
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert len(ids) == len(numbers) == len(offsets)
    assert [number == -1 for number in numbers] == [token in tokenizer.all_special_ids for token in ids]
    words = {}
    for number, (start, end) in zip(numbers, offsets):
        if number != -1:
            first, _ = words.setdefault(number, (start, end))
            words[number] = (first, end)
    assert list(words) == sorted(words), "words are numbered in their order"
    return [text[start:end].strip() for start, end in words.values()]


TEXTS = [
    ("WordPiece", "I don't know", ["I", "don", "'", "t", "know"]),
    ("WordPiece", "pi is 3.14, not 3", ["pi", "is", "3", ".", "14", ",", "not", "3"]),
    ("WordPiece", "call snake_case(__init__)", ["call", "snake", "_", "case", "(", "_", "_", "init", "_", "_", ")"]),
    ("WordPiece", "  leading and\n\n  trailing \n ", ["leading", "and", "trailing"]),
    ("WordPiece", "unbelievably internationalized", ["unbelievably", "internationalized"]),
    ("WordPiece", "a naïve café", ["a", "naïve", "café"]),
    ("byte-level BPE", "unbelievably internationalized bero!", ["unbelievably", "internationalized", "bero", "!"]),
    ("byte-level BPE", "naïve 日本語!", ["naïve", "日", "本", "語", "!"]),
    ("Unigram", "unbelievably internationalized bero!", ["unbelievably", "internationalized", "bero!"]),
    ("Unigram", "ba 😀 be", ["ba", "😀", "be"]),
]


@pytest.mark.parametrize("kind, text, words", TEXTS)
def test_words_are_those_that_the_tokenizer_splits_a_text_into(hub, kind, text, words):
    assert words_found(text, tokenizer_of(kind)) == words


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_word_of_several_tokens_has_one_number(hub, kind):
    encoded = common.tokenize({"text": ["unbelievably bero"]}, tokenizer_of(kind))
    numbers = [number for number in encoded["word_ids"][0] if number != -1]
    assert set(numbers) == {0, 1} and numbers == sorted(numbers) and len(numbers) > 2


@pytest.mark.parametrize("kind, mask", [("WordPiece", "[MASK]"), ("byte-level BPE", "<mask>"), ("Unigram", "<mask>")])
def test_special_tokens_are_none_wherever_they_stand(hub, kind, mask):
    tokenizer = tokenizer_of(kind)
    encoded = common.tokenize({"text": [f"ba{mask}ba", "ba"]}, tokenizer)
    ids, numbers = encoded["input_ids"][0], encoded["word_ids"][0]
    assert ids.count(tokenizer.mask_token_id) == 1 and numbers[ids.index(tokenizer.mask_token_id)] == -1
    assert len(set(numbers) - {-1}) == 2, "after it a word begins"
    assert numbers[-1] == -1 and encoded["input_ids"][1][-1] in tokenizer.all_special_ids


def test_a_token_that_the_tokenizer_does_not_know_belongs_to_no_word():
    tokenizer = stand_ins.word_piece()
    encoded = common.tokenize({"text": ["ban xyz bero"]}, tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert tokens == ["[CLS]", "ba", "##n", "[UNK]", "be", "##ro", "[SEP]"]
    assert encoded["word_ids"] == [[-1, 0, 0, -1, 2, 2, -1]]


def test_an_added_word_is_a_word():
    tokenizer = byte_level()
    tokenizer.add_tokens(["kubectl"])
    assert "kubectl" in words_found("ba kubectl be", tokenizer)


def test_long_texts_are_not_cut_and_columns_can_be_mapped(recwarn):
    tokenizer = stand_ins.word_piece()
    rows = Dataset.from_dict({"text": ["ba " * 500, "bero"], "label": ["x", "y"]})
    encoded = rows.map(common.tokenize, batched=True, remove_columns=rows.column_names, fn_kwargs={"tokenizer": tokenizer})
    assert encoded.column_names == ["input_ids", "word_ids"]
    assert [len(ids) for ids in encoded["input_ids"]] == [502, 4] == [len(numbers) for numbers in encoded["word_ids"]]
    assert not [warning for warning in recwarn if "longer than" in str(warning.message)]


# ---------------------------------------------------------------------------------------------------- blocks


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=12), block_size=st.integers(1, 20), data=st.data())
@settings(max_examples=60, deadline=None)
def test_blocks_put_end_to_end_are_the_texts(lengths, block_size, data):
    total = sum(lengths)
    ids = data.draw(st.lists(st.integers(0, 10**6), min_size=total, max_size=total))
    words = data.draw(st.lists(st.integers(0, 9), min_size=total, max_size=total))
    ends = np.cumsum(lengths)[:-1]
    cut = {name: [part.tolist() for part in np.split(np.array(column, dtype=int), ends)] for name, column in
           (("input_ids", ids), ("word_ids", words))}
    encoded = Dataset.from_dict(cut)
    if total < block_size:
        with pytest.raises(ValueError, match=f"has {total} tokens, too few for a block of {block_size}: .* at most {total}"):
            common.make_blocks(encoded, block_size)
        return
    blocks, left = common.make_blocks(encoded, block_size)
    assert sorted(blocks.column_names) == ["input_ids", "row", "word_ids"] and blocks["row"][:] == list(range(total // block_size))
    assert 0 <= left < block_size and len(blocks) * block_size + left == total
    for name, column in (("input_ids", ids), ("word_ids", words)):
        assert all(len(block) == block_size for block in blocks[name])
        assert sum(blocks[name][:], []) == column[: total - left]


# ---------------------------------------------------------------------------------------------------- masking


MASK, ORDINARY = 500, np.arange(1000, 2000)


@st.composite
def blocks(draw):
    """Ids, none of them the mask or one of ORDINARY, and numbers of words of a block that has something to predict."""
    words = draw(st.lists(st.sampled_from([-1, 0, 1, 1, 2, 2, 2]), min_size=1, max_size=60).filter(lambda words: max(words) >= 0))
    return draw(st.lists(st.integers(0, 99), min_size=len(words), max_size=len(words))), words


def units_of(words):
    """Positions of the words of a block, one list a word: neighbours with the same number."""
    units, before = [], -1
    for i, number in enumerate(words):
        if number != -1 and number == before:
            units[-1].append(i)
        elif number != -1:
            units.append([i])
        before = number
    return units


PROBABILITY = st.one_of(st.floats(1e-6, 0.999), st.sampled_from([0.15, 0.3, 0.5]))


@given(block=blocks(), seed=st.integers(0, 10**9), probability=PROBABILITY, whole_words=st.booleans())
@settings(max_examples=300, deadline=None)
def test_masks_of_any_block(block, seed, probability, whole_words):
    ids, words = block
    before = list(ids), list(words)
    seen, labels = common.mask_tokens(ids, words, np.random.default_rng(seed), MASK, ORDINARY, probability, whole_words)
    assert (ids, words) == before, "the block itself stays"
    assert len(seen) == len(labels) == len(ids) and all(type(i) is int for i in seen + labels)
    chosen = {i for i, label in enumerate(labels) if label != -100}
    assert all(labels[i] == ids[i] for i in chosen)
    assert all(seen[i] == ids[i] for i in range(len(ids)) if i not in chosen)
    assert all(seen[i] in (MASK, ids[i]) or seen[i] in ORDINARY for i in chosen)
    assert chosen and all(words[i] != -1 for i in chosen)
    wanted = max(1, round(probability * sum(number >= 0 for number in words)))
    if whole_words:
        units = units_of(words)
        assert all(chosen.issuperset(unit) or chosen.isdisjoint(unit) for unit in units), "a word as a whole or not at all"
        taken = [unit for unit in units if chosen.issuperset(unit)]
        assert len(chosen) <= wanted or len(taken) == 1
        assert all(len(chosen) + len(unit) > wanted for unit in units if unit not in taken), "no other word would have fitted"
    else:
        assert len(chosen) == wanted


@given(block=blocks(), seed=st.integers(0, 10**9), probability=PROBABILITY, whole_words=st.booleans())
@settings(max_examples=60, deadline=None)
def test_masks_depend_on_their_generator_alone(block, seed, probability, whole_words):
    found = []
    for other in (1, 2):
        for seeded in (random.seed, np.random.seed, torch.manual_seed):
            seeded(other)
        generator = np.random.default_rng(seed)
        found.append(common.mask_tokens(*block, generator, MASK, ORDINARY, probability, whole_words))
        found.append(common.mask_tokens(*block, generator, MASK, ORDINARY, probability, whole_words))
    assert found[:2] == found[2:]


def draws(n, size=200, probability=0.15, **options):
    """Masks of the same block, n times: what was there, what is seen, and the labels, each (n, size)."""
    generator, ids = np.random.default_rng(0), list(range(size))
    words = options.pop("words", list(range(size)))
    found = [common.mask_tokens(ids, words, generator, 10**6, np.arange(1000, 1010), probability, **options) for _ in range(n)]
    return np.array(ids), *(np.array(part) for part in zip(*found))


@pytest.mark.parametrize("whole_words", [False, True])
def test_eight_tenths_are_masked_and_a_tenth_is_random_and_a_tenth_stays(whole_words):
    ids, seen, labels = draws(1000, words=[0, 1, 1, 2, 2] * 40, whole_words=whole_words)
    chosen = labels != -100
    n = chosen.sum()
    assert n == pytest.approx(1000 * 30, rel=0.02)
    masked, kept = chosen & (seen == 10**6), chosen & (seen == ids)
    replaced = chosen & ~masked & ~kept
    for share, which in ((0.8, masked), (0.1, replaced), (0.1, kept)):
        assert abs(which.sum() / n - share) < 4 * np.sqrt(share * (1 - share) / n)
    replacements = seen[replaced]
    counts = np.bincount(replacements - 1000, minlength=10)
    assert len(counts) == 10 and abs(counts / len(replacements) - 0.1).max() < 4 * np.sqrt(0.09 / len(replacements))


def test_every_position_is_chosen_equally_often_and_masks_change():
    ids, _, labels = draws(4000, size=50, probability=0.2)
    often = (labels != -100).mean(axis=0)
    assert abs(often - 0.2).max() < 4.5 * np.sqrt(0.16 / 4000)
    assert len({tuple(row) for row in labels}) > 3900


def test_the_share_counts_ordinary_tokens_only():
    _, _, labels = draws(1, size=200, words=[-1] * 100 + list(range(100)), probability=0.3)
    assert (labels != -100).sum() == 30


def test_whole_words_are_counted_in_tokens():
    _, _, labels = draws(200, size=200, words=[i // 2 for i in range(200)], probability=0.3, whole_words=True)
    assert ((labels != -100).sum(axis=1) == 60).all()


@pytest.mark.parametrize("whole_words, n", [(False, 1), (True, 3)])
def test_there_is_always_something_to_predict(whole_words, n):
    _, labels = common.mask_tokens([7] * 12, [0, 0, 0, 1, 1, 1] * 2, np.random.default_rng(0), MASK, ORDINARY, 1e-6, whole_words)
    assert sum(label != -100 for label in labels) == n


@pytest.mark.parametrize("probability", [0, 1, -0.1, 1.5, float("nan")])
def test_a_probability_must_lie_between_0_and_1(probability):
    with pytest.raises(ValueError, match=rf"mask_probability is {probability}: it must be above 0 and below 1"):
        common.mask_tokens([7] * 12, [1] * 12, np.random.default_rng(0), MASK, ORDINARY, probability)


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_block_of_special_tokens_is_refused(whole_words):
    with pytest.raises(ValueError, match="a block has nothing to predict, only special tokens"):
        common.mask_tokens([2, 3], [-1, -1], np.random.default_rng(0), MASK, ORDINARY, 0.15, whole_words)


@pytest.mark.parametrize("whole_words", [False, True])
def test_words_of_neighbouring_texts_with_one_number_are_two_words(whole_words):
    """[CLS] a word [SEP] [CLS] another [SEP]: both have the number 0."""
    ids, words = [2, 7, 7, 3, 2, 8, 8, 3], [-1, 0, 0, -1, -1, 0, 0, -1]
    for seed in range(20):
        _, labels = common.mask_tokens(ids, words, np.random.default_rng(seed), MASK, ORDINARY, 0.5, whole_words)
        hidden = [i for i, label in enumerate(labels) if label != -100]
        assert len(hidden) == 2 and (not whole_words or hidden in ([1, 2], [5, 6]))



# ---------------------------------------------------------------------------------------------------- perplexity

perplexity = definitions(FOLDER, "trainer_api", "perplexity", math=math)


@pytest.mark.parametrize("n", [2, 50, 30522])
def test_perplexity_of_even_guesses_is_the_number_of_choices(n):
    losses = torch.nn.functional.cross_entropy(torch.zeros(7, n), torch.arange(7) % n, reduction="none")
    assert perplexity(losses) == pytest.approx(n, rel=1e-5)


@given(values=st.lists(st.floats(0, 20, width=32), min_size=1, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=5))
@settings(max_examples=60, deadline=None)
def test_perplexity_is_exp_of_all_nats_by_all_tokens_however_they_are_cut(values, cuts):
    whole = perplexity(torch.tensor(values))
    assert whole == pytest.approx(np.exp(np.sum(values, dtype=np.float64) / len(values)), rel=1e-9)
    ends = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [torch.tensor(values[start:end]) for start, end in zip(ends, ends[1:])]
    assert perplexity(torch.cat(parts[::-1])) == pytest.approx(whole, rel=1e-9)


def test_perplexity_is_summed_up_in_double_precision():
    losses = torch.linspace(0, 10, 200_001).float()
    assert perplexity(losses) == pytest.approx(np.exp(losses.numpy().astype(np.float64).mean()), rel=1e-10)
    assert perplexity(torch.full((3,), 2.0, dtype=torch.bfloat16)) == pytest.approx(np.exp(2))


# ---------------------------------------------------------------------------------------------------- few labels


@pytest.fixture(scope="module")
def tiny(hub):
    return AutoModelForMaskedLM.from_pretrained(TINY), AutoTokenizer.from_pretrained(TINY)


class Watched:
    """A tokenizer that keeps what it is given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.batches = tokenizer, []

    def __call__(self, texts, **given):
        self.batches.append(texts)
        return self.tokenizer(texts, **given)


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_a_classifier_learns_from_few_labels_and_is_tested_on_all_other_texts(tiny, name):
    """The class of a text is one of its words, so it can be learned, and a wrong order of the answers would show."""
    model, tokenizer = tiny
    rng, watched = random.Random(0), Watched(tokenizer)
    classes = np.array([rng.randrange(3) for _ in range(90)])
    texts = [" ".join([*rng.sample(stand_ins.WORDS[:40], rng.randint(1, 6)), *[stand_ins.WORDS[50 + i]] * 4]) + f" {k}"
             for k, i in enumerate(classes)]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    accuracy_of = definitions(
        FOLDER, name, "few_label_accuracy", torch=torch, F=F, np=np, copy=copy, set_seed=set_seed, tokenizer=watched, block_size=32,
        classes=classes, class_names=np.array(["a", "b", "c"]), class_texts=texts, learning_rate=1e-2)
    assert accuracy_of(model, 8, 0) > 0.9
    learned, tested = [text for batch in watched.batches[:40] for text in batch], [text for batch in watched.batches[40:] for text in batch]
    assert Counter(classes[texts.index(text)] for text in set(learned)) == {0: 8, 1: 8, 2: 8}
    assert len(tested) == 90 - 24 and set(tested) == set(texts) - set(learned)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()), "a copy is trained"
    watched.batches.clear()
    accuracy_of(model, 8, 1, num_steps=1)
    assert set(tested) != {text for batch in watched.batches[1:] for text in batch}, "another draw, other texts"


def test_the_collection_has_enough_rows_to_classify(collection):
    labels = [*collection["validation"]["label"], *collection["test"]["label"]]
    counts = [n for _, n in Counter(labels).most_common(10)]
    assert len(counts) == 10 and min(counts) >= 15


# ---------------------------------------------------------------------------------------------------- display


COLOURS = {"masked": "#fdbf6f", "random": "#fb9a99", "kept": "#b2df8a"}


def test_masks_are_shown_escaped_and_by_kind():
    names = ["<s>", "a", "<mask>", "b&c", "d", "<i>"]

    def names_of(ids):
        return [names[i] for i in ids] if isinstance(ids, list) else names[ids]

    tokenizer = SimpleNamespace(convert_ids_to_tokens=names_of, mask_token_id=2)
    html = common.show_masks([0, 1, 2, 3, 4, 1], [-100, -100, 5, 3, 3, -100], tokenizer).data
    assert "<s>" not in html and "<i>" not in html and "<mask>" not in html and "b&c" not in html
    legend, block = html.split("<br>")
    found = re.compile(r'<span style="[^"]*background: (#\w+)">(.*?)</span>')
    assert found.findall(legend) == [(colour, kind) for kind, colour in COLOURS.items()]
    assert found.findall(block) == [
        (COLOURS["masked"], "&lt;mask&gt; <b>&lt;i&gt;</b>"),
        (COLOURS["kept"], "b&amp;c <b>b&amp;c</b>"),
        (COLOURS["random"], "d <b>b&amp;c</b>"),
    ]
    text = re.sub(r"<span.*?</span>", "*", block)
    assert re.sub(r"<[^>]*>", "", text).split() == ["&lt;s&gt;", "a", "*", "*", "*", "a"], "the others stand as they are, in order"


# ---------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    "checkpoint, has_head", [(TINY, True), ("rasyosef/splade-tiny", True), ("sentence-transformers/all-MiniLM-L6-v2", False)]
)
def test_a_checkpoint_tells_whether_it_brings_a_head(hub, checkpoint, has_head):
    _, told = AutoModelForMaskedLM.from_pretrained(checkpoint, output_loading_info=True)
    missing = set(told["missing_keys"])
    assert (missing == set()) == has_head
    assert all(re.match(r"cls\.predictions\.", name) for name in missing), "of the encoder nothing is missing"


# ---------------------------------------------------------------------------------------------------- the head on masked positions


TINY_MODEL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
ARCHITECTURES = {
    "bert": {**TINY_MODEL}, "mpnet": {**TINY_MODEL},
    "roberta": {**TINY_MODEL, "pad_token_id": 1}, "xlm-roberta": {**TINY_MODEL, "pad_token_id": 1},
    "electra": {**TINY_MODEL, "embedding_size": 16}, "albert": {**TINY_MODEL, "embedding_size": 16}, "deberta-v2": {**TINY_MODEL},
    "modernbert": {**TINY_MODEL, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "distilbert": {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_head_on_masked_positions_gives_the_logits_that_it_gives_everywhere(name):
    predict_masked_only = definitions(FOLDER, "trainer_api", "predict_masked_only")
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(name, **ARCHITECTURES[name])).eval()
    input_ids, masked = torch.randint(3, 50, (3, 12)), torch.rand(3, 12) < 0.3
    with torch.no_grad():
        everywhere = model(input_ids=input_ids).logits
        predict_masked_only(model)
        assert torch.equal(model(input_ids=input_ids).logits, everywhere), "without `masked` the model is as it was"
        assert model(input_ids=input_ids, masked=masked).logits.shape == (masked.sum(), everywhere.shape[-1])
        torch.testing.assert_close(model(input_ids=input_ids, masked=masked).logits, everywhere[masked], atol=1e-5, rtol=1e-5)
        assert model.base_model(input_ids=input_ids).last_hidden_state.shape[:2] == (3, 12), "nothing is left of the last `masked`"
