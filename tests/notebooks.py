"""Run, refresh and address the notebooks. The Makefile calls this; the tests import it.

    python tests/notebooks.py run [FOLDER]       every notebook on its defaults, copies and a table in runs/
    python tests/notebooks.py refresh [FOLDER]   the same, and the executed notebooks replace the committed ones
    python tests/notebooks.py results            fill README.md from runs/: results table and the two loss curves
    python tests/notebooks.py home OWNER/NAME    the repository address in README.md and in every notebook
"""

import importlib.util
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
PAIR = ("trainer_api", "accelerate_loop")
# appended to a copy from outside, so that the notebooks themselves need not know of being run
RESULTS_CELL = """
import json, os
from pathlib import Path
rows = len(test_labels if "test_labels" in globals() else requests)
found = {{"losses": losses, "metrics": metrics, "baselines": baseline_scores, "history": history, "rows": rows}}
Path("{file}".replace(".json", os.environ.get("RANK", "") + ".json")).write_text(json.dumps(found))
"""


def folders():
    """The task folders that exist, by name."""
    return sorted(path.parent.name for path in ROOT.glob("*/trainer_api.ipynb"))


def notebooks():
    return [ROOT / folder / f"{name}.ipynb" for folder in folders() for name in PAIR]


def common_of(folder):
    """The module common.py of a task folder; there is one in each, so none can be imported by its name."""
    spec = importlib.util.spec_from_file_location(f"{folder}_common", ROOT / folder / "common.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_folder(folder, target):
    """A copy of a task folder without its notebooks and earlier outputs, to run in."""
    shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("*.ipynb", "outputs", "__pycache__", ".ipynb_checkpoints"))


def prepared(notebook, parameters, results):
    """The notebook with `parameters` set and a last cell that writes `losses` and `metrics` to the file `results`."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    document = load_notebook_node(str(notebook))
    if parameters:  # else a cell that sets nothing would be added
        document = parameterize_notebook(document, parameters)
    document.cells.append(nbformat.v4.new_code_cell(RESULTS_CELL.format(file=results)))
    return document


def execute(notebook, target, parameters=None, progress=False):
    """Execute a notebook in the folder `target` (a copy of its own) and return {losses, metrics, minutes}.

    Raises papermill's PapermillExecutionError, which names cell and error; the copy up to there is in `target`.
    """
    import papermill

    name = Path(notebook).stem
    source, output = target / f".{name}.ipynb", target / f"{name}.ipynb"
    nbformat.write(prepared(notebook, parameters, f"{name}.json"), source)
    start = time.perf_counter()
    bar = {"desc": f"{Path(notebook).parent.name}/{name}", "bar_format": "{desc}: {percentage:3.0f}% |{bar:30}| {elapsed}"}
    quiet = ["--IPKernelApp.log_level=ERROR"]  # no warning about the kernel's transport between the progress bars
    try:
        papermill.execute_notebook(
            source, output, cwd=target, kernel_name="python3", progress_bar=bar if progress else False, extra_arguments=quiet
        )
    finally:
        source.unlink()
        document = nbformat.read(output, as_version=4)
        document.cells.pop()  # the cell that writes the results
        nbformat.write(document, output)
    minutes = (time.perf_counter() - start) / 60
    outcome = json.loads((target / f"{name}.json").read_text()) | {"minutes": minutes}
    (target / f"{name}.json").write_text(json.dumps(outcome))
    return outcome


def script(notebook, target, parameters, results):
    """Export a notebook as a Python script into the folder `target`, with `parameters` set; return its path."""
    from nbconvert import ScriptExporter

    source, resources = ScriptExporter().from_notebook_node(prepared(notebook, parameters, results))
    path = target / f"{Path(notebook).stem}{resources['output_extension']}"
    path.write_text(source, encoding="utf-8")
    return path


def run(chosen=None, refresh=False):
    """Run the notebooks of all folders, or of one. Returns 0, or 1 if one failed."""
    if chosen and chosen not in folders():
        sys.exit(f"no folder {chosen} with notebooks: there is {', '.join(folders())}")
    rows, failed = [], False
    for folder in [chosen] if chosen else folders():
        target = RUNS / folder
        shutil.rmtree(target, ignore_errors=True)
        copy_folder(folder, target)
        for name in PAIR:
            notebook = ROOT / folder / f"{name}.ipynb"
            try:
                outcome = execute(notebook, target, progress=True)
            except Exception as error:  # the other notebooks are still to run
                failed = True
                rows.append([f"{folder}/{name}", "failed", "", "", ""])
                print(f"\n{folder}/{name} failed: {last_line(error)}\n", flush=True)
                continue
            metrics = scores(outcome["metrics"])
            first, last = outcome["losses"][0], outcome["losses"][-1]
            rows.append([f"{folder}/{name}", f"{outcome['minutes']:.1f}", f"{first:.4f}", f"{last:.4f}", metrics])
            if refresh:
                nbformat.write(clean(nbformat.read(target / f"{name}.ipynb", as_version=4)), notebook)
        if (difference := pair_difference(target)) is not None:
            rows.append([f"{folder}: largest loss difference of the pair", "", "", "", f"{difference}"])
    print_table([["notebook", "minutes", "first loss", "last loss", "test metrics"], *rows])
    return int(failed)


def last_line(error):
    """Where and how a notebook failed, in a line."""
    if hasattr(error, "exec_count"):
        return f"cell [{error.exec_count}] {error.ename}: {error.evalue}"
    return f"{type(error).__name__}: {error}"


def pair_difference(target):
    """max |difference| of the two loss curves below `target`; None if one is missing, infinity if they differ in length."""
    files = [target / f"{name}.json" for name in PAIR]
    if not all(file.exists() for file in files):
        return None
    one, two = (json.loads(file.read_text())["losses"] for file in files)
    return max(abs(a - b) for a, b in zip(one, two)) if len(one) == len(two) else float("inf")


def print_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


# ---------------------------------------------------------------------------------------------------- committing


def clean(document):
    """What may be committed of an executed notebook: no progress bars, widget state, timings or papermill's traces."""
    document.metadata.pop("widgets", None)
    document.metadata.pop("papermill", None)
    # without these, `jupyter nbconvert --to script` writes a .txt
    document.metadata["language_info"] = {"name": "python", "file_extension": ".py", "nbconvert_exporter": "python"}
    for cell in document.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_progress(output)]
    return document


