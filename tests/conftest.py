"""All tests run against one Hub in a box, and leave nothing behind in the folders.

With several workers (`-n`), the first process, which runs no tests, starts the Hub; the workers inherit its address in the environment.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from filelock import FileLock
from nbval.plugin import IPyNbCell

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import notebooks  # noqa: E402
from hub import Hub  # noqa: E402
from oracles import makes  # noqa: E402
from parameters import LEARNABLE, OTHERWISE, SMALL  # noqa: E402

PATIENCE = 300  # seconds that a test waits for what another worker runs


def pytest_configure(config):
    config.pluginmanager.register(Watch())
    if hasattr(config, "workerinput"):
        if "TESTS_NOTEBOOKS" in os.environ:
            config.args[:0] = copies(Path(os.environ["TESTS_SCRATCH"]))
        return
    # Hugging Face libraries read the environment when they are imported, so the box is up before any test is collected.
    config.hub = Hub().__enter__()
    notebooks.RUNS.mkdir(exist_ok=True)
    config.scratch = Path(tempfile.mkdtemp(dir=notebooks.RUNS, prefix="tests-"))
    os.environ.clear()
    os.environ.update(config.hub.environment | {"MPLBACKEND": "Agg", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"})
    # nbval would compare the bars, which appear only where nothing has filled the cache before, with a notebook that has none
    os.environ.update({"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"})
    os.environ.update({"TESTS_SCRATCH": str(config.scratch), "TESTS_STORE": str(config.hub.store)})
    config.stand_ins = subprocess.Popen([sys.executable, str(HERE / "stand_ins.py"), str(config.hub.store)])
    if config.args_source == pytest.Config.ArgsSource.TESTPATHS:  # `make test`: no test was chosen
        os.environ["TESTS_NOTEBOOKS"] = "1"
        make_copies(config.scratch)
        config.args[:0] = copies(config.scratch)


def copies(scratch):
    """The notebooks that nbval runs: copies of all folders, so that what they write stays out of the folders themselves."""
    return [str(scratch / folder / f"{name}.ipynb") for folder in SMALL for name in notebooks.PAIR]  # the slowest first


def make_copies(scratch):
    for folder, parameters in SMALL.items():
        notebooks.copy_folder(folder, scratch / folder)
        for name in notebooks.PAIR:
            document = notebooks.prepared(notebooks.ROOT / folder / f"{name}.ipynb", parameters, f"{name}.json")
            for cell in document.cells:
                if cell.cell_type == "code" and makes(cell.source) & OTHERWISE.get(folder, set()):
                    cell.metadata.tags = []
            nbformat.write(document, scratch / folder / f"{name}.ipynb")


def pytest_unconfigure(config):
    if hasattr(config, "hub"):
        config.stand_ins.kill()
        config.hub.__exit__()
        shutil.rmtree(config.scratch, ignore_errors=True)


def wait_for(path, what):
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.1)


@cache
def the_hub():
    wait_for(Path(os.environ["TESTS_STORE"]) / "complete", "the stand-ins")
    return SimpleNamespace(
        store=Path(os.environ["TESTS_STORE"]), endpoint=os.environ["HF_ENDPOINT"], environment=dict(os.environ),
    )


class Watch:
    """Hooks for the cells of the notebooks; those of a conftest.py are called for what lies below its own folder only."""

    def pytest_runtest_setup(self, item):
        if isinstance(item, IPyNbCell):
            the_hub()

    def pytest_runtest_teardown(self, item, nextitem):
        """Keep what cells show, for test_pairs.py; the file also says that the notebook has ended."""
        if isinstance(item, IPyNbCell):
            shown = item.parent.__dict__.setdefault("shown", [])
            shown.append(item.test_outputs)
            if nextitem is None or nextitem.parent is not item.parent:
                item.path.with_suffix(".shown").write_text(json.dumps(shown))


@pytest.fixture(scope="session")
def hub():
    """The Hub in a box, with the stand-ins in it."""
    return the_hub()


@pytest.fixture(scope="session")
def scripts(hub):
    """Runs notebooks as scripts; see scripts.py."""
    from scripts import Scripts

    with Scripts() as running:
        yield running


@pytest.fixture(scope="session")
def small_run(hub, request):
    """small_run(folder): the folder in which both notebooks ran on stand-ins under nbval, in this session or for this test."""
    from scripts import export, job

    def of(folder):
        if "TESTS_NOTEBOOKS" in os.environ:
            target = Path(os.environ["TESTS_SCRATCH"]) / folder
            for name in notebooks.PAIR:
                wait_for(target / f"{name}.shown", f"{folder}/{name}.ipynb")
            return target
        return once(f"small-{folder}", lambda target: request.getfixturevalue("scripts").run(
            *(job(target, export(folder, name, target, SMALL[folder]), log=f"{name}.log") for name in notebooks.PAIR)))

    return of


@pytest.fixture(scope="session")
def recorded_run(hub, request):
    """recorded_run(folder): the folder in which both notebooks ran on stand-ins from which something can be learned, two batches to a step.

    Beside what the notebooks wrote, it holds `trainer_api.record` and `accelerate_loop.record`; see record.py.
    """
    from scripts import export, job

    def both(folder, target):
        parameters = LEARNABLE[folder] | {"gradient_accumulation_steps": 2}
        jobs = [
            job(target, str(HERE / "record.py"), export(folder, name, target, parameters), f"{name}.record", log=f"{name}.log")
            for name in notebooks.PAIR
        ]
        statuses = request.getfixturevalue("scripts").run(*jobs)
        logs = [(target / f"{name}.log").read_text()[-3000:] for name in notebooks.PAIR]
        assert statuses == [0, 0], "\n\n".join(logs)

    return lambda folder: once(f"recorded-{folder}", lambda target: both(folder, target))


def once(name, make):
    """The folder `name`, filled by `make(folder)`, in whichever worker asks for it first."""
    parent = Path(os.environ["TESTS_SCRATCH"])
    target, done = parent / name, parent / f"{name}.done"
    with FileLock(parent / f"{name}.lock"):
        if not done.exists():
            make(target)
            done.touch()
    return target
