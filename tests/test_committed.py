"""What is committed is what a reader can rely on: clean notebooks that ran, trained, and agree with each other."""

import ast
import builtins
import re
import symtable

import nbformat
import notebooks
import pytest

FOLDERS = notebooks.folders()
PATHS = [path.relative_to(notebooks.ROOT).as_posix() for path in notebooks.notebooks()]
# the sections in which the two notebooks of a folder say the same thing in two ways; all other cells are identical
DIFFERENT = {"", "Training", "What goes wrong if ..."}
# Search trains for few steps, and starts from an encoder made for it, which one hundred questions hardly tell from a better one;
# so it is judged by what its task asks: nDCG@10 above all others, and the untrained encoder far above BM25 on recall@10.
SEARCH = "semantic_search"
PREFIXES = {"bm25_": "BM25", "sparse_": "SPLADE", "base_": "encoder as it comes", "fused_": "BM25 + fine-tuned"}
PARAMETERS = {
    "checkpoint", "dataset_id", "columns", "num_epochs", "batch_size", "learning_rate", "gradient_accumulation_steps", "seed",
    "output_dir", "resume", "push_to_hub",
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
        if match := re.match(r"## (.+)", cell.source):
            heading = match[1]
            found[heading] = []
        found[heading].append((cell.cell_type, cell.source))
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
        assert not any("widget" in kind for o in cell.outputs for kind in o.get("data", {})), cell.source


@pytest.mark.parametrize("path", PATHS)
def test_the_parameters_cell_is_tagged_and_complete(path):
    (cell,) = [cell for cell in code_cells(read(path)) if "parameters" in cell.metadata.get("tags", [])]
    assigned = [node for node in ast.parse(cell.source).body]
    assert all(isinstance(node, ast.Assign) for node in assigned)
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in assigned}
    assert values["columns"] == {} and values["push_to_hub"] == "" and values["resume"] is False, "nothing is done that nobody asked for"
    assert values.keys() >= PARAMETERS


@pytest.mark.parametrize("path", PATHS)
def test_badges_and_bootstrap_name_one_address(path):
    address, document = notebooks.address(), read(path)
    title, bootstrap = document.cells[0].source, code_cells(document)[0].source
    assert f"https://colab.research.google.com/github/{address}/blob/main/{path}" in title
    assert f'"https://github.com/{address}"' in bootstrap
    assert f'os.path.basename(repository), "{path.split("/")[0]}"))' in bootstrap
    everything = "\n".join(cell.source for cell in document.cells)
    assert set(re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?=[/\")])", everything)) == {address}
    required = set((notebooks.ROOT / "requirements.txt").read_text().split())
    asked = re.findall(r'"([\w-]+>=[\d.]+)"', bootstrap)
    assert asked and set(asked) <= required, "Colab installs what requirements.txt asks for"


def names_in(cells):
    """Names that the code of cells uses without having them, and those that it imports."""
    top = symtable.symtable("\n".join(cell.source for cell in cells), "cells", "exec")
    tables = [top]
    for table in tables:
        tables += table.get_children()
    symbols = [(table, name) for table in tables for name in table.get_symbols()]
    used = {name.get_name() for table, name in symbols if name.is_referenced() and (table is top or name.is_global())}
    made = {name.get_name() for name in top.get_symbols() if name.is_assigned() or name.is_imported()}
    imported = {name.get_name() for _, name in symbols if name.is_imported()}
    return used - made - set(dir(builtins)), imported


@pytest.mark.parametrize("path", PATHS)
def test_the_training_section_can_be_copied_with_what_it_says_it_takes(path):
    document, heading, training, others = read(path), "", [], []
    for cell in document.cells:
        heading = cell.source.splitlines()[0] if cell.source.startswith("## ") else heading
        if cell.cell_type == "code":
            (training if heading == "## Training" else others).append(cell)
    (introduction,) = [cell.source for cell in document.cells if cell.source.startswith("## Training")]
    told = set(re.findall(r"`(\w+)`", re.search(r"From above it takes the parameters and (.*?)\.", introduction)[1]))
    (parameters,) = [cell for cell in others if "parameters" in cell.metadata.get("tags", [])]
    needed, imported = names_in(training)
    assert needed - {node.targets[0].id for node in ast.parse(parameters.source).body} == told
    assert not told & names_in(others)[1], "an import is missing"
    assert len(imported) > 3


def table(document):
    """The last table of scores that a notebook shows, from its plain text: {row name: {column: value}}."""
    for cell in reversed(code_cells(document)):
        lines = shown(cell).splitlines()
        rows = [re.fullmatch(r"(\S.*?)\s{2,}([\d.]+(?:\s+[\d.]+)*)", line.rstrip()) for line in lines]
        if "baseline_scores" in cell.source and "metrics" in cell.source and any(rows):
            columns = lines[[bool(row) for row in rows].index(True) - 1].split()
            found = {row[1]: dict(zip(columns, map(float, row[2].split()))) for row in rows if row}
            return {name: {column: value for column, value in row.items() if column != "ms"} for name, row in found.items()}
    raise AssertionError("no table with the baselines and the trained model")


