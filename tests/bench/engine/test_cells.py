"""Keys: what makes a cell another cell, and what does not."""

from __future__ import annotations

import dataclasses

import pytest

from bench.engine import cells
from bench.engine.cells import Cell, MethodSpec, method_spec
from methods.corel import Corel

SPEC = MethodSpec("corel", "quick", {"eta": 2.0}, 1, "", True, {"method": "corel", "eta": 2.0})
CELL = Cell("folder:here", "f" * 64, SPEC, "folder:here", "f" * 64, 120, 0, 3, "three", 0)


def test_key_is_pinned():
    # Stored results are found by this key: a change here makes every user compute everything again.
    assert CELL.key == "a86d00ed5a2c002788e9f1280b1b97dc"


def test_a_folder_may_move_and_a_class_be_renamed():
    assert dataclasses.replace(CELL, dataset="folder:there", class_name="drei").key == CELL.key


def test_profile_does_not_count_where_settings_agree():
    assert dataclasses.replace(CELL, method=dataclasses.replace(SPEC, profile="paper")).key == CELL.key


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_fingerprint": "e" * 64},
        {"auxiliary_fingerprint": "e" * 64},
        {"train_per_class": "all"},
        {"run": 1},
        {"class_index": 4},
        {"base_seed": 1},
        {"method": dataclasses.replace(SPEC, name="other")},
        {"method": dataclasses.replace(SPEC, settings={"eta": 3.0})},
        {"method": dataclasses.replace(SPEC, version=2)},
        {"method": dataclasses.replace(SPEC, source="abc")},
    ],
)
def test_what_shapes_a_result_is_in_the_key(change):
    assert dataclasses.replace(CELL, **change).key != CELL.key


def test_auxiliary_training_is_shared_over_datasets_classes_and_runs():
    other = dataclasses.replace(CELL, dataset_fingerprint="e" * 64, run=4, class_index=1, train_per_class=500)
    assert other.auxiliary_key == CELL.auxiliary_key
    assert other.features_key != CELL.features_key
    assert dataclasses.replace(CELL, base_seed=1).auxiliary_key != CELL.auxiliary_key


LIKE_COREL = """
from methods.corel import Corel

class Other(Corel):
    name = {name!r}

    def auxiliary_settings(self):
        return Corel(self.settings).auxiliary_settings()
"""


@pytest.mark.parametrize(("name", "shared"), [("other", True), ("corel", False)])
def test_auxiliary_training_of_a_built_in_method_is_shared_with_methods_that_say_so(tmp_path, name, shared):
    path = tmp_path / "other.py"
    path.write_text(LIKE_COREL.format(name=name))
    corel, other = method_spec("corel", "quick"), method_spec(str(path), "quick")
    cells = [dataclasses.replace(CELL, method=method) for method in (corel, other)]
    assert (cells[0].auxiliary_key == cells[1].auxiliary_key) == shared
    assert cells[0].features_key != cells[1].features_key
    assert cells[0].key != cells[1].key
    again = [Cell.from_row(cell.row()).auxiliary_key for cell in cells]
    assert again == [cell.auxiliary_key for cell in cells]


def test_another_version_of_the_method_that_lends_its_encoder_is_another_cell(tmp_path, monkeypatch):
    path = tmp_path / "other.py"
    path.write_text(LIKE_COREL.format(name="other") + "    version = 7\n")
    names = (str(path), f"sklearn:OneClassSVM@{path}", "corel")
    before = [dataclasses.replace(CELL, method=method_spec(name, "quick")).key for name in names]
    monkeypatch.setattr(Corel, "version", Corel.version + 1)
    after = [dataclasses.replace(CELL, method=method_spec(name, "quick")).key for name in names]
    assert not set(before) & set(after)


def test_prepared_splits_are_of_one_seed():
    # a method may draw from its seed in prepare
    plain = dataclasses.replace(CELL, method=dataclasses.replace(SPEC, needs_auxiliary=False))
    assert dataclasses.replace(plain, base_seed=1).features_key != plain.features_key
    assert dataclasses.replace(plain, run=1, class_index=0).features_key == plain.features_key


def test_seeds_differ_between_cells_and_methods():
    other = dataclasses.replace(CELL, method=dataclasses.replace(SPEC, name="adt"))
    seeds = {CELL.method_seed, other.method_seed, dataclasses.replace(CELL, run=1).method_seed, CELL.auxiliary_seed}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"test_images": 100, "test_size": 450, "classes": 10, "dataset_title": "here"},
        {"train_per_class": "all", "method": dataclasses.replace(SPEC, origin="any", identity="a:B", source="e" * 64)},
        {"auxiliary": None, "auxiliary_fingerprint": None, "method": MethodSpec("adt", "paper", {}, 1, "", False, {})},
    ],
)
def test_a_row_tells_all_that_it_takes_to_compute_it_again(change):
    made = dataclasses.replace(CELL, **change)
    again = Cell.from_row(made.row())
    names = ("key", "auxiliary_key", "features_key", "method_seed", "auxiliary_seed")
    assert [getattr(again, name) for name in names] == [getattr(made, name) for name in names]
    assert again.row() == made.row()


def test_a_part_of_the_test_split_is_another_cell():
    keys = {dataclasses.replace(CELL, test_images=count).key for count in (None, 100, 200)}
    assert len(keys) == 3


METHOD = """
import dataclasses
from methods import OneClassMethod

@dataclasses.dataclass(frozen=True)
class Settings:
    alpha: float = 1.0

class One(OneClassMethod):
    name = "one"
    profiles = {"paper": Settings(), "quick": Settings(2.0)}
    def fit(self, features):
        return self
    def score_samples(self, features):
        return features.mean(axis=(1, 2, 3))
    def encode(self, features):
        return features.reshape(len(features), -1)

class Two(One):
    pass
"""


@pytest.mark.parametrize("form", ["{}:One", "sklearn:IsolationForest@{}:One"])
def test_a_methods_path_may_be_spelled_in_any_way(tmp_path, monkeypatch, form):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "m.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    made = [
        dataclasses.replace(CELL, method=cells.method_spec(form.format(path), "quick"))
        for path in ("own/m.py", "./own/m.py", str(tmp_path / "own" / "m.py"))
    ]
    for name in ("key", "method_seed", "features_key"):
        assert len({getattr(one, name) for one in made}) == 1
    assert [one.method.name for one in made] == [
        form.format(p) for p in ("own/m.py", "./own/m.py", tmp_path / "own/m.py")
    ]
    other = dataclasses.replace(CELL, method=cells.method_spec(form.format("own/m.py").replace("One", "Two"), "quick"))
    assert other.key != made[0].key


def test_where_settings_are_from(tmp_path):
    (tmp_path / "m.py").write_text(METHOD)
    name = f"{tmp_path / 'm.py'}:One"
    for profile, changes, origin, named in [
        ("quick", {}, "quick", {}),
        ("paper", {"alpha": 2.0}, "quick", {}),
        ("paper", {"alpha": 3.0}, "paper", {"alpha": 3.0}),
    ]:
        spec = cells.method_spec(name, profile, changes)
        assert (spec.origin, spec.changes) == (origin, named)
    assert cells.method_spec("sklearn:IsolationForest", "quick").origin == "any"


def test_canonical_json_sorts():
    assert cells.canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
