"""The default data of this folder: the documentation of the Python that runs it. `common.load_splits` calls `load`.

The texts are not stored in this repository, since they belong to the authors of Python. They are on your machine already.
"""

import ast
import hashlib
import re
import sys
import sysconfig
import warnings
from pathlib import Path
from pydoc_data.topics import topics

# demonstrations, tests, an editor, and what has left the library or is not meant to be imported
LEFT_OUT = {
    "__pycache__", "antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "this",
    "turtledemo",
}


def load() -> dict[str, list[dict]]:
    """The texts of each split, `train`, `validation` and `test`, as dicts with `text` and `label`; no module is in two splits."""
    rows = docstrings()
    return {split: [row for row in rows if split_of(row["label"]) == split] for split in ("train", "validation", "test")}


def docstrings() -> list[dict]:
    """Every docstring in the sources of the standard library, and the help topics of `pydoc`.

    The sources are parsed, not imported, so nothing is executed and the modules of other platforms are read too. A text
    that occurs several times is kept once.

    Returns:
        A dict for each text with `text` and `label`, the name of its top-level module: "json" for json/decoder.py,
        "decimal" for _pydecimal.py, "topics" for the help topics.
    """
    library, found = Path(sysconfig.get_path("stdlib")), {}
    for file in sorted(library.rglob("*.py")):
        parts = file.relative_to(library).with_suffix("").parts
        if parts[0] not in sys.stdlib_module_names or LEFT_OUT & set(parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some old sources contain invalid escape sequences
            tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                doc = (ast.get_docstring(node) or "").strip()
                if doc:
                    found.setdefault(doc, re.sub("^_(py_?)?", "", parts[0]).strip("_").removesuffix("_abc"))
    for doc in topics.values():
        found.setdefault(doc.strip(), "topics")
    return [{"text": doc, "label": module} for doc, module in found.items()]


def split_of(module: str) -> str:
    """The split of a module, by a hash of its name: about a tenth of the modules in `validation`, and a tenth in `test`.

    A module keeps its split when others come or go with the next version of Python. The help topics repeat one another,
    so they are all in `train`.
    """
    tenth = hashlib.sha256(module.encode()).digest()[0] % 10
    return "train" if module == "topics" or tenth > 1 else ("test", "validation")[tenth]
