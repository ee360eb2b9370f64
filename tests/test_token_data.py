"""token_classification reads the files that people of this field have, and both notebooks take plain tags."""

import json
import random
from itertools import chain

import notebooks
import pytest
from scripts import export, job, outcomes
from sklearn.metrics import accuracy_score, f1_score

common = notebooks.common_of("token_classification")
formats = common.formats


def rows_of(path, columns=None):
    """[(words, tags)] of a file as the reader for its name gives them."""
    table = formats.readers(columns or {})[path.suffix](path)
    names = [(columns or {}).get(name, name) for name in ("tokens", "ner_tags")]
    return list(zip(*(table[name][:] for name in names)))


def file_of(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


# ---------------------------------------------------------------------------------------------------- CoNLL


ANA = (["Ana", "Duarte", "left"], ["B-PER", "I-PER", "O"])
OSLO = (["Oslo", "."], ["B-LOC", "O"])


@pytest.mark.parametrize("ending", ["conll", "bio", "iob", "iob2", "txt", "tsv"])
@pytest.mark.parametrize("text", [
    "Ana\tB-PER\nDuarte\tI-PER\nleft\tO\n\nOslo\tB-LOC\n.\tO",
    "Ana B-PER\r\nDuarte I-PER\r\nleft O\r\n\r\n\r\n \t\r\nOslo B-LOC \r\n. O\r\n\r\n",
    "\ufeff-DOCSTART- -X- -X- O\n\nAna NN NP B-PER\nDuarte NN NP I-PER\nleft VB O O\n\n-DOCSTART- -X- O\n\nOslo NN NP B-LOC\n. . O O\n",
    "token\tner\nAna\tB-PER\nDuarte\tI-PER\nleft\tO\n\nOslo\tB-LOC\n.\tO\n",
    "# id 77-a\tdomain=en\nAna _ _ B-PER\nDuarte _ _ I-PER\nleft _ _ O\n\n# id 78\tdomain=en\nOslo _ _ B-LOC\n. _ _ O\n",
    "1\tAna\tB-PER\n2\tDuarte\tI-PER\n3\tleft\tO\n\n1\tOslo\tB-LOC\n2\t.\tO\n",
])
def test_conll_in_all_its_ways(tmp_path, ending, text):
    assert rows_of(file_of(tmp_path / f"train.{ending}", text)) == [ANA, OSLO]


def test_words_of_conll_may_hold_what_elsewhere_separates(tmp_path):
    text = "1 000\tO\n\u00a0\tO\n\tO\na\u2028b\tB-X\n#\tO\n\n#\tB-X\n"
    first = ["1 000", "\u00a0", "", "a\u2028b", "#"], ["O", "O", "O", "B-X", "O"]
    assert rows_of(file_of(tmp_path / "t.conll", text)) == [first, (["#"], ["B-X"])]


def test_conll_in_latin_1_is_read_and_said(tmp_path, capsys):
    assert rows_of(file_of(tmp_path / "t.conll", "José B-PER\nvit O\n", "latin-1")) == [(["José", "vit"], ["B-PER", "O"])]
    assert "Windows-1252" in capsys.readouterr().out
    with pytest.raises(ValueError, match="its encoding can't be told"):
        rows_of(file_of(tmp_path / "t.conll", "Оля B-PER\nушла O\n", "cp1251"))


@pytest.mark.parametrize("text, line", [
    ("Ana B-PER\nleft O\nOslo\n. O\n", "line 3 .* has 1 columns, and most have 2"),
    ("A first line of text.\nAnd a second one of another length here.\n", "has . columns, and most have"),
    ("Just\nwords\n", "line 1 .* has 1 columns"),
])
def test_lines_of_unequal_columns_are_named(tmp_path, text, line):
    with pytest.raises(ValueError, match=line):
        rows_of(file_of(tmp_path / "t.txt", text))


def test_webanno_is_named_with_a_cure(tmp_path):
    text = "#FORMAT=WebAnno TSV 3.2\n\n\n#Text=Ana left\n1-1\t0-3\tAna\tPER\n1-2\t4-8\tleft\t_\n\n#Text=No\n2-1\t9-11\tNo\t_\n"
    with pytest.raises(ValueError, match="t.tsv is WebAnno TSV: export CoNLL 2002"):
        rows_of(file_of(tmp_path / "t.tsv", text))


UD = """# sent_id = 1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\tVV\tMood=Imp\t0\troot\t_\t_
2\tnos\tyo\tPRON\tPP\t_\t1\tobj\t_\t_
2.1\tx\tx\tX\tX\t_\t_\t_\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\tIN\t_\t5\tcase\t_\t_
4\tel\tel\tDET\tDT\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\tNN\t_\t1\tobl\t_\tSpaceAfter=No

# sent_id = 2
1\t#\t#\tSYM\tSY\t_\t0\troot\t_\t_
"""


def test_treebanks_have_words_and_two_kinds_of_parts_of_speech(tmp_path):
    for name in ("es-ud-train.conllu", "train.conll"):
        path = file_of(tmp_path / name, UD)
        words = [["Vamos", "nos", "a", "el", "mar"], ["#"]]
        assert rows_of(path) == list(zip(words, [["VERB", "PRON", "ADP", "DET", "NOUN"], ["SYM"]]))
        assert rows_of(path, {"ner_tags": "xpos"}) == list(zip(words, [["VV", "PP", "IN", "DT", "NN"], ["SY"]]))
    with pytest.raises(ValueError, match="line 2 of .* has 2 columns, and CoNLL-U has ten"):
        rows_of(file_of(tmp_path / "t.conllu", "# a comment\nAna\tNOUN\n"))


def test_the_columns_of_a_treebank_can_be_named(tmp_path):
    for split in ("train", "dev", "test"):
        file_of(tmp_path / f"es-ud-{split}.conllu", UD)
    usual, finer = ["ADP", "DET", "NOUN", "PRON", "SYM", "VERB"], ["DT", "IN", "NN", "PP", "SY", "VV"]
    for columns, names in (({}, usual), ({"ner_tags": "xpos"}, finer)):
        loaded = common.load_splits(str(tmp_path), None, columns)
        assert loaded["validation"].features["ner_tags"].feature.names == names and len(loaded["test"]) == 2


# ---------------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize("text", [
    'Sentence #,Word,POS,Tag\nSentence: 1,None,NN,B-PER\n,"""",$,O\n,a,DT,O\nSentence: 2,Oslo,NN,B-LOC\n',
    'sentence_id;Word;POS;ner\n1;None;NN;B-PER\n1;"""";$;O\n1;a;DT;O\n2;Oslo;NN;B-LOC\n',
])
def test_csv_with_a_word_per_row(tmp_path, text):
    path, words = file_of(tmp_path / "ner.csv", text), [["None", '"', "a"], ["Oslo"]]
    assert rows_of(path) == list(zip(words, [["B-PER", "O", "O"], ["B-LOC"]]))
    assert rows_of(path, {"ner_tags": "POS"}) == list(zip(words, [["NN", "$", "DT"], ["NN"]]))


