"""Devices by name, and the global state of PyTorch that numbers depend on."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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


class GlobalSettings(NamedTuple):
    """PyTorch's settings of the whole process that numbers depend on; the defaults are those of full float32.

    From 2.9 on PyTorch has two interfaces for the precision of float32 products and convolutions. Once the newer one
    was used, the older one may refuse to be read: its values are None then.
    """

    dtype: torch.dtype = torch.float32
    #: Of matrix products, and of cuDNN, by the older interface.
    products: str | None = "highest"
    tf32: bool | None = False
    #: By the newer one, in the order of :func:`_places`. "none": what the place around has, or by default "ieee".
    precisions: tuple[str, ...] = ("none",) * 3 + ("ieee",) * 6
    cudnn_enabled: bool = True
    cudnn_benchmark: bool = False
    cudnn_deterministic: bool = True


def global_settings() -> GlobalSettings:
    """The settings found."""
    cudnn, places = torch.backends.cudnn, _places()
    dtype, switches = torch.get_default_dtype(), (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
    products = _readable(torch.get_float32_matmul_precision)
    tf32 = _readable(lambda: cudnn.allow_tf32)
    precisions: list[str] = []
    try:
        for place in places:  # a place shows what it inherits: so those around it are taken away before it is read
            precisions.append(place.fp32_precision)
            place.fp32_precision = "none"
    finally:
        for place, precision in zip(places, precisions, strict=False):
            place.fp32_precision = precision
    return GlobalSettings(dtype, products, tf32, tuple(precisions), *switches)


def use_global_settings(settings: GlobalSettings) -> None:
    """Make PyTorch's settings those given; what is None stays as it is."""
    cudnn = torch.backends.cudnn
    torch.set_default_dtype(settings.dtype)
    if settings.products not in (None, _readable(torch.get_float32_matmul_precision)):
        torch.set_float32_matmul_precision(settings.products)
    with torch.backends.__allow_nonbracketed_mutation():  # also after torch.backends.disable_global_flags()
        cudnn.enabled, cudnn.benchmark = settings.cudnn_enabled, settings.cudnn_benchmark
        cudnn.deterministic = settings.cudnn_deterministic
        if settings.tf32 is not None:
            cudnn.allow_tf32 = settings.tf32
    # after the older interface, which sets some of these too
    for place, precision in zip(_places(), settings.precisions, strict=False):
        place.fp32_precision = precision


def _readable(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:  # "mix of the legacy and new APIs"
        return None


def _places() -> list[Any]:
    """What has an ``fp32_precision``, each before those that inherit it; nothing before PyTorch 2.9."""
    # not by their public names: in 2.15 mkldnn.fp32_precision = … sets the widest place, not mkldnn's
    place = getattr(torch.backends, "_FP32Precision", None)
    return [] if place is None else [place(*names) for names in _PLACES]


_PLACES = [
    ("generic", "all"), ("cuda", "all"), ("mkldnn", "all"), ("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn"),
    ("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn"),
]  # fmt: skip
_lock = threading.Lock()
_blocks = 0
_found = GlobalSettings()


@contextlib.contextmanager
def standard_torch() -> Iterator[None]:
    """Run a block under standard settings of PyTorch, and restore those found.

    Default dtype float32, gradients enabled, no autocast, matrix products and convolutions in full float32 (no TF32),
    deterministic convolutions. User code in the same process may have changed any of these. The default device is not
    touched, because the mode that sets it slows every call: tensors are created with a device. Blocks may overlap, in
    one thread or several: the first one sets, and the last one to end restores what the first one found.
    """
    global _blocks, _found
    with _lock:
        if _blocks == 0:
            _found = global_settings()
            try:
                use_global_settings(GlobalSettings())
            except BaseException:
                use_global_settings(_found)
                raise
        _blocks += 1
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                use_global_settings(_found)


_random_state_lock = threading.RLock()


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Give torch's global random state back as it was. Threads take turns: the state is one for all of them."""
    used = device.type == "cuda" or torch.cuda.is_initialized()
    gpus = range(torch.cuda.device_count()) if used else ()
    with _random_state_lock, torch.random.fork_rng(devices=gpus):
        yield


def _after_fork() -> None:
    """In a new process no other thread holds the locks."""
    global _lock, _random_state_lock
    _lock, _random_state_lock = threading.Lock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
