"""What the common.py of all folders have in common: the same helpers, written once and copied, that do what they say."""

import ast
import json
from collections import defaultdict

import notebooks
import pytest
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

FOLDERS = notebooks.folders()
# the same name for what each folder needs in its own way
OWN = {"load_splits", "check_columns", "load_tokenizer", "tokenize"}


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
            assert node.returns is not None or node.name == "load_tokenizer", node.name


def test_a_tokenizer_without_a_pad_token_is_refused(common, hub, tmp_path):
    if common.TASK == "text-generation":
        pytest.skip("decoders seldom have one, and their notebooks pad with the end of the text")
    tokenizer = AutoTokenizer.from_pretrained("distilbert/distilbert-base-uncased")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no pad token: set one"):
        common.load_tokenizer(str(tmp_path))


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


def test_the_confusion_matrix_has_true_labels_in_rows(common, monkeypatch):
    if not hasattr(common, "plot_confusion"):
        pytest.skip("this task has no classes to confuse")
    monkeypatch.setattr(common.plt, "show", lambda: None)
    common.plot_confusion(references=[0, 0, 0, 1], predictions=[1, 1, 0, 1], names=["a", "b"])
    ax = common.plt.gcf().axes[0]
    assert ax.images[0].get_array().tolist() == [[1 / 3, 2 / 3], [0, 1]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_a_card_says_what_the_hub_knows_and_leaves_out_what_only_this_disk_has(common, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "texts").mkdir(parents=True)
    scores = {"f1": 0.51234, "accuracy": 0.6}
    known = common.model_card("you/model", "owner/encoder", ["owner/texts", "my/texts"], scores)
    assert (known.data.base_model, known.data.datasets, known.data.pipeline_tag) == ("owner/encoder", ["owner/texts"], common.TASK)
    assert {result.metric_type: result.metric_value for result in known.data.eval_results} == scores
    assert "| f1 | 0.512 |" in known.content and '"you/model"' in known.content
    local = common.model_card("you/model", "scratch", ["my/texts"], scores)
    assert local.data.base_model is None and local.data.datasets is None
    assert "started from: scratch" in local.content and "data: my/texts" in local.content
    local.save(tmp_path / "README.md")
    assert ModelCard.load(tmp_path / "README.md").data.eval_results == local.data.eval_results
