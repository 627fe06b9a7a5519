"""The comparison of precisions, on a small folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import cells, datasets, precision
from bench._command_line import run
from methods.adt import ADT, ADTSettings


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The paper profile at a size that takes seconds."""
    monkeypatch.setitem(ADT.profiles, "paper", ADTSettings(width=1, downsample=4, epochs=1))


def command(*arguments: str) -> int:
    return run("bench.precision", precision.main, list(arguments))


def test_both_precisions_on_the_same_draws(image_folder: Path, tmp_path: Path, capsys) -> None:
    given = ["--dataset", f"folder:{image_folder}", "--train-per-class", "3", "--test-images", "9"]
    given += ["--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert command(*given) == 0
    output = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "precision.csv")
    assert set(table["variant"]) == {"dirichlet", "softmax"}
    assert set(table["class_name"]) == {"red", "green", "grey"}
    np.testing.assert_allclose(table["difference"], table["bfloat16"] - table["float32"], atol=2e-6)
    for variant, group in table.groupby("variant"):
        assert f"{variant}: {group['float32'].mean():.4f} in float32" in output
    first = table.to_csv()
    assert command(*given) == 0  # from the store
    assert pd.read_csv(tmp_path / "out" / "precision.csv").to_csv() == first


def test_fewer_test_images_are_equally_many_of_each_class(image_folder: Path, tmp_path: Path) -> None:
    whole = datasets.load(f"folder:{image_folder}", data_root=tmp_path / "data", progress=False)
    fewer = precision.fewer_test_images(whole, 7, tmp_path / "fewer")
    assert sorted(np.bincount(fewer.test_labels).tolist()) == [2, 2, 3]
    assert fewer.fingerprint != whole.fingerprint
    assert np.array_equal(fewer.train_images, whole.train_images)
    for image, label in zip(fewer.test_images, fewer.test_labels, strict=True):
        same = (np.asarray(whole.test_images) == image).all(axis=(1, 2, 3))
        assert whole.test_labels[np.flatnonzero(same)[0]] == label
    again = precision.fewer_test_images(whole, 7, tmp_path / "again")
    assert np.array_equal(again.test_images, fewer.test_images)


def test_only_complete_pairs_are_compared() -> None:
    rows = pd.DataFrame(
        {
            "run": 0,
            "class_name": ["cat", "cat", "dog"],
            "variant": "softmax",
            "precision": ["float32", "bfloat16", "float32"],
            "auc": [0.5, 0.75, 0.6],
        }
    )
    assert precision.compare(rows).to_dict("records") == [
        {"run": 0, "class_name": "cat", "variant": "softmax", "float32": 0.5, "bfloat16": 0.75, "difference": 0.25}
    ]


def test_precision_is_in_the_key(image_folder: Path, tmp_path: Path) -> None:
    dataset = datasets.load(f"folder:{image_folder}", data_root=tmp_path / "data", progress=False)
    spec = cells.method_spec("adt", "paper")
    keys = set()
    for value in precision.PRECISIONS:
        changed = dataclasses.replace(spec, settings={**spec.settings, "precision": value})
        planned = cells.plan(dataset, [changed], auxiliary=None, train_per_class=[3], runs=1, classes=[0], base_seed=0)
        keys |= {cell.key for cell in planned}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test-images", "99"], "--test-images: got 99"),
        (["--test-images", "0"], "--test-images: got 0"),
        (["--runs", "none"], "--runs: got 'none'"),
        (["--train-per-class", "9"], "--train-per-class: got 9"),
        (["--dataset", "mnist"], "--dataset: got 'mnist'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(image_folder, tmp_path, capsys, arguments, message) -> None:
    given = ["--dataset", f"folder:{image_folder}", "--data-root", str(tmp_path / "data")]
    given += ["--train-per-class", "3", "--test-images", "9", "--out", str(tmp_path / "out")]
    try:
        status = command(*given, *arguments)
    except SystemExit as stop:
        status = int(stop.code)
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert "Traceback" not in error
