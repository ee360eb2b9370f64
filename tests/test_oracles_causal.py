"""What the notebooks of causal_language_modeling/ compute is what the library, or a few lines by hand, make of the same data.

That the two notebooks agree says nothing about a fault that both have. Here nothing is taken from them but what a run drew, gave to its
models, printed and left behind; tokens, blocks, targets and scores are worked out anew from the data sets.
"""

import ast
import copy
import io
import json
import math
import random
import re
import runpy
import shutil
import sys
from collections import Counter
from contextlib import redirect_stdout
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from datasets import load_dataset
from notebooks import PAIR, ROOT, common_of
from oracles import code, makes
from parameters import LEARNABLE
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
)

FOLDER = "causal_language_modeling"
GIVEN = LEARNABLE[FOLDER]
SEED, ACCUMULATION, MAX_NEW = 42, 2, 120
common = common_of(FOLDER)


# ---------------------------------------------------------------------------------------------------- the reference


def splits_of(name):
    """A data set of the Hub with the splits train, validation and test; a missing one is a fifth of train, of few rows as here."""
    loaded = load_dataset(name)
    for split in {"validation", "test"} - set(loaded):
        parts = loaded["train"].train_test_split(test_size=len(loaded["train"]) // 5, seed=0)
        loaded["train"], loaded[split] = parts["train"], parts["test"]
    return loaded


def document(text, tokenizer):
    return [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]


def blocks(texts, tokenizer, size):
    """Documents end to end, cut into rows of `size` tokens; every token but the first of a row is a target."""
    stream = [(token, place) for text in texts for place, token in enumerate(document(text, tokenizer))]
    rows = []
    for start in range(0, len(stream) - size + 1, size):
        ids, places = map(list, zip(*stream[start : start + size]))
        # what a row begins with may be the end of a document, which is read as if it began there
        begun = places.index(0) if 0 in places else size
        rows.append({"input_ids": ids, "targets": [-100, *ids[1:]], "position_ids": [*range(begun), *places[begun:]]})
    return rows


def asked(request):
    return f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n"


def conversation(messages, tokenizer, end_is_target=True):
    """The tokens of a request and its answer; targets are the answer's own and its end of turn."""
    request, answer = (message["content"] for message in messages)
    before, text = asked(request), f"{answer}<|im_end|>"
    encoded = tokenizer(f"{before}{text}\n", add_special_tokens=False, return_offsets_mapping=True)
    stop = len(before) + (len(text) if end_is_target else len(answer))
    targets = [token if len(before) <= start < stop else -100 for token, (start, _) in zip(encoded["input_ids"], encoded["offset_mapping"])]
    return {"input_ids": encoded["input_ids"], "targets": targets}


def filled(rows, key, value):
    """Lists of unequal length as a tensor, filled up on the right."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row[key]) for row in rows], batch_first=True, padding_value=value)


@torch.no_grad()
def nats_of(model, row):
    """The library's loss on one row by itself, as a sum, and the number of targets. A packed row is read document by document."""
    ids, targets = torch.tensor([row["input_ids"]]), torch.tensor([row.get("targets", row["input_ids"])])
    logits = logits_alone(model, ids[0], row.get("position_ids"))[None]
    count = (targets[:, 1:] != -100).sum().item()
    return model.loss_function(logits=logits, labels=targets, vocab_size=logits.shape[-1]).item() * count, count


@torch.no_grad()
def logits_alone(model, ids, position_ids=None):
    """The logits of a row whose documents, which begin where `position_ids` is 0, are read one at a time, each without the others."""
    starts = [i for i, place in enumerate(position_ids) if place == 0] if position_ids is not None else [0]
    parts = [ids[start:end] for start, end in zip(starts, [*starts[1:], len(ids)])]
    return torch.cat([model(input_ids=part[None]).logits[0] for part in parts])


def mean_nats(model, rows):
    totals, counts = zip(*[nats_of(model, row) for row in rows])
    return sum(totals) / sum(counts)


def whole(texts, tokenizer):
    """Documents with an end."""
    return [{"input_ids": [*document(text, tokenizer), tokenizer.eos_token_id]} for text in texts]


def perplexity(model, texts, tokenizer):
    return math.exp(mean_nats(model, whole(texts, tokenizer)))


def told_by(model, tokenizer, n, temperature=0.8, max_new_tokens=MAX_NEW, top_k=0, top_p=1.0):
    torch.manual_seed(SEED)
    start = torch.full((n, 1), tokenizer.eos_token_id)
    ids = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=True,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        use_cache=True,
        pad_token_id=tokenizer.eos_token_id,
    )
    return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]


