"""The decorator of compiled functions: without a place for machine code, and with code of other sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numba

import corel
from corel.persistence.kernels import compiled, cpu

PACKAGE = Path(corel.__file__).parent

NOWHERE = """
import tempfile

def refuse(*args, **options):
    raise PermissionError("read-only")

tempfile.TemporaryFile = refuse  # with it, Numba tries whether it can write to a folder
import torch
import corel
points = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
corel.death_times(points).sum().backward()
print(points.grad.flatten().tolist(), corel.BallCount(1.0).fit(points).score_samples(points).tolist())
"""


def test_everything_runs_where_no_machine_code_can_be_kept():
    run = subprocess.run([sys.executable, "-c", NOWHERE], capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[-1.0, 0.0, 1.0] [2.0, 2.0, 1.0]\n"


def test_no_other_function_asks_numba_for_its_cache():
    asking = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and any(keyword.arg == "cache" for keyword in node.keywords)
    }
    assert asking == {"compiled.py"}


def test_stored_code_depends_on_all_kernel_files(monkeypatch):
    def add_one(x):
        return x + 1

    assert isinstance(cpu.kruskal, numba.core.registry.CPUDispatcher)
    assert cpu.kruskal.py_func.__qualname__ == f"kruskal_{compiled._digest()}"
    monkeypatch.setattr(compiled, "_digest", lambda: "other")
    assert compiled.compiled()(add_one)(1) == 2
    assert add_one.__qualname__.endswith("add_one_other")
