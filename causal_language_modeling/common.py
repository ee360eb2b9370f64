"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import re
from html import escape
from itertools import chain
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from IPython.display import HTML
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, AutoTokenizer

SPLITS = ("train", "validation", "test")
COLUMNS = ("text", "messages", "keywords")
TASK = "text-generation"  # as the Hub and `pipeline` call it
ABOUT = "Follows requests in chat form (causal language modeling: pretraining, a new domain, instructions)."
USE = """from transformers import pipeline

answer = pipeline("text-generation", model="NAME")
conversation = [{"role": "user", "content": "Tell a story about a shy fox."}]
print(answer(conversation, max_new_tokens=120)[0]["generated_text"][-1]["content"])"""  # NAME is where the model is
# A turn is <|im_start|>role, a new line, what is said, <|im_end|> and a new line; `generation` marks what the assistant says.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] | trim + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The ways in which a story says who it is about, right after its title.
INTRODUCED = re.compile(r"\b(?:called|named|lived|knew) ([A-Z][a-z]+)\b|(?:^|\. )([A-Z][a-z]+) was an? |\bas \w+ as ([A-Z][a-z]+)\.")
PRONOUNS = {"he": {"he", "him", "his", "himself"}, "she": {"she", "her", "hers", "herself"}}


# ---------------------------------------------------------------------------------------------------- loading


def load_splits(dataset_id: str, column: str, columns: dict[str, str], max_rows: int) -> DatasetDict:
    """Load a local folder or a dataset of the Hub and check that a model can learn from it.

    Args:
        dataset_id: with a split `train`. If `validation` or `test` is missing, a twentieth of `train` is taken for it.
        column: `text` (str), or `messages` (a list of dicts with `role` and `content`).
        columns: {name here: name in the data}, e.g. {"text": "story"}; a data set that has the name used here, and not that of
            yours, keeps it.
        max_rows: how many rows are kept of each split, the first ones.

    Returns:
        The splits `train`, `validation` and `test` with that column and, beside `messages`, the column `keywords` (a list of words
        that the answer should contain), empty if there is none; other splits and columns are left out.

    Raises:
        ValueError: the files can't be read, a split or column is missing, a text is empty, or a conversation does not end with
            what the assistant says.
    """
    used = ("messages", "keywords") if column == "messages" else (column,)
    loaded = load(dataset_id)
    there = next(iter(loaded.values())).column_names
    elsewhere = set(COLUMNS) - set(used) | {name for name, own in columns.items() if name in there and own not in there}
    loaded = rename(loaded, {name: own for name, own in columns.items() if name not in elsewhere}, dataset_id)
    if "train" not in loaded:
        raise ValueError(f"{dataset_id} has no split 'train', only {list(loaded)}: name one of its splits so")
    loaded = DatasetDict({split: rows.select(range(min(max_rows, len(rows)))) for split, rows in loaded.items() if split in SPLITS})
    for split in ("validation", "test"):
        if split not in loaded:
            check_columns(loaded["train"], "train", column)
            if len(loaded["train"]) < 20:
                raise ValueError(f"split 'train' has {len(loaded['train'])} rows, too few to take some for '{split}': add that split")
            parts = loaded["train"].train_test_split(test_size=0.05, seed=0)
            loaded["train"], loaded[split] = parts["train"], parts["test"]
    for split in SPLITS:
        loaded[split] = check_columns(loaded[split], split, column)
        if column == "messages" and "keywords" not in loaded[split].column_names:
            loaded[split] = loaded[split].add_column("keywords", [[] for _ in range(len(loaded[split]))])
    return DatasetDict({split: loaded[split].select_columns(list(used)) for split in SPLITS})


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


def check_columns(dataset: Dataset, split: str, column: str) -> Dataset:
    """`dataset`, with lists in `messages`; ValueError if it has no such column, no rows, an empty text or a conversation that is none."""
    if column not in dataset.column_names:
        raise ValueError(
            f"split '{split}' has no column '{column}', only {dataset.column_names}: name the one you mean, "
            f"e.g. columns = {{'{column}': 'its name in the data'}}"
        )
    if len(dataset) == 0:
        raise ValueError(f"split '{split}' is empty: check its data files")
    for name in {"messages", "keywords"} & set(dataset.column_names):
        dataset = read_lists(dataset, name, split)
    for i, value in enumerate(dataset[column]):
        where = f"row {i} of split '{split}'"
        if column == "messages":
            check_conversation(value, where)
        elif not isinstance(value, str) or not value.strip():
            raise ValueError(f"{where} has the text {value!r}: drop it, or cast the column to string")
    return dataset


