"""Imports go down only, from bench to methods to corel, and never in a circle; and ``import corel`` stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: From the bottom to the top: a package may import itself and those before it.
FLOORS = ("corel", "methods", "bench")


def modules(root: Path) -> dict[str, Path]:
    """All modules of the three packages under ``root``, by their dotted names."""
    found = {}
    for floor in FLOORS:
        for path in (root / floor).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the three packages that a module imports, anywhere in its file.

    ``from package import name`` is an import of the module ``package.name`` where there is one, else of ``package``.
    That Python runs the ``__init__`` of the packages above a module first is no import by whoever asks for the module.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in known else source)
    return {module for module in found if module.split(".")[0] in FLOORS}


def graph(root: Path) -> dict[str, set[str]]:
    known = modules(root)
    return {name: imports(name, path, known) for name, path in known.items()}


def cycle(root: Path) -> list[str]:
    try:
        TopologicalSorter(graph(root)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def upward(root: Path) -> list[str]:
    """Imports of a package by one below it."""
    rank = {floor: place for place, floor in enumerate(FLOORS)}
    return [
        f"{name} imports {other}"
        for name, others in sorted(graph(root).items())
        for other in sorted(others)
        if rank[other.split(".")[0]] > rank[name.split(".")[0]]
    ]


def test_no_module_imports_itself_in_a_circle():
    assert cycle(ROOT) == []


def test_imports_go_down_only():
    assert upward(ROOT) == []


@pytest.mark.parametrize(
    ("files", "circle", "up"),
    [
        ({"corel/a.py": "from corel import b", "corel/b.py": "import numpy"}, False, []),
        ({"corel/a.py": "from corel import b", "corel/b.py": "def f():\n    from .a import f"}, True, []),
        ({"corel/a.py": "import corel.b", "corel/b.py": "from . import a"}, True, []),
        ({"corel/a.py": "def f():\n    import bench.c", "bench/c.py": ""}, False, ["corel.a imports bench.c"]),
        ({"methods/__init__.py": "from methods import a", "methods/a.py": "from methods.b import x"}, False, []),
        ({"methods/__init__.py": "from methods import a", "methods/a.py": "from methods import x"}, True, []),
        ({"methods/__init__.py": "from corel import x"}, False, []),
    ],
)
def test_the_walk_itself(tmp_path, files, circle, up):
    for name, text in {"corel/__init__.py": "", "methods/__init__.py": "", "methods/b.py": "", **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert bool(cycle(tmp_path)) == circle
    assert upward(tmp_path) == up


def test_importing_corel_loads_nothing_heavy():
    program = "import sys, corel; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300
    )
    loaded = set(run.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"pandas", "sklearn", "scipy", "matplotlib", "numba", "llvmlite", "torchvision"}


def test_every_public_name_is_there():
    promised = {
        "Autoencoder", "BallCount", "BranchedLinear", "ConnectivityLoss", "PersistenceDiagram", "death_times",
        "merge_edges", "plot_barcode", "plot_diagram", "theory", "train_autoencoder", "vr_persistence",
    }  # fmt: skip
    program = (
        "import corel; assert set(corel.__all__) <= set(dir(corel)); [getattr(corel, n) for n in corel.__all__]; "
        "print(*corel.__all__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300
    )
    assert set(run.stdout.split()) == promised


#: As setuptools installs packages in place: what it finds comes after what the folders of Python's path hold.
IN_PLACE = """
import importlib.util
import sys


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("bench", "corel", "methods"):
            return importlib.util.spec_from_file_location(name, f"{sys.argv[1]}/{name}/__init__.py")


sys.meta_path.append(Finder)
import bench
print(*(importlib.util.find_spec(name).origin for name in ("bench", "corel", "methods")), sep="\\n")
"""


@pytest.mark.parametrize("file", ["methods/mine.py", "methods/__init__.py", "corel.py"])
def test_a_folder_of_the_same_name_in_the_working_directory(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    words = [sys.executable, "-S", "-c", IN_PLACE, str(ROOT.resolve())]  # -S: without what is installed here
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    found = [Path(line) for line in done.stdout.splitlines()]
    assert found == [ROOT.resolve() / name / "__init__.py" for name in ("bench", "corel", "methods")]
