"""Preprocessing and display helpers that both notebooks of this folder import."""

import re
import runpy
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Value
from IPython.display import HTML
from transformers import PreTrainedTokenizerBase

import loading
from helpers import advise, compare, count_unknown, own_device, readable_length, show, start_run  # noqa: F401, for the notebooks
from masking import make_blocks, mask_tokens, tokenize  # noqa: F401, for the notebooks


def load_splits(dataset_id: str, config: str | None, columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a file, a folder, a dataset on the Hub, or of "stdlib".

    Args:
        dataset_id: "stdlib" is the documentation of the running Python's standard library, see data/docstrings.py; for anything
            else see `loading.load_splits`.
        config: the subset, for a dataset that has several.
        columns: {name here: name in the data}, e.g. {"text": "body"}; empty if the columns are `text` and `label`.

    Returns:
        Each split with a column `text` (string) and, if every split has one, a column `label`. Blank texts are left out.
    """
    if dataset_id == "stdlib":
        rows = runpy.run_path(str(Path(__file__).parent / "data" / "docstrings.py"))["load"]()
        return DatasetDict({split: Dataset.from_list(rows[split]) for split in rows})
    names = {name: columns.get(name, name) for name in ("text", "label")}
    dataset, num_blank = loading.load(dataset_id, config), 0
    for split, rows in dataset.items():
        if names["text"] in rows.column_names:  # before splits are made, so that none is made of blank lines
            has_text = [any(c.isprintable() and not c.isspace() for c in str("" if text is None else text)) for text in rows[names["text"]]]
            dataset[split] = rows.select(np.flatnonzero(has_text))
            num_blank += has_text.count(False)
    if num_blank:
        print(f"{num_blank} blank rows are left out")
    dataset = loading.choose(dataset, names, optional=() if "label" in columns else ("label",))
    for split, rows in dataset.items():
        if not isinstance(rows.features["text"], Value):
            raise ValueError(f"row 0 of '{split}' has the text {str(rows[0]['text'])[:100]}, which is not a text: make one of it")
    loading.count_known(dataset, "text")
    return dataset.cast_column("text", Value("string"))


def rows_with_classes(splits: DatasetDict) -> pd.DataFrame:
    """The rows of `validation` and `test` with one of the ten most frequent labels, at most 100 of each, to classify.

    Returns:
        `text` and `label` (both strings). There are no rows, and a line that says why, if the labels are no classes: decimals,
        lists, or fewer than two labels that five texts have.
    """
    rows = pd.concat([splits["validation"].to_pandas(), splits["test"].to_pandas()])
    nothing = pd.DataFrame({"text": [], "label": []})
    if "label" not in rows:
        print("no classes: the data have no column 'label'")
        return nothing
    if isinstance(splits["test"].features["label"], ClassLabel):
        rows["label"] = rows["label"].where(rows["label"] >= 0)  # -1: the label is secret or missing
    rows = rows.dropna(subset="label")
    if not rows["label"].map(pd.api.types.is_scalar).all():
        print("no classes: the labels are lists or dicts")
        return nothing
    rows["label"] = rows["label"].map(str)
    rows = rows[rows["label"].astype(bool)]  # not ""
    if any(re.fullmatch(r"[+-]?(\d*[.,]\d*[1-9]\d*|[\d.]+e-\d+)", label) for label in rows["label"]):
        print("no classes: the labels are decimal numbers, and not classes")
        return nothing
    sizes = rows["label"].value_counts(sort=False).sort_values(ascending=False, kind="stable")
    sizes = sizes[sizes >= 5]
    if len(sizes) < 2:
        print("no classes: in 'validation' and 'test' together, there are no two labels that five texts have")
        return nothing
    return rows[rows["label"].isin(sizes.index[:10])].groupby("label").head(100)


def show_masks(input_ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> HTML:
    """A masked block as text: the chosen tokens are highlighted, each followed by the original token in bold."""
    colours = {"masked": "#fdbf6f", "random": "#fb9a99", "kept": "#b2df8a"}
    style = "color: black; padding: 1px 4px; border-radius: 4px; background:"
    parts = [f'<span style="{style} {colour}">{kind}</span>' for kind, colour in colours.items()]
    parts.append("<br>")
    for token, seen, label in zip(tokenizer.convert_ids_to_tokens(input_ids), input_ids, labels):
        text = escape(token)
        if label != -100:
            kind = "masked" if seen == tokenizer.mask_token_id else "kept" if seen == label else "random"
            original = escape(tokenizer.convert_ids_to_tokens(label))
            text = f'<span style="{style} {colours[kind]}">{text} <b>{original}</b></span>'
        parts.append(text)
    return HTML(f'<div style="line-height: 2; max-width: 60em">{" ".join(parts)}</div>')
