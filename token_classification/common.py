"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import re
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from IPython.display import HTML
from seqeval.scheme import IOB2, Entities
from sklearn.metrics import ConfusionMatrixDisplay
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

SPLITS = ("train", "validation", "test")
COLUMNS = ("tokens", "ner_tags")
TASK = "token-classification"  # as the Hub and `pipeline` call it
ABOUT = "Finds names in a text and tells of which type they are (token classification, IOB2). Words were labelled on their first piece."
USE = """from transformers import pipeline

find_names = pipeline("token-classification", model="NAME", aggregation_strategy="first")
print(find_names("Leila Haddad left Oslo last spring."))"""  # NAME is where the model is
COLOURS = ("#a6cee3", "#fdbf6f", "#b2df8a", "#cab2d6", "#fb9a99", "#ffff99", "#d9d9d9")


def load_splits(dataset_id: str, columns: dict[str, str]) -> DatasetDict:
    """Load a local folder or a dataset of the Hub and check that a tagger can be trained on it.

    Args:
        columns: {name here: name in the data}, e.g. {"tokens": "words"}; empty if the columns are `tokens` and `ner_tags`.

    Returns:
        The splits `train`, `validation` and `test`, each with a column `tokens` (a list of words) and a column `ner_tags`
        (as many ClassLabels, named O, B-TYPE and I-TYPE); other splits and columns are left out. Tags that are plain
        words become ClassLabels.

    Raises:
        ValueError: the files can't be read, a split or column is missing or empty, a row has no words, not as many tags
            as words, a tag without a name, or tags that are not IOB2.
    """
    loaded = rename(load(dataset_id), columns, dataset_id)
    for split in SPLITS:
        if split not in loaded:
            raise ValueError(f"{dataset_id} has no split '{split}', only {list(loaded)}: add it, e.g. with train_test_split")
        loaded[split] = check_columns(loaded[split], split)
    splits = encode_tags(DatasetDict({split: loaded[split].select_columns(["tokens", "ner_tags"]) for split in SPLITS}))
    names = splits["train"].features["ner_tags"].feature.names
    for split in SPLITS:
        for i, row in enumerate(splits[split]):
            where = f"row {i} of split '{split}'"
            if nameless := [tag for tag in row["ner_tags"] if tag is None or not 0 <= tag < len(names)]:
                raise ValueError(f"{where} has the tags {nameless}, which have no name: mend them, or name them in the dataset's card")
            check_row(row["tokens"], [names[tag] for tag in row["ner_tags"]], where)
    return splits


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


def read_lists(rows: Dataset, column: str, split: str) -> Dataset:
    """`rows` with the texts of a column read as lists in JSON, as CSV files must hold them; a column of lists stays as it is.

    Raises:
        ValueError: a text is not a list in JSON.
    """
    if getattr(rows.features[column], "dtype", None) not in ("string", "large_string"):
        return rows
    lists = []
    for i, text in enumerate(rows[column]):
        try:
            lists.append(json.loads(text or ""))
        except json.JSONDecodeError:
            lists.append(None)
        if not isinstance(lists[-1], list):
            raise ValueError(
                f"row {i} of split '{split}' has the {column} {text!r}, which is no list: every row needs one, in a CSV file "
                'written as in JSON, ["like", "this"]'
            )
    return rows.remove_columns(column).add_column(column, lists)


def check_columns(dataset: Dataset, split: str) -> Dataset:
    """`dataset` with lists in `tokens` and `ner_tags`; ValueError if it has none, or no rows. `split` names it in the message."""
    for column in COLUMNS:
        if column not in dataset.column_names:
            raise ValueError(
                f"split '{split}' has no column '{column}', only {dataset.column_names}: name the one you mean, "
                f"e.g. columns = {{'{column}': 'its name in the data'}}"
            )
    if len(dataset) == 0:
        raise ValueError(f"split '{split}' is empty: check its data files")
    for column in COLUMNS:
        dataset = read_lists(dataset, column, split)
        if not hasattr(dataset.features[column], "feature"):
            raise ValueError(f"column '{column}' of split '{split}' holds no lists but {dataset.features[column]}: it needs one per row")
    return dataset


