"""The recipes of the READMEs, put into both notebooks from their text: they run, the pair agrees, and each does what it says.

The notebooks run on stand-ins up to *Common mistakes*, so that what a recipe saves is also read back and used.
"""

import nbformat
import notebooks
import pytest
from recipes import check, chosen, expected, recipes


@pytest.mark.parametrize("folder, title", chosen(slow=False))
def test_a_recipe_does_what_it_says_in_both_notebooks(scripts, tmp_path, folder, title):
    check(scripts, tmp_path / folder, folder, title)


@pytest.mark.parametrize("folder", notebooks.folders())
def test_every_change_names_lines_of_the_notebooks(folder):
    for changes in recipes(folder).values():
        for name in notebooks.PAIR:
            cells = nbformat.read(notebooks.ROOT / folder / f"{name}.ipynb", as_version=4).cells
            for change in changes:
                if name in change.names:
                    change.make(cells)


@pytest.mark.parametrize("folder", notebooks.folders())
def test_every_recipe_is_tested_and_no_other(folder):
    assert set(expected(folder).EFFECTS) == {title for title, changes in recipes(folder).items() if changes}