def test_sentences_of_csv_are_numbered_within_documents(tmp_path):
    text = "doc_id,sent_id,Token,NER_Tag\nd1,0,Ana,B-PER\nd1,0,left,O\nd2,0,Oslo,B-LOC\nd2,1,No,O\n"
    words = [["Ana", "left"], ["Oslo"], ["No"]]
    assert rows_of(file_of(tmp_path / "t.csv", text)) == list(zip(words, [["B-PER", "O"], ["B-LOC"], ["O"]]))


def test_csv_of_words_without_numbers_says_what_to_do(tmp_path):
    path = file_of(tmp_path / "t.csv", "word,tag\n" + "Ana,B-PER\nleft,O\n\n" * 9)
    with pytest.raises(ValueError, match="lists are needed: .* CSV with a word per row and its sentence's number in a column"):
        common.load_splits(str(path), None, {})


def test_csv_with_lists_says_what_to_do(tmp_path):
    path = file_of(tmp_path / "t.csv", "sentence,tokens,ner_tags\n" + "".join(f"s{i},\"['a', 'b']\",\"['O', 'B-X']\"\n" for i in range(9)))
    with pytest.raises(ValueError, match="lists are needed: write JSON lines or parquet, or CSV with a word per row"):
        common.load_splits(str(path), None, {})


