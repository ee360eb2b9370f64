"""Both notebooks of a folder are one experiment: on stand-ins, with one and with two batches to an optimizer step.

With one batch the notebooks run under nbval, cell by cell, and this module reads what they gave; with two they run as scripts.
A new folder is covered as soon as it has its notebooks and its entries in parameters.py.
"""

import json
import re
from statistics import mean

import nbformat
import notebooks
import pytest
import torch
from checkpoints import newest, stages, tensors
from parameters import BEST_BY, LEARNABLE
from safetensors.torch import load_file
from scripts import export, job

FOLDERS = notebooks.folders()
DIFFERENT = {"Training", "Common mistakes"}  # the sections in which cells of a pair differ; see test_committed.py


@pytest.fixture(params=[(folder, accumulation) for folder in FOLDERS for accumulation in (1, 2)], ids="{0[0]}-{0[1]}".format)
def pair(request):
    """(folder, where both notebooks ran, what each gave)."""
    folder, accumulation = request.param
    target = request.getfixturevalue("small_run" if accumulation == 1 else "recorded_run")(folder)
    return folder, target, results(target)


def results(target):
    for name in notebooks.PAIR:
        assert (target / f"{name}.json").exists(), f"{name}.ipynb did not run to its end"
    return [json.loads((target / f"{name}.json").read_text()) for name in notebooks.PAIR]


def test_both_notebooks_give_the_same_losses_and_metrics_to_the_last_bit(pair):
    _, _, (trainer, loop) = pair
    assert len(trainer["losses"]) > 10
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0
    assert trainer["metrics"] == loop["metrics"]


def test_both_notebooks_validate_alike(pair):
    _, _, (trainer, loop) = pair
    assert len(trainer["history"]) == len(loop["history"]) > 0
    for one, two in zip(trainer["history"], loop["history"]):
        # the loss is summed over other batches in another order, so that its last bits are free
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert {**one, "loss": None} == {**two, "loss": None}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pair_learns(recorded_run, folder):
    """A pair that does not learn would prove little."""
    target = recorded_run(folder)
    _, loop = results(target)
    _, epochs, steps = stages(folder, target / "outputs" / "accelerate_loop" / "run-001")[0]
    per_epoch = steps // epochs
    assert mean(loop["losses"][steps - per_epoch : steps]) < 0.8 * mean(loop["losses"][:per_epoch])
    assert len(loop["history"]) == sum(value for key, value in LEARNABLE[folder].items() if key.endswith("epochs"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_best_checkpoint_is_kept_and_not_the_last(recorded_run, folder):
    """Both notebooks settle on the same weights, those of the best epoch; and at least once that is not the last one."""
    target = recorded_run(folder)
    _, loop = results(target)
    runs = [target / "outputs" / name / "run-001" for name in notebooks.PAIR]
    one, two = (load_file(run / "model" / "model.safetensors") for run in runs)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    name, lower = BEST_BY[folder].removeprefix("-"), BEST_BY[folder].startswith("-")
    history, earlier = loop["history"], []
    for stage, epochs, _ in stages(folder, runs[1]):
        if stage.name == "2-only-new":  # is for comparison, and in no history
            continue
        scores = [-epoch[name] if lower else epoch[name] for epoch in history[:epochs]]
        history = history[epochs:]
        kept, last = (tensors(path) for path in (stage / "model", newest(stage)))
        is_last = all(torch.equal(last[key], kept[key]) for key in kept)
        assert is_last == (max(scores) not in scores[:-1]), "the model is that of the best epoch, the first of equals"
        earlier.append(not is_last)
    assert any(earlier), "choose parameters for the stand-ins with which an epoch before the last is the best"


@pytest.mark.parametrize("folder", FOLDERS)
def test_cells_that_both_notebooks_have_show_the_same(small_run, folder):
    """Under nbval, on one machine: outside of training what a cell shows may differ in times alone."""
    target = small_run(folder)
    if not (target / f"{notebooks.PAIR[0]}.shown").exists():
        pytest.skip("the notebooks did not run under nbval, which `make test` does")
    both = []
    for name in notebooks.PAIR:
        shown = json.loads((target / f"{name}.shown").read_text())
        cells = nbformat.read(target / f"{name}.ipynb", as_version=4).cells
        headings, code = [], []
        for cell in cells:
            headings += re.findall(r"^## (.+)", cell.source, flags=re.M) if cell.cell_type == "markdown" else []
            if cell.cell_type == "code":
                code.append((headings[-1], cell.source))
        assert len(code) == len(shown)
        both.append([(source, texts(outputs)) for (heading, source), outputs in zip(code, shown) if heading not in DIFFERENT])
    assert len(both[0]) == len(both[1]) > 12
    compared = [
        (source, one, two) for (source, one), (same, two) in zip(*both) if source == same and not re.search(TIMED, source)
    ]
    assert len(compared) > 12
    assert [source for source, one, two in compared if one != two] == []


# cells that measure time, or that train, which a Trainer tells in a table of its own
TIMED = r"\btrain\(|perf_counter|seconds|milliseconds|measure\(|timeit"


def texts(outputs):
    """What outputs say; not the pictures, and not the bars."""
    said = []
    for output in outputs or []:
        data = output.get("data", {})
        if output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in data:
            said.append([output.get("text"), *(data.get(kind) for kind in ("text/plain", "text/html"))])
    # a model or a figure is told with its address in memory
    return re.sub(r"0x[0-9a-f]+", "", json.dumps(said))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pair_agrees_in_mixed_precision_too(scripts, recorded_run, tmp_path, folder):
    parameters = LEARNABLE[folder] | {name: 2 for name in LEARNABLE[folder] if name.endswith("epochs")} | {"mixed_precision": "bf16"}
    target = tmp_path / folder
    statuses = scripts.run(*(job(target, export(folder, name, target, parameters), log=f"{name}.log") for name in notebooks.PAIR))
    assert statuses == [0, 0], "\n\n".join((target / f"{name}.log").read_text()[-3000:] for name in notebooks.PAIR)
    trainer, loop = results(target)
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0
    assert loop["metrics"] == pytest.approx(trainer["metrics"])
    assert loop["losses"][0] != results(recorded_run(folder))[1]["losses"][0]
