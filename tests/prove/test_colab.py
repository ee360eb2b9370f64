"""The first cells of every notebook, run as on Colab: in an empty folder, with the repository still to be fetched."""

import ast
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
import venv
import zipfile
from pathlib import Path

import nbformat
import notebooks
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDERS = notebooks.folders()
PATHS = [path.relative_to(notebooks.ROOT).as_posix() for path in notebooks.notebooks()]
ADDRESS = f"https://github.com/{notebooks.address()}"

COLAB = dict(line.split("==") for line in (notebooks.ROOT / "tests" / "colab.txt").read_text().splitlines() if line[0] != "#")
# Colab may have imported these before the first cell runs, or has built others against them: to replace one asks for a restart
FIXED = {"torch", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "ipython", "ipywidgets"}


def code_cells(path):
    return [cell for cell in nbformat.read(notebooks.ROOT / path, as_version=4).cells if cell.cell_type == "code"]


def setup_cells(path):
    """The code cells of the section "## Setup": bootstrap, versions, imports."""
    found, inside = [], False
    for cell in nbformat.read(notebooks.ROOT / path, as_version=4).cells:
        if headings := re.findall(r"^## (.+)", cell.source, flags=re.M) if cell.cell_type == "markdown" else []:
            inside = headings[-1] == "Setup"
        elif inside and cell.cell_type == "code":
            found.append(cell.source)
    return found


class Shell:
    """Stands in for IPython: notes the commands of a cell and runs none."""

    def __init__(self):
        self.commands = []

    def system(self, command):
        self.commands.append(command)

    def run_line_magic(self, name, line):
        self.commands.append(f"{name} {line}")


def commands(path, on_colab, monkeypatch):
    """The commands of the shell and of IPython that the bootstrap cell would run in an empty folder."""
    shell = Shell()
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "exists", lambda path: False)
        if on_colab:
            patch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        else:
            patch.delitem(sys.modules, "google.colab", raising=False)
        exec(notebooks.python(code_cells(path)[0].source), {"get_ipython": lambda: shell})
    return shell.commands


# ---------------------------------------------------------------------------------------------------- run as on Colab

# The first cell of a session: the module that Colab has, and a record of what is installed.
BEFORE = """
import importlib, importlib.metadata, json, os, pathlib, sys
sys.path.append({colab!r})
import google.colab
def installed():
    return {{found.name: found.version for found in importlib.metadata.distributions()}}
def fetched():
    return [path.stat().st_mtime_ns for path in pathlib.Path({content!r}).glob("*/.git/HEAD")]
before = installed()
"""
FETCHED = "first, folder, after = fetched(), os.getcwd(), installed()"
RESTARTED = "second = [fetched(), os.getcwd()]; os.chdir({content!r})"
AFTER = """
modules = {{}}
for module, names in importlib.metadata.packages_distributions().items():
    for name in names:
        modules.setdefault(name, []).append(module)
for name in {named!r}:
    (module,) = modules[name]
    importlib.import_module(module)
third = [fetched(), os.getcwd()]
found = {{"first": first, "folder": folder, "second": second, "third": third, "before": before, "after": after, "common": common.__file__}}
with open({results!r}, "w") as file:
    json.dump(found, file)
"""


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A repository that has, in one commit, the task folders as they are here, without what git ignores."""
    if not shutil.which("git"):
        pytest.skip("git is not installed: the cell fetches the repository with it")
    here = tmp_path_factory.mktemp("remote")
    shutil.copy(notebooks.ROOT / ".gitignore", here)
    ignored = [line.strip("/") for line in (here / ".gitignore").read_text().split()]
    for folder in FOLDERS:
        shutil.copytree(notebooks.ROOT / folder, here / folder, ignore=shutil.ignore_patterns(*ignored))
    git = ["git", "-c", "user.name=reader", "-c", "user.email=reader@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *command], cwd=here, env=without_git(), check=True)
    return here


def without_git(**more):
    """The environment without what git is told in it, by a hook that runs the tests, say."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | more


