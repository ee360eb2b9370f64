"""Conversations in the forms in which people keep them, brought into one: lists of dicts with `role` and `content`."""

import json
import re

from datasets import Dataset

from texts import is_blank

# other names for those who speak; a role that isn't here, such as `tool`, stays what it is
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "bot": "assistant",
         "ai": "assistant", "model": "assistant"}
# what a row may have, and the names of columns under which it is found without being named
PARTS = {
    "messages": ("messages", "conversations", "conversation"),
    "system": ("system", "system_prompt"),
    "user": ("user", "instruction", "prompt", "question"),
    "input": ("input", "context"),
    "assistant": ("assistant", "output", "completion", "response", "answer"),
    "keywords": ("keywords",),
}
COLUMNS = ("messages", "keywords")


def columns_of(present: list[str], columns: dict[str, str], split: str) -> dict[str, str]:
    """Which column of the data has which of PARTS: either `messages`, or `user` and `assistant`, and what else there is.

    Args:
        present: the columns of the data.
        columns: {part: name in the data} for names that aren't in PARTS, or that shall come before those.

    Raises:
        ValueError: there are neither messages nor requests and answers.
    """
    found = {}
    for part, names in PARTS.items():
        for name in (columns.get(part), *(name for name in names if name not in columns.values())):
            if name in present:
                found.setdefault(part, name)
    is_pair = "user" in found and "assistant" in found
    if "messages" in found and not (is_pair and "user" in columns and "messages" not in columns):
        return {part: name for part, name in found.items() if part in ("messages", "system", "keywords")}
    if not is_pair:
        own = columns.get("messages", "messages")
        raise ValueError(f"split '{split}' has no column ['{own}'], only {present}: name yours, e.g. columns = "
                         "{'messages': 'chat'} for lists of messages, or columns = {'user': 'question', 'assistant': 'answer'}")
    return {part: name for part, name in found.items() if part != "messages"}


def read_rows(rows: Dataset, split: str, columns: dict[str, str]) -> Dataset:
    """The conversations of a split in a column `messages`, and `keywords` (lists of words, empty where there are none).

    Args:
        columns: as `columns_of` takes them.

    Raises:
        ValueError: a column is missing, a conversation doesn't end with an answer, nobody asks for it, or a message has no text.
    """
    names = columns_of(rows.column_names, columns, split)
    rows = rows.select_columns(list(names.values())).rename_columns({own: name for name, own in names.items() if own != name})
    read = {"messages": [], "keywords": []}
    for i, row in enumerate(rows):
        try:
            read["messages"].append(messages_of(row))
            read["keywords"].append(keywords_of(row))
        except ValueError as error:
            raise ValueError(f"row {i} of split '{split}': {error}: correct or remove it") from None
    return Dataset.from_dict(read)


def from_json(text: str, name: str) -> object:
    """What a text holds in JSON, in which a CSV has lists."""
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"the {name} are no JSON, as json.dumps writes it ({text[:80]})") from None


def keywords_of(row: dict) -> list[str]:
    """The keywords of a row, which may be a list, a list in JSON, or a text with commas or semicolons of any script."""
    words = row.get("keywords") or []
    if isinstance(words, str):
        words = from_json(words, "keywords") if words.strip().startswith("[") else re.split("[,;，、；،؛]", words)
    words = words if isinstance(words, list) else [words]
    if any(isinstance(word, list | dict) for word in words):
        raise ValueError(f"the keywords are no list of words ({str(words)[:80]})")
    return [str(word).strip() for word in words if not is_blank(str(word))]


def messages_of(row: dict) -> list[dict]:
    """The conversation of a row as a list of dicts with `role` and `content`."""
    if "messages" in row:
        given = row["messages"] or []
        messages = from_json(given, "messages") if isinstance(given, str) else given
    else:
        asked, answered = row["user"], row["assistant"]
        if not is_blank(row.get("input")):
            asked = f"{asked}\n\n{row['input']}"
        # each may be a list of messages itself
        messages = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
        messages = messages + (answered if isinstance(answered, list) else [{"role": "assistant", "content": answered}])
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError(f"the messages are no list in which each has 'role' and 'content' ({str(messages)[:80]})")
    if not is_blank(row.get("system")):
        messages = [{"role": "system", "content": row["system"]}, *messages]
    messages = [plain_message(message) for message in messages]
    roles = [message["role"] for message in messages]
    if not roles or roles[-1] != "assistant":
        raise ValueError(f"the conversation doesn't end with an answer of the assistant ({str(messages)[-80:]})")
    if "user" not in roles:
        raise ValueError(f"no message of the user comes before the answer ({str(messages)[:80]})")
    return messages


def plain_message(message: dict) -> dict:
    """A message with `role` and `content` alone, which may come as `from` and `value`, and the content in parts."""
    role = str(message.get("role") or message.get("from") or "").lower()
    role = ROLES.get(role, role)
    if not role:
        raise ValueError(f"a message has no 'role', nor 'from' ({str(message)[:80]})")
    content = message.get("content") if message.get("content") is not None else message.get("value")
    if isinstance(content, list):
        parts = [{"text": part} if isinstance(part, str) else part for part in content]
        if others := [part.get("type") for part in parts if part.get("text") is None]:
            raise ValueError(f"a message of '{role}' has a part of the type {others[0]!r}, and only text is read")
        content = "".join(part["text"] for part in parts)
    if not isinstance(content, str) or role in ("user", "assistant") and is_blank(content):
        calls = ", which tool calls don't take the place of" if message.get("tool_calls") else ""
        raise ValueError(f"a message of '{role}' has no text{calls} ({str(message)[:80]})")
    return {"role": role, "content": content}
