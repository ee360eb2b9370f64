"""What both notebooks of sequence_classification/ compute and show, against scikit-learn, plain PyTorch or a few lines by hand.

Other tests prove that the two agree with each other; a fault that is in both, or in common.py, shows only here. They run on texts
in which a mistake changes a number: the labels are words, of other frequencies in every split; some texts are cut; the last batch
and the last optimizer step of an epoch are short; and the epoch with the best macro-F1 is best in nothing else, and not the last.
"""

import ast
import html
import json
import math
import random
import re
from collections import Counter
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from notebooks import PAIR, ROOT, common_of, copy_folder, prepared, python
from oracles import definitions
from parameters import LEARNABLE
from scripts import job
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score
from sklearn.pipeline import make_pipeline
from stand_ins import WORDS
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

FOLDER = "sequence_classification"
CHECKPOINT = LEARNABLE[FOLDER]["checkpoint"]
EPOCHS, BATCH, ACCUMULATION, RATE, HEAD_RATE, LONGEST, SEED = 6, 5, 2, 1e-2, 1e-2, 24, 7
PARAMETERS = {
    "checkpoint": CHECKPOINT, "dataset_id": "texts", "columns": {"text": "body", "label": "taste"}, "max_length": LONGEST,
    "num_epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "head_learning_rate": HEAD_RATE,
    "gradient_accumulation_steps": ACCUMULATION, "seed": SEED,
}
NAMES = ["bitter", "salty", "sour", "sweet"]  # sorted, as the ids are
SIZES = {
    "train": {"sour": 31, "bitter": 26, "sweet": 16, "salty": 10},
    "validation": {"sweet": 15, "bitter": 9, "sour": 6, "salty": 4},
    "test": {"sweet": 21, "sour": 12, "salty": 9, "bitter": 5},
}
common = common_of(FOLDER)


# ---------------------------------------------------------------------------------------------------- the data and the runs


def make_data():
    """{split: rows}. Each label prefers words of its own; the columns `text` and `label` are there to be left out."""
    rng, data = random.Random(125), {}
    for split, sizes in SIZES.items():
        rows = []
        for label, n in sizes.items():
            own = WORDS[NAMES.index(label) * 3 : 40 : len(NAMES) * 3]
            for _ in range(n):
                text = " ".join(rng.choice(own if rng.random() < 0.35 else WORDS) for _ in range(rng.choice([3, 4, 5, 6, 7, 8, 9, 12, 20])))
                rows.append({"text": "ba", "body": text, "label": 1, "taste": label})
        rng.shuffle(rows)
        data[split] = rows
    return data


DATA = make_data()
TEXTS = {split: [row["body"] for row in rows] for split, rows in DATA.items()}
LABELS = {split: np.array([NAMES.index(row["taste"]) for row in rows]) for split, rows in DATA.items()}

PRELUDE = """
import IPython.display, matplotlib.pyplot
import pandas as pd

SHOWN, PLOTS = [], []

def SHOW(*things):
    for thing in things:
        if isinstance(thing, pd.DataFrame):
            SHOWN.append(thing.copy())
        elif isinstance(thing, IPython.display.HTML):
            SHOWN.append(thing.data)
        elif type(thing) in (list, dict):
            SHOWN.append(thing)

def KEEP_PLOTS():
    for ax in [ax for number in matplotlib.pyplot.get_fignums() for ax in matplotlib.pyplot.figure(number).axes]:
        PLOTS.append({
            "lines": {line.get_label(): [list(line.get_xdata()), list(line.get_ydata())] for line in ax.lines},
            "bars": [[bar.get_x(), bar.get_width(), bar.get_height()] for bar in ax.patches],
            "images": [image.get_array().tolist() for image in ax.images],
            "texts": [text.get_text() for text in ax.texts],
            "x": ax.get_xlabel(), "y": ax.get_ylabel(), "title": ax.get_title(),
            "ticks": [[tick.get_text() for tick in ticks] for ticks in (ax.get_xticklabels(), ax.get_yticklabels())],
        })
    matplotlib.pyplot.close("all")

IPython.display.display = SHOW
"""


