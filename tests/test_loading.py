"""loading.py, the same module in every folder: whatever people keep their data in, the same rows come out of it, or the error says why."""

import gzip
import json
from importlib.util import module_from_spec, spec_from_file_location

import notebooks
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

ROWS = {
    "train": [{"text": f"the {i}th train was late, and cold", "label": "slow" if i % 2 else "None"} for i in range(30)],
    "validation": [{"text": f"the {i}th bus: on time", "label": "None"} for i in range(8)],
    "test": [{"text": f"no {i}th ferry\ncame", "label": "slow"} for i in range(9)],
}
COLUMNS = {"text": "text", "label": "label"}


@pytest.fixture(scope="module")
def loading():
    spec = spec_from_file_location("loading", notebooks.ROOT / "sequence_classification" / "loading.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, form, rows=ROWS, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in rows.items():
        if form == "jsonl":
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
        elif form == "parquet":
            Dataset.from_list(table).to_parquet(folder / f"{split}.parquet")
        else:
            pd.DataFrame(table).to_csv(folder / f"{split}.{form}", index=False, **options)
    return folder


def rows_of(splits):
    return {split: splits[split].to_list() for split in splits}


def test_the_module_is_the_same_in_every_folder():
    assert len({(notebooks.ROOT / folder / "loading.py").read_text() for folder in notebooks.folders()}) == 1


def as_json_array(folder):
    folder.mkdir()
    for split, rows in ROWS.items():
        (folder / f"{split}.json").write_text(json.dumps(rows, indent=2))


def as_folders_of_parts(folder):
    for split, rows in ROWS.items():
        write(folder / split, "csv", {"a": rows[:5], "b": rows[5:]})


def as_saved_to_disk(folder):
    DatasetDict({split: Dataset.from_list(rows) for split, rows in ROWS.items()}).save_to_disk(folder)


def with_other_names_of_splits(folder):
    write(folder, "csv", {"train": ROWS["train"], "dev": ROWS["validation"], "test": ROWS["test"]})


def as_shards(folder):
    parts = {f"train-0000{i}-of-00002": ROWS["train"][15 * i :][:15] for i in range(2)}
    write(folder, "parquet", {**parts, "validation-00000-of-00001": ROWS["validation"], "test-00000-of-00001": ROWS["test"]})


def compressed(folder):
    write(folder, "csv")
    for file in folder.glob("*.csv"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


def beside_other_files(folder):
    write(folder, "csv")
    (folder / "notes.txt").write_text("call them back\n")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "._train.csv").write_bytes(b"\0\5")
    for name in ("train (copy)", "train_old"):
        write(folder, "csv", {name: [{"text": "old", "label": "old"}]})


def in_a_folder_of_a_card(folder):
    write(folder, "jsonl")
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")


WAYS = {
    "csv": lambda folder: write(folder, "csv"),
    "tsv": lambda folder: write(folder, "tsv", sep="\t"),
    "semicolons": lambda folder: write(folder, "csv", sep=";"),
    "all quoted": lambda folder: write(folder, "csv", quoting=1),
    "windows line ends": lambda folder: write(folder, "csv", lineterminator="\r\n"),
    "byte order mark": lambda folder: write(folder, "csv", encoding="utf-8-sig"),
    "utf-16": lambda folder: write(folder, "csv", encoding="utf-16"),
    "json lines": lambda folder: write(folder, "jsonl"),
    "parquet": lambda folder: write(folder, "parquet"),
    "json array": as_json_array, "folders": as_folders_of_parts, "save_to_disk": as_saved_to_disk, "dev": with_other_names_of_splits,
    "shards": as_shards, "gz": compressed, "other files": beside_other_files, "card": in_a_folder_of_a_card,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_rows_come_from_every_way_of_keeping_them(loading, tmp_path, way):
    WAYS[way](tmp_path / "my data [1]")
    assert rows_of(loading.load_splits(str(tmp_path / "my data [1]"), None, COLUMNS)) == ROWS


def test_cells_of_a_csv_stay_what_they_are_and_empty_ones_are_none(loading, tmp_path):
    (tmp_path / "t.csv").write_text("id,n,x\n0001,1.0,NA\n0002,null,\n")
    rows = loading.load(str(tmp_path / "t.csv"))["train"].to_list()
    assert rows == [{"id": "0001", "n": "1.0", "x": "NA"}, {"id": "0002", "n": "null", "x": None}]


def test_latin_1_is_read_and_said(loading, tmp_path, capsys):
    (tmp_path / "t.csv").write_bytes("text,label\nLe café est très bon,gut\n".encode("latin-1"))
    assert loading.load(str(tmp_path / "t.csv"))["train"]["text"][:] == ["Le café est très bon"]
    assert "t.csv is not UTF-8" in capsys.readouterr().out


def test_an_encoding_that_cannot_be_told_is_refused(loading, tmp_path):
    (tmp_path / "t.csv").write_bytes("text,label\nПоезд опоздал на час,плохо\n".encode("cp1251"))
    with pytest.raises(ValueError, match="save it as UTF-8"):
        loading.load(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_lines_of_a_text_file_are_rows_in_any_usual_encoding(loading, tmp_path, encoding):
    (tmp_path / "t.txt").write_bytes("Le café\r\n\r\nest très bon\u00a0\n".encode(encoding))
    assert loading.load(str(tmp_path / "t.txt"))["train"].to_list() == [{"text": "Le café"}, {"text": ""}, {"text": "est très bon\u00a0"}]


@pytest.mark.parametrize("content", ["\n", "text,label\n"])
def test_a_csv_without_rows_is_told(loading, tmp_path, content):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=r"t\.csv has no rows below a first line with the names"):
        loading.load(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.txt"])
def test_an_empty_file_is_told(loading, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name} is empty: remove it or fill it"):
        loading.load(str(tmp_path))


@pytest.mark.parametrize("content, told", [
    ('{"text": "a"}\n{"text": ', "JSON parse error"), ("[]", "it has no rows"), ("\n", "it has no rows"),
    ('{"text": "a"}'.encode("utf-16"), "JSON parse error"),
])
def test_json_that_cannot_be_read_is_told_with_the_reason(loading, tmp_path, content, told):
    (tmp_path / "t.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"t.json can't be read as json, in UTF-8: .*{told}"):
        loading.load(str(tmp_path))


def test_files_as_windows_and_excel_name_and_begin_them(loading, tmp_path):
    (tmp_path / "TRAIN.CSV").write_text("sep=;\ntext;label\nlate, and cold;slow\n")
    assert loading.load(str(tmp_path))["train"].to_list() == [{"text": "late, and cold", "label": "slow"}]


def test_two_columns_of_one_name_are_told(loading, tmp_path):
    (tmp_path / "t.csv").write_text("text,label,label\na,b,c\n")
    with pytest.raises(ValueError, match="several columns with the name 'label': rename them"):
        loading.load(str(tmp_path))


def test_the_column_that_is_probably_meant_is_proposed(loading, tmp_path):
    write(tmp_path, "csv", {"train": [{"ID": 1, "Text": "a", "Label": "b"}]})
    with pytest.raises(ValueError, match=r"e.g. columns = {'text': 'Text'}"):
        loading.load_splits(str(tmp_path), None, COLUMNS)


@pytest.mark.parametrize("num_rows", [1, 4])
def test_too_few_rows_to_draw_from_are_told(loading, tmp_path, num_rows):
    write(tmp_path, "csv", {"train": ROWS["train"][:num_rows]})
    with pytest.raises(ValueError, match=f"'train' has {num_rows} rows, too few to draw 'validation' from: add more"):
        loading.load_splits(str(tmp_path), None, COLUMNS)


@pytest.mark.parametrize("opened", [1, 2])
def test_quotation_marks_that_never_close_swallow_no_rows(loading, tmp_path, capsys, opened):
    lines = [f"text {i}\tgood" for i in range(10)]
    for i in (2, 6)[:opened]:
        lines[i] = '"' + lines[i]
    (tmp_path / "t.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    assert loading.load(str(tmp_path / "t.tsv"))["train"]["text"][:] == [line.split("\t")[0] for line in lines]
    assert "never closed" in capsys.readouterr().out


def test_a_row_with_too_many_cells_is_named(loading, tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nfine,good\nnow, then,good\n")
    with pytest.raises(ValueError, match=r"row 1 of .*t\.csv has 3 cells, and the first line has 2"):
        loading.load(str(tmp_path / "t.csv"))


def test_one_file_gives_three_splits_without_overlap(loading, tmp_path, capsys):
    write(tmp_path, "csv", {"reviews": [{"text": f"text {i}", "label": "a"} for i in range(60)]})
    splits = loading.load_splits(str(tmp_path / "reviews.csv"), None, COLUMNS)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 39, "validation": 12, "test": 9}
    assert len({text for rows in splits.values() for text in rows["text"]}) == 60
    assert rows_of(splits) == rows_of(loading.load_splits(str(tmp_path), None, COLUMNS)), "the folder gives what the file gives"
    assert "there is no split 'test'" in capsys.readouterr().out


def test_of_many_rows_a_tenth_is_drawn(loading, tmp_path):
    write(tmp_path, "csv", {"train": [{"text": str(i), "label": "a"} for i in range(1000)], "test": ROWS["test"]})
    splits = loading.load_splits(str(tmp_path), None, COLUMNS)
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 900, "validation": 100, "test": 9}


@pytest.mark.parametrize("hidden", [-1, None, "-1", "", float("nan")])
def test_a_test_split_with_secret_labels_is_replaced(loading, tmp_path, hidden):
    rows = {"train": [{"text": str(i), "label": i % 2} for i in range(30)], "test": [{"text": "?", "label": hidden}]}
    write(tmp_path, "jsonl", rows)
    splits = loading.load_splits(str(tmp_path), None, COLUMNS)
    assert len(splits["test"]) > 1 and set(splits["test"]["label"]) <= {0, 1}


def test_a_subset_is_chosen_by_name(loading, tmp_path):
    for name in ("hotels", "trains"):
        write(tmp_path / name, "jsonl", {"train": [{"text": f"{name} {i}", "label": 0} for i in range(9)]})
    card = "".join(f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in ("hotels", "trains"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{card}---\n")
    with pytest.raises(ValueError, match=r"Config name is missing[\s\S]*trains"):
        loading.load(str(tmp_path))
    assert loading.load(str(tmp_path), "trains")["train"]["text"][0] == "trains 0"


@pytest.mark.parametrize("name", ["data", "data [1]"])
def test_the_features_of_a_card_hold(loading, tmp_path, name):
    folder = write(tmp_path / name, "jsonl", {split: [{**row, "label": 1} for row in rows] for split, rows in ROWS.items()})
    names = "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n"
    (folder / "README.md").write_text(f"---\n{names}        names:\n          '0': good\n          '1': bad\n---\n")
    assert loading.load(str(folder))["test"].features["label"].names == ["good", "bad"]


def test_a_home_folder_is_found(loading, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "reviews", "csv")
    assert rows_of(loading.load_splits("~/reviews", None, COLUMNS)) == ROWS


def test_what_is_not_there_is_told_as_a_path(loading, tmp_path):
    for name in (tmp_path / "no", "./no", "no.csv"):
        with pytest.raises(FileNotFoundError, match="there is no file or folder .*no"):
            loading.load(str(name))


def test_a_format_that_is_not_read_is_told_with_those_that_are(loading, tmp_path):
    (tmp_path / "reviews.xlsx").write_bytes(b"PK")
    for path in (tmp_path, tmp_path / "reviews.xlsx"):
        with pytest.raises(ValueError, match="xlsx|no file in") as caught:
            loading.load(str(path))
        assert ".csv" in str(caught.value)


def test_a_missing_column_is_told_with_its_split_and_a_cure(loading, tmp_path):
    write(tmp_path, "csv", {"train": ROWS["train"], "test": [{"text": "a"}]})
    with pytest.raises(ValueError, match=r"split 'train' has no column \['review'\], only \['text', 'label'\]: name yours"):
        loading.load_splits(str(tmp_path), None, {"text": "review"})
    with pytest.raises(ValueError, match=r"split 'test' has no column \['label'\], only \['text'\]: add it"):
        loading.load_splits(str(tmp_path), None, COLUMNS)


def test_a_column_may_be_optional(loading, tmp_path):
    write(tmp_path, "csv", {split: [{"text": row["text"]} for row in rows] for split, rows in ROWS.items()})
    assert loading.load_splits(str(tmp_path), None, COLUMNS, ("label",))["train"].column_names == ["text"]


def test_readers_of_ones_own_are_used(loading, tmp_path):
    (tmp_path / "train.words").write_text("a b")
    readers = loading.READERS | {".words": lambda path: Dataset.from_dict({"word": path.read_text().split()})}
    assert loading.load(str(tmp_path), readers=readers)["train"]["word"][:] == ["a", "b"]


def test_texts_that_are_in_two_splits_are_counted(loading, capsys):
    splits = DatasetDict({split: Dataset.from_dict({"text": texts}) for split, texts in {
        "train": ["a", "b"], "validation": ["c"], "test": ["b", "b", "d"]}.items()})
    loading.count_known(splits, "text")
    assert capsys.readouterr().out.startswith("2 of the 3 texts of 'test' are in 'train' too")


