"""What the notebooks of token_classification train on, measure and show, against a reference of its own.

Both notebooks run here once, on sentences that are written for it: many are longer than `max_length`, one word leaves no token, names
of the test split are partly new, and the tagger makes mistakes of every kind, so that no two numbers are equal that could be confused.
Everything that is expected is worked out from the files of the data set and from the saved weights, sentence by sentence.
"""

import ast
import json
import math
import random
import re
from collections import Counter
from functools import cache
from html import unescape
from types import SimpleNamespace

import notebooks
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from oracles import cell_that_makes, definitions
from safetensors.torch import load_file
from scripts import job
from stand_ins import WORDS
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline, set_seed

FOLDER = "token_classification"
TYPES = ["LOC", "ORG", "PER"]  # as load_splits sorts them
NAMES = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
PARAMETERS = {  # without dropout, the training can be done again; accumulation leaves a short last step
    "checkpoint": "stand-in/no-dropout", "dataset_id": "names", "max_length": 16, "num_epochs": 6, "batch_size": 4,
    "learning_rate": 1e-2, "gradient_accumulation_steps": 2, "seed": 7,
}


# ---------------------------------------------------------------------------------------------------- the run


def sentences():
    """{split: rows of `tokens` and `ner_tags`}, drawn at random. Most names of a type are made of words of its own."""
    rng = random.Random(3)
    kinds = {kind: [word.capitalize() for word in WORDS[i::6]] for i, kind in enumerate(TYPES)}
    kinds["LOC"] += ["Yxy", "Wyhe", "Oqu"]  # unknown to the tokenizer
    plain = [word for i in range(3, 6) for word in WORDS[i::6]] + 6 * ["7"]
    known = {kind: [rng.choices(kinds[kind], k=rng.choice((1, 1, 2, 2, 3))) for _ in range(12)] for kind in TYPES}
    known["ORG"] += known["LOC"][:2]  # names of two types
    known["PER"] += known["ORG"][:1]

    def row(split):
        tokens, tags = [], []
        for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
            more = rng.choices(plain, k=rng.randint(0, 3))
            kind = rng.choices(TYPES, (5, 3, 4))[0]
            is_new = split != "train" and rng.random() < 0.5
            name = rng.choices(kinds[kind], k=rng.choice((1, 2, 3))) if is_new else rng.choice(known[kind])
            tokens += [*more, *name]
            tags += ["O"] * len(more) + [f"B-{kind}"] + [f"I-{kind}"] * (len(name) - 1)
        more = rng.choices(plain + kinds["PER"], k=rng.randint(1, 4))
        return {"tokens": tokens + more, "ner_tags": tags + ["O"] * len(more)}

    rows = {split: [row(split) for _ in range(n)] for split, n in {"train": 106, "validation": 31, "test": 42}.items()}
    for split in rows:  # the tokenizer leaves nothing of the second word
        rows[split][1] = {"tokens": ["bi", "\u200b", "Bido", "Fudo", "mi"], "ner_tags": ["O", "O", "B-PER", "I-PER", "O"]}
    return rows


def keeping_what_is_shown(name):
    """A notebook as a script that also leaves the tables and the plots it shows, in `shown` and `plots`."""
    cells = notebooks.prepared(notebooks.ROOT / FOLDER / f"{name}.ipynb", PARAMETERS, f"{name}.json").cells
    sources = ["shown = []"]
    for source in (cell.source for cell in cells if cell.cell_type == "code"):
        tree = ast.parse(notebooks.python(source))
        if isinstance(tree.body[-1], ast.Expr):
            tree.body[-1] = ast.parse(f"shown.append({ast.unparse(tree.body[-1])})").body[0]
        sources.append(ast.unparse(tree))
    sources.append(
        "import matplotlib.pyplot as plt\n"
        "shown = [getattr(each, 'data', None) if type(each).__name__ == 'HTML' else each for each in shown]\n"
        "shown = [each for each in shown if isinstance(each, (str, pd.DataFrame))]\n"
        "plots = [{'title': ax.get_title(), 'x': ax.get_xlabel(), 'y': ax.get_ylabel(), 'texts': [each.get_text() for each in ax.texts],\n"
        "          'ticks': [[each.get_text() for each in axis.get_ticklabels()] for axis in (ax.xaxis, ax.yaxis)],\n"
        "          'lines': {line.get_label(): line.get_xydata() for line in ax.lines}, 'bars': [bar.get_height() for bar in ax.patches]}\n"
        "         for number in plt.get_fignums() for ax in plt.figure(number).axes]\n"
    )
    return "\n\n".join(sources)


