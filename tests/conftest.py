"""All tests run against one Hub in a box, and leave nothing behind in the folders."""

import os
import shutil
import sys
from functools import lru_cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import notebooks  # noqa: E402
from hub import Hub  # noqa: E402

COPIES = notebooks.RUNS / "tests"


def pytest_configure(config):
    # Hugging Face libraries read the environment when they are imported, so the box is up before any test is collected.
    config.hub = Hub().__enter__()
    os.environ.clear()
    os.environ.update(config.hub.environment | {"MPLBACKEND": "Agg", "TOKENIZERS_PARALLELISM": "false"})
    # nbval would compare the bars, which appear only where nothing has filled the cache before, with a notebook that has none
    os.environ.update({"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"})
    if config.args_source == pytest.Config.ArgsSource.TESTPATHS:
        config.args += copies_of_the_notebooks()


def copies_of_the_notebooks():
    """Copies of all task folders, for nbval to run in: what a notebook writes stays out of the folders themselves."""
    shutil.rmtree(COPIES, ignore_errors=True)
    for folder in notebooks.folders():
        notebooks.copy_folder(folder, COPIES / folder)
    return [str(shutil.copy(path, COPIES / path.parent.name)) for path in notebooks.notebooks()]


def pytest_unconfigure(config):
    config.hub.__exit__()
    shutil.rmtree(COPIES, ignore_errors=True)


@pytest.fixture(scope="session")
def hub(pytestconfig):
    """The Hub in a box, with the stand-ins in it."""
    from stand_ins import write_stand_ins

    write_stand_ins(pytestconfig.hub.store)
    return pytestconfig.hub


@pytest.fixture(scope="session")
def pair(hub, tmp_path_factory):
    """pair(folder, accumulation): a folder in which both notebooks ran through papermill, and what they gave."""
    from stand_ins import PARAMETERS

    @lru_cache
    def execute(folder, accumulation):
        target = tmp_path_factory.mktemp(folder) / "run"
        notebooks.copy_folder(folder, target)
        parameters = PARAMETERS[folder] | {"gradient_accumulation_steps": accumulation}
        return target, [notebooks.execute(notebooks.ROOT / folder / f"{name}.ipynb", target, parameters) for name in notebooks.PAIR]

    return execute
