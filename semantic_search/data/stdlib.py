"""The collection that the notebooks search: the documentation of the standard library of the Python that runs this.

`load` returns it. As a program, this prints it, one JSON list a line (name, signature, documentation):

    python data/stdlib.py > entries.jsonl

Only the standard library is needed, so it runs on any Python from 3.10 on, also one that has nothing installed.
"""

import ast
import contextlib
import importlib.util
import inspect
import json
import re
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

LIBRARY = Path(sysconfig.get_path("stdlib"))
# modules that only a line of code puts in their place; posixpath also on Windows, for the same names on every platform
HOME = {"os.path": "posixpath", "collections.abc": "_collections_abc"}
# not for programs to import: tests, demonstrations, an editor, what is behind os and os.path, what left the library long ago
LEFT_OUT = {
    "__main__", "antigravity", "distutils", "encodings", "ensurepip", "genericpath", "idlelib", "lib2to3", "nt", "ntpath",
    "nturl2path", "posix", "posixpath", "pydoc_data", "site-packages", "test", "tests", "this", "turtledemo",
}


def load() -> list[dict]:
    """An entry for each documented function, class and method, sorted by name.

    A process of its own looks for them, because the kernel of a notebook replaces some functions of the library.

    Returns:
        Dicts of `id` (the name), `summary` (the first sentence of the documentation) and `text` (name, signature and
        documentation), all str.
    """
    done = subprocess.run([sys.executable, "-I", __file__], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [{"id": name, "summary": first_sentence(doc), "text": f"{name}{signature}: {doc}"} for name, signature, doc in rows]


def first_sentence(text: str) -> str:
    """The first sentence of a text, or its first paragraph if no sentence ends there."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.match(r".+?[.!?](?<!e\.g\.)(?<!i\.e\.)(?=\s|$)|.*", paragraph)[0]


def in_this_python(answers: list[str], since: list[str]) -> list[str]:
    """The answers that the running Python has; `since` is the first version that has each, or "" if all versions do."""
    running = sys.version_info[:2]
    versions = [tuple(int(part) for part in version.split(".")) if version else (0,) for version in since]
    return [name for name, version in zip(answers, versions, strict=True) if version <= running]


def standard_library() -> list[tuple[str, str, str]]:
    """(name, signature, documentation) of every documented public function, class and method, sorted by name.

    Sources are parsed and not imported, so that modules of other platforms are read too and nothing runs; what is written
    in C, and what a module builds only when it is imported, is inspected. An object with several names has the shortest:
    `unittest.TestCase`, and not `unittest.case.TestCase`.
    """
    names = {}  # what identifies an object -> its entry
    for module in public_modules():
        for name, found in public_names(module).items():
            name = f"{module}.{name}".removeprefix("builtins.")
            for key, *entry in read_source(name, *found) if is_source(found) else inspect_object(name, found):
                if key not in names or entry[0].count(".") < names[key][0].count("."):
                    names[key] = entry
    return [tuple(entry) for entry in sorted({entry[0]: entry for entry in reversed(names.values())}.values())]


@cache
def public_modules() -> list[str]:
    """Names of the modules of the standard library that programs may import, sorted."""
    found = set(HOME) | {name for name in sys.stdlib_module_names if importlib.util.find_spec(name)}
    for file in LIBRARY.rglob("*.py"):
        parts = file.relative_to(LIBRARY).with_suffix("").parts
        if parts[0] in sys.stdlib_module_names:
            found.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(name for name in found if not any(part[0] == "_" or part in LEFT_OUT for part in name.split(".")))


@cache
def source_of(module: str) -> Path | None:
    """The file of a module, or None if it is not written in Python."""
    path = LIBRARY / Path(*HOME.get(module, module).split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@cache
def tree_of(module: str) -> ast.Module:
    """The parsed source of a module."""
    return ast.parse(source_of(module).read_text(encoding="utf-8"))


def statements(body: list) -> Iterator[ast.stmt]:
    """All statements of a module, also those under `if` and `try`, but not handlers: they serve where C is missing."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, part, []))


def exported(module: str) -> set[str]:
    """The names in `__all__` as far as they are written out; empty if there is none, or if it is computed."""
    names = set()
    for node in statements(tree_of(module).body):
        parts = list(ast.walk(node)) if isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr)) else []
        if any(isinstance(part, ast.Name) and part.id == "__all__" for part in parts):
            if not any(isinstance(part, ast.comprehension) for part in parts):
                names |= {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return names


def is_source(found: object) -> bool:
    """Whether a name stands for (module, node of its tree), and not for an object."""
    return isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], ast.AST)