def check_conversation(messages: list[dict], where: str) -> None:
    """Raise ValueError if a conversation is empty, has an empty message, or does not end with the assistant's."""
    for message in messages or []:
        if not {"role", "content"} <= set(message):
            raise ValueError(f"{where} has a message with {sorted(message)}: it needs 'role' and 'content'; rename what you have")
        if not (message["content"] or "").strip():
            raise ValueError(f"{where} has an empty message of '{message['role']}': drop the row")
    if not messages or messages[-1]["role"] != "assistant":
        last = f"ends with '{messages[-1]['role']}'" if messages else "is empty"
        raise ValueError(f"the conversation in {where} {last}, and there is no answer to learn: end it with the role 'assistant'")


def load_tokenizer(checkpoint: str):
    """The tokenizer of a checkpoint. Raises ValueError if the checkpoint is an encoder, or the tokenizer has no end-of-text token."""
    config = AutoConfig.from_pretrained(checkpoint)
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(
            f"{checkpoint} is an encoder ({config.model_type}), whose attention sees the token that is to be predicted: choose a decoder, "
            "e.g. HuggingFaceTB/SmolLM2-135M; for an encoder, see masked language modeling"
        )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer.eos_token is None:
        raise ValueError(f"the tokenizer of {checkpoint} has no end-of-text token to put between documents: set tokenizer.eos_token")
    return tokenizer


# ---------------------------------------------------------------------------------------------------- packing


def pack(documents: list[list[int]], block_size: int) -> tuple[Dataset, int]:
    """Put documents end to end and cut them into blocks of the same length.

    Args:
        documents: token ids, each list beginning with the end-of-text token, which ends the document before it and starts its own.
        block_size: in tokens.

    Returns:
        The blocks, with `input_ids` and `position_ids`, which count from 0 at every document and at the start of a block: that is
        how attention learns where the borders are. And how many tokens at the end filled no block and are left out.

    Raises:
        ValueError: the documents don't fill one block, or one is empty.
    """
    if any(len(document) < 2 for document in documents):
        i = next(i for i, document in enumerate(documents) if len(document) < 2)
        raise ValueError(f"document {i} has no tokens but the end-of-text token: drop empty texts")
    ids = np.fromiter(chain.from_iterable(documents), dtype=np.int64)
    n = len(ids) // block_size
    if n == 0:
        raise ValueError(f"all texts together have {len(ids)} tokens, and a block has {block_size}: use a smaller block_size, or more text")
    starts, first = np.zeros(len(ids), dtype=np.int64), np.cumsum([0, *map(len, documents[:-1])])
    starts[first] = first
    starts[::block_size] = np.arange(0, len(ids), block_size)
    positions = np.arange(len(ids)) - np.maximum.accumulate(starts)
    blocks = {
        name: values[: n * block_size].reshape(n, block_size).tolist() for name, values in (("input_ids", ids), ("position_ids", positions))
    }
    return Dataset.from_dict(blocks), len(ids) - n * block_size


def check_borders(with_borders: float, naive: float, model_type: str) -> None:
    """Raise ValueError if a model reads across the borders between packed documents, although it is told the positions.

    Args:
        with_borders: the largest difference between a document's logits when it is packed behind another and when it is alone.
        naive: the same, packed without `position_ids`.
        model_type: the architecture, for the message.
    """
    if with_borders > 0.01 * naive:
        raise ValueError(
            f"the attention of {model_type} does not stop where position_ids start again, so packed documents would read one another "
            f"(their logits differ by {with_borders:.1e} from those alone): choose a checkpoint of another architecture, e.g. gpt2, llama, "
            "qwen3, smollm3 or gemma"
        )


# ---------------------------------------------------------------------------------------------------- conversations


def check_template(tokenizer) -> None:
    """Raise ValueError if the tokenizer has no chat template, or one that does not mark what the assistant says."""
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template: set tokenizer.chat_template, e.g. to CHAT_TEMPLATE of common.py")
    if not re.search(r"\{%-?\s*generation\b", tokenizer.chat_template):
        raise ValueError(
            "the chat template does not mark what the assistant says, so the loss can't be on the answer alone: put "
            "{% generation %} and {% endgeneration %} around it, with the end-of-turn token inside, or use CHAT_TEMPLATE of common.py"
        )


def encode_chat(messages: list[dict], tokenizer) -> dict:
    """Token ids of a conversation, and labels on what the assistant says.

    Args:
        messages: one dict per turn, with `role` and `content`.
        tokenizer: with a chat template that marks what the assistant says, as `check_template` asks.

    Returns:
        `input_ids` and `labels` of the same length: the ids where the assistant speaks, its end-of-turn token included, and -100
        elsewhere.

    Raises:
        ValueError: no token is the assistant's.
    """
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    labels = [token if spoken else -100 for token, spoken in zip(encoded["input_ids"], encoded["assistant_masks"])]
    if all(label == -100 for label in labels):
        raise ValueError(f"no token of the conversation {str(messages)[:80]} is the assistant's: check the chat template")
    return {"input_ids": list(encoded["input_ids"]), "labels": labels}


