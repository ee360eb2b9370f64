"""The recipes in the folders' READMEs, section `Make it yours`: changes to the notebooks that are read from the text, made and run.

    python tests/recipes.py FOLDER TITLE [SEED]     run the notebooks with a recipe on their default data, or without one (TITLE none)

The modules in effects/, one for each folder, say what is to come of them:

EFFECTS     {title: code that ends both notebooks, and shows what the recipe has done}
SAME        the recipes that leave the losses as they are; all others change them
APART       the recipes that do something else in each notebook
PARAMETERS  {title: parameters in place of those of parameters.py}
SLOW        the recipes that `make prove` runs, and not `make test`
"""

import importlib
import json
import re
import shutil
import sys
from dataclasses import dataclass

import nbformat
import notebooks
import pytest
from conftest import once
from parameters import LEARNABLE
from scripts import Scripts, job

CHANGE = re.compile(
    r"^In (?P<where>[^,\n]+), (?P<place>after the cell with|after the line|before the line|in place of the line) `(?P<anchor>[^\n]+)`:\n\n"
    r"```python\n(?P<code>.*?)^```", re.M | re.S,
)

# what the effects use, at the end of a notebook, so that it finds nothing of the tests before
READ = f"import sys\n\nimport pytest\n\nsys.path.append({str(notebooks.ROOT / 'tests')!r})"


@dataclass
class Change:
    """`code`, which goes into the notebooks `names` at a `place` that `anchor`, the beginning of a line, marks."""

    names: list[str]
    place: str
    anchor: str
    code: str

    def make(self, cells):
        """Change the cells of a notebook in place.

        Raises:
            ValueError: `anchor` doesn't begin exactly one line of all code cells.
        """
        found = [
            (i, j) for i, cell in enumerate(cells) if cell.cell_type == "code"
            for j, line in enumerate(cell.source.split("\n")) if line.strip().startswith(self.anchor)
        ]
        if len(found) != 1:
            raise ValueError(f"{len(found)} lines begin with {self.anchor!r}, not one")
        i, j = found[0]
        if self.place == "after the cell with":
            cells.insert(i + 1, nbformat.v4.new_code_cell(self.code))
            return
        lines = cells[i].source.split("\n")
        indent = re.match(" *", lines[j])[0]
        new = [indent + line if line else "" for line in self.code.rstrip("\n").split("\n")]
        lines[j : j + 1] = {"after": [lines[j], *new], "before": [*new, lines[j]], "in": new}[self.place.split()[0]]
        cells[i].source = "\n".join(lines)


def recipes(folder):
    """{title: changes} of a folder's README; text without a change, such as an explanation, has none."""
    text = (notebooks.ROOT / folder / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Make it yours\n")[2].partition("\n## ")[0]
    found = {}
    for part in section.split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        found[title] = []
        for change in CHANGE.finditer(body):
            where = change["where"]
            names = list(notebooks.PAIR) if where == "both notebooks" else [where.strip("`").removesuffix(".ipynb")]
            assert set(names) <= set(notebooks.PAIR), where
            found[title].append(Change(names, change["place"], change["anchor"], change["code"]))
        assert len(found[title]) == body.count("```python"), f"{folder}: a block of {title!r} doesn't say where it goes"
    return found


def run(scripts, folder, target, parameters, changes=(), effect="", environment=None):
    """Run the notebooks of a folder that a recipe changes, up to `Common mistakes`; return what each left in its last cell."""
    notebooks.copy_folder(folder, target)
    names, jobs = [name for name in notebooks.PAIR if not changes or any(name in change.names for change in changes)], []
    for name in names:
        document = notebooks.prepared(notebooks.ROOT / folder / f"{name}.ipynb", parameters, f"{name}.json")
        end = next(i for i, cell in enumerate(document.cells) if cell.source.startswith("## Common mistakes"))
        document.cells = [*document.cells[:end], nbformat.v4.new_code_cell(f"{READ}\n{effect}"), document.cells[-1]]
        for change in changes:
            if name in change.names:
                change.make(document.cells)
        nbformat.write(document, target / f"{name}.ipynb")  # as a reader saves it: a recipe starts processes that run it
        source = "\n\n".join(notebooks.python(cell.source) for cell in document.cells if cell.cell_type == "code")
        (target / f"{name}.py").write_text(source, encoding="utf-8")
        jobs.append(job(target, f"{name}.py", log=f"{name}.log", environment=environment))
    statuses = scripts.run(*jobs)
    assert not any(statuses), "\n\n".join((target / f"{name}.log").read_text()[-3000:] for name in names)
    return [json.loads((target / f"{name}.json").read_text()) for name in names]


def expected(folder):
    """The module in effects/ of a folder."""
    return importlib.import_module(f"effects.{folder}")


def chosen(slow):
    """(folder, title) of all recipes that are quick, or slow."""
    return [(folder, title) for folder in notebooks.folders() for title, changes in recipes(folder).items()
            if changes and (title in expected(folder).SLOW) == slow]


def check(scripts, target, folder, title):
    """Run both notebooks with a recipe, and compare their losses with each other and with those without it."""
    known = expected(folder)
    small = LEARNABLE[folder] | {name: 2 for name in LEARNABLE[folder] if name.endswith("epochs")}
    parameters = small | known.PARAMETERS.get(title, {})
    outcomes = run(scripts, folder, target, parameters, recipes(folder)[title], known.EFFECTS[title])
    if len(outcomes) == 2 and title not in known.APART:
        trainer, loop = outcomes
        assert notebooks.largest_difference(trainer["losses"], loop["losses"]) == 0.0
        assert trainer["metrics"] == pytest.approx(loop["metrics"])
    if title not in known.PARAMETERS:
        without = once(f"without-{folder}", lambda target: run(scripts, folder, target, small))
        before = json.loads((without / "accelerate_loop.json").read_text())["losses"]
        assert all((outcome["losses"] == before) == (title in known.SAME) for outcome in outcomes)


if __name__ == "__main__":
    folder, title, *seed = sys.argv[1:]
    changes = [] if title == "none" else recipes(folder)[title]
    target = notebooks.RUNS / "recipe"
    shutil.rmtree(target, ignore_errors=True)
    with Scripts() as scripts:
        outcomes = run(scripts, folder, target, {"seed": int(seed[0])} if seed else {}, changes)
    for outcome in outcomes:
        print(outcome["metrics"])
    print(f"what the notebooks printed is in {target}")
