"""Devices by name."""

from __future__ import annotations

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
