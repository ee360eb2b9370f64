"""What every notebook was given in training, and the loss it logged, against the data set itself and the usual loss for its head.

The targets come from the rows of the data set by their indices, never from the notebook's own labels, and the loss of an optimizer
step is the cross-entropy of the logits that its model gave, summed over the step and divided by the number of targets.
"""

import json
import math
import random
from collections import Counter, defaultdict
from functools import cache
from types import SimpleNamespace

import notebooks
import pytest
import torch
import torch.nn.functional as F
from datasets import load_dataset
from parameters import LEARNABLE
from scripts import export, job
from stand_ins import WORDS, sentence
from transformers import AutoTokenizer

FOLDERS = notebooks.folders()
ACCUMULATION = 2  # batches to an optimizer step in the recorded runs
MODELS = {
    "sequence_classification": "DistilBertForSequenceClassification", "token_classification": "DistilBertForTokenClassification",
    "masked_language_modeling": "DistilBertForMaskedLM", "causal_language_modeling": "LlamaForCausalLM", "semantic_search": "BiEncoder",
}
# the peak of the learning rate in each stage, as a share of the parameter; most tasks have one stage
RATES = {"causal_language_modeling": [1, 1, 1, 1]}


@pytest.fixture(params=[(folder, name) for folder in FOLDERS for name in notebooks.PAIR], ids="/".join)
def run(request, recorded_run):
    """A recorded run: `folder`, `events`, `variables`, `parameters` and `stages`, its optimizer steps in each stage of training."""
    folder, name = request.param
    return recorded(folder, recorded_run(folder) / f"{name}.record")


@cache
def recorded(folder, file):
    record = torch.load(file, weights_only=False)
    found = SimpleNamespace(folder=folder, parameters=LEARNABLE[folder], **record)
    found.stages = stages(record["events"], folder)[1:]  # the first is the plain training, of which nothing is kept
    return found


def input_ids(inputs):
    """The ids that a batch or a call of a model is about; for pairs, those of both sides."""
    if "input_ids" in inputs:
        return [inputs["input_ids"]]
    sides = [inputs[key] for key in (("queries", "documents") if "queries" in inputs else (0, 1))]
    return [side["input_ids"] for side in sides]


def same(one, two):
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(input_ids(one), input_ids(two), strict=True))


def stages(events, folder):
    """[[(batch, call) of each forward pass of a step], ...] for each stage: a stage ends where another data set is drawn from.

    Only calls on what a DataLoader drew count, so that the measurements of a notebook, which call the model too, are left out.
    """
    drawn, step, found, before = [], [], [], None
    for event in events:
        if event["kind"] == "batch":
            drawn.append(event)
        elif event["kind"] == "forward" and event["grad"] and event["model"] == MODELS[folder]:
            if match := next((batch for batch in drawn if same(batch["batch"], event["inputs"])), None):
                drawn = [batch for batch in drawn if batch is not match]
                step.append((match, event))
        elif event["kind"] == "step" and step:
            size, peak = step[0][0]["size"], event["groups"]
            if size != before or len(found[-1]) and peak[0][0] == 0.0:
                found.append([])
            found[-1].append((step, peak))
            step, before = [], size
        elif event["kind"] == "step" and event["optimizer"] == "MuonAdamW":  # follows its two parts
            found[-1][-1] = (found[-1][-1][0], event["groups"])
    return found


# ---------------------------------------------------------------------------------------------------- what is trained on


class Rows:
    """The rows of the training data as token ids and targets, worked out from the data set alone."""

    def __init__(self, parameters):
        self.tokenizer = AutoTokenizer.from_pretrained(parameters["checkpoint"])
        self.parameters = parameters

    def ids(self, text):
        return self.tokenizer(text)["input_ids"]


