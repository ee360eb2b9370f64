"""All tests run against one Hub in a box, and leave nothing behind in the folders."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hub import Hub  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent


def outputs():
    return set(ROOT.glob("*/outputs/*/run-*"))


def pytest_configure(config):
    # Hugging Face libraries read the environment when they are imported, so the box is up before any test is collected.
    config.hub = Hub().__enter__()
    os.environ.clear()
    os.environ.update(config.hub.environment | {"MPLBACKEND": "Agg", "TOKENIZERS_PARALLELISM": "false"})
    config.outputs_before = outputs()


def pytest_unconfigure(config):
    config.hub.__exit__()
    for run in outputs() - config.outputs_before:  # nbval runs notebooks in their own folder
        shutil.rmtree(run)


@pytest.fixture(scope="session")
def hub(pytestconfig):
    """The Hub in a box, with the stand-ins in it."""
    from stand_ins import write_stand_ins

    write_stand_ins(pytestconfig.hub.store)
    return pytestconfig.hub
