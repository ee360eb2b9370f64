"""The runner behind make run, refresh and home."""

import json
import math
import re
import shutil

import nbformat
import notebooks
import pytest
from growth import loop_script
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TAGGED = {"tags": ["parameters"]}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small repository with one folder; its two notebooks are given as lists of code cells."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "RUNS", tmp_path / "runs")
    (tmp_path / ".github").mkdir()

    def make(trainer, loop, folder="task"):
        (tmp_path / folder).mkdir()
        for name, cells in zip(notebooks.PAIR, (trainer, loop)):
            document = new_notebook(cells=[new_code_cell("x = 1", metadata=TAGGED), *map(new_code_cell, cells)])
            nbformat.write(document, tmp_path / folder / f"{name}.ipynb")
        return tmp_path

    return make


GOOD = "losses, metrics, history, baseline_scores, test_labels = [2.0, 1.0], {'f1': 0.5}, [], {'majority': {'f1': 0.1}}, [0]"


def test_a_failing_notebook_is_named_and_the_others_still_run(repository, capfd):
    root = repository(["y = 1", "1 / 0"], [GOOD])
    assert notebooks.run() == 1
    printed = capfd.readouterr().out
    assert "task/trainer_api failed: cell [3] ZeroDivisionError: division by zero" in printed
    assert "task/accelerate_loop" in printed and "f1 0.50" in printed
    assert sorted(p.name for p in (root / "runs" / "task").glob("*.ipynb")) == ["accelerate_loop.ipynb", "trainer_api.ipynb"]


def test_the_table_has_losses_metrics_and_the_difference_of_the_pair(repository, capfd):
    root = repository([GOOD], [GOOD.replace("1.0]", "1.25]")])
    assert notebooks.run("task") == 0
    printed = capfd.readouterr().out
    assert "2.0000      1.0000" in printed and "2.0000      1.2500" in printed
    assert "largest loss difference of the pair" in printed and "0.25" in printed
    executed = nbformat.read(root / "runs" / "task" / "trainer_api.ipynb", as_version=4)
    assert executed.cells[-1].source == GOOD, "the cell that writes the results is not in the copy"


def test_an_unknown_folder_is_refused(repository):
    repository([GOOD], [GOOD])
    with pytest.raises(SystemExit, match="no folder nothing with notebooks: there is task"):
        notebooks.run("nothing")


def test_refresh_replaces_the_notebooks_and_run_does_not(repository):
    root = repository([GOOD, "print(x + 1)"], [GOOD])
    path = root / "task" / "trainer_api.ipynb"
    before = path.read_text()
    notebooks.run()
    assert path.read_text() == before
    notebooks.run(refresh=True)
    assert nbformat.read(path, as_version=4).cells[-1].outputs[0].text == "2\n"


