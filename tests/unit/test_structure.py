"""The shape of the code: imports point one way, functions and files stay small, the command starts light."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import a2r_train

ROOT = Path(__file__).parents[2]
PACKAGE = Path(a2r_train.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
BESIDE = [
    path
    for folder in ("scripts", "tests")
    for path in sorted((Path(__file__).parents[2] / folder).rglob("*.py"))
]
# A room imports from rooms of its own line and of the lines above it, and from none in a circle.
LINES = [
    {
        "errors",
        "config",
        "records",
        "models",
        "markers",
        "prompts",
        "sections",
        "output",
        "paths",
        "process",
        "quiet",
        "atomic",
        "verifier_code",
    },
    {"verify", "engines"},
    {"inference", "data"},
    {"train", "evaluate"},
    {"commands"},
    {"cli", "stages"},
]
LINE_OF = {room: i for i, line in enumerate(LINES) for room in line}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            whole = node.module == "a2r_train"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if whole else [str(node.module)]
        yield from (name.split(".")[1] for name in names if name.startswith("a2r_train."))


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent != PACKAGE or p.name != "__init__.py"], ids=str
)
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in LINE_OF, f"{room} is a new room: give it a line"
    for other in imported_rooms(path):
        if other not in (room, "__version__"):
            assert LINE_OF[other] <= LINE_OF[room], f"{path} imports {other}"


def test_rooms_of_a_line_do_not_import_each_other_in_circles() -> None:
    edges = {
        room: {other for p in FILES if room_of(p) == room for other in imported_rooms(p)} - {room}
        for room in LINE_OF
    }
    while free := {room for room, others in edges.items() if not others & set(edges)}:
        edges = {room: others for room, others in edges.items() if room not in free}
    assert not edges


def test_files_of_training_do_not_import_each_other_in_circles() -> None:
    names = {
        path: ".".join(("a2r_train", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in sorted((PACKAGE / "train").rglob("*.py"))
        if path.name != "__init__.py"
    }
    edges = {name: set(imported_modules(path)) & set(names.values()) for path, name in names.items()}
    while free := {name for name, others in edges.items() if not others & set(edges)}:
        edges = {name: others for name, others in edges.items() if name not in free}
    assert not edges


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_imports_what_another_keeps_to_itself(path: Path) -> None:
    for name in imported_modules(path):
        last = name.rpartition(".")[2]
        own = name.startswith("a2r_train.") and last.startswith("_") and not last.startswith("__")
        assert not own, f"{path} imports {name}"


@pytest.mark.parametrize("path", [*FILES, *BESIDE], ids=str)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, f"{path}: {node.name}"


def test_the_files_that_contributing_names_are_there() -> None:
    """By folder, as its table has them; the names of single files stand for those of the package itself."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    places = {folder.strip("`"): re.findall(r"`([a-z_]+\.py)`", named) for folder, named in rows}
    places["a2r_train/"] = places.pop("single files")
    named = [(folder, name) for folder, names in places.items() for name in names]
    assert len(named) > 80
    assert [place for place in named if not list((ROOT / place[0]).rglob(place[1]))] == []