def script(name, target):
    """A notebook as a script that keeps what its cells show in `SHOWN`, and what their plots hold in `PLOTS`."""
    parts = [PRELUDE]
    for cell in prepared(ROOT / FOLDER / f"{name}.ipynb", PARAMETERS, f"{name}.json").cells:
        if cell.cell_type == "code":
            tree = ast.parse(python(cell.source))
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                tree.body[-1] = ast.parse(f"SHOW({ast.unparse(tree.body[-1])})").body[0]
            parts += [ast.unparse(tree), "KEEP_PLOTS()"]
    (target / f"{name}.py").write_text("\n\n".join(parts))
    return f"{name}.py"


@pytest.fixture(scope="module")
def folder(hub, scripts, tmp_path_factory):
    """Where both notebooks ran on the texts above."""
    target = tmp_path_factory.mktemp("sequence") / "run"
    copy_folder(FOLDER, target)
    (target / "texts").mkdir()
    for split, rows in DATA.items():
        (target / "texts" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recorder = str(ROOT / "tests" / "record.py")
    jobs = [job(target, recorder, script(name, target), f"{name}.record", log=f"{name}.log") for name in PAIR]
    assert scripts.run(*jobs) == [0, 0], "\n\n".join((target / f"{name}.log").read_text()[-3000:] for name in PAIR)
    return target


@pytest.fixture(scope="module", params=PAIR)
def run(request, folder):
    return Run(folder, request.param)


# ---------------------------------------------------------------------------------------------------- references


def scores_of(labels, predictions):
    return {"accuracy": accuracy_score(labels, predictions), "f1": f1_score(labels, predictions, average="macro")}


def token_ids(texts):
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    return [[first, *ids[: LONGEST - 2], last] for first, *ids, last in tokenizer(list(texts))["input_ids"]]


def padded(rows):
    """Arguments of a model for rows of token ids."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def logits_of(model, texts):
    """One text at a time, so that nothing is padded."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(**padded([row])).logits for row in token_ids(texts)])


def new_model():
    set_seed(SEED)
    return AutoModelForSequenceClassification.from_pretrained(CHECKPOINT, num_labels=len(NAMES)).train()


def trained():
    """A training in plain PyTorch: the loss of every step, the scores of every epoch, and the best weights."""
    rows, labels = token_ids(TEXTS["train"]), torch.tensor(LABELS["train"])
    model = new_model()
    set_seed(SEED)
    norms = {id(p) for part in model.modules() if isinstance(part, torch.nn.LayerNorm) for p in part.parameters()}
    rates = {}
    for name, p in model.named_parameters():
        rate = HEAD_RATE if name.startswith(("pre_classifier", "classifier")) else RATE
        rates.setdefault((rate, 0.0 if id(p) in norms or name.endswith("bias") else 0.01), []).append(p)
    optimizer = torch.optim.AdamW([{"params": p, "peak": rate, "weight_decay": decay} for (rate, decay), p in rates.items()])
    losses, history, states = [], [], []
    for epoch in range(EPOCHS):
        model.train()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED + epoch)).tolist()
        batches = list(DataLoader(range(len(rows)), batch_size=BATCH, sampler=order, collate_fn=list))
        for start in range(0, len(batches), ACCUMULATION):
            step = batches[start : start + ACCUMULATION]
            sums = [F.cross_entropy(model(**padded([rows[i] for i in batch])).logits, labels[batch], reduction="sum") for batch in step]
            loss = sum(sums) / sum(map(len, step))
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share(len(losses), EPOCHS * math.ceil(len(batches) / ACCUMULATION))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        list(DataLoader(range(2)))  # every loader takes a number from torch's generator when it starts
        logits = logits_of(model, TEXTS["validation"])
        loss = F.cross_entropy(logits, torch.tensor(LABELS["validation"])).item()
        history.append({"epoch": epoch + 1, "loss": loss, **scores_of(LABELS["validation"], logits.argmax(-1))})
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    return losses, history, states


