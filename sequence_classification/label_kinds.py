"""What a label can be: one of n classes, a list of them, or a score; and what follows for scores and pictures."""

import ast
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from datasets import ClassLabel, DatasetDict, List, Value, concatenate_datasets
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, confusion_matrix, f1_score, mean_squared_error

SEPARATOR = r"\s*[,;|]\s*"  # of labels that are written as one


def problem_type(dataset: DatasetDict) -> str:
    """What the labels are, in the words of `config.problem_type`: "single_label_classification" (each text has one of n labels),
    "multi_label_classification" (any number of them), or "regression" (a score)."""
    feature = dataset["train"].features["label"]
    if isinstance(feature, ClassLabel):
        return "single_label_classification"
    return "multi_label_classification" if isinstance(feature, List) else "regression"


def is_missing(label: object, feature: object) -> bool:
    """Whether there is no label: None, NaN, a blank text, None in a list, or -1 where the classes have names."""
    if isinstance(label, list):
        return None in label
    if isinstance(label, str):
        return not label.strip()
    return label is None or label != label or (label == -1 and isinstance(feature, ClassLabel))


def encode_labels(dataset: DatasetDict, drawn: tuple[str, ...] = ()) -> DatasetDict:
    """The column `label` as `load_splits` describes it, from words, numbers, numbers as words, or lists of them.

    Args:
        drawn: the splits that are rows of `train`, drawn at random. Rows whose label is then missing in `train` go back.
    """
    feature = dataset["train"].features["label"]
    if isinstance(feature, dict):
        raise ValueError(f"a label is a dict, such as {dataset['train'][0]['label']}: give a word, a number, or a list of them")
    labels = {split: rows["label"][:] for split, rows in dataset.items()}
    if all(isinstance(label, str) and label[:1] + label[-1:] == "[]" for label in labels["train"]):  # a CSV has lists as text
        labels = {split: [read_list(label) for label in rows] for split, rows in labels.items()}
    is_list = isinstance(labels["train"][0], list)
    names = getattr(feature.feature if isinstance(feature, List) else feature, "names", None)  # those of a ClassLabel
    if names is None:
        if is_list and is_multi_hot(labels["train"]):
            labels = {split: [list(np.flatnonzero(row)) for row in rows] for split, rows in labels.items()}
        values = [value for rows in labels.values() for row in rows for value in (row if is_list else [row])]
        numbers = [as_number(value) for value in values]
        is_numeric = None not in numbers
        if is_numeric and not all(number.is_integer() for number in numbers):
            if is_list:
                raise ValueError(f"a label is a list of numbers with decimals, such as {values[:3]}: round them, or give names or ids")
            if with_comma := [value for value in values if "," in str(value)]:
                print(f"labels such as {with_comma[0]!r} are read as numbers with decimals: for several labels per text, write "
                      f"{with_comma[0].split(',')}")
            scores = {split: [as_number(value) for value in rows] for split, rows in labels.items()}
            return with_labels(dataset, scores, Value("float32"))
        name_of = lambda value: str(int(as_number(value)) if is_numeric else value).strip()  # 1, 1.0 and "1" are the same class
        names = sorted({name_of(value) for value in values}, key=int if is_numeric else None)
        ids = {name: i for i, name in enumerate(names)}
        joined = [name for name in names if len(parts := re.split(SEPARATOR, name)) > 1 and ids.keys() >= set(parts)]
        if joined and not is_list:
            print(f"labels such as {joined[0]!r} are taken for classes of their own: if a text can have several labels, write "
                  f"{re.split(SEPARATOR, joined[0])}, and [] for none")
        labels = {split: [[ids[name_of(value)] for value in row] if is_list else ids[name_of(row)] for row in rows]
                  for split, rows in labels.items()}
    dataset = with_labels(dataset, labels, List(ClassLabel(names=names)) if is_list else ClassLabel(names=names))

    for split in drawn:
        in_train, rows = occurring(dataset["train"]["label"]), dataset[split]
        is_rare = np.array([not occurring([label]) <= in_train for label in rows["label"]])
        dataset["train"] = concatenate_datasets([dataset["train"], rows.select(np.flatnonzero(is_rare))])
        dataset[split] = rows.select(np.flatnonzero(~is_rare))
    in_train = occurring(dataset["train"]["label"])
    if len(in_train) < 2:
        raise ValueError(f"all rows of 'train' have the label {[names[i] for i in in_train]}: a classifier needs two at least")
    if len(in_train) > max(20, sum(len(label) if is_list else 1 for label in dataset["train"]["label"]) / 2):
        raise ValueError(f"'train' has {len(in_train)} labels in {len(dataset['train'])} rows, such as {names[:3]}, which is too many for "
                         "classes: name another column as the label. If they are scores, divide them, so that some have decimals")
    for split, rows in dataset.items():
        if unknown := [names[i] for i in sorted(occurring(rows["label"]) - in_train)]:
            raise ValueError(f"split '{split}' has labels that 'train' has not: {unknown[:10]}: move these rows, or remove them")
    return dataset


def occurring(labels: list) -> set[int]:
    """The ids that occur in a column of labels."""
    return {i for label in labels for i in (label if isinstance(label, list) else [label])}


def with_labels(dataset: DatasetDict, labels: dict[str, list], feature: object) -> DatasetDict:
    """The dataset with these labels, which `feature` describes."""
    return DatasetDict({
        split: rows.remove_columns("label").add_column("label", labels[split], feature=feature) for split, rows in dataset.items()
    })


def read_list(label: str) -> list:
    """A list that is written as ['a', 'b']."""
    try:
        return ast.literal_eval(label)
    except (SyntaxError, ValueError):
        raise ValueError(f"there is a label {label}: a list needs quotation marks around its words, like ['a', 'b'], and the name of "
                         "a class must not begin and end with brackets") from None


