"""What comes of the recipes of masked language modeling; see recipes.py."""

# what trained, in either notebook, without Accelerate's wrappers
TRAINED = """
optimizer = trainer.optimizer if "trainer" in globals() else accelerator._optimizers[0]
scheduler = trainer.lr_scheduler if "trainer" in globals() else accelerator._schedulers[0]
trained_model = trainer.model if "trainer" in globals() else accelerator._models[0]
optimizer, scheduler = getattr(optimizer, "optimizer", optimizer), getattr(scheduler, "scheduler", scheduler)
"""
EFFECTS = {
    "A control: the same words, out of order": """
original = common.load_splits(dataset_id, dataset_config, columns)["train"]["text"][:]
now = dataset["train"]["text"][:]
assert now != original and [len(text.split()) for text in now] == [len(text.split()) for text in original]
assert sorted(" ".join(now).split()) == sorted(" ".join(original).split())
""",
    "New words in the vocabulary": """
saved_tokenizer = AutoTokenizer.from_pretrained(run_dir / "model")
saved = AutoModelForMaskedLM.from_pretrained(run_dir / "model")
old_size = len(AutoTokenizer.from_pretrained(checkpoint))
assert new_words and len(saved_tokenizer) == saved.config.vocab_size == saved.get_input_embeddings().num_embeddings
assert len(saved_tokenizer) == old_size + len(new_words) and saved.get_output_embeddings().out_features == len(saved_tokenizer)
assert all(len(pieces[word]) > 1 and max(pieces[word]) < old_size for word in new_words)
assert all(saved_tokenizer.encode(f"{word}.")[1] == tokenizer.convert_tokens_to_ids(word) >= old_size for word in new_words)
assert 1 <= tokens_per_word() < tokens_before
ids = torch.tensor(tokenizer.convert_tokens_to_ids(new_words))
old_model = AutoModelForMaskedLM.from_pretrained(checkpoint)
first, old, learned = (each.get_input_embeddings().weight for each in (new_model(), old_model, saved))
means = torch.stack([old[pieces[word]].mean(dim=0) for word in new_words])
assert torch.allclose(first[ids], means) and torch.equal(first[:old_size], old) and not torch.allclose(learned[ids], means)
assert np.isin(ids, np.array(blocks["train"]["input_ids"][:])).any()
""",
    "Mask more, or whole words": """
found = data_collator([block for block in blocks["train"]])["masked"].numpy()
words = np.array(blocks["train"]["word_ids"][:])
assert 0.2 < found.sum() / (words != -1).sum() <= 0.31
continues = (words[:, 1:] == words[:, :-1]) & (words[:, 1:] != -1)
assert continues.any() and (found[:, 1:] == found[:, :-1])[continues].all()
share = (test_labels != -100).sum() / (torch.tensor(eval_blocks["test"]["word_ids"][:]) != -1).sum()
assert 0.1 < share < 0.2
""",
    "Continue as a classifier, in one flow": """
assert list(accuracies) == [checkpoint, str(run_dir / "model")] and all(0 < value <= 1 for value in accuracies.values())
adapted = accuracies[str(run_dir / "model")]
assert classifier_accuracy(str(run_dir / "model")) == adapted > classifier_accuracy(str(run_dir / "model"), epochs=0)
""",
    "LoRA": """
from peft import PeftModel
from safetensors.torch import load_file

saved = load_file(run_dir / "adapter" / "adapter_model.safetensors")
assert all("lora_" in name or name.endswith("bias") for name in saved)
adapted = PeftModel.from_pretrained(new_model(), run_dir / "adapter").eval()
merged = AutoModelForMaskedLM.from_pretrained(run_dir / "model").eval()
assert any("lora_" in name and f".{merged.base_model_prefix}." not in name for name in saved)  # the head has matrices, too
with torch.no_grad():
    one, two = (each(input_ids=torch.tensor(eval_blocks["test"][:8]["input_ids"])).logits for each in (adapted, merged))
assert torch.allclose(one, two, atol=1e-4), (one - two).abs().max()
before, now = dict(new_model().named_parameters()), dict(merged.named_parameters())
changed = {name for name in before if not torch.equal(before[name], now[name])}
linear = {f"{name}.weight" for name, module in merged.named_modules() if isinstance(module, torch.nn.Linear)}
assert linear & before.keys() <= changed and all(name in linear or name.endswith("bias") for name in changed)
assert torch.equal(merged.get_input_embeddings().weight, new_model().get_input_embeddings().weight)
""",
    "Freeze the lower layers": """
now, before = dict(AutoModelForMaskedLM.from_pretrained(run_dir / "model").named_parameters()), whole_model()
same = {name for name, parameter in before.named_parameters() if torch.equal(parameter, now[name])}
frozen = {name for name, parameter in new_model().named_parameters() if not parameter.requires_grad}
assert frozen and frozen < set(now) and same == frozen
""",
    "A learning rate for each layer": TRAINED + """
rates = [group["initial_lr"] for group in optimizer.param_groups]
num_layers = model.config.num_hidden_layers
assert sorted(set(rates)) == pytest.approx([learning_rate * 0.9 ** above for above in range(num_layers, -1, -1)])
embeddings = trained_model.get_input_embeddings().weight
(rate,) = [group["initial_lr"] for group in optimizer.param_groups if any(each is embeddings for each in group["params"])]
assert rate == min(rates) and len(rates) == len(list(trained_model.parameters()))
""",
    "Another optimizer and schedule": TRAINED + """
assert type(optimizer) is torch.optim.Adafactor and "cosine" in scheduler.lr_lambdas[0].func.__name__
""",
    "Early stopping": """
assert len(history) == 3 < num_epochs and len(losses) == 3 * (len(losses) // 3)
""",
    "Gradient checkpointing": TRAINED + "assert trained_model.is_gradient_checkpointing",
    "A tracker": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

logged = {}
for file in run_dir.rglob("events.out.tfevents.*"):
    events = EventAccumulator(str(file)).Reload()
    logged |= {name.removeprefix("train/").replace("/", "_"): [event.value for event in events.Scalars(name)]
               for name in events.Tags()["scalars"]}
assert len(logged["learning_rate"]) == len(logged["loss"]) == len(losses) and logged["loss"] == pytest.approx(losses)
assert logged["eval_perplexity"] == pytest.approx([entry["perplexity"] for entry in history])
""",
    "torch.compile": """
from torch._dynamo.utils import counters

assert counters["stats"]["unique_graphs"] > 0
""",
    "Several GPUs, from inside the notebook": """
assert len(losses) == num_epochs * math.ceil(len(blocks["train"]) / (2 * batch_size))
""",
    "Hyperparameter search": """
if "search" in globals():
    assert learning_rate / 4 <= found.hyperparameters["learning_rate"] <= learning_rate * 4
    assert len(list(run_dir.glob("run-*"))) == 4 and 1 < found.objective < len(tokenizer)
else:
    assert len(found) == 4 == len(set(found.values())) and max(found) == pytest.approx(8 * min(found))
""",
    "Only in the loop: a second loss on the same texts": """
rows = torch.tensor(blocks["train"][:4]["input_ids"])
with torch.no_grad():
    halves = [[model.base_model(input_ids=half[None]).last_hidden_state[0].mean(dim=0) for half in row.chunk(2)] for row in rows]
    similarities = torch.tensor([[torch.cosine_similarity(one[0], two[1], dim=0) for two in halves] for one in halves])
    expected = -(similarities / 0.05).log_softmax(dim=1).diagonal().mean()
    assert halves_loss(model.eval(), rows).item() == pytest.approx(expected.item(), rel=1e-4)
    rows = torch.tensor(blocks["train"]["input_ids"][:])
    assert halves_loss(model, rows) < halves_loss(predict_masked_only(new_model()).eval(), rows)
""",
    "Ship it: ONNX and int8": """
exact, small = table
assert exact["largest difference of a loss"] < 1e-3 and exact["perplexity"] == pytest.approx(metrics["perplexity"], rel=1e-5)
assert small["MB"] < exact["MB"] and 0 < small["largest difference of a loss"] < 0.5
""",
    "A page to try the model in": """
from browser import answers

wanted = [each for word, score in fill_blank("Return the ___ of it.").items() for each in (word, f"{score:.0%}")]  # best first
answers(page.local_url, "Return the ___ of it.", *wanted)
page.close()
""",
}
SAME = {"Gradient checkpointing", "A tracker", "Hyperparameter search", "Continue as a classifier, in one flow",
        "Ship it: ONNX and int8", "A page to try the model in"}
APART = {"torch.compile"}  # compiled for sizes as they come, or for any: the order of sums may differ
PARAMETERS = {
    "Early stopping": {"num_epochs": 6, "learning_rate": 0.0},  # the first epoch is the best
    "New words in the vocabulary": {"dataset_id": "dair-ai/emotion"},  # whose words have up to two pieces
    "Mask more, or whole words": {"dataset_id": "dair-ai/emotion"},
}
SLOW = {"Several GPUs, from inside the notebook",
        "torch.compile", "Hyperparameter search", "Ship it: ONNX and int8", "A page to try the model in"}