def share(step, total):
    """Of the learning rate's peak at a step, the first of which is 0: up over a tenth of the steps, then down to zero."""
    warm = math.ceil(total / 10)
    return step / warm if step < warm else (total - step) / (total - warm)


# ---------------------------------------------------------------------------------------------------- what the runs left


class Run:
    """What one notebook wrote, showed and plotted, and what its saved model says of the test split."""

    def __init__(self, folder, name):
        record = torch.load(folder / f"{name}.record", weights_only=False)
        self.events, self.variables = record["events"], record["variables"]
        self.shown, self.plots = self.variables["SHOWN"], self.variables["PLOTS"]
        self.log = (folder / f"{name}.log").read_text()
        self.saved = folder / "outputs" / name / "run-001" / "model"
        written = json.loads((folder / f"{name}.json").read_text())
        self.losses, self.history, self.metrics, self.baselines = (written[key] for key in ("losses", "history", "metrics", "baselines"))

    @cached_property
    def model(self):
        return AutoModelForSequenceClassification.from_pretrained(self.saved).eval()

    @cached_property
    def test_logits(self):
        return logits_of(self.model, TEXTS["test"])

    @cached_property
    def predictions(self):
        return self.test_logits.argmax(-1).numpy()

    def tables(self, *columns):
        """The tables shown that have these columns, as a frame or as HTML, all as frames."""
        frames = [frame_of(each) if isinstance(each, str) else each for each in self.shown if isinstance(each, (str, pd.DataFrame))]
        return [frame for frame in frames if set(columns) <= set(frame.columns)]

    def plot(self, title):
        return next(plot for plot in self.plots if plot["title"] == title)

    def plot_of(self, line):
        return next(plot for plot in self.plots if line in plot["lines"])

    def printed(self, *numbers, within=0.0051):
        """Whether one line has these numbers, one after the other."""
        for line in self.log.splitlines():
            found = [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", line)]
            for i in range(len(found) - len(numbers) + 1):
                if found[i : i + len(numbers)] == pytest.approx(numbers, abs=within):
                    return True
        return False

    def steps_on(self, size):
        """For each optimizer step on a data set of this size: [(indices of rows, what the model was given, its logits), ...], groups."""
        drawn, step, found = [], [], []
        for event in self.events:
            if event["kind"] == "batch" and event["size"] == size:
                drawn.append(event)
            elif event["kind"] == "forward" and event["grad"]:
                ids = event["inputs"]["input_ids"]
                for i, batch in enumerate(drawn):
                    if torch.equal(batch["batch"]["input_ids"], ids):
                        step.append((drawn.pop(i)["indices"], event["inputs"], event["outputs"]["logits"]))
                        break
            elif event["kind"] == "step" and step:
                found.append((step, event["groups"]))
                step = []
        return found

    def kept_steps(self):
        """Those of the training that is kept, which comes after the plain one of one epoch, a batch to a step."""
        n = len(TEXTS["train"])
        return self.steps_on(n)[math.ceil(n / BATCH) :]


def frame_of(text):
    rows = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.S) for row in re.findall(r"<tr.*?>(.*?)</tr>", text, flags=re.S)]
    head, *rows = [[html.unescape(cell) for cell in row] for row in rows]
    return pd.DataFrame(rows, columns=head)


@pytest.fixture(scope="module")
def reference(hub):
    losses, history, states = trained()
    return SimpleNamespace(losses=losses, history=history, states=states, best=max(history, key=lambda entry: entry["f1"]))


def close(expected, tolerance=1e-5):
    return pytest.approx(expected, rel=tolerance, abs=tolerance)


# ---------------------------------------------------------------------------------------------------- training


