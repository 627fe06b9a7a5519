"""Settings from the command line: ``--set METHOD.SETTING=VALUE`` becomes one method for each combination of values."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import json
import types
import typing
from collections.abc import Sequence
from typing import Any

import methods
from bench.engine.cells import MethodSpec, canonical_json, method_spec

#: The types that a value is tried as, the first that fits: a setting declared ``float | None`` takes "2" as 2.0.
_SIMPLE = (type(None), bool, int, float, str)


def method_specs(names: Sequence[str], profile: str, changes: Sequence[str]) -> list[MethodSpec]:
    """Look methods up, each with every combination of the values that ``changes`` gives its settings.

    Parameters
    ----------
    names
        Methods, as :func:`methods.create` knows them. One that is named twice, however it is spelled, is taken once.
    profile
        The profile whose settings are changed.
    changes
        Texts such as ``corel.lam=0`` and ``sklearn:OneClassSVM@corel.encoder.epochs=3``: they begin with one of
        ``names``, and a dot leads into the settings of an encoder.

    Returns
    -------
    list of MethodSpec
        In the order of ``names``, and of the values given.

    Raises
    ------
    ValueError
        If a string is not of this form, or there is no such method, profile, setting or value.
    """
    values: dict[str, dict[str, list[Any]]] = {name: {} for name in names}
    for text in changes:
        name = next((n for n in sorted(names, key=len, reverse=True) if text.startswith(f"{n}.")), None)
        setting, equals, value = text.removeprefix(f"{name}.").partition("=")
        if name is None or not setting or not equals:
            raise ValueError(
                f"--set: got {text!r}; accepted is METHOD.SETTING=VALUE with a METHOD that is run: {', '.join(names)}"
            )
        given = values[name].setdefault(setting, [])
        given.append(_value(text, methods.resolve(name).settings_of(profile), setting.split("."), value))
    specs: dict[str, MethodSpec] = {}
    for name, given_values in values.items():
        for combination in itertools.product(*given_values.values()):
            chosen = dict(zip(given_values, combination, strict=True))
            try:
                spec = method_spec(name, profile, _nested(chosen))
            except (ValueError, TypeError) as error:
                if not chosen:
                    raise
                shown = " ".join(f"{name}.{key}={value}" for key, value in chosen.items())
                raise ValueError(f"--set {shown}: {error}") from None
            identity = [spec.identity or spec.name, spec.source, spec.settings]
            specs.setdefault(canonical_json(identity), spec)
    return list(specs.values())


def _nested(changes: dict[str, Any]) -> dict[str, Any]:
    """``{"encoder.epochs": 3}`` → ``{"encoder": {"epochs": 3}}``."""
    nested: dict[str, Any] = {}
    for name, value in changes.items():
        *outer, last = name.split(".")
        place = nested
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def _value(text: str, settings: Any, path: Sequence[str], value: str) -> Any:
    """The value that ``value`` means to the setting ``path``, by its declared type."""
    for depth, name in enumerate(path):
        known = [field.name for field in dataclasses.fields(settings)]
        inner = getattr(settings, name, None)
        if name not in known or (depth < len(path) - 1 and not dataclasses.is_dataclass(inner)):
            raise ValueError(f"--set: got {text!r}; there is no setting {'.'.join(path)!r}: {_listed(settings)}")
        if depth == len(path) - 1:
            return _as_default(_as_declared(text, _declared(settings, name), value), inner)
        settings = inner
    raise AssertionError("a path has at least one name")


def _listed(settings: Any) -> str:
    return f"accepted are {', '.join(field.name for field in dataclasses.fields(settings)) or 'none'}"


def _declared(settings: Any, name: str) -> tuple[type, ...]:
    """The simple types that a setting is declared to be of; empty where it is declared as anything else."""
    try:
        hint = typing.get_type_hints(type(settings)).get(name)
    except Exception:  # annotations of a user's method may name what is not defined
        return ()
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return kinds if all(kind in _SIMPLE for kind in kinds) else ()


def _as_default(value: Any, default: Any) -> Any:
    """Make equal numbers identical, since they are part of keys: 2 is 2.0 if the default is a float, −0.0 is 0.0."""
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    return value + 0.0 if isinstance(value, float) else value  # −0.0 + 0.0 is 0.0


def _as_declared(text: str, declared: tuple[type, ...], value: str) -> Any:
    for kind in _SIMPLE if not declared else [kind for kind in _SIMPLE if kind in declared]:
        if kind is type(None) and value == "None":
            return None
        if kind is bool and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        if kind is str and declared:
            return value
    if declared:
        accepted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in declared)
        raise ValueError(f"--set: got {text!r}; accepted is a value of type {accepted}")
    try:
        literal = ast.literal_eval(value)
        json.dumps(literal)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value  # no Python literal: a string
    return literal
