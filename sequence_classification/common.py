"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import ClassLabel, DatasetDict, Features, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from IPython.display import HTML
from sklearn.metrics import ConfusionMatrixDisplay
from transformers import AutoTokenizer

SPLITS = ("train", "validation", "test")
COLUMNS = ("text", "label")
TASK = "text-classification"  # as the Hub and `pipeline` call it
ABOUT = "Gives a whole text one of a set of labels (sequence classification)."
USE = """from transformers import pipeline

classify = pipeline("text-classification", model="NAME")
print(classify("Nobody came to her birthday."))"""  # NAME is where the model is


def load_splits(dataset_id: str, columns: dict[str, str]) -> DatasetDict:
    """Load a local folder or a dataset of the Hub and check that a classifier can be trained on it.

    Args:
        columns: {name here: name in the data}, e.g. {"text": "review"}; empty if the columns are `text` and `label`.

    Returns:
        The splits `train`, `validation` and `test`, each with a column `text` (str) and a column `label` (ClassLabel);
        other splits and columns are left out. Labels that are plain words or numbers become ClassLabels.

    Raises:
        ValueError: the files can't be read, a split or column is missing or empty, a row has no text or a label that
            is not a class, or a split has a label that `train` has not.
    """
    loaded = rename(load(dataset_id), columns, dataset_id)
    for split in SPLITS:
        if split not in loaded:
            raise ValueError(f"{dataset_id} has no split '{split}', only {list(loaded)}: add it, e.g. with train_test_split")
        check_columns(loaded[split], split)
    splits = DatasetDict({split: loaded[split].select_columns(["text", "label"]) for split in SPLITS})
    for split in SPLITS:
        check_rows(splits[split], split)
    return encode_labels(splits)


def load(dataset_id: str) -> DatasetDict:
    """All splits of a local folder or a dataset of the Hub. Raises ValueError if the files can't be read."""
    try:
        return load_dataset(dataset_id)
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(
            f"{dataset_id} can't be read: {error.__cause__ or error}\nEvery split needs rows with the same columns, and labels "
            "among the names in the dataset's card, if it has one"
        ) from error


def rename(loaded: DatasetDict, columns: dict[str, str], dataset_id: str) -> DatasetDict:
    """A data set with its columns named as they are here.

    Args:
        columns: {name here: name in the data}, of the columns that have another name there.
        dataset_id: names the data set in the message of an error.

    Raises:
        ValueError: `columns` has a name that is not used here, or one that the data have not.
    """
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ValueError(f"columns has {unknown}, and the names used here are {COLUMNS}: write them before the colon, yours behind it")
    for split, rows in loaded.items():
        if missing := sorted(set(columns.values()) - set(rows.column_names)):
            raise ValueError(f"split '{split}' of {dataset_id} has no column {missing}, only {rows.column_names}: correct {columns = }")
        hidden = [name for name in columns if name in rows.column_names and name not in columns.values()]
        changed = {own: name for name, own in columns.items() if own != name}
        loaded[split] = rows.remove_columns(hidden).rename_columns(changed)
    return loaded


def check_columns(dataset, split: str) -> None:
    """Raise ValueError if `dataset` has no rows, or no column `text` or `label`; `split` names it in the message."""
    for column in ("text", "label"):
        if column not in dataset.column_names:
            raise ValueError(
                f"split '{split}' has no column '{column}', only {dataset.column_names}: name the one you mean, "
                f"e.g. columns = {{'{column}': 'its name in the data'}}"
            )
    if len(dataset) == 0:
        raise ValueError(f"split '{split}' is empty: check its data files")


def check_rows(dataset, split: str) -> None:
    """Raise ValueError if a row has no text or no label, or the id of a ClassLabel that has no name."""
    names = getattr(dataset.features["label"], "names", None)
    for i, (text, label) in enumerate(zip(dataset["text"], dataset["label"])):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"row {i} of split '{split}' has the text {text!r}: drop it, or cast the column to string")
        if label is None or (names and not 0 <= label < len(names)):
            raise ValueError(f"row {i} of split '{split}' has the label {label}, which is no class: mend or drop it")