def test_the_data_tell_mistakes_apart(run, reference):
    best = reference.best
    assert best["epoch"] < EPOCHS
    assert best["accuracy"] < max(e["accuracy"] for e in reference.history) and best["loss"] > min(e["loss"] for e in reference.history)
    y, predictions = LABELS["test"], run.predictions
    numbers = [f1_score(y, predictions, average=average) for average in ("macro", "micro", "weighted")]
    numbers += [score(y, predictions, average="macro") for score in (precision_score, recall_score)]
    numbers += [f1_score(LABELS["validation"], logits_of(run.model, TEXTS["validation"]).argmax(-1), average="macro")]
    assert min(abs(a - b) for i, a in enumerate(numbers) for b in numbers[:i]) > 0.003, numbers
    assert len({Counter(labels).most_common(1)[0][0] for labels in map(np.ndarray.tolist, LABELS.values())}) > 1


def test_a_step_trains_on_the_rows_it_drew_and_logs_the_mean_loss_over_them(run):
    ids, labels = token_ids(TEXTS["train"]), torch.tensor(LABELS["train"])
    losses, order = [], []
    for step, _ in run.kept_steps():
        total, rows = 0.0, 0
        for indices, inputs, logits in step:
            expected = padded([ids[i] for i in indices])
            assert torch.equal(inputs["input_ids"], expected["input_ids"])
            assert torch.equal(inputs["attention_mask"], expected["attention_mask"])
            total += F.cross_entropy(logits, labels[indices], reduction="sum").item()
            rows, order = rows + len(indices), order + indices
        losses.append(total / rows)
    assert run.losses == close(losses)
    epochs = np.array(order).reshape(EPOCHS, -1)
    assert np.array_equal(np.sort(epochs), [range(len(ids))] * EPOCHS)
    assert len(set(map(tuple, epochs))) == EPOCHS, "an order of its own for every epoch"


def test_dropout_is_on_in_training_and_off_wherever_nothing_is_learned(run):
    calls = [event for event in run.events if event["kind"] == "forward"]
    assert [call["training"] for call in calls] == [call["grad"] for call in calls]
    evaluated = EPOCHS * math.ceil(len(TEXTS["validation"]) / BATCH) + math.ceil(len(TEXTS["test"]) / BATCH)
    assert sum(not call["grad"] for call in calls) > evaluated


def test_the_learning_rate_warms_up_over_a_tenth_of_the_steps_and_falls_to_zero(run):
    total = EPOCHS * math.ceil(math.ceil(len(TEXTS["train"]) / BATCH) / ACCUMULATION)
    assert [groups[0][0] for _, groups in run.kept_steps()] == close([RATE * share(i, total) for i in range(total)])


def test_training_is_that_of_plain_pytorch(run, reference):
    """Seeds, order of the rows, clipping, weight decay, schedule and dropout, all of which change the losses."""
    assert run.losses == close(reference.losses, 1e-4)
    assert [entry["epoch"] for entry in run.history] == list(range(1, EPOCHS + 1))
    for found, expected in zip(run.history, reference.history, strict=True):
        assert found == close(expected, 1e-4)


def test_the_model_of_the_best_epoch_is_saved_with_the_names_of_its_labels(run, reference):
    model = new_model()
    model.load_state_dict(reference.states[reference.best["epoch"] - 1])
    assert run.test_logits.numpy() == close(logits_of(model, TEXTS["test"]).numpy(), 1e-3)
    assert run.model.config.id2label == dict(enumerate(NAMES))
    assert run.model.config.label2id == {name: i for i, name in enumerate(NAMES)}
    assert run.model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(run.saved)
    assert tokenizer(TEXTS["test"])["input_ids"] == AutoTokenizer.from_pretrained(CHECKPOINT)(TEXTS["test"])["input_ids"]


# ---------------------------------------------------------------------------------------------------- scores and errors


def test_the_metrics_are_those_of_the_saved_model_on_the_test_split(run):
    expected = scores_of(LABELS["test"], run.predictions)
    assert run.metrics == close(expected)
    assert run.variables["test_logits"].numpy() == close(run.test_logits.numpy(), 1e-4)
    assert run.variables["test_labels"].tolist() == LABELS["test"].tolist()
    shown = run.tables("accuracy", "f1")[-1]
    assert len(shown) == 3 and shown.iloc[2].to_dict() == pytest.approx(expected, abs=0.00051)


