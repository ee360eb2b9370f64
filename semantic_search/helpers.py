"""What every task needs beside its training: runs and checkpoints, limits of a checkpoint, tables and plots. All five folders have
this same module, and common.py passes on what its notebooks use."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from IPython.display import HTML
from transformers import PretrainedConfig, PreTrainedTokenizerBase


def own_device() -> torch.device:
    """The device of this process: one GPU, or the CPU if there is none.

    Without a launcher, only one GPU is visible from here on. Otherwise `Trainer` would use all of them, each with a batch of
    `batch_size` rows, and would be another experiment than on one GPU.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    return PartialState(cpu=not torch.accelerator.is_available()).device


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


def readable_length(length: int, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """`length` in tokens, or the number of positions of the checkpoint if that is less.

    The number of positions is also set as `tokenizer.model_max_length`, which some tokenizers lack, and pipelines need.
    """
    positions = getattr(config, "max_position_embeddings", None) or length  # None: the positions are relative
    if re.search("roberta|camembert|mpnet|longformer|data2vec|xmod", config.model_type):
        positions -= config.pad_token_id + 1  # these count positions from there on
    if length > positions:
        print(f"{length} tokens are asked for, and the checkpoint reads {positions}: that is the limit")
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return min(length, positions)


def count_unknown(input_ids: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Print the share of subword tokens that are unknown to the vocabulary, and what to do if there are many."""
    ids = np.concatenate([np.array(row, dtype=int) for row in input_ids])
    known_all = tokenizer.unk_token_id in (None, tokenizer.eos_token_id)  # tokenizers of bytes, such as that of GPT-2
    share = 0.0 if known_all else np.mean(ids == tokenizer.unk_token_id)
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


def compare(
    name: str, before: np.ndarray, after: np.ndarray, measure: Callable = lambda mean: mean, higher_is_better: bool = True,
) -> None:
    """Print whether a score of `after` is better than that of `before` on the same test rows, by a paired bootstrap.

    We draw as many rows as there are, with replacement, ten thousand times, and see in what range the difference of the two
    scores falls (Berg-Kirkpatrick et al., 2012, https://aclanthology.org/D12-1091). Chance in training is not in it: for that,
    train with other seeds.

    Args:
        name: of the score.
        before, after: a value for each row, (rows,), such as 1 or 0 for right or wrong; or several, (rows, k), such as counts.
        measure: makes the score from the mean over rows, (...) or (..., k); by default, the score is that mean.
    """
    rng, n, differences = np.random.default_rng(0), len(before), []
    for _ in range(100):
        shares = rng.multinomial(n, np.full(n, 1 / n), size=100) / n  # how often each row was drawn
        differences.append(measure(shares @ after) - measure(shares @ before))
    difference = float(measure(np.mean(after, axis=0)) - measure(np.mean(before, axis=0)))
    low, high = np.percentile(np.concatenate(differences), [2.5, 97.5]).tolist()
    up, down = ("a gain", "a loss") if higher_is_better else ("a loss", "a gain")
    verdict = up if low > 0 else down if high < 0 else "no gain shown"
    print(f"{name}: difference {difference:+.3f}, 95% interval {low:+.3f} to {high:+.3f}: {verdict}")


def show(table: pd.DataFrame) -> HTML:
    """A table without the index, with its texts aligned left and cut at 600 characters."""
    table = table.map(lambda value: f"{value[:600]}…" if isinstance(value, str) and len(value) > 600 else value)
    html = table.to_html(index=False, border=0)
    return HTML(html.replace("<td>", '<td style="text-align: left">').replace("<th>", '<th style="text-align: left">'))


def plot_curves(losses: list[float], history: list[dict]) -> None:
    """Plot the training loss per optimizer step beside the validation loss and scores per epoch.

    Args:
        losses: mean loss in nats, one for each optimizer step.
        history: a dict per epoch with `epoch`, `loss` (mean, in nats) and any number of scores.
    """
    table = pd.DataFrame(history).set_index("epoch")
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    left.plot(range(1, len(losses) + 1), losses, linewidth=1)
    left.set(title="Training loss", xlabel="optimizer step", ylabel="nats")
    top = 1.1 * table["loss"].max()
    table["loss"].plot(ax=middle, marker="o", title="Validation loss", ylabel="nats", xticks=table.index, ylim=(0, top))
    styles = ["o-", "s--", "^:", "D-.", "v-", "P--", "X:"]
    scores = table.drop(columns="loss").iloc[:, :8]  # more could not be told apart
    limits = (0, 1) if scores.min(axis=None) >= 0 and scores.max(axis=None) <= 1 else None
    scores.plot(ax=right, style=styles[: scores.shape[1]], title="Validation scores", ylim=limits, xticks=table.index)
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    plt.show()