@pytest.fixture(scope="module", params=FOLDERS)
def session(request, remote, tmp_path_factory):
    """What one session on Colab gave: the setup of a notebook, then its first cell again, then after a restart of the session."""
    folder, content = request.param, tmp_path_factory.mktemp("content").resolve()
    colab = tmp_path_factory.mktemp("colab")  # `google` is a folder without __init__.py, there as here, that others share
    (colab / "google" / "colab").mkdir(parents=True)
    (colab / "google" / "colab" / "__init__.py").touch()
    results = tmp_path_factory.mktemp("results") / "results.json"
    bootstrap, *others = setup_cells(f"{folder}/trainer_api.ipynb")
    named = re.findall(r'"([\w-]+)>=', bootstrap)
    values = {"colab": str(colab), "content": str(content), "results": str(results), "named": named}
    before, fetched, restarted, after = (text.format(**values) for text in (BEFORE, FETCHED, RESTARTED, AFTER))
    cells = [before, bootstrap, fetched, *others, bootstrap, restarted, bootstrap, after]
    document = new_notebook(cells=[new_code_cell(source) for source in cells])
    # git itself turns the address in the cell into that of the repository above, and would not ask for a password if it did not
    environment = without_git(
        GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0=f"url.{remote.as_uri()}.insteadOf", GIT_CONFIG_VALUE_0=ADDRESS, GIT_TERMINAL_PROMPT="0"
    )
    client = NotebookClient(document, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(content)}})
    client.execute(env=environment)  # in a kernel, since it decides where `import common` looks; raises what a cell raises
    return types.SimpleNamespace(name=folder, content=content, **json.loads(results.read_text()))


def test_the_cell_fetches_the_repository_and_goes_to_the_folder_of_the_task(session, remote, monkeypatch):
    clone = session.content / notebooks.address().split("/")[1]
    assert Path(session.folder) == clone / session.name and len(session.first) == 1
    git, cd, pip = commands(f"{session.name}/trainer_api.ipynb", True, monkeypatch)
    assert git == f"git clone --quiet --depth 1 {ADDRESS}" and cd == f"cd {clone.name}/{session.name}" and pip.startswith("pip install ")
    assert [path.name for path in session.content.iterdir()] == [clone.name]
    for path in (remote / session.name).glob("*.*"):
        assert (clone / session.name / path.name).read_bytes() == path.read_bytes()


def test_the_setup_runs_in_the_session_that_fetched_it(session):
    """The fixture ran all its cells and imported each library that the first one names, without a restart."""
    assert Path(session.common) == Path(session.folder) / "common.py"


def test_a_second_run_of_the_cell_does_nothing(session):
    assert session.second == [session.first, session.folder]


def test_after_a_restart_the_cell_fetches_nothing_twice(session):
    assert session.third == [session.first, session.folder]


def test_nothing_that_was_there_is_replaced(session):
    assert len(session.before) > 50
    assert {name: session.after.get(name) for name in session.before} == session.before


@pytest.mark.parametrize("folder", FOLDERS)
def test_both_notebooks_have_the_same_setup(folder):
    one, two = (setup_cells(f"{folder}/{name}.ipynb") for name in notebooks.PAIR)
    assert one == two and len(one) >= 2
    assert one[0] == code_cells(f"{folder}/trainer_api.ipynb")[0].source, "the first cell of all"


@pytest.mark.parametrize("path", PATHS)
def test_elsewhere_the_cell_does_nothing(path, monkeypatch):
    assert commands(path, False, monkeypatch) == []


# ---------------------------------------------------------------------------------------------------- what is on Colab


def asked(path, monkeypatch):
    """The arguments of pip in the bootstrap cell."""
    name, *arguments = shlex.split(commands(path, True, monkeypatch)[-1])
    assert name == "pip"
    return arguments


