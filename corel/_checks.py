"""Checks of arguments, shared by everything that takes settings from a user.

A :data:`Check` takes an argument's name and value and returns the value, or raises the one error that says which
argument it is, what was given and what is accepted: a TypeError for the wrong kind of thing, a ValueError for the
wrong one of its kind. NumPy's numbers are returned as Python's. Python's are returned unchanged, so that an integer
stays one where any real number is accepted. Checks begin with the types that are most often given, because some are
made in every training step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

Check = Callable[[str, Any], Any]

#: Dtypes in which lengths are computed, and half-precision ones, which are converted to float32 for that.
COMPUTED = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
STRIDED = torch.strided


class NonFiniteError(ValueError):
    """Coordinates that must be finite are not."""


def non_finite(name: str) -> NonFiniteError:
    """The error of points called ``name``, one of which is NaN or infinite."""
    return NonFiniteError(f"{name}: got NaN or infinity; all coordinates must be finite")


def got(name: str, value: object, accepted: str) -> str:
    """The text of an error: one line, whatever ``value`` is."""
    shown = repr(value)
    if len(shown) > 100 or "\n" in shown:
        shown = type(value).__name__
    return f"{name}: got {shown}; accepted are {accepted}"


def integer(accepted: str, holds: Callable[[int], bool]) -> Check:
    """The check of an integer, no boolean, for which ``holds`` is true; ``accepted`` says so in words."""

    def check(name: str, value: Any) -> int:
        if type(value) is int and holds(value):
            return value
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(got(name, value, accepted))
        if not holds(int(value)):
            raise ValueError(got(name, value, accepted))
        return int(value)

    return check


def at_least(least: int) -> Check:
    """The check of an integer of at least ``least``."""
    return integer(f"integers of at least {least}", lambda value: value >= least)


def real(accepted: str, holds: Callable[[float], bool]) -> Check:
    """The check of a real number, no boolean, for which ``holds`` is true, which must reject NaN."""

    def check(name: str, value: Any) -> float:
        if type(value) is float and holds(value):
            return value
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(got(name, value, accepted))
        try:
            number = float(value)
        except OverflowError:  # an integer beyond all floats
            raise ValueError(got(name, value, accepted)) from None
        if not holds(number):
            raise ValueError(got(name, value, accepted))
        return value if type(value) is int else number

    return check


def one_of(*choices: Any) -> Check:
    """The check of one of several strings, or of several integers."""
    shown = [repr(choice) for choice in choices]
    accepted, kind = f"{', '.join(shown[:-1])} and {shown[-1]}", type(choices[0])

    def check(name: str, value: Any) -> Any:
        if type(value) is kind and value in choices:
            return value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, kind):
            raise TypeError(got(name, value, accepted))
        if value not in choices:
            raise ValueError(got(name, value, accepted))
        return value

    return check


def counts(fewest: int, most: int) -> Check:
    """The check of a sequence of integers of at least 1, which is returned as a tuple."""
    number = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    accepted = f"{number} integers of at least 1"

    def check(name: str, value: Any) -> tuple[int, ...]:
        try:
            entries = tuple(value)
        except TypeError:
            raise TypeError(got(name, value, accepted)) from None
        if any(isinstance(entry, bool) or not isinstance(entry, Integral) for entry in entries):
            raise TypeError(got(name, value, accepted))
        if not fewest <= len(entries) <= most or min(entries) < 1:
            raise ValueError(got(name, value, accepted))
        return tuple(int(entry) for entry in entries)

    return check


def boolean(name: str, value: Any) -> bool:
    """The check of a boolean: numbers are not accepted, though Python takes them for true or false."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(got(name, value, "True and False"))
    return bool(value)


def optional(check: Check) -> Check:
    """The check of None or of what ``check`` accepts; the message of ``check`` should list None."""
    return lambda name, value: None if value is None else check(name, value)


count = at_least(1)
positive = real("finite numbers above 0", lambda value: 0 < value < math.inf)
non_negative = real("finite numbers of at least 0", lambda value: 0 <= value < math.inf)
seed = integer("integers from -2**63 to 2**64 - 1", lambda value: -(2**63) <= value < 2**64)


def check_fields(settings: Any, **checks: Check) -> None:
    """Check fields of a dataclass by name, frozen or not, for its ``__post_init__``."""
    for name, check in checks.items():
        object.__setattr__(settings, name, check(name, getattr(settings, name)))


def check_dense(name: str, tensor: Tensor) -> Tensor:
    """Return ``tensor`` if it is an ordinary array of numbers, on any device.

    Raises
    ------
    TypeError
        If it is sparse, nested or on the meta device.
    """
    if tensor.is_nested:
        raise TypeError(f"{name}: got a nested tensor; accepted are dense ones")
    if tensor.layout is not STRIDED:
        raise TypeError(f"{name}: got a tensor of layout {tensor.layout}; accepted are dense ones (see to_dense)")
    if tensor.is_meta:
        raise TypeError(f"{name}: got a tensor on the meta device, which holds no numbers; accepted are real devices")
    return tensor


def check_floating(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor in float32 or float64.

    Parameters
    ----------
    tensor
        Of any shape; float16 and bfloat16 are converted to float32.

    Raises
    ------
    TypeError
        If it is no tensor, of another dtype, sparse, or on the meta device.
    """
    if not isinstance(tensor, Tensor) or (tensor.dtype not in COMPUTED and tensor.dtype not in HALF):
        given = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name}: got {given}; accepted are tensors of float64, float32, float16 and bfloat16")
    tensor = check_dense(name, tensor)
    return tensor if tensor.dtype in COMPUTED else tensor.float()


def numbers(name: str, tensor: Tensor) -> np.ndarray:
    """A tensor on the CPU as a contiguous array, of the same memory where that is possible.

    Raises
    ------
    ValueError
        If the tensor's memory was freed.
    """
    # the conditions avoid calls of half a microsecond each, which count where there are few numbers
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    if tensor.data_ptr() == 0 and tensor.numel() > 0:
        raise ValueError(f"{name}: got a tensor whose memory was freed; accepted are tensors that hold numbers")
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


def native(array: np.ndarray) -> np.ndarray:
    """``array`` itself, or converted where torch has no such dtype: other byte orders, and longdouble, to float64."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # numbers too large for float64 become infinity, which callers refuse
            return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor of the same memory where torch can take it, of a copy elsewhere."""
    array = np.require(array, requirements=["C", "W"])  # torch warns of memory that cannot be written to
    # torch refuses strides that are negative or no whole elements, which numpy lets an axis of length 1 have
    refused = any(step < 0 or step % array.itemsize for step in array.strides)
    return torch.from_numpy(array.copy() if refused else array)
