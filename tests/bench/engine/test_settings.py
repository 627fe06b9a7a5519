"""Settings from the command line."""

from __future__ import annotations

import pytest

from bench.engine.settings import method_specs

METHOD = """
import dataclasses
from methods import OneClassMethod

@dataclasses.dataclass(frozen=True)
class Settings:
    alpha: float = 1.0
    rate: float | None = None
    steps: int = 3
    fast: bool = False
    mode: str = "a"
    sizes: tuple[int, ...] = (1, 2)

class One(OneClassMethod):
    name = "one"
    profiles = {"paper": Settings(), "quick": Settings(steps=1)}
    def fit(self, features):
        return self
    def score_samples(self, features):
        return features.mean(axis=(1, 2, 3))
"""


@pytest.fixture
def own(tmp_path) -> str:
    path = tmp_path / "o.w=n.py"
    path.write_text(METHOD)
    return f"{path}:One"


def settings(names, *changes, profile="paper"):
    return [spec.settings for spec in method_specs(names, profile, changes)]


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("alpha=2", 2.0), ("alpha=1e-3", 1e-3), ("rate=2", 2.0), ("rate=None", None), ("steps=7", 7),
        ("fast=true", True), ("fast=False", False), ("mode=1", "1"), ("mode=a=b", "a=b"), ("sizes=(3, 4)", (3, 4)),
    ],
)  # fmt: skip
def test_a_value_is_of_its_settings_type(own, change, value):
    ((found),) = settings([own], f"{own}.{change}")
    given = found[change.partition("=")[0]]
    assert given == value
    assert type(given) is type(value)


def test_equal_numbers_are_one_value(own):
    for one, other in (("alpha=0", "alpha=-0.0"), ("rate=0", "rate=-0")):
        (found,) = settings([own], f"{own}.{one}", f"{own}.{other}")
        assert str(found[one.partition("=")[0]]) == "0.0"
    name = "sklearn:KernelDensity"
    (found,) = settings([name], f"{name}.bandwidth=2", f"{name}.bandwidth=2.0")
    assert repr(found["bandwidth"]) == "2.0"


def test_several_values_give_a_method_each_and_several_settings_combine(own):
    changes = [f"{own}.{change}" for change in ("alpha=1", "steps=1", "alpha=2", "steps=2")]
    found = [(values["alpha"], values["steps"]) for values in settings([own, "adt"], *changes) if "alpha" in values]
    assert found == [(1.0, 1), (1.0, 2), (2.0, 1), (2.0, 2)]
    assert len(settings([own, "adt"], *changes)) == 5


def test_a_value_that_the_profile_has_is_the_profiles_own_method(own):
    (plain,), (set_,) = method_specs(["corel"], "paper", []), method_specs(["corel"], "paper", ["corel.lam=20"])
    assert set_ == plain
    assert len(method_specs(["corel"], "paper", ["corel.lam=20", "corel.lam=20.0", "corel.lam=2e1"])) == 1


def test_a_method_that_is_named_twice_is_taken_once(own):
    folder, _, name = own.rpartition("/")
    assert len(method_specs([own, f"{folder}/./{name}", own.partition(":")[0]], "paper", [])) == 1


def test_a_dot_leads_into_the_settings_of_an_encoder():
    name = "sklearn:IsolationForest@corel"
    (found,) = method_specs(["corel", name], "paper", [f"{name}.encoder.epochs=3", f"{name}.n_estimators=7"])[1:]
    assert (found.settings["n_estimators"], found.settings["encoder"]["epochs"]) == (7, 3)
    assert found.changes == {"n_estimators": 7, "encoder.epochs": 3}
    (corel,) = method_specs(["corel"], "paper", ["corel.epochs=3"])
    assert found.auxiliary_settings == corel.auxiliary_settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("corel.lam", r"--set: got 'corel.lam'; accepted is METHOD.SETTING=VALUE .*corel"),
        ("corel.=3", "accepted is METHOD.SETTING=VALUE"),
        ("lam=3", "accepted is METHOD.SETTING=VALUE"),
        ("adt.epochs=3", "with a METHOD that is run: corel, sklearn:OneClassSVM@corel"),
        ("corel.lamb=3", "there is no setting 'lamb': accepted are eta, lam"),
        ("corel.lam.x=3", "there is no setting 'lam.x'"),
        ("sklearn:OneClassSVM@corel.encoder.lamb=3", "no setting 'encoder.lamb': accepted are eta"),
        ("sklearn:OneClassSVM@corel.encoder=3", "--set sklearn:OneClassSVM@corel.encoder=3: "),
        ("corel.lam=much", "accepted is a value of type float"),
        ("corel.lam=-1", r"--set corel.lam=-1.0: lam: got -1.0; accepted are finite numbers of at least 0"),
        ("corel.epochs=1.5", "accepted is a value of type int"),
        ("corel.reduction=max", "--set corel.reduction=max: reduction: got 'max'; accepted are 'mean' and 'sum'"),
        ("sklearn:OneClassSVM@corel.nu=lots", "--set sklearn:OneClassSVM@corel.nu=lots: "),
    ],
)
def test_what_cannot_be_set(change, message):
    with pytest.raises(ValueError, match=message):
        method_specs(["corel", "sklearn:OneClassSVM@corel"], "paper", [change])
