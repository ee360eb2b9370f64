"""Preprocessing and display helpers that both notebooks of this folder import."""

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import json
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import faiss
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError
from IPython.display import HTML
from transformers import AutoTokenizer

SPLITS = ("train", "validation", "test")
LIBRARY = Path(sysconfig.get_path("stdlib"))
# not for programs to import: tests, demonstrations, an editor, what is behind os and os.path, what left the library long ago
LEFT_OUT = {
    "__main__", "antigravity", "distutils", "encodings", "ensurepip", "genericpath", "idlelib", "lib2to3", "nt", "ntpath",
    "nturl2path", "posix", "posixpath", "pydoc_data", "site-packages", "test", "tests", "this", "turtledemo",
}


# ---------------------------------------------------------------------------------------------------- the collection


def load_collection(dataset_id: str) -> Dataset:
    """The texts to search: the documentation of the running Python's standard library, or any data set with an id and a text.

    Args:
        dataset_id: "stdlib", or a local folder or a dataset of the Hub with columns `id` and `text`, in one split.

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
    loaded = load_dataset(dataset_id)
    rows = loaded[next(iter(loaded))]
    for column in ("id", "text"):
        if column not in rows.column_names:
            raise ValueError(f"{dataset_id} has no column '{column}', only {rows.column_names}: rename the one you mean")
    ids, texts = [str(value) for value in rows["id"]], rows["text"][:]
    if not ids:
        raise ValueError(f"{dataset_id} is empty: check its data files")
    if len(set(ids)) < len(ids):
        raise ValueError(f"{dataset_id} has {len(ids) - len(set(ids))} ids more than once: every text needs one of its own")
    for name, text in zip(ids, texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the text with the id {name} is {text!r}: drop it, or cast the column to string")
    return Dataset.from_dict({"id": ids, "summary": [first_sentence(text) for text in texts], "text": texts})


def standard_library() -> list[tuple[str, str, str]]:
    """(name, signature, documentation) of every documented public function, class and method, sorted by name.

    Sources are parsed and not imported, so that modules of other platforms are read too and nothing runs; what is written
    in C, and what a module builds only when it is imported, is inspected. An object with several names has the shortest:
    `unittest.TestCase`, and not `unittest.case.TestCase`.
    """
    names = {}  # what identifies an object -> its entry
    for module in public_modules():
        for name, found in public_names(module).items():
            name = f"{module}.{name}".removeprefix("builtins.")
            for key, *entry in read_source(name, *found) if is_source(found) else inspect_object(name, found):
                if key not in names or entry[0].count(".") < names[key][0].count("."):
                    names[key] = entry
    return [tuple(entry) for entry in sorted({entry[0]: entry for entry in reversed(names.values())}.values())]


@cache
def public_modules() -> list[str]:
    """Names of the modules of the standard library that programs may import, sorted."""
    found = {"os.path"} | {name for name in sys.stdlib_module_names if importlib.util.find_spec(name)}
    for file in LIBRARY.rglob("*.py"):
        parts = file.relative_to(LIBRARY).with_suffix("").parts
        if parts[0] in sys.stdlib_module_names:
            found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(name for name in found if not any(part[0] == "_" or part in LEFT_OUT for part in name.split(".")))


@cache
def source_of(module: str) -> Path | None:
    """The file of a module, or None if it is not written in Python."""
    path = LIBRARY / Path(*{"os.path": "posixpath"}.get(module, module).split("."))  # the same names on every platform
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@cache
def tree_of(module: str) -> ast.Module:
    """The parsed source of a module."""
    return ast.parse(source_of(module).read_text(encoding="utf-8"))


def statements(body: list) -> Iterator[ast.stmt]:
    """All statements of a module, also those under `if` and `try`, but not handlers: they serve where C is missing."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, part, []))


def exported(module: str) -> set[str]:
    """The names in `__all__` as far as they are written out; empty if there is none."""
    return {
        text.value for node in statements(tree_of(module).body) if isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr))
        and any(isinstance(part, ast.Name) and part.id == "__all__" for part in ast.walk(node))
        for text in ast.walk(node) if isinstance(text, ast.Constant) and isinstance(text.value, str)
    }


