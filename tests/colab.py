"""Run the notebooks of a folder with the versions of Colab's image, after what their first cell installs there.

    python tests/colab.py [FOLDER]

The image is that of colab.txt; its Python, 3.13, is taken if it is on this machine, or else the one in the environment variable PYTHON.
TORCH names another version of torch, for where that of the image is to be had with CUDA alone. The environment stays in .colab/.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import notebooks

HOME = notebooks.ROOT / ".colab"
VERSIONS = notebooks.ROOT / "tests" / "colab.txt"


def bootstrap(folder):
    """The arguments of pip in the first cell of a folder's notebooks."""
    document = nbformat.read(notebooks.ROOT / folder / "trainer_api.ipynb", as_version=4)
    cell = next(cell for cell in document.cells if cell.cell_type == "code")
    return shlex.split(re.search(r"%pip (.*)", cell.source)[1])


def image(python):
    """A new environment with what the image has, and a kernel of the name `colab` in it."""
    shutil.rmtree(HOME, ignore_errors=True)
    subprocess.run([python, "-m", "venv", HOME], check=True)
    torch = os.environ.get("TORCH")
    lines = [line for line in VERSIONS.read_text().splitlines() if line[0] != "#"]
    wanted = [f"torch=={torch}" if torch and line.startswith("torch==") else line for line in lines]
    pip("install", "--quiet", *wanted)
    subprocess.run([HOME / "bin" / "python", "-m", "ipykernel", "install", "--prefix", HOME, "--name", "colab"], check=True)


def pip(*arguments):
    subprocess.run([HOME / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


def main(folder):
    image(os.environ.get("PYTHON") or shutil.which("python3.13") or sys.executable)
    arguments = bootstrap(folder)
    print("pip", *arguments, flush=True)
    pip(*arguments)
    pip("list", "--format=freeze")
    os.environ["JUPYTER_PATH"] = str(HOME / "share" / "jupyter")
    target = notebooks.RUNS / "colab" / folder
    shutil.rmtree(target, ignore_errors=True)
    notebooks.copy_folder(folder, target)
    outcomes = [future.result() for future in notebooks.execute_pair(folder, target, kernel="colab").values()]
    difference = notebooks.largest_difference(*(outcome["losses"] for outcome in outcomes))
    committed = nbformat.read(notebooks.ROOT / folder / "trainer_api.ipynb", as_version=4).metadata["results"]["metrics"]
    metrics = outcomes[0]["metrics"]
    print(f"largest loss difference of the pair: {difference}\nmetrics: {metrics}")
    print("They equal the committed ones." if metrics == committed else f"The committed ones: {committed}")
    return int(difference != 0.0 or metrics != outcomes[1]["metrics"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if sys.argv[1:] else "sequence_classification"))
