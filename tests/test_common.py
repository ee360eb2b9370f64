"""What the common.py of all folders have in common: the same helpers, written once and copied, that do what they say."""

import ast
import json
import re
from collections import defaultdict

import notebooks
import pytest
from oracles import code

FOLDERS = notebooks.folders()
# the same name for what each folder needs in its own way
OWN = {"load_splits", "tokenize"}


@pytest.fixture(params=FOLDERS)
def common(request):
    return notebooks.common_of(request.param)


def test_a_helper_is_the_same_in_every_folder_that_has_it():
    sources = defaultdict(set)
    for folder in FOLDERS:
        text = (notebooks.ROOT / folder / "common.py").read_text()
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name not in OWN:
                sources[node.name].add(ast.get_source_segment(text, node))
    assert "start_run" in sources
    assert [name for name, versions in sources.items() if len(versions) > 1] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_can_be_taken_alone(folder):
    tree = ast.parse((notebooks.ROOT / folder / "common.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {name for name in imported if name.split(".")[0] in {*FOLDERS, "tests", "notebooks", "common"}}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_helper_has_types_and_a_docstring(folder):
    for node in ast.parse((notebooks.ROOT / folder / "common.py").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            assert ast.get_docstring(node), node.name
            assert node.returns is not None, node.name


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_helper_earns_its_place(folder):
    """Both notebooks call it, or another helper does."""
    text = (notebooks.ROOT / folder / "common.py").read_text()
    names = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    assert len(text.splitlines()) < 220
    for notebook in notebooks.PAIR:
        used = "\n".join(source for source, _ in code(folder, notebook))
        for name in names:
            assert f"common.{name}" in used or len(re.findall(rf"\b{name}\b", text)) > 1, f"{name} is not used by {notebook}"


def test_runs_are_numbered_and_never_reused(common, tmp_path):
    first, nothing = common.start_run(tmp_path, resume=False)
    second, _ = common.start_run(tmp_path, resume=False)
    assert (first.name, second.name, nothing) == ("run-001", "run-002", None)
    (tmp_path / "run-002-the-good-one").mkdir()
    (tmp_path / "run-1000").mkdir()
    assert common.start_run(tmp_path, resume=False)[0].name == "run-1001"


def test_resume_takes_the_newest_complete_checkpoint_of_the_newest_run(common, tmp_path):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        common.start_run(tmp_path, resume=True)
    run, _ = common.start_run(tmp_path, resume=False)
    for step, text in [(90, json.dumps({"losses": [1.0]})), (100, json.dumps({"losses": [1.0]})), (110, '{"losses": [1.0'), (120, None)]:
        (run / f"checkpoint-{step}").mkdir()
        if text is not None:
            (run / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    assert common.start_run(tmp_path, resume=True) == (run, run / "checkpoint-100")
    common.start_run(tmp_path, resume=False)
    with pytest.raises(ValueError, match="no complete checkpoint in .*run-002"):
        common.start_run(tmp_path, resume=True)


def test_curves_have_one_point_per_step_and_per_epoch(common, monkeypatch):
    if not hasattr(common, "plot_curves"):
        pytest.skip("perplexity has pictures and tests of its own")
    monkeypatch.setattr(common.plt, "show", lambda: None)
    common.plot_curves([3.0, 2.0, 1.0], [{"epoch": 1, "loss": 2.0, "accuracy": 0.5, "f1": 0.4}])
    left, middle, right = common.plt.gcf().axes
    assert left.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert middle.lines[0].get_ydata().tolist() == [2.0]
    assert [line.get_label() for line in right.lines] == ["accuracy", "f1"]


