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


def given(image_folder: Path, tmp_path: Path) -> list[str]:
    arguments = ["--dataset", f"folder:{image_folder}", "--train-per-class", "3", "--test-images", "9"]
    return [*arguments, "--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--device", "cpu"]


def test_all_arrangements_on_the_same_draws(image_folder: Path, tmp_path: Path, capsys) -> None:
    assert command(*given(image_folder, tmp_path)) == 0
    output = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "precision.csv")
    assert list(table["score"]) == ["dirichlet", "softmax"] * 3
    assert set(table["class_name"]) == {"red", "green", "grey"}
    assert table[list(precision.ARRANGEMENTS.values())].notna().all(axis=None)
    for row in precision.effects(table).itertuples():
        assert row.score in output
        assert f"{row[3]:.4f}" in output
    written = (tmp_path / "out" / "precision.md").read_text()
    assert "Produced by: python -m bench.precision --dataset folder:" in written
    first = table.to_csv()
    assert command(*given(image_folder, tmp_path)) == 0  # from the store
    assert pd.read_csv(tmp_path / "out" / "precision.csv").to_csv() == first


def test_single_classes(image_folder: Path, tmp_path: Path, capsys) -> None:
    assert command(*given(image_folder, tmp_path), "--classes", "grey", "0") == 0
    names = datasets.load(f"folder:{image_folder}", data_root=tmp_path / "data", progress=False).classes
    table = pd.read_csv(tmp_path / "out" / "precision.csv")
    assert set(table["class_name"]) == {"grey", names[0]}


def test_what_is_finished_is_reported_when_stopped(image_folder, tmp_path, capsys, monkeypatch) -> None:
    def one_cell_then_stop(pairs, *arguments):
        execute(pairs[:1], *arguments)
        raise KeyboardInterrupt

    execute = precision.execute
    monkeypatch.setattr(precision, "execute", one_cell_then_stop)
    assert command(*given(image_folder, tmp_path)) == 130
    captured = capsys.readouterr()
    assert "1 of 6 cells are finished and kept" in captured.err
    table = pd.read_csv(tmp_path / "out" / "precision.csv")
    assert table["bfloat16 scoring"].notna().all()
    assert table["bfloat16"].isna().all()
    assert len(table) == 2


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


def test_arrangements_are_told_apart_and_compared_where_both_are_there() -> None:
    rows = pd.DataFrame(
        {
            "run": 0,
            "class": [3, 3, 3, 5, 5],
            "class_name": ["cat"] * 3 + ["dog"] * 2,
            "variant": [
                "softmax in float32",
                "softmax in bfloat16",
                "softmax",
                "softmax in float32",
                "softmax in bfloat16",
            ],
            "training": ["float32", "float32", "bfloat16", "float32", "float32"],
            "auc": [0.5, 0.75, 1.0, 0.5, 0.5],
        }
    )
    table = precision.compare(rows)
    assert table.iloc[0].to_dict() == {
        "run": 0,
        "class_name": "cat",
        "score": "softmax",
        "float32": 0.5,
        "bfloat16 scoring": 0.75,
        "bfloat16": 1.0,
    }
    assert np.isnan(table.iloc[1]["bfloat16"])
    effects = precision.effects(table).set_index("arrangement")
    assert effects["mean AUC"].to_dict() == {"float32": 0.5, "bfloat16 scoring": 0.625, "bfloat16": 1.0}
    assert effects["mean difference"].dropna().to_dict() == {"bfloat16 scoring": 0.125, "bfloat16": 0.5}
    assert effects["classes and runs"].to_list() == [2, 2, 1]
    assert effects.loc["bfloat16 scoring", "standard error"] == 0.125
    assert effects.loc["bfloat16 scoring", "largest"] == 0.25


def test_precision_is_in_the_key(image_folder: Path, tmp_path: Path) -> None:
    dataset = datasets.load(f"folder:{image_folder}", data_root=tmp_path / "data", progress=False)
    spec = cells.method_spec("adt", "paper")
    keys = set()
    for value in ("float32", "bfloat16"):
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
        (["--classes", "purple"], "--classes: got 'purple'"),
        (["--dataset", "mnist"], "--dataset: got 'mnist'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(image_folder, tmp_path, capsys, arguments, message) -> None:
    try:
        status = command(*given(image_folder, tmp_path), *arguments)
    except SystemExit as stop:
        status = int(stop.code)
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert "Traceback" not in error
