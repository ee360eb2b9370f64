"""The recipes of the READMEs, put into both notebooks from their text: they run, the pair agrees, and each does what it says.

The notebooks run on stand-ins up to *Common mistakes*, so that what a recipe saves is also read back and used.
"""

import json

import nbformat
import notebooks
import pytest
from conftest import once
from parameters import LEARNABLE
from recipes import recipes
from scripts import job

# Code that ends both notebooks, and shows that a recipe has had its effect; by title, for all folders or for one
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
    "Hyperparameter search": """
if "search" in globals():
    assert 5e-5 <= found.hyperparameters["learning_rate"] <= 5e-4 and search.optimizer.param_groups[0]["lr"] < 5e-4
    assert len(list(run_dir.glob("run-*"))) == 4 and 0 < found.objective < 1
else:
    assert len(found) == 4 and len(set(found.values())) > 1
""",
}
# recipes that don't change what is learned: the losses are those without
SAME = {"Gradient checkpointing", "A tracker", "Hyperparameter search", "Few labels, without fine-tuning"}
# with a learning rate of 0 the first epoch is the best
PARAMETERS = {"Early stopping": {"num_epochs": 6, "learning_rate": 0.0, "head_learning_rate": 0.0}}
FOLDERS = [folder for folder in notebooks.folders() if recipes(folder)]
TESTED = [(folder, title) for folder in FOLDERS for title, changes in recipes(folder).items() if changes and title != "torch.compile"]


def run(scripts, folder, target, changes=(), effect="", parameters=None):
    """Run both notebooks of a folder with a recipe's changes, up to `Common mistakes`; return what each left in its last cell."""
    notebooks.copy_folder(folder, target)
    jobs = []
    for name in notebooks.PAIR:
        document = notebooks.prepared(
            notebooks.ROOT / folder / f"{name}.ipynb", LEARNABLE[folder] | {"num_epochs": 2} | (parameters or {}), f"{name}.json")
        end = next(i for i, cell in enumerate(document.cells) if cell.source.startswith("## Common mistakes"))
        document.cells = [*document.cells[:end], nbformat.v4.new_code_cell(f"import pytest\n{effect}"), document.cells[-1]]
        for change in changes:
            if name in change.names:
                change.make(document.cells)
        source = "\n\n".join(notebooks.python(cell.source) for cell in document.cells if cell.cell_type == "code")
        (target / f"{name}.py").write_text(source)
        jobs.append(job(target, f"{name}.py", log=f"{name}.log"))
    statuses = scripts.run(*jobs)
    logs = [(target / f"{name}.log").read_text()[-3000:] for name in notebooks.PAIR]
    assert statuses == [0, 0], "\n\n".join(logs)
    return [json.loads((target / f"{name}.json").read_text()) for name in notebooks.PAIR]


@pytest.mark.parametrize("folder, title", TESTED)
def test_a_recipe_does_what_it_says_in_both_notebooks(scripts, tmp_path, folder, title):
    parameters = PARAMETERS.get(title, {})
    effect = EFFECTS[folder, title] if (folder, title) in EFFECTS else EFFECTS[title]
    trainer, loop = run(scripts, folder, tmp_path / folder, recipes(folder)[title], effect, parameters)
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0
    assert trainer["metrics"] == pytest.approx(loop["metrics"])
    if not parameters:
        without = once(f"without-{folder}", lambda target: run(scripts, folder, target))
        before = json.loads((without / "accelerate_loop.json").read_text())["losses"]
        assert (loop["losses"] == before) == (title in SAME)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_change_names_lines_of_the_notebooks(folder):
    for title, changes in recipes(folder).items():
        for name in notebooks.PAIR:
            cells = nbformat.read(notebooks.ROOT / folder / f"{name}.ipynb", as_version=4).cells
            made = [change for change in changes if name in change.names]
            assert made or not changes, f"{title} leaves {name} as it is"
            for change in made:
                change.make(cells)
