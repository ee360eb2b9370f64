import copy
import inspect
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import transformers
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub.utils import validate_repo_id
from IPython.display import SVG, Markdown, display
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    pipeline,
    set_seed,
)

import common

pd.set_option("display.max_colwidth", None)
device = common.own_device()
print(f"transformers {transformers.__version__}, torch {torch.__version__}, device {device}")

checkpoint = "rasyosef/splade-tiny"  # any encoder on the Hub that was pretrained with a mask token
dataset_id = "stdlib"  # or a file, a folder, or a dataset on the Hub
dataset_config = None  # a subset, if the dataset has several, e.g. "wikitext-2-raw-v1" of Salesforce/wikitext
columns = {}  # if your columns have other names, e.g. {"text": "body"}
block_size = 64  # tokens
mask_probability = 0.15  # share of the tokens to predict
whole_words = False  # mask whole words instead of single tokens
num_epochs = 2
batch_size = 32  # blocks per forward pass and process
learning_rate = 2e-3
num_draws = 6  # of few labelled texts, to train classifiers on before and after; 0 for none
gradient_accumulation_steps = 1
mixed_precision = "no"  # "bf16", which is faster on most GPUs and some CPUs, or "fp16" on older GPUs
seed = 42
output_dir = "outputs"
resume = False
push_to_hub = ""  # e.g. "your-name/docstrings": upload the model to this repository
seed=43
output_dir="/tmp/exp/out/half:0.3-43"
shutil=__import__("shutil"); shutil.rmtree(output_dir, ignore_errors=True)

if push_to_hub:
    validate_repo_id(push_to_hub)  # now rather than after the training
dataset = common.load_splits(dataset_id, dataset_config, columns)
dataset

sample = dataset["train"].select([i % len(dataset["train"]) for i in (900, 2500, 4000)]).to_pandas()
common.show(sample.assign(text=[" ".join(text.split())[:160] for text in sample["text"]]))

tokenizer = AutoTokenizer.from_pretrained(checkpoint)
assert tokenizer.mask_token is not None, f"{checkpoint} has no mask token: choose an encoder"
block_size = common.readable_length(block_size, tokenizer, AutoConfig.from_pretrained(checkpoint))

example = common.tokenize({"text": ["Don't unpickle untrusted files.", "Return a tokenized copy."]}, tokenizer)
for input_ids, word_ids in zip(example["input_ids"], example["word_ids"]):
    tokens = tokenizer.convert_ids_to_tokens(input_ids)
    display(pd.DataFrame([tokens, input_ids, word_ids], index=["token", "input_ids", "word_ids"]))

example_blocks, num_left = common.make_blocks(Dataset.from_dict(example), block_size=8)
for block in example_blocks:
    print(block["row"], tokenizer.convert_ids_to_tokens(block["input_ids"]))
print(f"{num_left} tokens left over")

tokenized = dataset.map(
    common.tokenize, batched=True, remove_columns=dataset["train"].column_names, fn_kwargs={"tokenizer": tokenizer})
common.count_unknown(tokenized["train"]["input_ids"], tokenizer)
blocks = {}
for split in tokenized:
    blocks[split], num_left = common.make_blocks(tokenized[split], block_size, f"split '{split}'")
    print(f"{split}: {len(blocks[split])} blocks of {block_size} tokens, {num_left} tokens left over")

ordinary_ids = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)  # random tokens are drawn from these


def mask_block(block, *key, probability=mask_probability, whole_words=whole_words):
    """What the model sees of a block, and its labels; `key` and the number of the block decide the masks."""
    rng = np.random.default_rng([*key, block["row"]])
    input_ids, labels = common.mask_tokens(
        block["input_ids"], block["word_ids"], rng, tokenizer.mask_token_id, ordinary_ids, probability, whole_words)
    return {"input_ids": input_ids, "labels": labels}


eval_blocks = {split: blocks[split].map(lambda block: mask_block(block, 0, 0)) for split in ("validation", "test")}
eval_labels = {split: torch.tensor(eval_blocks[split]["labels"][:]) for split in eval_blocks}
for split, labels in eval_labels.items():
    print(f"{split}: {(labels != -100).sum()} tokens to predict")

