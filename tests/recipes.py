"""The recipes in the folders' READMEs, section `Make it yours`: changes to the notebooks that are read from the text and made."""

import re
from dataclasses import dataclass

import nbformat
import notebooks

CHANGE = re.compile(
    r"^In (?P<where>[^,\n]+), (?P<place>after the cell with|after the line|before the line|in place of the line) `(?P<anchor>[^\n]+)`:\n\n"
    r"```python\n(?P<code>.*?)^```", re.M | re.S,
)


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
