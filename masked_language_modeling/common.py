"""Preprocessing and display helpers that both notebooks of this folder import."""

import ast
import hashlib
import json
import math
import re
import sys
import sysconfig
import warnings
from html import escape
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import regex
import torch
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from IPython.display import HTML
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoTokenizer

SPLITS = ("train", "validation", "test")
COLUMNS = ("text", "label")
TASK = "fill-mask"  # as the Hub and `pipeline` call it
ABOUT = "Proposes words for a hidden place in a text (masked language modeling), and is a start for classifiers and taggers of the field."
USE = """from transformers import pipeline

fill = pipeline("fill-mask", model="NAME")
print(fill(f"Open the file and return its {fill.tokenizer.mask_token}."))"""  # NAME is where the model is
# not for programs to import: tests, demonstrations, an editor, what left the library long ago
LEFT_OUT = {
    "__pycache__", "antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "this",
    "turtledemo",
}
# a number with separators, a word with its apostrophes, or a single mark
WORD = regex.compile(r"\d+(?:[.,]\d+)+|[\w\p{M}]+(?:['’][\w\p{M}]+)*|[^\w\s\p{M}]\p{M}*")  # \p{M}: accents and vowel signs
COLOURS = {"mask": "#fdbf6f", "random": "#fb9a99", "kept": "#b2df8a"}


# ---------------------------------------------------------------------------------------------------- texts


def load_splits(dataset_id: str, columns: dict[str, str]) -> DatasetDict:
    """The texts to adapt to: the documentation of the running Python's standard library, or any data set with a text column.

    Args:
        dataset_id: "stdlib", or a local folder or a dataset of the Hub with a split `train` and a column `text`.
        columns: {name here: name in the data}, e.g. {"text": "body"}; empty if they are `text` and, for the probe, `label`.

    Returns:
        The splits `train`, `validation` and `test` with the column `text` (str) and, if there is one, `label`; other splits and
        columns are left out. If `validation` or `test` is missing, a twentieth of `train` is taken for it. For the standard library
        the label is the name of the module, and no module is in two splits.

    Raises:
        ValueError: the files can't be read, `train` or the column is missing, a split is empty, or a text is.
    """
    if dataset_id == "stdlib":
        rows = docstrings()
        return DatasetDict({split: Dataset.from_list([row for row in rows if split_of(row["label"]) == split]) for split in SPLITS})
    loaded = rename(load(dataset_id), columns, dataset_id)
    if "train" not in loaded:
        raise ValueError(f"{dataset_id} has no split 'train', only {list(loaded)}: name one of its splits so")
    for split in ("validation", "test"):
        if split not in loaded:
            check_columns(loaded["train"], "train")
            if len(loaded["train"]) < 20:
                raise ValueError(f"split 'train' has {len(loaded['train'])} rows, too few to take some for '{split}': add that split")
            parts = loaded["train"].train_test_split(test_size=0.05, seed=0)
            loaded["train"], loaded[split] = parts["train"], parts["test"]
    for split in SPLITS:
        check_columns(loaded[split], split)
    kept = ["text", "label"] if all("label" in loaded[split].column_names for split in SPLITS) else ["text"]
    return DatasetDict({split: loaded[split].select_columns(kept) for split in SPLITS})


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
    """Raise ValueError if `dataset` has no rows, no column `text`, or a text that is empty; `split` names it in the message."""
    if "text" not in dataset.column_names:
        raise ValueError(
            f"split '{split}' has no column 'text', only {dataset.column_names}: name the one you mean, "
            "e.g. columns = {'text': 'its name in the data'}"
        )
    if len(dataset) == 0:
        raise ValueError(f"split '{split}' is empty: check its data files")
    for i, text in enumerate(dataset["text"]):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"row {i} of split '{split}' has the text {text!r}: drop it, or cast the column to string")


