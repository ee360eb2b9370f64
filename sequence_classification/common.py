"""Preprocessing and display helpers that both notebooks of this folder import."""

import re

import numpy as np
from datasets import Dataset, DatasetDict, Value
from transformers import PreTrainedTokenizerBase

import label_kinds
import loading
from helpers import advise, compare, count_unknown, own_device, plot_curves, readable_length, show, start_run  # noqa: F401, for the notebooks

# scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]{{2,}}"  # a character of those, or two and more of any others


def load_splits(dataset_id: str, config: str | None, columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a file, a folder, or a dataset on the Hub; see `loading.load_splits`.

    Args:
        config: the subset, for a dataset that has several.
        columns: {name here: name in the data}, e.g. {"text": "review"}; empty if the columns are `text` and `label`, and
            `text_pair` if there are pairs of texts.

    Returns:
        Each split with `text`, and `text_pair` if there is one (strings), and with `label`: a ClassLabel; a list of ClassLabels,
        if each text has a list of labels; or a float, if any label is a number with decimals. Rows without text or label are
        left out.

    Raises:
        ValueError: a text is a list or a dict, or a split has no complete row; `train` has a single label, or too many for
            classes; or another split has a label that it lacks.
    """
    names = {name: columns.get(name, name) for name in ("text", "text_pair", "label")}
    given = loading.load(dataset_id, config)
    dataset = loading.choose(given, names, optional=("text_pair",) if "text_pair" not in columns else ())
    drawn = tuple(split for split in ("validation", "test") if split not in given or len(given[split]) != len(dataset[split]))
    texts = [name for name in ("text", "text_pair") if name in dataset["train"].column_names]
    for split, rows in dataset.items():
        for name in texts:
            if not isinstance(rows.features[name], Value):
                raise ValueError(f"row 0 of '{split}' has the {name} {str(rows[0][name])[:100]}, which is not a text: make one of it")
            rows = rows.cast_column(name, Value("string"))
        has_text = [all(any(c.isprintable() and not c.isspace() for c in row[name] or "") for name in texts) for row in rows]
        has_label = [not label_kinds.is_missing(label, rows.features["label"]) for label in rows["label"]]
        is_complete = [text and label for text, label in zip(has_text, has_label)]
        if not all(is_complete):
            print(f"{is_complete.count(False)} rows of '{split}' have a blank text or no label, and are left out")
        if not any(is_complete):
            raise ValueError(f"no row of '{split}' has both a text and a label: leave this split out, and rows of 'train' serve as one")
        dataset[split] = rows.select(np.flatnonzero(is_complete))
    if len(texts) == 1:
        loading.count_known(dataset, "text")
    return label_kinds.encode_labels(dataset, drawn)


def joined(rows: Dataset) -> list[str]:
    """The texts of a split, or its pairs of texts with a bar between them."""
    if "text_pair" in rows.column_names:
        return [f"{text} | {other}" for text, other in zip(rows["text"], rows["text_pair"])]
    return rows["text"][:]


def shorten(text: str, length: int = 300) -> str:
    """A text, cut after `length` characters."""
    return text if len(text) <= length else f"{text[:length]} ..."


def count_words(text: str) -> int:
    """The number of words between blanks; in scripts without spaces, the number of characters."""
    return len(re.findall(rf"[{UNSPACED}]|[^\s{UNSPACED}]+", text))


def tokenize(batch: dict, tokenizer: PreTrainedTokenizerBase, max_length: int, num_labels: int) -> dict:
    """Token ids of a batch of texts, or of pairs of texts, truncated to `max_length` tokens and not padded.

    Args:
        batch: columns `text`, `label` and perhaps `text_pair` with n rows, as `Dataset.map(batched=True)` passes them.
        max_length: in tokens, special tokens included.

    Returns:
        `input_ids` and `attention_mask`, and `token_type_ids` if the tokenizer makes them: n lists of integers each; and
        `labels`, as `label_kinds.label_array` makes them.
    """
    encoding = tokenizer(batch["text"], batch.get("text_pair"), truncation=True, max_length=max_length)
    return {**encoding, "labels": label_kinds.label_array(batch["label"], num_labels).tolist()}
