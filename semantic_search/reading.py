"""Reads the collection and the questions to it, and makes training pairs of both."""

import random
import re
import runpy
from collections import Counter
from pathlib import Path

from datasets import Dataset, DatasetDict

from loading import count_known, load, load_splits

STDLIB = str(Path(__file__).parent / "data" / "stdlib.py")
# scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]{{2,}}"  # a keyword: a character of those, or two and more of any others
# to the first mark that ends a sentence; those of Latin and Cyrillic scripts end one only before a blank
SENTENCE = r".+?(?:[.!?](?=\s|$)|[。！？｡।؟۔။។።])|.*"


def load_collection(dataset_id: str, columns: dict[str, str], config: str | None = None) -> Dataset:
    """Load the texts to search.

    Args:
        dataset_id: a file, a folder, or a dataset on the Hub; or "stdlib", the documentation of the running Python's standard
            library, see data/stdlib.py.
        columns: {name here: name in the data}, e.g. {"text": "passage"}; empty if the columns are `id` and `text`.
        config: the subset, for a dataset that has several.

    Returns:
        Columns `id`, `summary` (the first sentence, cut if it is very long) and `text`, all strings. Blank texts are left out.

    Raises:
        ValueError: there are no ids or no texts; two different texts have the same id; or one is a list or a dict.
    """
    if dataset_id == "stdlib":
        return Dataset.from_list(runpy.run_path(STDLIB)["load"]())
    texts, blank = {}, 0
    for rows in load(dataset_id, config).values():
        name, text = (columns.get(column, column) for column in ("id", "text"))
        if missing := [column for column in (name, text) if column not in rows.column_names]:
            raise ValueError(f"{dataset_id} has no column {missing}, only {rows.column_names}: each text needs an id, which the "
                             "answers of the questions name. If your columns have other names, map them, e.g. columns = {'id': 'number'}")
        for row in rows.select_columns([name, text]):
            if is_blank(row[text]):
                blank += 1
            elif isinstance(row[text], (list, dict)):
                raise ValueError(f"{dataset_id} has the text {str(row[text])[:100]}, which is not a text: make one of it")
            elif texts.setdefault(as_id(row[name]), str(row[text])) != str(row[text]):
                raise ValueError(f"{dataset_id} has several texts with the id {as_id(row[name])!r}: give each text an id of its own")
    if blank:
        print(f"{blank} texts are blank and left out")
    summaries = [shorten(first_sentence(text), 300) for text in texts.values()]
    return Dataset.from_dict({"id": list(texts), "summary": summaries, "text": list(texts.values())})


