"""What the cells of a notebook define, taken out by name, so that a test can hold it against an independent reference.

Both notebooks of a pair may be wrong in the same way, and comparing them does not show it.
"""

import ast
import sys
from contextlib import contextmanager
from functools import cache

import nbformat
import notebooks


@cache
def code(folder, name):
    """The code cells of a notebook, parsed: [(source, tree)]."""
    document = nbformat.read(notebooks.ROOT / folder / f"{name}.ipynb", as_version=4)
    return [(cell.source, ast.parse(notebooks.python(cell.source))) for cell in document.cells if cell.cell_type == "code"]


def names_made(node):
    """The names that a statement of a cell defines or assigns."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)] if isinstance(node, ast.AugAssign) else []
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}


def makes(source):
    """All names that the statements of a cell make."""
    return {name for node in ast.walk(ast.parse(notebooks.python(source))) if isinstance(node, ast.stmt) for name in names_made(node)}


def definitions(folder, name, *wanted, **given):
    """Functions and classes of a notebook, by name, with `given` as the globals that they find.

    Returns:
        The one wanted, or a list of those wanted.

    Raises:
        LookupError: no cell defines one of them.
    """
    here = dict(given)
    for _, tree in code(folder, name):
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in wanted:
                with importing_common(folder):
                    exec(compile(ast.Module([node], []), f"{folder}/{name}.ipynb", "exec"), here)
    if missing := [each for each in wanted if each not in here]:
        raise LookupError(f"no cell of {folder}/{name}.ipynb defines {missing}")
    found = [here[each] for each in wanted]
    return found[0] if len(found) == 1 else found


def cell_that_makes(folder, name, variable, **given):
    """Run the first cell that assigns or defines `variable` at its top level, with `given` as globals; return all that it leaves.

    Raises:
        LookupError: there is no such cell.
    """
    for source, tree in code(folder, name):
        if any(variable in names_made(node) for node in tree.body):
            here = dict(given)
            with importing_common(folder):
                exec(compile(notebooks.python(source), f"{folder}/{name}.ipynb", "exec"), here)
            return here
    raise LookupError(f"no cell of {folder}/{name}.ipynb makes {variable}")


@contextmanager
def importing_common(folder):
    """While this lasts, `import common` in a cell finds the module of its folder."""
    before = sys.modules.get("common")
    sys.modules["common"] = notebooks.common_of(folder)
    try:
        yield
    finally:
        sys.modules.pop("common")
        if before is not None:
            sys.modules["common"] = before
