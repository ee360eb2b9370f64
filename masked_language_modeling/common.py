"""Preprocessing and display helpers that both notebooks of this folder import."""

import json
import re
import runpy
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Value
from IPython.display import HTML
from masking import make_blocks, mask_tokens, tokenize  # noqa: F401, for the notebooks
from transformers import PretrainedConfig, PreTrainedTokenizerBase

import loading


def load_splits(dataset_id: str, config: str | None, columns: dict[str, str]) -> DatasetDict:
    """Load the splits `train`, `validation` and `test` of a file, a folder, a dataset on the Hub, or of "stdlib".

    Args:
        dataset_id: "stdlib" is the documentation of the running Python's standard library, see data/docstrings.py; for anything
            else see `loading.load_splits`.
        config: the subset, for a dataset that has several.
        columns: {name here: name in the data}, e.g. {"text": "body"}; empty if the columns are `text` and `label`.

    Returns:
        Each split with a column `text` (string) and, if every split has one, a column `label`. Blank texts are left out.
    """
    if dataset_id == "stdlib":
        rows = runpy.run_path(str(Path(__file__).parent / "data" / "docstrings.py"))["load"]()
        return DatasetDict({split: Dataset.from_list(rows[split]) for split in rows})
    names = {name: columns.get(name, name) for name in ("text", "label")}
    dataset, num_blank = loading.load(dataset_id, config), 0
    for split, rows in dataset.items():
        if names["text"] in rows.column_names:  # before splits are made, so that none is made of blank lines
            has_text = [any(c.isprintable() and not c.isspace() for c in str(text or "")) for text in rows[names["text"]]]
            dataset[split] = rows.select(np.flatnonzero(has_text))
            num_blank += has_text.count(False)
    if num_blank:
        print(f"{num_blank} blank rows are left out")
    dataset = loading.choose(dataset, names, optional=() if "label" in columns else ("label",))
    loading.count_known(dataset, "text")
    return dataset.cast_column("text", Value("string"))


def rows_with_classes(splits: DatasetDict) -> pd.DataFrame:
    """The rows of `validation` and `test` with one of the ten most frequent labels, at most 100 of each, for the probe.

    Returns:
        `text` and `label` (both strings). There are no rows, and a line that says why, if the labels are no classes: decimals,
        lists, or fewer than two labels that five texts have, one for each fold.
    """
    rows = pd.concat([splits["validation"].to_pandas(), splits["test"].to_pandas()])
    nothing = pd.DataFrame({"text": [], "label": []})
    if "label" not in rows:
        print("no probe: the data have no column 'label'")
        return nothing
    if isinstance(splits["test"].features["label"], ClassLabel):
        rows["label"] = rows["label"].where(rows["label"] >= 0)  # -1: the label is secret or missing
    rows = rows.dropna(subset="label")
    if not rows["label"].map(pd.api.types.is_scalar).all():
        print("no probe: the labels are lists")
        return nothing
    rows["label"] = rows["label"].map(str)
    if any(re.fullmatch(r"[+-]?(\d*[.,]\d*[1-9]\d*|[\d.]+e-\d+)", label) for label in rows["label"]):
        print("no probe: the labels are decimal numbers, and not classes")
        return nothing
    sizes = rows["label"].value_counts(sort=False).sort_values(ascending=False, kind="stable")
    sizes = sizes[sizes >= 5]
    if len(sizes) < 2:
        print("no probe: in 'validation' and 'test' together, there are no two labels that five texts have")
        return nothing
    return rows[rows["label"].isin(sizes.index[:10])].groupby("label").head(100)