def load_questions(questions_id: str, ids: list[str], columns: dict[str, str], config: str | None = None) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of the questions to a collection, see `loading.load_splits`.

    Args:
        ids: the ids of the collection.
        columns: {name here: name in the data}, e.g. {"question": "query"}; empty if the columns are `question` and
            `answers`: a list of ids or a single one, in CSV also several as `["d1", "d2"]` or `d1; d2`. The numbers 7,
            "7.0" and "007" are the same id, if the collection has one of them.
        questions_id, config: as for `load_collection`.

    Returns:
        Each split with `question` (a string) and `answers` (a list of strings). Where there is a column `since`, as in
        data/, the answers that the running Python doesn't have are left out.

    Raises:
        ValueError: a question is blank or no text, or has no answer, or an answer is not in the collection.
    """
    names = {name: columns.get(name, name) for name in ("question", "answers")} | {"since": "since"}
    splits = load_splits(questions_id, config, names, optional=("since",))
    known = {plain(name): name for name in ids} | {name: name for name in ids}
    for split, rows in splits.items():
        answers = [as_ids(cell, known) for cell in rows["answers"]]
        if "since" in rows.column_names and all(re.fullmatch(r"\[('(3\.\d+)?'(, )?)+\]", str(since)) for since in rows["since"]):
            in_this_python = runpy.run_path(STDLIB)["in_this_python"]
            answers = [in_this_python(names, since) for names, since in zip(answers, rows["since"])]
        for i, (question, names) in enumerate(zip(rows["question"], answers)):
            if is_blank(question) or isinstance(question, (list, dict)) or not names:
                raise ValueError(f"row {i} of split '{split}' has the question {question!r} and the answers {names}: remove it, or "
                                 "write the question as one text")
            if unknown := sorted(set(names) - known.keys()):
                raise ValueError(f"row {i} of split '{split}' has answers that are not in the collection: {unknown[:5]}. Its question is "
                                 f"{shorten(str(question), 100)!r}. Answers are ids, and those of the collection are like {ids[:3]}: "
                                 "correct them, or remove the row")
        splits[split] = Dataset.from_dict({"question": list(map(str, rows["question"])), "answers": answers})
    count_known(splits, "question")
    trained = {name for names in splits["train"]["answers"] for name in names}
    if n := sum(not trained.isdisjoint(names) for names in splits["test"]["answers"]):
        print(f"{n} of the {len(splits['test'])} test questions have an answer that training questions have too: for these, the test "
              "measures whether new wordings of known questions are understood")
    return splits


def is_blank(text: object) -> bool:
    """Whether nothing of a text can be seen; None is blank, and so are zero-width characters."""
    return text is None or not any(c.isprintable() and not c.isspace() for c in str(text))


def first_sentence(text: str) -> str:
    """The first sentence of a text on one line, or all of the text if no sentence ends in it."""
    return re.match(SENTENCE, " ".join(text.split()))[0]


def shorten(text: str, length: int) -> str:
    """A text on one line, cut after `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length]} ..."


def as_id(value: object) -> str:
    """An id as a string. 7.0 becomes "7": pandas makes it of 7 in a column with gaps."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def plain(name: str) -> str:
    """An id without blanks around it; if it is a whole number, also without zeros before it and ".0" after it."""
    return re.sub(r"^0*(\d+)(\.0)?$", r"\1", name.strip())


def as_ids(cell: object, known: dict[str, str]) -> list[str]:
    """The ids in a cell of `answers`, each once; `known` has those of the collection, under themselves and as `plain` makes them."""
    if isinstance(cell, str) and plain(cell) not in known:
        parts = [part for part in re.split(r"\s*[;|,]\s*", cell.strip()) if part]  # ids may have blanks in them
        if not all(plain(part) in known for part in parts):
            parts = ["".join(parts) for parts in re.findall(r"\"([^\"]+)\"|'([^']+)'|([^\s\[\]\"',;|]+)", cell)]
        cell = parts
    names = [as_id(value) for value in (cell if isinstance(cell, list) else [cell]) if value is not None]
    return list(dict.fromkeys(known.get(name) or known.get(plain(name), name) for name in names))


def question_pairs(questions: Dataset, collection: Dataset) -> list[dict]:
    """A training pair for each question: `question`, `id` (its first answer), `document` (the text of that answer), `answers` (all)."""
    texts = dict(zip(collection["id"], collection["text"]))
    return [{"question": row["question"], "id": row["answers"][0], "document": texts[row["answers"][0]], "answers": row["answers"]}
            for row in questions]


def sentence_pairs(collection: Dataset, n: int, seed: int, without: set[str]) -> list[dict]:
    """Training pairs made from the collection: the first sentence of a text serves as a question to the rest of it.

    Args:
        n: how many to draw at random; if fewer texts are suitable, all of them are used.
        without: ids of texts that must not be used.

    Returns:
        Dicts like those of `question_pairs`. A text is suitable if no other text has the same first sentence or the same rest,
        and both the sentence (20 characters) and the rest (60 characters) are long enough to say something. A character of
        a script without spaces counts for three.
    """
    def size(text):
        return len(text) + 2 * len(re.findall(f"[{UNSPACED}]", text))

    sentences, pairs = Counter(collection["summary"]), []
    for row in collection:
        before, sentence, rest = row["text"].partition(row["summary"])
        if sentences[sentence] == 1 and row["id"] not in without and size(sentence) >= 20 and size(rest) >= 60:
            pairs.append({"question": sentence, "id": row["id"], "document": before + rest, "answers": [row["id"]]})
    documents = Counter(pair["document"] for pair in pairs)
    pairs = [pair for pair in pairs if documents[pair["document"]] == 1]
    return random.Random(seed).sample(pairs, min(n, len(pairs)))
