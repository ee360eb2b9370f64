"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import ClassLabel, DatasetDict, load_dataset
from IPython.display import HTML
from sklearn.metrics import ConfusionMatrixDisplay
from transformers import AutoTokenizer

SPLITS = ("train", "validation", "test")


def load_splits(dataset_id: str) -> DatasetDict:
    """Load a local folder or a dataset of the Hub and check that a classifier can be trained on it.

    Returns:
        The splits `train`, `validation` and `test`, each with a column `text` (str) and a column `label` (ClassLabel).
        Labels that are plain strings or numbers become ClassLabels, named after the values in `train`, sorted.

    Raises:
        ValueError: a split or column is missing, a split is empty, or a row has no text or a label that is not a class.
    """
    splits = load_dataset(dataset_id)
    for split in SPLITS:
        if split not in splits:
            raise ValueError(f"{dataset_id} has no split '{split}', only {list(splits)}: add it, e.g. with train_test_split")
        check_columns(splits[split], split)
    if not isinstance(splits["train"].features["label"], ClassLabel):
        splits = encode_labels(splits)
    for split in SPLITS:
        check_rows(splits[split], split)
    return splits


def check_columns(dataset, split: str) -> None:
    """Raise ValueError if `dataset` has no rows, or no column `text` or `label`; `split` names it in the message."""
    for column in ("text", "label"):
        if column not in dataset.column_names:
            raise ValueError(
                f"split '{split}' has no column '{column}', only {dataset.column_names}: rename the one you mean, "
                f"e.g. dataset.rename_column('sentence', '{column}')"
            )
    if len(dataset) == 0:
        raise ValueError(f"split '{split}' is empty: check its data files")


def encode_labels(splits: DatasetDict) -> DatasetDict:
    """Turn labels of any type into a ClassLabel with the sorted values of `train` as names.

    Raises:
        ValueError: another split has a label that `train` has not, so that it could never be predicted.
    """
    names = sorted({str(label) for label in splits["train"]["label"]})
    for split in splits:
        unknown = {str(label) for label in splits[split]["label"]} - set(names)
        if unknown:
            raise ValueError(f"split '{split}' has labels that 'train' has not: {sorted(unknown)}: move rows or drop them")
    splits = splits.map(lambda row: {"label": str(row["label"])})
    return splits.cast_column("label", ClassLabel(names=names))


def check_rows(dataset, split: str) -> None:
    """Raise ValueError if a row's text is missing or blank, or its label is not one of the ClassLabel's ids."""
    num_classes = dataset.features["label"].num_classes
    for i, (text, label) in enumerate(zip(dataset["text"], dataset["label"])):
        if not (text or "").strip():
            raise ValueError(f"row {i} of split '{split}' has an empty text: drop it, e.g. with dataset.filter")
        if label is None or not 0 <= label < num_classes:
            raise ValueError(f"row {i} of split '{split}' has label {label}, outside the {num_classes} names: mend or drop it")


def load_tokenizer(checkpoint: str):
    """The tokenizer of a checkpoint. Raises ValueError if it has no pad token, without which no batch can be made."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer.pad_token is None:
        raise ValueError(
            f"the tokenizer of {checkpoint} has no pad token: set one, e.g. tokenizer.pad_token = tokenizer.eos_token "
            "and model.config.pad_token_id = tokenizer.pad_token_id"
        )
    return tokenizer


def tokenize(batch: dict, tokenizer, max_length: int) -> dict:
    """Token ids of a batch of texts, cut at `max_length` tokens and not padded: the collator pads each batch by itself.

    Args:
        batch: a column `text` with n strings, as `Dataset.map(batched=True)` passes it.
        max_length: in tokens, special tokens included.

    Returns:
        `input_ids` and `attention_mask` (and `token_type_ids` where the tokenizer makes them): n lists of 1 to
        `max_length` integers each.
    """
    return tokenizer(batch["text"], truncation=True, max_length=max_length)


def start_run(output_dir: str | Path, resume: bool) -> tuple[Path, Path | None]:
    """The folder of this run and the checkpoint to go on from.

    Returns:
        A new folder `output_dir`/run-001, run-002, … and None, so that no earlier run is overwritten; or, with
        `resume`, the newest such folder and its newest complete checkpoint. A checkpoint is complete when its last
        file, trainer_state.json, can be read: one that a killed process had half written is passed over.

    Raises:
        ValueError: there is nothing to resume.
    """
    runs = sorted(Path(output_dir).glob("run-*"))
    if not resume:
        run = Path(output_dir) / f"run-{int(runs[-1].name[4:]) + 1 if runs else 1:03d}"
        run.mkdir(parents=True)
        return run, None
    checkpoints = [c for c in runs[-1].glob("checkpoint-*") if is_complete(c)] if runs else []
    if not checkpoints:
        place = runs[-1] if runs else output_dir
        raise ValueError(f"no complete checkpoint in {place}: train with resume = False first, or correct output_dir")
    return runs[-1], max(checkpoints, key=lambda c: int(c.name.split("-")[-1]))


def is_complete(checkpoint: Path) -> bool:
    """Whether the last file that a checkpoint gets is there and whole."""
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return False


def label_counts(splits: DatasetDict) -> pd.DataFrame:
    """Rows per label (index) and split (columns)."""
    names = splits["train"].features["label"].names
    counts = {split: np.bincount(splits[split]["label"], minlength=len(names)) for split in splits}
    return pd.DataFrame(counts, index=names)


def show(table: pd.DataFrame) -> HTML:
    """A table with its texts aligned left and shown whole, without the index; HTML in the cells is escaped."""
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


def plot_curves(losses: list[float], history: list[dict]) -> None:
    """Training loss per optimizer step beside validation loss and scores per epoch.

    Args:
        losses: nats per row, one per optimizer step.
        history: one dict per epoch with `epoch`, `loss` (nats per row), `accuracy` and `f1` (0 to 1).
    """
    table = pd.DataFrame(history).set_index("epoch")
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, linewidth=1)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats per row")
    table["loss"].plot(ax=middle, marker="o", title="Validation loss", ylabel="nats per row", xticks=table.index)
    table[["accuracy", "f1"]].plot(ax=right, style=["o-", "s--"], title="Validation scores", ylim=(0, 1), xticks=table.index)
    plt.show()


def plot_confusion(references, predictions, names: list[str]) -> None:
    """Confusion matrix, each row a true class that sums to 1.

    Args:
        references: n true class ids.
        predictions: n predicted class ids.
        names: the class names, by id.
    """
    fig, ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        references, predictions, labels=range(len(names)), display_labels=names, normalize="true",
        values_format=".2f", cmap="Blues", xticks_rotation=45, im_kw={"vmin": 0, "vmax": 1}, ax=ax,
    )
    ax.set(xlabel="predicted", ylabel="true")
    plt.show()
