# ruff: noqa: NPY002 (what draws from NumPy's global generator is the point here)
"""Restores the state of this process after code of others, such as the files of methods, has run in it."""

from __future__ import annotations

import contextlib
import os
import random
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def process_unchanged(seed: int | None = None) -> Iterator[None]:
    """Restore these parts of the process after the block, whatever ran within.

    They are the working directory, environment variables, warning filters, NumPy's error handling, PyTorch's
    default dtype and device, gradient mode, precision of products and convolutions, cuDNN's switches and choice of
    deterministic algorithms, and the global random generators of Python, NumPy and PyTorch.

    Parameters
    ----------
    seed
        Seeds the global random generators within the block, so that code that draws from them does not depend on what
        ran before; None leaves them as they are.
    """
    import numpy as np
    import torch

    from corel._device import global_settings, use_global_settings

    folder, environment, filters = _working_directory(), dict(os.environ), list(warnings.filters)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    settings, device = global_settings(), torch.get_default_device()
    determinism = _determinism()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=gpus), torch.set_grad_enabled(torch.is_grad_enabled()), np.errstate():
            if seed is not None:
                random.seed(seed)
                np.random.seed(seed % 2**32)
                torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        use_global_settings(settings)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        if _determinism() != determinism:  # setting it is slow: it imports a compiler
            torch.use_deterministic_algorithms(determinism[0], warn_only=determinism[1])
        if warnings.filters != filters:
            warnings.resetwarnings()
            warnings.filters.extend(filters)  # type: ignore[attr-defined]
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        if folder is not None and _working_directory() != folder:
            os.chdir(folder)


def _working_directory() -> str | None:
    """The working directory, None where it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _determinism() -> tuple[bool, bool]:
    """Whether PyTorch is to use deterministic algorithms, and whether it only warns where it has none."""
    import torch

    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