def encode_tags(splits: DatasetDict) -> DatasetDict:
    """Turn tags that are words into ClassLabels: O, then B- and I- of every type in `train`, in alphabetical order.

    Raises:
        ValueError: the tags are numbers without names, a name is none of O, B-TYPE and I-TYPE, or another split has tags of a
            type that `train` has not, so that it could never be predicted.
    """
    feature = splits["train"].features["ner_tags"].feature
    if isinstance(feature, ClassLabel):
        names = feature.names
    elif feature.dtype == "string":
        found = {split: {tag for tags in splits[split]["ner_tags"] for tag in tags} for split in splits}
        names = ["O"] + [f"{prefix}-{kind}" for kind in sorted({tag[2:] for tag in found["train"] - {"O"}}) for prefix in "BI"]
        for split in splits:
            if unknown := sorted(map(str, found[split] - set(names))):
                raise ValueError(f"split '{split}' has tags that are not O, B- or I- of a type in 'train': {unknown}: mend them")
        features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
        splits = splits.map(lambda row: {"ner_tags": [names.index(tag) for tag in row["ner_tags"]]}, features=features)
    else:
        raise ValueError(f"'ner_tags' holds {feature.dtype} without names: write the tags as words, or name them in the dataset's card")
    if wrong := [name for name in names if name != "O" and not (name[:2] in ("B-", "I-") and f"B-{name[2:]}" in names)]:
        raise ValueError(f"the tags {wrong} are not IOB2: an entity has B-TYPE on its first word and I-TYPE on the others")
    if "O" not in names:
        raise ValueError(f"none of the tags {names} is O, for words outside of entities: name it so")
    return splits


def check_row(tokens: list[str], tags: list[str], where: str) -> None:
    """Raise ValueError if a row has no words, a word without text, another number of tags, or an I- that begins an entity."""
    if not tokens:
        raise ValueError(f"{where} is an empty sentence: drop it")
    if len(tokens) != len(tags):
        raise ValueError(f"{where} has {len(tokens)} tokens and {len(tags)} tags: give every token one tag, O outside of entities")
    for i, (token, before, tag) in enumerate(zip(tokens, ["O", *tags], tags)):
        if not isinstance(token, str) or not token.strip():
            raise ValueError(f"{where} has the token {token!r} at position {i}: drop it with its tag")
        if tag.startswith("I-") and before[2:] != tag[2:]:
            raise ValueError(
                f"{where} has {tag} at position {i} ({token!r}) after {before}: an entity begins with B-{tag[2:]} in IOB2; "
                "convert the tags if they are IOB1 or IO"
            )