# ---------------------------------------------------------------------------------------------------- marked texts


TEXT = "Ana Duarte's sister left New York."
SPANS = [[0, 10, "PER"], [25, 33, "LOC"]]
WORDS = ["Ana", "Duarte", "'", "s", "sister", "left", "New", "York", "."]
TAGS = ["B-PER", "I-PER", "O", "O", "O", "O", "B-LOC", "I-LOC", "O"]
DICTS = [{"start": start, "end": end, "label": kind} for start, end, kind in SPANS]
EXPORTS = {
    "doccano": [{"id": 1, "text": TEXT, "label": SPANS}, {"id": 2, "text": "No.", "label": []}],
    "doccano, later": [{"text": TEXT, "labels": SPANS}, {"text": "No.", "labels": []}],
    "doccano with relations": [
        {"text": TEXT, "entities": [{"start_offset": s, "end_offset": e, "label": k} for s, e, k in SPANS], "relations": []},
        {"text": "No.", "entities": [], "relations": []},
    ],
    "spaCy": [[TEXT, {"entities": SPANS}], ["No.", {"entities": []}]],
    "Prodigy": [
        {"text": TEXT, "spans": DICTS, "tokens": [{"text": "Ana", "start": 0, "end": 3, "id": 0}], "answer": "accept"},
        {"text": TEXT, "spans": [], "answer": "reject"}, {"text": "No.", "spans": [], "answer": "accept"},
    ],
    "Label Studio, min": [
        {"text": TEXT, "label": [{"start": s, "end": e, "text": TEXT[s:e], "labels": [k]} for s, e, k in SPANS], "annotator": 1},
        {"text": "No.", "label": [], "annotator": 1},
    ],
    "Label Studio": [
        {"data": {"text": TEXT}, "annotations": [{"result": [{"value": {"start": s, "end": e, "labels": [k]}} for s, e, k in SPANS]}]},
        {"data": {"text": "No."}, "annotations": [{"result": [{"value": {"choices": ["dull"]}}]}]},
    ],
}


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("tool", EXPORTS)
def test_exports_of_annotation_tools(tmp_path, tool, ending):
    text = json.dumps(EXPORTS[tool], indent=2) if ending == "json" else "\n".join(map(json.dumps, EXPORTS[tool]))
    assert rows_of(file_of(tmp_path / f"train.{ending}", text)) == [(WORDS, TAGS), (["No", "."], ["O", "O"])]


def test_the_columns_of_an_export_can_be_named(tmp_path):
    path = file_of(tmp_path / "train.jsonl", json.dumps({"sentence": TEXT, "marks": SPANS, "label": "joy"}))
    assert rows_of(path, {"tokens": "sentence", "ner_tags": "marks"}) == [(WORDS, TAGS)]


def test_tasks_of_label_studio(tmp_path):
    span = {"value": {"start": 0, "end": 3, "labels": ["PER"]}, "type": "labels"}
    done = {"result": [span, {"type": "relation", "from_id": "a", "to_id": "b"}], "was_cancelled": False}
    annotations = [[done], [], [{"result": [], "was_cancelled": True}], [{"result": [], "was_cancelled": True}, done]]
    path = file_of(tmp_path / "t.json", json.dumps([{"data": {"said": "Ana left"}, "annotations": made} for made in annotations]))
    assert rows_of(path, {"tokens": "said"}) == [(["Ana", "left"], ["B-PER", "O"])] * 2
    with pytest.raises(ValueError, match="no 'text', only .'said'.: name yours, e.g. columns = {'tokens': 'said'}"):
        rows_of(path)


def test_json_without_rows_is_told(tmp_path):
    with pytest.raises(ValueError, match="'train' has 0 rows"):
        common.load_splits(str(file_of(tmp_path / "t.json", "[]\n")), None, {})