def perplexity(losses):
    """exp of the mean of the losses of masked tokens, in nats."""
    return math.exp(losses.double().mean())


counts = np.bincount(np.concatenate(blocks["train"]["input_ids"]), minlength=len(tokenizer))
counts[tokenizer.all_special_ids] = 0  # never to be predicted
unigram_losses = torch.tensor(-np.log((counts + 1) / (counts + 1).sum()))  # of each token of the vocabulary
test_tokens = eval_labels["test"][eval_labels["test"] != -100]
baseline_scores = {
    "uniform": {"perplexity": float(len(tokenizer))},
    "unigram": {"perplexity": perplexity(unigram_losses[test_tokens])},
}
pd.DataFrame(baseline_scores).T.round(1)

text = "Return a copy of the string with leading and trailing whitespace removed."
encoding = common.tokenize({"text": [text]}, tokenizer)
input_ids, word_ids = np.array(encoding["input_ids"][0]), np.array(encoding["word_ids"][0])
rng = np.random.default_rng(15)

candidates = np.flatnonzero(word_ids != -1)  # special tokens are never chosen
num_chosen = round(0.3 * len(candidates))
chosen = rng.permutation(candidates)[:num_chosen]
draws = rng.random(num_chosen)
print(f"{num_chosen} of {len(candidates)} tokens, at the positions {chosen.tolist()}; draws {draws.round(2).tolist()}")

labels = np.full(len(input_ids), -100)
labels[chosen] = input_ids[chosen]

replaced = chosen[(draws >= 0.8) & (draws < 0.9)]
seen_ids = input_ids.copy()
seen_ids[chosen[draws < 0.8]] = tokenizer.mask_token_id
seen_ids[replaced] = rng.choice(ordinary_ids, len(replaced))

pd.DataFrame({
    "text": tokenizer.convert_ids_to_tokens(input_ids), "model sees": tokenizer.convert_ids_to_tokens(seen_ids),
    "label": labels,
}).T

block = blocks["train"][15 % len(blocks["train"])]
for choose_words in (False, True):
    masked_block = mask_block(block, seed, 1, whole_words=choose_words)
    display(common.show_masks(masked_block["input_ids"], masked_block["labels"], tokenizer))

set_seed(seed)
standard_collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=mask_probability)
four_blocks = [{"input_ids": block["input_ids"]} for block in blocks["train"].select(range(min(4, len(blocks["train"]))))]
for _ in range(2):
    batch = standard_collator(four_blocks)
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    print(shapes, "chosen per block:", (batch["labels"] != -100).sum(dim=1).tolist())

class MaskingCollator:
    """Make a batch of blocks. They are masked anew in each epoch, unless they already have labels."""

    def __init__(self, probability=mask_probability, whole_words=whole_words):
        self.probability, self.whole_words = probability, whole_words
        self.epoch = 1

    def set_epoch(self, epoch):
        """Call this at the start of each epoch, or every epoch will have the same masks."""
        self.epoch = epoch

    def __call__(self, examples):
        if "labels" not in examples[0]:
            examples = [
                mask_block(block, seed, self.epoch, probability=self.probability, whole_words=self.whole_words)
                for block in examples
            ]
        input_ids = torch.tensor([example["input_ids"] for example in examples])
        labels = torch.tensor([example["labels"] for example in examples])
        return {"input_ids": input_ids, "masked": labels != -100, "labels": labels}


data_collator = MaskingCollator()
batch = data_collator([block for block in blocks["train"].select(range(min(4, len(blocks["train"]))))])
print({name: tuple(tensor.shape) for name, tensor in batch.items()})
print("chosen per block:", batch["masked"].sum(dim=1).tolist())

batch = data_collator([block for block in blocks["train"]])
num_ordinary = (np.array(blocks["train"]["word_ids"][:]) != -1).sum()
became_mask = batch["input_ids"][batch["masked"]] == tokenizer.mask_token_id
stayed = batch["input_ids"][batch["masked"]] == batch["labels"][batch["masked"]]
print(f"{batch['masked'].sum() / num_ordinary:.1%} of the tokens chosen; of these "
      f"{became_mask.float().mean():.1%} became the mask token and {stayed.float().mean():.1%} stayed")

