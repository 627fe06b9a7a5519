"""Settings, seeds and the order of verbs, for all methods alike: one error, which names what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np
import pytest

import methods
from methods.base import OneClassMethod

NEURAL = ["adt", "corel", "dagmm", "deep-svdd", "dsebm", "ocsvm-cae", "patch-lda"]
FIELDS = [(name, field) for name in NEURAL for field in dataclasses.fields(methods.resolve(name).settings_of("paper"))]
IMAGES = np.zeros((2, 3, 32, 32), np.uint8)


#: Values of other types, by what a field's annotation begins with.
WRONG_TYPES: dict[str, list[Any]] = {
    "bool": ["x", None, 1, 0.0],
    "int": ["x", None, [1], 2.5, math.nan, True],
    "float": ["x", [1.5], True, 1j],
    "str": [None, 3, b"mean", np.array(["mean"])],
    "tuple": [3, None, "abc", (8.0, 8, 8), (True, 8, 8)],
}
#: Values of the right type that no field accepts; both booleans are accepted.
WRONG_VALUES: dict[str, list[Any]] = {
    "int": [-1],
    "float": [math.nan, -1.0, math.inf],
    "str": ["x"],
    "tuple": [(), (0, 8, 8)],
}


def kind(field: dataclasses.Field) -> str:
    return re.split(r"\W", str(field.type))[0]


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=lambda part: getattr(part, "name", part))
def test_a_setting_of_a_wrong_type(name: str, field: dataclasses.Field) -> None:
    for value in WRONG_TYPES[kind(field)]:
        with pytest.raises(TypeError, match=rf"^{field.name}: got {re.escape(repr(value))}; accepted are "):
            methods.create(name, device="cpu", **{field.name: value})
    if kind(field) == "float" and "None" not in str(field.type):
        with pytest.raises(TypeError, match=f"^{field.name}: got None; accepted are "):
            methods.create(name, device="cpu", **{field.name: None})


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name, field in FIELDS if kind(field) != "bool"],
    ids=lambda part: getattr(part, "name", part),
)
def test_a_setting_that_is_not_a_number_or_out_of_range(name: str, field: dataclasses.Field) -> None:
    for value in WRONG_VALUES[kind(field)]:
        with pytest.raises(ValueError, match=rf"^{field.name}: got {re.escape(repr(value))}; accepted are "):
            methods.create(name, device="cpu", **{field.name: value})


@pytest.mark.parametrize("name", NEURAL)
@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_checked_settings_are_what_was_given(name: str, profile: str) -> None:
    """A result's key is made of them: neither numpy's numbers nor the check may change it."""
    settings = methods.resolve(name).settings_of(profile)
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    again = type(settings)(**given)
    for key, value in dataclasses.asdict(again).items():
        assert value == given[key]
        assert type(value) is type(given[key])
    as_numpy = {key: np.int64(value) if type(value) is int else value for key, value in given.items()}
    assert json.dumps(dataclasses.asdict(type(settings)(**as_numpy))) == json.dumps(dataclasses.asdict(settings))


def test_integers_stay_integers_where_any_number_will_do() -> None:
    assert repr(methods.create("corel", device="cpu", eta=3).settings.eta) == "3"


@pytest.mark.parametrize("name", [*NEURAL, "sklearn:IsolationForest", "sklearn:IsolationForest@corel"])
def test_seeds(name: str) -> None:
    for wrong in ("x", None, 1.5, True):
        with pytest.raises(TypeError, match=rf"^seed: got {wrong!r}; accepted are integers from -2\*\*63 to"):
            methods.create(name, seed=wrong, device="cpu")
    with pytest.raises(ValueError, match=r"^seed: got 18446744073709551616; accepted are integers from"):
        methods.create(name, seed=2**64, device="cpu")
    made = methods.create(name, seed=np.int64(3), device="cpu")
    assert type(made.seed) is int
    assert made.seed == 3


@pytest.mark.parametrize("name", [*NEURAL, "sklearn:IsolationForest", "sklearn:IsolationForest@corel"])
def test_scores_need_a_fit(name: str) -> None:
    method = methods.create(name, "quick", device="cpu")
    with pytest.raises(ValueError, match=rf"^{name}: score_samples needs a fitted model; call fit first$"):
        method.score_samples(IMAGES)
    with pytest.raises(ValueError, match=rf"^{name}: score_(samples|variants) needs a fitted model; call fit first$"):
        method.score_variants(IMAGES)


@pytest.mark.parametrize("name", ["dagmm", "deep-svdd", "dsebm", "ocsvm-cae"])
def test_codes_need_a_fit(name: str) -> None:
    method = methods.create(name, "quick", device="cpu")
    assert type(method).encode is not OneClassMethod.encode
    with pytest.raises(ValueError, match=rf"^{name}: encode needs a fitted model; call fit first$"):
        method.encode(IMAGES)


@pytest.mark.parametrize("name", ["adt", "dagmm", "deep-svdd", "dsebm", "ocsvm-cae"])
def test_images_are_an_array(name: str) -> None:
    with pytest.raises(TypeError, match=r"^features: got list; accepted are numpy arrays of uint8"):
        methods.create(name, "quick", device="cpu").fit([[1]])
