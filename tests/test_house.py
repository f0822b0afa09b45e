"""The floor plan: which rooms there are, how large, and that imports go one way."""

import ast
import graphlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anomaly.files import ROOT

HOUSE = sorted((ROOT / "anomaly").glob("*.py"))
REPORT = sorted((ROOT / "anomaly" / "report").glob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
COMMANDS = [ROOT / "main.py", *TOOLS]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CODE = [ROOT / "helpers.py", *HOUSE, *REPORT, *COMMANDS, *NOTEBOOKS]
CODE += sorted((ROOT / "tests").glob("*.py"))


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


ROOMS = {name_of(path): path for path in HOUSE + REPORT}


def short(path):
    return path.relative_to(ROOT).as_posix()


def syntax(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        lines = "\n".join("".join(c["source"]) for c in cells).splitlines()
        text = "\n".join(line for line in lines if not line.startswith(("%", "!")))
    return ast.parse(text)


def imports(path):
    """The names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & set(ROOMS) or {node.module}  # rooms, or names from one
    return found


def floor_plan(package):
    """The rooms that a docstring lists, group by group."""
    text = ast.get_docstring(syntax(package / "__init__.py"))
    groups = [re.findall(r"^ {4}(\w+) +\S", part, re.M) for part in text.split("\n\n")]
    return [group for group in groups if group]


# ------------------------------------------------------------------- one way


@pytest.mark.parametrize("path", HOUSE + REPORT, ids=short)
def test_rooms_know_nothing_of_who_uses_them(path):
    users = {"helpers", "main", "tools", "notebooks", "tests"}
    users |= {each.stem for each in (ROOT / "tools").iterdir()}
    assert not {name.split(".")[0] for name in imports(path)} & users


@pytest.mark.parametrize("path", HOUSE, ids=short)
def test_rooms_that_compute_do_not_draw(path):
    assert not any(name.startswith("anomaly.report") for name in imports(path))


def test_helpers_import_rooms_and_nothing_else_of_the_project():
    found = imports(ROOT / "helpers.py")
    own = {name for name in found if (ROOT / name.split(".")[0]).is_dir()}
    own |= {name for name in found if (ROOT / f"{name}.py").exists()}
    assert own and own <= set(ROOMS)
    assert not any(name.startswith("anomaly.report") for name in own)


def test_there_is_no_circle():
    graph = {name: imports(path) & set(ROOMS) for name, path in ROOMS.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("package", [ROOT / "anomaly", ROOT / "anomaly/report"])
def test_rooms_import_from_above_or_beside(package):
    level = {
        f"{name_of(package)}.{name}": number
        for number, group in enumerate(floor_plan(package))
        for name in group
    }
    arrows = [
        (name, other)
        for name in level.keys() & ROOMS.keys()
        for other in imports(ROOMS[name]) & level.keys()
    ]
    assert arrows
    assert [(a, b) for a, b in arrows if level[b] > level[a]] == []


@pytest.mark.parametrize("path", CODE, ids=short)
def test_nothing_bends_the_path(path):
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Attribute) and node.attr == "path":
            assert getattr(node.value, "id", "") != "sys"


@pytest.mark.parametrize(
    "text, found",
    [
        ("import helpers", {"helpers"}),
        ("def f():\n    from main import x", {"main"}),
        ("from anomaly import scores, code", {"anomaly.scores"}),
        ("from anomaly.scores import WHOLE", {"anomaly.scores"}),
        ("from anomaly.report import style", {"anomaly.report.style"}),
        ("import anomaly.report.style as s", {"anomaly.report.style"}),
    ],
)
def test_imports_are_seen(tmp_path, text, found):
    (tmp_path / "a.py").write_text(text)
    assert imports(tmp_path / "a.py") == found


# -------------------------------------------------------------------- size, plan


@pytest.mark.parametrize("path", [ROOT / "helpers.py", *HOUSE, *REPORT], ids=short)
def test_no_room_is_too_large(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (300 if path.stem == "helpers" else 250)


@pytest.mark.parametrize("package", [ROOT / "anomaly", ROOT / "anomaly/report"])
def test_the_floor_plan_names_every_room(package):
    listed = [name for group in floor_plan(package) for name in group]
    there = {path.stem for path in package.iterdir() if path.suffix == ".py"}
    there |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(listed) == sorted(there - {"__init__"})


def test_helpers_can_be_imported_from_anywhere():
    try:
        importlib.metadata.version("image-anomaly-course")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the project is not installed in this environment")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "import helpers; print(helpers.__file__)"],
        cwd=Path("/"),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name == "helpers.py"
