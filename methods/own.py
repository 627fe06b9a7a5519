"""Methods that are not part of this package: from a file, or from an installed package's entry points."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.abc
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from methods.base import OneClassMethod, one_line

#: Group of the entry points by which an installed package adds methods.
GROUP = "corel.methods"
_DIGEST = "_source_digest"


def parse(name: str) -> tuple[Path, str | None] | None:
    """Split ``FILE.py:CLASS`` or ``FILE.py``; None if ``name`` is neither."""
    match = re.fullmatch(r"(.+\.py)(?::(\w*))?", name)
    return None if match is None else (Path(match[1]), match[2])


def load(name: str, path: Path, class_name: str | None) -> type[OneClassMethod]:
    """Return the method ``class_name`` of the file ``path``; with None, the one method that is defined there.

    The file is read at every call, and run again if its content has changed.

    Raises
    ------
    ValueError
        If the file cannot be read or run, or does not hold such a method. The message is one line that begins
        with ``name``.
    """
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"method {name!r}: there is no file {str(path)!r}") from None
    except OSError as error:
        raise ValueError(f"method {name!r}: cannot read {str(path)!r} ({error.strerror})") from None
    try:
        module = _module(path.resolve(), source)
    except (Exception, SystemExit) as error:
        raise ValueError(f"method {name!r}: {_place(path, error)} raises {one_line(error)}") from error
    defined = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, OneClassMethod) and value.__module__ == module.__name__
    }
    if class_name is None:
        complete = {key: value for key, value in defined.items() if not inspect.isabstract(value)} or defined
        if len(complete) != 1:
            raise ValueError(
                f"method {name!r}: {path.name} defines {_listed(defined)}; name one as {path}:CLASS"
                if defined
                else f"method {name!r}: {path.name} defines no subclass of OneClassMethod"
            )
        (found,) = complete.values()
    elif not hasattr(module, class_name):
        raise ValueError(f"method {name!r}: {path.name} has no {class_name!r}; it defines {_listed(defined)}")
    else:
        found = getattr(module, class_name)
    return checked(name, found)


def digest(method: type[OneClassMethod]) -> str:
    """SHA-256 of the file that ``method`` was loaded from, as it was then."""
    return getattr(sys.modules[method.__module__], _DIGEST, "")


@dataclasses.dataclass(frozen=True)
class _Source(importlib.abc.InspectLoader):
    """Loads a module from ``source``, which was read from the file ``path``."""

    path: Path
    source: bytes

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.source)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.source, str(self.path))


@functools.cache
def _module(path: Path, source: bytes) -> ModuleType:
    """Run the file as a module whose name is made of its path and content, so that files of one name do not collide.

    Exactly ``source`` is run, because its digest is stored with the results. Python's import could run something else:
    it reads the file again, and takes cached bytecode if the file's size and modification time match.
    """
    source_digest = hashlib.sha256(source).hexdigest()
    unique = hashlib.sha256(b"%s\n%s" % (os.fsencode(path), source_digest.encode())).hexdigest()[:16]
    name = f"corel_method_{path.stem}_{unique}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(path, source))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, _DIGEST, source_digest)
    before = set(sys.modules)
    sys.modules[name] = module  # dataclasses and pickle look up the module of a class here
    try:
        with _same_directory():  # the next method may be given by a relative path
            spec.loader.exec_module(module)
        _check_helpers(path, set(sys.modules) - before)
    except BaseException:
        del sys.modules[name]
        raise
    return module


#: Top-level modules that the files of methods imported from their own folders: name → folder.
_helpers: dict[str, Path] = {}


def _check_helpers(path: Path, imported: Iterable[str]) -> None:
    """Refuse a file whose folder has a module of the same name as one that another method's file imported from its own.

    Python loads only one module of a name, so both files would use the first one.
    """
    for name, folder in _helpers.items():
        if folder != path.parent and any((path.parent / inner).exists() for inner in (f"{name}.py", name)):
            raise ImportError(
                f"the module {name!r} is that of {str(folder)!r} already, which another method's file has imported; "
                f"give that of {str(path.parent)!r} another name"
            )
    for name in imported:
        file = getattr(sys.modules.get(name), "__file__", None)
        if "." not in name and file is not None and Path(file).resolve().is_relative_to(path.parent):
            _helpers[name] = path.parent


@contextlib.contextmanager
def _same_directory() -> Iterator[None]:
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it has been removed
        yield
        return
    try:
        yield
    finally:
        os.chdir(folder)


def checked(name: str, method: Any) -> type[OneClassMethod]:
    """Return ``method`` if it is a class that the benchmark can run.

    Raises
    ------
    ValueError
        Saying what it lacks.
    """
    if not (inspect.isclass(method) and issubclass(method, OneClassMethod)):
        kind = f"the class {method.__name__}" if inspect.isclass(method) else f"of type {type(method).__name__}"
        raise ValueError(f"method {name!r}: accepted are subclasses of methods.OneClassMethod, but this is {kind}")
    if inspect.isabstract(method):
        missing = ", ".join(sorted(method.__abstractmethods__))
        raise ValueError(f"method {name!r}: {method.__name__} lacks {missing}")
    if not isinstance(getattr(method, "name", None), str):
        raise ValueError(f"method {name!r}: {method.__name__} has no class attribute 'name', a string")
    if type(method.version) is not int:
        raise ValueError(f"method {name!r}: version is {method.version!r}; accepted are integers")
    try:
        inspect.signature(method).bind(None, seed=0, device="cpu")
    except TypeError as error:
        raise ValueError(
            f"method {name!r}: __init__ must take (settings=None, *, seed=0, device='auto') ({error})"
        ) from None
    if not isinstance(method.profiles, Mapping) or not method.profiles:
        raise ValueError(f"method {name!r}: profiles must be a dictionary with 'paper', 'quick' or both")
    for profile, settings in method.profiles.items():
        _check_settings(f"method {name!r}: profiles[{profile!r}]", settings)
    return method


def _check_settings(place: str, settings: Any) -> None:
    """Check that settings are immutable and have a JSON form, which is part of the key of a result."""
    parameters = getattr(type(settings), "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise ValueError(f"{place}: accepted are instances of a frozen dataclass; got {settings!r}")
    for key, value in dataclasses.asdict(settings).items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"{place}: the setting {key!r} is of type {type(value).__name__}; accepted are numbers, strings, "
                "booleans, None, and lists, tuples and dictionaries of these"
            ) from None


@dataclasses.dataclass(frozen=True)
class Packaged:
    """What the entry points of installed packages give, each by the entry point's name."""

    classes: dict[str, type[OneClassMethod]]
    #: Name and version of the package.
    distributions: dict[str, str]
    #: Why an entry point cannot be used.
    broken: dict[str, str]


@functools.cache
def from_packages() -> Packaged:
    """Load the methods that installed packages add. Warns once of each that cannot be loaded."""
    found = Packaged({}, {}, {})
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            found.classes[entry.name] = checked(entry.name, entry.load())
        except (Exception, SystemExit) as error:
            found.broken[entry.name] = f"the entry point {entry.value!r} cannot be loaded: {one_line(error)}"
            warnings.warn(f"method {entry.name!r}: {found.broken[entry.name]}", stacklevel=2)
            continue
        package = entry.dist
        found.distributions[entry.name] = "" if package is None else f"{package.name} {package.version}"
    return found


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "no subclass of OneClassMethod"


def _place(path: Path, error: BaseException) -> str:
    """The file and the line in it at which ``error`` was raised. A syntax error may be in a file that it imports."""
    file = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    elsewhere = ""
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    elif isinstance(error, SyntaxError) and Path(error.filename or "").is_file():
        elsewhere = f" imports {error.filename}, whose line {error.lineno}"
    return f"{path}, line {lines[-1]},{elsewhere}" if lines and lines[-1] else f"{path}{elsewhere}"