@pytest.fixture(scope="module")
def target(scripts, tmp_path_factory):
    """The folder in which both notebooks ran."""
    target = tmp_path_factory.mktemp("oracles") / "run"
    notebooks.copy_folder(FOLDER, target)
    (target / "names").mkdir()
    for split, rows in sentences().items():
        (target / "names" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in notebooks.PAIR:
        (target / f"{name}.py").write_text(keeping_what_is_shown(name), encoding="utf-8")
    record = str(notebooks.ROOT / "tests" / "record.py")
    jobs = [job(target, record, f"{name}.py", f"{name}.record", log=f"{name}.log") for name in notebooks.PAIR]
    statuses = scripts.run(*jobs)
    assert statuses == [0, 0], "\n\n".join((target / f"{name}.log").read_text()[-3000:] for name in notebooks.PAIR)
    return target


@pytest.fixture(scope="module", params=notebooks.PAIR)
def run(request, target):
    """One of the two runs: `events` and `variables` of its record, `results` that it wrote, its `folder` and what it `printed`."""
    name = request.param
    found = SimpleNamespace(**torch.load(target / f"{name}.record", weights_only=False))
    found.results = json.loads((target / f"{name}.json").read_text())
    found.printed = [re.findall(r"\d+(?:\.\d+)?", line) for line in (target / f"{name}.log").read_text().splitlines()]
    found.name, found.folder = name, target / "outputs" / name / "run-001"
    found.best_model = AutoModelForTokenClassification.from_pretrained(found.folder / "model").eval()
    return found


def has_printed(run, *numbers):
    """Whether the log has a line with these numbers and no other, as they are written there."""
    return list(map(str, numbers)) in run.printed


def frames(run, columns):
    """The tables shown that have these columns."""
    return [table for table in run.variables["shown"] if isinstance(table, pd.DataFrame) and list(table.columns) == columns]


def pages(run, columns):
    """The tables shown as HTML that have these columns: [rows as lists of HTML]."""
    found = []
    for html in run.variables["shown"]:
        if isinstance(html, str) and re.findall(r"<th [^>]*>(.*?)</th>", html) == columns:
            rows = [re.findall(r"<td [^>]*>(.*?)</td>", row, re.S) for row in html.split("<tr")]
            found.append([row for row in rows if row])
    return found


def text_of(html):
    return unescape(re.sub(r" <small>.*?</small>|<[^>]*>", "", html))


def marked(html):
    """[(text, type)] of the entities in a highlighted sentence."""
    return [(unescape(text), kind) for text, kind in re.findall(r"<mark[^>]*>(.*?) <small><b>(.*?)</b></small></mark>", html)]


# ---------------------------------------------------------------------------------------------------- the reference


ROWS = sentences()
REFERENCES = {split: [row["ner_tags"] for row in rows] for split, rows in ROWS.items()}


def entities(tags):
    """[(type, first word, word after the last)]: a B- and the I- of its type that follow; any other I- is in no entity."""
    found, start = [], None
    for i, tag in enumerate([*tags, "O"]):
        if start is not None and tag != f"I-{tags[start][2:]}":
            found.append((tags[start][2:], start, i))
            start = None
        if tag.startswith("B-"):
            start = i
    return found


def names_of(tokens, tags):
    """[(text, type)] of the entities of a sentence."""
    return [(" ".join(tokens[start:end]), kind) for kind, start, end in entities(tags)]


def precision_recall_f1(true, predicted):
    both = len(true & predicted)
    return [both / len(predicted) if predicted else 0.0, both / len(true) if true else 0.0, 2 * both / max(len(true) + len(predicted), 1)]


def places(sentences):
    return {(i, *entity) for i, tags in enumerate(sentences) for entity in entities(tags)}


def of_type(found, kind):
    return {entity for entity in found if entity[1] == kind}


def scores(predictions, references):
    """What `score` should return, by counting entities and words."""
    true, predicted = places(references), places(predictions)
    overall = dict(zip(("precision", "recall", "f1"), precision_recall_f1(true, predicted)))
    words = [one == two for rows in zip(references, predictions) for one, two in zip(*rows)]
    overall["accuracy"] = sum(words) / len(words)
    return overall | {f"f1_{kind}": precision_recall_f1(of_type(true, kind), of_type(predicted, kind))[2] for kind in TYPES}


@cache
def tokenizer():
    return AutoTokenizer.from_pretrained(PARAMETERS["checkpoint"])


def encode(tokens):
    """Windows of a sentence: the ids of each, and {word: position of its first token} of the words that it labels.

    Each begins 10 tokens behind the one before it and has 14, so that they share 4, a quarter of 16. Each word belongs where the nearer
    end is farthest, and the two ends of the sentence are no ends in this sense.
    """
    pieces, first = [], {}
    for i, word in enumerate(tokens):
        if own := tokenizer()(word, add_special_tokens=False)["input_ids"]:
            first[i] = len(pieces)
            pieces += own
    width = PARAMETERS["max_length"] - 2
    step, starts = width - PARAMETERS["max_length"] // 4, [0]
    while starts[-1] + width < len(pieces):
        starts.append(starts[-1] + step)

    def room(start, place):
        left = place - start if start else 1000
        right = start + width - 1 - place if start != starts[-1] else 1000
        return min(left, right)

    owner = {
        word: max((s for s in starts if s <= place < s + width), key=lambda s: (room(s, place), -s)) for word, place in first.items()}
    return [
        ([tokenizer().cls_token_id, *pieces[start : start + width], tokenizer().sep_token_id],
         {word: place - start + 1 for word, place in first.items() if owner[word] == start})
        for start in starts
    ]


@cache
def windows(split):
    """All windows of a split: [(sentence, ids, {word: position of its first token})]."""
    return [(i, *window) for i, row in enumerate(ROWS[split]) for window in encode(row["tokens"])]


def labels_of(split, window):
    i, ids, first = window
    labels = [-100] * len(ids)
    for word, position in first.items():
        labels[position] = NAMES.index(ROWS[split][i]["ner_tags"][word])
    return labels


def tagged(model, split):
    """For every sentence of a split, its windows run through the model one by one: {word: its logits} of the words that have a token."""
    found = [{} for _ in ROWS[split]]
    with torch.no_grad():
        for i, ids, first in windows(split):
            logits = model(input_ids=torch.tensor([ids])).logits[0]
            found[i] |= {word: logits[position] for word, position in first.items()}
    return found


def validation_scores(model):
    """What `history` should hold of a model; words without a token are in none of its numbers."""
    predictions, references, loss, n = [], [], 0.0, 0
    for logits, tags in zip(tagged(model, "validation"), REFERENCES["validation"]):
        references.append([tags[word] for word in logits])
        predictions.append([NAMES[each.argmax()] for each in logits.values()])
        for word, each in logits.items():
            loss -= each.log_softmax(dim=-1)[NAMES.index(tags[word])].item()
            n += 1
    return {"loss": loss / n} | scores(predictions, references)


@pytest.fixture(scope="module")
def predictions(run):
    """The tags of the test split by the saved model: O for words without a token."""
    found = [["O"] * len(row["tokens"]) for row in ROWS["test"]]
    for tags, logits in zip(found, tagged(run.best_model, "test")):
        for word, each in logits.items():
            tags[word] = NAMES[each.argmax()]
    return found


def baseline():
    """The tags of the test split by the tag that a word mostly has in train."""
    seen = {}
    for row in ROWS["train"]:
        for token, tag in zip(row["tokens"], row["ner_tags"]):
            seen.setdefault(token, Counter())[tag] += 1
    return [[max(seen[token], key=seen[token].get) if token in seen else "O" for token in row["tokens"]] for row in ROWS["test"]]


def batches(run, split):
    """The windows of every batch that was drawn from a split; the splits are told apart by their sizes."""
    return tuple(tuple(event["indices"]) for event in run.events if event["kind"] == "batch" and event["size"] == len(windows(split)))


# ---------------------------------------------------------------------------------------------------- data


def test_the_first_sentence_and_the_first_eight_of_train_are_shown_with_their_tags(run):
    first = ROWS["train"][0]
    (table,) = [table for table in run.variables["shown"] if isinstance(table, pd.DataFrame) and list(table.index) == ["word", "id", "tag"]]
    ids = [NAMES.index(tag) for tag in first["ner_tags"]]
    assert table.values.tolist() == [first["tokens"][:14], ids[:14], first["ner_tags"][:14]]
    (page,) = pages(run, ["sentence"])
    assert [text_of(html) for html, in page] == [" ".join(row["tokens"]) for row in ROWS["train"][:8]]
    assert [marked(html) for html, in page] == [names_of(row["tokens"], row["ner_tags"]) for row in ROWS["train"][:8]]


def test_entities_are_counted_in_every_split(run):
    for split, tags in REFERENCES.items():
        counts = [len(of_type(places(tags), kind)) for kind in TYPES]
        assert run.variables["counts"][split].to_list() == [*counts, len(tags), sum(not entities(row) for row in tags)]
    assert run.variables["counts"].index[:3].to_list() == TYPES
    assert run.variables["num_words"] == [len(row["tokens"]) for row in ROWS["train"]]
    tags = sum(REFERENCES["train"], [])
    assert run.variables["share"] == pytest.approx(tags.count("O") / len(tags))


def in_words(row):
    return {"tokens": row["tokens"], "tags": row["ner_tags"]}


def test_unseen_names_are_those_of_test_that_train_has_not(run):
    found = {split: [(i, *name) for i, row in enumerate(rows) for name in names_of(**in_words(row))] for split, rows in ROWS.items()}
    expected = [(split, *entity) for split, rows in found.items() for entity in rows]
    assert list(run.variables["entities"].itertuples(index=False, name=None)) == expected
    in_train = {name for _, name, _ in found["train"]}
    assert list(run.variables["is_unseen"]) == [name not in in_train for _, name, _ in found["test"]]
    counts = Counter((name, kind) for split in found for _, name, kind in found[split])
    ambiguous = {name for name, _ in counts if sum((name, kind) in counts for kind in TYPES) > 1}
    assert set(run.variables["ambiguous"].index) == ambiguous and len(ambiguous) > 1
    (table,) = frames(run, TYPES)
    assert set(table.index) == set(sorted(ambiguous, key=lambda name: -sum(counts[name, kind] for kind in TYPES))[:8])
    assert table.sum(axis=1).is_monotonic_decreasing
    assert all(table.loc[name, kind] == counts[name, kind] for name in table.index for kind in TYPES)


def test_capitals_are_counted_on_words_that_do_not_begin_a_sentence(run):
    pairs = [pair for row in ROWS["train"] for pair in list(zip(row["tokens"], row["ner_tags"]))[1:] if pair[0].isalpha()]
    expected = Counter((word != word.lower(), tag != "O") for word, tag in pairs)
    (table,) = [table for table in run.variables["shown"] if isinstance(table, pd.DataFrame) and table.index.name == "capitalised"]
    assert {(row, column): table.loc[row, column] for row in table.index for column in table} == {
        (row, column): expected[row, column] for row in (False, True) for column in (False, True)}
    assert len(set(expected.values())) > 2


def test_the_table_of_subword_tokens_has_the_tag_on_the_first_of_each_word(run):
    tokens, tags = ROWS["train"][0]["tokens"], ROWS["train"][0]["ner_tags"]
    (table,) = frames(run, ["token", "word id", "label", "tag"])
    expected = [["[CLS]", "", -100, ""]]
    for i, (word, tag) in enumerate(zip(tokens, tags)):
        for j, piece in enumerate(tokenizer().tokenize(word)):
            expected.append([piece, i, -100, ""] if j else [piece, i, NAMES.index(tag), tag])
    expected.append(["[SEP]", "", -100, ""])
    assert table.values.tolist() == expected[:20]


def test_every_word_has_its_label_once_where_it_has_most_context(run):
    for split, rows in ROWS.items():
        expected, given = windows(split), run.variables["tokenized"][split]
        assert [row["input_ids"] for row in given] == [ids for _, ids, _ in expected]
        assert [row["labels"] for row in given] == [labels_of(split, window) for window in expected]
        assert run.variables["labelled_words"][split] == [list(first) for *_, first in expected]
        assert run.variables["sentence_ids"][split] == [i for i, *_ in expected]
        labelled = sorted((i, word) for i, _, first in expected for word in first)
        assert labelled == [(i, j) for i, row in enumerate(rows) for j, word in enumerate(row["tokens"]) if word != "\u200b"]
        assert len(expected) > len(rows)
        assert has_printed(run, len(rows), len(expected), 16, 1, len(labelled) + 1)
    assert max(Counter(i for i, *_ in windows("train")).values()) > 2, "some sentences have windows between two others"
    assert has_printed(run, *(len(ids) for _, ids, _ in windows("train")[:4]))
    assert has_printed(run, *(len(first) for *_, first in windows("train")[:4]))


# ---------------------------------------------------------------------------------------------------- evaluation


def test_the_baseline_is_the_most_frequent_tag_in_train(run):
    (found,) = run.results["baselines"].values()
    assert found == pytest.approx(scores(baseline(), REFERENCES["test"]), rel=1e-12)
    table = frames(run, list(found))[0]
    assert table.values.tolist() == [pytest.approx(list(found.values()), abs=6e-4)]


def test_the_test_scores_are_those_of_the_saved_model_on_whole_sentences(run, predictions):
    assert run.results["rows"] == len(windows("test"))
    expected = scores(predictions, REFERENCES["test"])
    assert run.results["metrics"] == pytest.approx(expected, rel=1e-12)
    table = frames(run, list(expected))[1]
    given = [list(scores(tags, REFERENCES["test"]).values()) for tags in (baseline(), predictions)]
    assert table.values.tolist() == [pytest.approx(row, abs=6e-4) for row in given]


def test_every_type_has_its_own_scores_and_the_number_of_its_true_entities(run, predictions):
    (table,) = [table for table in frames(run, ["precision", "recall", "f1", "entities"]) if list(table.index) == TYPES]
    true, found = places(REFERENCES["test"]), places(predictions)
    for kind in TYPES:
        expected = [*precision_recall_f1(of_type(true, kind), of_type(found, kind)), len(of_type(true, kind))]
        assert table.loc[kind].to_list() == pytest.approx(expected, abs=6e-4)


def test_a_row_of_the_confusions_is_a_true_tag(run, predictions):
    (plot,) = [plot for plot in run.variables["plots"] if plot["texts"]]
    pairs = Counter(pair for rows in zip(REFERENCES["test"], predictions) for pair in zip(*rows))
    shares = [pairs[true, found] / sum(pairs[true, each] for each in NAMES) for true in NAMES for found in NAMES]
    assert list(map(float, plot["texts"])) == pytest.approx(shares, abs=6e-3)  # those that are hidden, too
    assert plot["ticks"] == [NAMES, NAMES] and (plot["x"], plot["y"]) == ("predicted", "true")


def side_by_side(rows, predictions):
    return [[names_of(ROWS["test"][i]["tokens"], tags[i]) for tags in (REFERENCES["test"], predictions)] for i in rows]


def test_the_true_entities_are_on_the_left_and_the_predicted_on_the_right(run, predictions):
    (page,) = pages(run, ["true", "predicted"])
    assert [[marked(html) for html in row] for row in page] == side_by_side(range(6), predictions)
    assert [text_of(true) for true, _ in page] == [" ".join(row["tokens"]) for row in ROWS["test"][:6]]


def mistakes(references, predictions):
    """[(kind, true entity or None, predicted entities)], word by word: what is predicted on the words of each true entity, and where."""
    owner = {word: entity for entity in entities(predictions) for word in range(*entity[1:])}
    true_words = {word for entity in entities(references) for word in range(*entity[1:])}
    found = []
    for true in entities(references):
        over = list(dict.fromkeys(owner[word] for word in range(*true[1:]) if word in owner))
        if over == [true]:
            continue
        kinds, borders = [kind for kind, *_ in over], [span for _, *span in over]
        kind = "missed" if not over else "wrong type" if [*true[1:]] in borders else "wrong borders" if true[0] in kinds else None
        found.append((kind or "wrong type and borders", true, over))
    return found + [("spurious", None, [entity]) for entity in entities(predictions) if not true_words & set(range(*entity[1:]))]


def told(row, kind, true, predicted):
    names = [[f"{' '.join(row['tokens'][a:b])} ({each})" for each, a, b in entities] for entities in ([true] if true else [], predicted)]
    return [kind, *map(", ".join, names)]


def test_mistakes_are_of_their_kind(run, predictions):
    expected = [told(row, *each) for row, *tags in zip(ROWS["test"], REFERENCES["test"], predictions) for each in mistakes(*tags)]
    assert run.variables["mistakes"].values.tolist() == expected
    (page,) = pages(run, ["mistake", "true", "predicted"])
    four = [row for kind in sorted({kind for kind, *_ in expected}) for row in [row for row in expected if row[0] == kind][:4]]
    assert [[text_of(cell) for cell in row] for row in page] == four


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_mistakes_in_tags_at_random_are_of_their_kind(name):
    common, rng = notebooks.common_of(FOLDER), random.Random(0)
    references, predictions = ([rng.choices(NAMES[:5], (2, 1, 3, 1, 3), k=7) for _ in range(400)] for _ in range(2))
    rows = [{"tokens": list("abcdefg")}] * 400
    tokens = {"test": {"tokens": [row["tokens"] for row in rows]}}
    given = {"common": common, "pd": pd, "dataset": tokens, "test_references": references, "test_predictions": predictions}
    found = cell_that_makes(FOLDER, name, "mistakes", **given)["mistakes"]
    expected = [told(row, *each) for row, *tags in zip(rows, references, predictions) for each in mistakes(*tags)]
    assert found.values.tolist() == expected


def test_recall_of_names_in_train_and_of_unseen_ones(run, predictions):
    in_train = {name for row in ROWS["train"] for name, _ in names_of(**in_words(row))}
    found = {}
    for row, tags, predicted in zip(ROWS["test"], REFERENCES["test"], predictions):
        for (kind, *span), (name, _) in zip(entities(tags), names_of(**in_words(row))):
            key = ("in train" if name in in_train else "unseen", kind)
            found.setdefault(key, []).append((kind, *span) in entities(predicted))
    (table,) = frames(run, ["recall", "entities"])
    assert set(table.index) == set(found)
    for key, each in found.items():
        assert table.loc[key].to_list() == pytest.approx([sum(each) / len(each), len(each)], abs=6e-3)


def test_losses_of_sentences_are_those_of_the_library(run, predictions):
    by_row = []
    for row, logits in zip(ROWS["test"], tagged(run.best_model, "test")):
        losses = [-each.log_softmax(dim=-1)[NAMES.index(row["ner_tags"][word])].item() for word, each in logits.items()]
        by_row.append(sum(losses) / len(losses))
    assert run.variables["sentence_losses"].tolist() == pytest.approx(by_row, rel=1e-4)
    worst = sorted(range(len(by_row)), key=lambda i: -by_row[i])[:6]
    (page,) = pages(run, ["loss", "true", "predicted"])
    assert [float(loss) for loss, _, _ in page] == pytest.approx([by_row[i] for i in worst], abs=6e-3)
    assert [[marked(html) for html in row[1:]] for row in page] == side_by_side(worst, predictions)


# ---------------------------------------------------------------------------------------------------- inference and common mistakes


def found_by(run, texts, strategy):
    short = AutoTokenizer.from_pretrained(PARAMETERS["checkpoint"], model_max_length=PARAMETERS["max_length"])
    find = pipeline("token-classification", model=run.best_model, tokenizer=short, aggregation_strategy=strategy, stride=4)
    return [{(each["start"], each["end"], each["entity_group"]) for each in find(text)} for text in texts]


def in_characters(tokens, tags):
    begins = [len(" ".join(tokens[:i])) + (i > 0) for i in range(len(tokens))]
    return {(begins[a], begins[b - 1] + len(tokens[b - 1]), kind) for kind, a, b in entities(tags)}


def test_the_strategies_are_those_they_are_called_and_scored_as_characters(run, predictions):
    texts = [" ".join(row["tokens"]) for row in ROWS["test"]]
    true, words = (
        [in_characters(row["tokens"], tags) for row, tags in zip(ROWS["test"], rows)] for rows in (REFERENCES["test"], predictions))
    expected = {strategy: found_by(run, texts, strategy) for strategy in ("first", "average", "simple")} | {"one tag per word": words}
    assert run.variables["strategies"] == expected
    (page,) = pages(run, ["strategy", "predicted entities", "true entities", "correct", "F1"])
    assert [row[0] for row in page] == list(expected)
    for (_, *numbers), found in zip(page, expected.values()):
        counts = [sum(map(len, found)), sum(map(len, true)), sum(len(a & b) for a, b in zip(found, true))]
        assert list(map(float, numbers)) == pytest.approx([*counts, 2 * counts[2] / (counts[0] + counts[1])], abs=6e-4)
    assert len({row[1] for row in page}) == 4


def test_words_are_tagged_by_the_saved_model_as_in_the_evaluation(run, predictions):
    assert run.variables["agreement"] == [True] * 32 and run.variables["test_predictions"] == predictions


def test_the_new_text_is_read_with_the_first_strategy(run):
    (page,) = pages(run, ["text", "type", "score", "word", "start", "end"])
    text = run.variables["text"]
    assert {(int(row[4]), int(row[5]), row[1]) for row in page} == found_by(run, [text], "first")[0]
    assert [row[0] for row in page] == [text[int(row[4]) : int(row[5])] for row in page]


def test_tags_copied_to_every_token_are_scored_as_they_are(run, predictions):
    def copied(rows, going_on):
        found = []
        for row, tags in zip(ROWS["test"], rows):
            counts = [len(tokenizer().tokenize(word)) for word in row["tokens"]]
            parts = [[tag] + [tag if tag[0] != "B" else going_on + tag[1:]] * (n - 1) for tag, n in zip(tags, counts) if n]
            found.append(sum(parts, []))
        return found

    (table,) = frames(run, ["true entities", "precision", "recall", "f1"])
    assert [name[:2] for name in table.index[1:]] == ["B-", "I-"]
    ways = [(predictions, REFERENCES["test"]), *([copied(rows, each) for rows in (predictions, REFERENCES["test"])] for each in "BI")]
    for values, (guesses, references) in zip(table.values.tolist(), ways, strict=True):
        found = scores(guesses, references)
        expected = [len(places(references)), found["precision"], found["recall"], found["f1"]]
        assert values == pytest.approx(expected, abs=6e-4)


def test_swapped_arguments_swap_precision_and_recall_and_nothing_else(run):
    (table,) = frames(run, [f"overall_{key}" for key in ("precision", "recall", "f1", "accuracy")])
    precision, recall, f1 = precision_recall_f1(places(REFERENCES["test"]), places(baseline()))
    pairs = [pair for rows in zip(REFERENCES["test"], baseline()) for pair in zip(*rows)]
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    assert table.loc["correct"].to_list() == pytest.approx([precision, recall, f1, accuracy], abs=6e-4)
    assert table.loc["swapped"].to_list() == pytest.approx([recall, precision, f1, accuracy], abs=6e-4)


# ---------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_the_loss_of_a_batch_alone_is_that_of_the_library(name):
    compute_loss = definitions(FOLDER, name, "compute_loss", F=F)
    torch.manual_seed(0)
    outputs = SimpleNamespace(logits=torch.randn(3, 5, 4))
    labels = torch.tensor([[-100, 1, 2, -100, 3], [0, 0, -100, -100, -100], [-100] * 5])
    kept = labels.flatten() != -100
    expected = F.cross_entropy(outputs.logits.flatten(0, 1)[kept], labels.flatten()[kept])
    n = kept.sum()
    assert compute_loss(outputs, labels, n).item() == pytest.approx(expected.item(), rel=1e-6)
    assert compute_loss(outputs, labels, torch.tensor(20)).item() == pytest.approx(expected.item() * 5 / 20, rel=1e-6)


def padded(indices):
    """Ids, attention mask and labels of windows of train."""
    chosen = [windows("train")[i] for i in indices]
    ids, labels = [ids for _, ids, _ in chosen], [labels_of("train", window) for window in chosen]
    width = max(map(len, ids))
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in ids]
    ids, labels = ([row + [fill] * (width - len(row)) for row in rows] for rows, fill in ((ids, tokenizer().pad_token_id), (labels, -100)))
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(labels)


