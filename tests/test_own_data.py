"""Data of your own: a folder of CSV, JSON lines or parquet, with columns of any name, for every task.

CSV has no lists, so that tags, conversations and answers come as JSON lines or parquet.
"""

import json

import notebooks
import pandas as pd
import pytest
from datasets import Dataset
from stand_ins import conll, emotion, imdb, passages, questions, smoltalk

FOLDERS = notebooks.folders()
FORMATS = ("csv", "jsonl", "parquet")
SIZES = {"train": 40, "validation": 20, "test": 21}


def word_tags(rows):
    names = rows.features["ner_tags"].feature.names
    return [{"tokens": row["tokens"], "ner_tags": [names[i] for i in row["ner_tags"]]} for row in rows]


def word_labels(rows):
    names = rows.features["label"].names
    return [{"text": row["text"], "label": names[row["label"]]} for row in rows]


def with_keywords(rows):
    return [{"messages": row["messages"], "keywords": row["messages"][0]["content"].split()[:1]} for row in rows]


TEXTS = passages(60)["train"].to_list()
# what the folders of a task's README hold: {parameter: {split: rows}}
DATA = {
    "sequence_classification": {"dataset_id": {split: word_labels(rows) for split, rows in emotion(SIZES).items()}},
    "token_classification": {"dataset_id": {split: word_tags(rows) for split, rows in conll(SIZES).items()}},
    "masked_language_modeling": {"dataset_id": {split: [{"text": row["text"]} for row in rows] for split, rows in imdb(SIZES).items()}},
    "causal_language_modeling": {
        "dataset_id": {split: [{"text": row["text"]} for row in rows] for split, rows in imdb(SIZES).items()},
        "instructions_id": {split: with_keywords(rows) for split, rows in smoltalk(SIZES).items()},
    },
    "semantic_search": {
        "dataset_id": {"train": TEXTS},
        "questions_id": {
            split: [{"question": row["question"], "answers": row["answers"]} for row in rows]
            for split, rows in questions({"train": 20, "validation": 9, "test": 10}, TEXTS).items()
        },
    },
}


def write(splits, folder, form, columns):
    """Write the rows of every split to a file of its own, under the names of `columns`; a CSV has no lists."""
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        rows = [{columns.get(name, name): value for name, value in row.items()} for row in rows]
        file = folder / f"{split}.{form}"
        if form == "csv":
            pd.DataFrame(rows).to_csv(file, index=False)
        elif form == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            Dataset.from_list(rows).to_parquet(file)


def load(folder, parameter, path, columns):
    """What the notebook loads for a parameter."""
    common = notebooks.common_of(folder)
    if folder == "semantic_search":
        ids = [row["id"] for row in TEXTS]
        return common.load_questions(path, ids, columns) if parameter == "questions_id" else common.load_collection(path, columns)
    if folder == "causal_language_modeling":
        return common.load_splits(path, None, "messages" if parameter == "instructions_id" else "text", columns, 1000)
    return common.load_splits(path, None, columns)


CASES = [(folder, parameter) for folder in FOLDERS for parameter in DATA[folder]]


def has_lists(folder, parameter):
    return any(isinstance(value, list) for value in DATA[folder][parameter]["train"][0].values())


FORMS = [(*case, form) for case in CASES for form in FORMATS if form != "csv" or not has_lists(*case)]


@pytest.mark.parametrize("folder, parameter, form", FORMS)
def test_every_format_and_names_of_ones_own_give_the_same_rows(folder, parameter, form, tmp_path):
    splits = DATA[folder][parameter]
    columns = {name: f"my {name}" for name in splits["train"][0]}
    write(splits, tmp_path / "usual", form, {})
    write(splits, tmp_path / "own", form, columns)
    usual, own = (load(folder, parameter, str(tmp_path / name), names) for name, names in (("usual", {}), ("own", columns)))
    if isinstance(usual, Dataset):
        usual, own = {"train": usual}, {"train": own}
    for split, rows in splits.items():
        assert usual[split].features == own[split].features
        assert usual[split].to_list() == own[split].to_list()
        for name in set(rows[0]) & set(usual[split].column_names):
            given = [row[name] for row in rows]
            found = usual[split][name][:]
            if folder == "token_classification" and name == "ner_tags":
                found = [[usual[split].features[name].feature.names[i] for i in tags] for tags in found]
            if folder == "sequence_classification" and name == "label":
                found = [usual[split].features[name].names[i] for i in found]
            assert found == given


@pytest.mark.parametrize("folder, parameter", CASES)
def test_a_column_that_is_not_there_is_told_with_those_that_are(folder, parameter, tmp_path):
    splits, name = DATA[folder][parameter], next(iter(DATA[folder][parameter]["train"][0]))
    write(splits, tmp_path / "data", "jsonl", {name: "mine"})
    for columns in ({name: "yours"}, {}):
        with pytest.raises(ValueError, match=rf"'{columns.get(name, name)}'.*\].*'mine'"):
            load(folder, parameter, str(tmp_path / "data"), columns)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_column_that_was_named_is_taken_and_not_one_of_the_usual_name(folder, tmp_path):
    splits = DATA[folder]["dataset_id"]
    name = next(name for name in splits["train"][0] if name != "id")
    both = {split: [{**row, "mine": row[name], name: "something else"} for row in rows] for split, rows in splits.items()}
    write(both, tmp_path / "both", "jsonl", {})
    write(splits, tmp_path / "usual", "jsonl", {})
    own, usual = (load(folder, "dataset_id", str(tmp_path / k), c) for k, c in (("both", {name: "mine"}), ("usual", {})))
    own, usual = (loaded if isinstance(loaded, Dataset) else loaded["test"] for loaded in (own, usual))
    assert own.to_list() == usual.to_list()


def test_stages_may_name_their_columns_in_other_ways(tmp_path):
    folder = "causal_language_modeling"
    write(DATA[folder]["dataset_id"], tmp_path / "tales", "jsonl", {"text": "story"})
    write(DATA[folder]["dataset_id"], tmp_path / "usual", "jsonl", {})
    tales, usual = (load(folder, "dataset_id", str(tmp_path / name), {"text": "story"}) for name in ("tales", "usual"))
    assert tales["test"].to_list() == usual["test"].to_list()
