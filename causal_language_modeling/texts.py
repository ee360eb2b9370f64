"""Texts in the forms in which people keep them, and words in texts of any script."""

import re
import unicodedata
from pathlib import Path

from datasets import Dataset

import loading

COLUMNS = ("text",)
END_OF_TEXT = "<|endoftext|>"
# Thai, Lao, Burmese, Khmer, kana and Han, which have no spaces between words, and Hangul, Hebrew and Arabic, in which particles
# are written onto words
UNSPACED = "\u0590-\u06ff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"


def is_blank(text: object) -> bool:
    """Whether nothing of a text can be seen: None, spaces, or characters without width."""
    return text is None or not any(character.isprintable() and not character.isspace() for character in str(text))


def split_text(text: str | None) -> list[str]:
    """The texts in a text, which <|endoftext|> separates, without blank ones."""
    parts = re.split(rf"\n*{re.escape(END_OF_TEXT)}\n*", text or "")
    return [part for part in parts if not is_blank(part)]


def read_file(path: Path) -> Dataset:
    """The texts of a .txt file: what stands between <|endoftext|>, as in the files of TinyStories, or else each line."""
    text = loading.decode(path).replace("\r\n", "\n")
    parts = split_text(text) if END_OF_TEXT in text else text.split("\n")
    return Dataset.from_dict({"text": [part for part in parts if not is_blank(part)]})


def read_rows(rows: Dataset, split: str, columns: dict[str, str]) -> Dataset:
    """The texts of a split in a column `text`, cut in two where one has <|endoftext|>, without blank ones, which are counted.

    Args:
        columns: {"text": name in the data}, which may have the usual name all the same.

    Raises:
        ValueError: there is no such column, all texts are blank, or one is no string.
    """
    name = columns.get("text", "text")
    if name not in rows.column_names and "text" in rows.column_names:
        name = "text"
    if name not in rows.column_names:
        raise ValueError(f"split '{split}' has no column ['{name}'], only {rows.column_names}: name yours, e.g. columns = "
                         f"{{'text': '{rows.column_names[0]}'}}")
    for i, text in enumerate(rows[name]):
        if text is not None and not isinstance(text, str):
            raise ValueError(f"row {i} of split '{split}': the text is no string ({str(text)[:60]}): correct or remove it")
    parts = [split_text(text) for text in rows[name]]
    if num_blank := parts.count([]):
        print(f"{num_blank} of the {len(rows)} texts of '{split}' are blank and left out")
    if num_blank == len(rows):
        raise ValueError(f"all texts of '{split}' are blank: add some")
    return Dataset.from_dict({"text": [text for some in parts for text in some]})


def has_word(text: str, word: str) -> bool:
    """Whether a text has a word, in capitals or not: as a whole word, or anywhere in the scripts of UNSPACED."""
    text, word = (unicodedata.normalize("NFC", each.casefold()) for each in (text, word))
    if re.search(f"[{UNSPACED}]", word):
        return word in text
    for found in re.finditer(re.escape(word), text):
        around = text[max(0, found.start() - 1) : found.start()] + text[found.end() : found.end() + 1]
        if not any(unicodedata.category(character)[0] in "LMN" for character in around):  # letters, marks on letters, digits
            return True
    return False
