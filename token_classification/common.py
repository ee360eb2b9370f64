"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from datasets import ClassLabel, DatasetDict, List, load_dataset
from IPython.display import HTML
from seqeval.scheme import IOB2, Entities
from transformers import PreTrainedTokenizerBase

COLOURS = ("#a6cee3", "#fdbf6f", "#b2df8a", "#cab2d6", "#fb9a99", "#ffff99", "#d9d9d9")


def load_splits(dataset_id: str, columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a local folder or of a dataset on the Hub.

    Args:
        columns: {name here: name in the data}, e.g. {"tokens": "words"}; empty if the columns are `tokens` and `ner_tags`.

    Returns:
        Each split with a column `tokens` (a list of words) and a column `ner_tags` (as many ClassLabels, in IOB2). Tags
        that are words become ClassLabels: O, then B- and I- of each type in `train`, in alphabetical order.

    Raises:
        ValueError: a split is missing, the tags are not IOB2, or a row has no words, an empty word, or not as many tags
            as words.
    """
    dataset = load_dataset(dataset_id)
    if missing := {"train", "validation", "test"} - set(dataset):
        raise ValueError(f"{dataset_id} has no split {sorted(missing)}, only {list(dataset)}: add it, e.g. with train_test_split")
    own = {columns.get(name, name): name for name in ("tokens", "ner_tags")}
    dataset = DatasetDict({split: dataset[split].select_columns(list(own)) for split in ("train", "validation", "test")})
    dataset = dataset.rename_columns(own)
    feature = getattr(dataset["train"].features["ner_tags"], "feature", None)
    is_named = isinstance(feature, ClassLabel)
    names = feature.names if is_named else sorted({str(tag) for tags in dataset["train"]["ner_tags"] for tag in tags})
    types = sorted({name[2:] for name in names if name.startswith("B-")})
    iob2 = ["O"] + [f"{prefix}-{kind}" for kind in types for prefix in "BI"]
    if unknown := sorted(set(names) - set(iob2)):
        raise ValueError(f"the tags {unknown} are not IOB2: give each row a list of O, B-TYPE (first word of an entity) and I-TYPE")
    if not is_named:
        dataset = dataset.cast_column("ner_tags", List(ClassLabel(names=iob2)))
    for split, rows in dataset.items():
        int2str = rows.features["ner_tags"].feature.int2str
        for i, (tokens, ids) in enumerate(zip(rows["tokens"], rows["ner_tags"])):
            where, tags = f"row {i} of split '{split}'", int2str(ids)
            if not isinstance(tokens, list) or not tokens or not all((token or "").strip() for token in tokens):
                raise ValueError(f"{where} has the words {tokens!r}: remove the row, or its empty words along with their tags")
            if len(tokens) != len(tags):
                raise ValueError(f"{where} has {len(tokens)} words and {len(tags)} tags: give every word one tag, O outside of entities")
            for previous, tag in zip(["O", *tags], tags):
                if tag.startswith("I-") and previous[2:] != tag[2:]:
                    raise ValueError(f"{where} has {tag} after {previous}: in IOB2, B- begins an entity; convert IOB1 or IO tags")
    return dataset


def align(tags: list[int], word_ids: list[int | None]) -> list[int]:
    """One label per subword token: the tag of its word on the first token of each word, and -100 on all others.

    Args:
        tags: one per word.
        word_ids: for each subword token the index of its word, or None for special tokens (`encoding.word_ids()`).
    """
    labels = []
    previous = None
    for word in word_ids:
        if word is None or word == previous:
            labels.append(-100)  # a special token, or the continuation of a word
        else:
            labels.append(tags[word])
        previous = word
    return labels


def tokenize_and_align(batch: dict, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict:
    """Token ids and labels of a batch of sentences, truncated to `max_length` tokens and not padded.

    Args:
        batch: columns `tokens` and `ner_tags` with n lists each, as `Dataset.map(batched=True)` passes them.
        max_length: in subword tokens, special tokens included.

    Returns:
        `input_ids`, `attention_mask` (and `token_type_ids` if the tokenizer makes them), `labels`, and `labelled_words`,
        the indices of the words that have a label: n lists of integers each.
    """
    encoding = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
    word_ids = [encoding.word_ids(i) for i in range(len(batch["tokens"]))]
    encoding["labels"] = [align(*row) for row in zip(batch["ner_tags"], word_ids)]
    encoding["labelled_words"] = [sorted(set(words) - {None}) for words in word_ids]
    return encoding


def read_tags(ids: list[list[int]], labels: list[list[int]], label_names: list[str]) -> list[list[str]]:
    """The inverse of `align`: the tag of every word that has a label, for n sentences.

    Args:
        ids: the id of a tag for each subword token, e.g. predictions, or the labels themselves.
        labels: of the same shape, -100 on subword tokens without a label.
    """
    return [[label_names[i] for i, label in zip(*row, strict=True) if label != -100] for row in zip(ids, labels, strict=True)]


def spans(tags: list[str]) -> list[tuple[str, int, int]]:
    """The entities in the IOB2 tags of a sentence: (type, first word, word after the last), in order.

    This is as strict as the score: an I- that continues nothing of its type belongs to no entity.
    """
    (entities,) = Entities([tags], scheme=IOB2).entities
    return [(entity.tag, entity.start, entity.end) for entity in entities]


def show_entities(rows: list[dict], types: list[str]) -> HTML:
    """A table of sentences with their entities highlighted, in one column for each set of tags.

    Args:
        rows: dicts with the words in `tokens`, and under every other key a list of IOB2 tags, or a value to show as it is.
        types: all entity types; their order determines the colours.
    """
    table = []
    for row in rows:
        cells = {}
        for key, tags in row.items():
            if not isinstance(tags, list):
                cells[key] = escape(str(tags))
            elif key != "tokens":
                words = [escape(token) for token in row["tokens"]]
                for kind, start, end in spans(tags):
                    colour = COLOURS[types.index(kind) % len(COLOURS)]
                    words[start] = f'<mark style="background: {colour}; color: black">{words[start]}'
                    words[end - 1] += f" <small><b>{escape(kind)}</b></small></mark>"
                cells[key] = " ".join(words)
        table.append(cells)
    html = pd.DataFrame(table).to_html(index=False, border=0, escape=False)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


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