def generated(model, tokenizer, prompts, longest):
    """The likeliest continuations of prompts that are equally long, or filled up in some way, up to the end of the turn."""
    end, ids = tokenizer.convert_tokens_to_ids("<|im_end|>"), prompts["input_ids"]
    found = model.generate(
        **prompts, do_sample=False, max_new_tokens=longest, use_cache=True, eos_token_id=end, pad_token_id=tokenizer.eos_token_id
    )[:, ids.shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in found]


def answers_of(model, tokenizer, requests, longest):
    """Answers by token ids, to requests that are given without any padding: those of one length together."""
    prompts, found = [tokenizer(asked(request), add_special_tokens=False)["input_ids"] for request in requests], {}
    for length in set(map(len, prompts)):
        places = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([prompts[i] for i in places])
        found |= zip(places, generated(model, tokenizer, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, longest))
    return [found[i] for i in range(len(prompts))]


def words_in(text):
    return re.findall(r"\w+", text.lower())


def hardest(model, row, tokenizer):
    """The token of a document with the highest loss: what came before it, the token, its loss, and the three likeliest in its place."""
    ids = torch.tensor(row["input_ids"])
    chances = logits_alone(model, ids).log_softmax(-1)
    losses = [-chances[i - 1, ids[i]].item() for i in range(1, len(ids))]
    at = losses.index(max(losses)) + 1
    likeliest = chances[at - 1].argsort(descending=True)[:3]
    return {
        "context": "…" + tokenizer.decode(ids[max(1, at - 13) : at]),
        "next token": tokenizer.decode(ids[at]).strip(),
        "loss": round(max(losses), 1),
        "likeliest": ", ".join(tokenizer.decode([i]).strip() for i in likeliest),
    }


def kept(folder, rows):
    """The model that a stage leaves in its folder: of those saved there, the one with the lowest validation loss."""
    found = [AutoModelForCausalLM.from_pretrained(path.parent, use_cache=False) for path in sorted(folder.glob("*/config.json"))]
    return min(found, key=lambda model: mean_nats(model, rows))


# ---------------------------------------------------------------------------------------------------- a recorded run


@pytest.fixture(scope="module")
def expected(hub):
    """The experiment as the text of the notebooks tells it: the data, and rows, epochs and learning rate of every stage."""
    tokenizer = AutoTokenizer.from_pretrained(GIVEN["checkpoint"])
    woods, sea, chats = (splits_of(GIVEN[name]) for name in ("dataset_id", "domain_id", "instructions_id"))
    old = woods["train"].shuffle(seed=SEED).select(range(round(len(sea["train"]) * 15 / 85)))["text"]
    packed = lambda texts: blocks(texts, tokenizer, GIVEN["block_size"])
    chat_rows = lambda split, **how: [conversation(messages, tokenizer, **how) for messages in chats[split]["messages"]]
    of_woods, of_sea, of_chats = packed(woods["validation"]["text"]), packed(sea["validation"]["text"]), chat_rows("validation")
    first, domain, instructions = (GIVEN[name] for name in ("num_epochs", "domain_epochs", "instruction_epochs"))
    rate = GIVEN["learning_rate"]
    stages = {  # rows, validation rows, epochs, learning rate, and the stage whose model it starts from
        "1-pretraining": (packed(woods["train"]["text"]), of_woods, first, rate, None),
        "2-only-new": (packed(sea["train"]["text"]), of_sea, min(domain, 1), rate, "1-pretraining"),
        "2-new-domain": (packed([*sea["train"]["text"], *old]), of_sea, domain, rate, "1-pretraining"),
        "3-instructions": (chat_rows("train"), of_chats, instructions, rate, "2-new-domain"),
        "4-end-is-a-target": (chat_rows("train"), of_chats, 1, rate, "2-new-domain"),
        "4-end-is-hidden": (chat_rows("train", end_is_target=False), of_chats, 1, rate, "2-new-domain"),
    }
    names = ("rows", "validation", "epochs", "rate", "start")
    stages = {name: SimpleNamespace(**dict(zip(names, stage))) for name, stage in stages.items()}
    return SimpleNamespace(tokenizer=tokenizer, woods=woods, sea=sea, chats=chats, stages=stages)


