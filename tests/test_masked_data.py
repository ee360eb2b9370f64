"""Texts as people have them, for masked_language_modeling/: of any script, short, few, and with labels of any kind."""

import json
from functools import cache

import notebooks
import numpy as np
import pytest
import stand_ins
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from oracles import cell_that_makes
from scripts import export, job
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

FOLDER = "masked_language_modeling"
common = notebooks.common_of(FOLDER)

CHINESE = "图书馆在河的左岸，每天早上九点开门，读者可以把三本书带回家，晚了要付一点钱。"
THAI = "ห้องสมุดเปิดทุกวันตอนเก้าโมงเช้าและปิดตอนเย็น"
JAPANESE = "図書館は川の左にあります。毎朝九時に開きます。"
MIXED = "用Python写的程序read_csv在2024年完成，the rest is in English。"


@cache
def characters():
    """A tokenizer like that of bert-base-chinese: a character of Han is a token; kana and Latin words are cut into single ones."""
    known = sorted({character for text in (CHINESE, JAPANESE, MIXED) for character in text.lower() if not character.isspace()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known, *("##" + character for character in known)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


@cache
def byte_level():
    """Three tokens for a character of Han or Thai, in one stretch up to the next space or punctuation mark."""
    tokenizer = stand_ins.byte_level()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return tokenizer


@cache
def pieces():
    """A Unigram tokenizer, for which a text without spaces is one stretch; some of its pieces span several characters."""
    single = sorted({character for text in (CHINESE, THAI, JAPANESE, MIXED) for character in text if character != " "})
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("<mask>", 0.0), ("▁", -4.0)]
    vocabulary += [(piece, -2.0) for piece in ("图书馆", "程序", "ห้อง")] + [(character, -6.0) for character in single]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def words_of(text, tokenizer):
    """The words that `tokenize` numbers, as they stand in the text."""
    (numbers,) = common.tokenize({"text": [text]}, tokenizer)["word_ids"]
    words = {}
    for number, (start, stop) in zip(numbers, tokenizer(text, return_offsets_mapping=True)["offset_mapping"]):
        if number != -1:
            words.setdefault(number, set()).update(range(start, stop))
    return ["".join(text[i] for i in sorted(places)).strip() for places in words.values()]


@pytest.mark.parametrize("make, text, words", [
    (characters, "每天早上，读书", [*"每天早上，读书"]),
    (characters, "左にあります。", [*"左にあります。"]),
    (characters, "用Python写", ["用", "Python", "写"]),
    (byte_level, "每天早上，读书", [*"每天早上，读书"]),
    (byte_level, "the ทุก วัน", ["the", *"ทุก", *"วัน"]),
    (byte_level, "用Python写 the rest", ["用", "Python", "写", "the", "rest"]),
    (pieces, "图书馆在河的左岸。", ["图书馆", *"在河的左岸。"]),
    (pieces, "ห้องสมุด", ["ห้อง", *"สมุด"]),
    (pieces, "用Python写的程序 the rest", ["用", "Python", "写", "的", "程序", "the", "rest"]),
])
def test_in_scripts_without_spaces_a_character_or_what_the_tokenizer_joins_is_a_word(make, text, words):
    assert words_of(text, make()) == words


@pytest.mark.parametrize("make", [characters, byte_level, pieces])
@pytest.mark.parametrize("text", [CHINESE, THAI, JAPANESE, MIXED, f"{MIXED} {CHINESE} a plain sentence between, with words. {JAPANESE}"])
@pytest.mark.parametrize("size", [32, 64])
def test_whole_words_of_any_script_hide_the_share_that_was_asked_for(make, text, size):
    tokenizer = make()
    if make is characters and text == THAI:
        pytest.skip("unknown to this vocabulary")
    tokenized = Dataset.from_dict(common.tokenize({"text": [text] * 40}, tokenizer))
    blocks, _ = common.make_blocks(tokenized, size)
    hidden = []
    for block in blocks:
        _, labels = common.mask_tokens(
            block["input_ids"], block["word_ids"], np.random.default_rng(block["row"]), tokenizer.mask_token_id, np.arange(9), 0.15, True)
        most = round(0.15 * sum(number != -1 for number in block["word_ids"]))
        hidden.append((sum(label != -100 for label in labels), most))
        assert 0 < hidden[-1][0] <= most
    assert sum(n for n, _ in hidden) > 0.85 * sum(most for _, most in hidden)


def test_a_word_longer_than_the_share_is_taken_only_if_all_are_and_then_the_shortest():
    ids, words = list(range(20)), [0] * 9 + [1] * 4 + [2] * 7
    for seed in range(20):
        _, labels = common.mask_tokens(ids, words, np.random.default_rng(seed), 99, np.arange(9), 0.15, True)
        assert [i for i, label in enumerate(labels) if label != -100] == [9, 10, 11, 12]
        _, labels = common.mask_tokens(ids, words[:13] + [2, 3, 4, 5, 6, 7, 8], np.random.default_rng(seed), 99, np.arange(9), 0.15, True)
        assert sum(label != -100 for label in labels) == 3


def test_blocks_without_anything_to_predict_are_left_out_and_counted(capsys):
    tokenized = Dataset.from_dict({"input_ids": [[1] * 9], "word_ids": [[-1, 0, -1, -1, -1, -1, 1, 1, 1]]})
    blocks, left = common.make_blocks(tokenized, 3)
    assert (blocks["row"][:], left) == ([0, 2], 0)
    assert "1 blocks of special and unknown tokens alone are left out" in capsys.readouterr().out


@pytest.mark.parametrize("texts, message", [
    (["ሰላም ለዓለም"] * 9, "split 'test' has nothing to predict, only special tokens and tokens that are unknown to the vocabulary: choose"),
    (["ba be"], "split 'test' has 4 tokens, too few for a block of 8: use a block_size of at most 4, or more text"),
])
def test_why_there_are_no_blocks_is_told_with_the_split(texts, message):
    tokenized = Dataset.from_dict(common.tokenize({"text": texts}, stand_ins.word_piece()))
    with pytest.raises(ValueError, match=message):
        common.make_blocks(tokenized, 8, "split 'test'")


# ---------------------------------------------------------------------------------------------------- labels


def splits_of(labels, feature=None):
    features = Features({"text": Value("string"), "label": feature}) if feature else None
    rows = Dataset.from_list([{"text": f"text {i}", "label": label} for i, label in enumerate(labels)], features=features)
    return DatasetDict({"train": rows, "validation": rows, "test": rows})


@pytest.mark.parametrize("labels, feature, classes", [
    (["a", "b", "b"] * 5, None, {"a": 10, "b": 20}),
    ([None, "a", "b"] * 3, None, {"a": 6, "b": 6}),
    (["", "a", "b"] * 3, None, {"a": 6, "b": 6}),
    ([0, 1, None] * 3, None, {"0.0": 6, "1.0": 6}),
    ([True, False] * 3, None, {"True": 6, "False": 6}),
    (["1", "2.0"] * 3, None, {"1": 6, "2.0": 6}),
    ([0, 1, -1] * 3, ClassLabel(names=["no", "yes"]), {"0.0": 6, "1.0": 6}),
    ([-1, 1] * 3, Value("int64"), {"-1": 6, "1": 6}),
    (["a"] * 60 + ["b"] * 3 + ["c"] * 2, None, {"a": 100, "b": 6}),
])
def test_what_is_classified_are_rows_of_labels_that_are_classes(labels, feature, classes):
    rows = common.rows_with_classes(splits_of(labels, feature))
    assert rows["label"].value_counts().to_dict() == classes


@pytest.mark.parametrize("labels, feature, reason", [
    ([4.2, 3.5] * 9, None, "decimal numbers"),
    ([1.0, 2.0, 2.5] * 9, None, "decimal numbers"),
    (["0.34", "0.71"] * 9, None, "decimal numbers"),
    (["0,5", "1"] * 9, None, "decimal numbers"),
    ([1e-5, 2e-5] * 9, None, "decimal numbers"),
    ([f"doc-{i:05}" for i in range(50)], None, "no two labels"),
    (["only"] * 20, None, "no two labels"),
    ([None] * 20, Value("string"), "no two labels"),
    ([-1] * 20, ClassLabel(names=["no", "yes"]), "no two labels"),
    ([["a"], ["a", "b"]] * 9, None, "lists"),
])
def test_other_labels_give_nothing_to_classify_and_a_line_that_says_why(labels, feature, reason, capsys):
    rows = common.rows_with_classes(splits_of(labels, feature))
    assert len(rows) == 0 and list(rows) == ["text", "label"]
    printed = capsys.readouterr().out
    assert printed.startswith("no classes: ") and reason in printed


def rows_of(folder, texts):
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return common.load_splits(str(folder / "rows.jsonl"), None, {})


def test_a_number_is_a_text_also_if_it_is_zero(tmp_path):
    loaded = rows_of(tmp_path, [i / 2 for i in range(20)])
    assert sorted(float(text) for rows in loaded.values() for text in rows["text"]) == [i / 2 for i in range(20)]


@pytest.mark.parametrize("nested", [["One.", "Two."], {"body": "One."}])
def test_texts_that_are_lists_or_dicts_are_refused(tmp_path, nested):
    with pytest.raises(ValueError, match="row 0 of 'train' has the text .*One.*which is not a text"):
        rows_of(tmp_path, [nested] * 20)


def test_without_labels_there_is_nothing_to_classify(capsys):
    assert len(common.rows_with_classes(splits_of(["a", "b"] * 9).remove_columns("label"))) == 0
    assert "no column 'label'" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- both notebooks


def test_texts_of_one_length_have_a_histogram():
    import matplotlib.pyplot as plt

    dataset = {"train": {"text": ["abcdef"] * 20}}
    cell_that_makes(FOLDER, "trainer_api", "num_characters", dataset=dataset, np=np, plt=plt)


def chinese(folder):
    """A text file with a paragraph in a line and a blank line between, and words as classes are nowhere."""
    (folder / "train.txt").write_text("\n\n".join(CHINESE[i % 9 :] + CHINESE[: i % 7] for i in range(60)), encoding="utf-8")


def scores(folder):
    """Few and very short texts, of which one is the word null, with scores for labels; semicolons between the cells."""
    rows = [f"{'null' if i == 5 else 'ba bero din'[: 6 + i % 3]};{i / 7:.2f}" for i in range(60)]
    (folder / "train.csv").write_text("text;label\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize("make, more", [
    (chinese, {"checkpoint": "stand-in/splade-tiny", "whole_words": True, "block_size": 32}),
    (scores, {"checkpoint": "stand-in/splade-tiny", "block_size": 16}),
])
def test_both_notebooks_run_on_data_as_people_have_them(hub, scripts, tmp_path, make, more):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    parameters = {"dataset_id": str(tmp_path / "data"), "num_epochs": 1, "batch_size": 4} | more
    target = tmp_path / "run"
    jobs = [job(target, export(FOLDER, name, target, parameters), log=f"{name}.log") for name in notebooks.PAIR]
    assert scripts.run(*jobs) == [0, 0], "\n\n".join((target / f"{name}.log").read_text()[-2000:] for name in notebooks.PAIR)
    trainer, loop = (json.loads((target / f"{name}.json").read_text()) for name in notebooks.PAIR)
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0 and trainer["metrics"] == loop["metrics"]
    assert set(trainer["metrics"]) == {"perplexity", "perplexity_before", "perplexity_unigram"}
    log = (target / "trainer_api.log").read_text()
    assert "no classes: " in log and "nan" not in log.lower().split()
