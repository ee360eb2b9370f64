"""Preprocessing and display helpers that both notebooks of this folder import."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import bm25s
import faiss
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from IPython.display import HTML
from transformers import AutoTokenizer

SPLITS = ("train", "validation", "test")
COLUMNS = ("id", "text", "question", "answers")
TASK = "sentence-similarity"  # as the Hub and `pipeline` call it
ABOUT = "Turns texts and questions into vectors, near where they belong together (semantic search): mean over tokens, length 1."
USE = """from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer("NAME")  # takes the mean over tokens
vectors = encoder.encode(["put names in order", "sort a list"], normalize_embeddings=True)
print(vectors[0] @ vectors[1])"""  # NAME is where the model is


# ---------------------------------------------------------------------------------------------------- the collection


def load_collection(dataset_id: str, columns: dict[str, str]) -> Dataset:
    """The texts to search: the documentation of the running Python's standard library, or any data set with an id and a text.

    Args:
        dataset_id: "stdlib", or a local folder or a dataset of the Hub with columns `id` and `text`, in one split.
        columns: {name here: name in the data}, e.g. {"text": "passage"}.

    Returns:
        Columns `id`, `summary` (the first sentence) and `text` (what is searched: for the standard library the name, the
        signature and the documentation), all str.

    Raises:
        ValueError: a column is missing, there are no rows, an id is there twice, or a text is empty.
    """
    if dataset_id == "stdlib":
        return Dataset.from_list([
            {"id": name, "summary": first_sentence(doc), "text": f"{name}{signature}: {doc}"}
            for name, signature, doc in standard_library()
        ])
    loaded = rename(load(dataset_id), {name: own for name, own in columns.items() if name not in ("question", "answers")}, dataset_id)
    rows = loaded[next(iter(loaded))]
    for column in ("id", "text"):
        check_column(rows, column, dataset_id)
    ids, texts = [str(value) for value in rows["id"]], rows["text"][:]
    if not ids:
        raise ValueError(f"{dataset_id} is empty: check its data files")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{dataset_id} has {len(ids) - len(set(ids))} ids more than once: every text needs one of its own")
    for name, text in zip(ids, texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the text with the id {name} is {text!r}: drop it, or cast the column to string")
    return Dataset.from_dict({"id": ids, "summary": [first_sentence(text) for text in texts], "text": texts})


def load(dataset_id: str) -> DatasetDict:
    """All splits of a local folder or a dataset of the Hub. Raises ValueError if the files can't be read."""
    try:
        return load_dataset(dataset_id)
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(
            f"{dataset_id} can't be read: {error.__cause__ or error}\nEvery split needs rows with the same columns, and labels "
            "among the names in the dataset's card, if it has one"
        ) from error


def rename(loaded: DatasetDict, columns: dict[str, str], dataset_id: str) -> DatasetDict:
    """A data set with its columns named as they are here.

    Args:
        columns: {name here: name in the data}, of the columns that have another name there.
        dataset_id: names the data set in the message of an error.

    Raises:
        ValueError: `columns` has a name that is not used here, or one that the data have not.
    """
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ValueError(f"columns has {unknown}, and the names used here are {COLUMNS}: write them before the colon, yours behind it")
    for split, rows in loaded.items():
        if missing := sorted(set(columns.values()) - set(rows.column_names)):
            raise ValueError(f"split '{split}' of {dataset_id} has no column {missing}, only {rows.column_names}: correct {columns = }")
        hidden = [name for name in columns if name in rows.column_names and name not in columns.values()]
        changed = {own: name for name, own in columns.items() if own != name}
        loaded[split] = rows.remove_columns(hidden).rename_columns(changed)
    return loaded


def check_column(rows: Dataset, column: str, where: str) -> None:
    """Raise ValueError if `rows` has no such column; `where` names it in the message."""
    if column not in rows.column_names:
        raise ValueError(
            f"{where} has no column '{column}', only {rows.column_names}: name the one you mean, "
            f"e.g. columns = {{'{column}': 'its name in the data'}}"
        )