def is_source(found: object) -> bool:
    """Whether a name stands for (module, node of its tree), and not for an object."""
    return isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], ast.AST)


@cache
def all_names(module: str) -> tuple[dict, set[str]]:
    """Everything with a name in a module, as (module, node) or, from C, as the object; and which names come from C by `*`."""
    if source_of(module) is None:
        target = importlib.import_module(module)
        own_first = sorted(dir(target), key=lambda name: getattr(getattr(target, name), "__name__", name) != name)
        return {name: getattr(target, name) for name in own_first}, set()
    found, methods, stars = {}, {}, set()
    package = module if source_of(module).name == "__init__.py" else module.rpartition(".")[0]
    for node in statements(tree_of(module).body):
        if isinstance(node, ast.ClassDef) or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node):
            found[node.name] = (module, node)
            methods = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)} | methods
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and node.value.attr in methods:
            found[node.targets[0].id] = (module, methods[node.value.attr])  # random.choice = an_object.choice
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            star, new = node.names[0].name == "*", {alias.name: alias.asname or alias.name for alias in node.names}
            inside = origin.startswith(module + ".") or "._" in f".{origin}" or origin in ("posix", "nt")
            if inside or exported(module) & set(new.values()):
                with contextlib.suppress(ImportError):  # a module in C of another platform
                    there = public_names(origin) if star else all_names(origin)[0]
                    new = {name: name for name in there} if star else new
                    stars |= set(new) if star else set()
                    found |= {new[name]: there[name] for name in new if name in there}
    return found, stars


@cache
def public_names(module: str) -> dict:
    """What a module is meant to give: the names in `__all__`, or else those of its own without an underscore."""
    found, stars = all_names(module)
    if source_of(module) is None:
        return {name: value for name, value in found.items() if name[0] != "_"}
    if not (named := exported(module)):
        own = {name: value for name, value in found.items() if not is_source(value) or value[0].startswith(("_", module))}
        return {name: value for name, value in own.items() if name[0] != "_"}
    public = {name: found[name] for name in found if name in named | stars}
    for name in sorted(named - set(found)):
        below = [all_names(other)[0] for other in public_modules() if other.startswith(module + ".")]
        if there := next((names for names in below if name in names), None):
            public[name] = there[name]
        else:
            with contextlib.suppress(ImportError, AttributeError):
                public[name] = getattr(importlib.import_module(module), name)
    return public


def members(module: str, node: ast.ClassDef) -> list[ast.AST]:
    """The definitions in a class, and those in its bases that are not public: nobody would find them there."""
    found = {}
    for base in reversed(node.bases):
        there = all_names(module)[0].get(getattr(base, "id", None))
        if is_source(there) and isinstance(there[1], ast.ClassDef) and there[1].name not in public_names(there[0]):
            found |= {child.name: child for child in members(*there)}
    return list((found | {child.name: child for child in node.body if hasattr(child, "name")}).values())


def read_source(name: str, module: str, node: ast.AST) -> Iterator[tuple]:
    """(key, name, signature, documentation) of a function or class and of what is defined in it, from the tree."""
    is_class = isinstance(node, ast.ClassDef)
    if ast.get_docstring(node):
        body = node.body if is_class else [node]
        takes = next((ast.unparse(child.args) for child in body if getattr(child, "name", "") in ("__init__", node.name)), "")
        yield id(node), *tidy(name, "(" + re.sub(r"^(self|cls)(, /)?(, |$)", "", takes) + ")", ast.get_docstring(node))
    for child in members(module, node) if is_class else []:
        if child.name[0] != "_":
            yield from read_source(f"{name}.{child.name}", module, child)


