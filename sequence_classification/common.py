"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Value
from IPython.display import HTML
from transformers import PretrainedConfig, PreTrainedTokenizerBase

import label_kinds
import loading

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
        ValueError: `train` has a single label, or a label for nearly every row; or another split has a label that it lacks.
    """
    names = {name: columns.get(name, name) for name in ("text", "text_pair", "label")}
    dataset = loading.load_splits(dataset_id, config, names, optional=("text_pair",))
    texts = [name for name in ("text", "text_pair") if name in dataset["train"].column_names]
    for split, rows in dataset.items():
        for name in texts:
            rows = rows.cast_column(name, Value("string"))
        has_text = [all(any(c.isprintable() and not c.isspace() for c in row[name] or "") for name in texts) for row in rows]
        missing = (None, -1) if isinstance(rows.features["label"], ClassLabel) else (None,)  # -1 may be a class with another feature
        is_complete = [has and label not in missing for has, label in zip(has_text, rows["label"])]
        if not all(is_complete):
            print(f"{is_complete.count(False)} rows of '{split}' have a blank text or no label, and are left out")
        dataset[split] = rows.select(np.flatnonzero(is_complete))
    if len(texts) == 1:
        loading.count_known(dataset, "text")
    return label_kinds.encode_labels(dataset)


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


def start_run(output_dir: str | Path, resume: bool, parameters: dict) -> tuple[Path, Path | None]:
    """The folder of this run, and the checkpoint to continue from.

    Args:
        parameters: what determines the training, e.g. {"num_epochs": 3, "seed": 42}. It is kept in parameters.json.

    Returns:
        A new folder `output_dir`/run-001, run-002, ... and None; or, with `resume`, the newest such folder and its
        newest complete checkpoint.

    Raises:
        ValueError: there is nothing to resume, or the run to resume has other parameters.
    """
    numbers = [int(path.name[4:]) for path in Path(output_dir).glob("run-*") if path.name[4:].isdigit()]
    run_dir = Path(output_dir) / f"run-{max(numbers, default=0) + (not resume):03d}"
    if not resume:
        run_dir.mkdir(parents=True)
        (run_dir / "parameters.json").write_text(json.dumps(parameters))
        return run_dir, None
    checkpoint = last_checkpoint(run_dir)
    if checkpoint is None:
        raise ValueError(f"no complete checkpoint in {run_dir}: train with resume = False first, or correct output_dir")
    saved = json.loads((run_dir / "parameters.json").read_text())
    if other := {name: value for name, value in saved.items() if parameters.get(name) != value}:
        raise ValueError(f"{run_dir} was started with {other}: resume with the same parameters. To train its model further, set "
                         f"checkpoint = '{run_dir}/model' and resume = False")
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


def readable_length(length: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """`length` in tokens, or the number of positions of the checkpoint if that is less.

    It also becomes `tokenizer.model_max_length`, at which a pipeline with the saved model truncates.
    """
    positions = getattr(config, "max_position_embeddings", None) or length  # None: the positions are relative
    if re.search("roberta|camembert|mpnet|longformer|data2vec|xmod", config.model_type):
        positions -= config.pad_token_id + 1  # these count positions from there on
    if length > positions:
        print(f"{length} tokens are asked for, and the checkpoint reads {positions}: texts are cut there")
    tokenizer.model_max_length = min(length, positions)
    return tokenizer.model_max_length


def count_unknown(input_ids: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Print the share of subword tokens that are unknown to the vocabulary, and what to do if there are many."""
    ids = np.concatenate([np.array(row, dtype=int) for row in input_ids])
    share = np.mean(ids == tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0.0
    print(f"{share:.1%} of the subword tokens are unknown to the checkpoint's vocabulary")
    if share > 0.05:
        print("The model can't tell unknown tokens apart: choose a checkpoint that was made for the language of your texts.")


def advise(history: list[dict], name: str, score: float, baseline: float, higher_is_better: bool = True) -> None:
    """Print what to change if a baseline is ahead, or if the last epoch still brought much.

    Args:
        history: a dict per epoch with the validation score `name`.
        score, baseline: of the test split.
    """
    sign = 1 if higher_is_better else -1
    values = [sign * entry[name] for entry in history]
    if sign * score <= sign * baseline:
        print(f"The simple baseline is not beaten ({baseline:.3f} against {score:.3f}). Train longer (num_epochs) or with another "
              "learning_rate, use more data, or a checkpoint that was made for your kind of text.")
    if len(values) > 1 and values[-1] == max(values) and values[-1] - values[-2] > 0.02 * abs(values[-2]):
        print(f"The validation {name} still improved in the last epoch, from {history[-2][name]:.3f} to {history[-1][name]:.3f}: "
              "raise num_epochs.")


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