def test_json_with_words_is_read_as_it_is(tmp_path):
    row = {"text": "Ana left", "tokens": ["Ana", "left"], "ner_tags": ["B-PER", "O"], "labels": [1, 2]}
    assert rows_of(file_of(tmp_path / "train.jsonl", json.dumps(row))) == [(row["tokens"], row["ner_tags"])]


@pytest.mark.parametrize("text, spans, expected", [
    ("unfair Oslo", [[2, 8, "X"]], "B-X I-X"),  # from within a word to within a word
    ("a b c d", [[0, 7, "L"], [2, 3, "S"], [4, 5, "S"]], "B-L I-L I-L I-L"),  # the longest of those that overlap
    ("a b", [[0, 1, "X"], [0, 1, "X"], [2, 3, "X"]], "B-X B-X"),
    ("दिल्ली से", [[0, 6, "LOC"]], "B-LOC O"),
    ("我爱北京。", [[2, 4, "LOC"]], "O O B-LOC I-LOC O"),
    ("ไปญี่ปุ่น", [[2, 9, "LOC"]], "O O B-LOC I-LOC I-LOC"),
])
def test_spans_cover_whole_words(text, spans, expected):
    words, tags, left_out = formats.tag_spans(text, spans)
    assert " ".join(tags) == expected and "".join(words) == text.replace(" ", "")
    assert left_out == (2 if "L" in [kind for *_, kind in spans] else 0)


@pytest.mark.parametrize("row, message", [
    ({"text": "Ana", "label": [[0, 50, "PER"]]}, r"row 1 of .*: the span \[0, 50, 'PER'\] is not on words of .* 3 characters"),
    ({"text": "a  b", "label": [[1, 3, "PER"]]}, "is not on words"),
    ({"text": "Ana", "label": ["PER"]}, "row 1 of .*: PER is no span"),
    ({"text": "Ana", "label": [{"label": "PER"}]}, "row 1 of .* is no span"),
    ({"label": [[0, 3, "PER"]]}, "row 1 of .*: there is no text with a list of spans"),
])
def test_spans_that_cannot_be_read_are_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        rows_of(file_of(tmp_path / "t.jsonl", "\n".join(map(json.dumps, [{"text": "No.", "label": []}, row]))))


# ---------------------------------------------------------------------------------------------------- tags


def test_spans_need_no_word_outside_of_them(capsys):
    splits = {"train": {"ner_tags": [["B-STREET", "L-STREET", "U-CITY"]]}}
    assert formats.in_iob2(splits, ["B-STREET", "L-STREET", "U-CITY"]) == ["O", "B-STREET", "I-STREET", "B-CITY", "I-CITY"]
    assert splits["train"]["ner_tags"] == [["B-STREET", "I-STREET", "B-CITY"]]
    assert formats.in_iob2({}, ["B", "E", "M", "S"]) == ["B", "E", "M", "S"]
    assert "no spans" in capsys.readouterr().out


@pytest.mark.parametrize("names", [["O", "PER", "LOC"], ["o", "b-per", "i-per"], ["O", "PER-B", "PER-I"]])
def test_what_spans_would_need_is_told(names, capsys):
    assert formats.in_iob2({}, names) == names
    assert "To have spans, every tag needs a prefix, such as B-, or is O" in capsys.readouterr().out


@pytest.mark.parametrize("names", [["O", "B-PER", "LOC"], ["NOUN", "I-"], ["S", "B-PER"]])
def test_tags_of_spans_among_plain_tags_are_refused(names):
    with pytest.raises(ValueError, match="some tags have a prefix of spans, such as .*, and others don't"):
        formats.in_iob2({}, names)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_with_one_tag_or_without_words_is_told(tmp_path, split, capsys):
    for name in ("train", "validation", "test"):
        file_of(tmp_path / f"{name}.conll", "Ana O\nleft O\n\n" if name == split else "Ana B-PER\nleft O\n\n")
    if split == "train":
        with pytest.raises(ValueError, match=r"all words of 'train' have the same tag, \['O'\]: name the column"):
            common.load_splits(str(tmp_path), None, {})
    else:
        common.load_splits(str(tmp_path), None, {})
        assert f"all words of '{split}' have the same tag, ['O'], and its scores say nothing" in capsys.readouterr().out
    file_of(tmp_path / f"{split}.conll", "\u200b O\n")
    with pytest.raises(ValueError, match=f"'{split}' has no words: add some, or leave this split out"):
        common.load_splits(str(tmp_path), None, {})


