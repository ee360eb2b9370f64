"""What comes of the recipes of causal language modeling; see recipes.py."""

EFFECTS = {
    "Train on the whole conversation": """
assert all(row["labels"] == row["input_ids"] for row in chat_rows["train"])
assert all(-100 in row["labels"] for split in ("validation", "test") for row in chat_rows[split])
""",
    "Train on the last answer only": """
two = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d e"))]
row = common.encode_chat(two, tokenizer)
count = row["labels"].count(end_of_turn)
left = [label for label in last_answer(row)["labels"] if label != -100]
assert count == 2 and tokenizer.decode(left).split() == ["d", "e<|im_end|>"] and len(last_answer(row)["labels"]) == len(row["labels"])
assert chat_rows["train"]["labels"] == chats["train"]["labels"]  # with one answer, all stays
""",
    "A longer context": """
reads = AutoConfig.from_pretrained(checkpoint).max_position_embeddings
assert common.readable_length(4 * reads, tokenizer, config) == 4 * reads == 2048
loaded = AutoModelForCausalLM.from_pretrained(run_dir / "model")
assert loaded.config.max_position_embeddings == 2048 and loaded.config.rope_parameters["rope_type"] == "yarn"
old, new = AutoModelForCausalLM.from_pretrained(checkpoint).model.rotary_emb.inv_freq, loaded.model.rotary_emb.inv_freq
assert old[0] == new[0] and torch.allclose(old[-1] / 4, new[-1])  # the fastest angle stays, the slowest is stretched
assert loaded(input_ids=torch.randint(len(tokenizer), (1, 600))).logits.isfinite().all()
""",
    "Preference tuning (DPO)": """
assert pairs and all(pair["chosen"] != pair["rejected"] for pair in pairs)
assert len(pairs) > 5 and len(judged) == len(rows) == 4 * len(chats["train"]) and not decoding["do_sample"]
assert min(scores) < max(scores) and judged["answer"].nunique() > len(judged) / 4
assert preference_losses[0] == pytest.approx(math.log(2), abs=1e-5)  # the model starts as its own reference
assert len(preference_losses) == math.ceil(len(pairs) / batch_size)
reference = trainer.ref_model if "trainer_api" in str(run_dir) else AutoModelForCausalLM.from_pretrained(run_dir / "3-instructions/model")


def margin(model):  # how much likelier the preferred answers are than the others, in nats
    total = 0.0
    for pair in pairs:
        for sign, name in ((1, "chosen"), (-1, "rejected")):
            ids = torch.tensor([tokenizer.apply_chat_template([*pair["prompt"], *pair[name]])["input_ids"]])
            total -= sign * token_losses(model.eval()(input_ids=ids).logits, ids).sum().item()
    return total


assert margin(chat_model) > margin(reference) + 0.01, (margin(chat_model), margin(reference))
written = Path(f"preferences-{run_dir.parent.name}.txt")  # the notebook that comes last compares its losses with those of the other
written.with_suffix(".new").write_text(" ".join(map(repr, preference_losses)))
written.with_suffix(".new").rename(written)
for found in Path().glob("preferences-*.txt"):
    assert [float(loss) for loss in found.read_text().split()] == pytest.approx(preference_losses, abs=1e-5)
""",
    "LoRA": """
from safetensors.torch import load_file

for stage, base, merged in (("2-new-domain", pretrained, adapted), ("3-instructions", adapted, chat_model)):
    saved = load_file(run_dir / stage / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name or "token" in name for name in saved)
    apart = PeftModel.from_pretrained(copy.deepcopy(base), run_dir / stage / "adapter").eval()
    with torch.no_grad():
        one, two = (each.eval()(batch["input_ids"].cpu()).logits for each in (apart, merged))
    assert torch.allclose(one, two, atol=1e-4), (one - two).abs().max()
    assert not torch.allclose(two, base(batch["input_ids"]).logits, atol=1e-2)
    old, new = base.get_input_embeddings().weight, merged.get_input_embeddings().weight
    changed = set((old != new).any(dim=1).nonzero().flatten().tolist())
    turns = set(tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    assert changed == (turns if stage == "3-instructions" else changed & turns)
    before, after = base.state_dict(), merged.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if "norm" in name)
""",
    "Freeze the lower layers": """
for before, after in ((pretrained, adapted), (adapted, chat_model)):
    now = dict(after.named_parameters())
    same = {name for name, parameter in before.named_parameters() if torch.equal(parameter, now[name])}
    assert same == {name for name in now if ".layers.0." in name} and len(same) < len(now) / 2 < len(now)
initial = new_model().state_dict()
assert not any(torch.equal(parameter, initial[name]) for name, parameter in pretrained.named_parameters())
""",
    "A learning rate for each layer": """
for stage, rates in (("1-pretraining", {1.0}), ("3-instructions", {1.0, 0.9})):
    groups = layer_groups(chat_model, 1.0, stage)
    assert {group["lr"] for group in groups} == rates and len(groups) == len(list(chat_model.parameters()))
found = {name: group["lr"] for (name, _), group in zip(chat_model.named_parameters(), groups)}
assert found["model.layers.0.mlp.up_proj.weight"] == 0.9 and found["model.layers.1.mlp.up_proj.weight"] == found["model.norm.weight"] == 1
""",
    "Another optimizer and schedule": """
if "trainer_api" in str(run_dir):
    state = torch.load(next((run_dir / "3-instructions").glob("checkpoint-*")) / "optimizer.pt")["state"]
else:
    state = torch.load(next((run_dir / "3-instructions").glob("checkpoint-*")) / "optimizer.bin")["state"]
assert any("row_var" in entry for entry in state.values()) and not any("exp_avg" in entry for entry in state.values())
""",
    "Early stopping": """
assert [len(entries) for entries in (pretraining_history, domain_history, instruction_history)] == [3, 3, 3] and num_epochs > 3
assert len(pretraining_losses) % 3 == 0
""",
    "Gradient checkpointing": """
calls, checkpoint_of = [], transformers.modeling_utils.checkpoint
transformers.modeling_utils.checkpoint = lambda *args, **kwargs: calls.append(1) or checkpoint_of(*args, **kwargs)
torch.utils.checkpoint.checkpoint = transformers.modeling_utils.checkpoint
train(adapted, chat_rows["train"].select(range(4)), chat_rows["validation"], "4-probe", 1, learning_rate)
assert len(calls) == adapted.config.num_hidden_layers  # in the one step, and not in the validation
""",
    "A tracker": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

for stage, stage_losses in kept.items():
    logged = {}
    for file in (run_dir / stage).rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        logged |= {n.removeprefix("train/"): [event.value for event in events.Scalars(n)] for n in events.Tags()["scalars"]}
    assert len(logged["learning_rate"]) == len(stage_losses) > 0 and logged["loss"] == pytest.approx(stage_losses)
""",
    "torch.compile": """
from torch._dynamo.utils import counters

assert counters["stats"]["unique_graphs"] > 0
""",
    "Several GPUs, from inside the notebook": """
assert [len(kept[stage]) for stage in kept] == [math.ceil(len(rows) / (2 * batch_size)) * epochs for rows, epochs in (
    (woods_blocks["train"], num_epochs), (mixed_blocks, domain_epochs), (chat_rows["train"], instruction_epochs))]
""",
    "Hyperparameter search": """
assert len({trial.params["rate"] for trial in search.trials}) == len({trial.value for trial in search.trials}) == 4
assert learning_rate / 10 <= search.best_params["rate"] <= learning_rate and search.best_value == min(t.value for t in search.trials)
assert all((run_dir / f"search-{i}").is_dir() for i in range(4))
""",
    "Only in the loop: replay while the model forgets": """
forgot = perplexities(chat_model, validation_rows)["second world"] / perplexities(adapted, validation_rows)["second world"]
assert forgot < 1.3, forgot
""",
    "Ship it: ONNX and int8": """
exact, small = table
assert exact["largest difference of a logit"] < 1e-4
assert exact["perplexity"] == pytest.approx(perplexity(chat_model, test_rows["first world"][:100]), rel=1e-5)
assert small["MB"] < exact["MB"] and 0 < small["largest difference of a logit"] < 0.5
room = max_length - len(tokenizer.apply_chat_template(known, add_generation_prompt=True)["input_ids"])
(told,) = storyteller(known, max_new_tokens=max(1, min(answer_length, room)), do_sample=False)
assert exact["answer"] == told["generated_text"][-1]["content"]
""",
    "A page to try the model in": """
from browser import answers

answers(page.local_url, "Tell a story.", reply("Tell a story.").strip())
page.close()
""",
}
SAME = {"Train on the last answer only", "Gradient checkpointing", "A tracker", "Hyperparameter search",
        "Preference tuning (DPO)",
        "Ship it: ONNX and int8", "A page to try the model in"}  # which comes after the losses of the three stages
# compiled code and TRL sum in another order; the effect of DPO compares the losses of the preference tuning
APART = {"torch.compile", "Preference tuning (DPO)"}
PARAMETERS = {"Preference tuning (DPO)": {"instruction_epochs": 12, "learning_rate": 1e-2},  # until answers have words of the right ones
              "Early stopping": {"num_epochs": 6, "domain_epochs": 6, "instruction_epochs": 6, "learning_rate": 0.0}}
SLOW = {"Several GPUs, from inside the notebook",
        "torch.compile", "Ship it: ONNX and int8", "A page to try the model in", "Hyperparameter search", "Early stopping",
        "A longer context",
        "A learning rate for each layer", "Train on the whole conversation", "Gradient checkpointing", "A tracker",
        "Another optimizer and schedule", "LoRA", "Freeze the lower layers"}