def untrained():
    set_seed(PARAMETERS["seed"])
    return AutoModelForTokenClassification.from_pretrained(PARAMETERS["checkpoint"], num_labels=len(NAMES), dtype=torch.float32)


def test_the_loss_before_training_is_that_of_a_new_head(run):
    ids, mask, labels = padded(range(32))
    with torch.no_grad():
        loss = untrained().eval()(input_ids=ids, attention_mask=mask, labels=labels).loss.item()
    assert has_printed(run, 32, ids.shape[1], 7) and has_printed(run, f"{loss:.2f}", 7, f"{math.log(7):.2f}")


@cache
def trained_again(batches):
    """The training done again on these rows: its `losses`, and the `history` and the `weights` of every epoch.

    AdamW on the mean loss of all words of a step, gradients clipped to norm 1, decay on matrices only, warm-up and then linear decay.
    """
    size, per_epoch = PARAMETERS["gradient_accumulation_steps"], len(batches) // PARAMETERS["num_epochs"]
    total = math.ceil(per_epoch / size) * PARAMETERS["num_epochs"]
    warm, found = math.ceil(total / 10), SimpleNamespace(losses=[], history=[], weights=[])
    model = untrained().train()
    optimizer = torch.optim.AdamW([
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ], fused=True)
    for epoch in range(PARAMETERS["num_epochs"]):
        rows = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        for step in (rows[i : i + size] for i in range(0, per_epoch, size)):
            done = len(found.losses)
            for group in optimizer.param_groups:
                group["lr"] = PARAMETERS["learning_rate"] * (done / warm if done < warm else (total - done) / (total - warm))
            given, loss = list(map(padded, step)), 0.0
            n = sum((labels != -100).sum() for _, _, labels in given)
            for ids, mask, labels in given:
                logits = model(input_ids=ids, attention_mask=mask).logits
                part = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / n
                part.backward()
                loss += part.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            found.losses.append(loss)
        found.history.append(validation_scores(model))
        found.weights.append({name: weight.clone() for name, weight in model.state_dict().items()})
    return found


