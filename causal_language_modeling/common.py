"""Preprocessing and display helpers that both notebooks of this folder import."""

from html import escape

from datasets import Dataset, DatasetDict
from IPython.display import HTML
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

import conversations
import loading
import texts
from helpers import advise, compare, count_unknown, last_checkpoint, own_device, readable_length, show, start_run  # noqa: F401, for the notebooks

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
    dataset = loading.load(dataset_id, dataset_config, loading.READERS | {".txt": texts.read_file})
    for split in ("train", "validation", "test"):
        if split in dataset:
            rows = dataset[split].select(range(min(max_rows, len(dataset[split]))))
            dataset[split] = kind.read_rows(rows, split, columns)
    return loading.choose(dataset, {name: name for name in kind.COLUMNS})


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


def show_targets(input_ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> HTML:
    """The tokens of a row, with those highlighted that the model has to predict (label other than -100)."""
    shown = [escape(tokenizer.decode([token])).replace("\n", "&#9166;<br>") for token in input_ids]
    parts = [f"<mark>{text}</mark>" if label != -100 else f"<span>{text}</span>" for text, label in zip(shown, labels)]
    return HTML(f'<div style="max-width:60em; line-height:1.8">{"&#8202;".join(parts)}</div>')
