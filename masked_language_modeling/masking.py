"""From texts to blocks of tokens, some of which are hidden."""

import re
from itertools import chain

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

# scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


def tokenize(batch: dict, tokenizer: PreTrainedTokenizerBase) -> dict:
    """Token ids of a batch of texts, and the word that each token belongs to. Nothing is truncated.

    Args:
        batch: a column `text` with n strings, as `Dataset.map(batched=True)` passes it.

    Returns:
        `input_ids` and `word_ids`, n lists of integers each. Words are numbered from 0 within their text; special tokens and
        tokens that are unknown to the vocabulary belong to no word and have -1.
    """
    encoding = tokenizer(batch["text"], return_offsets_mapping=True, verbose=False)  # no warning about long texts
    special_ids = set(tokenizer.all_special_ids)
    all_word_ids = []
    for i, (text, input_ids) in enumerate(zip(batch["text"], encoding["input_ids"])):
        numbers = number_words(text, encoding.word_ids(i), encoding["offset_mapping"][i])
        all_word_ids.append([-1 if token in special_ids else number for token, number in zip(input_ids, numbers)])
    return {"input_ids": encoding["input_ids"], "word_ids": all_word_ids}


def number_words(text: str, stretches: list[int | None], offsets: list[tuple[int, int]]) -> list[int]:
    """The number of the word that each token of a text belongs to, or -1 for a token that the tokenizer has added.

    A word is what the tokenizer splits a text into before it looks up subword tokens. In scripts without spaces, that is a
    whole clause, and there each character is a word; a token of several characters is one word with them.

    Args:
        stretches: of each token, the number of what the tokenizer has split off, or None.
        offsets: of each token, where it begins and ends in the text. Tokens that are parts of one character have the same.
    """
    numbers, number, last, end = [], -1, None, 0
    for stretch, (start, stop) in zip(stretches, offsets):
        start += len(text[start:stop]) - len(text[start:stop].lstrip())  # some tokenizers count the space before a word
        is_next_to_unspaced = re.search(f"[{UNSPACED}]", text[max(start - 1, 0) : start + 1])
        if stretch is not None and (stretch != last or start >= end and is_next_to_unspaced):
            number += 1
        last, end = stretch, max(end, stop, start + 1)  # a space that is a token of its own belongs to the character after it
        numbers.append(-1 if stretch is None else number)
    return numbers


def make_blocks(tokenized: Dataset, block_size: int, name: str = "these texts") -> tuple[Dataset, int]:
    """Concatenate all texts of a split, and cut the result into blocks of equal length.

    Args:
        tokenized: with the columns `input_ids` and `word_ids`, as `tokenize` makes them.
        block_size: in tokens, special tokens included.
        name: of the split, for errors.

    Returns:
        The blocks, with `input_ids`, `word_ids` and their number `row`; and how many tokens were left over at the end. Blocks of
        special and unknown tokens alone are left out, since there is nothing to predict.

    Raises:
        ValueError: there are too few tokens for a single block, or no block with anything to predict.
    """
    num_tokens = sum(len(input_ids) for input_ids in tokenized["input_ids"])
    num_blocks = num_tokens // block_size
    if num_blocks == 0:
        raise ValueError(f"{name} has {num_tokens} tokens, too few for a block of {block_size}: "
                         f"use a block_size of at most {num_tokens}, or more text")
    blocks = {"row": list(range(num_blocks))}
    for column_name in ("input_ids", "word_ids"):
        column = np.fromiter(chain.from_iterable(tokenized[column_name]), dtype=np.int64)
        blocks[column_name] = column[: num_blocks * block_size].reshape(num_blocks, block_size).tolist()
    has_words = [i for i, word_ids in enumerate(blocks["word_ids"]) if max(word_ids) != -1]
    if not has_words:
        raise ValueError(f"{name} has nothing to predict, only special tokens and tokens that are unknown to the vocabulary: "
                         "choose a checkpoint that was made for the language of the texts")
    if len(has_words) < num_blocks:
        print(f"{name}: {num_blocks - len(has_words)} blocks of special and unknown tokens alone are left out")
    return Dataset.from_dict(blocks).select(has_words), num_tokens - num_blocks * block_size


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
        probability: the share of tokens to choose, special and unknown ones aside; it is rounded to a whole number, at least 1.
        whole_words: choose all tokens of a word or none. Words that would exceed the share are skipped; if all would, the
            shortest is chosen.

    Returns:
        The ids that the model sees, and the labels: the original id where a token was chosen, -100 elsewhere.

    Raises:
        ValueError: the probability is not between 0 and 1, or the block has only special and unknown tokens.
    """
    ids, words = np.array(input_ids), np.array(word_ids)
    candidates = np.flatnonzero(words != -1)
    if not 0 < probability < 1:
        raise ValueError(f"mask_probability is {probability}: it must be above 0 and below 1")
    if len(candidates) == 0:
        raise ValueError("a block has nothing to predict, only special tokens and tokens that are unknown to the vocabulary")
    num_chosen = max(1, round(probability * len(candidates)))
    is_start = np.full(len(ids), True)  # of a group of tokens that are chosen together: here, each on its own
    if whole_words:
        is_start[1:] = words[1:] != words[:-1]  # a token with the number of the token before it continues its word
    groups = np.split(candidates, np.flatnonzero(is_start[candidates])[1:])

    chosen = []
    order = rng.permutation(len(groups))
    for i in order:
        if len(chosen) + len(groups[i]) <= num_chosen:
            chosen.extend(groups[i])
    if not chosen:
        chosen.extend(min((groups[i] for i in order), key=len))
    chosen = np.array(chosen)

    labels = np.full(len(ids), -100)
    labels[chosen] = ids[chosen]
    draws = rng.random(len(chosen))
    ids[chosen[draws < 0.8]] = mask_token_id
    replaced = chosen[(draws >= 0.8) & (draws < 0.9)]
    ids[replaced] = rng.choice(ordinary_ids, len(replaced))
    return ids.tolist(), labels.tolist()
