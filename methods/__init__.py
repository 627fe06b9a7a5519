"""The methods of the benchmark: those in the modules of this package, in other files and in other packages."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from corel._device import resolve_device
from methods import detectors, own
from methods.base import NonFiniteLossError, OneClassMethod, one_line

__all__ = ["NonFiniteLossError", "OneClassMethod", "available", "built_in", "create", "resolve", "source_digest"]


@functools.cache
def built_in() -> dict[str, type[OneClassMethod]]:
    """Every method defined in a module of this package, by name."""
    found: dict[str, type[OneClassMethod]] = {}
    for module_info in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if (
                inspect.isclass(value)
                and issubclass(value, OneClassMethod)
                and not inspect.isabstract(value)
                and value.__module__ == module.__name__
                and "name" in vars(value)
            ):
                found[value.name] = value
    return found


def available() -> list[str]:
    """Names of the methods that are built in or that installed packages add, in alphabetical order.

    A package adds methods by entry points of the group ``corel.methods``. One that cannot be loaded is left out,
    with a warning. :func:`resolve` accepts further names.
    """
    return sorted({*built_in(), *own.from_packages().classes})


def resolve(name: str) -> type[OneClassMethod]:
    """Return the class that ``name`` stands for.

    Parameters
    ----------
    name
        One of :func:`available`; ``FILE.py:CLASS``, or ``FILE.py`` for a file with one method; or
        ``sklearn:NAME`` or ``pyod:NAME``, a classical detector on raw pixels, or with ``@ENCODER`` after it on the
        representation of the method ENCODER. The detector's name may be given in any case.

    Raises
    ------
    ValueError
        If there is no such method, or its file does not hold what it should.
    ImportError
        If the method needs a package that is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"method: got {name!r}; accepted is a name")
    detector = detectors.parse(name)
    if detector is not None:
        library, detector_name, encoder_name = detector
        encoder = None if encoder_name is None else _encoder(name, encoder_name)
        return detectors.detector_method(library, detector_name, encoder_name, encoder)
    location = own.parse(name)
    if location is not None:
        return own.load(name, *location)
    packaged = own.from_packages()
    if name in built_in():
        return built_in()[name]
    if name in packaged.classes:
        return packaged.classes[name]
    if name in packaged.broken:
        raise ValueError(f"method {name!r}: {packaged.broken[name]}")
    raise ValueError(
        f"method: got {name!r}; available are {', '.join(available())}; also sklearn:NAME and pyod:NAME, "
        "each with @ENCODER or without, and FILE.py:CLASS"
    )


def _encoder(name: str, encoder_name: str) -> type[OneClassMethod]:
    """The class of the method whose representation the detector ``name`` is to work on."""
    try:
        encoder = resolve(encoder_name)
    except ValueError as error:
        raise ValueError(f"{name!r}: its encoder: {error}") from None
    if encoder.encode is OneClassMethod.encode:
        encoders = [known for known in available() if resolve(known).encode is not OneClassMethod.encode]
        raise ValueError(
            f"method {name!r}: {encoder_name!r} has no representation to work on; those that have one are "
            f"{', '.join(encoders)}"
        )
    return encoder


def source_digest(name: str) -> str:
    """Return a string that changes when the code of a method from outside this package changes.

    Together with a method's settings and ``version`` it makes the key of a stored result, so that a method that
    was edited is run again.

    Returns
    -------
    str
        The SHA-256 of the file's content for ``FILE.py:CLASS``, the package's name and version for a method that an
        installed package adds, the encoder's for a detector with one, and "" for what is built in.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    method = resolve(name)
    detector = detectors.parse(name)
    if detector is not None:
        encoder_name = detector[2]
        return "" if encoder_name is None else source_digest(encoder_name)
    location = own.parse(name)
    if location is not None:
        return own.digest(method)
    return "" if name in built_in() else own.from_packages().distributions[name]


def create(name: str, profile: str = "paper", seed: int = 0, device: str = "auto", **settings: Any) -> OneClassMethod:
    """Make a method, not yet fitted.

    Parameters
    ----------
    name
        A name that :func:`resolve` accepts.
    profile
        ``"paper"``: the published settings; ``"quick"``: settings that end in seconds on a small dataset.
    seed
        Seeds everything random in the method.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    **settings
        Values of single settings in place of the profile's. Those of a detector's encoder are a dictionary:
        ``create("sklearn:OneClassSVM@corel", nu=0.1, encoder={"epochs": 3})``.

    Raises
    ------
    ValueError
        For an unknown method, profile or device, a setting's value out of range, or a method from outside this
        package whose ``__init__`` raises anything.
    TypeError
        For a setting that the method does not have.
    ImportError
        If the method needs a package that is not installed.
    """
    method = resolve(name)
    chosen = _changed(name, method.settings_of(profile), settings)
    resolve_device(device)
    try:
        made = method(chosen, seed=seed, device=device)
    except (Exception, SystemExit) as error:
        if method.__module__.partition(".")[0] == __name__:  # its error already names the setting
            raise
        raise ValueError(f"method {name!r}: __init__ raises {one_line(error)}") from error
    if getattr(made, "settings", None) is None:
        raise ValueError(
            f"method {name!r}: its __init__ must call super().__init__(settings, seed=seed, device=device)"
        )
    return made


def _changed(name: str, settings: Any, changes: Mapping[str, Any]) -> Any:
    """Return ``settings`` with ``changes`` made; a dictionary changes single settings of a dataclass within."""
    known = [field.name for field in dataclasses.fields(settings)]
    replacements = {}
    for key, value in changes.items():
        if key not in known:
            raise TypeError(f"settings of {name!r}: got {key!r}; it has {', '.join(known) or 'none'}")
        current = getattr(settings, key)
        inner = dataclasses.is_dataclass(current) and isinstance(value, Mapping)
        replacements[key] = _changed(f"{name}, {key}", current, value) if inner else value
    return dataclasses.replace(settings, **replacements)
