"""The data of token_classification/ keep what their card says, and its helpers refuse what is wrong."""

import importlib.util
import json
import re
from collections import defaultdict
from functools import cache
from types import SimpleNamespace

import evaluate
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stand_ins
import torch
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset
from datasets.exceptions import DatasetGenerationError
from hypothesis import given, settings
from hypothesis import strategies as st
from notebooks import PAIR, ROOT, common_of
from oracles import cell_that_makes, definitions
from transformers import AutoTokenizer

FOLDER = ROOT / "token_classification"
SIZES = {"train": 720, "validation": 120, "test": 262}
NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]

common = common_of("token_classification")
spec = importlib.util.spec_from_file_location("make_files", FOLDER / "data" / "make_files.py")
make_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_files)


# ---------------------------------------------------------------------------------------------------- the data


@pytest.fixture(scope="module")
def data():
    return load_dataset(str(FOLDER / "data"))


@pytest.fixture(scope="module")
def mentions(data):
    """The entities of every split: the row, the name and the type."""
    found = {}
    for split, rows in data.items():
        tagged = [(i, row["tokens"], common.spans([NAMES[tag] for tag in row["ner_tags"]])) for i, row in enumerate(rows)]
        entities = [(i, " ".join(tokens[start:end]), kind) for i, tokens, spans in tagged for kind, start, end in spans]
        found[split] = pd.DataFrame(entities, columns=["row", "name", "type"])
    return found


def words(tokens):
    return [token.lower() for token in tokens if re.match(r"\w", token)]


def shared_runs(splits, n):
    """Runs of n words that occur in more than one split, with the splits."""
    places = defaultdict(set)
    for split, sentences in splits.items():
        for tokens in sentences:
            for run in zip(*(words(tokens)[i:] for i in range(n))):
                places[" ".join(run)].add(split)
    return {run: found for run, found in places.items() if len(found) > 1}


def openings(sentences, n, most):
    """The first n words of sentences, where more than `most` begin with them."""
    found = defaultdict(int)
    for tokens in sentences:
        found[tuple(words(tokens)[:n])] += 1
    return {opening: count for opening, count in found.items() if count > most}


def test_splits_columns_and_names(data):
    assert {split: len(data[split]) for split in data} == SIZES
    for rows in data.values():
        assert rows.column_names == ["tokens", "ner_tags"]
        assert rows.features["ner_tags"].feature.names == NAMES


