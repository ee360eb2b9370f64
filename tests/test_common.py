"""What the common.py of all folders have in common: the same helpers, written once and copied, that do what they say."""

import ast
import inspect
import json
import os
import re
from types import SimpleNamespace

import notebooks
import numpy as np
import pytest
from accelerate import PartialState
from oracles import code
from scipy.stats import bootstrap
from transformers import BertConfig, RobertaConfig, T5Config

FOLDERS = notebooks.folders()
NUMBERS = {"num_epochs": 3, "learning_rate": 2e-4, "seed": 42}


@pytest.fixture(params=FOLDERS)
def common(request):
    return notebooks.common_of(request.param)


@pytest.mark.parametrize("name", ["helpers.py", "loading.py"])
def test_what_is_the_same_in_every_folder_is_one_module(name):
    assert len({(notebooks.ROOT / folder / name).read_text() for folder in FOLDERS}) == 1


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
    first, nothing = common.start_run(tmp_path, False, NUMBERS)
    second, _ = common.start_run(tmp_path, False, NUMBERS)
    assert (first.name, second.name, nothing) == ("run-001", "run-002", None)
    (tmp_path / "run-002-the-good-one").mkdir()
    (tmp_path / "run-1000").mkdir()
    assert common.start_run(tmp_path, False, NUMBERS)[0].name == "run-1001"


def test_resume_takes_the_newest_complete_checkpoint_of_the_newest_run(common, tmp_path):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        common.start_run(tmp_path, True, NUMBERS)
    run, _ = common.start_run(tmp_path, False, NUMBERS)
    for step, text in [(90, json.dumps({"losses": [1.0]})), (100, json.dumps({"losses": [1.0]})), (110, '{"losses": [1.0'), (120, None)]:
        (run / f"checkpoint-{step}").mkdir()
        if text is not None:
            (run / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    assert common.start_run(tmp_path, True, NUMBERS) == (run, run / "checkpoint-100")
    common.start_run(tmp_path, False, NUMBERS)
    with pytest.raises(ValueError, match="no complete checkpoint in .*run-002"):
        common.start_run(tmp_path, True, NUMBERS)


def test_a_run_is_resumed_with_the_numbers_it_was_started_with_alone(common, tmp_path):
    run, _ = common.start_run(tmp_path, False, NUMBERS)
    (run / "checkpoint-1").mkdir()
    (run / "checkpoint-1" / "trainer_state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run-001 was started with {'num_epochs': 3}: resume with the same parameters"):
        common.start_run(tmp_path, True, NUMBERS | {"num_epochs": 4})
    assert common.start_run(tmp_path, True, NUMBERS)[1] == run / "checkpoint-1"


@pytest.mark.parametrize("given, visible", [({}, "0"), ({"CUDA_VISIBLE_DEVICES": "3"}, "3"), ({"LOCAL_RANK": "1"}, None)])
def test_one_gpu_is_used_unless_a_launcher_gives_each_process_its_own(common, monkeypatch, given, visible):
    for name in ("CUDA_VISIBLE_DEVICES", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # so that what is set in the test is taken back
        monkeypatch.delenv(name)
    PartialState(cpu=True)  # else one would be made, for a launcher that is not there
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert common.own_device().type == "cpu" and os.environ.get("CUDA_VISIBLE_DEVICES") == visible


@pytest.mark.parametrize("asked, config, expected, readable", [
    (128, BertConfig(max_position_embeddings=512), 128, 512), (1024, BertConfig(max_position_embeddings=512), 512, 512),
    (1024, RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512, 512), (1024, T5Config(), 1024, 1024),
])
def test_a_length_is_never_more_than_the_model_reads(common, capsys, asked, config, expected, readable):
    tokenizer = SimpleNamespace(model_max_length=10**30)
    assert common.readable_length(asked, tokenizer, config) == expected
    assert tokenizer.model_max_length == readable
    assert ("are asked for" in capsys.readouterr().out) == (asked > expected)


def test_unknown_tokens_are_counted_and_many_are_advised_against(common, capsys):
    if not hasattr(common, "count_unknown"):
        pytest.skip("the tokenizer of this folder knows every byte")
    common.count_unknown([[1, 2, 3], [], [7]], SimpleNamespace(unk_token_id=7, eos_token_id=3))
    assert capsys.readouterr().out.startswith("25.0% of the subword tokens are unknown")
    for unknown in (None, 2):  # tokenizers of bytes have none, or one that is the end token too
        common.count_unknown([[1, 2]], SimpleNamespace(unk_token_id=unknown, eos_token_id=2))
        assert capsys.readouterr().out == "0.0% of the subword tokens are unknown to the checkpoint's vocabulary\n"


@pytest.mark.parametrize("values, score, baseline, higher, said", [
    ([0.5, 0.7], 0.8, 0.6, True, ["still improved in the last epoch, from 0.500 to 0.700"]),
    ([0.7, 0.5], 0.8, 0.6, True, []),
    ([0.7, 0.701], 0.5, 0.6, True, ["baseline is not beaten (0.600 against 0.500)"]),
    ([9.0, 5.0], 4.0, 8.0, False, ["still improved in the last epoch, from 9.000 to 5.000"]),
    ([9.0, 9.5], 9.0, 8.0, False, ["baseline is not beaten (8.000 against 9.000)"]),
    ([0.9], 0.9, 0.5, True, []),
])
def test_advice_is_given_where_it_is_due(common, capsys, values, score, baseline, higher, said):
    common.advise([{"f1": value} for value in values], "f1", score, baseline, higher)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines))


