"""The process after other people's code."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.engine.isolation import process_unchanged

STATE = {
    "working directory": (lambda: os.chdir("/"), Path.cwd),
    "environment": (lambda: os.environ.update(COREL_TEST="1"), lambda: os.environ.get("COREL_TEST")),
    "removed variable": (lambda: os.environ.pop("PATH"), lambda: os.environ.get("PATH")),
    "warning filters": (lambda: warnings.simplefilter("error"), lambda: list(warnings.filters)),
    "NumPy errors": (lambda: np.seterr(all="raise"), np.geterr),
    "dtype": (lambda: torch.set_default_dtype(torch.float64), torch.get_default_dtype),
    "device": (lambda: torch.set_default_device("meta"), torch.get_default_device),
    "gradients": (lambda: torch.set_grad_enabled(False), torch.is_grad_enabled),
    "precision": (lambda: torch.set_float32_matmul_precision("medium"), torch.get_float32_matmul_precision),
    "cuDNN": (lambda: setattr(torch.backends.cudnn, "benchmark", True), lambda: torch.backends.cudnn.benchmark),
    "determinism": (
        lambda: torch.use_deterministic_algorithms(True, warn_only=True),
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
    ),
    "Python's generator": (lambda: random.seed(7), random.getstate),
    "NumPy's generator": (lambda: np.random.seed(7), lambda: np.random.get_state()[1].tolist()),  # noqa: NPY002
    "PyTorch's generator": (lambda: torch.manual_seed(7), lambda: torch.get_rng_state().tolist()),
}

if hasattr(torch.backends, "fp32_precision"):  # from PyTorch 2.9 on
    STATE["precision by the newer interface"] = (
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
        lambda: torch.backends.cuda.matmul.fp32_precision,
    )


@pytest.mark.parametrize("name", STATE)
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_changed_is_set_back(name, fails, tmp_path, monkeypatch):
    change, read = STATE[name]
    monkeypatch.chdir(tmp_path)
    before = read()
    try:
        with process_unchanged():
            change()
            assert read() != before
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert read() == before


def test_generators_within_depend_on_the_seed_alone():
    def drawn(seed: int) -> list[float]:
        with process_unchanged(seed):
            return [random.random(), np.random.random(), torch.rand(1).item()]  # noqa: NPY002

    first = drawn(2**62 + 3)
    random.random()
    torch.rand(3)
    assert drawn(2**62 + 3) == first
    assert all(a != b for a, b in zip(drawn(4), first, strict=True))


def test_a_working_directory_that_is_removed(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with process_unchanged():
        pass