def test_the_files_are_made_from_the_marked_sentences():
    for split in SIZES:
        made = [json.loads(line) for line in (FOLDER / "data" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert made == make_files.read(split), "run data/make_files.py"


def test_entities_are_many_and_mostly_new_in_test(data, mentions):
    assert sum(map(len, mentions.values())) >= 1500
    for split, table in mentions.items():
        assert len(data[split]) - table["row"].nunique() >= len(data[split]) / 6 - 1, "a sixth of the sentences has no entity"
        assert table["type"].value_counts(normalize=True).min() > 0.15, "no type is rare"
    assert (~mentions["test"]["name"].isin(set(mentions["train"]["name"]))).mean() >= 0.5


def test_names_are_hard_in_the_ways_that_the_card_says(data, mentions):
    types = defaultdict(set)
    for table in mentions.values():
        for name, kind in zip(table["name"], table["type"]):
            types[name].add(kind)
    assert sum(len(kinds) > 1 for kinds in types.values()) >= 10, "the same name is a person here and a place or company there"
    assert sum(" " in name for name in types) > 0.3 * len(types), "names of several words"
    assert sum(name[0].islower() for name in types) > 30, "lower-case brands and names in chat"
    assert sum(bool(re.search(r"\b(of|for) (the )?[A-Z]", name)) for name in types) > 60, "a place inside of an organisation"
    first = [rows["tokens"][0] for split in data.values() for rows in split if rows["ner_tags"][0] == 0]
    assert {"Rose", "Grace", "Will", "Mark", "Hope"} <= set(first), "words that begin a sentence and only look like names"


def test_splits_do_not_overlap(data):
    sentences = {split: data[split]["tokens"][:] for split in data}
    assert shared_runs(sentences, 6) == {}
    assert openings([tokens for split in sentences.values() for tokens in split], 3, most=2) == {}


def test_these_two_checks_find_what_they_look_for():
    one, two = "We left the keys on a table .".split(), "Who left the keys on this floor ?".split()
    assert set(shared_runs({"train": [one], "test": [two]}, 4)) == {"left the keys on"}
    assert shared_runs({"train": [one], "test": [two]}, 5) == {}
    assert openings([one, one, two], 2, most=1) == {("we", "left"): 2}


@pytest.mark.parametrize(
    "line, tokens, tags",
    [
        ("[PER Ana Duarte]'s hat.", ["Ana", "Duarte", "'s", "hat", "."], ["B-PER", "I-PER", "O", "O", "O"]),
        ("[ORG A. B.] [LOC U.S.]", ["A.", "B.", "U.S."], ["B-ORG", "I-ORG", "B-LOC"]),
        ("[PER Lim], [PER Ray]", ["Lim", ",", "Ray"], ["B-PER", "O", "B-PER"]),
        ("a [MISC Sri Lankan-born] vet", ["a", "Sri", "Lankan-born", "vet"], ["O", "B-MISC", "I-MISC", "O"]),
        ("It rains.", ["It", "rains", "."], ["O", "O", "O"]),
    ],
)
def test_marks_become_tokens_and_tags(line, tokens, tags):
    assert make_files.parse(line) == (tokens, tags)


@pytest.mark.parametrize(
    "line, message",
    [
        ("[GPE Oslo] is cold.", "with type one of PER, ORG, LOC, MISC"),
        ("[LOC  Oslo] is cold.", "one space between words"),
        ("[LOC Oslo is cold.", "a bracket that is not part of a mark"),
        ("[LOC Oslo]ites are cold.", "begins or ends inside a word"),
        ("", "0 tokens"),
    ],
)
def test_wrong_marks_are_refused(line, message):
    with pytest.raises(ValueError, match=message):
        make_files.parse(line)


def test_make_files_names_the_line_and_writes_nothing(tmp_path, monkeypatch):
    (tmp_path / "marked").mkdir()
    monkeypatch.setattr(make_files, "HERE", tmp_path)
    for split, text in {"train": "[LOC Oslo] is cold.\n", "validation": "Rain.\nRain.\n", "test": "Snow.\n"}.items():
        (tmp_path / "marked" / f"{split}.txt").write_text(text)
    with pytest.raises(ValueError, match=r"marked/validation.txt, line 2: the same sentence as in line 1"):
        make_files.main()
    assert not list(tmp_path.glob("*.jsonl"))


# ---------------------------------------------------------------------------------------------------- loading


GOOD = {"tokens": [["Ana", "left", "Oslo"], ["It", "rains"]], "ner_tags": [["B-PER", "O", "B-LOC"], ["O", "O"]]}
CARD = """---
dataset_info:
  features:
  - name: tokens
    sequence: string
  - name: ner_tags
    sequence:
      class_label:
        names: {'0': O, '1': B-PER, '2': I-PER}
---
"""


def folder_of(path, card="", **splits):
    """A folder with a JSON lines file per split. Splits not given are good, None is left out."""
    path.mkdir(exist_ok=True)
    for split, columns in ({split: GOOD for split in SIZES} | splits).items():
        if columns is not None:
            rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
            (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if card:
        (path / "README.md").write_text(card)
    return str(path)


def row(tokens, tags):
    return {"tokens": [tokens], "ner_tags": [tags]}


def load(path, columns=None):
    """The splits, and the names of the tags."""
    loaded = common.load_splits(str(path), None, columns or {})
    return loaded, loaded["train"].features["ner_tags"].feature.names


def test_tags_may_be_words(tmp_path):
    loaded, names = load(folder_of(tmp_path))
    assert names == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert loaded["test"]["ner_tags"][:] == [[3, 0, 1], [0, 0]]


def test_tags_may_be_named_in_the_card(tmp_path):
    numbers = {split: row(["Ana", "B.", "left"], [1, 2, 0]) for split in SIZES}
    assert load(folder_of(tmp_path, card=CARD, **numbers))[1] == ["O", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"test": row(["a", "b"], ["O"])}, r"row 0 of split 'test' has 2 words and 1 tags: give every word one tag"),
        ({"test": row(["a", "b"], ["O", None])}, r"row 0 of split 'test' has a word without a tag: \[\('a', 'O'\), \('b', None\)\]"),
        ({split: row(["a", "b"], [3, -100]) for split in SIZES}, r"row 0 of split 'train' has a word without a tag"),
        ({split: {"tokens": ["abc"], "ner_tags": [["O"] * 3]} for split in SIZES}, r"has the words 'abc' .* lists are needed"),
        ({split: {"tokens": ["a b"], "ner_tags": ["O O"]} for split in SIZES}, r"the tags 'O O', and lists are needed"),
        ({split: row(["a", "b"], ["O", "O"]) for split in SIZES}, r"all words of 'train' have the same tag, \['O'\]"),
    ],
)
def test_data_that_would_train_on_garbage_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        load(folder_of(tmp_path / "data", **wrong))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({split: row(["Ana"], [7]) for split in SIZES} | {"card": CARD}, "label 7|greater than configured num_classes"),
        ({split: {"words": [["a"]], "ner_tags": [["O"]]} for split in SIZES}, r"'tokens'.*'words'"),
    ],
)
def test_the_library_or_the_loader_refuses_the_rest_and_names_the_problem(tmp_path, wrong, message):
    with pytest.raises(Exception, match=message) as error:
        load(folder_of(tmp_path / "data", **wrong))
    assert isinstance(error.value, (ValueError, DatasetGenerationError))


