"""The shared checks: what they return, and the one error for everything else."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from corel import BallCount, _checks
from corel.theory import alpha_beta


@pytest.mark.parametrize(
    ("check", "value", "expected"),
    [
        (_checks.count, 3, 3),
        (_checks.count, np.uint8(3), 3),
        (_checks.positive, 2, 2),
        (_checks.positive, 2.5, 2.5),
        (_checks.positive, np.float32(0.5), 0.5),
        (_checks.positive, Fraction(1, 2), 0.5),
        (_checks.positive, np.int64(2), 2.0),
        (_checks.non_negative, 0, 0),
        (_checks.seed, -(2**63), -(2**63)),
        (_checks.one_of("a", "b"), np.str_("b"), "b"),
        (_checks.one_of(1, 2), np.int64(2), 2),
        (_checks.counts(1, 3), [np.int64(4), 5], (4, 5)),
        (_checks.boolean, np.True_, True),
        (_checks.optional(_checks.count), None, None),
        (_checks.optional(_checks.count), 1, 1),
    ],
)
def test_values_come_back_as_pythons(check, value, expected):
    assert check("x", value) == expected
    assert type(check("x", value)) is type(expected)


@pytest.mark.parametrize(
    ("check", "value", "error"),
    [
        *((_checks.count, value, TypeError) for value in (True, np.True_, 1.0, "1", None, torch.tensor(1))),
        (_checks.count, 0, ValueError),
        *((_checks.positive, value, TypeError) for value in (True, "1", None, 1j, np.ones(2), torch.tensor(1.0))),
        *((_checks.positive, value, ValueError) for value in (0, -1.0, math.nan, math.inf, 10**400)),
        *((_checks.seed, value, ValueError) for value in (2**64, -(2**63) - 1)),
        *((_checks.one_of("a", "b"), value, TypeError) for value in (1, None, np.array(["a", "b"]))),
        (_checks.one_of("a", "b"), "c", ValueError),
        *((_checks.one_of(1, 2), value, TypeError) for value in (True, 1.0, "1")),
        *((_checks.counts(1, 3), value, TypeError) for value in (3, None, "12", (1.0,), (True,))),
        *((_checks.counts(1, 3), value, ValueError) for value in ((), (1,) * 4, (1, 0))),
        *((_checks.boolean, value, TypeError) for value in (1, "yes", None)),
        (_checks.optional(_checks.count), 0, ValueError),
    ],
)
def test_the_error_is_one_line_with_the_name(check, value, error):
    with pytest.raises(error, match=r"^x: got .*; accepted are ") as caught:
        check("x", value)
    assert "\n" not in str(caught.value)


def test_long_values_are_named_by_their_type():
    with pytest.raises(TypeError, match=r"^x: got ndarray; accepted are"):
        _checks.count("x", np.zeros((50, 50)))


def test_fields_of_a_frozen_dataclass():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        size: int
        rate: float = 1.0

        def __post_init__(self) -> None:
            _checks.check_fields(self, size=_checks.count, rate=_checks.positive)

    assert dataclasses.asdict(Settings(np.int64(3), 2)) == {"size": 3, "rate": 2}
    assert type(Settings(np.int64(3)).size) is int
    with pytest.raises(TypeError, match="rate: got 'x'"):
        Settings(1, "x")


@pytest.mark.parametrize("rows", [1, 2])
def test_reversed_rows_are_taken_though_one_alone_counts_as_contiguous(rows):
    points = np.arange(2.0 * rows).reshape(rows, 2)
    assert torch.equal(_checks.as_tensor(points[::-1]), torch.from_numpy(points[::-1].copy()))
    stored = np.array([[0.0, 1.0], [2.0, 2.0], [3.0, 0.0]])
    count = BallCount(radius=1.5, p=1.5).fit(stored)
    assert np.array_equal(count.score_samples(points[::-1]), count.score_samples(points)[::-1])
    clouds = np.random.default_rng(0).normal(size=(rows, 5, 2))
    assert alpha_beta(clouds[::-1]) == alpha_beta(clouds)


def test_a_field_of_records_is_taken_though_its_rows_are_no_whole_numbers_apart():
    records = np.zeros(1, dtype=[("name", "f4"), ("point", "f8", (3,))])
    records["point"] = 1.0, 2.0, 3.0
    assert records["point"].strides[0] % 8  # and numpy calls it contiguous
    assert _checks.as_tensor(records["point"]).tolist() == [[1.0, 2.0, 3.0]]