def test_clean_drops_progress_bars_and_keeps_what_must_be_seen():
    bar = new_output("stream", name="stderr", text="Map:   0%|          | 0/720 [00:00<?, ?it/s]\rMap: 100%|####| 720/720 [00:01]\n")
    widget = new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0%"})
    warning = new_output("stream", name="stderr", text="UserWarning: look here\n")
    result = new_output("execute_result", data={"text/plain": "42"}, execution_count=1)
    cell = new_code_cell("x", outputs=[bar, widget, warning, result], metadata={"papermill": {"duration": 1}, "tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3"}
    document = new_notebook(cells=[cell], metadata={"widgets": {}, "papermill": {}, "kernelspec": kernel})
    cleaned = notebooks.clean(document)
    assert cleaned.cells[0].outputs == [warning, result]
    assert cleaned.cells[0].metadata == {"tags": ["parameters"]}
    assert "widgets" not in cleaned.metadata and "papermill" not in cleaned.metadata


def test_results_fill_the_readme(repository, monkeypatch):
    root = repository([GOOD], [GOOD])
    monkeypatch.setattr(notebooks, "HEADLINES", {"task": ("F1", "f1", "majority")})
    notebooks.run()
    (root / "README.md").write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    executed = root / "runs" / "task" / "accelerate_loop.ipynb"
    document = nbformat.read(executed, as_version=4)
    document.cells.append(new_code_cell("compare", outputs=[new_output(
        "stream", name="stdout", text="F1: difference +0.400, 95% interval +0.310 to +0.480: a gain\n")]))
    nbformat.write(document, executed)
    other = root / "runs" / "seeds" / "task" / "43"
    other.mkdir(parents=True)
    outcome = json.loads((root / "runs" / "task" / "accelerate_loop.json").read_text())
    (other / "accelerate_loop.json").write_text(json.dumps(outcome | {"metrics": {"f1": 0.7}}))
    notebooks.results()
    readme = (root / "README.md").read_text()
    assert "| [task](task/) | F1 | 0.10 (majority) | 0.50 | +0.400 (+0.310 to +0.480) | 0.60 ± 0.14 (2) | 0.0 over 2 steps |" in readme
    assert readme.startswith("before\n") and readme.endswith("\nafter\n") and "old" not in readme
    assert (root / ".github" / "pair.png").stat().st_size > 5000


def test_home_rewrites_the_address_everywhere(tmp_path, monkeypatch):
    (tmp_path / "sequence_classification").mkdir()
    for name in ("README.md", *(f"sequence_classification/{name}.ipynb" for name in notebooks.PAIR)):
        shutil.copy(notebooks.ROOT / name, tmp_path / name)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    old = notebooks.address()
    notebooks.home("someone/nlp-tasks")
    assert notebooks.address() == "someone/nlp-tasks"
    for path in [tmp_path / "README.md", *notebooks.notebooks()]:
        text = path.read_text()
        assert old not in text and "main-nlp-tasks" not in text and "someone/nlp-tasks" in text
        if path.suffix == ".ipynb":
            json.loads(text)
    with pytest.raises(SystemExit, match="owner/name"):
        notebooks.home("https://github.com/someone/nlp-tasks")


@pytest.mark.parametrize(
    "one, two, difference",
    [
        ([2.0, 1.0], [2.0, 1.0], 0.0), ([2.0, 1.0], [2.5, 0.0], 1.0), ([], [], 0.0),
        ([2.0], [2.0, 1.0], math.inf), ([0.0, 1.0], [math.nan, 1.0], math.inf), ([1.0, math.nan], [1.0, math.nan], math.inf),
        ([math.inf], [math.inf], math.inf),
    ],
)
def test_a_loss_that_is_not_a_number_is_a_difference(one, two, difference):
    assert notebooks.largest_difference(one, two) == notebooks.largest_difference(two, one) == difference


def test_a_run_tells_notebook_cell_section_and_time(repository, capfd):
    root = repository(["y = 1", GOOD], [GOOD])
    path = root / "task" / "trainer_api.ipynb"
    document = nbformat.read(path, as_version=4)
    document.cells.insert(1, new_markdown_cell("## Training\n\nHere."))
    nbformat.write(document, path)
    assert notebooks.run("task") == 0
    assert re.search(r"^task/trainer_api  0:\d\d  cell 2 of 3, Training$", capfd.readouterr().out, flags=re.M)
    outcome = json.loads((root / "runs" / "task" / "trainer_api.json").read_text())
    assert outcome["sections"].keys() == {"", "Training"}
    assert sum(outcome["sections"].values()) == pytest.approx(outcome["minutes"], abs=0.01)


@pytest.mark.parametrize("folder", notebooks.folders())
def test_growth_is_measured_up_to_the_end_of_the_training(folder, tmp_path):
    source = (loop_script(folder, tmp_path / folder, {"seed": 7}) / "run.py").read_text()
    compile(source, "run.py", "exec")
    assert "seed = 7" in source and "common.compare(" not in source, "nothing of the evaluation"
    trains = re.search(r"= train\(\s*(predict_masked_only\()?new_model\(\)", source)
    assert bool(trains) == (folder != "semantic_search")