def new_model():
    """The pretrained encoder with its masked language modeling head; the same weights on every call."""
    set_seed(seed)
    pretrained = AutoModelForMaskedLM.from_pretrained(checkpoint, dtype=torch.float32)
    model = AutoModelForMaskedLM.from_config(pretrained.config, dtype=torch.float32)
    model.load_state_dict(pretrained.state_dict())
    return model


model = new_model().to(device).eval()
print(f"{model.num_parameters() / 1e6:.1f} M parameters")

text = f"Return the {tokenizer.mask_token} of the given string."
encoding = tokenizer(text, return_tensors="pt").to(device)
with torch.no_grad():
    logits = model(**encoding).logits
position = encoding["input_ids"][0].tolist().index(tokenizer.mask_token_id)
best = logits[0, position].softmax(dim=-1).topk(5)
print(f"logits: {tuple(logits.shape)}, the mask token is at position {position}")
print(text, {tokenizer.decode([i]): round(p, 3) for i, p in zip(best.indices.tolist(), best.values.tolist())})

def predict_masked_only(model):
    """Give `model` an argument `masked` (batch, tokens); its logits are then (masked tokens, vocabulary)."""
    masked = None

    def take_masked(module, args, kwargs):
        nonlocal masked
        masked = kwargs.pop("masked", None)
        return args, kwargs

    def select_masked(module, args, output):
        nonlocal masked
        if masked is not None:
            output.last_hidden_state = output.last_hidden_state[masked]
            masked = None

    model.register_forward_pre_hook(take_masked, with_kwargs=True)
    model.base_model.register_forward_hook(select_masked)
    return model

model = predict_masked_only(model)

def token_losses(logits, labels):
    """Losses in nats (blocks, tokens) from the logits of the masked positions; 0 where nothing was masked."""
    losses = torch.zeros(labels.shape, device=logits.device)
    losses[labels != -100] = F.cross_entropy(logits.float(), labels[labels != -100], reduction="none")
    return losses


@torch.no_grad()
def evaluate_blocks(model, examples):
    """The losses (blocks, tokens) of blocks that have labels, on the CPU."""
    model.eval()
    losses = []
    for start in range(0, len(examples), batch_size):
        batch = data_collator([examples[i] for i in range(start, min(start + batch_size, len(examples)))])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits = model(input_ids=batch["input_ids"], masked=batch["masked"]).logits
        losses.append(token_losses(logits, batch["labels"]).cpu())
    return torch.cat(losses)


losses_before = {split: evaluate_blocks(model, eval_blocks[split]) for split in eval_blocks}
test_losses_before = losses_before["test"][eval_labels["test"] != -100]
baseline_scores["pretrained checkpoint"] = {"perplexity": perplexity(test_losses_before)}
pd.DataFrame(baseline_scores).T.round(1)

sentences = [
    "Return the ___ of the given string.",
    "Raise ___ if the file does not exist.",
    "The optional ___ must be a positive integer.",
    "Convert a string to ___ case.",
    "If the timeout is ___, wait forever.",
    "She drank a cup of ___.",
    "The ___ barked at the postman.",
    "They live in a small ___ by the sea.",
    "In winter the days are ___.",
    "He read the ___ on the train.",
]


def fill_blanks(model):
    """The five most probable tokens for the blank in each sentence, in one string."""
    fill = pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=5, device=model.device)
    filled = []
    for sentence in sentences:
        guesses = fill(sentence.replace("___", tokenizer.mask_token))
        filled.append(", ".join(guess["token_str"].strip() for guess in guesses))
    return filled


filled_before = fill_blanks(model)
common.show(pd.DataFrame({"sentence": sentences, "pretrained checkpoint": filled_before}))

class_rows = common.rows_with_classes(dataset)
class_texts = class_rows["text"].tolist()
class_names, classes = np.unique(class_rows["label"].astype(str), return_inverse=True)
budgets = [k for k in (4, 8) if num_draws and len(classes) and np.bincount(classes).min() > k]  # labelled texts of each class