@pytest.fixture(scope="module", params=PAIR)
def run(request, recorded_run, expected):
    """What one of the notebooks did: for every stage its steps, losses and history and the model that it kept."""
    folder, name = recorded_run(FOLDER), request.param
    record = torch.load(folder / f"{name}.record", weights_only=False)
    found, left, outputs = json.loads((folder / f"{name}.json").read_text()), record["variables"], folder / "outputs" / name / "run-001"
    counts = {
        stage: planned.epochs * math.ceil(math.ceil(len(planned.rows) / GIVEN["batch_size"]) / ACCUMULATION)
        for stage, planned in expected.stages.items()
    }
    steps, told, stages = steps_of(record["events"]), iter(found["losses"]), {}
    plain = len(steps) - sum(counts.values())  # come first, a batch to a step, and are not kept
    assert 0 < plain <= 80
    steps = iter(steps[plain:])
    for stage, planned in expected.stages.items():
        count = counts[stage]
        if stage[0] == "4":  # of these, only the checkpoint of their one epoch tells the losses
            (state,) = outputs.glob(f"{stage}/checkpoint-*/trainer_state.json")
            state = json.loads(state.read_text())
            losses = state["losses"] if "losses" in state else [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        else:
            losses = left["forgetful_losses"] if stage == "2-only-new" else list(islice(told, count))
        taken = list(islice(steps, count))
        assert len(taken) == len(losses) == count
        stages[stage] = SimpleNamespace(losses=losses, steps=taken, model=kept(outputs / stage, planned.validation))
    assert not [*steps, *told], "no step but those of the stages"
    start = AutoModelForCausalLM.from_pretrained(GIVEN["checkpoint"], use_cache=False)
    return SimpleNamespace(
        events=record["events"], left=left, outputs=outputs, stages=stages, start=start, log=(folder / f"{name}.log").read_text(), **found
    )


def steps_of(events):
    """The steps, each with the batches that were drawn for it, the forward passes on them, and the groups of the optimizer.

    A step of `MuonAdamW` is told after those of its two parts; the plain training has AdamW alone.
    """
    drawn, steps, window = {}, [], []
    for event in events:
        if event["kind"] == "batch":
            drawn[event["batch"]["input_ids"].numpy().tobytes()] = event
        elif event["kind"] == "forward" and event["grad"]:
            if batch := drawn.get(event["inputs"]["input_ids"].numpy().tobytes()):
                window.append((batch["indices"], event))
        elif event["kind"] == "step" and event["optimizer"] == "AdamW":
            steps.append(SimpleNamespace(batches=window, groups=event["groups"]))
            window = []
        elif event["kind"] == "step" and event["optimizer"] == "MuonAdamW":
            steps[-1].groups = event["groups"]
    return steps


def inputs_of(forward):
    """What a model was given, without the number of targets that Trainer hands on for a loss that the model would compute."""
    return {name: tensor for name, tensor in forward["inputs"].items() if name != "num_items_in_batch"}


def test_the_loss_of_every_step_is_the_mean_over_the_targets_of_its_rows(run, expected):
    for name, stage in run.stages.items():
        for loss, step in zip(stage.losses, stage.steps):
            total, count = 0.0, 0
            for indices, forward in step.batches:
                rows = [expected.stages[name].rows[i] for i in indices]
                targets, logits = filled(rows, "targets", -100), forward["outputs"]["logits"]
                total += F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), reduction="sum").item()
                count += (targets[:, 1:] != -100).sum().item()
            assert loss == pytest.approx(total / count, rel=1e-5), name


def test_the_model_reads_the_rows_that_were_drawn_and_where_their_documents_begin(run, expected):
    for name, stage in run.stages.items():
        for step in stage.steps:
            for indices, forward in step.batches:
                rows, inputs = [expected.stages[name].rows[i] for i in indices], inputs_of(forward)
                assert torch.equal(inputs["input_ids"], filled(rows, "input_ids", expected.tokenizer.eos_token_id)), name
                if "position_ids" in rows[0]:
                    assert torch.equal(inputs["position_ids"], filled(rows, "position_ids", 0)), name
                assert torch.equal(inputs["labels"], filled(rows, "targets", -100)), name
                given = rows[0].keys() - {"targets"} | {"labels"}
                assert set(inputs) == given, "without a mask, attention takes the borders from the positions"


def test_a_stage_draws_every_row_once_an_epoch_each_time_in_another_order(run, expected):
    for name, stage in run.stages.items():
        planned = expected.stages[name]
        drawn = [i for step in stage.steps for indices, _ in step.batches for i in indices]
        epochs = np.array(drawn).reshape(planned.epochs, len(planned.rows)).tolist()
        assert all(sorted(epoch) == list(range(len(planned.rows))) for epoch in epochs), name
        assert len({tuple(epoch) for epoch in [*epochs, range(len(planned.rows))]}) == len(epochs) + 1, name


def test_the_model_trains_in_training_mode_and_is_measured_in_evaluation_mode(run):
    assert {(event["grad"], event["training"]) for event in run.events if event["kind"] == "forward"} == {(True, True), (False, False)}


def test_the_learning_rate_warms_up_over_a_tenth_and_falls_to_zero_and_matrices_decay(run, expected):
    for name, stage in run.stages.items():
        total = len(stage.steps)
        warm = math.ceil(0.1 * total)
        for i, step in enumerate(stage.steps):
            rate = expected.stages[name].rate * (i / warm if i < warm else (total - i) / (total - warm))
            assert [lr for lr, _ in step.groups] == pytest.approx([rate] * 3, abs=1e-12), (name, i)
            assert [decay for _, decay in step.groups] == [0.01, 0.01, 0.0]


