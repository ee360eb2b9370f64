"""The collection of masked_language_modeling/ is whole and split by module, and its helpers mask, measure and refuse as they say."""

import inspect
import json
import random
import re
import shutil
import subprocess
import sys
from functools import cache
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import stand_ins
import torch
from datasets import Dataset, DatasetDict
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from notebooks import ROOT, common_of
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    ByT5Tokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

TINY = "distilbert/distilbert-base-uncased"

common = common_of("masked_language_modeling")


# ---------------------------------------------------------------------------------------------------- the collection


@pytest.fixture(scope="module")
def collection():
    return common.load_splits("stdlib", {})


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


# What a Python without the third-party imports of common.py can run of it: the texts with label and split, and what was imported.
WATCHED = ("antigravity", "idlelib", "this", "tkinter", "turtle", "winreg")
ALONE = f"""
import ast, hashlib, json, re, sys, sysconfig, warnings
from pathlib import Path
from pydoc_data.topics import topics

LEFT_OUT = {common.LEFT_OUT!r}

{inspect.getsource(common.docstrings)}

{inspect.getsource(common.split_of)}

rows = [[row["text"], row["label"], split_of(row["label"])] for row in docstrings()]
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
    assert not set().union(*modules.values()) & common.LEFT_OUT
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


def test_accents_and_vowel_signs_belong_to_their_word():
    assert [match[0] for match in common.WORD.finditer("नमस्ते दुनिया, cafe\u0301!")] == ["नमस्ते", "दुनिया", ",", "cafe\u0301", "!"]


@pytest.mark.parametrize(
    "module, split", [("json", "train"), ("email", "test"), ("xml", "validation"), ("collections", "test"), ("topics", "train")]
)
def test_a_module_never_changes_its_split(module, split):
    assert common.split_of(module) == split


def test_about_a_tenth_of_all_names_are_in_each_of_the_small_splits():
    splits = [common.split_of(f"module_{i}") for i in range(3000)]
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
    loaded = common.load_splits(folder_of(tmp_path, card=card, **files), {})
    assert isinstance(loaded, DatasetDict) and list(loaded) == ["train", "validation", "test"]
    for split in loaded:
        assert loaded[split].to_list() == [{"text": row["text"], "label": row["label"]} for row in files[split]]


def test_a_label_is_not_needed(tmp_path):
    loaded = common.load_splits(folder_of(tmp_path, train=texts(20, more=1), validation=texts(1, more=2), test=texts(2, more=3)), {})
    assert {split: rows.column_names for split, rows in loaded.items()} == {split: ["text"] for split in common.SPLITS}
    assert loaded.num_rows == {"train": 20, "validation": 1, "test": 2}


@pytest.mark.parametrize(
    "given, sizes",
    [
        ([], {"train": 180, "validation": 10, "test": 10}),
        (["validation"], {"train": 190, "validation": 3, "test": 10}),
        (["test"], {"train": 190, "validation": 10, "test": 3}),
    ],
)
def test_a_missing_split_is_a_twentieth_of_train(tmp_path, given, sizes):
    files = {"train": texts(200)} | {split: [{"text": f"{split} {i}"} for i in range(3)] for split in given}
    loaded, again = (common.load_splits(folder_of(tmp_path / name, **files), {}) for name in ("one", "two"))
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
        ({"train": texts(30, "body")}, r"split 'train' has no column 'text', only \['body'\]: name .*columns = \{'text'"),
        ({"test": texts(30)}, r"has no split 'train', only \['test'\]: name one"),
        ({"train": with_row(24, "")}, r"row 24 of split 'train' has the text '': drop it"),
        ({"train": with_row(3, " \n\t")}, r"row 3 of split 'train' has the text ' \\n\\t': drop it"),
        ({"train": with_row(7, None)}, r"row 7 of split 'train' has the text None: .*cast the column to string"),
        ({"train": [{"text": i} for i in range(30)]}, r"row 0 of split 'train' has the text 0: .*cast the column to string"),
        ({"train": texts(25), "validation": with_row(2, " "), "test": texts(5)}, r"row 2 of split 'validation' has the text ' '"),
        ({"train": texts(25), "validation": texts(5), "test": with_row(0, " ")}, r"row 0 of split 'test' has the text ' '"),
        ({"train": texts(19)}, r"split 'train' has 19 rows, too few to take some for 'validation': add that split"),
        ({"train": texts(19), "validation": texts(5)}, r"split 'train' has 19 rows, too few to take some for 'test': add that split"),
        ({"train": texts(30), "test": '{"text": "a"'}, r"can't be read: JSON parse error"),
        ({"train": texts(30), "test": ""}, r"can't be read: .*test.* no data"),
        ({"train": texts(30), "test": [{"words": 3}]},
         r"(?s)can't be read: .*column names don't match\nEvery split needs rows with the same columns"),
    ],
)
def test_bad_input_is_refused_with_a_cure(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        common.load_splits(folder_of(tmp_path / "data", **files), {})


def test_an_empty_split_is_refused():
    empty = Dataset.from_dict({"text": []})
    with pytest.raises(ValueError, match="split 'test' is empty: check its data files"):
        common.check_columns(empty, "test")
    common.check_columns(Dataset.from_list(texts(1)), "test")
    common.check_columns(Dataset.from_list(texts(20)), "train")


# ---------------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("make", [stand_ins.byte_level, stand_ins.unigram])
def test_a_tokenizer_without_a_mask_token_is_refused(tmp_path, make):
    make().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no mask token, .*choose an encoder .*e.g. distilbert/distilbert-base-uncased"):
        common.load_tokenizer(str(tmp_path))


def test_a_tokenizer_without_offsets_is_refused(tmp_path):
    ByT5Tokenizer(mask_token="<mask>").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no offsets: choose a checkpoint with a fast tokenizer"):
        common.load_tokenizer(str(tmp_path))


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
    return KINDS[kind]() if kind in KINDS else common.load_tokenizer("sentence-transformers/all-MiniLM-L6-v2")


# ---------------------------------------------------------------------------------------------------- words


def words_found(text, tokenizer):
    """The words that `tokenize` marks, read from the text by the places of their tokens."""
    encoded = common.tokenize({"text": [text]}, tokenizer)
    (ids,), (flags,) = encoded["input_ids"], encoded["word_start"]
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    assert len(ids) == len(flags) == len(offsets)
    assert [flag == -1 for flag in flags] == [token in tokenizer.all_special_ids for token in ids]
    words, before = [], -1
    for flag, (start, end) in zip(flags, offsets):
        assert flag in (-1, 1) or before != -1, "no word begins with a 0"
        if flag == 1:
            words.append([start, end])
        elif flag == 0:
            words[-1][1] = end
        before = flag
    return [text[start:end].strip() for start, end in words]


TEXTS = [
    ("I don't know the teachers' room", ["I", "don't", "know", "the", "teachers", "'", "room"]),
    ("it’s a rock’n’roll ’song’", ["it’s", "a", "rock’n’roll", "’", "song", "’"]),
    ("pi is 3.14, not 1,000,000 or 192.168.0.1.", ["pi", "is", "3.14", ",", "not", "1,000,000", "or", "192.168.0.1", "."]),
    ("in v2 of 2024 the 3rd", ["in", "v2", "of", "2024", "the", "3rd"]),
    ("well-known (yes!)", ["well", "-", "known", "(", "yes", "!", ")"]),
    ("a...b", ["a", ".", ".", ".", "b"]),
    ("call snake_case(__init__)", ["call", "snake_case", "(", "__init__", ")"]),
    ("  leading and   many\n\n  between, trailing \n ", ["leading", "and", "many", "between", ",", "trailing"]),
    ("one\ntwo\n", ["one", "two"]),
    ("unbelievably internationalized", ["unbelievably", "internationalized"]),
    ("x", ["x"]),
    (">>> f(x)\n'y'", [">", ">", ">", "f", "(", "x", ")", "'", "y", "'"]),
]


@pytest.mark.parametrize("kind", ALL_KINDS)
@pytest.mark.parametrize("text, words", TEXTS, ids=range(len(TEXTS)))
def test_words_are_the_same_for_every_tokenizer(hub, kind, text, words):
    assert words_found(text, tokenizer_of(kind)) == words == common.WORD.findall(text)


def test_these_tokenizers_cut_the_texts_in_different_ways(hub):
    text = "unbelievably don't 3.14 snake_case"
    lengths = {kind: len(tokenizer_of(kind)(text)["input_ids"]) for kind in ALL_KINDS}
    assert len(set(lengths.values())) == 3 and min(lengths.values()) > 4 + 2


@pytest.mark.parametrize(
    "kind, text, words",
    [
        ("byte-level BPE", "ba 😀 be", ["ba", "😀", "be"]),
        ("byte-level BPE", "😀😀ba", ["😀", "😀", "ba"]),  # Unigram gives the bytes of neighbours the same place
        ("byte-level BPE", "naïve 日本語!", ["naïve", "日本語", "!"]),
        ("Unigram", "ba 😀 be", ["ba", "😀", "be"]),
        ("Unigram", "naïve 日本語!", ["naïve", "日本語", "!"]),
    ],
)
def test_a_character_of_several_tokens_is_one_word_or_part_of_one(kind, text, words):
    tokenizer = tokenizer_of(kind)
    assert len(tokenizer.tokenize(text)) > len(text.replace(" ", "")), "there are such characters"
    assert words_found(text, tokenizer) == words


@given(text=st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")) | st.sampled_from("ab1 \n'’.,_<>"), max_size=30))
@settings(max_examples=150, deadline=None)
def test_words_of_any_text_are_found_in_its_bytes(text):
    assume(text.strip())
    assert words_found(text, tokenizer_of("byte-level BPE")) == common.WORD.findall(text)


PARTS = ["ba", "Tokenizers", "don't", "1,000.5", "v2", "_x_", "--", "(", ")", "…", " ", "\n", "  ", "é"]


@pytest.mark.parametrize("kind", ALL_KINDS)
@given(parts=st.lists(st.sampled_from(PARTS), max_size=15))
@settings(max_examples=80, deadline=None)
def test_words_of_mixed_texts_are_the_same_for_every_tokenizer(hub, kind, parts):
    text = "".join(parts)
    assume(text.strip())
    assert words_found(text, tokenizer_of(kind)) == common.WORD.findall(text)


@pytest.mark.parametrize("kind, mask", [("WordPiece", "[MASK]"), ("byte-level BPE", "<mask>"), ("Unigram", "<mask>")])
def test_special_tokens_are_none_wherever_they_stand(hub, kind, mask):
    tokenizer = tokenizer_of(kind)
    encoded = common.tokenize({"text": [f"ba{mask}ba", "ba"]}, tokenizer)
    ids, flags = encoded["input_ids"][0], encoded["word_start"][0]
    assert ids.count(tokenizer.mask_token_id) == 1 and flags[ids.index(tokenizer.mask_token_id)] == -1
    assert flags[ids.index(tokenizer.mask_token_id) + 1] == 1, "behind it a word begins"
    assert sum(flag == 1 for flag in flags) == 2
    assert flags[-1] == -1 and encoded["input_ids"][1][-1] in tokenizer.all_special_ids


@pytest.mark.parametrize(
    "make, text, tokens, flags",
    [
        (stand_ins.word_piece, "ban xyz bero", ["[CLS]", "ba", "##n", "[UNK]", "be", "##ro", "[SEP]"], [-1, 1, 0, -1, 1, 0, -1]),
        (stand_ins.unigram, "baxxbero", ["▁ba", "<unk>", "be", "ro", "</s>"], [1, -1, 1, 0, -1]),
    ],
)
def test_what_the_tokenizer_does_not_know_is_no_word_and_ends_one(make, text, tokens, flags):
    tokenizer = make()
    encoded = common.tokenize({"text": [text]}, tokenizer)
    assert [tokenizer.convert_ids_to_tokens(i) for i in encoded["input_ids"][0]] == tokens
    assert encoded["word_start"] == [flags]


def test_long_texts_are_not_cut_and_columns_can_be_mapped(recwarn):
    tokenizer = stand_ins.word_piece()
    rows = Dataset.from_dict({"text": ["ba " * 500, "bero"], "label": ["x", "y"]})
    encoded = rows.map(common.tokenize, batched=True, remove_columns=rows.column_names, fn_kwargs={"tokenizer": tokenizer})
    assert encoded.column_names == ["input_ids", "word_start"]
    assert [len(ids) for ids in encoded["input_ids"]] == [502, 4] == [len(flags) for flags in encoded["word_start"]]
    assert not [warning for warning in recwarn if "longer than" in str(warning.message)]


# ---------------------------------------------------------------------------------------------------- blocks


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=12), block_size=st.integers(1, 20), data=st.data())
@settings(max_examples=60, deadline=None)
def test_blocks_put_end_to_end_are_the_texts(lengths, block_size, data):
    total = sum(lengths)
    ids = data.draw(st.lists(st.integers(0, 10**6), min_size=total, max_size=total))
    flags = data.draw(st.lists(st.integers(-1, 1), min_size=total, max_size=total))
    ends = np.cumsum(lengths)[:-1]
    cut = {name: [part.tolist() for part in np.split(np.array(column, dtype=int), ends)] for name, column in
           (("input_ids", ids), ("word_start", flags))}
    encoded = Dataset.from_dict(cut)
    if total < block_size:
        with pytest.raises(ValueError, match=f"have {total} tokens, and a block has {block_size}: use a smaller block_size"):
            common.make_blocks(encoded, block_size)
        return
    blocks, left = common.make_blocks(encoded, block_size)
    assert blocks.column_names == ["input_ids", "word_start", "row"] and blocks["row"][:] == list(range(total // block_size))
    assert 0 <= left < block_size and len(blocks) * block_size + left == total
    for name, column in (("input_ids", ids), ("word_start", flags)):
        assert all(len(block) == block_size for block in blocks[name])
        assert sum(blocks[name][:], []) == column[: total - left]


# ---------------------------------------------------------------------------------------------------- masking


MASK, ORDINARY = 500, np.arange(1000, 2000)


@st.composite
def blocks(draw):
    """Ids, none of them the mask or one of ORDINARY, and flags of a block that has something to predict."""
    flags = draw(st.lists(st.sampled_from([-1, 0, 0, 1, 1]), min_size=1, max_size=60).filter(lambda flags: max(flags) >= 0))
    return draw(st.lists(st.integers(0, 99), min_size=len(flags), max_size=len(flags))), flags


def units_of(flags):
    """Positions of the words of a block, one list a word; what a block begins with in the middle of a word is one too."""
    units, before = [], -1
    for i, flag in enumerate(flags):
        if flag == 1 or flag == 0 and before == -1:
            units.append([i])
        elif flag == 0:
            units[-1].append(i)
        before = flag
    return units


PROBABILITY = st.one_of(st.floats(1e-6, 0.999), st.sampled_from([0.15, 0.3, 0.5]))


@given(block=blocks(), seed=st.integers(0, 10**9), probability=PROBABILITY, whole_words=st.booleans())
@settings(max_examples=300, deadline=None)
def test_masks_of_any_block(block, seed, probability, whole_words):
    ids, flags = block
    before = list(ids), list(flags)
    seen, labels = common.mask_tokens(ids, flags, np.random.default_rng(seed), MASK, ORDINARY, probability, whole_words)
    assert (ids, flags) == before, "the block itself stays"
    assert len(seen) == len(labels) == len(ids) and all(type(i) is int for i in seen + labels)
    chosen = {i for i, label in enumerate(labels) if label != -100}
    assert all(labels[i] == ids[i] for i in chosen)
    assert all(seen[i] == ids[i] for i in range(len(ids)) if i not in chosen)
    assert all(seen[i] in (MASK, ids[i]) or seen[i] in ORDINARY for i in chosen)
    assert chosen and all(flags[i] != -1 for i in chosen)
    wanted = max(1, round(probability * sum(flag >= 0 for flag in flags)))
    if whole_words:
        units = units_of(flags)
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
    flags = options.pop("flags", [1] * size)
    found = [common.mask_tokens(ids, flags, generator, 10**6, np.arange(1000, 1010), probability, **options) for _ in range(n)]
    return np.array(ids), *(np.array(part) for part in zip(*found))


@pytest.mark.parametrize("whole_words", [False, True])
def test_eight_tenths_are_masked_and_a_tenth_is_random_and_a_tenth_stays(whole_words):
    ids, seen, labels = draws(1000, flags=[1, 1, 0, 1, 0] * 40, whole_words=whole_words)
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
    _, _, labels = draws(1, size=200, flags=[-1] * 100 + [1] * 100, probability=0.3)
    assert (labels != -100).sum() == 30


def test_whole_words_are_counted_in_tokens():
    _, _, labels = draws(200, size=200, flags=[1, 0] * 100, probability=0.3, whole_words=True)
    assert ((labels != -100).sum(axis=1) == 60).all()


@pytest.mark.parametrize("whole_words, n", [(False, 1), (True, 3)])
def test_there_is_always_something_to_predict(whole_words, n):
    _, labels = common.mask_tokens([7] * 12, [1, 0, 0] * 4, np.random.default_rng(0), MASK, ORDINARY, 1e-6, whole_words)
    assert sum(label != -100 for label in labels) == n


@pytest.mark.parametrize("probability", [0, 1, -0.1, 1.5, float("nan")])
def test_a_probability_must_lie_between_0_and_1(probability):
    with pytest.raises(ValueError, match=rf"mask_probability is {probability}: it must be above 0 and below 1, or there is nothing"):
        common.mask_tokens([7] * 12, [1] * 12, np.random.default_rng(0), MASK, ORDINARY, probability)


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_block_of_special_tokens_is_refused(whole_words):
    with pytest.raises(ValueError, match="only special tokens and nothing to predict: drop empty texts"):
        common.mask_tokens([2, 3], [-1, -1], np.random.default_rng(0), MASK, ORDINARY, 0.15, whole_words)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_ordinary_tokens_are_all_but_the_special_ones(hub, kind):
    tokenizer = tokenizer_of(kind)
    found = common.ordinary_ids(tokenizer).tolist()
    assert sorted([*found, *tokenizer.all_special_ids]) == list(range(len(tokenizer)))
    assert tokenizer.mask_token_id not in found and tokenizer.unk_token_id not in found


def test_an_added_word_is_an_ordinary_token():
    tokenizer = byte_level()
    tokenizer.add_tokens(["kubectl"])
    assert tokenizer.convert_tokens_to_ids("kubectl") == common.ordinary_ids(tokenizer).max() == len(tokenizer) - 1


# ---------------------------------------------------------------------------------------------------- perplexity


@pytest.mark.parametrize("n", [2, 50, 30522])
def test_perplexity_of_even_guesses_is_the_number_of_choices(n):
    losses = torch.nn.functional.cross_entropy(torch.zeros(7, n), torch.arange(7) % n, reduction="none")
    assert common.perplexity(losses) == pytest.approx(n, rel=1e-5)


@given(values=st.lists(st.floats(0, 20, width=32), min_size=1, max_size=40), cuts=st.lists(st.integers(0, 40), max_size=5))
@settings(max_examples=60, deadline=None)
def test_perplexity_is_exp_of_all_nats_by_all_tokens_however_they_are_cut(values, cuts):
    whole = common.perplexity(torch.tensor(values))
    assert whole == pytest.approx(np.exp(np.sum(values, dtype=np.float64) / len(values)), rel=1e-9)
    ends = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [torch.tensor(values[start:end]) for start, end in zip(ends, ends[1:])]
    assert common.perplexity(torch.cat(parts[::-1])) == pytest.approx(whole, rel=1e-9)


def test_perplexity_is_summed_up_in_double_precision():
    losses = torch.linspace(0, 10, 200_001).float()
    assert common.perplexity(losses) == pytest.approx(np.exp(losses.numpy().astype(np.float64).mean()), rel=1e-10)
    assert common.perplexity(torch.full((3,), 2.0, dtype=torch.bfloat16)) == pytest.approx(np.exp(2))


def test_perplexity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no token is masked, .*raise mask_probability"):
        common.perplexity(torch.tensor([]))


# ---------------------------------------------------------------------------------------------------- positions


SMALL = {"vocab_size": 60, "pad_token_id": 1}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
MODELS = {
    "BERT": lambda: BertForMaskedLM(BertConfig(**SMALL, **LAYERS, max_position_embeddings=32)),
    # whose positions begin behind the padding's
    "RoBERTa": lambda: RobertaForMaskedLM(RobertaConfig(**SMALL, **LAYERS, max_position_embeddings=34)),
    "DistilBERT": lambda: DistilBertForMaskedLM(
        DistilBertConfig(**SMALL, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=32)
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_block_is_not_longer_than_the_model_can_read(kind):
    model, unlimited = MODELS[kind]().eval(), SimpleNamespace(model_max_length=10**30)
    common.check_block_size(32, model, unlimited)
    model(input_ids=torch.full((2, 32), 7))
    with pytest.raises(ValueError, match="block_size is 33, and the model has 32 positions: use 32 or less"):
        common.check_block_size(33, model, unlimited)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((2, 33), 7))


def test_a_block_is_not_longer_than_the_tokenizer_says():
    model = MODELS["BERT"]()
    common.check_block_size(16, model, SimpleNamespace(model_max_length=16))
    with pytest.raises(ValueError, match="block_size is 17, .*use 16 or less"):
        common.check_block_size(17, model, SimpleNamespace(model_max_length=16))


@pytest.mark.parametrize("block_size", [3, 0, -1])
def test_a_block_has_room_for_a_text(block_size):
    model, tokenizer = MODELS["BERT"](), SimpleNamespace(model_max_length=16)
    common.check_block_size(4, model, tokenizer)
    with pytest.raises(ValueError, match=f"block_size is {block_size}, which leaves no text to guess from: use 4 or more"):
        common.check_block_size(block_size, model, tokenizer)


# ---------------------------------------------------------------------------------------------------- what a model has learned


@pytest.fixture(scope="module")
def tiny(hub):
    return AutoModelForMaskedLM.from_pretrained(TINY), common.load_tokenizer(TINY)


class Rigged(torch.nn.Module):
    """At each position, the best token is 10 + the position, the second best 11 + the position, and so on."""

    device = "cpu"

    def __init__(self, vocabulary):
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, input_ids, attention_mask):
        best = 10 + torch.arange(input_ids.shape[1])
        logits = -((torch.arange(self.vocabulary) - best[:, None]) % self.vocabulary).float()
        return SimpleNamespace(logits=logits.expand(len(input_ids), -1, -1))


def test_the_most_probable_words_for_a_blank_are_told_best_first():
    tokenizer = stand_ins.word_piece()
    told = common.top_words(Rigged(len(tokenizer)), tokenizer, ["ba ___ be bi", "ba be bi ban ___", "___ ba"], n=3)
    places = [2, 6, 1]  # behind [CLS], and behind the two pieces of "ban"
    assert told == [", ".join(tokenizer.decode([10 + place + i]) for i in range(3)) for place in places]
    assert [len(line.split(", ")) for line in common.top_words(Rigged(len(tokenizer)), tokenizer, ["___"])] == [5]


def test_words_for_a_blank_have_no_space_of_the_tokenizer():
    tokenizer = byte_level()
    i = tokenizer.convert_tokens_to_ids("Ġba")
    model = SimpleNamespace(device="cpu", eval=lambda: lambda input_ids, attention_mask: SimpleNamespace(
        logits=torch.nn.functional.one_hot(torch.full_like(input_ids, i), len(tokenizer)).float()
    ))
    assert common.top_words(model, tokenizer, ["be ___ bi"], n=1) == ["ba"]


def test_one_blank_is_filled_and_others_are_text():
    tokenizer = stand_ins.word_piece()
    assert len(common.top_words(Rigged(len(tokenizer)), tokenizer, ["ba ___ be ___"], n=2)) == 1


def test_words_for_a_blank_are_the_same_alone_and_among_longer_sentences(tiny):
    model, tokenizer = tiny
    sentences = ["ba ___ be", "___ ban bero di da du", " ".join(stand_ins.WORDS[:40]) + " ___"]
    model.train()
    told = common.top_words(model, tokenizer, sentences)
    assert told == [common.top_words(model, tokenizer, [sentence])[0] for sentence in sentences]


def test_a_sentence_without_a_blank_is_refused(tiny):
    with pytest.raises(ValueError, match="'ba __ be' has no blank: write ___ where a word is wanted"):
        common.top_words(*tiny, ["ba ___", "ba __ be"])


def test_features_of_a_text_do_not_depend_on_its_neighbours(tiny):
    model, tokenizer = tiny
    rng = random.Random(0)
    sentences = [stand_ins.sentence(rng, stand_ins.WORDS) for _ in range(70)] + [" ".join(stand_ins.WORDS[:60])]
    model.train()
    together = common.pooled(model, tokenizer, sentences)
    assert together.shape == (71, 32) and together.dtype == np.float32
    for i in (0, 31, 32, 33, 64, 70):
        assert np.abs(together[i] - common.pooled(model, tokenizer, [sentences[i]])[0]).max() < 1e-5
        with torch.no_grad():
            hidden = model.distilbert.eval()(**tokenizer(sentences[i], return_tensors="pt")).last_hidden_state
        assert np.abs(together[i] - hidden[0].mean(dim=0).numpy()).max() < 1e-5
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_long_texts_are_cut_to_what_is_asked_for_and_to_what_the_model_reads(tiny):
    model, tokenizer = tiny
    text = "ba be bi bo " * 100
    same = lambda a, b: np.abs(a - b).max() < 1e-5
    assert same(common.pooled(model, tokenizer, [text], max_length=10), common.pooled(model, tokenizer, ["ba be bi bo " * 2]))
    most = "ba be bi bo " * 31 + "ba be"  # with [CLS] and [SEP], 128
    assert same(common.pooled(model, tokenizer, [text], max_length=10_000), common.pooled(model, tokenizer, [most]))
    assert not same(common.pooled(model, tokenizer, [text]), common.pooled(model, tokenizer, [text], max_length=10))


def test_features_of_half_precision_are_numbers_of_numpy(tiny):
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(TINY, dtype=torch.bfloat16), tiny[1]
    assert common.pooled(model, tokenizer, ["ba be"]).dtype == np.float32


def test_rows_for_the_probe_are_the_first_of_the_largest_labels():
    labels = {"train": "zzzzzzzzz", "validation": "abacbd", "test": "bbbaccd"}
    splits = DatasetDict({
        split: Dataset.from_list([{"text": f"{split} {i}", "label": name} for i, name in enumerate(names)])
        for split, names in labels.items()
    })
    rows = common.probe_rows(splits, classes=2, most=3)
    assert rows.to_dict("list") == {  # a and c have three each, and a comes first
        "text": ["validation 0", "validation 1", "validation 2", "validation 4", "test 0", "test 3"],
        "label": ["a", "b", "a", "b", "b", "a"],
    }
    assert len(common.probe_rows(splits)) == 13


def test_the_collection_has_enough_rows_for_the_probe(collection):
    counts = common.probe_rows(collection)["label"].value_counts()
    assert len(counts) == 10 and counts.max() == 100 and counts.min() >= 15


# ---------------------------------------------------------------------------------------------------- display


def test_masks_are_shown_escaped_and_by_kind():
    names = ["<s>", "a", "<mask>", "b&c", "d", "<i>"]
    tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda i: names[i])
    html = common.show_masks([0, 1, 2, 3, 4, 1], [-100, -100, 5, 3, 3, -100], tokenizer, mask_id=2).data
    assert "<s>" not in html and "<i>" not in html and "<mask>" not in html and "b&c" not in html
    shown = re.findall(r'<ruby style="background:(#\w+);[^>]*>(.*?)<rt>(.*?)</rt></ruby>', html)
    assert shown == [
        (common.COLOURS["mask"], "&lt;mask&gt;", "&lt;i&gt; (mask)"),
        (common.COLOURS["kept"], "b&amp;c", "b&amp;c (kept)"),
        (common.COLOURS["random"], "d", "b&amp;c (random)"),
    ]
    text = re.sub(r"<ruby.*?</ruby>", "*", html)
    assert re.sub(r"<[^>]*>", "", text) == "&lt;s&gt; a * * * a", "the others stand as they are, in order"


def test_masks_of_a_block_are_shown_from_a_real_tokenizer():
    tokenizer = stand_ins.word_piece()
    encoded = common.tokenize({"text": ["ba be bi bo bu ban bero"]}, tokenizer)
    ids, flags = encoded["input_ids"][0], encoded["word_start"][0]
    seen, labels = common.mask_tokens(ids, flags, np.random.default_rng(0), tokenizer.mask_token_id, common.ordinary_ids(tokenizer), 0.5)
    html = common.show_masks(seen, labels, tokenizer, tokenizer.mask_token_id).data
    assert html.count("<ruby") == html.count("</ruby>") == sum(label != -100 for label in labels) == 4
    assert html.count("(mask)") == seen.count(tokenizer.mask_token_id) and "[CLS]" in html


def test_perplexity_is_drawn_beside_the_loss(monkeypatch):
    monkeypatch.setattr(common.plt, "show", lambda: None)
    history = [{"epoch": 1, "perplexity": 20.0, "loss": 3.0}, {"epoch": 2, "perplexity": 10.0, "loss": 2.3}]
    common.plot_perplexity([3.0, 2.0, 1.0], history, {"untrained": 100.0, "frequencies": 400.0})
    left, right = common.plt.gcf().axes
    assert left.lines[0].get_xdata().tolist() == [1, 2, 3] and left.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    trained, *levels = right.lines
    assert trained.get_xdata().tolist() == [1, 2] and trained.get_ydata().tolist() == [20.0, 10.0]
    assert [(line.get_label(), line.get_ydata()[0]) for line in levels] == [("untrained", 100.0), ("frequencies", 400.0)]
    assert len({line.get_linestyle() for line in right.lines}) == 3 and right.get_yscale() == "log"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["trained", "untrained", "frequencies"]
    common.plt.close("all")


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
    cells = nbformat.read(ROOT / "masked_language_modeling" / "trainer_api.ipynb", as_version=4).cells
    (source,) = [cell.source for cell in cells if cell.source.startswith("def masked_only(model):")]
    exec(source, notebook := {})
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(name, **ARCHITECTURES[name])).eval()
    input_ids, masked = torch.randint(3, 50, (3, 12)), torch.rand(3, 12) < 0.3
    with torch.no_grad():
        everywhere = model(input_ids=input_ids).logits
        notebook["masked_only"](model)
        assert torch.equal(model(input_ids=input_ids).logits, everywhere), "without `masked` the model is as it was"
        assert model(input_ids=input_ids, masked=masked).logits.shape == (masked.sum(), everywhere.shape[-1])
        torch.testing.assert_close(model(input_ids=input_ids, masked=masked).logits, everywhere[masked], atol=1e-5, rtol=1e-5)
        assert model.base_model(input_ids=input_ids).last_hidden_state.shape[:2] == (3, 12), "nothing is left of the last `masked`"
