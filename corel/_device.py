"""Devices by name, and the settings of PyTorch under which numbers are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from corel import _checks

_ACCEPTED = "'auto', 'cpu', 'cuda' and 'cuda:N'"


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device that ``device`` names.

    Parameters
    ----------
    device
        ``"auto"`` (a CUDA GPU where there is one, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or a
        :class:`torch.device`.

    Raises
    ------
    ValueError
        If the name is none of these, or names a GPU that this machine does not have.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if not isinstance(device, str | torch.device):
            raise TypeError("accepted are names and devices")  # PyTorch takes a number for a GPU
        resolved = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(_checks.got("device", device, _ACCEPTED)) from error
    if resolved.type not in ("cpu", "cuda") or (resolved.type == "cpu" and resolved.index not in (None, 0)):
        raise ValueError(_checks.got("device", device, _ACCEPTED))
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device: got {device!r}, but PyTorch finds no CUDA GPU here; use 'cpu' or 'auto'")
        if resolved.index is not None and resolved.index >= torch.cuda.device_count():
            raise ValueError(f"device: got {device!r}, but there are {torch.cuda.device_count()} CUDA GPUs here")
    return resolved


@contextlib.contextmanager
def standard_torch() -> Iterator[None]:
    """Run a block under standard global settings of PyTorch, and restore those found.

    Default dtype float32, gradients enabled, no autocast, matrix products and convolutions in full float32 (no TF32),
    deterministic convolutions. User code in the same process may have changed any of these. The default device is not
    touched, because the mode that sets it slows every call: tensors are created with a device.
    """
    dtype, products = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    torch.set_default_dtype(torch.float32)
    if products != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
            for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        torch.set_default_dtype(dtype)
        if products != "highest":
            torch.set_float32_matmul_precision(products)
