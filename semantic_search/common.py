"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import random
import re
import runpy
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict, Value, load_dataset
from IPython.display import HTML

STDLIB = str(Path(__file__).parent / "data" / "stdlib.py")


def load_collection(dataset_id: str, columns: dict[str, str]) -> Dataset:
    """Load the texts to search.

    Args:
        dataset_id: a local folder or a dataset on the Hub with a single split, or "stdlib": the documentation of the
            running Python's standard library, see data/stdlib.py.
        columns: {name here: name in the data}, e.g. {"text": "passage"}; empty if the columns are `id` and `text`.

    Returns:
        Columns `id`, `summary` (the first sentence) and `text`, all strings.

    Raises:
        ValueError: an id occurs twice, or a text is empty.
    """
    if dataset_id == "stdlib":
        return Dataset.from_list(runpy.run_path(STDLIB)["load"]())
    dataset = load_dataset(dataset_id)
    own = {columns.get(name, name): name for name in ("id", "text")}
    rows = dataset[next(iter(dataset))].select_columns(list(own)).rename_columns(own)
    rows = rows.cast_column("id", Value("string")).cast_column("text", Value("string"))
    if repeated := [name for name, n in Counter(rows["id"]).items() if n > 1]:
        raise ValueError(f"{dataset_id} has several texts with the id {repeated[0]!r}: give each text an id of its own")
    for name, text in zip(rows["id"], rows["text"]):
        if not (text or "").strip():
            raise ValueError(f"the text with the id {name!r} is {text!r}: remove it")
    summaries = [re.match(r".+?[.!?](?=\s|$)|.*", " ".join(text.split()))[0] for text in rows["text"]]
    return rows.add_column("summary", summaries).select_columns(["id", "summary", "text"])