def test_curves_have_one_point_per_step_and_per_epoch(common, monkeypatch):
    if not hasattr(common, "plot_curves"):
        pytest.skip("perplexity has pictures and tests of its own")
    plt = inspect.getmodule(common.plot_curves).plt
    monkeypatch.setattr(plt, "show", lambda: None)
    common.plot_curves([3.0, 2.0, 1.0], [{"epoch": 1, "loss": 2.0, "accuracy": 0.5, "f1": 0.4}])
    left, middle, right = plt.gcf().axes
    assert left.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert middle.lines[0].get_ydata().tolist() == [2.0]
    assert [line.get_label() for line in right.lines] == ["accuracy", "f1"]




# ---------------------------------------------------------------------------------------------------- a paired bootstrap


def said(line, name):
    """Difference, ends of the interval and verdict in the line that `compare` prints."""
    number = r"([+-]\d\.\d{3})"
    found = re.fullmatch(rf"{name}: difference {number}, 95% interval {number} to {number}: (.+)\n", line)
    return *map(float, found.groups()[:3]), found[4]


def test_the_interval_of_a_difference_is_that_of_scipy(common, capsys):
    rng = np.random.default_rng(1)
    before = rng.random(150)
    after = np.clip(before + rng.normal(0.1, 0.2, 150), 0, 1)
    common.compare("nDCG", before, after)
    difference, low, high, verdict = said(capsys.readouterr().out, "nDCG")
    expected = bootstrap((after, before), lambda one, two, axis: one.mean(axis) - two.mean(axis), paired=True, method="percentile",
                         vectorized=True, rng=2).confidence_interval
    assert difference == pytest.approx(after.mean() - before.mean(), abs=5.1e-4) and verdict == "a gain"
    assert (low, high) == pytest.approx(tuple(expected), abs=2e-3)


def test_a_score_of_counts_is_computed_from_their_sums_over_the_drawn_rows(common, capsys):
    rng = np.random.default_rng(3)
    counts = [np.stack([rng.binomial(n := rng.integers(1, 6, 80), p), n, n], axis=1) for p in (0.5, 0.6)]
    f1 = lambda rows: 2 * rows[..., 0] / (rows[..., 1] + rows[..., 2])
    common.compare("F1", *counts, measure=f1)
    difference, low, high, _ = said(capsys.readouterr().out, "F1")
    drawn = rng.integers(0, 80, size=(4000, 80))
    expected = [f1(counts[1][rows].sum(axis=0)) - f1(counts[0][rows].sum(axis=0)) for rows in drawn]
    assert difference == pytest.approx(f1(counts[1].sum(axis=0)) - f1(counts[0].sum(axis=0)), abs=5.1e-4)
    assert (low, high) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])), abs=6e-3)


@pytest.mark.parametrize("shift, higher_is_better, verdict", [
    (0.3, True, "a gain"), (0.3, False, "a loss"), (-0.3, True, "a loss"), (-0.3, False, "a gain"), (0.0, True, "no gain shown"),
])
def test_the_verdict_is_in_words_and_knows_which_direction_is_better(common, capsys, shift, higher_is_better, verdict):
    before = np.random.default_rng(4).normal(size=100)
    common.compare("score", before, before[::-1] if shift == 0 else before + shift, higher_is_better=higher_is_better)
    assert capsys.readouterr().out.endswith(f": {verdict}\n")