def is_progress(output):
    """A progress bar: a widget, or what tqdm writes to stderr. Anything else on stderr stays, to be seen."""
    if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
        return True
    return output.get("name") == "stderr" and bool(re.fullmatch(r"\s*", re.sub(r"[^\r\n]*\d+%\|[^\r\n]*", "", output["text"])))


def results():
    """Write the results table and the overlay of the loss curves into README.md and .github/."""
    import matplotlib.pyplot as plt

    done = [folder for folder in folders() if pair_difference(RUNS / folder) is not None]
    if not done:
        sys.exit("nothing in runs/: make run first")
    lines = ["| task | baselines | Trainer | Accelerate loop | largest loss difference, steps |", "|---|---|---|---|---|"]
    fig, axes = plt.subplots(1, len(done), figsize=(7 * len(done), 3.2), squeeze=False, layout="constrained")
    for folder, ax in zip(done, axes[0]):
        one, two = (json.loads((RUNS / folder / f"{name}.json").read_text()) for name in PAIR)
        baselines = "; ".join(f"{name}: {scores(values)}" for name, values in one["baselines"].items())
        same = f"{pair_difference(RUNS / folder)} over {len(one['losses'])}"
        lines.append(f"| [{folder}]({folder}/) | {baselines} | {scores(one['metrics'])} | {scores(two['metrics'])} | {same} |")
        ax.plot(one["losses"], linewidth=4, color="#9ecae1", label="Trainer")
        ax.plot(two["losses"], linewidth=1, color="black", linestyle="--", label="Accelerate loop")
        ax.set(title=folder.replace("_", " "), xlabel="optimizer step", ylabel="training loss")
        ax.legend()
    fig.savefig(ROOT / ".github" / "pair.png", dpi=110)
    readme = ROOT / "README.md"
    block = "<!-- results -->\n" + "\n".join(lines) + "\n<!-- /results -->"
    readme.write_text(re.sub(r"<!-- results -->.*<!-- /results -->", lambda _: block, readme.read_text(), flags=re.S))


def scores(metrics):
    """In a line; those of other models beside the trained one, which some folders have, are among its baselines."""
    other = ("bm25_", "sparse_", "base_", "fused_", "perplexity_", "probe_before")
    return ", ".join(f"{key} {value:.2f}" for key, value in metrics.items() if not key.startswith(other))


def address():
    """The repository's owner/name, defined once: in the first line of README.md that names it."""
    return re.search(r"^<!-- home: (\S+/\S+) -->$", (ROOT / "README.md").read_text(), flags=re.M)[1]


def home(new):
    """Replace the repository's address in README.md and in all notebooks."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        sys.exit(f"REPO is owner/name, not {new!r}")
    old = address()
    for path in [ROOT / "README.md", *ROOT.glob("*/README.md"), *notebooks()]:
        text = path.read_text(encoding="utf-8").replace(old, new)
        path.write_text(text.replace(f"cd {old.split('/')[1]}\n", f"cd {new.split('/')[1]}\n"), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    command, argument = (sys.argv[1:] + ["", ""])[:2]
    if command in ("run", "refresh"):
        sys.exit(run(argument or None, refresh=command == "refresh"))
    elif command == "results":
        results()
    elif command == "home":
        home(argument)
    else:
        sys.exit(__doc__)
