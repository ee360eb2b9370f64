"""Make train.jsonl, validation.jsonl and test.jsonl from the sentences in marked/, and check every tag.

    python make_files.py

marked/ has one sentence per line, with each entity in square brackets after its type, as in

    [PER Ana Duarte] teaches at the [ORG University of Porto] in [LOC Portugal].

The files have one JSON object per line: `tokens`, a list of words and punctuation marks, and `ner_tags`, one IOB2 tag for
each: B- on the first word of an entity, I- on the others, O outside.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
SPLITS = ("train", "validation", "test")
TYPES = ("PER", "ORG", "LOC", "MISC")
NAMES = ["O"] + [f"{prefix}-{kind}" for kind in TYPES for prefix in "BI"]

MARK = re.compile(r"\[(\w+) ([^\[\]]+)\]")
# a word with the punctuation that may stand inside it; or an abbreviation, a possessive, an ellipsis, any other single mark
TOKEN = re.compile(
    r"(?:[^\W\d_]\.){2,}|\b(?:Mr|Mrs|Ms|Dr|St|Mt|Prof|Gov|Sen|Rep|Lt|Col|Gen|Capt|Sgt|Inc|Ltd|Co|Corp|Jr|Sr|No|vs)\.(?=\s+\S)"
    r"|\b[A-Z]\.(?=\s[A-Z])|'s\b|\w+(?:(?!'s\b)[-.,:/&'–]\w+)*|\.\.\.|\S"
)


def parse(line: str) -> tuple[list[str], list[str]]:
    """Tokens and tags of a marked-up sentence. Raises ValueError if a mark is malformed or cuts through a word."""
    spans, plain, end = [], "", 0  # (start, end, type) of each entity in the plain text
    for mark in MARK.finditer(line):
        kind, words = mark.groups()
        if kind not in TYPES or words != " ".join(words.split()):
            raise ValueError(f"{mark[0]}: write [TYPE words], with type one of {', '.join(TYPES)} and one space between words")
        plain += line[end : mark.start()]
        spans.append((len(plain), len(plain) + len(words), kind))
        plain += words
        end = mark.end()
    plain += line[end:]
    if "[" in plain or "]" in plain:
        raise ValueError(f"a bracket that is not part of a mark: {plain}")

    found = list(TOKEN.finditer(plain))
    tokens, tags = [token[0] for token in found], ["O"] * len(found)
    for start, end, kind in spans:
        inside = [i for i, token in enumerate(found) if token.start() < end and token.end() > start]
        if (found[inside[0]].start(), found[inside[-1]].end()) != (start, end):
            raise ValueError(f"{plain[start:end]!r} begins or ends inside a word of {[tokens[i] for i in inside]}")
        tags[inside[0]] = f"B-{kind}"
        for i in inside[1:]:
            tags[i] = f"I-{kind}"
    check(tokens, tags)
    return tokens, tags


def check(tokens: list[str], tags: list[str]) -> None:
    """Raise ValueError unless there is a known tag for each token, and every I- continues an entity of its type."""
    if not tokens or len(tokens) != len(tags):
        raise ValueError(f"{len(tokens)} tokens and {len(tags)} tags")
    for before, tag in zip(["O", *tags], tags):
        if tag not in NAMES:
            raise ValueError(f"the tag {tag} is not one of {NAMES}")
        if tag.startswith("I-") and before[2:] != tag[2:]:
            raise ValueError(f"{tag} follows {before}")


def read(split: str) -> list[dict]:
    """The rows of a split. Raises ValueError with file and line if a sentence is malformed or appears twice."""
    rows, lines = [], {}
    for number, line in enumerate((HERE / "marked" / f"{split}.txt").read_text(encoding="utf-8").splitlines(), start=1):
        try:
            tokens, tags = parse(line)
            if line in lines:
                raise ValueError(f"the same sentence as in line {lines[line]}")
        except ValueError as error:
            raise ValueError(f"marked/{split}.txt, line {number}: {error}") from error
        lines[line] = number
        rows.append({"tokens": tokens, "ner_tags": tags})
    return rows


def main() -> None:
    made = {split: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in read(split)) for split in SPLITS}
    for split, text in made.items():  # nothing is written unless all splits are correct
        (HERE / f"{split}.jsonl").write_text(text, encoding="utf-8")
        print(f"{split}.jsonl: {text.count(chr(10))} sentences, {text.count(chr(34) + 'B-')} entities")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))
