"""Readers for files of tagged words and of marked texts: CoNLL, CoNLL-U, exports of annotation tools, and CSV with a word per row.

Each takes the path of a file and gives a table with a row per sentence: `tokens`, a list of words, and `ner_tags`, as many tags.
"""

import codecs
import gzip
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from datasets import ClassLabel, Dataset
from seqeval.metrics.sequence_labeling import get_entities

import loading

# Words are found in texts as runs of letters and digits, and every other sign is a word; so is every character of a script
# that puts no spaces between words: Thai, Lao, Burmese, Khmer, kana and Han. Vowel signs and accents stay with their letter.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
MARKS = "\u200c\u200d" + "".join(chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)).startswith("M"))
WORD = re.compile(rf"[{UNSPACED}][{MARKS}]*|[^\W{UNSPACED}](?:[^\W{UNSPACED}]|[{MARKS}])*|[^\w\s]")
PREFIXED = re.compile(r"[BIESLUMW]([-_].+)?")  # the tags of spans, besides O
ALIKE = {"U": "S", "W": "S", "L": "E", "M": "I"}  # other letters for the word by itself, the last and the inner ones


def words_and_tags(rows: Dataset, split: str) -> dict[str, list[list[str]]]:
    """The columns `tokens` and `ner_tags` as lists of strings, without the rows in which no word can be seen.

    Raises:
        ValueError: words or tags of a row are no lists, or not as many, or a tag is missing.
    """
    feature = getattr(rows.features["ner_tags"], "feature", None)
    found = {"tokens": [], "ner_tags": []}
    for i, (words, tags) in enumerate(zip(rows["tokens"], rows["ner_tags"])):
        where = f"row {i} of split '{split}'"
        if not isinstance(words, list) or not isinstance(tags, list):
            raise ValueError(f"{where} has the words {str(words)[:100]!r} and the tags {str(tags)[:100]!r}, and lists are needed: "
                             "write JSON lines or parquet, or CSV with a word per row and its sentence's number in a column 'sentence'")
        if len(words) != len(tags):
            raise ValueError(f"{where} has {len(words)} words and {len(tags)} tags: give every word one tag, O outside of entities. "
                             f"They are {str(words)[:300]} and {str(tags)[:300]}")
        if any(tag in (None, "") or tag != tag or isinstance(tag, int) and tag < 0 for tag in tags):
            raise ValueError(f"{where} has a word without a tag: {str(list(zip(words, tags)))[:300]}")
        words = ["" if word is None else str(word) for word in words]
        if any(character.isprintable() and not character.isspace() for word in words for character in word):
            found["tokens"].append(words)
            found["ner_tags"].append(feature.int2str(tags) if isinstance(feature, ClassLabel) else [str(tag).strip() for tag in tags])
    if left_out := len(rows) - len(found["tokens"]):
        print(f"{left_out} rows of '{split}' have no word that can be seen, and are left out")
    return found


def by_type(tag: str) -> tuple:
    """Sorts tags by their type, and numbers by their value."""
    return (tag[2:], 0, tag) if PREFIXED.fullmatch(tag) else ("", len(tag), tag) if tag.isdigit() else (tag, 0, tag)


