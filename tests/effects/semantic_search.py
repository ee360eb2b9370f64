"""What comes of the recipes of semantic search; see recipes.py."""

EFFECTS = {
    "Matryoshka sizes": """
cut = F.normalize(torch.tensor([[3.0, 4.0, 7.0], [4.0, 3.0, 9.0]])[:, :2], dim=-1)
rows = torch.zeros(2, 32)
rows[:, :2], sizes = torch.tensor([[3.0, 4.0], [4.0, 3.0]]), [1]  # two questions that are one and the same after the first number
rows = F.normalize(rows, dim=-1)
same = {"queries": rows, "documents": rows[:, None], "texts": torch.tensor([[1], [2]]), "right": torch.tensor([[1], [2]])}
zeros = torch.zeros(2, dtype=torch.long)
assert compute_loss(same, zeros).item() == pytest.approx((np.log(2) + whole_loss(same, zeros).item()) / 2)
assert list(by_size) == [5, 10, 32] and by_size[32] == pytest.approx(metrics["ndcg@10"]) and by_size[5] != by_size[32]
""",
    "Filter false negatives (GIST)": """
few = data_collator(train_rows[:8])
without = data_collator([{name: value for name, value in row.items() if name != "guide"} for row in train_rows[:8]])
masked = {}
for name, batch in {"with": few, "without": without}.items():
    batch.pop("labels")
    with torch.no_grad():
        cosines, columns = compute_cosines(**BiEncoder(checkpoint).eval()(**batch))
    masked[name] = cosines == -torch.inf
with torch.no_grad():
    guided = BiEncoder(checkpoint).eval()(**few)  # the guide is the pretrained encoder
cosines = guided["queries"] @ guided["documents"].flatten(0, 1).T
higher, near = cosines > cosines.gather(1, columns[:, None]), (cosines - cosines.gather(1, columns[:, None])).abs() < 1e-6
assert torch.equal((masked["with"] | near), (higher | masked["without"] | near)) and masked["with"].sum() > masked["without"].sum()
assert not masked["with"].gather(1, columns[:, None]).any()
assert all("guide" not in row for row in validation_rows)
""",
    "Large batches in little memory (GradCache)": """
class WholeBatch(BiEncoder):
    def forward(self, queries, documents, texts, right):
        vectors = [common.pool(self.encoder(**side).last_hidden_state, side["attention_mask"], pooling) for side in (queries, documents)]
        return {"queries": vectors[0], "documents": vectors[1].unflatten(0, (len(vectors[0]), -1)), "texts": texts, "right": right}


found, chunk_size = {}, 4
for kind in (BiEncoder, WholeBatch):
    set_seed(seed)
    each, held, batch = kind(checkpoint).eval(), {}, data_collator(train_rows[:16])
    labels = batch.pop("labels")
    parameters = {id(parameter) for parameter in each.parameters()}

    def hold(tensor):
        if id(tensor) not in parameters:
            held[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        loss = compute_loss(each(**batch), labels)
    kept = sum(held.values())
    loss.backward()
    found[kind] = loss.item(), kept, [parameter.grad for parameter in each.encoder.parameters() if parameter.grad is not None]
(one, little, some), (two, much, others) = found.values()
assert one == pytest.approx(two, rel=1e-6) and little < much / 5
some, others = (torch.cat([gradient.flatten() for gradient in gradients]) for gradients in (some, others))
assert len(some) == len(others) and (some - others).norm() < 1e-5 * others.norm(), ((some - others).norm(), others.norm())
""",
    "A cross-encoder re-ranker": """
for before, after in zip(rankings["fine-tuned encoder"], rankings["re-ranked"]):
    assert sorted(after) == sorted(before[:20])
assert rankings["re-ranked"] != [row[:20] for row in rankings["fine-tuned encoder"]]
with torch.no_grad():
    told = [score_pairs([(row["question"], text) for text in (row["document"], *row["negatives"])]).argmax().item() for row in ranked_rows]
assert len(ranked_rows[0]["negatives"]) == 4 and np.mean([best == 0 for best in told]) > 0.4  # by chance 0.2
""",
    "LoRA": """
from peft import PeftModel
from safetensors.torch import load_file

saved = load_file(run_dir / "adapter" / "adapter_model.safetensors")
assert saved and all("lora_" in name for name in saved) and any(value.abs().max() > 0 for name, value in saved.items() if "lora_B" in name)
adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(checkpoint), run_dir / "adapter").eval()
merged = AutoModel.from_pretrained(run_dir / "model").eval()
rows = data_collator(train_rows[:8])["documents"]
with torch.no_grad():
    one, two, three = (each(**rows).last_hidden_state for each in (adapted, merged, AutoModel.from_pretrained(checkpoint).eval()))
assert torch.allclose(one, two, atol=1e-4) and not torch.allclose(two, three, atol=1e-2)
before, now = AutoModel.from_pretrained(checkpoint).state_dict(), merged.state_dict()
changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], now[name])}
adapters = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in saved}
assert changed == adapters, changed ^ adapters
""",
    "Freeze the lower layers": """
now, before = dict(AutoModel.from_pretrained(run_dir / "model").named_parameters()), AutoModel.from_pretrained(checkpoint)
same = {name for name, parameter in before.named_parameters() if torch.equal(parameter, now[name])}
frozen = {name for name, parameter in new_model().encoder.named_parameters() if not parameter.requires_grad}
assert any("embed" in name for name in frozen) and any(".0." in name for name in frozen) and frozen < set(now) and same == frozen
""",
    "A learning rate for each layer": """
rates = {name: group["lr"] / learning_rate
         for (name, _), group in zip(model.encoder.named_parameters(), layer_groups(model)) if "weight" in name}
steps = {place: {round(np.log(rate) / np.log(0.9)) for name, rate in rates.items() if place in name} for place in ("embed", ".0.", ".1.")}
assert steps == {"embed": {2}, ".0.": {1}, ".1.": {0}}
if "trainer" in globals():
    used = trainer.optimizer.param_groups
    assert [group["initial_lr"] for group in used] == [group["lr"] for group in layer_groups(model)]
""",
    "Another optimizer and schedule": """
if "trainer" in globals():
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)) is torch.optim.Adafactor
    expected = [learning_rate * (1 + np.cos(np.pi * i / (len(rates) - 2))) / 2 for i in range(len(rates) - 2)]
    assert rates[-len(expected):] == pytest.approx(expected), (rates, expected)
""",
    "Early stopping": """
assert len(history) == 3 < num_epochs and len(losses) == 3 * (len(losses) // 3)
""",
    "Gradient checkpointing": """
each, runs = new_model().train(), []
assert each.encoder.is_gradient_checkpointing
next(module for module in each.encoder.modules() if isinstance(module, torch.nn.Linear)).register_forward_hook(lambda *_: runs.append(1))
batch = data_collator(train_rows[:2])
labels = batch.pop("labels")
loss = compute_loss(each(**batch), labels)
forward = len(runs)
loss.backward()
assert forward == 2 and len(runs) == 4
""",
    "A tracker": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

logged = {}
for file in run_dir.rglob("events.out.tfevents.*"):
    events = EventAccumulator(str(file)).Reload()
    logged |= {name.removeprefix("train/"): [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
assert len(logged["learning_rate"]) == len(logged["loss"]) == len(losses) and logged["loss"] == pytest.approx(losses)
scores = logged.get("eval_mrr@10", logged.get("eval/mrr@10"))
assert scores == pytest.approx([entry["mrr@10"] for entry in history])
""",
    "torch.compile": """
from torch._dynamo.utils import counters

assert counters["stats"]["unique_graphs"] > 0
""",
    "Several GPUs, from inside the notebook": """
assert len(losses) == num_epochs * (len(train_rows) // (2 * batch_size))  # an incomplete last batch is dropped
""",
    "Hyperparameter search": """
if "search_trainer" in globals():
    assert 2e-5 <= best_trial.hyperparameters["learning_rate"] <= 5e-4 and 0 < best_trial.objective <= 1
    assert len(list(run_dir.glob("run-*"))) == 4
else:
    assert len(tried) == 4 and len(set(tried.values())) > 1
""",
    "Average the weights, in the loop": """
from safetensors.torch import load_file

(newest,) = run_dir.glob("checkpoint-*")
trained = load_file(newest / "model.safetensors")
state = torch.load(newest / "custom_checkpoint_0.pkl", weights_only=True)
averaged = {name.removeprefix("module."): value for name, value in state.items() if name.startswith("module.")}
saved = load_file(run_dir / "model" / "model.safetensors")
assert int(state["n_averaged"]) == len(losses) and set(trained) == set(averaged)
assert max(range(len(history)), key=lambda i: history[i]["mrr@10"]) == len(history) - 1, "the last epoch is the best"
assert all(torch.equal(saved[name.removeprefix("encoder.")], value) for name, value in averaged.items())
assert any(not torch.equal(trained[name], value) for name, value in averaged.items())
""",
    "Ship it: ONNX and int8": """
exact, small = table
assert exact["lowest cosine with the tested vector"] > 0.99999 and exact["ndcg@10"] == pytest.approx(metrics["ndcg@10"])
assert small["MB"] < exact["MB"] and 0.9 < small["lowest cosine with the tested vector"] < 0.999999
""",
    "A page to try the model in": """
from browser import answers

answers(page.local_url, queries[0], *(hit["name"] for hit in search(queries[0], k=10)))
page.close()
""",
}
SAME = {
    "A cross-encoder re-ranker", "Gradient checkpointing", "A tracker", "Hyperparameter search",
    "Average the weights, in the loop",
        "Ship it: ONNX and int8", "A page to try the model in"}
APART = {"torch.compile"}  # compiled for sizes as they come, or for any: the order of sums may differ
PARAMETERS = {
    "Early stopping": {"num_epochs": 6, "learning_rate": 0.0},  # the first epoch is the best
    "Large batches in little memory (GradCache)": {"batch_size": 24},  # two chunks of questions, and three of texts
}
SLOW = {"Several GPUs, from inside the notebook",
        "torch.compile", "Hyperparameter search", "Ship it: ONNX and int8", "A page to try the model in"}
