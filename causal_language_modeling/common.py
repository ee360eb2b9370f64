"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
from html import escape
from pathlib import Path

import pandas as pd
from datasets import Dataset, DatasetDict, load_dataset
from IPython.display import HTML
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

# A turn is <|im_start|>, the role, a new line, the content, <|im_end|> and a new line. `generation` marks what the assistant says.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def load_splits(dataset_id: str, column: str, columns: dict[str, str], max_rows: int) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a local folder or of a dataset on the Hub.

    Args:
        dataset_id: if it has no `validation` or `test`, a twentieth of `train` is split off for it.
        column: `text` (strings), or `messages` (lists of dicts with `role` and `content`).
        columns: {name here: name in the data}, e.g. {"text": "story"}; a dataset without that name may have the usual one.
        max_rows: how many rows of each split to keep, the first ones.

    Returns:
        Each split with that column and, beside `messages`, a column `keywords` (lists of words that the answer should
        contain; empty if the data have none).

    Raises:
        ValueError: a text is empty, or a conversation does not end with an answer of the assistant.
    """
    dataset = load_dataset(dataset_id)
    dataset = DatasetDict({
        split: rows.select(range(min(max_rows, len(rows)))) for split, rows in dataset.items() if split in ("train", "validation", "test")
    })
    for split in ("validation", "test"):
        if split not in dataset:
            parts = dataset["train"].train_test_split(test_size=0.05, seed=0)
            dataset["train"], dataset[split] = parts["train"], parts["test"]
    present, own = dataset["train"].column_names, {}
    for name in ("messages", "keywords") if column == "messages" else (column,):
        own_name = columns.get(name, name)
        if own_name not in present and name in present:
            own_name = name
        if name != "keywords" or own_name in present:  # keywords are optional
            own[own_name] = name
    dataset = dataset.select_columns(list(own)).rename_columns(own)
    for split, rows in dataset.items():
        for i, value in enumerate(rows[column]):
            text = value
            if column == "messages":
                text = value[-1]["content"] if value and value[-1]["role"] == "assistant" else None
            if not isinstance(text, str) or not text.strip():
                what = "conversation doesn't end with an answer of the assistant" if column == "messages" else "text is empty or no string"
                raise ValueError(f"row {i} of split '{split}': the {what} ({str(value)[-60:]!r}): correct or remove it")
        if column == "messages" and "keywords" not in rows.column_names:
            dataset[split] = rows.add_column("keywords", [[] for _ in range(len(rows))])
    return dataset


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
    if tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {checkpoint} has no end-of-text token to put between documents: set tokenizer.eos_token")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def pack(documents: list[list[int]], block_size: int) -> tuple[Dataset, int]:
    """Concatenate documents and cut them into blocks of the same length.

    Args:
        documents: token ids; each document begins with the end-of-text token.
        block_size: in tokens.

    Returns:
        The blocks, with three columns of `block_size` integers: `input_ids`; `position_ids`, which start again from 0 at
        every document; and `labels`, which are the ids, and -100 at the first token, since nothing precedes it. And the
        number of tokens at the end that fill no block and are dropped.

    Raises:
        ValueError: the documents don't fill one block.
    """
    token_ids, is_first = [], []
    for document in documents:
        token_ids.extend(document)
        is_first.extend(i == 0 for i in range(len(document)))
    num_blocks = len(token_ids) // block_size
    if num_blocks == 0:
        raise ValueError(f"the texts have {len(token_ids)} tokens, and a block has {block_size}: use a smaller block_size, or more text")

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
    labels = []
    for token, is_answer in zip(encoded["input_ids"], encoded["assistant_masks"]):
        labels.append(token if is_answer else -100)
    if not any(encoded["assistant_masks"]):
        raise ValueError(f"no token of the conversation {str(messages)[:80]} is the assistant's: check the roles and the chat template")
    return {"input_ids": list(encoded["input_ids"]), "labels": labels}


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


def show_targets(input_ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> HTML:
    """The tokens of a row, with those highlighted that the model has to predict (label other than -100)."""
    parts = []
    for token, label in zip(input_ids, labels):
        text = escape(tokenizer.decode([token])).replace("\n", "&#9166;<br>")
        parts.append(f"<mark>{text}</mark>" if label != -100 else f"<span>{text}</span>")
    return HTML(f'<div style="max-width:60em; line-height:1.8">{"&#8202;".join(parts)}</div>')
