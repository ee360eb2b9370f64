"""The recipes that take too long for `make test`; see test_recipes.py."""

from dataclasses import replace

import browser
import notebooks
import pytest
from parameters import LEARNABLE
from recipes import check, chosen, recipes, run


@pytest.mark.parametrize("folder, title", chosen(slow=True))
def test_a_slow_recipe_does_what_it_says(scripts, tmp_path, folder, title):
    if title == "A page to try the model in" and not browser.find():
        pytest.skip(browser.MISSING)
    check(scripts, tmp_path / folder, folder, title)


# `Trainer` has one project for all runs, and the loop one for each
TRACKIO = """
from trackio.sqlite_storage import SQLiteStorage

projects = set(SQLiteStorage.get_projects())
logged = []
for project in projects & {"huggingface"} if "trainer" in globals() else projects - {"huggingface"}:
    for name in SQLiteStorage.get_runs(project):
        rows = SQLiteStorage.get_logs(project, name)
        logged.append([value for row in rows for key, value in row.items() if key in ("loss", "train/loss")])
for one in kept.values() if "kept" in globals() else [losses]:
    assert any(two == pytest.approx(one) for two in logged)
"""


@pytest.mark.parametrize("folder", notebooks.folders())
def test_trackio_gets_the_losses_of_every_step(scripts, tmp_path, folder):
    changes = [replace(change, code=change.code.replace('"tensorboard"', '"trackio"')) for change in recipes(folder)["A tracker"]]
    assert sum('"trackio"' in change.code for change in changes) == 2
    target = tmp_path / folder
    run(scripts, folder, target, LEARNABLE[folder], changes, TRACKIO, {"TRACKIO_DIR": str(target / "trackio")})
