"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import runpy
from html import escape
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, Value, load_dataset
from IPython.display import HTML
from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "validation", "test")


def load_splits(dataset_id: str, columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a local folder, of a dataset on the Hub, or of "stdlib".

    Args:
        dataset_id: "stdlib" is the documentation of the running Python's standard library, see data/docstrings.py.
        columns: {name here: name in the data}, e.g. {"text": "body"}; empty if the columns are `text` and `label`.

    Returns:
        Each split with a column `text` (string) and, if every split has one, a column `label`. If `validation` or
        `test` is missing, 5% of `train` are split off for it.

    Raises:
        ValueError: `train` is missing, or a row has no text.
    """
    if dataset_id == "stdlib":
        rows = runpy.run_path(str(Path(__file__).parent / "data" / "docstrings.py"))["load"]()
        return DatasetDict({split: Dataset.from_list(rows[split]) for split in rows})
    dataset = load_dataset(dataset_id)
    if "train" not in dataset:
        raise ValueError(f"{dataset_id} has no split 'train', only {list(dataset)}: rename one of them")
    dataset = DatasetDict({split: dataset[split] for split in SPLITS if split in dataset})
    own, own_label = {columns.get("text", "text"): "text"}, columns.get("label", "label")
    if "label" in columns or all(own_label in rows.column_names for rows in dataset.values()):
        own[own_label] = "label"
    dataset = dataset.select_columns(list(own)).rename_columns(own)
    for split, rows in dataset.items():
        for i, text in enumerate(rows["text"]):
            if not str(text or "").strip():
                raise ValueError(f"row {i} of split '{split}' has the text {text!r}: remove it")
    for split in SPLITS[1:]:
        if split not in dataset:
            parts = dataset["train"].train_test_split(test_size=0.05, seed=0)
            dataset["train"], dataset[split] = parts["train"], parts["test"]
    return DatasetDict({split: dataset[split] for split in SPLITS}).cast_column("text", Value("string"))


def tokenize(batch: dict, tokenizer: PreTrainedTokenizerBase) -> dict:
    """Token ids of a batch of texts, and the word that each token belongs to. Nothing is truncated.

    Args:
        batch: a column `text` with n strings, as `Dataset.map(batched=True)` passes it.

    Returns:
        `input_ids` and `word_ids`, n lists of integers each. Words are numbered from 0 within their text, as the tokenizer
        splits it before it looks up subword tokens; special tokens belong to no word and have -1.
    """
    encoding = tokenizer(batch["text"], verbose=False)  # no warning about long texts, since blocks will be short
    special_ids = set(tokenizer.all_special_ids)
    all_word_ids = []
    for i, input_ids in enumerate(encoding["input_ids"]):
        word_ids = encoding.word_ids(i)
        all_word_ids.append([-1 if token in special_ids else word for token, word in zip(input_ids, word_ids)])
    return {"input_ids": encoding["input_ids"], "word_ids": all_word_ids}


def make_blocks(tokenized: Dataset, block_size: int) -> tuple[Dataset, int]:
    """Concatenate all texts of a split, and cut the result into blocks of equal length.

    Args:
        tokenized: with the columns `input_ids` and `word_ids`, as `tokenize` makes them.
        block_size: in tokens, special tokens included.

    Returns:
        The blocks, with `input_ids`, `word_ids` and their number `row`; and how many tokens were left over at the end.

    Raises:
        ValueError: there are too few tokens for a single block.
    """
    num_tokens = sum(len(input_ids) for input_ids in tokenized["input_ids"])
    num_blocks = num_tokens // block_size
    if num_blocks == 0:
        raise ValueError(f"{num_tokens} tokens are too few for a block of {block_size}: use a smaller block_size or more text")
    blocks = {"row": list(range(num_blocks))}
    for name in ("input_ids", "word_ids"):
        column = np.fromiter(chain.from_iterable(tokenized[name]), dtype=np.int64)
        blocks[name] = column[: num_blocks * block_size].reshape(num_blocks, block_size).tolist()
    return Dataset.from_dict(blocks), num_tokens - num_blocks * block_size


def mask_tokens(
    input_ids: list[int], word_ids: list[int], rng: np.random.Generator, mask_token_id: int, ordinary_ids: np.ndarray,
    probability: float, whole_words: bool = False,
) -> tuple[list[int], list[int]]:
    """Choose tokens of a block and hide them, as in BERT: 80% become the mask token, 10% a random one, 10% stay.

    Args:
        input_ids, word_ids: of one block, as `make_blocks` makes them.
        rng: the only source of randomness. Give it a seed made of the run's seed, the epoch and the block's number, and
            the masks depend on nothing else: not on the batch size, a resume, or the number of processes.
        ordinary_ids: the ids that random tokens are drawn from.
        probability: the share of tokens to choose, special tokens aside; it is rounded to a whole number, at least 1.
        whole_words: choose all tokens of a word or none. Words that would exceed the share are skipped.

    Returns:
        The ids that the model sees, and the labels: the original id where a token was chosen, -100 elsewhere.

    Raises:
        ValueError: the probability is not between 0 and 1, or the block has only special tokens.
    """
    ids, words = np.array(input_ids), np.array(word_ids)
    candidates = np.flatnonzero(words != -1)
    if not 0 < probability < 1:
        raise ValueError(f"mask_probability is {probability}: it must be above 0 and below 1")
    if len(candidates) == 0:
        raise ValueError("a block consists of special tokens: use a larger block_size, or remove empty texts")
    num_chosen = max(1, round(probability * len(candidates)))
    is_start = np.full(len(ids), True)  # of a group of tokens that are chosen together: here, each on its own
    if whole_words:
        is_start[1:] = words[1:] != words[:-1]  # a token with the number of the token before it continues its word
    groups = np.split(candidates, np.flatnonzero(is_start[candidates])[1:])

    chosen = []
    for i in rng.permutation(len(groups)):
        if not chosen or len(chosen) + len(groups[i]) <= num_chosen:
            chosen.extend(groups[i])
    chosen = np.array(chosen)

    labels = np.full(len(ids), -100)
    labels[chosen] = ids[chosen]
    draws = rng.random(len(chosen))
    ids[chosen[draws < 0.8]] = mask_token_id
    replaced = chosen[(draws >= 0.8) & (draws < 0.9)]
    ids[replaced] = rng.choice(ordinary_ids, len(replaced))
    return ids.tolist(), labels.tolist()


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


def show(table: pd.DataFrame) -> HTML:
    """A table with its texts shown in full and aligned left, without the index."""
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))
