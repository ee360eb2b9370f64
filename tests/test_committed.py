"""What is committed is what a reader can rely on: clean notebooks that ran, trained, and agree with each other."""

import ast
import builtins
import re
import symtable
from types import SimpleNamespace

import nbformat
import notebooks
import pytest

FOLDERS = notebooks.folders()
PATHS = [path.relative_to(notebooks.ROOT).as_posix() for path in notebooks.notebooks()]
# the sections in which the two notebooks of a folder may say the same thing in two ways; all other cells are identical
DIFFERENT = {"", "Training", "Common mistakes"}
# the sections of all notebooks; a task may have more
SECTIONS = [
    "Setup", "Parameters", "Data", "Baselines", "Preprocessing", "One batch, one forward pass", "Training",
    "Trainer and loop, line by line", "Training curves", "Evaluation", "Error analysis", "Inference", "Common mistakes", "Exercises",
    "Make it yours", "Scaling up", "Where to go next",
]
PARAMETERS = {
    "checkpoint", "dataset_id", "columns", "num_epochs", "batch_size", "learning_rate", "gradient_accumulation_steps", "seed",
    "output_dir", "resume", "push_to_hub", "mixed_precision",
}
MACHINE = re.compile(r"(?:^|[\s\"'(=])/(?:root|home|tmp|work|Users|usr|opt|var|private)/|127\.0\.0\.1|[A-Z]:\\\\")


def read(path):
    return nbformat.read(notebooks.ROOT / path, as_version=4)


def code_cells(document):
    return [cell for cell in document.cells if cell.cell_type == "code"]


def shown(cell):
    """All text that a cell shows."""
    kinds = ("text/plain", "text/html")
    return "\n".join("\n".join([o.get("text", ""), *(o.get("data", {}).get(kind, "") for kind in kinds)]) for o in cell.outputs)


def sections(document):
    """{heading: sources of its cells}, where the cells before the first heading have the heading ''."""
    found, heading = {"": []}, ""
    for cell in document.cells:
        parts = re.split(r"^(?=## )", cell.source, flags=re.M) if cell.cell_type == "markdown" else [cell.source]
        for part in filter(None, parts):
            if cell.cell_type == "markdown" and (match := re.match(r"## (.+)", part)):
                heading = match[1]
                found[heading] = []
            found[heading].append((cell.cell_type, part))
    return found


def differing_sections(one, two):
    """Headings whose cells are not the same in both, apart from those that may differ."""
    one, two = sections(one), sections(two)
    if list(one) != list(two):
        return [f"headings {list(one)} and {list(two)}"]
    return [heading for heading in one if heading not in DIFFERENT and one[heading] != two[heading]]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pair_differs_only_where_it_must(folder):
    one, two = (read(f"{folder}/{name}.ipynb") for name in notebooks.PAIR)
    assert differing_sections(one, two) == []
    for document in (one, two):  # the list of exceptions can't swallow the notebook
        alike = [cell for heading, cells in sections(document).items() if heading not in DIFFERENT for cell in cells]
        assert len(alike) > len(document.cells) / 2


@pytest.mark.parametrize("path", PATHS)
def test_the_sections_come_in_one_order(path):
    assert [heading for heading in sections(read(path)) if heading in SECTIONS] == SECTIONS


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_row_of_the_comparison_is_code_of_the_two_notebooks(folder):
    """Left of the middle of the table stands what the Trainer notebook has, on the right what the loop has."""
    text = sections(read(f"{folder}/trainer_api.ipynb"))["Trainer and loop, line by line"][0][1]
    rows = [row.strip("|").split(" | ") for row in text.splitlines() if row.startswith("| ")][1:]
    assert len(rows) >= 10
    for side, name in enumerate(notebooks.PAIR):
        code = "\n".join(cell.source for cell in code_cells(read(f"{folder}/{name}.ipynb")))
        for row in rows:
            for span in re.findall(r"`([^`]+)`", row[side]):
                for part in span.replace("\\|", "|").split("..."):
                    assert squeezed(part) in squeezed(code), f"{span!r} is not in {name}"


def squeezed(code):
    """Without what a line break changes."""
    return re.sub(r"\s+|,(?=\s*[)\]}])", "", code)


@pytest.mark.parametrize("folder", FOLDERS)
def test_drift_between_the_pair_is_noticed(folder):
    one, two = (read(f"{folder}/{name}.ipynb") for name in notebooks.PAIR)
    cell = next(cell for cell in code_cells(two) if "common.load_" in cell.source)
    cell.source += "  # changed"
    assert len(differing_sections(one, two)) == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_notebook_is_ready_to_read(path):
    document = read(path)
    nbformat.validate(document)
    cells = code_cells(document)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run once, from top to bottom"
    assert "widgets" not in document.metadata and "papermill" not in document.metadata
    for cell in cells:
        assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs), cell.source
        assert not re.search(r"\w*Warning\b|Traceback", shown(cell)), cell.source
        assert not MACHINE.search(shown(cell)), cell.source
        assert "train_runtime" not in shown(cell), f"the seconds of one run: end the line with a semicolon\n{cell.source}"
        assert not any("widget" in kind for o in cell.outputs for kind in o.get("data", {})), cell.source


