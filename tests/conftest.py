"""Tests leave the environment as they found it, and do not slow each other down."""

from __future__ import annotations

import os

import pytest
import torch
from threadpoolctl import threadpool_limits

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests side by side share the cores: with a thread for each core each, they would take several times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that they start
    torch.set_num_threads(1)
    threadpool_limits(1)
THREADS = torch.get_num_threads()


@pytest.fixture(scope="module", autouse=True)
def _environment():
    """Restore the environment's variables, some of which Dask sets for the processes that it starts, and threads.

    For a module, because clusters that its tests share are made before a fixture of a single test is.
    """
    before = dict(os.environ)
    torch.set_num_threads(THREADS)  # a library that is imported while tests are collected may have changed it
    yield
    torch.set_num_threads(THREADS)
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)
