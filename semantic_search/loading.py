"""Reads data as people have them: one file, a folder of files, or a dataset on the Hub. All five folders have this same module."""

import codecs
import csv
import glob
import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetGenerationError
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
          "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test"}


def decode(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16, or else in Windows-1252, a superset of Latin-1; of a .gz file, what is in it.

    Raises:
        ValueError: the encoding can't be told.
    """
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    encoding = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
        if sum(character > "\x7f" for character in text) > len(text) / 5:  # more than any Western European language has
            raise ValueError(f"{path} is not UTF-8, and its encoding can't be told: save it as UTF-8") from None
        print(f"{path.name} is not UTF-8: it is read as Windows-1252, a superset of Latin-1")
        return text


def read_csv(path: Path) -> Dataset:
    """The rows of a CSV or TSV file. Every cell is a string, so that 0001, None and 1.0 stay what they are; an empty one is None.

    The separator is the one of comma, semicolon, tab and bar that is most frequent in the first line. A quotation mark that
    is never closed would swallow the rows after it; in such a file, quotation marks are read as ordinary characters.

    Raises:
        ValueError: the file has no rows, or one has more or fewer cells than the first line.
    """
    text = decode(path).lstrip()
    if text.startswith("sep="):  # Excel's first line
        text = text.partition("\n")[2]
    header = text.split("\n")[0]
    separator = max(",;\t|", key=header.count)
    csv.field_size_limit(2**31 - 1)
    try:
        lines = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if row]
    except csv.Error:
        print(f"a quotation mark in {path.name} is never closed: all of them are read as ordinary characters")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=csv.QUOTE_NONE)
        lines = [row for row in reader if row]
    if len(lines) < 2:
        raise ValueError(f"{path} has no rows below a first line with the names of the columns: add them")
    names, *rows = lines
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path} has several columns with the name {min(twice)!r}: rename them")
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise ValueError(f"row {i} of {path} has {len(row)} cells, and the first line has {len(names)}: put texts that contain "
                             f"{separator!r} in quotation marks, and double those inside of them. The row is {str(row)[:200]}")
    return Dataset.from_dict({name.strip(): [row[i] or None for row in rows] for i, name in enumerate(names)})


def read_lines(path: Path) -> Dataset:
    """The lines of a text file as rows with a column `text`."""
    return Dataset.from_dict({"text": [line.rstrip("\n") for line in io.StringIO(decode(path), newline=None)]})


def read_with(builder: str) -> Callable[[Path], Dataset]:
    """A function that reads a file with a builder of `datasets`."""
    def read_file(path: Path) -> Dataset:
        try:
            return load_dataset(builder, data_files=glob.escape(str(path)), split="train")
        except (DatasetGenerationError, ValueError) as error:
            reason = error.__cause__ or "it has no rows"
            raise ValueError(f"{path} can't be read as {builder}, in UTF-8: {reason}") from error

    return read_file


READERS = {".csv": read_csv, ".tsv": read_csv, ".json": read_with("json"), ".jsonl": read_with("json"),
           ".ndjson": read_with("json"), ".parquet": read_with("parquet"), ".txt": read_lines}


def load(dataset_id: str, config: str | None = None, readers: dict[str, Callable[[Path], Dataset]] = READERS) -> DatasetDict:
    """Load every split of a file, a folder, or a dataset on the Hub, with all its columns.

    Args:
        dataset_id: a file; a folder, whose files belong to the split that their name or the name of their folder says; or
            a dataset on the Hub.
        config: the subset, for a dataset that has several.
        readers: {end of a file's name: function that reads such a file}.

    Raises:
        FileNotFoundError: dataset_id is a path, and nothing is there.
        ValueError: no file has one of the formats.
    """
    path = Path(dataset_id).expanduser()
    if path.is_file():
        return DatasetDict(train=read(path, readers))
    if not path.is_dir():
        if path.is_absolute() or path.suffix in readers or dataset_id.startswith("."):
            raise FileNotFoundError(f"there is no file or folder {path.resolve()}")
        return by_split(load_dataset(dataset_id, config))
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return by_split(load_from_disk(str(path)))
    infos = DatasetInfosDict.from_directory(str(path))  # the features that the dataset's card, README.md, gives
    has_card = bool(infos) or (path / "README.md").exists() and "configs" in DatasetCard.load(path / "README.md").data
    if config or has_card and glob.escape(str(path.resolve())) == str(path.resolve()):  # `datasets` can't read in a folder like data [1]
        return by_split(load_dataset(str(path), config))

    files = {}
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if format_of(file) in readers and not any(part.startswith((".", "_")) for part in inside.parts):
            words = re.findall("[a-z]+", str(inside.with_name(inside.name.split(".")[0])).lower())
            split = next((SPLITS[word] for word in reversed(words) if word in SPLITS), "")
            files.setdefault(split, []).append(file)
    if not files:
        raise ValueError(f"no file in {path} has one of the formats that are read here: {', '.join(readers)}")
    others = files.pop("", [])
    if not files:
        files["train"], others = others, []
    dataset = DatasetDict()
    for split, found in files.items():
        if exact := [file for file in found if file.name.split(".")[0].lower() in SPLITS]:
            others, found = others + [file for file in found if file not in exact], exact  # not `train (copy).csv`
        rows = concatenate_datasets([read(file, readers) for file in found])
        for info in infos.values():
            for name, feature in (info.features or {}).items():
                rows = rows.cast_column(name, feature)
        dataset[split] = rows
    if others:
        print(f"these files are passed over, as others are called exactly like a split: {[file.name for file in others]}")
    return dataset


def format_of(path: Path) -> str:
    """The end of a file's name that says its format: ".csv" of reviews.csv and of reviews.csv.gz."""
    return (Path(path.stem).suffix if path.suffix == ".gz" else path.suffix).lower()


def read(path: Path, readers: dict[str, Callable[[Path], Dataset]]) -> Dataset:
    """The rows of a file."""
    if format_of(path) not in readers:
        raise ValueError(f"{path} is in none of the formats that are read here: {', '.join(readers)}")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: remove it or fill it")
    return readers[format_of(path)](path)


def by_split(dataset: Dataset | DatasetDict) -> DatasetDict:
    """The splits under the names `train`, `validation` and `test`: dev and validation_matched, for example, become validation."""
    if isinstance(dataset, Dataset):
        return DatasetDict(train=dataset)
    named = DatasetDict()
    for split, rows in sorted(dataset.items(), key=lambda item: item[0] not in SPLITS):  # exact names first
        named.setdefault(SPLITS.get(re.split("[^a-z]", split)[0], split), rows)
    return named


def load_splits(
    dataset_id: str, config: str | None, columns: dict[str, str], optional: tuple[str, ...] = (), **options
) -> DatasetDict:
    """Load the splits `train`, `validation` and `test`, with the columns that are wanted: what `load` and `choose` do together.

    Args:
        dataset_id, config, options: as `load` takes them.
        columns, optional: as `choose` takes them.
    """
    return choose(load(dataset_id, config, **options), columns, optional)


def choose(dataset: DatasetDict, columns: dict[str, str], optional: tuple[str, ...] = ()) -> DatasetDict:
    """The splits `train`, `validation` and `test` of a dataset, with the columns that are wanted.

    Args:
        columns: {name here: name in the data}.
        optional: those of `columns` that the data may lack; one that any split lacks is left out.

    Returns:
        The three splits, with the names here. Rows of `train`, drawn at random, take the place of `validation` or `test` if
        it is missing, or if one of its columns holds nothing but None, NaN, "" or -1, like secret labels of a benchmark.

    Raises:
        ValueError: there is no split `train`, or a split lacks a column.
    """
    if "train" not in dataset:
        raise ValueError(f"there is no split 'train', only {list(dataset)}: rename one of them")
    used = [rows for split, rows in dataset.items() if split in ("train", "validation", "test")]
    names = {own: name for name, own in columns.items() if name not in optional or all(own in rows.column_names for rows in used)}
    splits = DatasetDict()
    for split in ("train", "validation", "test"):
        rows = dataset.get(split)
        if rows is not None:
            if missing := [own for own in names if own not in rows.column_names]:
                likely = next((name for name in rows.column_names if name.lower() == missing[0].lower()), rows.column_names[0])
                cure = f"name yours, e.g. columns = {{'{names[missing[0]]}': '{likely}'}}"
                if split != "train":
                    cure = "add it, or leave this split out, and rows of 'train' will serve as one"
                raise ValueError(f"split '{split}' has no column {missing}, only {rows.column_names}: {cure}")
            rows = rows.select_columns(list(names))
            rows = rows.rename_columns({own: name for own, name in names.items() if own != name})
            needed = [name for name in names.values() if name not in optional]
            if split != "train" and any(all(value in (None, -1, "-1", "") or value != value for value in rows[name]) for name in needed):
                rows = None
        if rows is None:
            # a tenth, but more of few rows, where a tenth says little, and not more than is needed of many
            size = min(max(len(splits["train"]) // 10, min(len(splits["train"]) // 5, 50)), 10_000)
            if size == 0:
                raise ValueError(f"'train' has {len(splits['train'])} rows, too few to draw '{split}' from: add more, or give that split")
            parts = splits["train"].train_test_split(test_size=size, seed=0)
            splits["train"], rows = parts["train"], parts["test"]
            print(f"there is no split '{split}' with values: {size} rows of 'train', drawn at random, serve as one")
        splits[split] = rows
    return splits


def count_known(splits: DatasetDict, name: str) -> None:
    """Say how many rows of `validation` and `test` have a text that is in `train` too, if there are any."""
    known = set(map(str, splits["train"][name]))
    for split in ("validation", "test"):
        if n := sum(str(value) in known for value in splits[split][name]):
            print(f"{n} of the {len(splits[split])} texts of '{split}' are in 'train' too, which makes its scores too high: remove them")
