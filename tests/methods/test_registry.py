"""From a method's name to a method: what is built in, settings, profiles, and every error on the way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import methods
from methods import OneClassMethod
from methods.base import NoSettings


@pytest.mark.parametrize("name", methods.available())
def test_every_built_in_method_can_be_made_in_both_profiles(name):
    for profile in ("paper", "quick"):
        made = methods.create(name, profile, seed=3, device="cpu")
        assert made.name == name
        assert made.seed == 3
        assert made.settings == type(made).profiles[profile]
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made.settings, dataclasses.fields(made.settings)[0].name, None)


def test_built_in_methods_have_no_source_digest():
    for name in methods.available():
        assert methods.source_digest(name) == ""


def test_unknown_method_lists_what_there_is():
    with pytest.raises(ValueError, match="method: got 'nothing'; available are ") as caught:
        methods.create("nothing")
    message = str(caught.value)
    assert all(name in message for name in methods.available())
    assert "sklearn:NAME" in message
    assert "FILE.py:CLASS" in message
    with pytest.raises(ValueError, match="method: got 'nothing'"):
        methods.source_digest("nothing")


def test_a_name_is_a_text():
    with pytest.raises(TypeError, match="method: got 3; accepted is a name"):
        methods.resolve(3)


def test_unknown_profile():
    with pytest.raises(ValueError, match=r"profile: got 'fast'; 'sklearn:IsolationForest' has paper, quick"):
        methods.create("sklearn:IsolationForest", "fast")


def test_unknown_setting():
    with pytest.raises(TypeError, match=r"settings of 'sklearn:isolationforest': got 'trees'; it has n_estimators, "):
        methods.create("sklearn:isolationforest", trees=3)


def test_unknown_device():
    with pytest.raises(ValueError, match="device: got 'tpu'"):
        methods.create("sklearn:IsolationForest", device="tpu")


class Minimal(OneClassMethod):
    name = "minimal"

    def fit(self, features):
        return self

    def score_samples(self, features):
        return np.zeros(len(features))


def test_without_profiles_a_method_has_no_settings_in_either():
    assert Minimal.settings_of("paper") == Minimal.settings_of("quick") == NoSettings()
    assert Minimal(device="cpu").settings == NoSettings()


@dataclasses.dataclass(frozen=True)
class Size:
    size: int = 1


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_a_profile_that_stands_alone_serves_both(profile):
    method = type("Alone", (Minimal,), {"profiles": {profile: Size(5)}})
    assert method.settings_of("paper") == method.settings_of("quick") == Size(5)
    assert method(device="cpu").settings == Size(5)
    with pytest.raises(ValueError, match=f"profile: got 'fast'; 'minimal' has {profile}"):
        method.settings_of("fast")


def test_two_profiles_do_not_stand_in_for_a_third():
    method = type("Odd", (Minimal,), {"profiles": {"paper": Size(5), "long": Size(7)}})
    with pytest.raises(ValueError, match="profile: got 'quick'; 'minimal' has long, paper"):
        method.settings_of("quick")