def in_iob2(splits: dict[str, dict], names: list[str]) -> list[str]:
    """Convert the tags of spans to IOB2 in place, leave other tags as they are, and say so; return the names of the tags.

    Spans have a prefix and a type, or are O, in IOB1, IOB2, BIOES, BILOU or BMES. Where some words have O, the types may be left
    out. An I- after O or after another type begins a span.

    Raises:
        ValueError: some tags have the prefix B- or I-, and others are plain.
    """
    others = [name for name in names if name != "O" and not PREFIXED.fullmatch(name)]
    if others or "O" not in names and min(map(len, names)) == 1:
        if prefixed := [name for name in names if name[:2] in ("B-", "I-")]:
            without = [name for name in names if name != "O" and name not in prefixed]
            raise ValueError(f"some tags have a prefix of spans, such as {prefixed[:5]}, and others don't, such as {without[:5]}: "
                             "write B- or I- before every tag but O, or before none")
        print(f"the tags are no spans, and every word is scored by itself: {', '.join(names)[:300]}")
        if all(name.isdigit() for name in names):
            print("If these numbers mean spans, name them: write the tags as words, or give their names in the dataset's card.")
        if {"O", "o"} & set(names):
            print(f"To have spans, every tag needs a prefix, such as B-, or is O; these have none: {others[:10]}")
        return names
    changed = 0
    for rows in splits.values():
        for i, tags in enumerate(rows["ner_tags"]):
            seen = ["O" if tag == "O" else f"{ALIKE.get(tag[0], tag[0])}-{tag[2:] or 'entity'}" for tag in tags]
            rows["ner_tags"][i] = ["O"] * len(tags)
            for kind, first, last in get_entities(seen):
                rows["ner_tags"][i][first : last + 1] = [f"B-{kind}"] + [f"I-{kind}"] * (last - first)
            changed += sum(one != two for one, two in zip(tags, rows["ner_tags"][i]))
    if changed:
        print(f"{changed} tags are converted to IOB2, in which B- begins every span")
    types = dict.fromkeys(name[2:] or "entity" for name in names if name != "O")
    return ["O"] + [f"{prefix}-{kind}" for kind in types for prefix in "BI"]


def readers(columns: dict[str, str]) -> dict[str, Callable[[Path], Dataset]]:
    """{end of a file's name: function that reads such a file}, for `loading.load_splits`, with names of columns as it takes them."""
    conll = dict.fromkeys([".conll", ".bio", ".iob", ".iob2", ".txt"], lambda path: read_conll(path, columns))
    csv = dict.fromkeys([".csv", ".tsv"], lambda path: read_csv(path, columns))
    marked = dict.fromkeys([".json", ".jsonl", ".ndjson"], lambda path: read_json(path, columns))
    return loading.READERS | conll | csv | marked | {".conllu": lambda path: read_conllu(path, columns)}


def table_of(rows: list[tuple], columns: dict[str, str], more: tuple[str, ...] = ()) -> Dataset:
    """A table of words, tags and `more`, under the names by which `loading.load_splits` will look for the first two."""
    names = [columns.get("tokens", "tokens"), *more]
    tags = columns.get("ner_tags", "ner_tags")
    table = {name: [row[i] for row in rows] for i, name in enumerate([*names, "ner_tags"])}
    return Dataset.from_dict(table if tags in table else table | {tags: table.pop("ner_tags")})


def read_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, UTF-16 or else Windows-1252; only a line break ends a line, as words may hold other spaces."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
        if sum(character > "\x7f" for character in text) > len(text) / 5:  # more than any Western European language has
            raise ValueError(f"{path} is not UTF-8, and its encoding can't be told: save it as UTF-8") from None
        print(f"{path.name} is not UTF-8: it is read as Windows-1252, a superset of Latin-1")
    return text.replace("\r\n", "\n").split("\n")


def sentences_of(lines: list[list[str] | None]) -> list[list[list[str]]]:
    """The lines of each sentence, as lists of cells; None stands between sentences."""
    return [list(group) for is_word, group in groupby(lines, key=lambda cells: cells is not None) if is_word]


def read_conll(path: Path, columns: dict[str, str]) -> Dataset:
    """A word per line, the word in the first column and its tag in the last, and an empty line between sentences.

    Columns are separated by tabs or by blanks. Left out are lines with -DOCSTART-, a line with the names of the columns, a
    first column that only counts the words, and comments: lines that begin with # and don't end in a tag of other lines.

    Raises:
        ValueError: a line has fewer or more columns than most, or there is only one, or the file is no CoNLL but WebAnno.
    """
    lines = read_lines(path)
    if lines[0].startswith("#FORMAT=WebAnno"):
        raise ValueError(f"{path} is WebAnno TSV: export CoNLL 2002 instead")
    for separator in ("\t", "[ \t]+"):
        cells = [re.split(separator, line.rstrip().strip(" ")) if line.strip() else None for line in lines]
        cells = [None if row and row[0] == "-DOCSTART-" else row for row in cells]
        words = [row for row, line in zip(cells, lines) if row and not line.startswith("#")]
        width = Counter(map(len, words)).most_common(1)[0][0] if words else 0
        if width > 1 and all(len(row) == width for row in words):
            break
    if width == 10 and words[0][0][:1].isdigit():
        return read_conllu(path, columns)
    tags = Counter(row[-1] for row in words)
    if words and words[0][0].lower() in ("word", "token", "form", "text") and tags[words[0][-1]] == 1:
        cells[cells.index(words[0])] = None  # the names of the columns
    kept = []
    for i, (row, line) in enumerate(zip(cells, lines)):
        if row and line.startswith("#") and (len(row) != width or row[-1] not in tags):
            continue
        if row and (len(row) != width or width == 1):
            raise ValueError(f"line {i + 1} of {path} has {len(row)} columns, and most have {width}: a CoNLL file has a word and its tag "
                             f"in every line, and an empty line between sentences. The line is {line[:200]!r}")
        kept.append(row)
    sentences = sentences_of(kept)
    numbers = width > 2 and all(row[0] == str(i) for rows in sentences for i, row in enumerate(rows, 1))
    return table_of([([row[numbers].strip(" ") for row in rows], [row[-1].strip(" ") for row in rows]) for rows in sentences], columns)