def test_the_baselines_learn_from_the_training_split_and_are_tested_on_the_test_split(run):
    y = LABELS["test"]
    majority = np.full(len(y), np.bincount(LABELS["train"]).argmax())
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS["train"], LABELS["train"])
    expected = [scores_of(y, majority), scores_of(y, words.predict(TEXTS["test"]))]
    assert list(run.baselines.values()) == [close(each) for each in expected]
    first = next(table for table in run.tables("accuracy", "f1") if len(table) == 2)
    assert first.to_dict("records") == [pytest.approx(each, abs=0.00051) for each in expected]


def test_the_history_is_shown_and_plotted(run):
    history = pd.DataFrame(run.history).set_index("epoch")
    if "epoch 1:" in run.log:  # Trainer shows its own table instead
        means = np.array(run.losses).reshape(EPOCHS, -1).mean(axis=1)
        for mean, entry in zip(means, run.history):
            assert run.printed(entry["epoch"], mean, entry["loss"], entry["accuracy"], within=0.00051)
    (steps, losses), = run.plot("Training loss")["lines"].values()
    assert steps == list(range(1, len(run.losses) + 1)) and losses == run.losses
    (epochs, losses), = run.plot("Validation loss")["lines"].values()
    assert epochs == list(range(1, EPOCHS + 1)) and losses == history["loss"].tolist()
    assert {key: y for key, (_, y) in run.plot("Validation scores")["lines"].items()} == history[["accuracy", "f1"]].to_dict("list")


def test_the_confusion_matrix_has_true_labels_in_rows_and_shares_of_them(run):
    (plot,) = [plot for plot in run.plots if plot["images"]]
    assert np.array(plot["images"][0]) == close(confusion_matrix(LABELS["test"], run.predictions, normalize="true"))
    assert (plot["x"], plot["y"], plot["ticks"]) == ("predicted", "true", [NAMES, NAMES])


def test_the_worst_rows_are_those_with_the_highest_loss(run):
    chances = run.test_logits.double().softmax(-1).numpy()
    losses = -np.log(chances[range(len(chances)), LABELS["test"]])
    (shown,) = run.tables("text", "true", "predicted", "loss")
    worst = np.argsort(-losses)[:10]
    assert shown["text"].tolist() == [TEXTS["test"][i] for i in worst]
    assert shown["true"].tolist() == [NAMES[LABELS["test"][i]] for i in worst]
    assert shown["predicted"].tolist() == [NAMES[run.predictions[i]] for i in worst]
    assert shown["loss"].astype(float).to_numpy() == pytest.approx(losses[worst], abs=0.0051)


# ---------------------------------------------------------------------------------------------------- data and batches


def test_the_columns_and_labels_are_those_of_the_data(run):
    (counts,) = run.tables("train", "validation", "test")
    assert counts.to_dict() == {split: {name: SIZES[split][name] for name in NAMES} for split in SIZES}
    firsts = [text for i in range(len(NAMES)) for text in np.array(TEXTS["train"])[LABELS["train"] == i][:2]]
    sample = run.tables("text", "label")[0]
    assert sample["text"].tolist() == firsts and sample["label"].tolist() == [name for name in NAMES for _ in range(2)]
    words = [len(text.split()) for text in TEXTS["train"]]
    (bars,) = [plot["bars"] for plot in run.plots if plot["bars"]]
    assert [height for *_, height in bars] == [sum(x <= n < x + width for n in words) for x, width, _ in bars] and len(bars) > 8
    assert run.printed(min(words), max(words), np.median(words))


def test_the_first_text_the_first_batch_and_what_was_cut_are_shown(run):
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    first = tokenizer(TEXTS["train"][0])["input_ids"]
    assert {TEXTS["train"][0], str(first), str(tokenizer.convert_ids_to_tokens(first))} <= set(run.log.splitlines())
    for split, texts in TEXTS.items():
        lengths = [len(row) for row in token_ids(texts)]
        assert f"{split}: longest text {max(lengths)} tokens, {lengths.count(LONGEST)} texts with {LONGEST}" in run.log
    assert run.printed(*[len(row) for row in token_ids(TEXTS["train"][:4])]) and run.printed(*LABELS["train"][:4])


