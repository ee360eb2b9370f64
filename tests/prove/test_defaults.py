"""What the committed notebooks show is what their default runs give, here and now.

Where a run has the same losses to the last bit, it is the same arithmetic, and everything else must be the same to the letter. Another
processor adds up in another order: there the scores must be near, and the cells tagged `nbval-check-output` alike.
"""

import re

import nbformat
import notebooks
import pytest

FOLDERS = notebooks.folders()
NEAR = 0.05  # of a score between 0 and 1; relative for the others, perplexities
# cells that measure time: their numbers change from run to run, and nothing else
TIMED = re.compile(r"perf_counter|\bseconds\b|\bmilliseconds\b|\bmeasure\(")
# the bar of a Trainer, with the time that was needed
BAR = re.compile(r"<div>\s*<progress.*?</progress>.*?</div>", re.S)


@pytest.fixture(scope="session")
def default_run(hub, tmp_path_factory):
    """default_run(folder): {notebook: (the committed cells, the executed cells, its outcome)}, each run once."""
    found = {}

    def of(folder):
        if folder not in found:
            target = tmp_path_factory.mktemp(folder) / "run"
            notebooks.copy_folder(folder, target)
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("MPLBACKEND", raising=False)  # here pictures are to be shown
                outcomes = {name: future.result() for name, future in notebooks.execute_pair(folder, target).items()}
            found[folder] = {
                name: (cells(notebooks.ROOT / folder / f"{name}.ipynb"), cells(target / f"{name}.ipynb"), outcome)
                for name, outcome in outcomes.items()
            }
        return found[folder]

    return of


def cells(path):
    return [cell for cell in notebooks.clean(nbformat.read(path, as_version=4)).cells if cell.cell_type == "code"]


def shown(cell):
    """What a cell shows as text, without a Trainer's bar; without numbers if it measures time."""
    kinds = ("text/plain", "text/html")
    # joined by nothing, since a kernel may send what is printed in two parts
    said = "".join("".join([o.get("text", ""), *(o.get("data", {}).get(kind, "") for kind in kinds)]) for o in cell.outputs)
    said = BAR.sub("", said)
    return re.sub(r"[\d.]+|\s+|-+", " ", said) if TIMED.search(cell.source) else said


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_default_runs_of_a_pair_give_the_same_losses_and_metrics_to_the_last_bit(default_run, folder):
    (_, _, trainer), (_, _, loop) = default_run(folder).values()
    assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0
    assert trainer["metrics"] == loop["metrics"]


@pytest.mark.parametrize("name", notebooks.PAIR)
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_committed_outputs_are_those_of_the_default_run(default_run, folder, name):
    committed, executed, outcome = default_run(folder)[name]
    assert [cell.source for cell in committed] == [cell.source for cell in executed]
    results = nbformat.read(notebooks.ROOT / folder / f"{name}.ipynb", as_version=4).metadata["results"]
    metrics = results["metrics"]
    assert outcome["metrics"].keys() == metrics.keys()
    for key, value in metrics.items():
        assert outcome["metrics"][key] == pytest.approx(value, abs=NEAR, rel=NEAR if value > 1 else None), key
    same = notebooks.summary(outcome) == results
    for one, two in zip(committed, executed):
        if same or "nbval-check-output" in one.metadata.get("tags", []):
            assert shown(two) == shown(one), one.source
        assert [o.output_type for o in two.outputs].count("display_data") == [o.output_type for o in one.outputs].count("display_data")
    if not same:
        print(f"{folder}/{name}: another arithmetic than that of the committed outputs, so only scores and tagged cells were compared")
