"""Preprocessing and display helpers that both notebooks of this folder import."""

from html import escape
from itertools import groupby
from math import inf

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from IPython.display import HTML
from seqeval.scheme import IOB2, Entities
from sklearn.metrics import precision_recall_fscore_support
from transformers import PreTrainedTokenizerBase

import formats
import loading
from helpers import advise, compare, count_unknown, own_device, plot_curves, readable_length, show, start_run  # noqa: F401, for the notebooks

COLOURS = ("#a6cee3", "#fdbf6f", "#b2df8a", "#cab2d6", "#fb9a99", "#ffff99", "#d9d9d9")


def load_splits(dataset_id: str, dataset_config: str | None, columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a file, a folder or a dataset on the Hub, in any format of formats.py.

    Args:
        columns: {name here: name in the data}, e.g. {"tokens": "words"}; empty if the columns are `tokens` and `ner_tags`.

    Returns:
        Each split with a column `tokens` (a list of words) and a column `ner_tags` (as many ClassLabels). Tags of spans, in
        whatever scheme, come in IOB2: O, then B- and I- of each type. Other tags keep their names.

    Raises:
        ValueError: words or tags are no lists, or not as many, or a tag is missing; or a split has no words, or those of `train` all
            have the same tag.
    """
    own = {name: columns.get(name, name) for name in ("tokens", "ner_tags")}
    dataset = loading.load_splits(dataset_id, dataset_config, own, readers=formats.readers(columns))
    feature = getattr(dataset["train"].features["ner_tags"], "feature", None)
    names = feature.names if isinstance(feature, ClassLabel) else []
    splits = {split: formats.words_and_tags(rows, split) for split, rows in dataset.items()}
    used = {split: {tag for tags in rows["ner_tags"] for tag in tags} for split, rows in splits.items()}
    for split, tags in used.items():
        message = f"all words of '{split}' have the same tag, {list(tags)}"
        if not tags:
            raise ValueError(f"'{split}' has no words: add some, or leave this split out, and rows of 'train' will serve as one")
        if len(tags) == 1 and split == "train":
            raise ValueError(f"{message}: name the column that you mean, e.g. columns = {{'ner_tags': 'xpos'}}, or add words with others")
        if len(tags) == 1:
            print(f"{message}, and its scores say nothing: leave this split out, and rows of 'train' will serve as one")
    names = formats.in_iob2(splits, [*names, *sorted(set().union(*used.values()) - set(names), key=formats.by_type)])
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    dataset = DatasetDict({split: Dataset.from_dict(rows, features=features) for split, rows in splits.items()})
    loading.count_known(dataset, "tokens")
    return dataset


def is_iob2(label_names: list[str]) -> bool:
    """Whether tags are those of spans; otherwise they are plain, like parts of speech, and every word counts by itself."""
    return "O" in label_names and all(name == "O" or name[:2] in ("B-", "I-") for name in label_names)


def types_of(label_names: list[str]) -> list[str]:
    """The types of entities, in the order of the tags; of plain tags, all but O."""
    return list(dict.fromkeys(name[2:] if name[:2] in ("B-", "I-") else name for name in label_names if name != "O"))


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


def share_words(windows: list[list[int | None]]) -> list[set[int]]:
    """Which words each window of a sentence labels: every word is labelled once, where it has most context on both sides.

    Args:
        windows: for each window the `word_ids()` of its subword tokens.
    """
    best = {}  # for each word: how many tokens away the nearer end of the window is, and which window that is
    for i, word_ids in enumerate(windows):
        inside = [word for word in word_ids if word is not None]
        for position, word in enumerate(inside):
            left = position if i > 0 else inf  # the sentence itself begins here
            right = len(inside) - 1 - position if i < len(windows) - 1 else inf
            if (position == 0 or inside[position - 1] != word) and min(left, right) > best.get(word, (-1,))[0]:
                best[word] = (min(left, right), i)
    return [{word for word, (_, window) in best.items() if window == i} for i in range(len(windows))]


def tokenize_and_align(batch: dict, indices: list[int], tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict:
    """Token ids and labels of a batch of sentences, not padded. A sentence of more than `max_length` tokens becomes several windows.

    Each window shares a quarter of its length with the one before it.

    Args:
        batch: columns `tokens` and `ner_tags` with n lists each, as `Dataset.map(batched=True, with_indices=True)` passes them.
        indices: of the n sentences.
        max_length: in subword tokens, special tokens included.

    Returns:
        For each of n or more windows: `input_ids`, `attention_mask` (and `token_type_ids` if the tokenizer makes them),
        `labels`, `labelled_words`, the indices of the words that have a label, and `sentence`, the index of the sentence.
    """
    encoding = tokenizer(
        batch["tokens"], is_split_into_words=True, truncation=True, max_length=max_length, stride=max_length // 4,
        return_overflowing_tokens=True)
    sentences = encoding.pop("overflow_to_sample_mapping")
    encoding["sentence"] = [indices[i] for i in sentences]
    encoding["labels"], encoding["labelled_words"] = [], []
    for i, group in groupby(range(len(sentences)), key=sentences.__getitem__):
        tags, windows = batch["ner_tags"][i], [encoding.word_ids(window) for window in group]
        for word_ids, words in zip(windows, share_words(windows)):
            labels = align([tag if word in words else -100 for word, tag in enumerate(tags)], word_ids)
            encoding["labels"].append(labels)
            encoding["labelled_words"].append(sorted(words))
    return encoding


def read_tags(ids: list[list[int]], labels: list[list[int]], label_names: list[str]) -> list[list[str]]:
    """The inverse of `align`: the tag of every word that has a label, for n sentences.

    Args:
        ids: the id of a tag for each subword token, e.g. predictions, or the labels themselves.
        labels: of the same shape, -100 on subword tokens without a label.
    """
    return [[label_names[i] for i, label in zip(*row, strict=True) if label != -100] for row in zip(ids, labels, strict=True)]


def join_windows(tags: list[list[str]], sentence_ids: list[int]) -> list[list[str]]:
    """The tags of n windows, as `read_tags` gives them, joined into those of whole sentences."""
    sentences = {}
    for window, sentence in zip(tags, sentence_ids, strict=True):
        sentences.setdefault(sentence, []).extend(window)
    return list(sentences.values())


def score_words(predictions: list[list[str]], references: list[list[str]]) -> dict:
    """For plain tags, what seqeval gives for spans: {tag: its `precision`, `recall`, `f1` and `number`}, and overall scores.

    `overall_accuracy` is the share of the words with the right tag; the other overall scores are means over the tags (macro).
    """
    true, predicted = np.concatenate(references), np.concatenate(predictions)
    names = sorted({*true, *predicted})
    scores = precision_recall_fscore_support(true, predicted, labels=names, zero_division=0)
    by_tag = pd.DataFrame(scores, index=["precision", "recall", "f1", "number"], columns=names)
    overall = by_tag.drop(index="number").mean(axis=1).add_prefix("overall_")
    return {**by_tag.to_dict(), **overall, "overall_accuracy": np.mean(true == predicted)}


def spans(tags: list[str]) -> list[tuple[str, int, int]]:
    """The entities in the IOB2 tags of a sentence: (type, first word, word after the last), in order.

    This is as strict as the score: an I- that continues nothing of its type belongs to no entity. A word with a plain tag
    is a span by itself.
    """
    is_plain = [tag != "O" and tag[:2] not in ("B-", "I-") for tag in tags]
    (entities,) = Entities([["O" if plain else tag for tag, plain in zip(tags, is_plain)]], scheme=IOB2).entities
    found = [(entity.tag, entity.start, entity.end) for entity in entities]
    found += [(tag, i, i + 1) for i, tag in enumerate(tags) if is_plain[i]]
    return sorted(found, key=lambda span: span[1])


def show_entities(rows: list[dict], types: list[str]) -> HTML:
    """A table of sentences with their entities highlighted, in one column for each set of tags; cut after about 300 characters.

    Args:
        rows: dicts with the words in `tokens`, and under every other key a list of tags, or a value to show as it is.
        types: all entity types; their order determines the colours.
    """
    table = []
    for row in rows:
        ends = np.cumsum([len(token) + 1 for token in row["tokens"]])
        shown = max(int((ends <= 300).sum()), 1)
        cells = {}
        for key, tags in row.items():
            if not isinstance(tags, list):
                cells[key] = escape(str(tags))
            elif key != "tokens":
                words = [escape(token[:300]) for token in row["tokens"][:shown]]
                for kind, start, end in spans(tags[:shown]):
                    colour = COLOURS[types.index(kind) % len(COLOURS)]
                    words[start] = f'<mark style="background: {colour}; color: black">{words[start]}'
                    words[end - 1] += f" <small><b>{escape(kind)}</b></small></mark>"
                cells[key] = " ".join(words) + " …" * (shown < len(tags))
        table.append(cells)
    html = pd.DataFrame(table).to_html(index=False, border=0, escape=False)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))
