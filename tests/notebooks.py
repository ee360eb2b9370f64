"""Run, refresh and address the notebooks. The Makefile calls this; the tests import it.

    python tests/notebooks.py run [FOLDER]       every notebook on its defaults, copies and a table in runs/
    python tests/notebooks.py refresh [FOLDER]   the same, and the executed notebooks replace the committed ones
    python tests/notebooks.py seeds [FOLDER]     the loop notebook with other seeds, up to "Common mistakes"; in runs/seeds/
    python tests/notebooks.py results            fill README.md from runs/: results table and the two loss curves
    python tests/notebooks.py home OWNER/NAME    the repository address in README.md and in every notebook
"""

import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"
PAIR = ("trainer_api", "accelerate_loop")
SEEDS = (43, 44)  # beside the default
# one number for each task, in the order in which they are read: what it is called, its name in `metrics`, and the baseline beside it
HEADLINES = {
    "sequence_classification": ("accuracy", "accuracy", "TF-IDF + logistic regression"),
    "token_classification": ("entity F1", "f1", "most frequent tag of the word"),
    "masked_language_modeling": ("accuracy with few labels", "few_labels", "pretrained checkpoint"),
    "causal_language_modeling": ("perplexity", "perplexity", "unigram"),
    "semantic_search": ("nDCG@10", "ndcg@10", "pretrained encoder"),
}
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
    """The module common.py of a task folder; there is one in each, so none can be imported by its name.

    The modules that it imports from its folder have names of their own, but for loading.py, which is the same in all folders.
    """
    spec = importlib.util.spec_from_file_location(f"{folder}_common", ROOT / folder / "common.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / folder))
    return module


def python(source):
    """The source of a cell as plain Python, without the commands for Colab's shell that only IPython understands."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


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


def execute(notebook, target, parameters=None, kernel="python3"):
    """Execute a notebook in the folder `target` (a copy of its own), telling on the way what is running.

    Returns:
        What its results cell wrote, `minutes`, and `sections`: the minutes of each section.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed, whose number is in `cell`. The notebook up to there is in `target`.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    name = Path(notebook).stem
    document = prepared(notebook, parameters, f"{name}.json")
    progress = Progress(f"{Path(notebook).parent.name}/{name}", document)
    # without the option, a warning about the kernel's transport comes between the lines of progress
    client = NotebookClient(
        document, timeout=None, kernel_name=kernel, resources={"metadata": {"path": str(target)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"], on_cell_start=progress.at,
    )
    RUNNING.append(progress)
    try:
        client.execute()
    except CellExecutionError as error:
        error.cell = progress.cell
        raise
    finally:
        progress.end()
        RUNNING.remove(progress)
        document.cells.pop()  # the cell that writes the results
        nbformat.write(document, target / f"{name}.ipynb")
    outcome = json.loads((target / f"{name}.json").read_text())
    outcome |= {"minutes": progress.seconds() / 60, "sections": progress.minutes}
    (target / f"{name}.json").write_text(json.dumps(outcome))
    return outcome


def execute_pair(folder, target, kernel="python3"):
    """Both notebooks of a folder on their defaults, side by side: {name: a finished Future of what `execute` returns}.

    Each computes with one thread, so that two cores are busy all the time. It also makes a run the same on any number of cores: with
    more threads a sum is added up in another order, and the last digits of the losses change.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(len(PAIR)) as pool:
        return {name: pool.submit(execute, ROOT / folder / f"{name}.ipynb", target, kernel=kernel) for name in PAIR}


RUNNING = []  # a Progress for each notebook that is being executed


class Progress:
    """Which cell of a notebook is running, and how long each section took. Outside of a terminal, each new section is told."""

    def __init__(self, name, document):
        self.name, self.minutes, self.section, self.cell = name, {}, "", 0
        self.start = self.since = time.perf_counter()
        heading, self.place, cells = "", {}, 0  # index of a code cell: (its number, its section)
        for index, cell in enumerate(document.cells):
            if cell.cell_type == "markdown":
                heading = (re.findall(r"^## (.+)", cell.source, flags=re.M) or [heading])[-1]
            if cell.cell_type == "code":
                cells += 1
                self.place[index] = cells, heading
        self.total = cells - 1  # without the cell that writes the results

    def seconds(self):
        return time.perf_counter() - self.start

    def end(self):
        now = time.perf_counter()
        self.minutes[self.section] = self.minutes.get(self.section, 0) + (now - self.since) / 60
        self.since = now

    def at(self, cell, cell_index):
        """nbclient calls this when a cell starts."""
        if cell_index in self.place:
            self.end()
            before = self.section
            self.cell, self.section = self.place[cell_index]
            if self.section != before and not sys.stdout.isatty():
                print(self, flush=True)

    def __str__(self):
        minutes, seconds = divmod(int(self.seconds()), 60)
        return f"{self.name}  {minutes}:{seconds:02d}  cell {min(self.cell, self.total)} of {self.total}, {self.section}"


def tell(ended):
    """On a terminal, renew a line on all that is running, once a second until the event `ended`."""
    while sys.stdout.isatty() and not ended.wait(1):
        line = "   ".join(map(str, RUNNING))
        print("\r\033[K" + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)


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
    rows, failed, ended, start = [], False, threading.Event(), time.perf_counter()
    threading.Thread(target=tell, args=[ended], daemon=True).start()
    for folder in [chosen] if chosen else folders():
        target = RUNS / folder
        shutil.rmtree(target, ignore_errors=True)
        copy_folder(folder, target)
        for name, outcome in execute_pair(folder, target).items():
            if error := outcome.exception():  # the other notebooks run all the same
                failed = True
                rows.append([f"{folder}/{name}", "failed", "", "", "", ""])
                print(f"\n{folder}/{name} failed: {last_line(error)}\n", flush=True)
                continue
            outcome = outcome.result()
            metrics = scores(outcome["metrics"])
            first, last = outcome["losses"][0], outcome["losses"][-1]
            longest = sorted(outcome["sections"].items(), key=lambda section: -section[1])[:3]
            parts = ", ".join(f"{section} {minutes:.1f}" for section, minutes in longest)
            rows.append([f"{folder}/{name}", f"{outcome['minutes']:.1f}", parts, f"{first:.4f}", f"{last:.4f}", metrics])
            if refresh:
                document = clean(nbformat.read(target / f"{name}.ipynb", as_version=4))
                document.metadata["results"] = summary(outcome)
                nbformat.write(document, ROOT / folder / f"{name}.ipynb")
        if (difference := pair_difference(target)) is not None:
            rows.append([f"{folder}: largest loss difference of the pair", "", "", "", "", f"{difference}"])
    ended.set()
    print_table([["notebook", "minutes", "most of them in", "first loss", "last loss", "test metrics"], *rows])
    print(f"\n{(time.perf_counter() - start) / 60:.1f} minutes in all")
    return int(failed)


def summary(outcome):
    """What a refreshed notebook keeps of its run in its metadata, so that a test can tell whether a run was the same."""
    losses = json.dumps(outcome["losses"]).encode()
    return {"metrics": outcome["metrics"], "baselines": outcome["baselines"], "losses": hashlib.sha256(losses).hexdigest()}


def last_line(error):
    """Where and how a notebook failed, in a line."""
    return f"cell [{error.cell}] {error.ename}: {error.evalue}" if hasattr(error, "cell") else f"{type(error).__name__}: {error}"


def largest_difference(one, two):
    """The largest |difference| of two lists of losses; infinity if they differ in length, or if one is not a finite number.

    `max` alone would pass over a NaN, with which no number compares.
    """
    if len(one) != len(two) or not all(map(math.isfinite, [*one, *two])):
        return math.inf
    return max((abs(a - b) for a, b in zip(one, two)), default=0.0)


def pair_difference(target):
    """`largest_difference` of the two loss curves below `target`; None if one is missing."""
    files = [target / f"{name}.json" for name in PAIR]
    if not all(file.exists() for file in files):
        return None
    return largest_difference(*(json.loads(file.read_text())["losses"] for file in files))


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


def seeds(chosen=None):
    """Train the loop notebook of all folders, or of one, with the other SEEDS. Returns 0, or 1 if one failed.

    All seeds of a folder run at the same time, each with one thread and up to its `Common mistakes`. What is in runs/seeds/ is kept.
    """
    failed = False
    for folder in [chosen] if chosen else folders():
        jobs = {}
        for seed in SEEDS:
            target = RUNS / "seeds" / folder / str(seed)
            if (target / "accelerate_loop.json").exists():
                continue
            shutil.rmtree(target, ignore_errors=True)
            copy_folder(folder, target)
            document = prepared(ROOT / folder / "accelerate_loop.ipynb", {"seed": seed}, "accelerate_loop.json")
            end = next(i for i, cell in enumerate(document.cells) if cell.source.startswith("## Common mistakes"))
            cells = [cell for cell in [*document.cells[:end], document.cells[-1]] if cell.cell_type == "code"]
            (target / "run.py").write_text("\n\n".join(python(cell.source) for cell in cells), encoding="utf-8")
            with (target / "run.log").open("w") as log:
                jobs[target] = subprocess.Popen(
                    [sys.executable, "run.py"], cwd=target, stdout=log, stderr=log,
                    env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"})
        for target, running in jobs.items():
            failed |= running.wait() != 0
            print(f"{folder}, seed {target.name}: {'done' if running.returncode == 0 else f'failed, see {target}/run.log'}", flush=True)
    return int(failed)


def results():
    """Write the results table and the overlay of the loss curves into README.md and .github/."""
    import matplotlib.pyplot as plt

    done = [folder for folder in HEADLINES if pair_difference(RUNS / folder) is not None]
    if not done:
        sys.exit("nothing in runs/: make run first")
    lines = ["| task | score on the test split | baseline | trained | gain on the same test rows (95% interval) | mean over seeds | "
             "difference of the two notebooks |", "|---|---|---|---|---|---|---|"]
    fig, axes = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for folder, ax in zip(done, axes.flat):
        one, two = (json.loads((RUNS / folder / f"{name}.json").read_text()) for name in PAIR)
        label, metric, rival = HEADLINES[folder]
        before, after = rounded(one["baselines"][rival][metric]), rounded(one["metrics"][metric])
        same = f"{pair_difference(RUNS / folder)} over {len(one['losses'])} steps"
        title = folder.replace("_", " ")
        chance = f"{gain(folder)} | {spread(folder, metric)}"
        lines.append(f"| [{title}]({folder}/) | {label} | {before} ({rival}) | {after} | {chance} | {same} |")
        ax.plot(one["losses"], linewidth=4, color="#9ecae1", label="Trainer")
        ax.plot(two["losses"], linewidth=1, color="black", linestyle="--", label="loop")
        ax.set(title=title, xlabel="optimizer step", ylabel="training loss")
    axes.flat[len(done)].legend(*ax.get_legend_handles_labels(), loc="center", fontsize="large", frameon=False)
    for ax in axes.flat[len(done) :]:
        ax.axis("off")
    fig.savefig(ROOT / ".github" / "pair.png", dpi=100)
    readme = ROOT / "README.md"
    block = "<!-- results -->\n" + "\n".join(lines) + "\n<!-- /results -->"
    readme.write_text(re.sub(r"<!-- results -->.*<!-- /results -->", lambda _: block, readme.read_text(), flags=re.S))


def gain(folder):
    """The first comparison by a paired bootstrap that the executed notebook in runs/ prints."""
    text = (RUNS / folder / "accelerate_loop.ipynb").read_text(encoding="utf-8")
    found = re.search(r"difference ([+-][\d.]+), 95% interval ([+-][\d.]+) to ([+-][\d.]+): (?:a gain|a loss|no gain shown)", text)
    return f"{found[1]} ({found[2]} to {found[3]})" if found else ""


def spread(folder, metric):
    """Mean and standard deviation of a metric over the default seed and those in runs/seeds/."""
    files = [RUNS / folder / "accelerate_loop.json", *RUNS.glob(f"seeds/{folder}/*/accelerate_loop.json")]
    values = [json.loads(file.read_text())["metrics"][metric] for file in files]
    return f"{rounded(statistics.mean(values))} ± {statistics.stdev(values):.2f} ({len(values)})" if len(values) > 1 else "one seed"


def rounded(score):
    """A score to two decimals; a perplexity above ten to three digits."""
    return f"{score:.2f}" if score < 10 else f"{score:,.0f}" if score >= 100 else f"{score:.1f}"


def scores(metrics):
    """In a line, for the table of a run."""
    return ", ".join(f"{key} {rounded(value)}" for key, value in metrics.items())


def address():
    """The repository's owner/name, defined once: in the first line of README.md that names it."""
    return re.search(r"^<!-- home: (\S+/\S+) -->$", (ROOT / "README.md").read_text(), flags=re.M)[1]


def home(new):
    """Replace the repository's address in README.md and in all notebooks."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        sys.exit(f"REPO is owner/name, not {new!r}")
    old, between = address(), "\0"
    for path in [ROOT / "README.md", *ROOT.glob("*/*.md"), *notebooks()]:
        text = path.read_text(encoding="utf-8").replace(old, between).replace(old.split("/")[1], new.split("/")[1])
        path.write_text(text.replace(between, new), encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    command, argument = (sys.argv[1:] + ["", ""])[:2]
    if command in ("run", "refresh"):
        sys.exit(run(argument or None, refresh=command == "refresh"))
    elif command == "seeds":
        sys.exit(seeds(argument or None))
    elif command == "results":
        results()
    elif command == "home":
        home(argument)
    else:
        sys.exit(__doc__)