def test_a_row_with_too_few_tags_can_be_found(tmp_path):
    rows = [{"tokens": ["Ana", str(i)], "ner_tags": ["B-PER", "O"][: 1 + (i != 7)]} for i in range(9)]
    with pytest.raises(ValueError, match="has 2 words and 1 tags: .* .'Ana', '7'. and .'B-PER'."):
        common.load_splits(str(file_of(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows)))), None, {})


# ---------------------------------------------------------------------------------------------------- both notebooks


def treebank(n, seed):
    """Sentences whose parts of speech can be told by the word, some of them longer than the windows of the run below."""
    rng = random.Random(seed)
    kinds = {"NOUN": ["ba", "bero", "bin", "Dan"], "VERB": ["fa", "fero", "fin"], "ADJ": ["ga", "gero", "gin"], "SYM": ["7", "8"]}
    sentences = []
    for _ in range(n):
        tags = rng.choices(list(kinds), (4, 2, 2, 1), k=rng.randint(3, 40))
        words = [f"{i}\t{rng.choice(kinds[tag])}\t_\t{tag}\t_\t_\t_\t_\t_\t_" for i, tag in enumerate(tags, 1)]
        sentences.append("\n".join(words) + "\n")
    return "\n".join(sentences)


@pytest.fixture(scope="module")
def plain(hub, scripts, tmp_path_factory):
    """Both notebooks on a treebank of few sentences, without a split for validation."""
    target = tmp_path_factory.mktemp("plain") / "run"
    parameters = {
        "checkpoint": "stand-in/no-dropout", "dataset_id": "ud", "max_length": 16, "num_epochs": 3, "batch_size": 4, "learning_rate": 1e-2}
    scripts_of = [export("token_classification", name, target, parameters) for name in notebooks.PAIR]
    (target / "ud").mkdir()
    file_of(target / "ud" / "xx-ud-train.conllu", treebank(30, 1))
    file_of(target / "ud" / "xx-ud-test.conllu", treebank(11, 2))
    end = "\nimport json\nopen(NAME, 'w').write(json.dumps([test_references, test_predictions, tag_words(dataset['test']['tokens'][:])]))\n"
    for script, name in zip(scripts_of, notebooks.PAIR):
        path = target / script
        path.write_text(path.read_text() + end.replace("NAME", repr(f"{name}.tags")))
    statuses = scripts.run(*(job(target, script, log=f"{script}.log") for script in scripts_of))
    assert statuses == [0, 0], "\n\n".join((target / f"{script}.log").read_text()[-3000:] for script in scripts_of)
    return target


def test_both_notebooks_are_the_same_on_plain_tags_in_windows(plain):
    (one,), (two,) = (outcomes(plain, name) for name in notebooks.PAIR)
    assert one["losses"] == two["losses"] and one["metrics"] == two["metrics"] and one["history"] == two["history"]
    assert one["losses"][-1] < one["losses"][0] and one["rows"] > 11


def test_texts_that_are_cut_into_windows_are_not_called_too_long(plain):
    logs = [path.read_text() for path in plain.glob("*.log")]
    assert len(logs) == 2 and all("indexing errors" not in log for log in logs)


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_plain_tags_are_scored_by_word_and_tagged_by_the_saved_model(plain, name):
    references, predictions, tagged = json.loads((plain / f"{name}.tags").read_text())
    true = [row["ner_tags"] for row in formats.read_conllu(plain / "ud" / "xx-ud-test.conllu", {})]
    assert references == true and tagged == predictions
    words = [list(chain.from_iterable(tags)) for tags in (true, predictions)]
    (found,) = outcomes(plain, name)
    assert found["metrics"].keys() == {"precision", "recall", "f1", "accuracy"}
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy_score(*words))
    assert found["metrics"]["f1"] == pytest.approx(f1_score(*words, average="macro"))
    best = max(found["history"], key=lambda entry: entry["f1"])
    assert best["accuracy"] > 0.5
