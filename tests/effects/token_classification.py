"""What comes of the recipes of token classification; see recipes.py."""

EFFECTS = {
    "Give an uncased checkpoint its capitals back": """
for each in (tokenizer, find_names.tokenizer):  # in memory, and as it was saved
    words = ["Ana", "met", "NATO", "Te'o-Leavai", "\u00c9lan", "iPhone"]
    marked = [each.backend_tokenizer.normalizer.normalize_str(word) for word in words]
    assert [text.count("^") for text in marked] == [1, 0, 1, 2, 1, 0] and marked[0].startswith("^")
assert all(agreement)
""",
    "New entity types without forgetting the old": """
old = AutoModelForTokenClassification.from_pretrained(run_dir / "model").eval()
old_names, checkpoint = label_names, str(run_dir / "model")
for added in (["B-NEW", "I-NEW"], []):  # with as many tags as before, too, rows have to move
    label_names = [*added, *old_names[::-1]]
    continued = new_model().eval()
    assert continued.config.label2id == {name: i for i, name in enumerate(label_names)}
    with torch.no_grad():
        before, after = (each.to("cpu")(**first_batch).logits for each in (old, continued))
    assert torch.allclose(after[..., len(added) :], before.flip(-1), atol=1e-5)
    assert torch.equal(continued.classifier.weight[: len(added)], random_head().classifier.weight[: len(added)])
""",
    "Never an impossible sequence": """
from itertools import product


def impossible(tags, before="O"):
    return sum(tag[:2] == "I-" and tag[2:] != one[2:] for one, tag in zip([before, *tags], tags))


as_found = [[label_names[i] for i in row] for row in torch.randn(50, 4, len(label_names)).argmax(dim=-1)]
assert sum(map(impossible, as_found)) > 50 and sum(map(impossible, test_predictions)) == 0
assert all(agreement)
# every sequence of three words, in two windows of one sentence and one of another, with a token between them that is no word
logits, labels = 3 * torch.randn(3, 3, len(label_names)), torch.tensor([[0, -100, 0], [0, -100, -100], [-100, 0, 0]])
for before in ("O", "B-LOC", "I-MISC"):
    found = best_tags(logits, labels, [7, 7, 8], before)
    for first, places in ((before, [(0, 0), (0, 2), (1, 0)]), (before, [(2, 1), (2, 2)])):
        values = {ids: sum(logits[place][i].item() for place, i in zip(places, ids))
                  for ids in product(range(len(label_names)), repeat=len(places)) if not impossible([label_names[i] for i in ids], first)}
        assert tuple(found[window][token] for window, token in places) == max(values, key=values.get)
long = [word for words in dataset["test"]["tokens"] for word in words][:400]  # more than max_length tokens
assert impossible(tag_words([long])[0]) == 0
""",
    "LoRA": """
from peft import PeftModel
from safetensors.torch import load_file

saved = load_file(run_dir / "adapter" / "adapter_model.safetensors")
assert all("lora_" in name or name.split(".")[2] in {name.split(".")[0] for name in head} for name in saved)
assert any("lora_B" in name and tensor.any() for name, tensor in saved.items()) and any(head[0] in name for name in saved)
adapted = PeftModel.from_pretrained(whole_model(), run_dir / "adapter").eval()
merged = type(whole_model()).from_pretrained(run_dir / "model").eval()
with torch.no_grad():
    one, two = (each.to("cpu")(**first_batch).logits for each in (adapted, merged))
assert torch.allclose(one, two, atol=1e-4), (one - two).abs().max()
assert sum(parameter.numel() for parameter in new_model().parameters() if parameter.requires_grad) == sum(map(torch.numel, saved.values()))
""",
    "Freeze the lower layers": """
now, before = dict(AutoModelForTokenClassification.from_pretrained(run_dir / "model").named_parameters()), whole_model()
same = {name for name, parameter in before.named_parameters() if torch.equal(parameter, now[name])}
frozen = {name for name, parameter in new_model().named_parameters() if not parameter.requires_grad}
assert frozen and frozen < set(now) and same == frozen
""",
    "A learning rate for each layer": """
rates = {group["lr"] for group in layer_groups(new_model())}
assert rates == {learning_rate * 0.9 ** i for i in range(new_model().config.num_hidden_layers + 1)}
groups = layer_groups(new_model())
assert sum(len(group["params"]) for group in groups) == len(list(new_model().parameters()))
assert groups[0]["lr"] == min(rates) and groups[-1]["lr"] == learning_rate
""",
    "Another optimizer and schedule": """
if "trainer" in globals():
    from transformers.trainer_utils import SchedulerType

    assert type(trainer.optimizer).__name__ == "AcceleratedOptimizer" and type(trainer.optimizer.optimizer) is torch.optim.Adafactor
    assert training_args.lr_scheduler_type == SchedulerType.COSINE
else:
    assert type(accelerator._optimizers[-1].optimizer) is torch.optim.Adafactor
    assert "cosine" in inspect.getsource(accelerator._schedulers[-1].scheduler.lr_lambdas[0].func)
""",
    "Early stopping": """
assert len(history) == 3 < num_epochs and len(losses) == 3 * (len(losses) // 3)
""",
    "Gradient checkpointing": """
trained = trainer.model if "trainer" in globals() else accelerator.unwrap_model(accelerator._models[-1])
assert trained.is_gradient_checkpointing
""",
    "A tracker": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

logged = {}
for file in run_dir.rglob("events.out.tfevents.*"):
    events = EventAccumulator(str(file)).Reload()
    logged |= {name.removeprefix("train/"): [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
assert len(logged["learning_rate"]) == len(logged["loss"]) == len(losses) and logged["loss"] == pytest.approx(losses)
scores = logged["eval_f1"] if "eval_f1" in logged else logged["eval/f1"]
assert scores == pytest.approx([entry["f1"] for entry in history])
""",
    "torch.compile": """
from torch._dynamo.utils import counters

assert counters["stats"]["unique_graphs"] > 0
""",
    "Several GPUs, from inside the notebook": """
assert len(losses) == num_epochs * math.ceil(len(tokenized["train"]) / (2 * batch_size))
""",
    "Hyperparameter search": """
if "search" in globals():
    assert 1e-4 <= found.hyperparameters["learning_rate"] <= 1e-3 and len(list(run_dir.glob("run-*"))) == 4
    assert 0 <= found.objective <= 1 and type(search.optimizer.optimizer) is torch.optim.AdamW
else:
    assert len(found) == 4 and all(0 <= value <= 1 for value in found.values())
""",
    "Only in the loop: a moving average of the weights": """
average, trained = accelerator._custom_objects[-1], accelerator.unwrap_model(accelerator._models[-1])
scores = evaluate_logits(*predict(model, DataLoader(tokenized["validation"], batch_size=batch_size, collate_fn=data_collator)),
                         sentence_ids["validation"])
best = max(history, key=lambda entry: entry["f1"])
assert average.n_averaged == len(losses) and best["epoch"] == len(history)
assert scores == pytest.approx({name: best[name] for name in scores})
for kept, mean, last in zip(model.parameters(), average.module.parameters(), trained.parameters()):
    assert torch.equal(kept, mean) and not torch.equal(kept, last)
assert len(list(run_dir.glob("checkpoint-*/custom_checkpoint_*.pkl"))) == 1
""",
    "Ship it: ONNX and int8": """
exact, small = table
assert exact["largest difference of a logit"] < 1e-4 and exact["f1"] == pytest.approx(evaluate_logits(
    test_logits, test_labels, sentence_ids["test"])["f1"])
assert small["MB"] < exact["MB"] and 0 < small["largest difference of a logit"] < 0.5
""",
    "A page to try the model in": """
from browser import answers

text = next(text for tokens in dataset["test"]["tokens"] if find_names(text := " ".join(tokens)))
answers(page.local_url, text, *(each for found in find_names(text) for each in (text[found["start"]:found["end"]], found["entity_group"])))
page.close()
""",
}
SAME = {"Gradient checkpointing", "Give an uncased checkpoint its capitals back",
        "A tracker", "Hyperparameter search", "Never an impossible sequence",
        "New entity types without forgetting the old", "Only in the loop: a moving average of the weights",
        "Ship it: ONNX and int8", "A page to try the model in"}
APART = {"torch.compile"}  # compiled for sizes as they come, or for any: the order of sums may differ
PARAMETERS = {"Early stopping": {"num_epochs": 6, "learning_rate": 0.0}}  # the first epoch is the best
SLOW = {"Several GPUs, from inside the notebook",
        "torch.compile", "Hyperparameter search", "Ship it: ONNX and int8", "A page to try the model in"}