def requirements_of(names):
    """{name: its requirements} of installed distributions and all that they need, as far as these are installed."""
    found, waiting = {}, [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        parsed = [Requirement(line) for line in lines]
        found[name] = [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]
        waiting += [canonicalize_name(each.name) for each in found[name]]
    return found


def write_wheel(folder, name, version, requirements=()):
    metadata = header(name, version) + "".join(f"Requires-Dist: {each}\n" for each in requirements)
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


def header(name, version):
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """resolve(arguments): {name: version} that pip would install on Colab, asked with these arguments.

    An environment in which every package of COLAB is installed, as far as pip can tell, and an index that has what is installed
    here, and beside it a version of each package of FIXED that is newer than all. All of them are a name, a version and
    requirements, and no file more, so that nothing is fetched and it takes seconds.
    """
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment" / "bin" / "python"
    (site,) = (folder / "environment" / "lib").glob("python*/site-packages")
    for name, version in COLAB.items():
        information = site / f"{name.replace('-', '_')}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(header(name, version))
    index = folder / "index"
    index.mkdir()
    for name in FIXED:
        write_wheel(index, name, "99999")
    named = {re.split("[<>=]", line)[0] for line in (notebooks.ROOT / "requirements.txt").read_text().split()}
    for name, requirements in requirements_of(named - FIXED).items():
        write_wheel(index, name, importlib.metadata.version(name), requirements)

    def resolve(arguments):
        report = folder / "report.json"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--isolated"]
        options = ["--dry-run", "--no-index", "--find-links", str(index), "--report", str(report)]
        environment = os.environ | {"PIP_CONFIG_FILE": os.devnull}
        done = subprocess.run([*pip, *arguments, *options], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = [entry["metadata"] for entry in json.loads(report.read_text())["install"]]
        return {canonicalize_name(entry["name"]): entry["version"] for entry in found}

    return resolve


@pytest.mark.parametrize("folder", FOLDERS)
def test_pip_replaces_only_what_is_named_or_too_old_for_it(folder, colab, monkeypatch):
    arguments = asked(f"{folder}/trainer_api.ipynb", monkeypatch)
    assert arguments[:2] == ["install", "--quiet"] and not any(part.startswith("-") for part in arguments[2:])
    named = [Requirement(part) for part in arguments[2:]]
    replaced = colab(arguments)
    everything = requirements_of([each.name for each in named])
    wanted = [*named, *(each for name in replaced for each in everything[name])]
    too_old = {
        name for each in wanted if (name := canonicalize_name(each.name)) in COLAB and not each.specifier.contains(COLAB[name])
    }
    missing = {canonicalize_name(each.name) for each in wanted} - COLAB.keys()
    assert set(replaced) == too_old | missing
    assert "transformers" in replaced, "with nothing to do this would prove nothing"
    assert not FIXED & replaced.keys()


@pytest.mark.parametrize("option", [["--upgrade", "--upgrade-strategy", "eager"], ["numpy>=2.2"]])
def test_a_cell_that_replaces_too_much_is_noticed(option, colab, monkeypatch):
    assert "numpy" in colab([*asked(f"{FOLDERS[0]}/trainer_api.ipynb", monkeypatch), *option])


def imported(folder):
    """Names of the modules that the notebooks of a folder and its own modules import, without those of Python and of the folder."""
    sources = [cell.source for name in notebooks.PAIR for cell in code_cells(f"{folder}/{name}.ipynb")]
    modules = list((notebooks.ROOT / folder).glob("*.py"))
    names = set()
    for source in [*sources, *(path.read_text(encoding="utf-8") for path in modules)]:
        for node in ast.walk(ast.parse(notebooks.python(source))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {path.stem for path in modules} - {"data"}  # the folder of the task's own data


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_import_is_on_colab_or_named_by_the_cell(folder, monkeypatch):
    required = {canonicalize_name(each.name): each for each in map(Requirement, (notebooks.ROOT / "requirements.txt").read_text().split())}
    named = [Requirement(part) for part in asked(f"{folder}/trainer_api.ipynb", monkeypatch)[2:]]
    bounds = {canonicalize_name(each.name): each.specifier for each in named}
    assert bounds == {name: required[name].specifier for name in bounds}, "the bounds are those of requirements.txt"
    assert not FIXED & bounds.keys()
    distributions = importlib.metadata.packages_distributions()
    assert len(imported(folder)) > 8
    for module in imported(folder):
        name = canonicalize_name(distributions.get(module, [module])[0])
        assert name in bounds or name in COLAB, f"{module} is neither on Colab nor named by the cell"
        if name not in bounds and name in required:
            assert required[name].specifier.contains(COLAB[name]), f"{name} is on Colab, but too old"
