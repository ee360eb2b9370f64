"""What comes of the recipes of sequence classification; see recipes.py."""

EFFECTS = {
    "LoRA": """
from peft import PeftModel
from safetensors.torch import load_file

saved = load_file(run_dir / "adapter" / "adapter_model.safetensors")
assert all("lora_" in name or name.split(".")[2] in {name.split(".")[0] for name in head} for name in saved)
adapted = PeftModel.from_pretrained(whole_model(), run_dir / "adapter").eval()
merged = type(whole_model()).from_pretrained(run_dir / "model").eval()
with torch.no_grad():
    one, two = (each.to("cpu")(**data_collator(tokenized["test"][:8])).logits for each in (adapted, merged))
assert torch.allclose(one, two, atol=1e-4), (one - two).abs().max()
""",
    "Class weights for rare labels": """
rare, frequent = counts.argmin(), counts.argmax()
flat = row_losses(torch.zeros(2, len(label_names)), torch.tensor([rare, frequent]))
assert counts[rare] < counts[frequent] and flat[0] / flat[1] == pytest.approx(counts[frequent] / counts[rare])
assert class_weights[labels["train"]].mean() == pytest.approx(1)
""",
    "Focal loss": """
easy, hard = row_losses(torch.tensor([[5.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))
assert hard == pytest.approx(np.log(2) / 4) and easy < 1e-6
""",
    "Label smoothing": """
certain, flat = row_losses(torch.tensor([[50.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 0]))
assert flat == pytest.approx(np.log(2)) and certain == pytest.approx(2.5)
""",
    "Few labels, without fine-tuning": """
assert vectors["test"].shape == (len(dataset["test"]), encoder.config.hidden_size)
assert frozen.score(vectors["train"], labels["train"]) > 1.5 / len(label_names)
""",
    "Freeze the lower layers": """
now, before = dict(AutoModelForSequenceClassification.from_pretrained(run_dir / "model").named_parameters()), whole_model()
same = {name for name, parameter in before.named_parameters() if torch.equal(parameter, now[name])}
frozen = {name for name, parameter in new_model().named_parameters() if not parameter.requires_grad}
assert frozen and frozen < set(now) and same == frozen
""",
    "A learning rate for each layer": "",
    "Another optimizer and schedule": "",
    "Early stopping": """
assert len(history) == 3 < num_epochs and len(losses) == 3 * (len(losses) // 3)
""",
    "Gradient checkpointing": "",
    "A tracker": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

logged = {}
for file in run_dir.rglob("events.out.tfevents.*"):
    events = EventAccumulator(str(file)).Reload()
    logged |= {name.removeprefix("train/"): [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
assert len(logged["learning_rate"]) == len(logged["loss"]) == len(losses) and logged["loss"] == pytest.approx(losses)
""",
    "torch.compile": """
from torch._dynamo.utils import counters

assert counters["stats"]["unique_graphs"] > 0
""",
    "Two passes in one step: adversarial training": "",
    "Ship it: ONNX and int8": """
exact, small = table
assert exact["largest difference of a logit"] < 1e-4 and exact["f1"] == metrics["f1"]
assert small["MB"] < exact["MB"] and 0 < small["largest difference of a logit"] < 0.5
""",
    "Several GPUs, from inside the notebook": """
assert len(losses) == num_epochs * math.ceil(len(tokenized["train"]) / (2 * batch_size))
""",
    "Hyperparameter search": """
if "search" in globals():
    assert 5e-5 <= found.hyperparameters["learning_rate"] <= 5e-4 and search.optimizer.param_groups[0]["lr"] < 5e-4
    assert len(list(run_dir.glob("run-*"))) == 4 and 0 < found.objective < 1
else:
    assert len(found) == 4 and len(set(found.values())) > 1
""",
    "A page to try the model in": """
from browser import answers

wanted = [each for label, score in judge("a text").items() for each in (label, f"{score:.0%}")]  # the pipeline sorts them
answers(page.local_url, "a text", *wanted)
page.close()
""",
}
SAME = {"Gradient checkpointing", "A tracker", "Hyperparameter search", "Few labels, without fine-tuning", "Ship it: ONNX and int8",
        "A page to try the model in"}
APART = {"torch.compile"}  # compiled for sizes as they come, or for any: the order of sums differs
PARAMETERS = {"Early stopping": {"num_epochs": 6, "learning_rate": 0.0, "head_learning_rate": 0.0}}  # the first epoch is the best
SLOW = {"Several GPUs, from inside the notebook",
        "torch.compile", "Hyperparameter search", "Ship it: ONNX and int8", "A page to try the model in"}
