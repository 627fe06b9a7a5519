"""Keys: what makes a cell another cell, and what does not."""

from __future__ import annotations

import dataclasses

import pytest

from bench.engine import cells
from bench.engine.cells import Cell, MethodSpec

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


def test_prepared_splits_are_of_one_seed():
    # a method may draw from its seed in prepare
    plain = dataclasses.replace(CELL, method=dataclasses.replace(SPEC, needs_auxiliary=False))
    assert dataclasses.replace(plain, base_seed=1).features_key != plain.features_key
    assert dataclasses.replace(plain, run=1, class_index=0).features_key == plain.features_key


def test_seeds_differ_between_cells_and_methods():
    other = dataclasses.replace(CELL, method=dataclasses.replace(SPEC, name="adt"))
    seeds = {CELL.method_seed, other.method_seed, dataclasses.replace(CELL, run=1).method_seed, CELL.auxiliary_seed}
    assert len(seeds) == 4


def test_canonical_json_sorts():
    assert cells.canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