def as_number(value: object) -> float | None:
    """A number, or a number as a word (3.5 or 3,5), as a float; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+,\d+", value.strip()):
        value = value.replace(",", ".")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def is_multi_hot(rows: list[list]) -> bool:
    """Whether lists mark each label with 1 or 0, in a place of its own: as lists of ids, all would say the same."""
    return len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 and {value for row in rows for value in row} <= {0, 1}


def label_names(dataset: DatasetDict) -> list[str]:
    """The names of the labels, in the order of their ids; for scores, the single name "score"."""
    feature = dataset["train"].features["label"]
    feature = feature.feature if isinstance(feature, List) else feature
    return feature.names if isinstance(feature, ClassLabel) else ["score"]


def count(labels: dict[str, np.ndarray], names: list[str]) -> pd.DataFrame:
    """How many rows of each split have each label, the 30 most frequent ones if there are more; or how scores are distributed."""
    if len(names) == 1:
        return pd.DataFrame({split: pd.Series(values).describe().round(2) for split, values in labels.items()})
    counts = {split: values.sum(axis=0).astype(int) if values.ndim == 2 else np.bincount(values, minlength=len(names))
              for split, values in labels.items()}
    table = pd.DataFrame(counts, index=names)
    return table if len(names) <= 30 else table.sort_values("train", ascending=False).head(30)


def label_array(labels: list, num_labels: int) -> np.ndarray:
    """n labels as an array: ids (n,), scores (n,), or for several labels per text zeros and ones (n, num_labels)."""
    if isinstance(labels[0], list):
        return np.array([[float(i in ids) for i in range(num_labels)] for ids in labels], dtype=np.float32)
    return np.array(labels)


def in_words(label: object, names: list[str]) -> str:
    """One row of a label array for a table: the name of the label, the names of all labels, or the score."""
    if np.ndim(label):
        return ", ".join(name for name, value in zip(names, label) if value) or "(none)"
    return names[int(label)] if len(names) > 1 else f"{label:.2f}"


ROW_SCORES = {
    "single_label_classification": "accuracy", "multi_label_classification": "share of right labels",
    "regression": "minus the absolute error",
}


def row_scores(problem_type: str, predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
    """How well each of n rows was predicted, (n,): the score that ROW_SCORES names. It is higher for better predictions."""
    predictions, references = np.asarray(predictions), np.asarray(references)
    if problem_type == "regression":
        return -np.abs(predictions - references).reshape(len(references), -1).mean(axis=1)
    return (predictions == references).reshape(len(references), -1).mean(axis=1)


def score(problem: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores where a text has any number of labels, or a number.

    Args:
        problem: as `problem_type` names it.
        predictions, labels: (n, labels) of zeros and ones, or (n,) of numbers.

    Returns:
        Several labels: F1 averaged over labels (`f1`) and over all decisions (`f1_micro`), and the share of texts with all
        labels right (`accuracy`). Numbers: the correlations of values (`pearson`) and of ranks (`spearman`), 0 if all
        predictions are the same, and the mean squared error (`mse`).
    """
    if problem == "regression":
        varies = np.ptp(predictions) > 0 and np.ptp(labels) > 0
        return {"pearson": float(pearsonr(predictions, labels).statistic) if varies else 0.0,
                "spearman": float(spearmanr(predictions, labels).statistic) if varies else 0.0,
                "mse": float(mean_squared_error(labels, predictions))}
    f1, f1_micro = (float(f1_score(labels, predictions, average=average, zero_division=0)) for average in ("macro", "micro"))
    return {"f1": f1, "f1_micro": f1_micro, "accuracy": float(accuracy_score(labels, predictions))}


def plot_predictions(problem: str, predictions: np.ndarray, labels: np.ndarray, names: list[str]) -> pd.DataFrame | None:
    """Draw what is predicted against what is true: a confusion matrix, or a table of the most frequent confusions if there are
    more than 25 labels; F1 per label if a text has several; a scatter plot of scores. The arguments are those of `score`."""
    if problem == "multi_label_classification":
        f1 = f1_score(labels, predictions, average=None, zero_division=0)
        table = pd.DataFrame({"label": names, "texts": labels.sum(axis=0).astype(int), "F1": f1.round(2)})
        return table.sort_values("texts", ascending=False).head(50)
    if problem == "single_label_classification" and len(names) > 25:
        matrix = confusion_matrix(labels, predictions, labels=range(len(names)))
        np.fill_diagonal(matrix, 0)
        rows = []
        for i in matrix.argsort(axis=None, kind="stable")[::-1][:20]:
            true, predicted = np.unravel_index(i, matrix.shape)
            rows.append({"true": names[true], "predicted": names[predicted], "texts": matrix[true, predicted]})
        return pd.DataFrame([row for row in rows if row["texts"]])
    side = max(3.6, 2.5 + 0.5 * len(names))
    fig, ax = plt.subplots(figsize=(side + 1, side), layout="constrained")
    if problem == "regression":
        ax.scatter(labels, predictions, s=8)
        ax.axline((float(np.mean(labels)), float(np.mean(labels))), slope=1, color="gray", linewidth=0.8)
        ax.set(xlabel="true score", ylabel="predicted score")
    else:
        ConfusionMatrixDisplay.from_predictions(
            labels, predictions, labels=range(len(names)), display_labels=names, normalize="true", values_format=".2f",
            cmap="Blues", xticks_rotation=45 if len(names) < 10 else 90, im_kw={"vmin": 0, "vmax": 1}, ax=ax)
        ax.set(xlabel="predicted", ylabel="true")
        for value in ax.texts:
            value.set_visible(value.get_text() != "0.00")
    plt.show()
    return None