def test_a_type_that_train_lacks_is_a_type_all_the_same(tmp_path):
    loaded, names = load(folder_of(tmp_path, test=row(["Oslo", "x"], ["B-GPE", "O"])))
    assert names == ["O", "B-GPE", "I-GPE", "B-LOC", "I-LOC", "B-PER", "I-PER"] and loaded["test"]["ner_tags"][:] == [[1, 0]]


def test_splits_may_number_their_tags_differently(tmp_path):
    """Parquet files of their own each have the names of their own tags, and the same number means another one."""
    for split, names in {"train": ["O", "B-LOC", "B-PER"], "validation": ["O", "B-PER"], "test": ["B-PER", "O"]}.items():
        features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
        Dataset.from_dict(row(["Ana", "x"], ["B-PER", "O"]), features=features).to_parquet(tmp_path / f"{split}.parquet")
    loaded, names = load(tmp_path)
    assert all([names[tag] for tag in rows["ner_tags"][0]] == ["B-PER", "O"] for rows in loaded.values())


def test_lists_as_polars_writes_them(tmp_path):
    strings = pa.large_list(pa.large_string())
    table = pa.table({name: pa.array(rows, strings) for name, rows in GOOD.items()})
    for split in SIZES:
        pq.write_table(table, tmp_path / f"{split}.parquet")
    loaded, names = load(tmp_path)
    assert loaded["train"].features["tokens"] == List(Value("string")) and loaded["train"]["ner_tags"][:] == [[3, 0, 1], [0, 0]]


# ---------------------------------------------------------------------------------------------------- tags


