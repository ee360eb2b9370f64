"""Everything that the notebooks of masked_language_modeling/ compute and show, against references of this file.

Both run on small texts in which each number differs from those that a mistake would give: labels and words are uneven, the last batch
and the last optimizer step are short, blocks hide different numbers of tokens, and the best epoch is not the last.
"""

import ast
import html
import json
import math
import random
import re
import sysconfig
from collections import Counter, defaultdict
from functools import cached_property
from itertools import chain
from pydoc_data.topics import topics

import notebooks
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from oracles import definitions
from parameters import LEARNABLE
from safetensors.torch import load_file, save_file
from scripts import job
from stand_ins import WORDS
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertModel, pipeline

FOLDER = "masked_language_modeling"
common = notebooks.common_of(FOLDER)
SHARE, SEED, SIZE, BATCH, EPOCHS, RATE = 0.3, 11, 48, 7, 3, 3.5e-3
PARAMETERS = LEARNABLE[FOLDER] | {
    "columns": {"text": "body", "label": "part"}, "dataset_id": "texts", "mask_probability": SHARE, "seed": SEED, "block_size": SIZE,
    "batch_size": BATCH, "num_epochs": EPOCHS, "learning_rate": RATE, "gradient_accumulation_steps": 2,
    "checkpoint": "stand-in/no-dropout",  # so that training can be repeated here
}
WHOLE_WORDS = {"trainer_api": True, "accelerate_loop": False}  # so that both ways are seen

# ---------------------------------------------------------------------------------------------------- the run


def texts(rng, words, n, label):
    """Texts of very different lengths: a word is often followed by its neighbour, and words of a label's own are frequent."""
    own = [*WORDS[ord(label) % 12 : 60 : 12], "xyz"]
    found = []
    for _ in range(n):
        text = [rng.choice(words)]
        while len(text) < 3 or len(text) < 60 and rng.random() < 0.93:
            follows = text[-1] in words and rng.random() < 0.5
            text.append(words[(words.index(text[-1]) + 1) % len(words)] if follows else rng.choice([rng.choice(words), rng.choice(own)]))
        found.append({"body": " ".join(text), "part": label})
    return found


