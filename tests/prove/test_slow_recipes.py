"""The recipes that take too long for `make test`; see test_recipes.py."""

import pytest
from recipes import check, chosen


@pytest.mark.parametrize("folder, title", chosen(slow=True))
def test_a_slow_recipe_does_what_it_says(scripts, tmp_path, folder, title):
    check(scripts, tmp_path / folder, folder, title)