def few_label_accuracy(model, budget, draw, num_steps=40, rate=learning_rate / 2):
    """Accuracy (0 to 1) on all other texts of a classifier with the encoder of `model`, trained on `budget` texts of each class."""
    rng = np.random.default_rng([budget, draw])
    order = rng.permutation(len(classes))
    labelled = np.concatenate([order[classes[order] == i][:budget] for i in range(len(class_names))])
    others = np.setdiff1d(order, labelled)
    set_seed(draw)  # for the new head and dropout
    encoder = copy.deepcopy(model.base_model).train().requires_grad_(True)
    head = torch.nn.Linear(encoder.config.hidden_size, len(class_names)).to(model.device)

    def logits(rows):
        encoding = tokenizer(
            [class_texts[i] for i in rows], padding=True, truncation=True, max_length=block_size, return_tensors="pt").to(model.device)
        hidden = encoder(input_ids=encoding["input_ids"], attention_mask=encoding["attention_mask"]).last_hidden_state
        mask = encoding["attention_mask"].unsqueeze(-1)
        return head((hidden * mask).sum(dim=1) / mask.sum(dim=1))  # from the mean vector of each text

    optimizer = torch.optim.AdamW(
        [{"params": encoder.parameters(), "lr": rate}, {"params": head.parameters(), "lr": 10 * rate}])
    lr_scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, num_steps)
    for _ in range(num_steps):
        rows = rng.choice(labelled, min(16, len(labelled)), replace=False)
        F.cross_entropy(logits(rows), torch.tensor(classes[rows], device=model.device)).backward()
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
    encoder.eval()
    head.eval()
    others = sorted(others, key=lambda i: len(class_texts[i]))
    with torch.no_grad():
        predicted = [logits(others[i:i + 64]).argmax(dim=-1).cpu().numpy() for i in range(0, len(others), 64)]
    return float(np.mean(np.concatenate(predicted) == classes[others]))


def few_label_accuracies(model):
    """The accuracy for each budget (rows) and each draw (columns)."""
    return pd.DataFrame([[few_label_accuracy(model, budget, draw) for draw in range(num_draws)] for budget in budgets], index=budgets)


if budgets:
    few_before = few_label_accuracies(model)
    largest_share = np.bincount(classes).max() / len(classes)
    print(f"{len(classes)} texts of {len(class_names)} classes; always predicting the largest: {largest_share:.3f}")
    display(few_before.mean(axis=1).rename("accuracy").rename_axis("labels per class").round(3))

import json
import logging
import shutil
from contextlib import nullcontext
from itertools import islice

from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, broadcast_object_list
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_scheduler



accelerator = Accelerator(
    cpu=device.type == "cpu",
    mixed_precision=mixed_precision,
    step_scheduler_with_optimizer=False,
    dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
)
# at every checkpoint, it would warn that the head shares its weights with the embeddings, as it should
logging.getLogger("accelerate.utils.other").setLevel("ERROR")


def compute_loss(outputs, labels, num_items_in_batch):
    """Cross-entropy in nats, divided by the number of masked tokens of the whole optimizer step."""
    targets = labels[labels != -100]  # the logits are those of the masked positions
    return F.cross_entropy(outputs.logits, targets, reduction="sum") / num_items_in_batch