@pytest.mark.parametrize(
    "given, expected",
    [
        ("O I-PER I-PER O B-PER I-PER", "O B-PER I-PER O B-PER I-PER"),  # IOB1
        ("I-PER B-PER I-PER I-LOC O O", "B-PER B-PER I-PER B-LOC O O"),  # IOB1: B- only where two of a type are neighbours
        ("B-PER E-PER S-LOC O B-X I-X E-X S-X", "B-PER I-PER B-LOC O B-X I-X I-X B-X"),  # BIOES
        ("B-PER L-PER U-LOC O B-X I-X L-X U-X", "B-PER I-PER B-LOC O B-X I-X I-X B-X"),  # BILOU
        ("B-PER M-PER E-PER W-LOC O", "B-PER I-PER I-PER B-LOC O"),  # BMEWO
        ("B I O B B", "B-entity I-entity O B-entity B-entity"),
        ("B_PER I_PER O", "B-PER I-PER O"),
        ("B-A-b I-A-b O I-A-c", "B-A-b I-A-b O B-A-c"),
        ("O B-PER I-PER B-PER I-LOC", "O B-PER I-PER B-PER B-LOC"),
    ],
)
def test_every_scheme_of_spans_is_read_as_iob2(tmp_path, capsys, given, expected):
    given, expected = given.split(), expected.split()
    loaded, names = load(folder_of(tmp_path, **{split: row(["w"] * len(given), given) for split in SIZES}))
    assert [names[tag] for tag in loaded["test"]["ner_tags"][0]] == expected and common.is_iob2(names)
    changed = 3 * sum(one != two for one, two in zip(given, expected))
    assert (f"{changed} tags are converted to IOB2" in capsys.readouterr().out) == (changed > 0)


def test_named_tags_in_another_scheme_are_read_too(tmp_path):
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=["O", "S-PER", "B-LOC", "E-LOC"]))})
    for split in SIZES:
        Dataset.from_dict(row(["Ana", "New", "York", "x"], [1, 2, 3, 0]), features=features).to_parquet(tmp_path / f"{split}.parquet")
    loaded, names = load(tmp_path)
    assert names == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"] and loaded["train"]["ner_tags"][:] == [[1, 3, 4, 0]]


@pytest.mark.parametrize(
    "given, names, said",
    [
        (["NOUN", "VERB", "X"], ["NOUN", "VERB", "X"], "scored by itself: NOUN, VERB, X"),
        (["PER", "O", "O"], ["O", "PER"], "every tag needs a prefix, such as B-, or is O; these have none: ['PER']"),
        ([10, 2, 0], ["0", "2", "10"], "If these numbers mean spans, name them"),
        (["B", "E", "S"], ["B", "E", "S"], "scored by itself: B, E, S"),
    ],
)
def test_other_tags_are_plain_and_that_is_said(tmp_path, capsys, given, names, said):
    loaded, found = load(folder_of(tmp_path, **{split: row(["a", "b", "c"], given) for split in SIZES}))
    assert found == names and not common.is_iob2(found) and said in capsys.readouterr().out
    assert [found[tag] for tag in loaded["train"]["ner_tags"][0]] == list(map(str, given))


def test_words_without_a_sign_stay_and_rows_of_such_words_go(tmp_path, capsys):
    blank = {"tokens": [["a", "", "b", None], ["\u200b", " "], []], "ner_tags": [["B-X", "I-X", "O", "O"], ["O", "O"], []]}
    loaded, _ = load(folder_of(tmp_path, train=blank))
    assert loaded["train"]["tokens"][:] == [["a", "", "b", ""]]
    assert "2 rows of 'train' have no word that can be seen" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- alignment


KINDS = {"WordPiece": stand_ins.word_piece, "byte-level BPE": stand_ins.byte_level, "Unigram": stand_ins.unigram}


def as_in_the_notebook(checkpoint):
    """The tokenizer that the cell of the notebook makes."""
    config = SimpleNamespace(from_pretrained=lambda _: SimpleNamespace(model_type="any", max_position_embeddings=512))
    given = {
        "AutoTokenizer": AutoTokenizer, "AutoConfig": config, "checkpoint": str(checkpoint), "first_words": ["ba"], "common": common,
        "max_length": 128,
    }
    return cell_that_makes("token_classification", PAIR[0], "tokenizer", **given)["tokenizer"]