def inspect_object(name: str, value: object, owner: type | None = None) -> Iterator[tuple]:
    """The same of a function or class written in C, from the object."""
    doc = value.__doc__ if callable(value) and value.__doc__ != type(value).__doc__ else None  # not what it only inherits
    if isinstance(doc, str) and doc.strip():
        try:
            signature = re.sub(r"^\(\$?(self|type)(, /)?(, )?", "(", str(inspect.signature(value)))
        except Exception:  # none is written down, or its defaults exist only while a program runs
            signature = "()"
        home = owner or value
        key = getattr(home, "__module__", ""), getattr(home, "__qualname__", name), owner and name.rpartition(".")[2]
        yield key, *tidy(name, signature, inspect.cleandoc(doc))
    for key in vars(value) if isinstance(value, type) else []:
        if key[0] != "_" and not isinstance(child := getattr(value, key), type):
            yield from inspect_object(f"{name}.{key}", child, value)


def tidy(name: str, signature: str, doc: str) -> tuple[str, str, str]:
    """Name, signature and documentation, where calls at the top of the documentation, as many in C have them, are taken off."""
    calls = re.match(rf"(?:[\w.]*\b{re.escape(name.rpartition('.')[2])}\(.*\)?(?:\s*->.*)?(?:\n|$))+", doc)
    if calls and signature == "()" and (arguments := re.search(r"\(.*?\)", calls[0])):
        signature = arguments[0]
    return name, signature, (doc[calls.end():] if calls else doc).strip() or doc


def first_sentence(text: str) -> str:
    """The first sentence of a text, or its first paragraph if that has no end of a sentence."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.match(r".+?[.!?](?<!e\.g\.)(?<!i\.e\.)(?=\s|$)|.*", paragraph)[0]


def load_questions(questions_id: str, ids: list[str]) -> DatasetDict:
    """Load questions and check that they can be answered from a collection.

    Args:
        questions_id: a local folder or a dataset of the Hub with the splits `train`, `validation` and `test` and the columns
            `question` (str) and `answers` (a list of ids), and perhaps `since` (for each answer, the first version of Python
            that has it, or an empty text).
        ids: the ids of the collection.

    Returns:
        The three splits with `question` and `answers`, answers of newer versions of Python left out.

    Raises:
        ValueError: a split or column is missing or empty, a question is empty or has no answer, an answer is not in the
            collection, or one of a training question answers a test question too.
    """
    try:
        loaded = load_dataset(questions_id)
    except (DatasetGenerationError, ValueError) as error:
        raise ValueError(
            f"{questions_id} can't be read: {error.__cause__ or error}\nEvery split needs rows with the same columns"
        ) from error
    known, splits = set(ids), {}
    for split in SPLITS:
        if split not in loaded:
            raise ValueError(f"{questions_id} has no split '{split}', only {list(loaded)}: add it, e.g. with train_test_split")
        rows = loaded[split]
        if missing := {"question", "answers"} - set(rows.column_names):
            raise ValueError(f"split '{split}' has no column '{min(missing)}', only {rows.column_names}: rename the one you mean")
        if len(rows) == 0:
            raise ValueError(f"split '{split}' is empty: check its data files")
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
    """The answers of a row that the running version of Python has."""
    since = row.get("since") or [""] * len(row["answers"])
    running = sys.version_info[:2]
    return [
        name for name, version in zip(row["answers"], since, strict=True)
        if not version or tuple(map(int, version.split("."))) <= running
    ]


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
    """SHA-256 of all weights: two models with the same one give the same vectors."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
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
    Path(folder).mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(Path(folder) / "index.faiss"))
    (Path(folder) / "index.json").write_text(json.dumps({"model": fingerprint(model), "ids": ids}))


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
        ValueError: the vectors have another width than those in the index.
    """
    if vectors.shape[1] != index.d:
        raise ValueError(f"the vectors have {vectors.shape[1]} numbers and those in the index {index.d}: use the model that made the index")
    return index.search(vectors, k)


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
    checkpoints = [path for path in run.glob("checkpoint-*") if is_complete(path)]
    if not checkpoints:
        raise ValueError(f"no complete checkpoint in {run}: train with resume = False first, or correct output_dir")
    return run, max(checkpoints, key=lambda path: int(path.name.split("-")[-1]))


def is_complete(checkpoint: Path) -> bool:
    """Whether the last file that a checkpoint gets is there and whole."""
    try:
        return bool(json.loads((checkpoint / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return False


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