def encode_labels(splits: DatasetDict) -> DatasetDict:
    """Turn labels that are words or numbers into a ClassLabel, whose names are the values in `train`, sorted.

    Raises:
        ValueError: another split has a label that `train` has not, so that it could never be predicted.
    """
    label, known = splits["train"].features["label"], sorted(set(splits["train"]["label"]))
    for split in splits:
        if unknown := set(splits[split]["label"]) - set(known):
            shown = sorted(label.int2str(i) if isinstance(label, ClassLabel) else i for i in unknown)
            raise ValueError(f"split '{split}' has labels that 'train' has not: {shown}: move rows or drop them")
    if isinstance(label, ClassLabel):
        return splits
    features = Features({"text": Value("string"), "label": ClassLabel(names=[str(value) for value in known])})
    return splits.map(lambda row: {"label": known.index(row["label"])}, features=features)


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
    numbers = [int(path.name[4:]) for path in Path(output_dir).glob("run-*") if path.name[4:].isdigit()]
    if not resume:
        run = Path(output_dir) / f"run-{max(numbers, default=0) + 1:03d}"
        run.mkdir(parents=True)
        return run, None
    run = Path(output_dir) / f"run-{max(numbers, default=0):03d}"
    checkpoints = [path for path in run.glob("**/checkpoint-*") if is_complete(path)]
    if not checkpoints:
        raise ValueError(f"no complete checkpoint in {run}: train with resume = False first, or correct output_dir")
    return run, max(checkpoints, key=lambda path: int(path.name.split("-")[-1]))


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


def model_card(name: str, checkpoint: str, datasets: list[str], metrics: dict[str, float]) -> ModelCard:
    """The page of a model on the Hub, to be saved as README.md beside its weights: task, data, metrics and how to use it.

    Args:
        name: of the repository on the Hub, or a folder.
        checkpoint: what training started from.
        datasets: what it was trained and tested on.
        metrics: name -> value on the test split.
    """
    def on_hub(name):  # as owner/name, which what is on this disk is not
        return re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists()

    tested = {"task_type": TASK, "dataset_type": datasets[0], "dataset_name": ", ".join(datasets), "dataset_split": "test"}
    data = ModelCardData(
        model_name=name, library_name="transformers", pipeline_tag=TASK, base_model=checkpoint if on_hub(checkpoint) else None,
        datasets=list(filter(on_hub, datasets)) or None,
        eval_results=[EvalResult(**tested, metric_type=key, metric_value=value) for key, value in metrics.items()],
    )
    rows = "".join(f"| {key} | {value:.3f} |\n" for key, value in metrics.items())
    return ModelCard(
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{ABOUT}\n\n- started from: {checkpoint}\n- data: {', '.join(datasets)}\n\n"
        f"## Test split\n\n| metric | value |\n|---|---|\n{rows}\n## Use\n\n```python\n{USE.replace('NAME', name)}\n```\n"
    )


def show(table: pd.DataFrame) -> HTML:
    """A table with its texts aligned left and shown whole, without the index; HTML in the cells is escaped."""
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


def plot_curves(losses: list[float], history: list[dict]) -> None:
    """Training loss per optimizer step beside validation loss and scores per epoch.

    Args:
        losses: mean nats per target, one for each optimizer step.
        history: one dict per epoch with `epoch`, `loss` (mean nats per target) and any number of scores (0 to 1).
    """
    table = pd.DataFrame(history).set_index("epoch")
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, linewidth=1)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats")
    table["loss"].plot(ax=middle, marker="o", title="Validation loss", ylabel="nats", xticks=table.index)
    scores, styles = table.drop(columns="loss"), ["o-", "s--", "^:", "D-.", "v-", "P--", "X:"]
    scores.plot(ax=right, style=styles[: scores.shape[1]], title="Validation scores", ylim=(0, 1), xticks=table.index)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    plt.show()


def plot_confusion(references, predictions, names: list[str]) -> None:
    """Confusion matrix, each row a true class that sums to 1.

    Args:
        references: n true class ids.
        predictions: n predicted class ids.
        names: the class names, by id.
    """
    fig, ax = plt.subplots(figsize=(2.5 + len(names) / 2, 1.5 + len(names) / 2), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        references, predictions, labels=range(len(names)), display_labels=names, normalize="true",
        values_format=".2f", cmap="Blues", xticks_rotation=45, im_kw={"vmin": 0, "vmax": 1}, ax=ax,
    )
    ax.set(xlabel="predicted", ylabel="true")
    plt.show()