def docstrings() -> list[dict]:
    """Every docstring in the sources of the running Python's standard library, and the help topics of `pydoc`.

    Sources are parsed and not imported: nothing runs, and the modules of other platforms are read too. A text that is there
    several times counts once.

    Returns:
        One dict a text with `text` and `label`, the top-level module: "json" for what is in json/decoder.py, "decimal" for
        _pydecimal.py, "topics" for the help topics.
    """
    library, found = Path(sysconfig.get_path("stdlib")), {}
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).with_suffix("").parts
        if parts[0] not in sys.stdlib_module_names or LEFT_OUT & set(parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old sources with odd escapes
            tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                if doc := (ast.get_docstring(node) or "").strip():
                    found.setdefault(doc, re.sub("^_(py_?)?", "", parts[0]).strip("_").removesuffix("_abc"))
    for doc in topics.values():
        found.setdefault(doc.strip(), "topics")
    return [{"text": doc, "label": module} for doc, module in found.items()]


def split_of(module: str) -> str:
    """The split of a module: about a tenth are in `validation` and a tenth in `test`, by a hash of the name.

    A module keeps its split when others come or go with the next version of Python. The help topics repeat one another and are
    all in `train`.
    """
    tenth = hashlib.sha256(module.encode()).digest()[0] % 10
    return "train" if module == "topics" or tenth > 1 else ("test", "validation")[tenth]


# ---------------------------------------------------------------------------------------------------- tokens and blocks


def load_tokenizer(checkpoint: str):
    """The tokenizer of a checkpoint. Raises ValueError if it has no mask or pad token, or can't tell where its tokens lie in a text."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer.mask_token is None:
        raise ValueError(
            f"the tokenizer of {checkpoint} has no mask token, so nothing can be hidden from its model: choose an encoder that was "
            "trained with one, e.g. distilbert/distilbert-base-uncased; for a decoder, see causal language modeling"
        )
    if tokenizer.pad_token is None:
        raise ValueError(
            f"the tokenizer of {checkpoint} has no pad token: set one, e.g. tokenizer.pad_token = tokenizer.eos_token "
            "and model.config.pad_token_id = tokenizer.pad_token_id"
        )
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {checkpoint} has no offsets: choose a checkpoint with a fast tokenizer (a file tokenizer.json)")
    return tokenizer


def check_block_size(block_size: int, model, tokenizer) -> None:
    """Raise ValueError if blocks of this many tokens are longer than what the model has positions for, or have room for one token."""
    if block_size < 4:
        raise ValueError(f"block_size is {block_size}, which leaves no text to guess from: use 4 or more")
    limit = tokenizer.model_max_length
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):  # RoBERTa counts from padding_idx + 1
            limit = min(limit, module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    if block_size > limit:
        raise ValueError(f"block_size is {block_size}, and the model has {limit} positions: use {limit} or less")


def tokenize(batch: dict, tokenizer) -> dict:
    """Token ids of texts, special tokens included, and where words begin, for `Dataset.map(batched=True)`.

    Args:
        batch: with a column `text`.

    Returns:
        `input_ids` and `word_start`, lists of the same length for each text: 1 on the first token of a word, 0 on the others of it,
        -1 on special tokens. What a word is does not depend on the tokenizer: letters with their apostrophes, a number with its
        separators, or a single mark.
    """
    encoding = tokenizer(batch["text"], truncation=False, return_offsets_mapping=True, verbose=False)
    special = set(tokenizer.all_special_ids)
    starts = [
        word_starts(text, ids, offsets, special)
        for text, ids, offsets in zip(batch["text"], encoding["input_ids"], encoding["offset_mapping"])
    ]
    return {"input_ids": encoding["input_ids"], "word_start": starts}


def word_starts(text: str, ids: list[int], offsets: list[tuple[int, int]], special: set[int]) -> list[int]:
    """1, 0 or -1 for each token of a text, as in `tokenize`. A token is of the word in which its first visible character lies."""
    words = np.array([match.start() for match in WORD.finditer(text)] or [0])
    flags, before = [], None
    for token, (position, _) in zip(ids, offsets):
        if token in special:
            flags.append(-1)
            before = None
            continue
        while position < len(text) and text[position].isspace():  # some tokenizers count the space to the word behind it
            position += 1
        word = np.searchsorted(words, position, side="right")
        flags.append(int(word != before))
        before = word
    return flags


def make_blocks(encoded: Dataset, block_size: int) -> tuple[Dataset, int]:
    """Put all texts of a split end to end and cut them into blocks of the same length.

    Args:
        encoded: columns `input_ids` and `word_start`, as from `tokenize`.
        block_size: in tokens, special tokens included.

    Returns:
        The blocks, with `input_ids`, `word_start` and their number `row`; and how many tokens at the end filled none and are left out.

    Raises:
        ValueError: the texts don't fill one block.
    """
    columns = {name: np.fromiter(chain.from_iterable(encoded[name]), dtype=np.int64) for name in ("input_ids", "word_start")}
    total = len(columns["input_ids"])
    n = total // block_size
    if n == 0:
        raise ValueError(f"all texts together have {total} tokens, and a block has {block_size}: use a smaller block_size, or more text")
    blocks = {name: column[: n * block_size].reshape(n, block_size).tolist() for name, column in columns.items()}
    return Dataset.from_dict({**blocks, "row": range(n)}), total - n * block_size


# ---------------------------------------------------------------------------------------------------- masking


def ordinary_ids(tokenizer) -> np.ndarray:
    """The ids of all tokens that are not special, from which random replacements are drawn."""
    return np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)


def mask_tokens(input_ids: list[int], word_start: list[int], rng: np.random.Generator, mask_id: int, ordinary: np.ndarray,
                probability: float, whole_words: bool = False) -> tuple[list[int], list[int]]:
    """Hide tokens of a block from the model (Devlin et al., 2019): of the chosen ones, 80 % become the mask token and 10 % a
    random one, and 10 % stay.

    Args:
        input_ids, word_start: as from `make_blocks`, `block_size` numbers each.
        rng: where all chance comes from; the same state gives the same masks.
        mask_id: the id of the mask token.
        ordinary: ids to draw random tokens from.
        probability: the share of the tokens to choose, special ones not counted. It is rounded to a number of tokens, at least
            one, so that every block has something to predict.
        whole_words: choose words rather than tokens. After the first, words that would exceed the share are passed over, so that
            in short blocks long words are chosen less often than short ones.

    Returns:
        What the model sees, and the labels: the hidden token where one was chosen, -100 elsewhere.

    Raises:
        ValueError: the probability is not above 0 and below 1, or the block has only special tokens.
    """
    if not 0 < probability < 1:
        raise ValueError(f"mask_probability is {probability}: it must be above 0 and below 1, or there is nothing to guess or to go by")
    ids, starts = np.array(input_ids), np.array(word_start)
    positions = np.flatnonzero(starts >= 0)
    if len(positions) == 0:
        raise ValueError("a block has only special tokens and nothing to predict: drop empty texts, or use a larger block_size")
    begins = (starts == 1) | (np.concatenate([[-1], starts[:-1]]) == -1) if whole_words else np.ones(len(ids), dtype=bool)
    units = np.split(positions, np.flatnonzero(begins[positions])[1:])
    wanted, chosen = max(1, round(probability * len(positions))), []
    for unit in rng.permutation(len(units)):
        if not chosen or len(chosen) + len(units[unit]) <= wanted:
            chosen.extend(units[unit])
        if len(chosen) >= wanted:
            break
    chosen = np.array(chosen)
    labels = np.full(len(ids), -100)
    labels[chosen] = ids[chosen]
    lot = rng.random(len(chosen))
    ids[chosen[lot < 0.8]] = mask_id
    replaced = chosen[(lot >= 0.8) & (lot < 0.9)]
    ids[replaced] = rng.choice(ordinary, len(replaced))
    return ids.tolist(), labels.tolist()


def perplexity(losses: torch.Tensor) -> float:
    """exp of the mean of losses in nats, one for each predicted token: the same for every way to cut them into batches."""
    if losses.numel() == 0:
        raise ValueError("no token is masked, so there is no perplexity: raise mask_probability")
    return math.exp(losses.double().mean().item())


# ---------------------------------------------------------------------------------------------------- what a model has learned


def top_words(model, tokenizer, sentences: list[str], n: int = 5) -> list[str]:
    """The `n` most probable tokens for the blank, written ___, of each sentence, best first, in a line.

    Raises ValueError if a sentence has no blank.
    """
    for sentence in sentences:
        if "___" not in sentence:
            raise ValueError(f"{sentence!r} has no blank: write ___ where a word is wanted")
    filled = [sentence.replace("___", tokenizer.mask_token, 1) for sentence in sentences]
    encoding = tokenizer(filled, padding=True, return_tensors="pt").to(model.device)
    with torch.no_grad():
        logits = model.eval()(input_ids=encoding["input_ids"], attention_mask=encoding["attention_mask"]).logits
    best = logits[encoding["input_ids"] == tokenizer.mask_token_id].topk(n).indices
    return [", ".join(tokenizer.decode([i]).strip() for i in row) for row in best.tolist()]


def pooled(model, tokenizer, texts: list[str], max_length: int = 128) -> np.ndarray:
    """Features of texts: the mean of the encoder's last vectors over the tokens of a text, (texts, width), float32.

    Args:
        max_length: in tokens; what is longer is cut, to this or to what the tokenizer says its model reads.
    """
    features, max_length = [], min(max_length, tokenizer.model_max_length)
    for i in range(0, len(texts), 32):
        batch = tokenizer(texts[i : i + 32], padding=True, truncation=True, max_length=max_length, return_tensors="pt").to(model.device)
        with torch.no_grad():
            hidden = model.base_model.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        weights = batch["attention_mask"].unsqueeze(-1)
        features.append(((hidden * weights).sum(dim=1) / weights.sum(dim=1)).float().cpu().numpy())
    return np.concatenate(features)


def probe_rows(splits: DatasetDict, classes: int = 10, most: int = 100) -> pd.DataFrame:
    """Rows of `validation` and `test` for a probe: the first `most` of each of the labels with most rows, `text` and `label`."""
    rows = pd.concat([splits[split].to_pandas() for split in ("validation", "test")], ignore_index=True)
    largest = rows["label"].value_counts(sort=False).sort_values(ascending=False, kind="stable").index[:classes]
    return rows[rows["label"].isin(largest)].groupby("label").head(most).reset_index(drop=True)


def probe(features: np.ndarray, labels: list) -> np.ndarray:
    """Accuracies (0 to 1) of a logistic regression on frozen features, on the held-out fifth of each of five folds.

    Args:
        features: (rows, width).
        labels: a class for each row.
    """
    return cross_val_score(make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)), features, labels, cv=5)


# ---------------------------------------------------------------------------------------------------- runs and display


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


def show_masks(input_ids: list[int], labels: list[int], tokenizer, mask_id: int) -> HTML:
    """A block as text, with what was done to it in colour: the hidden token stands above what the model sees instead."""
    parts = []
    for seen, label in zip(input_ids, labels):
        text = escape(tokenizer.convert_ids_to_tokens(seen))
        if label != -100:
            kind = "mask" if seen == mask_id else "kept" if seen == label else "random"
            hidden = escape(tokenizer.convert_ids_to_tokens(label))
            text = (
                f'<ruby style="background:{COLOURS[kind]}; color:black; padding:0 3px">{text}'
                f"<rt>{hidden} ({kind})</rt></ruby>"
            )
        parts.append(text)
    return HTML(f'<div style="line-height:2.6; max-width:60em">{" ".join(parts)}</div>')


def plot_perplexity(losses: list[float], history: list[dict], levels: dict[str, float]) -> None:
    """Training loss per optimizer step beside the validation perplexity per epoch.

    Args:
        losses: mean nats per masked token, one for each optimizer step.
        history: one dict per epoch with `epoch` and `perplexity`.
        levels: name -> perplexity of what there was before, drawn as dashed lines.
    """
    table = pd.DataFrame(history).set_index("epoch")
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, linewidth=1)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats per masked token")
    table["perplexity"].plot(ax=right, marker="o", label="trained", title="Validation perplexity", xticks=table.index, logy=True)
    for (name, value), style in zip(levels.items(), ("--", ":", "-.")):
        right.axhline(value, color="gray", linestyle=style, label=name)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    plt.show()
