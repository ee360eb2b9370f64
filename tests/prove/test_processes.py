"""The loops on two processes with half the batch each are the same experiment as on one."""

import json
import socket
from collections import Counter

import notebooks
import pytest
from parameters import BEST_BY, LEARNABLE, METRIC_TOLERANCE, NO_DROPOUT
from scripts import export, job, outcomes

FOLDERS = notebooks.folders()
NAME = "accelerate_loop"

# Runs a script and writes down which rows of which split, by its size, this process was given in batches, in the training that is kept:
# the plain one before it has no run of its own.
WATCHED = """
import json, os, pathlib, runpy, sys
from torch.utils.data import _utils
rows = []
fetch = _utils.fetch._MapDatasetFetcher.fetch
def watch(self, indices):
    if pathlib.Path("outputs", "accelerate_loop", "run-001").exists():
        rows.extend([len(self.dataset), i] for i in indices)
    return fetch(self, indices)
_utils.fetch._MapDatasetFetcher.fetch = watch
runpy.run_path(sys.argv[1], run_name="__main__")
open(f"rows{os.environ['RANK']}.json", "w").write(json.dumps(rows))
"""


def two_processes(scripts, folder, target, parameters, *wrapper):
    """Run the loop of a folder on two processes, as torchrun starts them; return what each gave."""
    script = export(folder, NAME, target, parameters)
    for name in wrapper:
        (target / name).write_text(WATCHED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    jobs = [
        job(target, *wrapper, script, log=f"log{rank}", environment=world | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    statuses = scripts.run(*jobs)
    assert statuses == [0, 0], "\n\n".join((target / f"log{rank}").read_text()[-3000:] for rank in (0, 1))
    return outcomes(target, NAME)


@pytest.mark.parametrize("folder", FOLDERS)
def test_two_processes_with_half_the_batch_are_the_same_experiment(scripts, folder, tmp_path):
    parameters = LEARNABLE[folder] | NO_DROPOUT[folder] | {"gradient_accumulation_steps": 2}
    statuses = scripts.run(job(tmp_path / "one", export(folder, NAME, tmp_path / "one", parameters)))
    assert statuses == [0], (tmp_path / "one" / "log").read_text()[-3000:]
    (one,) = outcomes(tmp_path / "one", NAME)
    two = two_processes(scripts, folder, tmp_path / "two", parameters | {"batch_size": parameters["batch_size"] // 2})
    assert len(two) == 2, "each process writes what it got"
    tolerance = METRIC_TOLERANCE.get(folder, {"abs": 1e-9})
    for outcome in two:
        assert notebooks.largest_difference(outcome["losses"], one["losses"]) < 1e-5
        assert outcome["rows"] == one["rows"], "every row of the test split is counted once"
        assert outcome["metrics"] == pytest.approx(one["metrics"], **tolerance)
        chosen_by = [[epoch[BEST_BY[folder].removeprefix("-")] for epoch in each["history"]] for each in (outcome, one)]
        assert chosen_by[0] == pytest.approx(chosen_by[1], **tolerance)
    assert [p.name for p in (tmp_path / "two" / "outputs" / NAME).iterdir()] == ["run-001"], "both processes share one run"


@pytest.mark.parametrize("folder", FOLDERS)
def test_two_processes_share_out_the_rows_whatever_random_numbers_each_draws(scripts, folder, tmp_path):
    """With dropout each process draws its own numbers; they must still agree on the order of the rows."""
    target = tmp_path / "run"
    two_processes(scripts, folder, target, LEARNABLE[folder], "watched.py")
    rows = [row for rank in (0, 1) for row in json.loads((target / f"rows{rank}.json").read_text())]
    size = max(size for size, _ in rows)  # the training split is the largest
    counts = Counter(i for n, i in rows if n == size)
    epochs = LEARNABLE[folder]["num_epochs"]
    repeated = -size % (2 * LEARNABLE[folder]["batch_size"])  # rows that fill the last batches of an epoch
    assert set(counts) == set(range(size))
    assert min(counts.values()) == epochs, "a row was missed in some epoch"
    assert sum(counts.values()) == epochs * (size + repeated)