def encode_chats(conversations: Dataset, tokenizer, max_length: int) -> tuple[Dataset, int]:
    """`encode_chat` for each row, without those that are too long.

    Args:
        conversations: with a column `messages`.
        max_length: in tokens. A longer conversation is left out as a whole: cut, it would lose the end that it should teach.

    Returns:
        The rows, and how many were left out.

    Raises:
        ValueError: every row is too long.
    """
    check_template(tokenizer)
    rows = [encode_chat(messages, tokenizer) for messages in conversations["messages"]]
    short = [row for row in rows if len(row["input_ids"]) <= max_length]
    if not short:
        raise ValueError(f"every conversation is longer than {max_length} tokens: raise max_length, if the model has the positions")
    return Dataset.from_list(short), len(rows) - len(short)


def check_prompts(prompts: list[list[int]], max_new_tokens: int, positions: int) -> None:
    """Raise ValueError if a prompt and the answer to it don't fit into the context.

    Args:
        prompts: token ids.
        max_new_tokens: the room for the answer.
        positions: how many tokens the model can take in.
    """
    for i, prompt in enumerate(prompts):
        if len(prompt) + max_new_tokens > positions:
            raise ValueError(
                f"prompt {i} has {len(prompt)} tokens, which leaves no room for {max_new_tokens} more in a context of {positions}: "
                "shorten it, or ask for fewer new tokens; cutting it would drop what was asked"
            )


def complies(answer: str, keywords: list[str]) -> bool:
    """Whether an answer contains all keywords, as whole words, in any case."""
    return all(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, flags=re.IGNORECASE) for word in keywords)


# ---------------------------------------------------------------------------------------------------- stories


def introduced(text: str) -> str | None:
    """The name that the first two sentences of a story, one of which may be a title, give its hero, or None."""
    found = INTRODUCED.search(re.match(r"(?:.*?[.!?](?=\s|$)){1,2}|.*", text)[0])
    return next(filter(None, found.groups()), None) if found else None


def consistent(text: str, names: set[str]) -> bool:
    """Whether a story keeps to its hero: the name introduced is its only one, and it says either he or she, never both.

    Args:
        text: a story.
        names: all names that heroes have.
    """
    words = re.findall(r"[A-Za-z]+", text)
    used = [kind for kind, forms in PRONOUNS.items() if forms & {word.lower() for word in words}]
    return introduced(text) is not None and names & set(words) == {introduced(text)} and len(used) < 2


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


def last_checkpoint_in(folder: Path) -> Path | None:
    """The newest complete checkpoint of one stage of a run, or None if the stage has not got that far."""
    checkpoints = [path for path in Path(folder).glob("checkpoint-*") if is_complete(path)]
    return max(checkpoints, key=lambda path: int(path.name.split("-")[-1]), default=None)


def show_targets(input_ids: list[int], labels: list[int], tokenizer) -> HTML:
    """The tokens of a row, one box each, coloured and underlined where the model has to predict them.

    Args:
        input_ids, labels: n numbers each; the label is -100 where nothing is predicted.
    """
    parts = []
    for token, label in zip(input_ids, labels):
        text = escape(tokenizer.decode([token])).replace("\n", "&#9166;<br>")
        parts.append(f'<u style="background:#b2df8a;color:black">{text}</u>' if label != -100 else f"<span>{text}</span>")
    return HTML(f'<div style="max-width:60em; line-height:1.8">{"&#8202;".join(parts)}</div>')


def plot_stages(stages: dict[str, tuple[list[float], list[dict]]]) -> None:
    """Training loss per optimizer step, one stage after another, beside the validation perplexity per epoch of each.

    Args:
        stages: name -> (losses in nats per token, history with a dict per epoch that has `epoch` and `loss`).
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    done = 0
    for (name, (losses, history)), style in zip(stages.items(), ("o-", "s--", "^:", "D-.")):
        left.plot(range(done + 1, done + len(losses) + 1), losses, linewidth=1, label=name)
        right.plot([entry["epoch"] for entry in history], [np.exp(entry["loss"]) for entry in history], style, label=name)
        done += len(losses)
        left.axvline(done, color="gray", linewidth=0.5)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats per token", yscale="log")
    right.set(title="Validation perplexity", xlabel="epoch of the stage", yscale="log")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    plt.show()
