"""Handing arrays to other processes, and keeping results to a number of threads."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.engine import execute
from bench.engine.lock import locked
from bench.engine.cells import Cell, method_spec

METHOD = """
import numpy as np
from methods import OneClassMethod

class Odd(OneClassMethod):
    name = "odd"

    def fit(self, features):
        if self.checkpoint_dir is not None:
            self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
            (self.checkpoint_dir / "state").touch()
        FIT
        return self

    def score_samples(self, features):
        return features.mean(axis=(1, 2, 3))

    def score_variants(self, features):
        score = self.score_samples(features)
        return VARIANTS
"""


@pytest.fixture
def task(tmp_path):
    """Make the task of one cell of a method with given lines in ``fit`` and given score variants."""

    def make(fit: str = "pass", variants: str = "{'': score}") -> execute.Task:
        path = tmp_path / "odd.py"
        path.write_text(METHOD.replace("FIT", fit).replace("VARIANTS", variants))
        images = np.arange(6 * 3 * 32 * 32, dtype=np.float32).reshape(6, 3, 32, 32)
        labels = np.array([0, 0, 0, 1, 1, 1])
        files = {
            name: execute.as_file(array, tmp_path / f"{name}.npy") for name, array in (("x", images), ("y", labels))
        }
        cell = Cell("digits", "f" * 64, method_spec(f"{path}:Odd", "quick"), None, None, 2, 0, 1, "1", 0)
        folder = str(tmp_path / "checkpoints" / cell.key)
        return execute.Task(cell, files["x"], files["y"], files["x"], files["y"], "cpu", 1, folder, False)

    return make


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "array.npy"
    np.save(path, np.arange(240, dtype=np.int16).reshape(20, 3, 4))
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("part", [slice(None), slice(5, 12), slice(0, 1), slice(19, 20)])
def test_mapped_array_is_not_copied(mapped, tmp_path, part):
    file = execute.as_file(mapped[part], tmp_path / "copy.npy")
    assert not (tmp_path / "copy.npy").exists()
    np.testing.assert_array_equal(file.open(), mapped[part])


def test_slice_of_a_slice(mapped, tmp_path):
    file = execute.as_file(mapped[4:][3:9], tmp_path / "copy.npy")
    np.testing.assert_array_equal(file.open(), mapped[7:13])


@pytest.mark.parametrize("make", [lambda a: np.array(a), lambda a: a[:, :, 1], lambda a: a[::2], lambda a: a + 1])
def test_other_arrays_are_written(mapped, tmp_path, make):
    array = make(mapped)
    file = execute.as_file(array, tmp_path / "copy.npy")
    assert (tmp_path / "copy.npy").exists()
    np.testing.assert_array_equal(file.open(), array)
    assert file.open().dtype == array.dtype


def test_number_of_threads_is_set_and_set_back():
    before = torch.get_num_threads()
    with execute._threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_family_of_scores_counts_its_best():
    in_class = np.array([True, True, False, False])
    bad, good = np.array([0.0, 1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0, 0.0])
    assert execute._best_auc(in_class, bad) == 0.0
    assert execute._best_auc(in_class, np.stack([bad, good])) == 0.75


def test_task_leaves_nothing_of_its_training(task):
    outcome = execute.run_task(task())
    assert (outcome.error, outcome.aucs) == ("", {"": 1.0})
    assert list(Path(task().checkpoint_dir).parent.iterdir()) == []


def test_state_of_a_failed_training_stays(task):
    made = task("raise ValueError('no')")
    assert execute.run_task(made).error == "ValueError: no"
    assert [path.name for path in Path(made.checkpoint_dir).parent.iterdir()] == [made.cell.key]


def test_cell_that_another_run_is_at_does_not_touch_its_state(task):
    made = task("assert self.checkpoint_dir is None")
    folder = Path(made.checkpoint_dir)
    folder.mkdir(parents=True)
    (folder / "state").write_text("of the other run")
    with locked(folder.with_name(f"{folder.name}.lock")):
        outcome = execute.run_task(made)
    assert (outcome.error, outcome.aucs) == ("", {"": 1.0})
    assert (folder / "state").read_text() == "of the other run"


@pytest.mark.parametrize("fit", ["raise SystemExit(7)", "import sys; sys.exit(7)"])
def test_method_that_ends_the_program_costs_its_cell(task, fit):
    assert execute.run_task(task(fit)).error == "SystemExit: 7"


@pytest.mark.parametrize("variants", ["{}", "{1: score}", "score", "None", "{'a': score, None: score}"])
def test_variants_that_are_no_scores_by_name_cost_their_cell(task, variants):
    assert execute.run_task(task(variants=variants)).error.startswith("TypeError: score_variants: gave ")


@pytest.mark.parametrize("variants", ["{'': score + 1j}", "{'': score.astype(str)}"])
def test_scores_that_are_no_numbers_cost_their_cell(task, variants):
    assert execute.run_task(task(variants=variants)).error.startswith("TypeError: scores: got dtype")


@pytest.mark.parametrize("content", [b"", b"x" * 400, None])
def test_damaged_features_are_no_features(tmp_path, content):
    path = tmp_path / "features.npy"
    assert execute._kept_features(path, 4) is None
    np.save(path, np.ones((4, 30)))
    assert execute._kept_features(path, 4).shape == (4, 30)
    assert execute._kept_features(path, 5) is None
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    assert execute._kept_features(path, 4) is None


def _lose_a_worker(executor) -> None:
    with executor as pool:
        pool.submit(os._exit, 3).result()


def test_worker_that_dies_is_one_line():
    with pytest.raises(ChildProcessError, match=r"a worker process ended unexpectedly .*; finished cells are kept"):
        _lose_a_worker(execute._executor(2, None))


def test_scheduler_that_is_none_does_not_hold_the_run(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(execute, "ANSWER_SECONDS", 0.3)

    async def served() -> float:
        async def silent(reader, writer):
            await reader.read()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        started = time.monotonic()
        await asyncio.to_thread(_use, f"tcp://127.0.0.1:{port}")
        server.close()
        return time.monotonic() - started

    def _use(address: str) -> None:
        with pytest.raises(ValueError, match=r"--scheduler: no Dask scheduler answers at 'tcp://127.0.0.1:\d+' \("):
            execute._executor(2, address).__enter__()

    assert asyncio.run(served()) < 10