@cache
def tokenizer_of(kind, folder):
    if kind == "all-MiniLM-L6-v2":
        return as_in_the_notebook("sentence-transformers/all-MiniLM-L6-v2")
    KINDS[kind]().save_pretrained(folder / kind)
    return as_in_the_notebook(folder / kind)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


WORD = st.one_of(
    st.sampled_from(stand_ins.WORDS), st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12)
)
SENTENCES = st.lists(st.lists(st.tuples(WORD, st.integers(0, len(NAMES) - 1)), min_size=1, max_size=20), min_size=1, max_size=4)


def tokenized(tokens, tags, tokenizer, max_length):
    return common.tokenize_and_align({"tokens": tokens, "ner_tags": tags}, list(range(len(tokens))), tokenizer, max_length)


@pytest.mark.parametrize("kind", [*KINDS, "all-MiniLM-L6-v2"])
@given(sentences=SENTENCES, max_length=st.integers(3, 40))
@settings(max_examples=60, deadline=None)
def test_what_is_aligned_reads_back(hub, saved, kind, sentences, max_length):
    """Whatever the words, the tags and the windows: what is read back is the tag of every word that has a token, once and in order."""
    tokenizer = tokenizer_of(kind, saved)
    tokens, tags = [[w for w, _ in s] for s in sentences], [[t for _, t in s] for s in sentences]
    encoded = tokenized(tokens, tags, tokenizer, max_length)
    assert all(len(ids) == len(labels) <= max_length for ids, labels in zip(encoded["input_ids"], encoded["labels"]))
    found = common.join_windows(common.read_tags(encoded["labels"], encoded["labels"], NAMES), encoded["sentence"])
    kept = [[] for _ in tokens]
    for sentence, words in zip(encoded["sentence"], encoded["labelled_words"]):
        kept[sentence] += words
    assert found == [[NAMES[row[i]] for i in words] for row, words in zip(tags, kept)]
    for row, words in zip(tokens, kept):
        assert words == sorted(set(words))
        gone = [row[i] for i in set(range(len(row))) - set(words)]
        assert all(not tokenizer.tokenize(word) for word in gone), gone


@pytest.mark.parametrize("kind", KINDS)
def test_labels_in_windows_are_on_first_pieces(hub, saved, kind):
    """A window may begin within a word, whose label is then in the window before it."""
    tokenizer, words = tokenizer_of(kind, saved), ["ban", "bero", "bi"] * 9
    encoded = tokenized([words], [[1, 2, 0] * 9], tokenizer, 9)
    assert len(encoded["input_ids"]) > 3
    starts = {tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"][0] for word in words}
    for ids, labels in zip(encoded["input_ids"], encoded["labels"]):
        assert all(piece in starts for piece, label in zip(ids, labels) if label != -100)


def test_a_word_of_two_windows_belongs_where_its_context_is_wider():
    # eight tokens, of which the last four come again; the text goes on behind the second window
    windows = [[None, 0, 1, 2, 3, 4, 4, 5, 6, None], [None, 4, 4, 5, 6, 7, 8, 9, 10, None], [None, 8, 9, 10, 11, None]]
    assert common.share_words(windows) == [{0, 1, 2, 3, 4}, {5, 6, 7, 8, 9}, {10, 11}]
    assert common.share_words([[None, 0, None, 1]]) == [{0, 1}] and common.share_words([[None, None]]) == [set()]


def test_a_word_has_one_label_on_its_first_piece(hub, saved):
    tokenizer = tokenizer_of("WordPiece", saved)
    encoded = tokenized([["ban", "bero", "bi"]], [[1, 2, 0]], tokenizer, 32)
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]) == ["[CLS]", "ba", "##n", "be", "##ro", "bi", "[SEP]"]
    assert encoded["labels"] == [[-100, 1, -100, 2, -100, 0, -100]]