def read_conllu(path: Path, columns: dict[str, str]) -> Dataset:
    """A treebank of Universal Dependencies: columns `tokens`, `upos` and `xpos`, and `ner_tags`, which is `upos`.

    A word is a line that is numbered with an integer: a range such as 1-2 says how the words are written together, and 1.1
    stands for a word that is not written.

    Raises:
        ValueError: a line has not ten columns.
    """
    kept = []
    for i, line in enumerate(read_lines(path)):
        row = line.split("\t")
        if not line.strip():
            kept.append(None)
        elif not line.startswith("#"):
            if len(row) != 10:
                raise ValueError(f"line {i + 1} of {path} has {len(row)} columns, and CoNLL-U has ten, separated by tabs")
            if row[0].isdigit():
                kept.append(row)
    rows = [[[row[i] for row in sentence] for i in (1, 3, 4, 3)] for sentence in sentences_of(kept)]
    return table_of(rows, columns, ("upos", "xpos"))


def read_csv(path: Path, columns: dict[str, str]) -> Dataset:
    """A CSV or TSV file with a word per row and a column `sentence`, `Sentence #` or `sentence_id`: a row per sentence.

    The number of a sentence may stand in each of its rows or in the first only, and may begin anew in each `document`. A file
    without such columns is read as it is, and a TSV file with empty lines between others is CoNLL.
    """
    if ".tsv" in path.suffixes and re.search(r"\S[^\S\n]*\n[^\S\n]*\n\s*\S", "\n".join(read_lines(path))):
        return read_conll(path, columns)
    table = loading.read_csv(path)
    pattern = r"(sent(ence)?s?|doc(ument)?s?)[ _]?(#|id|idx|index|no|number)?"
    numbers = [name for name in table.column_names if re.fullmatch(pattern, name.lower())]
    sentences, previous = [], [None] * len(numbers)
    for i, values in enumerate(zip(*(table[name] for name in numbers))):
        if i == 0 or any(value not in (None, last) for value, last in zip(values, previous)):
            sentences.append([])
        sentences[-1].append(i)
        previous = [value or last for value, last in zip(values, previous)]
    found = table.to_dict()
    if 0 < len(sentences) < len(table):  # otherwise no sentence has two rows, and these are no words
        found = {name: [[values[i] for i in rows] for rows in sentences] for name, values in found.items() if name not in numbers}
    for own, usual in (("tokens", ("word", "words", "token")), ("ner_tags", ("tag", "tags", "ner", "ner_tag", "label"))):
        name = next((name for name in found if name.lower() in usual), None)
        if own not in columns and own not in found and name:
            found[own] = found.pop(name)
    return Dataset.from_dict(found)


def finished(task: dict) -> list[dict]:
    """The annotations of a task of Label Studio that were not cancelled."""
    return [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]