@pytest.mark.parametrize("path", PATHS)
def test_the_parameters_cell_is_tagged_and_complete(path):
    (cell,) = [cell for cell in code_cells(read(path)) if "parameters" in cell.metadata.get("tags", [])]
    assigned = ast.parse(cell.source).body
    assert all(isinstance(node, ast.Assign) for node in assigned)
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in assigned}
    assert values["columns"] == {} and values["push_to_hub"] == "" and values["resume"] is False, "nothing is done that nobody asked for"
    assert values.keys() >= PARAMETERS


@pytest.mark.parametrize("path", PATHS)
def test_badges_and_bootstrap_name_one_address(path):
    address, document = notebooks.address(), read(path)
    title, bootstrap = document.cells[0].source, code_cells(document)[0].source
    assert f"https://colab.research.google.com/github/{address}/blob/main/{path}" in title
    assert f"!git clone --quiet --depth 1 https://github.com/{address}\n" in bootstrap
    assert f"%cd {address.split('/')[1]}/{path.split('/')[0]}\n" in bootstrap
    everything = "\n".join(cell.source for cell in document.cells)
    assert address in set(re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?=[/\")\s])", everything))
    assert everything.count("main-nlp-tasks") == everything.count(address) + 2, "the repository is named by its address"
    required = set((notebooks.ROOT / "requirements.txt").read_text().split())
    asked = re.findall(r'"([\w-]+>=[\d.]+)"', bootstrap)
    assert asked and set(asked) <= required, "Colab installs what requirements.txt asks for"


def names_in(cells):
    """Names that the code of cells uses without having them, and those that it imports."""
    top = symtable.symtable("\n".join(notebooks.python(cell.source) for cell in cells), "cells", "exec")
    tables = [top]
    for table in tables:
        tables += table.get_children()
    symbols = [(table, name) for table in tables for name in table.get_symbols()]
    used = {name.get_name() for table, name in symbols if name.is_referenced() and (table is top or name.is_global())}
    made = {name.get_name() for name in top.get_symbols() if name.is_assigned() or name.is_imported()}
    imported = {name.get_name() for _, name in symbols if name.is_imported()}
    return used - made - set(dir(builtins)), imported


@pytest.mark.parametrize("path", PATHS)
def test_the_training_section_can_be_copied_with_what_it_says_it_uses(path):
    """Besides the parameters and the imports of the setup."""
    document = read(path)
    by_section = {}
    for heading, cells in sections(document).items():
        by_section[heading] = [SimpleNamespace(source=source) for kind, source in cells if kind == "code"]
    introduction = sections(document)["Training"][0][1]
    told = set(re.findall(r"`(\w+)`", re.search(r"This section uses (.*?) from above\.", introduction, flags=re.S)[1]))
    (parameters,) = by_section["Parameters"]
    needed, _ = names_in(by_section["Training"])
    _, imported = names_in(by_section["Setup"])
    assert needed - {node.targets[0].id for node in ast.parse(parameters.source).body} - imported == told


@pytest.mark.parametrize("path", PATHS)
def test_training_happened_and_the_title_says_what_came_of_it(path):
    document, folder = read(path), path.split("/")[0]
    everything = "\n".join(map(shown, code_cells(document)))
    steps, first, last = re.search(r"(\d+) optimizer steps; loss ([\d.]+) at the first and ([\d.]+) at the last", everything).groups()
    assert int(steps) >= 16 and float(last) < 0.7 * float(first)
    results = document.metadata["results"]
    _, metric, rival = notebooks.HEADLINES[folder]
    found, baseline = results["metrics"][metric], results["baselines"][rival][metric]
    assert found < baseline if metric == "perplexity" else found > baseline
    for value in (found, baseline):
        assert notebooks.rounded(value) in document.cells[0].source, f"{metric} {value} is not in the title"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_committed_pair_has_the_same_results(folder):
    one, two = (read(f"{folder}/{name}.ipynb").metadata["results"] for name in notebooks.PAIR)
    assert one == two


def test_the_readme_names_every_folder_and_no_other():
    readme = (notebooks.ROOT / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+)/\)", readme)) == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_results_table_is_that_of_the_committed_notebooks(folder):
    title = folder.replace("_", " ")
    (row,) = re.findall(rf"^\| \[{title}\]\({folder}/\) \|.*$", (notebooks.ROOT / "README.md").read_text(), flags=re.M)
    results = read(f"{folder}/trainer_api.ipynb").metadata["results"]
    label, metric, rival = notebooks.HEADLINES[folder]
    numbers = [notebooks.rounded(value) for value in (results["baselines"][rival][metric], results["metrics"][metric])]
    start = f"| [{title}]({folder}/) | {label} | {numbers[0]} ({rival}) | {numbers[1]} | "
    assert re.fullmatch(re.escape(start) + r"[^|]* \| [^|]+ \| 0\.0 over \d+ steps \|", row), row


@pytest.mark.parametrize("path", ["README.md", *(f"{folder}/{name}.md" for folder in FOLDERS for name in ("README", "solutions"))])
def test_links_lead_somewhere(path):
    file = notebooks.ROOT / path
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
        if not target.startswith("http"):
            assert (file.parent / target).exists(), target