def load_questions(questions_id: str, ids: list[str], columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of the questions to a collection.

    Args:
        questions_id: a local folder or a dataset on the Hub.
        ids: the ids of the collection.
        columns: {name here: name in the data}, e.g. {"question": "query"}; empty if the columns are `question` and
            `answers` (a list of ids).

    Returns:
        Each split with `question` (a string) and `answers` (a list of strings). Where there is a column `since`, as in
        data/, the answers that the running Python doesn't have are left out.

    Raises:
        ValueError: a split is missing, a question is empty or has no answer, an answer is not in the collection, or the
            answer of a test question also answers a training question.
    """
    dataset = load_dataset(questions_id)
    if missing := {"train", "validation", "test"} - set(dataset):
        raise ValueError(f"{questions_id} has no split {sorted(missing)}, only {list(dataset)}: add it, e.g. with train_test_split")
    own = {columns.get(name, name): name for name in ("question", "answers")}
    splits, known = DatasetDict(), set(ids)
    for split in ("train", "validation", "test"):
        rows = dataset[split].select_columns(list(own)).rename_columns(own)
        answers = [[str(name) for name in names or []] for names in rows["answers"]]
        if "since" in dataset[split].column_names:
            in_this_python = runpy.run_path(STDLIB)["in_this_python"]
            answers = [in_this_python(names, since) for names, since in zip(answers, dataset[split]["since"])]
        for i, (question, names) in enumerate(zip(rows["question"], answers)):
            if not str(question or "").strip() or not names:
                raise ValueError(f"row {i} of split '{split}' has the question {question!r} and the answers {names}: remove it")
            if unknown := sorted(set(names) - known):
                raise ValueError(f"row {i} of split '{split}' has answers that are not in the collection: {unknown}")
        splits[split] = Dataset.from_dict({"question": rows["question"][:], "answers": answers})
    answered = {split: {name for names in rows["answers"] for name in names} for split, rows in splits.items()}
    if leaked := sorted(answered["train"] & answered["test"]):
        raise ValueError(f"{leaked} answer questions in both train and test, so the test would repeat the training: move these rows")
    return splits


def question_pairs(questions: Dataset, collection: Dataset) -> list[dict]:
    """A training pair for each question: `question`, `id` (its first answer) and `document` (the text of that answer)."""
    texts = dict(zip(collection["id"], collection["text"]))
    return [{"question": row["question"], "id": row["answers"][0], "document": texts[row["answers"][0]]} for row in questions]


def sentence_pairs(collection: Dataset, n: int, seed: int, without: set[str]) -> list[dict]:
    """Training pairs made from the collection: the first sentence of a text serves as a question to the rest of it.

    Args:
        n: how many to draw at random; if fewer texts are suitable, all of them are used.
        without: ids of texts that must not be used.

    Returns:
        Dicts like those of `question_pairs`. A text is suitable if no other text has the same first sentence, and both
        the sentence (20 characters) and the rest (60 characters) are long enough to say something.
    """
    count = Counter(collection["summary"])
    pairs = []
    for row in collection:
        before, sentence, rest = row["text"].partition(row["summary"])
        if count[sentence] == 1 and row["id"] not in without and len(sentence) >= 20 and len(rest) >= 60:
            pairs.append({"question": sentence, "id": row["id"], "document": before + rest})
    return random.Random(seed).sample(pairs, min(n, len(pairs)))


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean pooling: one vector of length 1 for each text.

    Args:
        hidden: (texts, tokens, width), the vectors of the tokens.
        attention_mask: (texts, tokens), 1 for tokens and 0 for padding.

    Returns:
        (texts, width).
    """
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def rank_metrics(rankings: list[list[int]], relevant: list[list[int]]) -> dict[str, float]:
    """Recall at 1 and 10, reciprocal rank and nDCG at 10, each from 0 to 1 and averaged over the questions.

    Args:
        rankings: for each question the entries that were found, best first, at least ten of them.
        relevant: for each question the entries that answer it, at least one.
    """
    rows = []
    for found, answers in zip(rankings, relevant, strict=True):
        hits = [rank for rank, entry in enumerate(found[:10], start=1) if entry in answers]
        best = sum(1 / np.log2(rank + 1) for rank in range(1, min(len(answers), 10) + 1))
        rows.append({
            "recall@1": sum(rank == 1 for rank in hits) / len(answers),
            "recall@10": len(hits) / len(answers),
            "mrr@10": 1 / hits[0] if hits else 0.0,
            "ndcg@10": sum(1 / np.log2(rank + 1) for rank in hits) / best,
        })
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def start_run(output_dir: str | Path, resume: bool) -> tuple[Path, Path | None]:
    """The folder of this run, and the checkpoint to continue from.

    Returns:
        A new folder `output_dir`/run-001, run-002, ... and None; or, with `resume`, the newest such folder and its
        newest complete checkpoint.

    Raises:
        ValueError: there is nothing to resume.
    """
    numbers = [int(path.name[4:]) for path in Path(output_dir).glob("run-*") if path.name[4:].isdigit()]
    run_dir = Path(output_dir) / f"run-{max(numbers, default=0) + (not resume):03d}"
    if not resume:
        run_dir.mkdir(parents=True)
        return run_dir, None
    checkpoint = last_checkpoint(run_dir)
    if checkpoint is None:
        raise ValueError(f"no complete checkpoint in {run_dir}: train with resume = False first, or correct output_dir")
    return run_dir, checkpoint


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint below a folder, or None.

    The last file that a checkpoint gets is trainer_state.json. A checkpoint without it, or with a part of it, was being
    written when the process was killed, and is passed over.
    """
    complete = {}
    for state in folder.glob("**/checkpoint-*/trainer_state.json"):
        try:
            json.loads(state.read_text())
        except ValueError:
            continue
        complete[int(state.parent.name.split("-")[-1])] = state.parent
    return complete[max(complete)] if complete else None


def show(table: pd.DataFrame) -> HTML:
    """A table with its texts shown in full and aligned left, without the index."""
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


def plot_curves(losses: list[float], history: list[dict]) -> None:
    """Plot the training loss per optimizer step beside the validation loss and scores per epoch.

    Args:
        losses: mean loss in nats, one for each optimizer step.
        history: a dict per epoch with `epoch`, `loss` (mean, in nats) and any number of scores (0 to 1).
    """
    table = pd.DataFrame(history).set_index("epoch")
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, linewidth=1)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats")
    top = 1.1 * table["loss"].max()
    table["loss"].plot(ax=middle, marker="o", title="Validation loss", ylabel="nats", xticks=table.index, ylim=(0, top))
    styles = ["o-", "s--", "^:", "D-.", "v-", "P--", "X:"]
    scores = table.drop(columns="loss")
    scores.plot(ax=right, style=styles[: scores.shape[1]], title="Validation scores", ylim=(0, 1), xticks=table.index)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    plt.show()
