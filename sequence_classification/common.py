"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from datasets import ClassLabel, DatasetDict, Value, load_dataset
from IPython.display import HTML
from transformers import PreTrainedTokenizerBase


def load_splits(dataset_id: str, columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a local folder or of a dataset on the Hub.

    Args:
        columns: {name here: name in the data}, e.g. {"text": "review"}; empty if the columns are `text` and `label`.

    Returns:
        Each split with a column `text` (string) and a column `label` (ClassLabel). Labels that are words or numbers
        become a ClassLabel whose names are the values in `train`, sorted.

    Raises:
        ValueError: a split is missing, or a row has no text or no label.
    """
    dataset = load_dataset(dataset_id)
    if missing := {"train", "validation", "test"} - set(dataset):
        raise ValueError(f"{dataset_id} has no split {sorted(missing)}, only {list(dataset)}: add it, e.g. with train_test_split")
    own = {columns.get(name, name): name for name in ("text", "label")}
    dataset = DatasetDict({split: dataset[split].select_columns(list(own)) for split in ("train", "validation", "test")})
    dataset = dataset.rename_columns(own)
    for split, rows in dataset.items():
        for i, (text, label) in enumerate(zip(rows["text"], rows["label"])):
            if not str(text or "").strip() or label is None:
                raise ValueError(f"row {i} of split '{split}' has the text {text!r} and the label {label!r}: remove it")
    if not isinstance(dataset["train"].features["label"], ClassLabel):
        values = dataset["train"].unique("label")
        dataset = dataset.cast_column("label", Value("string"))
        names = [name for _, name in sorted(zip(values, dataset["train"].unique("label")))]
        dataset = dataset.cast_column("label", ClassLabel(names=names))
    return dataset.cast_column("text", Value("string"))


def tokenize(batch: dict, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict:
    """Token ids of a batch of texts, truncated to `max_length` tokens and not padded.

    Args:
        batch: a column `text` with n strings, as `Dataset.map(batched=True)` passes it.
        max_length: in tokens, special tokens included.

    Returns:
        `input_ids` and `attention_mask`, and `token_type_ids` if the tokenizer makes them: n lists of integers each.
    """
    return tokenizer(batch["text"], truncation=True, max_length=max_length)


def start_run(output_dir: str | Path, resume: bool) -> tuple[Path, Path | None]:
    """The folder of this run, and the checkpoint to continue from.

    Returns:
        A new folder `output_dir`/run-001, run-002, ... and None; or, with `resume`, the newest such folder and its
        newest complete checkpoint.

    Raises:
        ValueError: there is nothing to resume.
    """
    numbers = [int(path.name[4:]) for path in Path(output_dir).glob("run-*") if path.name[4:].isdigit()]
    run_dir = Path(output_dir) / f"run-{max(numbers, default=0) + (not resume):03d}"
    if not resume:
        run_dir.mkdir(parents=True)
        return run_dir, None
    checkpoint = last_checkpoint(run_dir)
    if checkpoint is None:
        raise ValueError(f"no complete checkpoint in {run_dir}: train with resume = False first, or correct output_dir")
    return run_dir, checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint below a folder, or None.

    The last file that a checkpoint gets is trainer_state.json. A checkpoint without it, or with a part of it, was being
    written when the process was killed, and is passed over.
    """
    complete = {}
    for state in folder.glob("**/checkpoint-*/trainer_state.json"):
        try:
            json.loads(state.read_text())
        except ValueError:
            continue
        complete[int(state.parent.name.split("-")[-1])] = state.parent
    return complete[max(complete)] if complete else None


def show(table: pd.DataFrame) -> HTML:
    """A table with its texts shown in full and aligned left, without the index."""
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


def plot_curves(losses: list[float], history: list[dict]) -> None:
    """Plot the training loss per optimizer step beside the validation loss and scores per epoch.

    Args:
        losses: mean loss in nats, one for each optimizer step.
        history: a dict per epoch with `epoch`, `loss` (mean, in nats) and any number of scores (0 to 1).
    """
    table = pd.DataFrame(history).set_index("epoch")
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, linewidth=1)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats")
    top = 1.1 * table["loss"].max()
    table["loss"].plot(ax=middle, marker="o", title="Validation loss", ylabel="nats", xticks=table.index, ylim=(0, top))
    styles = ["o-", "s--", "^:", "D-.", "v-", "P--", "X:"]
    scores = table.drop(columns="loss")
    scores.plot(ax=right, style=styles[: scores.shape[1]], title="Validation scores", ylim=(0, 1), xticks=table.index)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    plt.show()