def without_a_fifth(name):
    """The training rows that are left when a split that the data set lacks is drawn from them."""
    rows = load_dataset(name)["train"]
    return rows.train_test_split(len(rows) // 5, seed=0)["train"]


class Sentences(Rows):
    def __init__(self, parameters):
        super().__init__(parameters)
        self.rows = load_dataset(parameters["dataset_id"])["train"]

    def loss(self, batch, call):
        """The summed loss of a batch and the number of its targets."""
        total, n = 0.0, 0
        for i, ids, logits in zip(batch["indices"], call["inputs"]["input_ids"], call["outputs"]["logits"], strict=True):
            places, targets = self.targets(i, ids.tolist())
            total += F.cross_entropy(logits[places] if places else logits[None], torch.tensor(targets), reduction="sum").item()
            n += len(targets)
        return total, n


class Labelled(Sentences):
    def targets(self, i, ids):
        expected = self.ids(self.rows[i]["text"])
        assert ids == expected + [self.tokenizer.pad_token_id] * (len(ids) - len(expected))
        return None, [self.rows[i]["label"]]


class Tagged(Sentences):
    def targets(self, i, ids):
        """A word has its tag at its first subword token; the tokens of words are found word by word."""
        expected, places = [self.tokenizer.cls_token_id], []
        for word in self.rows[i]["tokens"]:
            places.append(len(expected))
            expected += self.tokenizer(word, add_special_tokens=False)["input_ids"]
        expected.append(self.tokenizer.sep_token_id)
        assert ids == expected + [self.tokenizer.pad_token_id] * (len(ids) - len(expected))
        return places, self.rows[i]["ner_tags"]


class Masked(Rows):
    def __init__(self, parameters):
        super().__init__(parameters)
        # a fifth of the few rows is the split that the data set lacks
        rows = without_a_fifth(parameters["dataset_id"])
        self.tokens = sum(map(self.ids, rows["text"]), [])
        self.size = parameters["block_size"]

    def block(self, i):
        return self.tokens[i * self.size : (i + 1) * self.size]

    def loss(self, batch, call):
        logits, places = call["outputs"]["logits"], batch["batch"]["masked"]
        blocks = torch.tensor([self.block(i) for i in batch["indices"]])
        assert torch.equal(call["inputs"]["input_ids"][~places], blocks[~places]), "what is not hidden is the text"
        return F.cross_entropy(logits, blocks[places], reduction="sum").item(), int(places.sum())


class Packed(Rows):
    """All stages; a document is the end-of-text token and then the text."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        chats = without_a_fifth(parameters["instructions_id"])
        self.chats = [self.chat(*(message["content"] for message in messages)) for messages in chats["messages"]]

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def chat(self, asked, answered):
        """Ids and targets: the loss is on the answer and the end of its turn."""
        start = self.ids(f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n")
        answer, end = self.ids(f"{answered}<|im_end|>"), self.ids("\n")
        return start + answer + end, [-100] * len(start) + answer + [-100] * len(end)

    def loss(self, batch, call):
        ids, logits = call["inputs"]["input_ids"], call["outputs"]["logits"]
        positions = call["inputs"].get("position_ids")
        if positions is None:  # conversations
            labels = torch.full_like(ids, -100)
            for row, i in enumerate(batch["indices"]):
                expected, targets = self.chats[i]
                assert ids[row, : len(expected)].tolist() == expected
                labels[row, : len(targets)] = torch.tensor(targets)
        else:
            labels = ids
            for row, found in zip(ids.tolist(), positions.tolist(), strict=True):
                begins = [0, *(i for i, token in enumerate(row) if token == self.tokenizer.eos_token_id and i), len(row)]
                assert found == [i for a, b in zip(begins, begins[1:]) for i in range(b - a)], "positions begin anew with each document"
        total = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", ignore_index=-100)
        return total.item(), int((labels[:, 1:] != -100).sum())


class Pairs(Rows):
    def __init__(self, parameters):
        super().__init__(parameters)
        passages = {row["id"]: row["text"] for row in load_dataset(parameters["dataset_id"])["train"]}
        questions = load_dataset(parameters["questions_id"])["train"]
        self.passages = {self.key(text): name for name, text in passages.items()}
        self.right, self.documents = {}, {}  # of a question or first sentence: the right passages, and what stands for them
        for question, answers in zip(questions["question"], questions["answers"]):
            self.right[self.key(question)] = set(answers)
            self.documents[self.key(question)] = {self.key(passages[name]) for name in answers}
        self.questions = set(self.right)
        for name, text in passages.items():
            first, rest = text.split(".", 1)
            self.right[self.key(first + ".")] = {name}
            self.documents[self.key(first + ".")] = {self.key(rest)}

    def key(self, text):
        return tuple(self.tokenizer(text, truncation=True, max_length=48)["input_ids"])

    def unpadded(self, side):
        return [tuple(ids[mask == 1].tolist()) for ids, mask in zip(side["input_ids"], side["attention_mask"])]

    def sides(self, batch):
        """The questions, and for each the texts that came with it."""
        queries, documents = self.unpadded(batch["batch"]["queries"]), self.unpadded(batch["batch"]["documents"])
        n = len(documents) // len(queries)
        return queries, [documents[i * n : (i + 1) * n] for i in range(len(queries))]

    def loss(self, batch, call):
        queries, documents = self.sides(batch)
        right = []
        for i, (query, texts) in enumerate(zip(queries, documents)):
            (place,) = [j for j, text in enumerate(texts) if text in self.documents[query]]
            right.append(i * len(texts) + place)
        vectors = call["outputs"]
        cosines = vectors["queries"] @ vectors["documents"].flatten(0, 1).T
        assert cosines.abs().max() <= 1 + 1e-5 and torch.allclose(vectors["queries"].norm(dim=-1), torch.ones(len(queries)))
        return F.cross_entropy(cosines / 0.05, torch.tensor(right), reduction="sum").item(), len(queries)


KINDS = {
    "sequence_classification": Labelled, "token_classification": Tagged, "masked_language_modeling": Masked,
    "causal_language_modeling": Packed, "semantic_search": Pairs,
}


@cache
def rows_of(folder):
    return KINDS[folder](LEARNABLE[folder])


# ---------------------------------------------------------------------------------------------------- tests


def main_stages(run):
    """Those whose losses are in `losses`: the first of the data set trained on; in the causal folder all but the one to compare with."""
    if run.folder == "causal_language_modeling":
        pretraining, only_new, mixed, instructions = run.stages[:4]
        return [pretraining, mixed, instructions]
    return run.stages[:1]


def test_the_logged_loss_is_that_of_the_data_set(run):
    logged = iter(run.variables["losses"])
    for stage in main_stages(run):
        for step, _ in stage:
            sums = [rows_of(run.folder).loss(batch, call) for batch, call in step]
            assert next(logged) == pytest.approx(sum(total for total, _ in sums) / sum(n for _, n in sums), rel=1e-5)
    assert next(logged, None) is None


def test_an_epoch_sees_every_row_once_and_in_an_order_of_its_own(run):
    epochs = [run.parameters["num_epochs"]]
    if run.folder == "causal_language_modeling":
        epochs = [run.parameters[name] for name in ("num_epochs", "domain_epochs", "instruction_epochs")]
    for stage, times in zip(main_stages(run), epochs, strict=True):
        order = [i for step, _ in stage for batch, _ in step for i in batch["indices"]]
        size = stage[0][0][0][0]["size"]
        assert len(order) == size * times
        orders = [order[i * size : (i + 1) * size] for i in range(times)]
        assert all(sorted(each) == list(range(size)) for each in orders)
        assert len(set(map(tuple, orders))) == times


def test_dropout_is_on_in_training_and_off_wherever_nothing_is_learned(run):
    assert all(call["training"] for stage in run.stages for step, _ in stage for _, call in step)
    calls = [event for event in run.events if event["kind"] == "forward" ]
    assert not [event["model"] for event in calls if not event["grad"] and event["training"]]
    assert sum(not event["grad"] for event in calls) > 5


def test_the_learning_rate_warms_up_over_a_tenth_of_the_steps_and_then_falls_to_zero(run):
    shares = RATES.get(run.folder, [1])
    for stage, share in zip(run.stages, shares):
        total, peaks = len(stage), [share * run.parameters["learning_rate"]]
        if run.folder == "sequence_classification":  # the head has a rate of its own
            peaks.append(run.parameters["head_learning_rate"])
        warm = math.ceil(total / 10)
        for i, (_, groups) in enumerate(stage):
            now = i / warm if i < warm else (total - i) / (total - warm)
            decays = [0.01, 0.01, 0.0] if run.folder == "causal_language_modeling" else [0.01, 0.0]  # Muon, and the two of AdamW
            expected = [peak * now for peak in peaks for _ in decays]
            assert [rate for rate, _ in groups] == pytest.approx(expected, rel=1e-6, abs=1e-12)
            assert [decay for _, decay in groups] == decays * len(peaks)


def test_a_step_has_two_batches_and_the_last_of_an_epoch_may_have_one(run):
    for stage in main_stages(run):
        sizes = Counter(len(step) for step, _ in stage)
        assert set(sizes) <= {1, ACCUMULATION} and sizes[ACCUMULATION] >= sizes[1]


# ---------------------------------------------------------------------------------------------------- masks


def masks_of(stage):
    """{block: [(ids as the model saw them, which were hidden) for each epoch]}"""
    found = defaultdict(list)
    for step, _ in stage:
        for batch, call in step:
            for i, ids, hidden in zip(batch["indices"], call["inputs"]["input_ids"].tolist(), batch["batch"]["masked"].tolist()):
                found[i].append((ids, hidden))
    return found


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_masks_hide_the_right_share_and_change_with_every_epoch(recorded_run, name):
    folder = "masked_language_modeling"
    stage, rows = recorded(folder, recorded_run(folder) / f"{name}.record").stages[0], rows_of(folder)
    special, seen_as, changed = set(rows.tokenizer.all_special_ids), Counter(), 0
    for i, epochs in masks_of(stage).items():
        block = rows.block(i)
        ordinary = sum(token not in special for token in block)
        for ids, hidden in epochs:
            assert sum(hidden) == max(1, round(0.15 * ordinary))
            assert not any(block[place] in special for place, is_hidden in enumerate(hidden) if is_hidden)
            for place, is_hidden in enumerate(hidden):
                if is_hidden:
                    kind = {rows.tokenizer.mask_token_id: "mask", block[place]: "kept"}.get(ids[place], "random")
                    assert kind != "random" or ids[place] not in special
                    seen_as[kind] += 1
        changed += len({tuple(hidden) for _, hidden in epochs}) > 1
    n = seen_as.total()
    for kind, share in {"mask": 0.8, "kept": 0.1, "random": 0.1}.items():
        assert abs(seen_as[kind] / n - share) < 4 * math.sqrt(share * (1 - share) / n) + 0.02, seen_as
    assert changed > 0.8 * len(masks_of(stage)), "the same masks in every epoch"


def test_with_whole_words_a_word_is_hidden_as_a_whole_or_not_at_all(scripts, hub, tmp_path):
    folder = "masked_language_modeling"
    recorder = str(notebooks.ROOT / "tests" / "record.py")
    rng, target = random.Random(0), tmp_path / "run"
    (tmp_path / "words").mkdir()
    texts = [json.dumps({"text": sentence(rng, WORDS)}) for _ in range(90)]  # most of their words have two tokens
    for split, rows in {"train": texts[:80], "test": texts[80:]}.items():
        (tmp_path / "words" / f"{split}.jsonl").write_text("\n".join(rows))
    more = {"dataset_id": str(tmp_path / "words"), "whole_words": True, "mask_probability": 0.3, "num_epochs": 1}
    parameters = LEARNABLE[folder] | more
    jobs = [
        job(target, recorder, export(folder, name, target, parameters), f"{name}.record", log=f"{name}.log") for name in notebooks.PAIR
    ]
    assert scripts.run(*jobs) == [0, 0], (target / "accelerate_loop.log").read_text()[-3000:]
    rows, words = Masked(parameters), 0
    for name in notebooks.PAIR:
        stage = recorded(folder, target / f"{name}.record").stages[0]
        shares = []
        for step, _ in stage:
            assert all(rows.loss(batch, call) for batch, call in step), "the blocks are those of the data set"
        for i, ((_, hidden),) in masks_of(stage).items():
            tokens = rows.tokenizer.convert_ids_to_tokens(rows.block(i))
            shares.append(sum(hidden) / sum(token not in rows.tokenizer.all_special_tokens for token in tokens))
            for place in range(1, len(tokens)):
                if tokens[place].startswith("##") and tokens[place - 1] not in rows.tokenizer.all_special_tokens:
                    assert hidden[place] == hidden[place - 1], f"block {i}: {tokens[place - 1]} {tokens[place]}"
                    words += hidden[place]
        assert 0.2 < sum(shares) / len(shares) < 0.35, "the share of hidden tokens is that of the parameter"
    assert words > 20, "words of several tokens were hidden"


# ---------------------------------------------------------------------------------------------------- stages and negatives


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_the_blocks_of_each_stage_hold_the_documents_of_its_data(recorded_run, name):
    folder = "causal_language_modeling"
    found, rows = recorded(folder, recorded_run(folder) / f"{name}.record"), rows_of(folder)
    end = rows.tokenizer.eos_token_id
    woods = without_a_fifth(LEARNABLE[folder]["dataset_id"])["text"][:]
    sea = without_a_fifth(LEARNABLE[folder]["domain_id"])["text"][:]
    woods, sea = ([tuple(rows.ids(text)) for text in texts] for texts in (woods, sea))
    n_old = round(0.15 / 0.85 * len(sea))
    for stage, first, old in zip(found.stages[:3], (woods, sea, sea), (0, 0, n_old)):
        blocks = {}
        for step, _ in stage:
            for batch, _ in step:
                blocks |= dict(zip(batch["indices"], batch["batch"]["input_ids"].tolist()))
        tokens = [token for i in sorted(blocks) for token in blocks[i]]
        starts = [i for i, token in enumerate(tokens) if token == end]
        assert tokens[0] == end
        # what fills no block at the end is left out, so that the last document may be cut or missing
        *whole, last = [tuple(tokens[a + 1 : b]) for a, b in zip(starts, [*starts[1:], len(tokens)])]
        assert len(first) + old - 2 <= len(whole) + 1 <= len(first) + old
        assert whole[: len(first)] == first[: len(whole)] and set(whole[len(first) :]) <= set(woods)
        assert any(document[: len(last)] == last for document in woods + sea)


@pytest.mark.parametrize("name", notebooks.PAIR)
def test_no_negative_is_a_right_answer_of_a_question_in_the_batch(recorded_run, name):
    folder = "semantic_search"
    found, rows = recorded(folder, recorded_run(folder) / f"{name}.record"), rows_of(folder)
    seen, asked = Counter(), set()
    for step, _ in found.stages[0]:
        for batch, _ in step:
            queries, documents = rows.sides(batch)
            right = set().union(*(rows.right[query] for query in queries))
            for query, texts in zip(queries, documents, strict=True):
                asked.add(query)
                negatives = [rows.passages[text] for text in texts if text not in rows.documents[query]]
                assert len(negatives) == 1 and not right & set(negatives)
                seen.update(negatives)
    assert asked >= rows.questions and len(asked) > len(rows.questions), "all training questions, and pairs made of the texts"
    assert len(seen) > 5, "the same few texts can't be the hardest of all"
    test = load_dataset(LEARNABLE[folder]["questions_id"])["test"]
    assert not asked & {rows.key(question) for question in test["question"]}