def test_the_loss_before_training_is_that_of_the_first_64_rows(run):
    loss = F.cross_entropy(logits_of(new_model(), TEXTS["train"][:64]), torch.tensor(LABELS["train"][:64])).item()
    assert run.printed(64, len(NAMES)) and run.printed(loss, math.log(len(NAMES)))


def test_only_the_head_is_new(run):
    assert set(run.variables["head"]) == {f"{layer}.{part}" for layer in ("pre_classifier", "classifier") for part in ("weight", "bias")}


# ---------------------------------------------------------------------------------------------------- use and what goes wrong


def test_the_pipeline_gives_each_label_its_probability(run):
    given = [event["inputs"]["input_ids"] for event in run.events if event["kind"] == "forward" and not event["grad"]]
    asked = [ids for ids in given if len(ids) == 1]  # all other batches have more rows
    (shown,) = run.tables("text", *(f"answer {i + 1}" for i in range(len(NAMES))))
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    texts = [tokenizer(text)["input_ids"] for text in shown["text"]]
    assert [ids[0].tolist() for ids in asked] == texts + token_ids(TEXTS["test"]), "new texts, and then those of the test split"
    with torch.no_grad():
        answers = [run.model(input_ids=ids).logits[0].softmax(-1).tolist() for ids in asked[: len(texts)]]
    for cells, answer in zip(shown.drop(columns="text").to_numpy().tolist(), answers, strict=True):
        assert [cell.split()[0] for cell in cells] == [NAMES[i] for i in np.argsort(answer)[::-1]]
        assert [float(cell.split()[1]) for cell in cells] == pytest.approx(sorted(answer, reverse=True), abs=0.0051)
    assert float(run.variables["difference"]) < 1e-5, "the saved model is the one that was evaluated"