@pytest.mark.parametrize("kind", KINDS)
def test_words_have_the_pieces_that_they_have_in_running_text(hub, saved, kind):
    words = ["bi", "bero", "ban"]
    pieces = tokenizer_of(kind, saved)(words, is_split_into_words=True, add_special_tokens=False).tokens()
    running = KINDS[kind]()("bo bi bero ban", add_special_tokens=False).tokens()
    assert running[-len(pieces) :] == pieces and len(running) > len(pieces)


def test_without_the_space_in_front_they_would_be_others():
    raw, words = stand_ins.byte_level(), ["bi", "bero", "ban"]
    running = raw("bo bi bero ban", add_special_tokens=False).tokens()
    assert running[-6:] != raw(words, is_split_into_words=True, add_special_tokens=False).tokens()[-6:]


def test_two_neighbours_of_the_same_word_stay_two(hub):
    assert common.align([1, 1], [None, 0, 1, 1, None]) == [-100, 1, 1, -100, -100]


@pytest.mark.parametrize("name", PAIR)
def test_windows_become_sentences_and_words_without_a_token_the_default_tag(hub, saved, name):
    """By the cell of the notebook: of five words, the tokenizer leaves nothing of the second, and a window has two tokens."""
    encoded = tokenized([["bi"], ["ban", "\u200b", "bi", "bero", "bi"]], [[7], [1, 0, 3, 5, 0]], tokenizer_of("WordPiece", saved), 4)
    assert encoded["sentence"][0] == 0 and encoded["sentence"].count(1) > 2 and sum(encoded["labelled_words"], []) == [0, 0, 2, 3, 4]
    labels = [torch.tensor(row) for row in encoded["labels"]]
    labels = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    given = {
        "common": common, "pd": pd, "label_names": NAMES, "labelled_words": {"test": encoded["labelled_words"]}, "test_labels": labels,
        "test_references": [["B-MISC"], ["B-PER", "O", "B-ORG", "B-LOC", "O"]], "default_tag": "I-MISC", "history": [{"f1": 1.0}],
        "sentence_ids": {"test": encoded["sentence"]}, "test_logits": F.one_hot(labels.clamp(min=0), len(NAMES)),
        "score": lambda predictions, references: {"f1": 1.0}, "baseline_scores": {"most frequent tag of the word": {"f1": 0.0}},
    }
    found = cell_that_makes("token_classification", name, "test_predictions", **given)["test_predictions"]
    assert found == [["B-MISC"], ["B-PER", "I-MISC", "B-ORG", "B-LOC", "O"]]


# ---------------------------------------------------------------------------------------------------- scores and spans