def make_data():
    """Rows of each split. Training prefers other words than the others, which make the validation score fall and rise again."""
    rng = random.Random(4)
    often = list(chain.from_iterable([word] * (1 + 100 // (1 + i)) for i, word in enumerate(WORDS[:140])))
    sizes = {"a": 118, "b": 24, "c": 19, "d": 17, "e": 15, "f": 13, "g": 12, "h": 11, "i": 10, "j": 9, "k": 7, "l": 6}
    train = [row for label, n in sizes.items() for row in texts(rng, often, n // 2 + 14, label)]
    others = [row for label, n in sizes.items() for row in texts(rng, WORDS[::-1], n, label)]
    for rows in (train, others):
        rng.shuffle(rows)
    return {"train": train, "validation": others[:100], "test": others[100:]}


PRELUDE = """
import IPython.display, matplotlib.pyplot
import pandas as pd

SHOWN, PLOTS = [], []

def SHOW(*things):
    SHOWN.extend(thing.copy() if isinstance(thing, pd.DataFrame) else thing.data for thing in things
                 if isinstance(thing, (pd.DataFrame, IPython.display.HTML)))

def keep_plot():
    axes = matplotlib.pyplot.gcf().axes
    PLOTS.append([{line.get_label(): list(line.get_ydata()) for line in ax.lines} for ax in axes])
    matplotlib.pyplot.close("all")

IPython.display.display, matplotlib.pyplot.show = SHOW, keep_plot
"""


def script(name, target):
    """A notebook as a script that keeps in `SHOWN` the tables which the notebook would show, and in `PLOTS` the lines of its plots."""
    parameters = PARAMETERS | {"whole_words": WHOLE_WORDS[name]}
    document = notebooks.prepared(notebooks.ROOT / FOLDER / f"{name}.ipynb", parameters, f"{name}.json")
    parts = [PRELUDE]
    for cell in document.cells:
        if cell.cell_type == "code":
            tree = ast.parse(notebooks.python(cell.source))
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                tree.body[-1] = ast.parse(f"SHOW({ast.unparse(tree.body[-1])})").body[0]
            parts.append(ast.unparse(tree))
    (target / f"{name}.py").write_text("\n\n".join(parts))
    return f"{name}.py"


@pytest.fixture(scope="module")
def folder(hub, scripts, tmp_path_factory):
    """Where both notebooks ran on the texts of `make_data`."""
    target = tmp_path_factory.mktemp("masked") / "run"
    notebooks.copy_folder(FOLDER, target)
    (target / "texts").mkdir()
    for split, rows in make_data().items():
        (target / "texts" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recorder = str(notebooks.ROOT / "tests" / "record.py")
    jobs = [job(target, recorder, script(name, target), f"{name}.record", log=f"{name}.log") for name in notebooks.PAIR]
    assert scripts.run(*jobs) == [0, 0], "\n".join((target / f"{name}.log").read_text()[-2000:] for name in notebooks.PAIR)
    return target


class Run:
    """What one notebook wrote, and beside it the data and the models as this file reads them."""

    def __init__(self, folder, name):
        record = torch.load(folder / f"{name}.record", weights_only=False)
        self.events, self.whole_words = record["events"], WHOLE_WORDS[name]
        self.shown, self.plots = record["variables"]["SHOWN"], record["variables"]["PLOTS"]
        self.log = (folder / f"{name}.log").read_text()
        self.saved = folder / "outputs" / name / "run-001" / "model"
        written = json.loads((folder / f"{name}.json").read_text())
        self.losses, self.history, self.metrics = written["losses"], written["history"], written["metrics"]
        self.baselines = written["baselines"]
        self.data = make_data()
        self.tokenizer = AutoTokenizer.from_pretrained(PARAMETERS["checkpoint"])
        self.special = set(self.tokenizer.all_special_ids)
        self.blocks = {}
        for split, rows in self.data.items():
            ids = list(chain.from_iterable(self.tokenizer(row["body"])["input_ids"] for row in rows))
            self.blocks[split] = torch.tensor(ids[: len(ids) // SIZE * SIZE]).reshape(-1, SIZE)
        assert len({len(blocks) for blocks in self.blocks.values()}) == 3, "or the splits of batches can't be told by their size"

    def batches(self, split):
        """What the loaders of a split drew, in the order of the run: indices of the blocks, ids as the model sees them, labels."""
        # a plain training, which is not kept, draws blocks before, with the library's collator
        wanted = [e for e in self.events if e["kind"] == "batch" and e["size"] == len(self.blocks[split]) and "masked" in e["batch"]]
        return [(e["indices"], e["batch"]["input_ids"], e["batch"]["labels"]) for e in wanted]

    def epochs(self, split):
        """The batches of each pass through a split, as (indices, ids, labels) of all its blocks."""
        batches, size = self.batches(split), math.ceil(len(self.blocks[split]) / BATCH)
        passes = [batches[i : i + size] for i in range(0, len(batches), size)]
        return [(sum((b[0] for b in each), []), torch.cat([b[1] for b in each]), torch.cat([b[2] for b in each])) for each in passes]

    @cached_property
    def models(self):
        """The model as it comes, and the one that was saved."""
        return {"before": AutoModelForMaskedLM.from_pretrained(PARAMETERS["checkpoint"]).eval(),
                "after": AutoModelForMaskedLM.from_pretrained(self.saved).eval()}

    @cached_property
    def guesses(self):
        """One row for each hidden token of the test split."""
        _, seen, labels = self.epochs("test")[0]
        counts, blocks, table = self.counts, self.blocks["test"], []
        with torch.no_grad():
            logits = {key: model(input_ids=seen).logits for key, model in self.models.items()}
        for row, column in (labels != -100).nonzero().tolist():
            token = blocks[row, column].item()
            kind = "another token"
            if seen[row, column] == self.tokenizer.mask_token_id:
                kind = "mask token"
            elif seen[row, column] == token:
                kind = "itself"
            losses = {key: -each[row, column].double().log_softmax(0)[token].item() for key, each in logits.items()}
            unigram = -math.log((counts[token] + 1) / (counts.total() + len(self.tokenizer)))
            best = logits["after"][row, column].topk(3).indices.tolist()
            table.append({"row": row, "column": column, "token": token, "occurrences": counts[token], "seen as": kind,
                          "unigram": unigram, "best": best, **losses})
        return pd.DataFrame(table)

    @cached_property
    def counts(self):
        """How often each token that is not special is in the blocks of training."""
        return Counter(i for i in self.blocks["train"].flatten().tolist() if i not in self.special)

    def told(self, *numbers, within):
        """Whether one printed line has these numbers in their order."""
        for line in self.log.splitlines():
            found = iter(re.findall(r"-?\d+(?:\.\d+)?", line.replace(",", "")))
            if all(any(abs(float(each) - number) <= within for each in found) for number in numbers):
                return True
        return False

    def table(self, *columns):
        """The one table with these columns that was shown, as rows of texts if it was shown as HTML."""
        frames = [table for table in self.shown if isinstance(table, pd.DataFrame) and list(table.columns) == list(columns)]
        for page in self.shown:
            if isinstance(page, str) and "<table" in page:
                lines = [re.findall(r"(?s)<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"(?s)<tr.*?</tr>", page)]
                if lines[0] == list(columns):
                    frames.append([[html.unescape(text) for text in line] for line in lines[1:]])
        (found,) = frames
        return found


@pytest.fixture(scope="module", params=notebooks.PAIR)
def run(request, folder):
    return Run(folder, request.param)


# ---------------------------------------------------------------------------------------------------- masks


def units_of(block, run, whole_words):
    """Positions that are hidden together: those of a word, or single ones. What continues a word of the block before is a word too."""
    tokens, units = run.tokenizer.convert_ids_to_tokens(block), []
    for i, (token, number) in enumerate(zip(tokens, block)):
        if number in run.special:
            continue
        if whole_words and token.startswith("##") and i and block[i - 1] not in run.special:
            units[-1].append(i)
        else:
            units.append([i])
    return units


def check_masks(run, split, indices, seen, labels):
    """Each block is that of the data set, and as much of it is hidden as fits into the share; return what the hidden tokens became."""
    kinds = Counter()
    for i, ids, targets in zip(indices, seen.tolist(), labels.tolist(), strict=True):
        block = run.blocks[split][i].tolist()
        hidden = {place for place, target in enumerate(targets) if target != -100}
        assert all(targets[place] == block[place] for place in hidden)
        assert all(ids[place] == block[place] for place in range(SIZE) if place not in hidden)
        units = units_of(block, run, run.whole_words)
        assert all(hidden.issuperset(unit) or hidden.isdisjoint(unit) for unit in units) and hidden <= set(chain.from_iterable(units))
        most = round(SHARE * sum(map(len, units)))
        assert len(hidden) <= most and all(len(hidden) + len(unit) > most for unit in units if hidden.isdisjoint(unit))
        for place in hidden:
            kinds[{run.tokenizer.mask_token_id: "mask", block[place]: "kept"}.get(ids[place], "random")] += 1
            assert ids[place] == run.tokenizer.mask_token_id or ids[place] not in run.special
    return kinds


def masks(run, split, indices, *key):
    """What the model should see of blocks and the labels, when the numbers in `key` and the number of the block decide all chance."""
    ordinary, drawn = np.array([i for i in range(len(run.tokenizer)) if i not in run.special]), []
    for i in indices:
        block = run.blocks[split][i].tolist()
        words = np.full(SIZE, -1)
        for number, unit in enumerate(units_of(block, run, whole_words=True)):
            words[unit] = number
        generator = np.random.default_rng([*key, i])
        drawn.append(common.mask_tokens(
            block, words.tolist(), generator, run.tokenizer.mask_token_id, ordinary, SHARE, run.whole_words
        ))
    return tuple(torch.tensor(part) for part in zip(*drawn))


def test_training_hides_the_share_of_the_parameter_in_words_or_in_single_tokens(run):
    kinds = Counter()
    for indices, seen, labels in run.epochs("train"):
        kinds += check_masks(run, "train", indices, seen, labels)
    for kind, share in {"mask": 0.8, "kept": 0.1, "random": 0.1}.items():
        assert kinds[kind] / kinds.total() == pytest.approx(share, abs=0.02)


def test_each_epoch_sees_every_block_once_under_masks_of_its_own(run):
    epochs = run.epochs("train")
    assert len(epochs) == EPOCHS and len({tuple(indices) for indices, _, _ in epochs}) == EPOCHS
    for epoch, (indices, seen, labels) in enumerate(epochs, start=1):
        assert sorted(indices) == list(range(len(run.blocks["train"])))
        expected = masks(run, "train", indices, SEED, epoch)
        assert torch.equal(seen, expected[0]) and torch.equal(labels, expected[1])


@pytest.mark.parametrize("split, passes", [("validation", EPOCHS), ("test", 1)])
def test_evaluation_always_has_the_same_masks_whatever_the_seed(run, split, passes):
    epochs = run.epochs(split)
    assert len(epochs) == passes
    for indices, seen, labels in epochs:
        check_masks(run, split, indices, seen, labels)
        assert indices == list(range(len(run.blocks[split])))
        expected = masks(run, split, indices, 0, 0)
        assert torch.equal(seen, expected[0]) and torch.equal(labels, expected[1])


def test_the_counted_shares_are_those_of_the_first_epoch(run):
    seen, labels = masks(run, "train", range(len(run.blocks["train"])), SEED, 1)
    chosen = labels != -100
    assert run.told(100 * chosen.sum().item() / run.counts.total(), within=0.051)
    became = seen[chosen]
    kept = (became == labels[chosen]).double().mean().item()
    assert run.told(100 * (became == run.tokenizer.mask_token_id).double().mean().item(), 100 * kept, within=0.051)
    assert run.told((run.epochs("test")[0][2] != -100).sum().item(), within=0)


def test_a_block_is_shown_with_tokens_hidden_and_with_words_hidden(run):
    pages = [page for page in run.shown if isinstance(page, str) and "border-radius" in page]
    assert len(pages) == 2 and pages[0] != pages[1]
    seen, labels = masks(run, "train", range(len(run.blocks["train"])), SEED, 1)
    here = [common.show_masks(*pair, run.tokenizer).data for pair in zip(seen.tolist(), labels.tolist())]
    assert [page in here for page in pages] == [not run.whole_words, run.whole_words], "tokens first"


# ---------------------------------------------------------------------------------------------------- training


def test_training_follows_the_clipped_gradient_of_the_mean_loss_of_all_hidden_tokens_of_a_step(run):
    """The whole training once more, in plain torch: the same losses, and the same score after every epoch."""
    model = AutoModelForMaskedLM.from_pretrained(PARAMETERS["checkpoint"])
    optimizer = torch.optim.AdamW([
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},  # biases and norms
    ])
    n = math.ceil(len(run.blocks["train"]) / BATCH)
    total = EPOCHS * math.ceil(n / 2)
    warm, losses, scores, norms = math.ceil(total / 10), [], [], []
    for indices, seen, labels in run.epochs("train"):
        targets = run.blocks["train"][indices]
        for start in range(0, n * BATCH, 2 * BATCH):
            window = slice(start, start + 2 * BATCH)
            hidden = labels[window] != -100
            loss = F.cross_entropy(model(input_ids=seen[window]).logits[hidden], targets[window][hidden])
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
            for group in optimizer.param_groups:  # a warm-up over a tenth of the steps, and then down to zero
                group["lr"] = RATE * min(len(losses) / warm, (total - len(losses)) / (total - warm))
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        scores.append(perplexity(run, model, "validation"))
    assert n % 2 == 1 and len(run.blocks["train"]) % BATCH and max(norms) > 1 > min(norms)
    assert run.losses == pytest.approx(losses, rel=1e-3) and run.losses[0] == pytest.approx(losses[0], rel=1e-5)
    assert [entry["perplexity"] for entry in run.history] == pytest.approx(scores, rel=1e-3)
    assert run.told(len(losses), run.losses[0], run.losses[-1], within=5.1e-4)


def test_dropout_is_on_in_training_and_off_elsewhere(run):
    drawn = {tuple(ids.flatten().tolist()) for _, ids, _ in run.batches("train")}
    calls = [event for event in run.events if event["kind"] == "forward"]
    read = [event for event in calls if event["grad"] and "input_ids" in event["inputs"]]  # the head of a classifier reads vectors
    trained = [event for event in read if tuple(event["inputs"]["input_ids"].flatten().tolist()) in drawn]
    others = [event for event in calls if not event["grad"]]
    assert len(trained) == len(drawn) and all(event["training"] for event in trained)
    assert len(others) > 20 and not any(event["training"] for event in others)


def perplexity(run, model, split, key=(0, 0)):
    """exp of the summed loss of a split by its hidden tokens."""
    seen, labels = masks(run, split, range(len(run.blocks[split])), *key)
    with torch.no_grad():
        logits = model(input_ids=seen).logits[labels != -100].double()
    return math.exp(F.cross_entropy(logits, labels[labels != -100], reduction="sum").item() / (labels != -100).sum().item())


def test_the_saved_model_is_that_of_the_epoch_with_the_lowest_perplexity(run):
    scores = [entry["perplexity"] for entry in run.history]
    assert [entry["epoch"] for entry in run.history] == list(range(1, EPOCHS + 1))
    assert [math.exp(entry["loss"]) for entry in run.history] == pytest.approx(scores, rel=1e-9)
    assert 1 < 1 + scores.index(min(scores)) < EPOCHS, "or the best could be confused with the first or the last"
    assert min(scores) == pytest.approx(perplexity(run, run.models["after"], "validation"), rel=1e-5)


# ---------------------------------------------------------------------------------------------------- what is measured


def test_perplexities_are_those_of_all_hidden_tokens_of_the_test_split(run):
    expected = {key: math.exp(run.guesses[key].mean()) for key in ("before", "after", "unigram")}
    assert [run.metrics[key] for key in ("perplexity", "perplexity_before", "perplexity_unigram")] == pytest.approx(
        [expected["after"], expected["before"], expected["unigram"]], rel=1e-5
    )
    assert list(run.baselines) == ["uniform", "unigram", "pretrained checkpoint"]
    uniform, unigram, untrained = run.baselines.values()
    assert uniform["perplexity"] == len(run.tokenizer)
    assert unigram["perplexity"] == run.metrics["perplexity_unigram"] and untrained["perplexity"] == run.metrics["perplexity_before"]
    assert run.metrics["perplexity"] != pytest.approx(perplexity(run, run.models["after"], "validation"), rel=0.01)


def test_what_few_labels_teach_is_in_the_metrics_and_beside_the_largest_class(run):
    rows = [row for split in ("validation", "test") for row in run.data[split]]
    counts = [min(count, 100) for _, count in Counter(row["part"] for row in rows).most_common(10)]
    largest, before = max(counts) / sum(counts), run.metrics["few_labels_before"]
    assert 0 < before < 1 and 0 < run.metrics["few_labels"] < 1 and before != run.metrics["few_labels"]
    assert [scores["few_labels"] for scores in run.baselines.values()] == pytest.approx([largest, largest, before])
    assert run.told(sum(counts), len(counts), largest, within=5.1e-4)


def test_one_table_holds_all_models(run):
    table = run.table("perplexity", "few_labels")
    *others, adapted = table.to_dict("records")
    assert others == [pytest.approx(scores, abs=5.1e-4) for scores in run.baselines.values()]
    assert adapted == pytest.approx({"perplexity": run.metrics["perplexity"], "few_labels": run.metrics["few_labels"]}, abs=5.1e-4)


def test_the_loss_of_one_batch_is_that_of_the_library(run):
    seen, labels = masks(run, "train", range(16), SEED, 1)
    with torch.no_grad():
        loss = run.models["before"](input_ids=seen, labels=labels).loss.item()
    assert run.told(loss, loss, len(run.tokenizer), math.log(len(run.tokenizer)), within=0.051)
    assert run.told(loss, loss, within=1.1e-4)


def test_blanks_are_filled_with_the_words_that_the_pipeline_proposes(run):
    table = run.table("sentence", "pretrained checkpoint", "adapted")
    for i, key in enumerate(("before", "after"), start=1):
        fill = pipeline("fill-mask", model=run.models[key], tokenizer=run.tokenizer, top_k=5)
        expected = [", ".join(guess["token_str"] for guess in fill(row[0].replace("___", "[MASK]"))) for row in table]
        assert [row[i] for row in table] == expected
    assert len(table) == 10 and len({row[1] for row in table}) > 5 and all(row[1] != row[2] for row in table)
    assert [row[1] for row in table] == [row[1] for row in run.table("sentence", "pretrained checkpoint")]


def test_losses_are_averaged_by_how_often_a_token_occurs(run):
    check_means(run, "occurrences", [(0, "never"), (9, "1 to 9"), (99, "10 to 99"), (999, "100 to 999"), (math.inf, "1000 or more")])


def test_losses_are_averaged_by_what_was_seen(run):
    check_means(run, "seen as", None)


def check_means(run, column, bands):
    """A table of mean losses in bands, each with its highest value and its name."""
    (shown,) = [table for table in run.shown if isinstance(table, pd.DataFrame) and table.index.name == column]
    groups = defaultdict(list)
    for guess in run.guesses.to_dict("records"):
        groups[next(name for top, name in bands if guess[column] <= top) if bands else guess[column]].append(guess)
    assert set(shown.index) == set(groups) and (not bands or list(shown.index) == [name for _, name in bands])
    for name, rows in groups.items():
        expected = {key: sum(row[key] for row in rows) / len(rows) for key in ("unigram", "before", "after")} | {"tokens": len(rows)}
        assert shown.loc[name].to_dict() == pytest.approx(expected, abs=0.0051)


def test_the_tokens_that_gained_most_and_least_are_shown(run):
    groups = defaultdict(list)
    for guess in run.guesses.to_dict("records"):
        groups[guess["token"]].append((guess["before"], guess["after"]))
    means = {token: np.mean(pairs, axis=0) for token, pairs in groups.items() if len(pairs) >= 8}
    order = sorted(means, key=lambda token: means[token][1] - means[token][0])
    assert len(order) > 12 and len(means) < len(groups) and min(map(len, groups.values())) < 8
    table = run.table("token", "tokens", "before", "after", "gain")
    assert [row[0] for row in table] == [run.tokenizer.decode([token]) for token in order[:8] + order[-4:]]
    for row, token in zip(table, order[:8] + order[-4:]):
        before, after = means[token]
        assert [float(each) for each in row[1:]] == pytest.approx([len(groups[token]), before, after, before - after], abs=0.0051)


def test_the_highest_losses_are_shown_with_what_the_model_saw_and_predicted(run):
    table = run.table("what the model saw", "original", "loss", "predicted")
    seen = run.epochs("test")[0][1]
    worst = run.guesses.sort_values("after", ascending=False).head(8).to_dict("records")
    assert len(table) == 8
    for row, guess in zip(table, worst):
        ids, column = seen[guess["row"]], guess["column"]
        parts = [ids[max(0, column - 8) : column], ids[column : column + 1], ids[column + 1 : column + 9]]
        before, marked, after = re.fullmatch(r"(.*)«(.*)»(.*)", row[0]).groups()
        assert [text.split() for text in (before, marked, after)] == [run.tokenizer.decode(part).split() for part in parts]
        assert row[1] == run.tokenizer.decode([guess["token"]]) and float(row[2]) == pytest.approx(guess["after"], abs=0.051)
        assert row[3] == ", ".join(run.tokenizer.decode([i]) for i in guess["best"])


def test_means_of_batches_are_shown_beside_the_perplexity(run):
    table = run.table("exp of the mean of means", "mean of exps", "over all tokens")
    blocks = run.guesses.groupby("row")["after"].agg(["sum", "size"]).to_numpy()
    assert len(set(blocks[:, 1])) > 1 and list(table.index) == [1, 8, 64]
    for size, shown in zip(table.index, table.to_numpy()):
        means = [np.divide(*blocks[i : i + size].sum(axis=0)) for i in range(0, len(blocks), size)]
        assert shown == pytest.approx([np.exp(np.mean(means)), np.exp(means).mean(), run.metrics["perplexity"]], abs=0.0051)


def test_other_masks_give_other_perplexities(run):
    drawn = [perplexity(run, run.models["after"], "validation", (draw, 0)) for draw in range(1, 6)]
    assert len({round(value, 1) for value in drawn}) > 2 and run.told(*drawn, within=0.051)
    assert run.told(max(drawn) - min(drawn), min(entry["perplexity"] for entry in run.history), within=0.051)


def test_the_curves_are_the_losses_and_the_validation_losses_beside_those_before_and_of_the_unigram_model(run):
    (left, right), = [axes for axes in run.plots if len(axes) == 2]
    assert left["each step"] == run.losses
    means = [np.mean(run.losses[max(0, i - 19) : i + 1]) for i in range(len(run.losses))]
    assert left["mean of 20 steps"] == pytest.approx(means)
    before = math.log(perplexity(run, run.models["before"], "validation"))
    assert right["model"] == pytest.approx([before, *(entry["loss"] for entry in run.history)], rel=1e-5)
    tokens = run.epochs("validation")[0][2]
    chances = [(run.counts[token] + 1) / (run.counts.total() + len(run.tokenizer)) for token in tokens[tokens != -100].tolist()]
    assert right["unigram"] == pytest.approx([-np.mean(np.log(chances))] * 2)


def test_lengths_of_the_training_texts_and_numbers_of_blocks_are_told(run):
    lengths = [len(row["body"]) for row in run.data["train"]]
    assert run.told(min(lengths), max(lengths), np.median(lengths), sum(lengths), within=0.51)
    for split, blocks in run.blocks.items():
        left = sum(len(run.tokenizer(row["body"])["input_ids"]) for row in run.data[split]) - blocks.numel()
        assert run.told(len(blocks), SIZE, left, within=0)


def test_the_saved_folder_fills_blanks(run):
    table = run.table("token_str", "score")
    encoding = run.tokenizer("Open the file and return its [MASK] as a string.", return_tensors="pt")
    with torch.no_grad():
        logits = run.models["after"](**encoding).logits
    best = logits[encoding["input_ids"] == run.tokenizer.mask_token_id][0].softmax(0).topk(5)
    assert list(table["token_str"]) == [run.tokenizer.decode([i]) for i in best.indices]
    assert list(table["score"]) == pytest.approx(best.values.tolist(), abs=5.1e-4)


# ---------------------------------------------------------------------------------------------------- functions by name


TINY = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_the_loss_and_the_logits_are_those_of_the_library(name):
    compute_loss, predict_masked_only, token_losses = definitions(
        FOLDER, name, "compute_loss", "predict_masked_only", "token_losses", F=F, torch=torch
    )
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**TINY)).eval()
    ids, labels = torch.randint(5, 50, (3, 7)), torch.randint(5, 50, (3, 7))
    labels[torch.rand(3, 7) < 0.6] = -100
    chosen = labels != -100
    assert len(set(chosen.sum(dim=1).tolist())) > 1
    full = model(input_ids=ids, labels=labels)
    outputs = predict_masked_only(model)(input_ids=ids, masked=chosen)
    torch.testing.assert_close(outputs.logits, full.logits[chosen])
    assert compute_loss(outputs, labels, chosen.sum()).item() == pytest.approx(full.loss.item(), rel=1e-5)
    assert compute_loss(outputs, labels, torch.tensor(40)).item() == pytest.approx(full.loss.item() * chosen.sum().item() / 40, rel=1e-5)
    each = F.cross_entropy(full.logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100).reshape(3, 7)
    torch.testing.assert_close(token_losses(outputs.logits, labels), each)


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_a_new_head_is_the_same_for_the_same_seed_and_in_full_precision(tmp_path, name):
    from transformers import set_seed

    BertModel(BertConfig(**TINY)).to(torch.bfloat16).save_pretrained(tmp_path)
    given = {"checkpoint": str(tmp_path), "torch": torch, "set_seed": set_seed, "AutoModelForMaskedLM": AutoModelForMaskedLM}
    models = [definitions(FOLDER, name, "new_model", seed=seed, **given)() for seed in (1, 1, 2)]
    heads = [model.get_parameter("cls.predictions.transform.dense.weight") for model in models]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert all(parameter.dtype == torch.float32 for parameter in models[0].parameters())
    encoder = BertModel.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    assert all(torch.equal(models[0].bert.state_dict()[key], value) for key, value in encoder.items() if "pooler" not in key)


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_a_model_with_old_names_of_weights_is_saved_under_those_that_trainer_looks_for(tmp_path, name):
    """LayerNorm.gamma and .beta of old checkpoints: under these names, Trainer would not load them into the best model."""
    from transformers import set_seed

    torch.manual_seed(0)
    old = BertForMaskedLM(BertConfig(**TINY))
    old.save_pretrained(tmp_path / "old")
    weights = load_file(tmp_path / "old" / "model.safetensors")
    renamed = {key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
               for key, weight in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    given = {"checkpoint": str(tmp_path / "old"), "torch": torch, "set_seed": set_seed, "AutoModelForMaskedLM": AutoModelForMaskedLM}
    model = definitions(FOLDER, name, "new_model", seed=1, **given)()
    assert all(torch.equal(one, two) for one, two in zip(old.state_dict().values(), model.state_dict().values(), strict=True))
    model.save_pretrained(tmp_path / "new")
    assert load_file(tmp_path / "new" / "model.safetensors").keys() == weights.keys()
    AutoModelForMaskedLM.from_pretrained(tmp_path / "old").save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == renamed.keys(), "then new_model need not copy the weights"


SOURCES = {
    "json/__init__.py": '"""Package."""',
    "json/decoder.py": '''
"""Module."""
class Outer:
    """Class.

    More of it.
    """
    def method(self):
        "Method."
        def inner():
            """Inner."""
    async def waiting(self):
        """Waiting."""
    class Nested:
        """Nested class."""
async def coroutine():
    """Coroutine."""
def twice():
    """Module."""
def silent():
    return "no docstring"
''',
    "_pydecimal.py": '"""Decimals."""\ndef first():\n    "A."\ndef second():\n    "B."',
    "email/mime/text.py": 'def f():\n    """Mail."""\ndef g():\n    """Second mail."""',
    "xml/dom.py": 'def f():\n    """Tree."""\ndef g():\n    """Second tree."""',
    "_collections_abc.py": 'def f():\n    """Abstract."""',
    "asyncio/test/case.py": '"""Left out."""',
    "idlelib/editor.py": '"""Left out too."""',
    "not_of_the_library.py": '"""Somebody else\'s."""',
}
DOCUMENTATION = {
    "Decimals.": "decimal", "A.": "decimal", "B.": "decimal", "Mail.": "email", "Second mail.": "email", "Tree.": "xml",
    "Second tree.": "xml", "Abstract.": "collections",
    "Package.": "json", "Module.": "json", "Class.\n\nMore of it.": "json", "Method.": "json", "Inner.": "json", "Waiting.": "json",
    "Nested class.": "json", "Coroutine.": "json",
}


def test_the_collection_holds_every_docstring_of_a_library_once_and_each_module_in_one_split(tmp_path, monkeypatch):
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: {"stdlib": str(tmp_path)}[name])
    splits = common.load_splits("stdlib", None, {})
    rows = [(row["text"], row["label"], split) for split in splits for row in splits[split]]
    assert sorted((text, label) for text, label, _ in rows if label != "topics") == sorted(DOCUMENTATION.items())
    assert {text for text, label, _ in rows if label == "topics"} == {text.strip() for text in topics.values()}
    modules = {(label, split) for _, label, split in rows}
    assert len(modules) == len({label for label, _ in modules}) == 6
    assert modules > {("json", "train"), ("email", "test"), ("xml", "validation"), ("collections", "test"), ("topics", "train")}