def parameter_groups(model):
    """Weight decay for the weight matrices, none for biases and the weights of LayerNorm: `Trainer` does the same."""
    named = list(model.named_parameters())
    decayed = [p for name, p in named if p.dim() >= 2 and "bias" not in name]
    others = [p for name, p in named if p.dim() < 2 or "bias" in name]
    return [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


def predict(model, dataloader):
    """Losses and labels (blocks, tokens) of a whole split, in its order, on the CPU."""
    model.eval()
    all_losses, all_labels = [], []
    for batch in dataloader:
        with torch.no_grad(), accelerator.autocast():
            logits = model(input_ids=batch["input_ids"], masked=batch["masked"]).logits
        # the losses, not the logits: those of a whole split would fill the memory
        losses = token_losses(logits, batch["labels"])
        # [P] from all processes, without the blocks that fill up the last batch
        losses, labels = accelerator.gather_for_metrics((losses, batch["labels"]))
        all_losses.append(losses.cpu())
        all_labels.append(labels.cpu())
    return torch.cat(all_losses), torch.cat(all_labels)

def save_checkpoint(run_dir, losses, history):
    """[R] All that is needed to continue after this epoch."""
    folder = run_dir / f"checkpoint-{len(losses)}"
    accelerator.save_state(str(folder))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (folder / "trainer_state.json").write_text(json.dumps({"losses": losses, "history": history}))
        for other in set(run_dir.glob("checkpoint-*")) - {folder}:
            shutil.rmtree(other)
    accelerator.wait_for_everyone()


def save_model(model, run_dir):
    """The model and its tokenizer, as `from_pretrained` and `pipeline` read them."""
    state_dict = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(str(run_dir / "model"), state_dict=state_dict)
        tokenizer.save_pretrained(str(run_dir / "model"))

def train(model, data_collator):
    """Train `model` to predict masked tokens; save the best epoch in `run_dir / "model"`.

    Returns:
        The folder of the run, the loss of every optimizer step, and a dict of validation scores per epoch.
    """
    accelerator.free_memory()  # forget what an earlier call has prepared
    numbers = {"num_epochs": num_epochs, "batch_size": batch_size, "learning_rate": learning_rate, "block_size": block_size,
               "mask_probability": mask_probability, "whole_words": whole_words,
               "gradient_accumulation_steps": gradient_accumulation_steps, "mixed_precision": mixed_precision, "seed": seed}
    start = [common.start_run(f"{output_dir}/accelerate_loop", resume, numbers)] if accelerator.is_main_process else [None]
    run_dir, last_checkpoint = broadcast_object_list(start)[0]  # [P] the main process decides

    set_seed(seed)  # for dropout and the order of the blocks
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=learning_rate, fused=True)  # fused, as in `Trainer`
    train_dataloader = DataLoader(blocks["train"], batch_size=batch_size, shuffle=True, collate_fn=data_collator)
    eval_dataloader = DataLoader(eval_blocks["validation"], batch_size=batch_size, collate_fn=data_collator)
    model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader)
    steps_per_epoch = math.ceil(len(train_dataloader) / gradient_accumulation_steps)  # [A]
    num_training_steps = num_epochs * steps_per_epoch
    lr_scheduler = accelerator.prepare(get_scheduler(
        "linear", optimizer, num_warmup_steps=math.ceil(0.1 * num_training_steps),
        num_training_steps=num_training_steps))
    # [P] the number of real blocks in the last, incomplete round of batches, over all processes; 0 if it is complete
    num_last = len(blocks["train"]) % (batch_size * accelerator.num_processes)

    losses, history = [], []
    if last_checkpoint:  # [R]
        accelerator.load_state(str(last_checkpoint))
        state = json.loads((last_checkpoint / "trainer_state.json").read_text())
        losses, history = state["losses"], state["history"]
        if len(losses) != len(history) * steps_per_epoch:
            raise ValueError(f"{last_checkpoint} is from another run: resume with the same parameters and data")

    progress_bar = tqdm(total=num_training_steps, initial=len(losses), disable=not accelerator.is_main_process)
    for epoch in range(len(history), num_epochs):
        train_dataloader.set_epoch(epoch)
        data_collator.set_epoch(1 + epoch)
        model.train()
        batches = iter(train_dataloader)
        while step_batches := list(islice(batches, gradient_accumulation_steps)):  # [A] one batch, if 1
            is_last_step = len(losses) + 1 == (epoch + 1) * steps_per_epoch
            if is_last_step and num_last > 0:  # [P] the others only fill up the batch
                num_real = max(num_last - accelerator.process_index * batch_size, 0)
                step_batches[-1]["labels"][num_real:] = -100
                step_batches[-1]["masked"] = step_batches[-1]["labels"] != -100
            num_items = sum(batch["masked"].sum() for batch in step_batches)  # [A]
            num_items = accelerator.reduce(num_items, "sum")  # [P]

            step_loss = torch.zeros((), device=accelerator.device)
            for i, batch in enumerate(step_batches):
                labels = batch.pop("labels")
                is_last_batch = i == len(step_batches) - 1
                # [P] processes exchange their gradients once per step, with the last batch
                with nullcontext() if is_last_batch else accelerator.no_sync(model):
                    loss = compute_loss(model(**batch), labels, num_items)
                    halves = batch["input_ids"].unflatten(1, (2, -1)).flatten(0, 1)
                    hidden = model(input_ids=halves, masked=torch.zeros_like(halves, dtype=torch.bool), output_hidden_states=True).hidden_states[-1]
                    vectors = F.normalize(hidden.mean(dim=1), dim=-1).unflatten(0, (-1, 2))
                    loss = loss + 0.3 * F.cross_entropy(vectors[:, 0] @ vectors[:, 1].T / 0.05, torch.arange(len(labels)))
                    # [P] the exchange averages over the processes, and we want the sum
                    accelerator.backward(loss * accelerator.num_processes)
                step_loss += loss.detach()

            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            losses.append(accelerator.reduce(step_loss, "sum").item())
            progress_bar.update()

        eval_losses, labels = predict(model, eval_dataloader)
        eval_losses = eval_losses[labels != -100]
        scores = {"loss": eval_losses.double().mean().item(), "perplexity": perplexity(eval_losses)}
        is_best = scores["perplexity"] < min((entry["perplexity"] for entry in history), default=math.inf)
        history.append({"epoch": epoch + 1, **scores})
        train_loss = np.mean(losses[-steps_per_epoch:])
        accelerator.print(f"epoch {epoch + 1}: training loss {train_loss:.3f}, "
                          f"validation loss {scores['loss']:.3f}, perplexity {scores['perplexity']:.2f}")
        if is_best:
            save_model(model, run_dir)
        save_checkpoint(run_dir, losses, history)  # [R] last, as the next epoch starts from these random numbers
    progress_bar.close()
    return run_dir, losses, history