@pytest.mark.parametrize("name", PAIR)
def test_precision_and_recall_are_not_swapped(hub, name):
    """Three entities predicted, two true, one of them found: the score function of the notebook, run by itself."""
    given = {"seqeval_metric": evaluate.load("seqeval"), "entity_types": ["PER", "LOC"], "has_spans": True, "common": common}
    _, score = definitions("token_classification", name, "compute_scores", "score", **given)
    references = [["B-PER", "I-PER", "O", "B-LOC"]]
    predictions = [["B-PER", "I-PER", "B-PER", "B-PER"]]
    scores = score(predictions, references)
    assert scores == pytest.approx({"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "accuracy": 1 / 2, "f1_PER": 1 / 2, "f1_LOC": 0.0})
    # strict: an I- that goes on with nothing is no entity, and a type that never occurs scores 0
    assert score([["I-PER", "O"]], [["B-PER", "O"]])["recall"] == 0.0


@pytest.mark.parametrize("name", PAIR)
def test_plain_tags_are_scored_by_word(name):
    given = {"entity_types": ["DET", "NOUN", "VERB"], "has_spans": False, "common": common}
    compute_scores, score = definitions("token_classification", name, "compute_scores", "score", **given)
    references, predictions = [["DET", "NOUN", "VERB"], ["NOUN"]], [["DET", "NOUN", "NOUN"], ["DET"]]
    # DET: 1 of 2 predicted, 1 of 1 true; NOUN: 1 of 2, 1 of 2; VERB: none
    assert score(predictions, references) == pytest.approx({
        "precision": (1 / 2 + 1 / 2) / 3, "recall": (1 + 1 / 2) / 3, "f1": (2 / 3 + 1 / 2) / 3, "accuracy": 1 / 2})
    assert compute_scores(predictions, references)["NOUN"] == pytest.approx({"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "number": 2})


def test_spans_are_strict():
    assert common.spans(["B-PER", "I-PER", "B-PER", "O", "B-LOC"]) == [("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5)]
    assert common.spans(["O", "I-PER", "B-LOC", "I-PER"]) == [("LOC", 2, 3)]
    assert common.spans(["O"]) == []


def test_a_word_with_a_plain_tag_is_a_span_by_itself():
    assert common.spans(["NOUN", "NOUN", "O", "B-PER", "I-PER", "PER"]) == [
        ("NOUN", 0, 1), ("NOUN", 1, 2), ("PER", 3, 5), ("PER", 5, 6)]
    assert common.types_of(["O", "B-PER", "I-PER", "NOUN"]) == ["PER", "NOUN"]


KINDS_OF_MISTAKES = [
    ("B-PER I-PER O", "B-PER I-PER O", []),
    ("B-PER I-PER O", "B-ORG I-ORG O", [("wrong type", "a b (PER)", "a b (ORG)")]),
    ("B-PER I-PER O", "B-PER O O", [("wrong borders", "a b (PER)", "a (PER)")]),
    ("B-PER I-PER O", "O B-LOC I-LOC", [("wrong type and borders", "a b (PER)", "b c (LOC)")]),
    ("B-PER O O", "O O B-PER", [("missed", "a (PER)", ""), ("spurious", "", "c (PER)")]),
    ("B-ORG I-ORG I-ORG", "B-ORG O B-LOC", [("wrong borders", "a b c (ORG)", "a (ORG), c (LOC)")]),
    ("B-PER B-LOC O", "B-PER I-PER O", [("wrong borders", "a (PER)", "a b (PER)"), ("wrong type and borders", "b (LOC)", "a b (PER)")]),
]


@pytest.mark.parametrize("name", PAIR)
def test_kinds_of_mistakes(name):
    """The cell of the notebook, on sentences of three words."""
    references, predictions, expected = zip(*KINDS_OF_MISTAKES)
    given = {
        "common": common, "pd": pd, "dataset": {"test": {"tokens": [["a", "b", "c"]] * len(expected)}},
        "test_references": [tags.split() for tags in references], "test_predictions": [tags.split() for tags in predictions],
    }
    found = cell_that_makes("token_classification", name, "mistakes", **given)["mistakes"]
    assert list(found.itertuples(index=False, name=None)) == sum(expected, [])


def test_highlighted_text_is_escaped_and_whole():
    row = {"tokens": ["<b>Ana</b>", "&", "Co", "left"], "loss": "<u>", "true": ["B-ORG", "I-ORG", "I-ORG", "O"]}
    html = common.show_entities([row], ["PER", "ORG"]).data
    assert "<b>Ana" not in html and "<u>" not in html and "&lt;b&gt;Ana&lt;/b&gt; &amp; Co" in html
    assert html.count("<mark") == html.count("</mark>") == 1 and common.COLOURS[1] in html
    assert "</mark> left</td>" in html


def test_long_texts_are_cut_where_they_are_shown():
    long = [{"tokens": ["word"] * 5000, "true": ["NOUN"] * 5000}, {"tokens": ["x" * 9000], "true": ["O"]}]
    html = common.show_entities(long, ["NOUN"]).data
    assert html.count("word") == html.count("<mark") == 60 and html.count("…") == 1 and html.count("x") < 400
