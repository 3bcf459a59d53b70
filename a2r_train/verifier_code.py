"""The code of a custom verifier: its module, and what that imports from beside it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

OURS = "a2r_train"  # changes with the version, which versions.json names


def module_of(verifier: str) -> str:
    """The dotted name of a custom verifier's module; "" for a verifier of ours."""
    return verifier.partition(">=")[0].replace(":", ".").rpartition(".")[0]


def code_of(verifier: str) -> str:
    """The file of a custom verifier's module, found without importing it; "" if there is none.

    Verifiers are imported from the import path, and then from the working directory.
    """
    module = module_of(verifier)
    top, *below = module.split(".")
    try:
        spec = find_spec(top) if top else None
    except ValueError:  # __main__ has no file of its own to find
        spec = None
    homes = [*(spec.submodule_search_locations or () if spec else ()), top]
    stems = [os.path.join(home, *below) for home in homes if module]
    single = [spec.origin] if spec and spec.origin and not below else []
    files = [*single, *(stem + ending for stem in stems for ending in (".py", "/__init__.py"))]
    return next((file for file in files if os.path.isfile(file)), "")


def sources_of(verifier: str) -> list[str]:
    """The file of a custom verifier's module, then, sorted, the files that it imports from the folder of its
    top package, directly or through others. Nothing is imported.

    Of an installed package only its own files count. Imports that are computed, and data that a verifier
    reads, are not seen.
    """
    module, path = module_of(verifier), code_of(verifier)
    if not path:
        return []
    first = Path(path).absolute()
    root = first.parents[module.count(".") + (first.name == "__init__.py")]
    alone = module.split(".")[0] if "site-packages" in root.parts else ""
    found, left = {first: module}, [first]
    while left:
        file = left.pop()
        for name in _imports(found[file], file):
            top, other = name.split(".")[0], _file_in(root, name)
            if other and other not in found and (top == alone if alone else top != OURS):
                found[other] = name
                left.append(other)
    return [str(first), *sorted(map(str, found.keys() - {first}))]


def _file_in(root: Path, module: str) -> Path | None:
    """The file of a module in the folder; None if it is elsewhere."""
    stem = root.joinpath(*module.split("."))
    both = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((file for file in both if file.is_file()), None)


def _imports(module: str, file: Path) -> Iterator[str]:
    """Dotted names that the statements of a file may import, with the packages that contain them."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return  # it cannot be imported either, and whoever calls the verifier says so
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            names = [f"{base}.{alias.name}".strip(".") for alias in node.names]
        for name in names:
            yield from accumulate(name.split("."), lambda one, two: f"{one}.{two}")