run_dir, losses, history = train(predict_masked_only(new_model()), data_collator)
print(f"{len(losses)} optimizer steps; loss {losses[0]:.3f} at the first and {losses[-1]:.3f} at the last")

model = predict_masked_only(AutoModelForMaskedLM.from_pretrained(run_dir / "model")).to(accelerator.device)
test_dataloader = accelerator.prepare(
    DataLoader(eval_blocks["test"], batch_size=batch_size, collate_fn=data_collator))
test_losses, test_labels = predict(model, test_dataloader)

metrics = {
    "perplexity": perplexity(test_losses[test_labels != -100]),
    "perplexity_before": baseline_scores["pretrained checkpoint"]["perplexity"],
    "perplexity_unigram": baseline_scores["unigram"]["perplexity"],
}
adapted = {"perplexity": metrics["perplexity"]}
if budgets:
    few_after = few_label_accuracies(model)
    metrics["few_labels_before"], metrics["few_labels"] = (float(few.values.mean()) for few in (few_before, few_after))
    for name in ("uniform", "unigram"):
        baseline_scores[name]["few_labels"] = float(largest_share)
    baseline_scores["pretrained checkpoint"]["few_labels"] = metrics["few_labels_before"]
    adapted["few_labels"] = metrics["few_labels"]
    common.compare("accuracy with few labels", few_before.values.flatten(), few_after.values.flatten())
    gains = few_after - few_before
    display(pd.DataFrame({
        "pretrained checkpoint": few_before.mean(axis=1), "adapted": few_after.mean(axis=1),
        "draws with a gain": (gains > 0).sum(axis=1).astype(str) + f" of {gains.shape[1]}",
    }).rename_axis("labels per class").round(3))
common.advise(history, "perplexity", metrics["perplexity"], baseline_scores["unigram"]["perplexity"], higher_is_better=False)
pd.DataFrame({**baseline_scores, "adapted": adapted}).T.round(3)

filled_after = fill_blanks(model)
common.show(pd.DataFrame({"sentence": sentences, "pretrained checkpoint": filled_before, "adapted": filled_after}))


print("RESULT", "half:0.3", 43, metrics["perplexity"], metrics["few_labels_before"], metrics["few_labels"], few_after.mean(axis=1).tolist(), float(gains.values.std()))