def load_tokenizer(checkpoint: str):
    """The tokenizer of a checkpoint, set up for text that is already cut into words.

    A byte-level BPE tokenizer has one piece for a word after a space and another for the same word at the start of the text.
    Words given one by one would all be taken for starts, so each gets a space in front.

    Raises:
        ValueError: the tokenizer has no `word_ids` and can't tell which word a piece belongs to, or it has no pad token.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, add_prefix_space=True)
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {checkpoint} has no word_ids, so labels of words can't be aligned with its pieces: choose a "
            "checkpoint with a fast tokenizer (a file tokenizer.json)"
        )
    if tokenizer.pad_token is None:
        raise ValueError(
            f"the tokenizer of {checkpoint} has no pad token: set one, e.g. tokenizer.pad_token = tokenizer.eos_token "
            "and model.config.pad_token_id = tokenizer.pad_token_id"
        )
    backend, words = tokenizer.backend_tokenizer, tokenizer(["a", "a"], is_split_into_words=True)
    if "Ġ" in "".join(tokenizer("a a").tokens()) and "Ġ" not in "".join(words.tokens()):
        # byte-level, and of a class that takes add_prefix_space without a word and does nothing with it
        space = pre_tokenizers.Metaspace(" ", prepend_scheme="always", split=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([space, backend.pre_tokenizer])
    return tokenizer


def align(tags: list[int], word_ids: list[int | None]) -> list[int]:
    """A label for each piece of a sentence: the tag of its word on the first piece of a word, -100 on all others.

    Args:
        tags: one for each word.
        word_ids: for each piece, the index of its word, or None for special tokens, as `encoding.word_ids()` gives them.
    """
    return [tags[word] if word is not None and word != before else -100 for before, word in zip([None, *word_ids], word_ids)]


def tokenize_and_align(batch: dict, tokenizer, max_length: int) -> dict:
    """Token ids and labels of a batch of sentences, cut at `max_length` pieces and not padded: the collator pads each batch.

    Args:
        batch: columns `tokens` and `ner_tags` with n lists each, as `Dataset.map(batched=True)` passes them.
        max_length: in pieces, special tokens included.

    Returns:
        `input_ids`, `attention_mask` (and `token_type_ids` where the tokenizer makes them) and `labels`: n lists of 1 to
        `max_length` integers each.
    """
    encoding = tokenizer(batch["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
    encoding["labels"] = [align(tags, encoding.word_ids(i)) for i, tags in enumerate(batch["ner_tags"])]
    return encoding


def labelled_words(sentences, tokenizer, max_length: int) -> list[list[int]]:
    """Which words of each sentence have a label after `tokenize_and_align`, by their index.

    Not among them: words that are cut off, and words of which the tokenizer leaves nothing, such as control characters.
    """
    encoding = tokenizer(list(sentences), is_split_into_words=True, truncation=True, max_length=max_length)
    return [sorted(set(encoding.word_ids(i)) - {None}) for i in range(len(sentences))]


def read_tags(ids, labels, names: list[str]) -> list[list[str]]:
    """Tags of the labelled words of n sentences: what `ids` holds where `labels` is not -100.

    Args:
        ids: n rows of tag ids, one for each piece, e.g. predictions, or the labels themselves.
        labels: n rows of the same lengths, -100 on pieces without a label.
        names: the names of the tags, by id.
    """
    return [[names[i] for i, label in zip(*row) if label != -100] for row in zip(ids, labels)]


def whole_sentences(tags: list[list[str]], words: list[list[int]], lengths: list[int]) -> list[list[str]]:
    """A tag for every word of n sentences; words without a label, which the model never saw as such, are O.

    Args:
        tags: the tags of the labelled words, as `read_tags` gives them.
        words: the indices of these words, as `labelled_words` gives them.
        lengths: the number of words in each sentence.
    """
    whole = [["O"] * length for length in lengths]
    for row, found, indices in zip(whole, tags, words, strict=True):
        for index, tag in zip(indices, found, strict=True):
            row[index] = tag
    return whole


def spans(tags: list[str]) -> list[tuple[str, int, int]]:
    """The entities in the IOB2 tags of a sentence: (type, first word, word after the last), in the order of the text.

    As strict as the score: an I- that goes on with nothing of its type is no entity.
    """
    (entities,) = Entities([tags], scheme=IOB2).entities
    return [(entity.tag, entity.start, entity.end) for entity in entities]


def mistakes(references: list[str], predictions: list[str]) -> list[tuple[str, tuple | None, tuple | None]]:
    """How the entities predicted in a sentence differ from the true ones.

    A true entity that was not found exactly is paired with the predicted one that has most words in common with it, as long as
    that is not exact itself or taken by an earlier pair.

    Returns:
        (kind, true span or None, predicted span or None) for each: `type` (same words, other type), `boundary` (other words, same
        type), `type and boundary`, `missed` (true and paired with none) or `invented` (predicted and paired with none).
    """
    true, predicted = spans(references), spans(predictions)
    left = [span for span in predicted if span not in true]
    found = []
    for gold in true:
        if gold in predicted:
            continue
        overlaps = [min(gold[2], span[2]) - max(gold[1], span[1]) for span in left]
        if max(overlaps, default=0) <= 0:
            found.append(("missed", gold, None))
            continue
        span = left.pop(overlaps.index(max(overlaps)))
        kind = "type" if span[1:] == gold[1:] else "boundary" if span[0] == gold[0] else "type and boundary"
        found.append((kind, gold, span))
    return found + [("invented", None, span) for span in left]


def mentions(dataset) -> pd.DataFrame:
    """All entities of a split: `row`, `name` (its words) and `type`, in the order of the text."""
    names = dataset.features["ner_tags"].feature.names
    return pd.DataFrame([
        {"row": i, "name": " ".join(row["tokens"][start:end]), "type": kind}
        for i, row in enumerate(dataset) for kind, start, end in spans([names[tag] for tag in row["ner_tags"]])
    ], columns=["row", "name", "type"])


def highlight(tokens: list[str], tags: list[str], types: list[str]) -> str:
    """HTML of a sentence with its entities as coloured spans, each with its type behind it; what is HTML in the text is escaped.

    Args:
        tokens: the words.
        tags: their IOB2 tags.
        types: all types there are; their order gives the colours.
    """
    words = [escape(token) for token in tokens]
    for kind, start, end in spans(tags):
        colour = COLOURS[types.index(kind) % len(COLOURS)]
        words[start] = f'<mark style="background: {colour}; color: black">{words[start]}'
        words[end - 1] += f" <small><b>{escape(kind)}</b></small></mark>"
    return " ".join(words)


def show_entities(rows: list[dict], types: list[str]) -> HTML:
    """A table of sentences, one column for each set of tags, e.g. gold and predicted side by side.

    Args:
        rows: dicts with `tokens`, and under any other key a list of tags, or a plain value that is shown as it is.
        types: all types there are; their order gives the colours.
    """
    table = [
        {key: highlight(row["tokens"], value, types) if isinstance(value, list) else escape(str(value))
         for key, value in row.items() if key != "tokens"} for row in rows
    ]
    html = pd.DataFrame(table).to_html(index=False, border=0, escape=False)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


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


def entity_counts(splits: DatasetDict) -> pd.DataFrame:
    """Entities per type (index) and split (columns), with two rows more: sentences, and sentences without an entity."""
    found = {split: mentions(splits[split]) for split in splits}
    counts = pd.DataFrame({split: table["type"].value_counts() for split, table in found.items()})
    names = splits["train"].features["ner_tags"].feature.names
    counts = counts.reindex([name[2:] for name in names if name.startswith("B-")]).fillna(0).astype(int)
    counts.loc["sentences"] = {split: len(splits[split]) for split in splits}
    counts.loc["sentences without entity"] = {split: len(splits[split]) - table["row"].nunique() for split, table in found.items()}
    return counts


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