def start_run(output_dir: str | Path, resume: bool, parameters: dict) -> tuple[Path, Path | None]:
    """The folder of this run, and the checkpoint to continue from.

    Args:
        parameters: what determines the training, e.g. {"num_epochs": 3, "seed": 42}. It is kept in parameters.json.

    Returns:
        A new folder `output_dir`/run-001, run-002, ... and None; or, with `resume`, the newest such folder and its
        newest complete checkpoint.

    Raises:
        ValueError: there is nothing to resume, or the run to resume has other parameters.
    """
    numbers = [int(path.name[4:]) for path in Path(output_dir).glob("run-*") if path.name[4:].isdigit()]
    run_dir = Path(output_dir) / f"run-{max(numbers, default=0) + (not resume):03d}"
    if not resume:
        run_dir.mkdir(parents=True)
        (run_dir / "parameters.json").write_text(json.dumps(parameters))
        return run_dir, None
    checkpoint = last_checkpoint(run_dir)
    if checkpoint is None:
        raise ValueError(f"no complete checkpoint in {run_dir}: train with resume = False first, or correct output_dir")
    saved = json.loads((run_dir / "parameters.json").read_text())
    if other := {name: value for name, value in saved.items() if parameters.get(name) != value}:
        raise ValueError(f"{run_dir} was started with {other}: resume with the same parameters. To train its model further, set "
                         f"checkpoint = '{run_dir}/model' and resume = False")
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


def show_masks(input_ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerBase) -> HTML:
    """A masked block as text: the chosen tokens are highlighted, each followed by the original token in bold."""
    colours = {"masked": "#fdbf6f", "random": "#fb9a99", "kept": "#b2df8a"}
    style = "color: black; padding: 1px 4px; border-radius: 4px; background:"
    parts = [f'<span style="{style} {colour}">{kind}</span>' for kind, colour in colours.items()]
    parts.append("<br>")
    for token, seen, label in zip(tokenizer.convert_ids_to_tokens(input_ids), input_ids, labels):
        text = escape(token)
        if label != -100:
            kind = "masked" if seen == tokenizer.mask_token_id else "kept" if seen == label else "random"
            original = escape(tokenizer.convert_ids_to_tokens(label))
            text = f'<span style="{style} {colours[kind]}">{text} <b>{original}</b></span>'
        parts.append(text)
    return HTML(f'<div style="line-height: 2; max-width: 60em">{" ".join(parts)}</div>')


def readable_length(length: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """`length` in tokens, or the number of positions of the checkpoint if that is less.

    It also becomes `tokenizer.model_max_length`, at which a pipeline with the saved model truncates.
    """
    positions = getattr(config, "max_position_embeddings", None) or length  # None: the positions are relative
    if re.search("roberta|camembert|mpnet|longformer|data2vec|xmod", config.model_type):
        positions -= config.pad_token_id + 1  # these count positions from there on
    if length > positions:
        print(f"{length} tokens are asked for, and the checkpoint reads {positions}: texts are cut there")
    tokenizer.model_max_length = min(length, positions)
    return tokenizer.model_max_length


def count_unknown(input_ids: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Print the share of subword tokens that are unknown to the vocabulary, and what to do if there are many."""
    ids = np.concatenate([np.array(row, dtype=int) for row in input_ids])
    share = np.mean(ids == tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0.0
    print(f"{share:.1%} of the subword tokens are unknown to the checkpoint's vocabulary")
    if share > 0.05:
        print("The model can't tell unknown tokens apart: choose a checkpoint that was made for the language of your texts.")


def advise(history: list[dict], name: str, score: float, baseline: float, higher_is_better: bool = True) -> None:
    """Print what to change if a baseline is ahead, or if the last epoch still brought much.

    Args:
        history: a dict per epoch with the validation score `name`.
        score, baseline: of the test split.
    """
    sign = 1 if higher_is_better else -1
    values = [sign * entry[name] for entry in history]
    if sign * score <= sign * baseline:
        print(f"The simple baseline is not beaten ({baseline:.3f} against {score:.3f}). Train longer (num_epochs) or with another "
              "learning_rate, use more data, or a checkpoint that was made for your kind of text.")
    if len(values) > 1 and values[-1] == max(values) and values[-1] - values[-2] > 0.02 * abs(values[-2]):
        print(f"The validation {name} still improved in the last epoch, from {history[-2][name]:.3f} to {history[-1][name]:.3f}: "
              "raise num_epochs.")


def show(table: pd.DataFrame) -> HTML:
    """A table with its texts shown in full and aligned left, without the index."""
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))
