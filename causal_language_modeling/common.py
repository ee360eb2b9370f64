"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import re
from functools import cache
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from IPython.display import HTML
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

import conversations
import loading
import texts

# A turn is <|im_start|>, the role, a new line, the content, <|im_end|> and a new line. `generation` marks what the assistant says.
# In a content, the tokens that end a turn or a text get a space, or what somebody writes could begin a turn of somebody else.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% set content = message['content'] | replace('<|im_', '< |im_') | replace(eos_token, eos_token[0] + ' ' + eos_token[1:]) %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ content | trim + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def load_splits(dataset_id: str, dataset_config: str | None, column: str, columns: dict[str, str], max_rows: int) -> DatasetDict:
    """Load the splits `train`, `validation` and `test`, with a column `text`, or with `messages` and `keywords`.

    Args:
        dataset_id, dataset_config: as `loading.load` takes them.
        column: `text` (see texts.py) or `messages` (see conversations.py).
        columns: {name here: name in the data}, e.g. {"text": "story"}; a dataset without that name may have the usual one.
        max_rows: how many rows of each split to keep, the first ones.

    Raises:
        ValueError: a column is missing, a split has no text, or a conversation can't be read.
    """
    kind = conversations if column == "messages" else texts
    readers = {end: cache(read) for end, read in (loading.READERS | {".txt": texts.read_file}).items()}  # a file is read once
    present = next(iter(loading.load(dataset_id, dataset_config, readers).values())).column_names
    splits = loading.load_splits(
        dataset_id, dataset_config, kind.columns_of(present, columns), conversations.OPTIONAL, readers=readers)
    for split, rows in splits.items():
        splits[split] = kind.read_rows(rows.select(range(min(max_rows, len(rows)))), split)
    return splits


def decoder_tokenizer(checkpoint: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a causal checkpoint, with <|im_start|> and <|im_end|> and a pad token, which may be the end-of-text token.

    Raises:
        ValueError: the checkpoint is an encoder, which would train silently, or the tokenizer has no end-of-text token.
    """
    config = AutoConfig.from_pretrained(checkpoint)
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(f"{checkpoint} is an encoder ({config.model_type}), which sees the token it should predict: choose a decoder, "
                         "e.g. HuggingFaceTB/SmolLM2-135M, or see masked language modeling")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.eos_token = tokenizer.eos_token or tokenizer.sep_token  # decoders with the vocabulary of BERT
    if tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {checkpoint} has no end-of-text token to put between documents: set tokenizer.eos_token")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def pack(documents: list[list[int]], block_size: int) -> tuple[Dataset, int]:
    """Concatenate documents and cut them into blocks of the same length.

    Args:
        documents: token ids; each document begins with the end-of-text token.
        block_size: in tokens; less text than that makes one block of its own length.

    Returns:
        The blocks, with three columns of `block_size` integers: `input_ids`; `position_ids`, which start again from 0 at
        every document; and `labels`, which are the ids, and -100 at the first token, since nothing precedes it. And the
        number of tokens at the end that fill no block and are dropped.
    """
    token_ids = [token for document in documents for token in document]
    is_first = [i == 0 for document in documents for i in range(len(document))]
    block_size = min(block_size, len(token_ids))
    num_blocks = len(token_ids) // block_size

    blocks = {"input_ids": [], "position_ids": [], "labels": []}
    for start in range(0, num_blocks * block_size, block_size):
        ids = token_ids[start : start + block_size]
        positions = [0]
        for first in is_first[start + 1 : start + block_size]:
            positions.append(0 if first else positions[-1] + 1)
        blocks["input_ids"].append(ids)
        blocks["position_ids"].append(positions)
        blocks["labels"].append([-100, *ids[1:]])
    return Dataset.from_dict(blocks), len(token_ids) - num_blocks * block_size


def encode_chat(messages: list[dict], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Token ids of a conversation, and labels for what the assistant says.

    Args:
        messages: a dict with `role` and `content` for each turn.
        tokenizer: its chat template marks what the assistant says, as CHAT_TEMPLATE does with `generation`.

    Returns:
        `input_ids` and `labels`, of the same length. Labels are the ids where the assistant speaks, including the
        end-of-turn token, and -100 elsewhere.

    Raises:
        ValueError: the template marks no token.
    """
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    labels = [token if is_answer else -100 for token, is_answer in zip(encoded["input_ids"], encoded["assistant_masks"])]
    if not any(encoded["assistant_masks"]):
        raise ValueError(f"no token of the conversation {str(messages)[:80]} is the assistant's: check the roles and the chat template")
    return {"input_ids": list(encoded["input_ids"]), "labels": labels}


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
    """A table without the index, with its texts aligned left and cut at 600 characters."""
    table = table.map(lambda value: f"{value[:600]}…" if isinstance(value, str) and len(value) > 600 else value)
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


def show_targets(input_ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> HTML:
    """The tokens of a row, with those highlighted that the model has to predict (label other than -100)."""
    shown = [escape(tokenizer.decode([token])).replace("\n", "&#9166;<br>") for token in input_ids]
    parts = [f"<mark>{text}</mark>" if label != -100 else f"<span>{text}</span>" for text, label in zip(shown, labels)]
    return HTML(f'<div style="max-width:60em; line-height:1.8">{"&#8202;".join(parts)}</div>')
