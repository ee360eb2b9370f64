"""How many labels are needed: three classifiers of sequence_classification on fewer and fewer labelled texts.

    python tests/curves.py          train all of them, and write sequence_classification/labels.svg and the numbers beside it

Every point is a run of the loop notebook with the recipe "Few labels, without fine-tuning", on k texts of each class that the seed
chooses. The epochs are so many that each training has at least 60 steps. All runs test on the whole test split.
"""

import json
import math
import os
import random
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import notebooks
import recipes
from scripts import Scripts

FOLDER = "sequence_classification"
BUDGETS = (4, 8, 16, 32, None)  # texts of each class; None: all
SEEDS = (42, 43, 44)
EFFECT = 'metrics["frozen"] = score(frozen.predict(vectors["test"]), labels["test"])["accuracy"]'
NAMES = {"tf-idf": "TF-IDF + logistic regression", "frozen": "frozen encoder + logistic regression", "tuned": "fine-tuned encoder"}


def write_subset(target, budget, seed):
    """A copy of the data with `budget` training texts of each class and a third of the validation texts; return the smallest class."""
    shutil.copytree(notebooks.ROOT / FOLDER / "data", target)
    rows = [json.loads(line) for line in (target / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    random.Random(seed).shuffle(rows)
    of_class = {}
    for row in rows:
        of_class.setdefault(row["label"], []).append(row)
    kept = [row for rows in of_class.values() for row in rows[:budget]]
    (target / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    validation = (target / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    (target / "validation.jsonl").write_text("\n".join(validation[::3]) + "\n", encoding="utf-8")
    return len(kept)


def train(scripts, budget, seed):
    """Accuracies of the three classifiers on the test split."""
    target = notebooks.RUNS / "labels" / f"{budget or 'all'}-{seed}"
    if not (target / "accelerate_loop.json").exists():
        shutil.rmtree(target, ignore_errors=True)
        data = notebooks.RUNS / "labels" / f"data-{budget or 'all'}-{seed}"
        shutil.rmtree(data, ignore_errors=True)
        num_rows = write_subset(data, budget, seed)
        parameters = {"dataset_id": str(data), "seed": seed, "num_epochs": max(3, math.ceil(60 / math.ceil(num_rows / 16)))}
        changes = recipes.recipes(FOLDER)["Few labels, without fine-tuning"]
        for change in changes:
            change.names = ["accelerate_loop"]
        recipes.run(scripts, FOLDER, target, parameters, changes, EFFECT)
    found = json.loads((target / "accelerate_loop.json").read_text())
    metrics = found["metrics"]
    return {"tf-idf": found["baselines"][NAMES["tf-idf"]]["accuracy"], "frozen": metrics["frozen"], "tuned": metrics["accuracy"]}


def main():
    import matplotlib.pyplot as plt
    import numpy as np

    os.environ["OMP_NUM_THREADS"] = "1"
    (notebooks.RUNS / "labels").mkdir(parents=True, exist_ok=True)
    points = [(budget, seed) for budget in BUDGETS for seed in SEEDS]

    def share(which):  # of the points, for each of two processes
        with Scripts() as scripts:
            return {point: train(scripts, *point) for point in points[which::2]}

    with ThreadPoolExecutor(2) as pool:
        found = {point: scores for half in pool.map(share, (0, 1)) for point, scores in half.items()}
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    ticks = range(len(BUDGETS))
    print("| labels per class | " + " | ".join(NAMES.values()) + " |\n" + "|---" * (1 + len(NAMES)) + "|")
    table = {name: [[found[budget, seed][name] for seed in SEEDS] for budget in BUDGETS] for name in NAMES}
    for i, budget in enumerate(BUDGETS):
        cells = [f"{np.mean(values[i]):.2f} ± {np.std(values[i], ddof=1):.2f}" for values in table.values()]
        print(f"| {budget or 'all (120)'} | " + " | ".join(cells) + " |")
    for (name, label), style in zip(NAMES.items(), ("^:", "s--", "o-")):
        ax.errorbar(ticks, np.mean(table[name], axis=1), yerr=np.std(table[name], axis=1, ddof=1), fmt=style, capsize=3, label=label)
    ax.set(xlabel="labelled texts of each class", ylabel="accuracy on the test split", xticks=ticks, ylim=(0, 1),
           xticklabels=[budget or "all (120)" for budget in BUDGETS])
    ax.axhline(1 / 6, color="gray", linewidth=0.8)
    ax.legend(loc="lower right", fontsize="small")
    fig.savefig(notebooks.ROOT / FOLDER / "labels.svg")


if __name__ == "__main__":
    sys.exit(main())