def text_and_spans(row: dict | list, columns: dict[str, str]) -> tuple[str, list] | None:
    """The text and the list of spans of a row that an annotation tool has exported, or None if it is no such row.

    Raises:
        ValueError: the text of a task of Label Studio has another name.
    """
    name = columns.get("tokens", "text")
    if isinstance(row, list) and len(row) == 2 and isinstance(row[1], dict):  # spaCy: [text, {"entities": [...]}]
        row = {"text": row[0], **row[1]}
    if not isinstance(row, dict):
        return None
    if isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list):  # Label Studio, not the "min" form
        if name not in row["data"]:
            cure = f"name yours, e.g. columns = {{'tokens': '{next(iter(row['data']), 'sentence')}'}}"
            raise ValueError(f"a task of Label Studio has no '{name}', only {list(row['data'])}: {cure}")
        results = [result.get("value", {}) for annotation in finished(row)[:1] for result in annotation["result"]]
        row = {**row["data"], "spans": [value for value in results if "labels" in value]}
    text = row.get(name)
    names = [columns["ner_tags"]] if "ner_tags" in columns else ["entities", "spans", "labels", "label"]
    spans = next((row[name] for name in names if isinstance(row.get(name), list)), None)
    words = row.get("tokens")
    if not isinstance(text, str) or spans is None or isinstance(words, list) and words and isinstance(words[0], str):
        return None
    return text, spans


def parts_of(span: list | dict) -> tuple[int, int, str]:
    """Start, end and type of a span.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is in none of the forms that are known.
    """
    if isinstance(span, dict):
        kind = span.get("label") or span.get("labels") or span["tag"]
        span = [span[name] if name in span else span[f"{name}_offset"] for name in ("start", "end")] + [kind]
    start, end, kind = span[:3]
    return int(start), int(end), str(kind[0] if isinstance(kind, list) else kind)


def tag_spans(text: str, spans: list) -> tuple[list[str], list[str], int]:
    """The words of a text, their tags in IOB2, and the number of spans left out because they overlap a longer one.

    A span is [start, end, type], or a dict with `start`, `end` and `label` or `labels`; start and end count characters, and
    the end is that of the last character + 1. A span that begins or ends inside of a word covers the whole word.

    Raises:
        ValueError: a span is in no such form, or covers no word.
    """
    words = list(WORD.finditer(text))
    found, tags = set(), ["O"] * len(words)
    for span in spans:
        try:
            start, end, kind = parts_of(span)
        except (ValueError, TypeError, KeyError, IndexError):
            raise ValueError(f"{str(span)[:200]} is no span: write [start, end, type]") from None
        inside = [i for i, word in enumerate(words) if word.start() < end and word.end() > start]
        if not inside or end > len(text):
            raise ValueError(f"the span {str(span)[:200]} is not on words of the text, which has {len(text)} characters")
        found.add((inside[0], inside[-1] + 1, kind))
    left_out = 0
    for start, end, kind in sorted(found, key=lambda span: (span[0] - span[1], span)):
        if any(tag != "O" for tag in tags[start:end]):
            left_out += 1
        else:
            tags[start:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - start - 1)
    return [word[0] for word in words], tags, left_out


def read_json(path: Path, columns: dict[str, str]) -> Dataset:
    """JSON or JSON lines. Texts with marked spans, as annotation tools export them, become words and tags; others are read as usual.

    Left out are rows that were rejected (Prodigy) and tasks without an annotation (Label Studio).

    Raises:
        ValueError: a row has no text or no list of spans where others have, or a span can't be read.
    """
    text = "\n".join(read_lines(path))
    try:
        rows = json.loads(text)
    except ValueError:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if isinstance(rows, dict):
        rows = rows["annotations"] if isinstance(rows.get("annotations"), list) and "data" not in rows else [rows]
    if rows and not any(text_and_spans(row, columns) for row in rows):
        return loading.READERS[".jsonl"](path)
    found, left_out, rejected = [], 0, 0
    for i, row in enumerate(rows):
        is_task = isinstance(row, dict) and "data" in row and isinstance(row.get("annotations"), list)
        if row is None or isinstance(row, dict) and row.get("answer") in ("reject", "ignore") or is_task and not finished(row):
            rejected += 1
            continue
        try:
            if (marked := text_and_spans(row, columns)) is None:
                raise ValueError("there is no text with a list of spans, which other rows have")
            words, tags, n = tag_spans(*marked)
        except ValueError as error:
            raise ValueError(f"row {i} of {path}: {error}") from None
        found.append((words, tags))
        left_out += n
    if rejected:
        print(f"{path.name}: {rejected} rows without an accepted annotation are left out")
    if left_out:
        print(f"{path.name}: {left_out} spans that overlap a longer one are left out")
    return table_of(found, columns)