@cache
def all_names(module: str) -> tuple[dict, set[str]]:
    """Everything with a name in a module, as (module, node) or, from C, as the object; and which names come from C by `*`."""
    if source_of(module) is None:
        target = importlib.import_module(module)
        own_first = sorted(dir(target), key=lambda name: getattr(getattr(target, name), "__name__", name) != name)
        return {name: getattr(target, name) for name in own_first}, set()
    found, methods, stars = {}, {}, set()
    package = module if source_of(module).name == "__init__.py" else module.rpartition(".")[0]
    for node in statements(tree_of(module).body):
        target, value = getattr(node, "targets", [None])[0], getattr(node, "value", None)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name not in found or isinstance(node, ast.ClassDef) or ast.get_docstring(node):  # what it wraps may have one
                found[node.name] = (module, node)
            methods = {child.name: child for child in node.body if isinstance(child, ast.FunctionDef)} | methods
        elif isinstance(target, ast.Name) and isinstance(value, ast.Attribute) and value.attr in methods:
            found[target.id] = (module, methods[value.attr])  # random.choice = an_object.choice
        elif isinstance(target, ast.Name) and isinstance(value, ast.Name) and value.id in found:
            found[target.id] = found[value.id]  # getpass = unix_getpass
        elif isinstance(target, ast.Attribute) and target.attr == "__doc__" and isinstance(target.value, ast.Name):
            found.pop(target.value.id, None)  # the documentation is put together when the module is imported
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            star, new = node.names[0].name == "*", {alias.name: alias.asname or alias.name for alias in node.names}
            inside = origin.startswith(module + ".") or "._" in f".{origin}" or origin in ("posix", "nt", "genericpath")
            if inside or exported(module) & set(new.values()):
                with contextlib.suppress(ImportError):  # a module in C of another platform
                    there = public_names(origin) if star else all_names(origin)[0]
                    new = {name: name for name in there} if star else new
                    stars |= set(new) if star else set()
                    found |= {new[name]: there[name] for name in new if name in there}
    return found, stars


@cache
def public_names(module: str) -> dict:
    """What a module is meant to give: the names in `__all__`, or else those of its own without an underscore."""
    found, stars = all_names(module)
    if source_of(module) is None:
        return {name: value for name, value in found.items() if name[0] != "_"}
    if not (named := exported(module)):
        own = {name: value for name, value in found.items() if not is_source(value) or value[0].startswith(("_", module))}
        return {name: value for name, value in own.items() if name[0] != "_"}
    named = {name for name in named if name[0] != "_" and f"{module}.{name}" not in public_modules()}
    public = {name: found[name] for name in found if name in named | stars}
    for name in sorted(name for name in named - set(found) if not name.isupper()):  # neither found nor a constant
        below = [all_names(other)[0] for other in public_modules() if other.startswith(module + ".")]
        if there := next((names for names in below if name in names), None):
            public[name] = there[name]
        else:
            with contextlib.suppress(ImportError, AttributeError):
                public[name] = getattr(importlib.import_module(module), name)
    return public


def members(module: str, node: ast.ClassDef) -> list[ast.AST]:
    """The definitions in a class, and those in its bases that are not public: nobody would find them there."""
    found = {}
    for base in reversed(node.bases):
        there = all_names(module)[0].get(getattr(base, "id", None))
        if is_source(there) and isinstance(there[1], ast.ClassDef) and there[1].name not in public_names(there[0]):
            found |= {child.name: child for child in members(*there)}
    return list((found | {child.name: child for child in node.body if hasattr(child, "name")}).values())


def read_source(name: str, module: str, node: ast.AST) -> Iterator[tuple]:
    """(key, name, signature, documentation) of a function or class and of what is defined in it, from the tree."""
    is_class = isinstance(node, ast.ClassDef)
    if ast.get_docstring(node):
        body = node.body if is_class else [node]
        takes = next((ast.unparse(child.args) for child in body if getattr(child, "name", "") in ("__init__", node.name)), "")
        yield id(node), *tidy(name, "(" + re.sub(r"^(self|cls)(, /)?(, |$)", "", takes) + ")", ast.get_docstring(node))
    for child in members(module, node) if is_class else []:
        if child.name[0] != "_":
            yield from read_source(f"{name}.{child.name}", module, child)


def inspect_object(name: str, value: object, owner: type | None = None) -> Iterator[tuple]:
    """The same of a function or class written in C, from the object."""
    doc = value.__doc__ if callable(value) and value.__doc__ != type(value).__doc__ else None  # not what it only inherits
    if isinstance(doc, str) and doc.strip():
        try:
            signature = re.sub(r"^\(\$?(self|type)(, /)?(, )?", "(", str(inspect.signature(value)))
        except Exception:  # none is written down, or its defaults exist only while a program runs
            signature = "()"
        home = owner or value
        key = getattr(home, "__module__", ""), getattr(home, "__qualname__", name), owner and name.rpartition(".")[2]
        yield key, *tidy(name, signature, inspect.cleandoc(doc))
    for key in vars(value) if isinstance(value, type) else []:
        if key[0] != "_" and not isinstance(child := getattr(value, key), type):
            yield from inspect_object(f"{name}.{key}", child, value)


def tidy(name: str, signature: str, doc: str) -> tuple[str, str, str]:
    """Name, signature and documentation, where calls at the top of the documentation, as many in C have them, are taken off."""
    calls = re.match(rf"(?:[\w.]*\b{re.escape(name.rpartition('.')[2])}\(.*\)?(?:\s*->.*)?(?:\n|$))+", doc)
    if calls and signature == "()" and (arguments := re.search(r"\(.*?\)", calls[0])):
        signature = arguments[0]
    return name, signature, (doc[calls.end():] if calls else doc).strip() or doc


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of old modules that say they will go
    for entry in standard_library():
        print(json.dumps(entry))
