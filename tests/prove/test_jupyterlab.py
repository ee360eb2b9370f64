"""Notebooks opened and run in JupyterLab, in a browser, as a reader does: what is seen on the page."""

import json
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import notebooks
import pytest
from browser import MISSING, find
from nbformat.v4 import new_code_cell, new_notebook
from parameters import LEARNABLE
from playwright.sync_api import sync_playwright

FOLDER = "sequence_classification"
PATIENCE = 300  # seconds, for what takes twenty on an idle machine
# A cell that has left the window would not be on the page, so all are kept there; and nobody is here to be asked about news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# Notes how full each bar of each cell is, whenever that changes. Trainer's bar is a <progress>, that of tqdm a box of some width.
WATCH = """
window.bars = {};
setInterval(() => document.querySelectorAll(".jp-Notebook .jp-Cell").forEach((cell, i) =>
    cell.querySelectorAll(".jp-OutputArea-output :is(progress, .progress-bar)").forEach((bar, j) => {
        const full = bar.tagName === "PROGRESS" ? bar.value / bar.max : parseFloat(bar.style.width) / 100;
        const seen = (window.bars[i] ??= [])[j] ??= [];
        if (seen.at(-1) !== full) seen.push(full);
    })), 50);
"""
# whether cells have run, and none is running or waiting
FINISHED = """
() => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map((prompt) => prompt.textContent).join("");
    return /\\d/.test(prompts) && !prompts.includes("*")
        && [...document.querySelectorAll(".jp-StatusBar-TextItem")].some((item) => item.textContent.endsWith("| Idle"));
}
"""
LOOK = """
() => [...document.querySelectorAll(".jp-Notebook .jp-Cell")].map((cell) => {
    const outputs = [...cell.querySelectorAll(".jp-OutputArea-output")];
    return {
        prompt: cell.querySelector(".jp-InputPrompt")?.textContent ?? "",
        errors: outputs.filter((output) => /jupyter.(error|stderr)$/.test(output.dataset.mimeType)).map((output) => output.innerText),
        images: outputs.flatMap((output) => [...output.querySelectorAll("img")]).map((image) => image.naturalWidth),
        widgets: outputs.filter((output) => output.querySelector(".jupyter-widgets")).length,
        text: outputs.map((output) => output.innerText).join("\\n"),
    };
})
"""
# what is shown in place of a widget: a message, or what it prints as
NO_WIDGET = ["Error displaying widget", "Error creating widget", "Loading widget", "(children=(", "%|"]


@pytest.fixture(scope="module")
def browser():
    if not find():
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=find())