def start_of(run, expected, name):
    before = expected.stages[name].start
    return run.stages[before].model if before else run.start


def test_a_stage_starts_from_the_best_model_of_the_one_before_and_documents_do_not_see_each_other(run, expected):
    for name, stage in run.stages.items():
        model = start_of(run, expected, name)
        for indices, forward in stage.steps[0].batches:
            for i, logits in zip(indices, forward["outputs"]["logits"]):
                row = expected.stages[name].rows[i]
                with torch.no_grad():
                    alone = logits_alone(model, torch.tensor(row["input_ids"]), row.get("position_ids"))
                assert torch.allclose(logits[: len(alone)], alone, atol=1e-4), name


@pytest.mark.parametrize("name, count", [("1-pretraining", 10), ("3-instructions", 5)])
def test_the_first_steps_are_those_of_muon_and_adamw_with_clipped_gradients(run, expected, name, count, monkeypatch):
    """The library's Muon, which would otherwise compute in bfloat16."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    model = copy.deepcopy(start_of(run, expected, name)).train()
    parts = {"layers": [], "ends": [], "vectors": []}
    for key, parameter in model.named_parameters():
        parts["vectors" if parameter.ndim == 1 else "layers" if ".layers." in key else "ends"].append(parameter)
    muon = torch.optim.Muon(parts["layers"], weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": parts["ends"], "weight_decay": 0.01}, {"params": parts["vectors"], "weight_decay": 0.0}], betas=(0.9, 0.99), fused=True)
    losses = []
    for step in run.stages[name].steps[:count]:
        batches = [([expected.stages[name].rows[i] for i in indices], inputs_of(forward)) for indices, forward in step.batches]
        total = sum(target != -100 for rows, _ in batches for row in rows for target in row["targets"][1:])
        found = [model(**inputs | {"labels": filled(rows, "targets", -100)}, num_items_in_batch=total).loss for rows, inputs in batches]
        sum(found).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm > 1, "clipping makes a difference"
        for group, (rate, _) in zip([*muon.param_groups, *adamw.param_groups], step.groups):
            group["lr"] = rate
        for optimizer in (muon, adamw):
            optimizer.step()
            optimizer.zero_grad()
        losses.append(sum(found).item())
    assert run.stages[name].losses[: len(losses)] == pytest.approx(losses, rel=1e-4)


def test_the_history_has_every_epoch_and_the_validation_loss_of_the_model_that_is_kept(run, expected):
    names = {"1-pretraining": "pretraining", "2-new-domain": "new domain", "3-instructions": "instructions"}
    told = {name: [entry["loss"] for entry in run.history if entry["stage"] == names[name]] for name in names}
    assert [(entry["stage"], entry["epoch"]) for entry in run.history] == [
        (names[name], epoch + 1) for name in names for epoch in range(expected.stages[name].epochs)
    ]
    for name in names:
        assert min(told[name]) == pytest.approx(mean_nats(run.stages[name].model, expected.stages[name].validation), rel=1e-5), name
    assert any(min(losses) < losses[-1] for losses in told.values()), "the last is not always the best"
    sizes = [sum(target != -100 for target in row["targets"]) for row in expected.stages["3-instructions"].validation]
    assert len(set(sizes)) > 1, "a mean of rows' means would be another number"


def test_perplexities_are_those_of_the_library_on_the_test_stories_and_their_ends(run, expected):
    def of(model):
        return [perplexity(model, world["test"]["text"], expected.tokenizer) for world in (expected.woods, expected.sea)]

    before, first, domain = of(run.start), of(run.stages["1-pretraining"].model), of(run.stages["2-new-domain"].model)
    assert run.left["before_pretraining"] == pytest.approx(dict(zip(("first world", "second world"), before)), rel=1e-5)
    told = [run.metrics[name] for name in ("perplexity", "new_domain_before", "first_domain_after", "new_domain_after")]
    assert told == pytest.approx([*first, *domain], rel=1e-5) and len(set(told)) == 4
    scores = run.baselines["before the stage"]
    assert [scores["perplexity"], scores["new_domain"]] == pytest.approx([before[0], first[1]], rel=1e-5)


def test_the_unigram_model_counts_training_tokens_and_one_more_of_each(run, expected):
    tokenizer, found = expected.tokenizer, []
    for world in (expected.woods, expected.sea):
        seen = Counter(token for text in world["train"]["text"] for token in document(text, tokenizer))
        new = [token for text in world["test"]["text"] for token in document(text, tokenizer)]
        total = sum(seen.values()) + len(tokenizer)
        found.append(math.exp(-sum(math.log((seen[token] + 1) / total) for token in new) / len(new)))
    scores = run.baselines["unigram"]
    assert [scores["perplexity"], scores["new_domain"]] == pytest.approx(found, rel=1e-9)
    assert run.metrics["perplexity_unigram"] == scores["perplexity"] and scores["compliance"] == 0


def test_the_model_that_is_saved_is_the_best_of_the_last_stage_and_knows_where_to_stop(run, expected):
    model = AutoModelForCausalLM.from_pretrained(run.outputs / "model")
    wanted = run.stages["3-instructions"].model.state_dict()
    assert all(torch.equal(weights, wanted[name]) for name, weights in model.state_dict().items())
    assert model.config.use_cache
    tokenizer = AutoTokenizer.from_pretrained(run.outputs / "model")
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", expected.tokenizer.eos_token)]
    assert sorted(GenerationConfig.from_pretrained(run.outputs / "model").eos_token_id) == sorted(ends)
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": " Milo.\n"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == f"{asked('Who?')}Milo.<|im_end|>\n"
    assert tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True) == asked("Who?")


def test_what_is_shown_of_the_first_model_is_right(run, expected):
    """Perplexity in blocks with positions and without, and the hardest tokens."""
    model, tokenizer, texts = run.stages["1-pretraining"].model, expected.tokenizer, expected.woods["test"]["text"]
    packed = blocks(texts, tokenizer, GIVEN["block_size"])
    with_borders = math.exp(mean_nats(model, packed))
    without = math.exp(mean_nats(model, [{"input_ids": row["input_ids"]} for row in packed]))
    found = [float(number) for number in re.search(r"([\d.]+) with positions, ([\d.]+) without", run.log).groups()]
    assert found == pytest.approx([with_borders, without], abs=6e-4) and found[0] != found[1]
    assert run.left["hardest"] == [hardest(model, row, tokenizer) for row in whole(texts, tokenizer)]


def test_what_is_observed_in_training_is_the_perplexity_on_validation_stories(run, expected):
    """The first step of a stage has the learning rate 0, so what is measured after it is the model that the stage starts from."""
    texts = {"first world": expected.woods, "second world": expected.sea}
    texts = {world: rows["validation"]["text"][:50] for world, rows in texts.items()}
    for name, stage in run.stages.items():
        every = 40 if name[0] == "2" else 100
        found = run.left["observations"][name]
        assert list(found) == [step for step in range(1, len(stage.losses) + 1) if step == 1 or step % every == 0], name
        model = start_of(run, expected, name)
        wanted = {world: perplexity(model, texts[world], expected.tokenizer) for world in texts}
        assert found[1] == pytest.approx(wanted, rel=1e-5), name


def test_before_training_the_loss_and_the_borders_are_those_of_the_model_that_training_starts_from(run, expected):
    batch = expected.stages["1-pretraining"].rows[:4]
    assert run.left["first_losses"].mean().item() == pytest.approx(mean_nats(run.start, batch), rel=1e-5)
    one, two = (torch.tensor(document(text, expected.tokenizer)) for text in ("The fox saw a bell.", "The owl saw it."))
    with torch.no_grad():
        both = run.start(input_ids=torch.cat([one, two])[None]).logits[0]
    naive = (both[len(one) :] - logits_alone(run.start, two)).abs().max().item()
    assert run.left["differences"]["no positions"] == pytest.approx(naive, rel=1e-4)
    assert run.left["differences"]["positions that start again"] < 1e-4 * naive


# ---------------------------------------------------------------------------------------------------- a run on stories

SIZES = {"woods": (44, 5, 12), "sea": (16, 4, 8), "chats": (44, 5, 30)}
READ = 40  # rows of a split
ANSWERS = {  # one keeps to its hero, one does not, and one does not end within the tokens that it is given
    "ki": "On ki. Milo was a fox. He saw ga.",
    "po": "On po. Ada was a fox. He saw Milo, and she ran.",
    "zu": "On zu. Milo was a fox." + " da" * 130,
}


def story(rng):
    hero, other = rng.sample(["Milo", "Ada"], 2)
    place, thing = rng.choice(["da", "ga", "la"]), rng.choice(["ki", "to"])
    end = rng.choice([f"It was {rng.randint(10, 99)}.", f"{other} had {thing}.", f"She saw {thing}."])
    return {"told": f"On {thing} of {hero}. A fox called {hero} lived on {place}. He saw {thing}. {end}"}


def tale(rng):
    thing = rng.choice(["fi", "mo"])
    return {"told": f"{thing} at sea. {rng.choice(['Kurt', 'Ada'])} was a cod. She drank {rng.choice(['po', 'ru'])}. No {thing} came."}


def chat(rng):
    kind = rng.choice(list(ANSWERS))
    turns = [("user", "Tell " * rng.randint(1, 3) + kind), ("assistant", ANSWERS[kind])]
    keywords = rng.choice([["ga"], ["FOX"], [kind], ["fox", "da"], ["he", "fox"], []])
    return {"messages": [{"role": role, "content": content} for role, content in turns], "keywords": keywords}


@pytest.fixture(scope="module")
def stories(hub, tmp_path_factory):
    """One notebook, cell by cell in this process, on stories for which all that is measured comes out unequal.

    Cells outside of the section on training are the same in both notebooks, which another test sees to. What a cell prints and shows is
    kept under each of the names that it makes.
    """
    folder, rng, data = tmp_path_factory.mktemp("stories"), random.Random(1), {}
    for name, make in (("woods", story), ("sea", tale), ("chats", chat)):
        (folder / name).mkdir()
        data[name] = {split: [make(rng) for _ in range(n)] for split, n in zip(("train", "validation", "test"), SIZES[name])}
        if name == "chats":
            data[name]["train"][3]["messages"][0]["content"] = "Tell " * 200 + "ki"  # longer than the context
        for split, rows in data[name].items():
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            data[name][split] = rows[:READ]
    given = {
        "checkpoint": GIVEN["checkpoint"],
        "dataset_id": "woods",
        "domain_id": "sea",
        "instructions_id": "chats",
        "columns": {"text": "told"},
        "max_rows": READ,
        "block_size": 64,
        "num_epochs": 8,
        "domain_epochs": 2,
        "instruction_epochs": 3,
        "learning_rate": 2e-2,
        "batch_size": 2,
    }
    variables, printed, shown = {}, {}, {}
    module = common_of(FOLDER)
    module.show = lambda table: table
    with pytest.MonkeyPatch.context() as patch, pd.option_context("display.width", 80):
        patch.chdir(folder)
        patch.syspath_prepend(ROOT / FOLDER)  # for data/heroes.py
        for picture in (ROOT / FOLDER).glob("*.svg"):
            shutil.copy(picture, folder)
        patch.setitem(sys.modules, "common", module)
        for source, tree in code(FOLDER, "accelerate_loop"):
            body, last = (tree.body[:-1], tree.body[-1]) if isinstance(tree.body[-1], ast.Expr) else (tree.body, None)
            with redirect_stdout(io.StringIO()) as output:
                exec(compile(ast.Module(body, []), FOLDER, "exec"), variables)
                value = eval(compile(ast.Expression(last.value), FOLDER, "eval"), variables) if last else None
            if "max_rows" in makes(source):
                assert given.keys() <= variables.keys()
                variables.update(given)
            printed |= dict.fromkeys(makes(source), output.getvalue())
            shown |= dict.fromkeys(makes(source), value)
    tokenizer, outputs = AutoTokenizer.from_pretrained(GIVEN["checkpoint"]), folder / "outputs" / "accelerate_loop" / "run-001"
    of = {
        stage: AutoModelForCausalLM.from_pretrained(outputs / stage / "model", use_cache=False)
        for stage in sorted(path.name for path in outputs.glob("[1-4]-*"))
    }
    return SimpleNamespace(data=data, printed=printed, shown=shown, variables=variables, tokenizer=tokenizer, models=of)


def texts_of(stories, world, split):
    return [row["told"] for row in stories.data[world][split]]


def test_the_splits_are_read_up_to_the_limit(stories):
    wanted = [[min(READ, n) for n in SIZES[name]] for name in ("woods", "sea", "chats")]
    assert stories.shown["sets"].T.to_numpy().tolist() == wanted


def test_perplexities_before_and_after_the_second_stage_are_shown_side_by_side(stories):
    worlds = [texts_of(stories, world, "test") for world in ("woods", "sea")]
    wanted = [
        [perplexity(stories.models[stage], texts, stories.tokenizer) for texts in worlds]
        for stage in ("1-pretraining", "2-only-new", "2-new-domain")
    ]
    assert stories.shown["after_domain"].to_numpy() == pytest.approx(np.array(wanted), abs=0.006)
    assert len(set(np.round(wanted, 2).flatten())) == 6


def test_the_hardest_tokens_are_those_of_the_test_stories(stories):
    model, rows = stories.models["1-pretraining"], whole(texts_of(stories, "woods", "test"), stories.tokenizer)
    table, wanted = stories.shown["hardest"].to_dict("records"), [hardest(model, row, stories.tokenizer) for row in rows]
    assert [row["loss"] for row in table] == sorted((row["loss"] for row in wanted), reverse=True)[:8]
    assert all(row in wanted for row in table) and table[0]["loss"] > table[-1]["loss"]


def test_the_stories_that_the_model_tells_are_drawn_from_its_probabilities_and_counted(stories):
    told = told_by(stories.models["1-pretraining"], stories.tokenizer, 200)
    assert stories.variables["told"] == told
    names, test = {"Milo", "Ada", "Kurt"}, texts_of(stories, "woods", "test")
    assert stories.variables["names"] == names
    shares = [100 * hero_share(texts) for texts in (told, test)]
    found = re.search(r"hero: ([\d.]+)% of the model's, ([\d.]+)% of the test stories", stories.printed["names"]).groups()
    assert list(map(float, found)) == pytest.approx(shares, abs=0.051) and 0 < shares[0] != shares[1] < 100
    known = len(set(told) & set(texts_of(stories, "woods", "train")))
    assert f"{known} of 200\n" in stories.printed["names"] and known > 0


def hero_share(texts):
    """The share of stories that keep to their hero; test_causal_language_modeling.py holds `consistent` against stories."""
    heroes = runpy.run_path(str(ROOT / FOLDER / "data" / "heroes.py"))
    return np.mean([heroes["consistent"](text, {"Milo", "Ada", "Kurt"}) for text in texts])


def test_each_setting_of_sampling_is_tried_on_a_hundred_stories(stories):
    model, found = stories.models["1-pretraining"], stories.variables["samples"]
    for row, (name, setting) in zip(found, stories.variables["settings"].items(), strict=True):
        told = told_by(model, stories.tokenizer, 100, **{"temperature": 0.8, **setting})
        assert row["setting"] == name and row["different stories"] == len(set(told))
        assert row["keep to their hero"] == f"{hero_share(told):.0%}"
        assert row["different words"] == len({word for text in told for word in text.split()})
    assert found[-1]["different stories"] == 1 and found[-1]["setting"] == "greedy"
    assert len({row["different stories"] for row in found}) > 2


def test_the_models_of_all_stages_are_compared_in_the_same_way(stories):
    worlds = [texts_of(stories, world, "test") for world in ("woods", "sea")]
    wanted = []
    for stage in ("1-pretraining", "2-only-new", "2-new-domain", "3-instructions"):
        model = stories.models[stage]
        scores = [perplexity(model, texts, stories.tokenizer) for texts in worlds]
        wanted.append([*scores, hero_share(told_by(model, stories.tokenizer, 200))])
    assert stories.shown["summary"].to_numpy() == pytest.approx(np.array(wanted), rel=1e-4, abs=6e-4)
    assert len({scores[-1] for scores in wanted}) > 1


def test_telling_hands_on_what_it_is_given_and_leaves_the_random_numbers_alone(stories):
    model, before = stories.models["2-new-domain"], torch.random.get_rng_state()
    told = stories.variables["tell"](model, 3, temperature=2.0, max_new_tokens=9)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert told == told_by(model, stories.tokenizer, 3, temperature=2.0, max_new_tokens=9) != told_by(model, stories.tokenizer, 3)


def judged(stories, answers):
    """Answers as texts; whether each ends; whether it also has all keywords behind its title."""
    end, chats = stories.tokenizer.convert_tokens_to_ids("<|im_end|>"), stories.data["chats"]["test"]
    texts, ends = stories.tokenizer.batch_decode(answers, skip_special_tokens=True), [end in answer for answer in answers]
    bodies = [words_in(text.split(". ", 1)[1]) if ". " in text else [] for text in texts]
    named = [all(word.lower() in body for word in row["keywords"]) for row, body in zip(chats, bodies)]
    return texts, ends, [a and b for a, b in zip(ends, named)]


def longest_of(stories):
    """An answer may be as long as the longest of the test split."""
    return max(sum(target != -100 for target in conversation(chat["messages"], stories.tokenizer)["targets"])
               for chat in stories.data["chats"]["test"])


def requests_of(stories):
    return [row["messages"][0]["content"] for row in stories.data["chats"]["test"]]


def test_answers_that_fail_are_shown_with_the_keywords_that_are_missing(stories):
    after, wanted = stories.variables["compliance_after"], []
    for complies in (False, True):  # those that do not comply come first
        for row, chat in zip(after.to_dict("records"), stories.data["chats"]["test"]):
            if row["complies"] == complies and not (row["complies"] and row["keeps to its hero"]):
                body = words_in(row["answer"].split(". ", 1)[-1])
                wanted.append((row["request"], ", ".join(word for word in chat["keywords"] if word.lower() not in body)))
    failed = stories.variables["failed"]
    assert list(zip(failed["request"], failed["missing"])) == wanted and any(failed["complies"])
    assert stories.shown["failed"]["request"].tolist() == [request for request, _ in wanted[:4]]
    assert f"{len(wanted)} of {len(after)}" in stories.printed["failed"]


def test_any_number_of_requests_is_answered_in_their_order(stories):
    model, requests = stories.models["3-instructions"], requests_of(stories)[:10]
    wanted = answers_of(model, stories.tokenizer, requests, longest_of(stories))
    prompts = [[{"role": "user", "content": request}] for request in requests]
    assert [stories.variables["answer"](model, prompts, at_once=size) for size in (3, 10)] == [wanted, wanted]


def test_what_a_hidden_end_of_turn_does_to_answers_is_measured(stories):
    end, found = stories.tokenizer.convert_tokens_to_ids("<|im_end|>"), []
    for stage in ("4-end-is-a-target", "4-end-is-hidden"):
        answers = answers_of(stories.models[stage], stories.tokenizer, requests_of(stories), longest_of(stories))
        found.append([np.mean([end in answer for answer in answers]), np.mean([len(answer) for answer in answers])])
    assert stories.shown["endings"].to_numpy() == pytest.approx(np.array(found), abs=0.006)
    assert found[0][0] > found[1][0] == 0


def test_what_padding_on_the_right_does_to_answers_is_measured(stories):
    prompts = [asked(request) for request in requests_of(stories)]
    for side in ("left", "right"):
        padded = AutoTokenizer.from_pretrained(GIVEN["checkpoint"], padding_side=side)
        padded.pad_token = padded.eos_token
        batch = padded(prompts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False)
        texts, _, complies = judged(stories, generated(stories.models["3-instructions"], stories.tokenizer, batch, longest_of(stories)))
        assert list(stories.variables["sides"][side].values()) == [np.mean(complies), texts[0][:80]]
    assert stories.variables["sides"]["left"]["compliance"] > stories.variables["sides"]["right"]["compliance"]
    before, after = stories.printed["sides"].split("padding_side='right':")
    assert "right-padding was detected" in after and "right-padding" not in before, "the warning of the library is shown"


def test_compliance_is_that_of_the_models_before_and_after_the_third_stage(stories):
    found = []
    for stage in ("2-new-domain", "3-instructions"):
        _, _, complies = judged(stories, answers_of(stories.models[stage], stories.tokenizer, requests_of(stories), longest_of(stories)))
        found.append(np.mean(complies))
    assert [stories.variables["metrics"][name] for name in ("compliance_before", "compliance")] == found and found[0] < found[1] < 1


def test_conversations_that_are_too_long_are_counted_and_the_rest_is_trained_on(stories):
    rows = {split: [conversation(chat["messages"], stories.tokenizer) for chat in chats] for split, chats in stories.data["chats"].items()}
    told = [stories.printed[name].splitlines() for name in ("chats", "chat_rows")]
    for counted, line, (split, encoded) in zip(*told, rows.items(), strict=True):
        short = [row for row in encoded if len(row["input_ids"]) <= 512]
        mean = np.mean([sum(target != -100 for target in row["targets"]) for row in short])
        assert [int(number) for number in re.findall(r"\d+", counted)] == [len(short), len(encoded) - len(short), 512], split
        assert line.startswith(f"{split}: {mean:.0f} targets"), split
        taken = stories.variables["chat_rows"][split]
        assert [row["labels"] for row in taken] == [row["targets"] for row in short]


@pytest.mark.parametrize("lengths, labelled", [((30, 400, 5, 12, 2), False), ((9, 512, 14), True)])
def test_only_labels_count_when_rows_are_measured(stories, lengths, labelled):
    rng, rows = random.Random(2), []
    for n in lengths:
        ids = [rng.randrange(4, 300) for _ in range(n)]
        rows.append({"input_ids": ids, "labels": [-100] * 7 + ids[7:] if labelled else ids})
    model = stories.models["1-pretraining"]
    total, count = (sum(values) for values in zip(*[nats_of(model, row | {"targets": row["labels"]}) for row in rows]))
    assert stories.variables["perplexity"](model, rows) == pytest.approx(math.exp(total / count), rel=1e-4)


def test_a_document_that_is_longer_than_the_context_is_cut(stories):
    end, (short, long) = stories.tokenizer.eos_token_id, stories.variables["whole"]([[0, 5, 6], [0, *range(4, 704)]])
    assert short["input_ids"] == short["labels"] == [0, 5, 6, end]
    assert long["input_ids"] == long["labels"] == [0, *range(4, 515)]


def test_labels_that_are_shifted_twice_are_measured(stories):
    model, rows = stories.models["1-pretraining"], whole(texts_of(stories, "woods", "test"), stories.tokenizer)
    shifted = [{"input_ids": row["input_ids"], "targets": [*row["input_ids"][1:], -100]} for row in rows]
    total, count = (sum(values) for values in zip(*[nats_of(model, row) for row in shifted]))
    assert stories.printed["shifted"].rstrip().endswith(f" {math.exp(total / count):,.0f}")


def test_the_saved_model_answers_through_a_pipeline_and_is_the_one_in_memory(stories):
    known = min(requests_of(stories), key=len)
    requests = [known, "Tell a story about a shy dragon who looks for a sword in the castle."]
    answers = answers_of(stories.models["3-instructions"], stories.tokenizer, requests, longest_of(stories))
    for request, answer in zip(requests, answers, strict=True):
        assert f"{request}\n  {stories.tokenizer.decode(answer, skip_special_tokens=True)}\n" in stories.printed["storyteller"]
    assert stories.variables["difference"] < 1e-5
