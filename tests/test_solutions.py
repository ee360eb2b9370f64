"""The solutions to the exercises run where they say: at the end of both notebooks, or of one."""

import re

import nbformat
import notebooks
import pytest
from parameters import LEARNABLE
from scripts import export, job

FOLDERS = notebooks.folders()
BLOCK = re.compile(r"^\*\*(Both notebooks|\w+\.ipynb)\*\*\n\n```python\n(.*?)^```$", flags=re.S | re.M)


def solutions(folder):
    """[(heading of the exercise, which notebook, code)]"""
    parts = re.split(r"^## (.+)$", (notebooks.ROOT / folder / "solutions.md").read_text(), flags=re.M)[1:]
    return [(heading, which, code) for heading, text in zip(parts[::2], parts[1::2]) for which, code in BLOCK.findall(text)]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", notebooks.PAIR)
def test_every_exercise_has_a_solution(folder, name):
    found = list(dict.fromkeys(heading for heading, which, _ in solutions(folder) if which in ("Both notebooks", f"{name}.ipynb")))
    text = "\n".join(cell.source for cell in nbformat.read(notebooks.ROOT / folder / f"{name}.ipynb", 4).cells)
    exercises = re.search(r"^## Exercises\n(.*?)^## ", text, flags=re.S | re.M)[1]
    titles = re.findall(r"^(\d\.) \*\*(.+?)[.?]?\*\*", exercises, flags=re.M)
    assert len(titles) == 3
    assert [heading.rstrip("?.") for heading in found] == [f"{number} {title}" for number, title in titles]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_solutions_run(folder, scripts, hub, tmp_path):
    jobs = []
    for name in notebooks.PAIR:
        script = tmp_path / folder / export(folder, name, tmp_path / folder, LEARNABLE[folder])
        blocks = [code for _, which, code in solutions(folder) if which in ("Both notebooks", f"{name}.ipynb")]
        script.write_text("\n\n".join([script.read_text(), *blocks, "print('solved')"]))
        jobs.append(job(tmp_path / folder, script.name, log=f"{name}.log"))
    statuses = scripts.run(*jobs)
    for name, status in zip(notebooks.PAIR, statuses):
        log = (tmp_path / folder / f"{name}.log").read_text()
        assert status == 0 and log.splitlines()[-1] == "solved", log[-3000:]