@pytest.mark.parametrize("way", ["undivided", "divided by 2", "exact"])
def test_each_way_to_divide_the_loss_gives_the_training_that_it_is_said_to_give(folder, way):
    run, half = Run(folder, "accelerate_loop"), BATCH // 2
    n = 20 * half + half // 2
    ids, labels = token_ids(TEXTS["train"])[:n], torch.tensor(LABELS["train"][:n])
    chunks = [slice(start, min(start + half, n)) for start in range(0, n, half)]
    model, losses = new_model(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for i in range(0, len(chunks), 2):
        window = chunks[i : i + 2]
        means = [F.cross_entropy(model(**padded(ids[chunk])).logits, labels[chunk]) for chunk in window]
        sizes = [len(ids[chunk]) for chunk in window]
        exact = sum(mean * size for mean, size in zip(means, sizes)) / sum(sizes)
        loss = {"undivided": sum(means), "divided by 2": sum(means) / 2, "exact": exact}[way]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    plot = run.plot_of(way)
    assert plot["lines"][way][1] == close(losses, 1e-4)
    assert any(y == close([math.log(len(NAMES))] * 2) for _, y in plot["lines"].values() if len(y) == 2)
    (shown,) = run.tables("undivided", "exact")
    assert shown[way].tolist() == pytest.approx([losses[0], losses[-1]], abs=0.0051)


def test_the_default_trainer_logs_the_sum_of_the_means_of_two_batches(folder):
    run, labels = Run(folder, "trainer_api"), torch.tensor(LABELS["train"])
    half, exact, default = BATCH // 2, [], []
    for step, _ in run.steps_on(20 * half):
        sums = [F.cross_entropy(logits, labels[indices], reduction="sum").item() for indices, _, logits in step]
        sizes = [len(indices) for indices, *_ in step]
        exact.append(sum(sums) / sum(sizes))
        default.append(sum(total / size for total, size in zip(sums, sizes)))
    assert len(exact) == 20, "two trainings of ten steps, that with the default loss first"
    lines = run.plot_of("exact loss")["lines"]
    assert lines["default loss"][1] == close(default[:10], 1e-3) and lines["exact loss"][1] == close(exact[10:], 1e-3)
    assert any(y == close([math.log(len(NAMES))] * 2) for _, y in lines.values() if len(y) == 2)
    (shown,) = run.tables("first loss", "mean gradient norm")
    assert shown["first loss"].tolist() == pytest.approx([default[0], exact[10]], abs=0.0051)
    assert default[0] == pytest.approx(2 * exact[10], rel=1e-4)
    assert shown["mean gradient norm"].iloc[0] > 1.5 * shown["mean gradient norm"].iloc[1]


def test_a_schedule_counted_in_batches_hardly_decays(folder):
    run = Run(folder, "accelerate_loop")
    lines = run.plot_of("counted in batches")["lines"]
    rates = {"counted in batches": [share(i, 800) for i in range(100)], "counted in optimizer steps": [share(i, 100) for i in range(100)]}
    assert {name: y for name, (_, y) in lines.items()} == {name: close(y) for name, y in rates.items()}
    assert run.printed(*(100 * y[-1] for y in rates.values()), within=0.51)


def test_the_widths_that_are_timed_are_those_of_the_batch_and_of_max_length(run):
    rows, labels = token_ids(TEXTS["train"][:BATCH]), LABELS["train"][:BATCH].tolist()
    width = max(map(len, rows))
    calls = [event["inputs"] for event in run.events if event["kind"] == "forward" and event["grad"]][-8:]
    assert [call["input_ids"].shape[1] for call in calls] == [width] * 4 + [LONGEST] * 4 and width < LONGEST
    for call in calls:
        assert [ids[mask == 1].tolist() for ids, mask in zip(call["input_ids"], call["attention_mask"])] == rows
        assert call["labels"].tolist() == labels
    assert run.printed(LONGEST, width, LONGEST / width, within=0.051)


# ---------------------------------------------------------------------------------------------------- functions by name


@pytest.mark.parametrize("name", PAIR)
def test_the_loss_is_the_sum_over_the_texts_divided_by_those_of_the_step(name):
    wanted = ["compute_loss", "row_losses"] + ["is_real"] * (name == "accelerate_loop")
    compute_loss, *_ = definitions(FOLDER, name, *wanted, F=F, problem_type="single_label_classification")
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1, 0])
    expected = -logits.log_softmax(-1)[range(5), labels].sum().item()
    outputs = SimpleNamespace(logits=logits)
    assert compute_loss(outputs, labels, torch.tensor(7)).item() == close(expected / 7)
    if name == "trainer_api":
        assert compute_loss(outputs, labels).item() == close(expected / 5), "in evaluation Trainer gives no number"
    else:
        labels[2] = -100
        expected = -logits.log_softmax(-1)[[0, 1, 3, 4], labels[[0, 1, 3, 4]]].sum().item()
        assert compute_loss(outputs, labels, torch.tensor(4)).item() == close(expected / 4)


@pytest.mark.parametrize("name", PAIR)
def test_the_time_of_a_pass_is_the_median_without_the_first(name):
    spent = iter([0, 100, 0, 7, 0, 2, 0, 3])  # pairs of a start and an end
    rows = Dataset.from_dict({"input_ids": [[5, 6], [7]], "labels": [0, 1]})
    given = {
        "device": torch.device("cpu"), "tokenized": {"train": rows}, "batch_size": 2, "max_length": 9, "np": np,
        "time": SimpleNamespace(perf_counter=lambda: next(spent)), "tokenizer": AutoTokenizer.from_pretrained(CHECKPOINT),
        "new_model": new_model,
    }
    assert definitions(FOLDER, name, "measure", **given)("max_length") == (9, 3)


def test_a_text_is_shown_as_it_is():
    shown = common.show(pd.DataFrame({"text": [20 * "<b> & " + "end"]})).data
    assert 20 * "&lt;b&gt; &amp; " + "end" in shown and "<b>" not in shown