@pytest.mark.parametrize("path", PATHS)
def test_training_happened(path):
    document = read(path)
    everything = "\n".join(map(shown, code_cells(document)))
    steps, first, last = re.search(r"(\d+) optimizer steps, loss ([\d.]+) at the first and ([\d.]+) at the last", everything).groups()
    folder = path.split("/")[0]
    assert int(steps) > (15 if folder == SEARCH else 30) and float(last) < 0.7 * float(first)

    metrics = ast.literal_eval(code_cells(document)[-1].outputs[-1]["data"]["text/plain"])
    *baselines, (_, final) = table(document).items()
    assert len(baselines) >= 1
    if folder == SEARCH:
        others = dict(baselines)
        assert all(metrics["ndcg@10"] > scores["ndcg@10"] for scores in others.values())
        assert others["encoder as it comes"]["recall@10"] > others["BM25"]["recall@10"] + 0.1
        expected = final | {prefix + key: value for prefix, name in PREFIXES.items() for key, value in others[name].items()}
    elif folder == "masked_language_modeling":  # lower is better, and what the probe gives is shown, whatever it is
        unigram, before = dict(baselines)["unigram"], dict(baselines)["as it comes"]
        assert metrics["perplexity"] <= 60 and metrics["perplexity"] < unigram["perplexity"] / 5 < before["perplexity"] / 5
        expected = {"perplexity": final["perplexity"], "perplexity_unigram": unigram["perplexity"], "probe_after": final["probe"]}
        expected |= {f"{name}_before": value for name, value in before.items()}
    elif folder == "causal_language_modeling":
        unigram, before = dict(baselines)["unigram"], dict(baselines)["before the stage"]
        assert metrics["perplexity"] <= unigram["perplexity"] / 10 and metrics["new_domain_after"] <= before["new_domain"] / 10
        assert metrics["compliance_before"] <= 0.05 and metrics["compliance"] >= 0.8
        expected = {"perplexity": final["perplexity"], "perplexity_unigram": unigram["perplexity"],
                    "new_domain_before": before["new_domain"], "new_domain_after": final["new_domain"],
                    "first_domain_after": metrics["first_domain_after"],
                    "compliance_before": before["compliance"], "compliance": final["compliance"]}
    else:
        for name, scores in baselines:
            for metric, value in scores.items():
                assert metrics[metric] > value + 0.1, f"{metric} is hardly better than {name}"
        expected = final
    if folder == "token_classification":
        assert metrics["f1"] >= 0.7 and all(metrics["f1"] > scores["f1"] + 0.25 for _, scores in baselines)
    assert expected == pytest.approx(metrics, abs=1e-3)
    for metric, value in final.items():  # what the title promises
        exact = metrics.get(metric, value)  # the table rounds
        assert f"{exact:.2f}" in document.cells[0].source, f"{metric} {exact:.2f} is not in the title"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_committed_pair_has_the_same_results(folder):
    one, two = (read(f"{folder}/{name}.ipynb") for name in notebooks.PAIR)
    assert shown(code_cells(one)[-1]) == shown(code_cells(two)[-1])
    assert table(one) == table(two)


def test_the_readme_names_every_folder_and_no_other():
    readme = (notebooks.ROOT / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+)/\)", readme)) == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_results_table_is_that_of_the_committed_notebooks(folder):
    (row,) = re.findall(rf"^\| \[{folder}\]\({folder}/\) \|.*$", (notebooks.ROOT / "README.md").read_text(), flags=re.M)
    for name in notebooks.PAIR:
        cells = code_cells(read(f"{folder}/{name}.ipynb"))
        metrics = ast.literal_eval(cells[-1].outputs[-1]["data"]["text/plain"])
        assert row.count(f"| {notebooks.scores(metrics)} |") >= 1, row
    known = {"BM25 + fine-tuned"}  # made with the trained model
    for baseline, scores in list(table(read(f"{folder}/trainer_api.ipynb")).items())[:-1]:
        if baseline == "as it comes":  # the table rounds
            scores = {name: metrics.get(f"{name}_before", value) for name, value in scores.items()}
        assert baseline in known or f"{baseline}: {notebooks.scores(scores)}" in row


@pytest.mark.parametrize("path", ["README.md", *(f"{folder}/README.md" for folder in FOLDERS)])
def test_links_lead_somewhere(path):
    file = notebooks.ROOT / path
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
        if not target.startswith("http"):
            assert (file.parent / target).exists(), target