def read_lists(rows: Dataset, column: str, split: str) -> Dataset:
    """`rows` with the texts of a column read as lists in JSON, as CSV files must hold them; a column of lists stays as it is.

    Raises:
        ValueError: a text is not a list in JSON.
    """
    if getattr(rows.features[column], "dtype", None) not in ("string", "large_string"):
        return rows
    lists = []
    for i, text in enumerate(rows[column]):
        try:
            lists.append(json.loads(text or ""))
        except json.JSONDecodeError:
            lists.append(None)
        if not isinstance(lists[-1], list):
            raise ValueError(
                f"row {i} of split '{split}' has the {column} {text!r}, which is no list: every row needs one, in a CSV file "
                'written as in JSON, ["like", "this"]'
            )
    return rows.remove_columns(column).add_column(column, lists)


def standard_library() -> list[tuple[str, str, str]]:
    """(name, signature, documentation) of what the running Python's standard library documents, by name.

    stdlib.py finds it, in a process of its own: a notebook's kernel replaces some functions of the library.
    """
    done = subprocess.run([sys.executable, "-I", str(Path(__file__).with_name("stdlib.py"))], capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def first_sentence(text: str) -> str:
    """The first sentence of a text, or its first paragraph if that has no end of a sentence."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.match(r".+?[.!?](?<!e\.g\.)(?<!i\.e\.)(?=\s|$)|.*", paragraph)[0]


def load_questions(questions_id: str, ids: list[str], columns: dict[str, str]) -> DatasetDict:
    """Load questions and check that they can be answered from a collection.

    Args:
        questions_id: a local folder or a dataset of the Hub with the splits `train`, `validation` and `test` and the columns
            `question` (str) and `answers` (a list of ids), and perhaps `since` (for each answer, the first version of Python
            that has it, or an empty text).
        ids: the ids of the collection.
        columns: {name here: name in the data}, e.g. {"question": "query"}.

    Returns:
        The three splits with `question` and `answers`, answers of newer versions of Python left out.

    Raises:
        ValueError: a split or column is missing or empty, a question is empty or has no answer, an answer is not in the
            collection, or one of a training question answers a test question too.
    """
    loaded = rename(load(questions_id), {name: own for name, own in columns.items() if name not in ("id", "text")}, questions_id)
    known, splits = set(ids), {}
    for split in SPLITS:
        if split not in loaded:
            raise ValueError(f"{questions_id} has no split '{split}', only {list(loaded)}: add it, e.g. with train_test_split")
        rows = loaded[split]
        for column in ("question", "answers"):
            check_column(rows, column, f"split '{split}'")
        if len(rows) == 0:
            raise ValueError(f"split '{split}' is empty: check its data files")
        rows = read_lists(rows, "answers", split)
        kept = [answers_here(row) for row in rows]
        for i, (row, answers) in enumerate(zip(rows, kept)):
            where = f"row {i} of split '{split}'"
            if not isinstance(row["question"], str) or not row["question"].strip():
                raise ValueError(f"{where} has the question {row['question']!r}: drop it")
            if not answers:
                raise ValueError(f"{where} has no answer: give it the id of one, or drop it")
            if unknown := sorted(set(map(str, answers)) - known):
                raise ValueError(f"{where} has answers that are not in the collection: {unknown}: correct the ids")
        splits[split] = Dataset.from_dict({"question": rows["question"][:], "answers": kept})
    answered = {split: {name for names in splits[split]["answers"] for name in names} for split in SPLITS}
    if leaked := sorted(answered["train"] & answered["test"]):
        raise ValueError(f"{leaked} answer questions in 'train' and in 'test': the test would be about what was trained; move rows")
    return DatasetDict(splits)


def answers_here(row: dict) -> list[str]:
    """The answers of a row that the running version of Python has, as str, as the ids of the collection are."""
    answers = row["answers"] or []
    since = row.get("since") or [""] * len(answers)
    running = sys.version_info[:2]
    return [
        str(name) for name, version in zip(answers, since, strict=True)
        if not version or tuple(map(int, version.split("."))) <= running
    ]


def question_pairs(questions: Dataset, collection: Dataset) -> list[dict]:
    """A pair for each question: `question`, `id` of its first answer and `document`, the text of that."""
    texts = dict(zip(collection["id"], collection["text"]))
    return [{"question": row["question"], "id": row["answers"][0], "document": texts[row["answers"][0]]} for row in questions]


def sentence_pairs(collection: Dataset, n: int, seed: int, without: set[str]) -> list[dict]:
    """`n` pairs of a first sentence and the text that it was taken out of, chosen at random, in the form of `question_pairs`.

    Only entries count whose first sentence no other has, that are not in `without`, and of which enough is left to tell what
    they are about; if they are fewer than `n`, all are taken.
    """
    once = ~pd.Series(collection["summary"][:]).duplicated(keep=False)
    usable = [
        {"question": row["summary"], "id": row["id"], "document": row["text"].replace(row["summary"], "", 1)}
        for row, alone in zip(collection, once)
        if alone and row["id"] not in without and len(row["summary"]) >= 20 and len(row["text"].partition(row["summary"])[2]) >= 60
    ]
    return random.Random(seed).sample(usable, min(n, len(usable)))


def whole_batches(rows: list[dict], batch_size: int) -> list[dict]:
    """The rows that fill whole batches. Raises ValueError if they do not fill one."""
    if len(rows) < batch_size:
        raise ValueError(f"{len(rows)} pairs do not fill a batch of {batch_size}: use a smaller batch_size, or a larger num_pairs")
    return rows[: len(rows) // batch_size * batch_size]


# ---------------------------------------------------------------------------------------------------- vectors


def load_tokenizer(checkpoint: str):
    """The tokenizer of a checkpoint. Raises ValueError if it has no pad token, without which no batch can be made."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer.pad_token is None:
        raise ValueError(
            f"the tokenizer of {checkpoint} has no pad token: set one, e.g. tokenizer.pad_token = tokenizer.eos_token "
            "and model.config.pad_token_id = tokenizer.pad_token_id"
        )
    return tokenizer


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Mean pooling: the mean of the vectors of a text's tokens, padding left out, scaled to length 1 (Reimers and Gurevych, 2019).

    Args:
        hidden: (texts, tokens, width).
        attention_mask: (texts, tokens), 1 on tokens and 0 on padding.

    Returns:
        (texts, width).
    """
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def token_batches(lengths: list[int], budget: int) -> list[list[int]]:
    """Indices of texts in batches of at most `budget` tokens, padding included; texts of like length are together.

    Args:
        lengths: the number of tokens in each text. A text longer than the budget gets a batch of its own.
    """
    batches = [[]]
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[i] > budget:
            batches.append([])
        batches[-1].append(i)
    return batches if lengths else []


def check_query(query: str, tokenizer, max_length: int) -> str:
    """A query that can be searched. Raises ValueError if it is empty; warns if it is longer than the model reads.

    Args:
        max_length: in tokens, special tokens included.
    """
    if not query.strip():
        raise ValueError("the query is empty: write what you are looking for")
    if (length := len(tokenizer(query, truncation=False)["input_ids"])) > max_length:
        warnings.warn(f"the query has {length} tokens, and only the first {max_length} are read: make it shorter", stacklevel=2)
    return query


# ---------------------------------------------------------------------------------------------------- scores


def rank_metrics(ranked: list[list[int]], relevant: list[list[int]]) -> dict[str, float]:
    """Means over questions, from 0 to 1, of recall at 1 and at 10, reciprocal rank and nDCG at 10 (Järvelin and Kekäläinen, 2002).

    Recall is the share of a question's answers that are found; the reciprocal rank is that of the first answer, 0 if it is
    not among the first ten; nDCG gives an answer at rank r the weight 1 / log2(r + 1), relative to the best order.

    Args:
        ranked: for each question, entries in the order in which they are found, best first, at least ten.
        relevant: for each question, the entries that answer it.
    """
    rows = []
    for found, answers in zip(ranked, relevant, strict=True):
        hits = [rank for rank, entry in enumerate(found[:10], start=1) if entry in answers]
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(len(answers), 10) + 1))
        rows.append({
            "recall@1": sum(rank == 1 for rank in hits) / len(answers),
            "recall@10": len(hits) / len(answers),
            "mrr@10": 1 / hits[0] if hits else 0.0,
            "ndcg@10": sum(1 / np.log2(rank + 1) for rank in hits) / ideal,
        })
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def validate(queries: torch.Tensor, documents: torch.Tensor, temperature: float) -> dict[str, float]:
    """Loss (nats per question) and MRR@10 of questions among all texts of all questions.

    Args:
        queries: (n, width), of length 1.
        documents: (n, texts per question, width), of length 1; the first text of a question is its answer.
        temperature: what the cosines are divided by.
    """
    similarity = queries @ documents.flatten(0, 1).T
    right = torch.arange(len(queries)) * documents.shape[1]
    rank = 1 + (similarity > similarity.gather(1, right[:, None])).sum(dim=1)
    loss = torch.nn.functional.cross_entropy(similarity / temperature, right)
    return {"loss": loss.item(), "mrr@10": torch.where(rank <= 10, 1 / rank, 0).mean().item()}


def fuse(*rankings: list[int], k: int = 60) -> list[int]:
    """One ranking from several by reciprocal rank fusion (Cormack, Clarke and Buettcher, 2009): the sum of 1 / (k + rank).

    Args:
        rankings: entries, best first, of one question.
        k: how little the first ranks differ; 60 is the authors' value.
    """
    scores = {}
    for ranking in rankings:
        for rank, entry in enumerate(ranking, start=1):
            scores[entry] = scores.get(entry, 0) + 1 / (k + rank)
    return sorted(scores, key=scores.get, reverse=True)


# ---------------------------------------------------------------------------------------------------- the index


def fingerprint(model: torch.nn.Module) -> str:
    """SHA-256 of the weights that mean pooling uses: two models with the same one give the same vectors.

    A pooling layer is left out: it is not saved, and loading makes a new one with random weights.
    """
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith("pooler."):
            continue
        weights.update(name.encode() + tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return weights.hexdigest()


def build_index(ids: list[str], vectors: np.ndarray) -> faiss.Index:
    """An exact index by inner product, which for vectors of length 1 is the cosine.

    Args:
        ids: n names.
        vectors: (n, width), float32.

    Raises:
        ValueError: another number of ids than of vectors.
    """
    if len(ids) != len(vectors):
        raise ValueError(f"{len(ids)} ids and {len(vectors)} vectors: embed the whole collection, in its order")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def save_index(folder: str | Path, index: faiss.Index, ids: list[str], model: torch.nn.Module) -> None:
    """Write an index, the ids of its vectors and the fingerprint of the model that made them into a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    new = {name: folder / f"{name}.{os.getpid()}" for name in ("index.faiss", "index.json")}
    faiss.write_index(index, str(new["index.faiss"]))
    new["index.json"].write_text(json.dumps({"model": fingerprint(model), "ids": ids}))
    for name, file in new.items():  # renamed when whole, so that no other process reads half a file
        file.replace(folder / name)


def load_index(folder: str | Path, model: torch.nn.Module) -> tuple[faiss.Index, list[str]]:
    """Read an index and the ids of its vectors. Raises ValueError if another model made it, or ids and vectors differ in number."""
    index, saved = faiss.read_index(str(Path(folder) / "index.faiss")), json.loads((Path(folder) / "index.json").read_text())
    if saved["model"] != fingerprint(model):
        raise ValueError(f"the index in {folder} was made by another model, whose vectors mean something else: embed the collection again")
    if len(saved["ids"]) != index.ntotal:
        raise ValueError(f"{len(saved['ids'])} ids and {index.ntotal} vectors in {folder}: embed the collection again")
    return index, saved["ids"]


def nearest(index: faiss.Index, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and positions of the `k` best entries for each vector, both (n, k), best first.

    Args:
        vectors: (n, width), float32.

    Raises:
        ValueError: the vectors have another width than those in the index, or that has fewer than `k` entries.
    """
    if vectors.shape[1] != index.d:
        raise ValueError(f"the vectors have {vectors.shape[1]} numbers and those in the index {index.d}: use the model that made the index")
    if k > index.ntotal:
        raise ValueError(f"{k} entries are asked for and the index has {index.ntotal}: ask for fewer, or add texts")
    return index.search(vectors, k)


def trade(vectors: np.ndarray, queries: np.ndarray, lists: int) -> pd.DataFrame:
    """What approximate indexes give up for time: recall@10 against the exact search, and milliseconds per query.

    Args:
        vectors: (n, width), float32, of length 1.
        queries: (m, width), likewise. They are searched one at a time, as people ask.
        lists: the number of lists of the inverted file (IVF).

    Returns:
        A row for each kind and setting: `kind`, `setting`, `recall` (0 to 1), `ms`, `build s` and `MB` (10^6 bytes).
    """
    kinds = {
        "exact": ("Flat", "", [None]),
        "IVF": (f"IVF{lists},Flat", "nprobe", [1, 2, 4, 8, 16, 32]),
        "HNSW": ("HNSW32", "efSearch", [8, 16, 32, 64, 128, 256]),
    }
    rows, exact = [], None
    for kind, (description, knob, values) in kinds.items():
        index, began = faiss.index_factory(vectors.shape[1], description, faiss.METRIC_INNER_PRODUCT), time.perf_counter()
        index.train(vectors)
        index.add(vectors)
        cost = {"build s": time.perf_counter() - began, "MB": len(faiss.serialize_index(index)) / 1e6}
        for value in values:
            if knob:
                faiss.ParameterSpace().set_index_parameter(index, knob, value)
            index.search(queries[:1], 10)  # the first search after a change takes longer
            began = time.perf_counter()
            found = [set(index.search(query[None], 10)[1][0]) for query in queries]
            ms = (time.perf_counter() - began) * 1000 / len(queries)
            exact = exact or found
            recall = np.mean([len(one & two) / len(two) for one, two in zip(found, exact)])
            rows.append({"kind": kind, "setting": f"{knob}={value}" if knob else "", "recall": recall, "ms": ms, **cost})
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------------- runs and display


def start_run(output_dir: str | Path, resume: bool) -> tuple[Path, Path | None]:
    """The folder of this run and the checkpoint to go on from.

    Returns:
        A new folder `output_dir`/run-001, run-002, … and None, so that no earlier run is overwritten; or, with
        `resume`, the newest such folder and its newest complete checkpoint. A checkpoint is complete when its last
        file, trainer_state.json, can be read: one that a killed process had half written is passed over.

    Raises:
        ValueError: there is nothing to resume.
    """
    numbers = [int(path.name[4:]) for path in Path(output_dir).glob("run-*") if path.name[4:].isdigit()]
    if not resume:
        run = Path(output_dir) / f"run-{max(numbers, default=0) + 1:03d}"
        run.mkdir(parents=True)
        return run, None
    run = Path(output_dir) / f"run-{max(numbers, default=0):03d}"
    checkpoints = [path for path in run.glob("**/checkpoint-*") if is_complete(path)]
    if not checkpoints:
        raise ValueError(f"no complete checkpoint in {run}: train with resume = False first, or correct output_dir")
    return run, max(checkpoints, key=lambda path: int(path.name.split("-")[-1]))


def is_complete(checkpoint: Path) -> bool:
    """Whether the last file that a checkpoint gets is there and whole."""
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return False


def model_card(name: str, checkpoint: str, datasets: list[str], metrics: dict[str, float]) -> ModelCard:
    """The page of a model on the Hub, to be saved as README.md beside its weights: task, data, metrics and how to use it.

    Args:
        name: of the repository on the Hub, or a folder.
        checkpoint: what training started from.
        datasets: what it was trained and tested on.
        metrics: name -> value on the test split.
    """
    def on_hub(name):  # as owner/name, which what is on this disk is not
        return re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists()

    tested = {"task_type": TASK, "dataset_type": datasets[0], "dataset_name": ", ".join(datasets), "dataset_split": "test"}
    data = ModelCardData(
        model_name=name, library_name="transformers", pipeline_tag=TASK, base_model=checkpoint if on_hub(checkpoint) else None,
        datasets=list(filter(on_hub, datasets)) or None,
        eval_results=[EvalResult(**tested, metric_type=key, metric_value=value) for key, value in metrics.items()],
    )
    rows = "".join(f"| {key} | {value:.3f} |\n" for key, value in metrics.items())
    return ModelCard(
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{ABOUT}\n\n- started from: {checkpoint}\n- data: {', '.join(datasets)}\n\n"
        f"## Test split\n\n| metric | value |\n|---|---|\n{rows}\n## Use\n\n```python\n{USE.replace('NAME', name)}\n```\n"
    )


def show(table: pd.DataFrame) -> HTML:
    """A table with its texts aligned left and shown whole, without the index; HTML in the cells is escaped."""
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


def plot_curves(losses: list[float], history: list[dict]) -> None:
    """Training loss per optimizer step beside validation loss and scores per epoch.

    Args:
        losses: mean nats per target, one for each optimizer step.
        history: one dict per epoch with `epoch`, `loss` (mean nats per target) and any number of scores (0 to 1).
    """
    table = pd.DataFrame(history).set_index("epoch")
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, linewidth=1)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats")
    table["loss"].plot(ax=middle, marker="o", title="Validation loss", ylabel="nats", xticks=table.index)
    scores, styles = table.drop(columns="loss"), ["o-", "s--", "^:", "D-.", "v-", "P--", "X:"]
    scores.plot(ax=right, style=styles[: scores.shape[1]], title="Validation scores", ylim=(0, 1), xticks=table.index)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    plt.show()


def words_of(text: str) -> set[str]:
    """The words of a text in lower case, without stop words: what a search by words sees."""
    return set(bm25s.tokenize(text, stopwords="en", return_ids=False, show_progress=False)[0])


def compare(questions: list[str], relevant: list[list[int]], collection: Dataset, words: list[list[int]],
            meaning: list[list[int]]) -> pd.DataFrame:
    """Question by question, the rank at which BM25 and an encoder first find any answer, and which words BM25 had to go by.

    Args:
        questions: n questions.
        relevant: for each, the positions of its answers in the collection.
        collection: the entries.
        words, meaning: for each, the positions that BM25 and the encoder found, best first.

    Returns:
        `question`, `answer` (the first that is listed), the ranks `BM25` and `encoder` (one more than was looked at if none
        was found), `shared with the answer`, `BM25's first` and `shared with that`.
    """
    ids, texts, rows = collection["id"][:], collection["text"][:], []
    for question, answers, *rankings in zip(questions, relevant, words, meaning, strict=True):
        ranks = [next((i for i, entry in enumerate(found, start=1) if entry in answers), len(found) + 1) for found in rankings]
        asked, answer, first = words_of(question), answers[0], rankings[0][0]
        rows.append({
            "question": question, "answer": ids[answer], "BM25": ranks[0], "encoder": ranks[1],
            "shared with the answer": ", ".join(sorted(asked & words_of(texts[answer]))),
            "BM25's first": ids[first], "shared with that": ", ".join(sorted(asked & words_of(texts[first]))),
        })
    return pd.DataFrame(rows)


def plot_trade(curves: dict[str, pd.DataFrame]) -> None:
    """Recall against time for the tables that `trade` gives, one picture for each; the exact search is a dashed line."""
    fig, axes = plt.subplots(1, len(curves), figsize=(5.5 * len(curves), 3.2), squeeze=False, layout="constrained")
    for ax, (name, curve) in zip(axes[0], curves.items()):
        for kind, rows in curve[curve["kind"] != "exact"].groupby("kind"):
            ax.plot(rows["ms"], rows["recall"], marker="o", label=kind)
        ax.axvline(curve.loc[curve["kind"] == "exact", "ms"].item(), color="gray", linestyle="--", label="exact")
        ax.set(title=name, xlabel="milliseconds per query", ylabel="recall@10", xscale="log")
        ax.legend(loc="lower right")
    plt.show()