@pytest.fixture(scope="module")
def lab(hub, tmp_path_factory):
    """A running JupyterLab: `root`, a copy of a task folder that it serves, and `address`(notebook)."""
    root, own = tmp_path_factory.mktemp("lab") / FOLDER, tmp_path_factory.mktemp("jupyter")
    notebooks.copy_folder(FOLDER, root)
    for name, settings in SETTINGS.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    # the surroundings of `make lab`: not those of the tests, in which plots and most bars are not shown
    hidden = {"MPLBACKEND", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"}
    environment = {key: value for key, value in hub.environment.items() if key not in hidden}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces")}
    environment |= {f"JUPYTER_{kind}_DIR": str(own / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {"IPYTHONDIR": str(own / "ipython")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}", "--IdentityProvider.token=reader"]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *options]
    with open(own / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(f"http://127.0.0.1:{port}/api"):
            assert server.poll() is None and time.monotonic() < deadline, (own / "log").read_text()[-6000:]
            time.sleep(0.2)
        yield SimpleNamespace(root=root, address=lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?token=reader&reset")
    finally:
        server.terminate()  # ends its kernels, too
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def answers(url):
    try:
        return urlopen(url).status == 200
    except URLError:
        return False


def run_all(browser, lab, name, document, patience):
    """Write a notebook without its outputs, open it, run all cells, and wait until nothing is wrong, at most `patience` seconds more.

    Returns what was seen: `cells`, one for each of the notebook; `bars`, {index of a cell: for each of its bars how full it was, in
    turn}; `plots`, how many each cell has to show; `page_errors`.
    """
    pictures = {"image/png", "image/svg+xml"}
    plots = [sum(bool(pictures & {*output.get("data", {})}) for output in cell.get("outputs", [])) for cell in document.cells]
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(document, lab.root / name)
    page, errors = browser.new_page(viewport={"width": 1400, "height": 1000}), []
    page.set_default_timeout(PATIENCE * 1000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(lab.address(name))
    page.wait_for_selector(".jp-StatusBar-TextItem:has-text('| Idle')")  # what is run before the kernel is there is not run at all
    page.evaluate(f"() => {{{WATCH}}}")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(FINISHED, polling=200)
    deadline = time.monotonic() + patience
    while True:
        bars = {int(cell): values for cell, values in page.evaluate("() => window.bars").items()}
        seen = SimpleNamespace(document=document, cells=page.evaluate(LOOK), bars=bars, plots=plots, page_errors=errors)
        if time.monotonic() > deadline or not any(wrong(seen) for wrong in (failures, still_bars, missing_plots, missing_widgets)):
            page.close()
            return seen
        page.wait_for_timeout(200)


def failures(seen):
    """Cells that did not run in their turn, and errors and warnings that cells show."""
    code = [cell for cell, each in zip(seen.cells, seen.document.cells) if each.cell_type == "code"]
    found = [f"{cell['prompt']} is not {i}" for i, cell in enumerate(code, start=1) if cell["prompt"] != f"[{i}]:"]
    # Trainer says so where it saves two checkpoints within a moment, as it does of a tiny model
    return found + [error for cell in code for error in cell["errors"] if "mtime may not be reliable" not in error]


def still_bars(seen):
    """The bars of the cell that trains, if none of them moves and ends full; loading weights has one as well."""
    code = [(i, cell.source) for i, cell in enumerate(seen.document.cells) if cell.cell_type == "code"]
    (training,) = [i for i, source in code if "resume_from_checkpoint=" in source or "progress_bar.update()" in source]
    bars = seen.bars.get(training, [[]])
    return [] if any(len(values) > 5 and values == sorted(values) and values[-1] == 1 for values in bars) else bars


def missing_plots(seen):
    """Cells that do not show as many plots as they have in the committed notebook."""
    shown = [sum(width > 0 for width in cell["images"]) for cell in seen.cells]
    return [f"cell {i}: {n} of {plots}" for i, (n, plots) in enumerate(zip(shown, seen.plots)) if n != plots]


def missing_widgets(seen):
    """Outputs that should be a widget and are not."""
    return [cell["text"] for cell in seen.cells if any(words in cell["text"] for words in NO_WIDGET)]


@pytest.fixture(scope="module", params=notebooks.PAIR)
def seen(request, browser, lab):
    parameters = LEARNABLE[FOLDER] | {"num_epochs": 20}  # long enough that even a busy machine shows the bar several times
    document = notebooks.prepared(notebooks.ROOT / FOLDER / f"{request.param}.ipynb", parameters, f"{request.param}.json")
    return run_all(browser, lab, f"{request.param}.ipynb", document, patience=20)


def test_every_cell_runs_and_shows_no_error(seen):
    assert len(seen.cells) == len(seen.document.cells)
    assert failures(seen) == []


def test_the_bar_of_training_moves(seen):
    assert still_bars(seen) == []


def test_every_plot_is_shown(seen):
    assert sum(seen.plots) >= 4
    assert missing_plots(seen) == []


def test_every_widget_is_shown(seen):
    assert sum(cell["widgets"] for cell in seen.cells) >= 5, "data sets are mapped and weights are loaded with a bar"
    assert missing_widgets(seen) == []


def test_the_page_has_no_error_of_its_own(seen):
    assert seen.page_errors == []


STILL = """
from tqdm.auto import tqdm
progress_bar = tqdm(total=3)
if False:
    progress_bar.update()
"""
NOT_A_PLOT = """
from IPython.display import HTML, Javascript, display
display(HTML("<img src='data:image/png;base64,AAAA'>"))
display(Javascript("setTimeout(() => { throw new Error('of the page') })"))
"""
NOT_A_WIDGET = """
display({"application/vnd.jupyter.widget-view+json": {"model_id": "none", "version_major": 2, "version_minor": 0}}, raw=True)
"""


def test_what_is_wrong_on_a_page_is_noticed(browser, lab):
    cells = [STILL, NOT_A_PLOT, NOT_A_WIDGET, "print(' 50%|#####     | 1/2')", "1 / 0", "'not reached'"]
    document = new_notebook(cells=[new_code_cell(source) for source in cells])
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document.cells[1].outputs = [nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})]
    seen = run_all(browser, lab, "wrong.ipynb", document, patience=3)
    not_run, error = failures(seen)
    assert not_run == "[ ]: is not 6" and "ZeroDivisionError" in error
    assert still_bars(seen) == [[0]]
    assert missing_plots(seen) == ["cell 1: 0 of 1"]
    assert missing_widgets(seen) == ["Error displaying widget: model not found", " 50%|#####     | 1/2\n"]
    assert seen.page_errors == ["of the page"]
