"""The README's papermill line for data of one's own trains on files with other names of columns."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import pytest
from parameters import LEARNABLE
from test_own_data import DATA, has_lists, write

FOLDERS = notebooks.folders()


def line_with_columns(folder):
    """The README's papermill line for data of one's own, what it calls its folders, and its columns."""
    blocks = re.findall(r"^```\n(papermill .*?)^```$", (notebooks.ROOT / folder / "README.md").read_text(), flags=re.S | re.M)
    (line,) = [block for block in blocks if "columns:" in block]
    columns = dict(re.findall(r"(\w+): (\w+)", re.search(r"\{(.*)\}", line)[1]))
    return line.strip(), dict(re.findall(r"-p (\w+_id) (\S+)", line)), columns


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_line_of_the_readme_trains_on_data_with_names_of_ones_own(hub, folder, tmp_path):
    line, places, columns = line_with_columns(folder)
    target = tmp_path / "run"
    notebooks.copy_folder(folder, target)
    nbformat.write(nbformat.read(notebooks.ROOT / folder / "accelerate_loop.ipynb", as_version=4), target / "accelerate_loop.ipynb")
    assert places.keys() == DATA[folder].keys()
    for parameter, place in places.items():
        write(DATA[folder][parameter], target / place, "jsonl" if has_lists(folder, parameter) else "csv", columns)
    asked = {name: value for name, value in LEARNABLE[folder].items() if name not in places}
    asked |= {name: 1 for name in asked if name.endswith("epochs")}
    small = " ".join(f"-p {name} {value}" for name, value in asked.items())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", f"{line} {small}"], cwd=target, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (target / "outputs" / "accelerate_loop" / "run-001" / "model" / "model.safetensors").exists()
