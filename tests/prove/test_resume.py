"""A run that is killed and started again ends as one that was not, to the last bit; and no run harms another."""

import json

import notebooks
import pytest
from checkpoints import contents, last_weights, stages
from parameters import LEARNABLE, STAGES
from scripts import export, job, outcomes

FOLDERS = notebooks.folders()

# Runs a script and kills its process, as kill -9 would, right after the given optimizer step of the training that is kept: the plain
# one before it has no run of its own.
KILLED = """
import os, pathlib, runpy, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
script, last = sys.argv[1:]
steps = []
def count(optimizer, *_):
    if type(optimizer).__name__ in ("Muon", "MuonAdamW"):  # the AdamW that belongs to them counts
        return
    if pathlib.Path("outputs", pathlib.Path(script).stem, "run-001").exists():
        steps.append(1)
    if len(steps) == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
register_optimizer_step_post_hook(count)
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize("folder", FOLDERS)
def test_killed_runs_resume_to_the_last_bit(recorded_run, scripts, folder, tmp_path):
    """Both notebooks of a pair at the same time, each in a folder of its own."""
    whole = recorded_run(folder)
    # in the middle of the second epoch; with several stages, of the last but one
    loop = whole / "outputs" / "accelerate_loop" / "run-001"  # Trainer may have deleted its last checkpoint in favour of the best
    *before, (stage, epochs, steps) = stages(folder, loop)[: -1 if folder in STAGES else None]
    per_epoch = steps // epochs
    step = str(sum(steps for _, _, steps in before) + per_epoch + per_epoch // 2)
    parameters = LEARNABLE[folder] | {"gradient_accumulation_steps": 2}
    targets = {name: tmp_path / name for name in notebooks.PAIR}

    def run(more, *wrapper):
        jobs = []
        for name, target in targets.items():
            script = export(folder, name, target, parameters | more)
            (target / "killed.py").write_text(KILLED)
            for old in target.glob(f"{name}*.json"):
                old.unlink()
            arguments = [*wrapper[:1], script, *wrapper[1:]]
            jobs.append(job(target, *arguments))
        statuses = scripts.run(*jobs)
        return statuses, "\n\n".join((target / "log").read_text()[-3000:] for target in targets.values())

    statuses, logs = run({}, "killed.py", step)
    assert statuses == [-9, -9], logs
    runs = {name: target / "outputs" / name / "run-001" for name, target in targets.items()}
    for path in runs.values():
        checkpoints = path / stage.relative_to(loop)
        assert [c.name for c in checkpoints.glob("checkpoint-*")] == [f"checkpoint-{per_epoch}"]
        # what a kill in the middle of saving leaves behind is passed over
        (checkpoints / f"checkpoint-{per_epoch + 1}").mkdir()

    statuses, logs = run({"resume": True})
    assert statuses == [0, 0], logs
    for name, path in runs.items():
        expected, (outcome,) = json.loads((whole / f"{name}.json").read_text()), outcomes(targets[name], name)
        for key in ("losses", "metrics", "history"):
            assert outcome[key] == expected[key], (name, key)
        assert last_weights(folder, path) == last_weights(folder, whole / "outputs" / name / "run-001")
        assert [p.name for p in path.parent.iterdir()] == ["run-001"]

    before = {name: contents(path) for name, path in runs.items()}
    statuses, logs = run({})
    assert statuses == [0, 0], logs
    for name, path in runs.items():
        (outcome,) = outcomes(targets[name], name)
        expected = json.loads((whole / f"{name}.json").read_text())
        assert notebooks.largest_difference(outcome["losses"], expected["losses"]) == 0.0, "a second run with the defaults trains afresh"
        assert sorted(p.name for p in path.parent.iterdir()) == ["run-001", "run-002"]
        assert contents(path) == before[name], "a second run leaves the first as it was"