def real(drawn):
    """Without the batches of the plain training of one epoch, which comes first."""
    return drawn[math.ceil(len(windows("train")) / PARAMETERS["batch_size"]) :]


@pytest.fixture(scope="module")
def again(run):
    return trained_again(real(batches(run, "train")))


def test_the_model_is_trained_on_every_window_once_per_epoch(run):
    drawn, n = real(batches(run, "train")), len(windows("train"))
    calls = real([event for event in run.events if event["kind"] == "forward" and event["grad"]])
    for call, indices in zip(calls, drawn, strict=True):
        ids, mask, _ = padded(indices)
        assert call["training"] and torch.equal(call["inputs"]["input_ids"], ids) and torch.equal(call["inputs"]["attention_mask"], mask)
    order = sum(drawn, ())
    epochs = [order[i : i + n] for i in range(0, len(order), n)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(n))] * PARAMETERS["num_epochs"] and len(set(epochs)) == len(epochs)
    per_epoch = len(drawn) // len(epochs)
    assert [len(batch) for batch in drawn[:per_epoch]] == [PARAMETERS["batch_size"]] * (per_epoch - 1) + [1]
    assert per_epoch % PARAMETERS["gradient_accumulation_steps"], "the last step of an epoch is a short one"


def test_training_done_again_has_the_same_losses_and_scores(run, again):
    assert run.results["losses"] == pytest.approx(again.losses, rel=1e-4)
    history = [dict(entry) for entry in run.results["history"]]
    assert [entry.pop("epoch") for entry in history] == list(range(1, PARAMETERS["num_epochs"] + 1))
    for found, expected in zip(history, again.history, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_saved_model_is_that_of_the_first_epoch_with_the_best_f1(run, again):
    f1s = [entry["f1"] for entry in again.history]
    for name, weight in load_file(run.folder / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight, again.weights[f1s.index(max(f1s))][name], rtol=1e-3, atol=1e-4)


def test_nothing_is_predicted_with_dropout_and_no_row_twice(run):
    calls = [event for event in run.events if event["kind"] == "forward" and not event["grad"]]
    assert calls and not any(event["training"] for event in calls)
    plain = run.name == "trainer_api"  # whose plain training is evaluated, too
    for split, times in {"validation": PARAMETERS["num_epochs"] + plain, "test": 1}.items():
        drawn, n = sum(batches(run, split), ()), len(windows(split))
        assert [sorted(drawn[i : i + n]) for i in range(0, len(drawn), n)] == [list(range(n))] * times


def test_the_history_of_the_best_epoch_is_that_of_the_saved_model(run):
    best = max(run.results["history"], key=lambda entry: entry["f1"])
    expected = validation_scores(run.best_model)
    assert {key: value for key, value in best.items() if key != "epoch"} == pytest.approx(expected, rel=1e-5)


def test_the_curves_are_those_of_losses_and_history(run):
    lines = [(label, points.tolist()) for plot in run.variables["plots"] for label, points in plot["lines"].items()]
    losses, history = run.results["losses"], run.results["history"]
    assert [[float(i + 1), loss] for i, loss in enumerate(losses)] in [points for _, points in lines]
    for key in history[0].keys() - {"epoch", "precision", "recall", "accuracy"}:
        assert dict(lines)[key] == [[entry["epoch"], entry[key]] for entry in history]


def test_no_two_numbers_that_could_be_confused_are_the_same_here(run, predictions):
    """Else the tests below could not tell them apart; choose another seed then."""
    true, found, tags = places(REFERENCES["test"]), places(predictions), REFERENCES["test"]
    assert len(set(scores(predictions, tags).values())) == 7
    assert len(set(scores(baseline(), tags).values())) == 7
    owner = {(i, word): number for number, (i, _, first) in enumerate(windows("test")) for word in first}
    assert any(owner[i, a] != owner[i, b - 1] for i, _, a, b in true), "names lie across the border of two windows"
    assert any(tag[0] == "I" and not any(a <= i < b for _, a, b in entities(row)) for row in predictions for i, tag in enumerate(row))
    assert len({len(of_type(each, kind)) for each in (true, found) for kind in TYPES}) > 4
    f1s = [entry["f1"] for entry in run.results["history"]]
    assert f1s.index(max(f1s)) < len(f1s) - 1, "the best epoch is not the last"
    assert {kind for row in zip(tags, predictions) for kind, *_ in mistakes(*row)} == {
        "wrong type", "wrong borders", "wrong type and borders", "missed", "spurious"}
