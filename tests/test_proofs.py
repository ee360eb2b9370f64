"""What the repository promises of every pair of notebooks, on tiny stand-ins: pair, resume, processes.

A new folder is covered as soon as it has its notebooks and an entry in PARAMETERS of stand_ins.py.
"""

import json
import subprocess
import sys
from collections import Counter
from statistics import mean

import notebooks
import pytest
import torch
from safetensors.torch import load_file
from stand_ins import BEST_BY, METRIC_TOLERANCE, NO_DROPOUT, PARAMETERS, STAGES

FOLDERS = notebooks.folders()

TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

# Runs a script and kills its process, as kill -9 would, right after the given optimizer step.
KILLED = """
import os, runpy, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
steps = []
def count(*_):
    steps.append(1)
    if len(steps) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
register_optimizer_step_post_hook(count)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


# Runs a script and writes down which rows of which split, by its size, this process was given in batches.
WATCHED = """
import json, os, runpy, sys
from torch.utils.data import _utils
rows = []
fetch = _utils.fetch._MapDatasetFetcher.fetch
def watch(self, indices):
    rows.extend([len(self.dataset), i] for i in indices)
    return fetch(self, indices)
_utils.fetch._MapDatasetFetcher.fetch = watch
runpy.run_path(sys.argv[1], run_name="__main__")
open(f"rows{os.environ['RANK']}.json", "w").write(json.dumps(rows))
"""


def run_script(folder, name, target, parameters, launcher=()):
    """Run a notebook as a script in `target`; return the finished process and what each process of it gave."""
    if not target.exists():
        notebooks.copy_folder(folder, target)
    path = notebooks.script(notebooks.ROOT / folder / f"{name}.ipynb", target, parameters, f"{name}.json")
    assert path.suffix == ".py"
    if folder == "semantic_search":
        source = path.read_text(encoding="utf-8")
        assert source.count("100_200") == 2, "the vectors that are made up for measuring time, and have nothing of the model"
        path.write_text(source.replace("100_200", "1_200"), encoding="utf-8")
    for old in target.glob(f"{name}*.json"):
        old.unlink()
    launcher = [part if part != "SCRIPT" else path.name for part in launcher] or [path.name]
    (target / "watched.py").write_text(WATCHED)
    done = subprocess.run([sys.executable, *launcher], cwd=target, capture_output=True, text=True)
    return done, [json.loads(file.read_text()) for file in sorted(target.glob(f"{name}*.json"))]


def step_of(checkpoint):
    return int(checkpoint.name.split("-")[-1])


def tensors(folder):
    """The weights in a folder; those of an encoder within another module by the names they have without it."""
    return {name.removeprefix("encoder."): tensor for name, tensor in load_file(folder / "model.safetensors").items()}


def stages(folder, run):
    """[folder of checkpoints, its epochs, its steps] of the stages of a finished run; most tasks have one, the run itself."""
    names = STAGES.get(folder, {".": "num_epochs"})
    return [[run / name, PARAMETERS[folder][epochs], step_of(newest(run / name))] for name, epochs in names.items()]


def newest(folder):
    return max(folder.glob("checkpoint-*"), key=step_of)


def last_weights(folder, run):
    """The bytes of the weights in the last checkpoint of a run, and of the model it settled on."""
    last = newest(stages(folder, run)[-1][0])
    return (last / "model.safetensors").read_bytes(), (run / "model" / "model.safetensors").read_bytes()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("folder", FOLDERS)
def test_both_notebooks_give_the_same_losses_and_metrics_to_the_last_bit(pair, folder, accumulation):
    target, (trainer, loop) = pair(folder, accumulation)
    assert len(trainer["losses"]) == len(loop["losses"]) > 10
    differences = [abs(a - b) for a, b in zip(trainer["losses"], loop["losses"])]
    assert max(differences) == 0.0, f"first difference at step {[d > 0 for d in differences].index(True)}: {max(differences)}"
    assert trainer["metrics"] == loop["metrics"]
    _, epochs, steps = stages(folder, target / "outputs" / "accelerate_loop" / "run-001")[0]
    first, last = mean(trainer["losses"][: steps // epochs]), mean(trainer["losses"][steps - steps // epochs : steps])
    assert last < 0.8 * first, "a pair that does not learn proves little"


@pytest.mark.parametrize("folder", FOLDERS)
def test_both_notebooks_validate_alike(pair, folder):
    _, (trainer, loop) = pair(folder, 2)
    epochs = sum(value for key, value in PARAMETERS[folder].items() if key.endswith("epochs"))
    assert len(trainer["history"]) == len(loop["history"]) == epochs
    for one, two in zip(trainer["history"], loop["history"]):
        # the loss is summed over other batches in another order, so that its last bits are free
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert {**one, "loss": None} == {**two, "loss": None}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_best_checkpoint_is_kept_and_not_the_last(pair, folder):
    """Both notebooks settle on the same weights; and for one accumulation or the other those are not of the last epoch."""
    name, lower, told = BEST_BY[folder].removeprefix("-"), BEST_BY[folder].startswith("-"), []
    for accumulation in (1, 2):
        target, (_, loop) = pair(folder, accumulation)
        runs = [target / "outputs" / name / "run-001" for name in notebooks.PAIR]
        one, two = (load_file(run / "model" / "model.safetensors") for run in runs)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        stage, epochs, _ = stages(folder, runs[1])[-1]
        scores = [-epoch[name] if lower else epoch[name] for epoch in loop["history"][-epochs:]]
        last, model = (tensors(path) for path in (newest(stage), runs[1] / "model"))
        is_last = all(torch.equal(last[key], model[key]) for key in model)
        assert (not is_last) == (max(scores) in scores[:-1]), "the model is that of the best epoch, the first of equals"
        told.append(not is_last)
    assert any(told), "choose parameters for the stand-ins with which an epoch before the last is the best"


@pytest.mark.parametrize("name", notebooks.PAIR)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_killed_run_resumes_to_the_last_bit(pair, folder, name, tmp_path):
    whole, outcomes = pair(folder, 2)
    expected = outcomes[notebooks.PAIR.index(name)]
    parameters = PARAMETERS[folder] | {"gradient_accumulation_steps": 2}
    target = tmp_path / "run"

    # in the middle of the second epoch; with several stages, of the last but one
    loop = whole / "outputs" / "accelerate_loop" / "run-001"  # Trainer may have deleted its last checkpoint in favour of the best
    *before, (stage, epochs, steps) = stages(folder, loop)[: -1 if folder in STAGES else None]
    per_epoch = steps // epochs
    step = str(sum(steps for _, _, steps in before) + per_epoch + per_epoch // 2)
    killed, _ = run_script(folder, name, target, parameters, ["-c", KILLED, "SCRIPT", step])
    run = target / "outputs" / name / "run-001"
    assert killed.returncode == -9, killed.stderr[-6000:]
    stage = run / stage.relative_to(loop)
    assert [c.name for c in stage.glob("checkpoint-*")] == [f"checkpoint-{per_epoch}"]
    # what a kill in the middle of saving leaves behind is passed over
    (stage / f"checkpoint-{per_epoch + 1}").mkdir()

    resumed, outcome = run_script(folder, name, target, parameters | {"resume": True})
    assert resumed.returncode == 0, resumed.stderr[-6000:]
    assert outcome[0]["losses"] == expected["losses"]
    assert outcome[0]["metrics"] == expected["metrics"]
    assert outcome[0]["history"] == expected["history"]
    assert last_weights(folder, run) == last_weights(folder, whole / "outputs" / name / "run-001")
    assert [p.name for p in run.parent.iterdir()] == ["run-001"]

    before = contents(run)
    fresh, outcome = run_script(folder, name, target, parameters)
    assert fresh.returncode == 0, fresh.stderr[-6000:]
    assert outcome[0]["losses"] == expected["losses"], "a second run with the defaults trains afresh"
    assert sorted(p.name for p in run.parent.iterdir()) == ["run-001", "run-002"]
    assert contents(run) == before, "a second run leaves the first as it was"


@pytest.mark.parametrize("folder", FOLDERS)
def test_two_processes_with_half_the_batch_are_the_same_experiment(hub, folder, tmp_path):
    parameters = PARAMETERS[folder] | NO_DROPOUT[folder] | {"gradient_accumulation_steps": 2}
    name = "accelerate_loop"
    single, outcomes = run_script(folder, name, tmp_path / "one", parameters)
    assert single.returncode == 0, single.stderr[-6000:]
    (one,) = outcomes
    halved = parameters | {"batch_size": parameters["batch_size"] // 2}
    double, two = run_script(folder, name, tmp_path / "two", halved, [*TWO_PROCESSES, "SCRIPT"])
    assert double.returncode == 0, double.stderr[-6000:]
    assert len(two) == 2, "each process writes what it got"
    for outcome in two:
        assert len(outcome["losses"]) == len(one["losses"])
        assert max(abs(a - b) for a, b in zip(outcome["losses"], one["losses"])) < 1e-5
        assert outcome["rows"] == one["rows"], "every row of the test split is counted once"
        assert outcome["metrics"] == pytest.approx(one["metrics"], **METRIC_TOLERANCE.get(folder, {"abs": 1e-9}))
        chosen_by = [[epoch[BEST_BY[folder].removeprefix("-")] for epoch in each["history"]] for each in (outcome, one)]
        assert chosen_by[0] == pytest.approx(chosen_by[1], **METRIC_TOLERANCE.get(folder, {"abs": 1e-9}))
    assert [p.name for p in (tmp_path / "two" / "outputs" / name).iterdir()] == ["run-001"], "both processes share one run"


@pytest.mark.parametrize("folder", FOLDERS)
def test_two_processes_share_out_the_rows_whatever_random_numbers_each_draws(hub, folder, tmp_path):
    """With dropout each process draws its own numbers; they must still agree on the order of the rows."""
    target = tmp_path / "run"
    done, _ = run_script(folder, "accelerate_loop", target, PARAMETERS[folder], [*TWO_PROCESSES, "watched.py", "SCRIPT"])
    assert done.returncode == 0, done.stderr[-6000:]
    rows = [row for rank in (0, 1) for row in json.loads((target / f"rows{rank}.json").read_text())]
    size = max(size for size, _ in rows)  # the training split is the largest
    counts = Counter(i for n, i in rows if n == size)
    epochs = PARAMETERS[folder]["num_epochs"]
    repeated = -size % (2 * PARAMETERS[folder]["batch_size"])  # rows that fill the last batches of an epoch
    assert set(counts) == set(range(size))
    assert min(counts.values()) == epochs, "a row was missed in some epoch"
    assert sum(counts.values()) == epochs * (size + repeated)
