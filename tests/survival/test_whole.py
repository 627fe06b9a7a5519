"""The whole command where names, locale, streams and other people's methods are not as one would wish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import bench

sys.path.insert(0, str(Path(__file__).parent))
from small import METHOD, without_times, write_images

sys.path.pop(0)

PLAIN = {**os.environ, "PYTHONPATH": str(Path(bench.__file__).parents[1])}
#: Python's own ways out of an ASCII locale are closed.
ASCII = {**PLAIN, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def table1(folder: Path, words: list[bytes], environment: dict[str, str], redirections: str = "") -> bytes:
    """Run the command in another process; returns what it printed."""
    head = [sys.executable, "-m", "bench.table1", "--workers", "1", "--train-per-class", "4", "--runs", "1"]
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *head, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no names that are not UTF-8")
def test_names_of_every_kind_to_the_written_table_and_the_store(tmp_path):
    """That are not UTF-8, or not ASCII under ``LC_ALL=C``: of the dataset, its classes, a method, the results."""
    images = os.fsencode(tmp_path) + b"/im\xfcges"
    write_images(Path(os.fsdecode(images)), {b"caf\xe9": (60, 60, 200), "grün".encode(): (60, 200, 60)})
    for name in (b"m\xe9thode.py", "метод.py".encode()):
        with open(os.fsencode(tmp_path) + b"/" + name, "w") as file:
            file.write(METHOD if name.isascii() or b"\xe9" in name else METHOD.replace('"mean"', '"other"'))
    words = [b"--datasets", b"folder:im\xfcges", b"--methods", b"m\xe9thode.py", "метод.py:Mean".encode()]
    words += [b"--data-root", b"d\xfdta"]
    found = {}
    for name, environment in ((b"pl\xe4in", PLAIN), (b"asc\xefi", ASCII)):
        output = table1(tmp_path, [*words, b"--out", name], environment)
        assert b"4 cells run (0 failed)" in output
        out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        found[name] = [without_times(out / file) for file in ("table1.csv", "cells.csv")]
        text = (out / "table1.md").read_text(encoding="utf-8")
        assert r"| folder:im\xfcges | m\xe9thode.py |" in text
        assert r"| folder:im\xfcges | метод.py:Mean |" in text
        rows = subprocess.run(
            [sys.executable, "-m", "bench.publish", os.fsencode(out), "--to", b"p" + name],
            cwd=tmp_path, env=environment, capture_output=True, timeout=300,
        )  # fmt: skip
        assert rows.returncode == 0, rows.stderr
        published = pd.read_csv(Path(os.fsdecode(os.fsencode(tmp_path) + b"/p" + name)) / "rows.csv")
        assert set(published["class_name"]) == {r"caf\xe9", "grün"}
        assert published["command"].nunique() == 1
        found[name].append(published["command"][0])
    assert found[b"pl\xe4in"] == found[b"asc\xefi"]


def test_a_table_is_computed_and_written_though_all_streams_are_closed(tmp_path):
    (tmp_path / "m.py").write_text(METHOD)
    write_images(tmp_path / "images", {"a": (60, 60, 200), "b": (60, 200, 60)})
    words = [b"--datasets", b"folder:images", b"--methods", b"m.py", b"--out", b"out"]
    assert table1(tmp_path, words, PLAIN, "<&- >&- 2>&-") == b""
    assert without_times(tmp_path / "out" / "table1.csv").count("folder:images") == 1
    assert "AUC" in (tmp_path / "out" / "table1.md").read_text(encoding="utf-8")


CHANGES = """
import os
import random
import numpy as np
import torch


def change():
    os.chdir("/")
    os.environ["OMP_NUM_THREADS"] = "7"
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_default_device("meta")
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(True, warn_only=True)
    np.seterr(all="raise")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


change()
"""


def test_a_method_that_changes_the_process_changes_no_other_method(tmp_path, call):
    """At the top of its file and in each of its verbs; before other methods, and between them."""
    text = CHANGES + METHOD
    for verb in ("fit(self, features):", "score_samples(self, features):"):
        text = text.replace(verb, f"{verb}\n        change()")
    (tmp_path / "changes.py").write_text(text)
    made = "    def __init__(self, *given, **named):\n        super().__init__(*given, **named)\n        change()\n\n"
    (tmp_path / "again.py").write_text(text.replace('"mean"', '"again"').replace("    def fit", f"{made}    def fit"))
    words = ["--classes", "0", "1", "--runs", "1", "--train-per-class", "20", "--test-images", "40"]
    words += ["--set", "deep-svdd.epochs=1", "--set", "deep-svdd.pretraining_epochs=1", "--set", "corel.epochs=1"]
    others = ["deep-svdd", "corel", "sklearn:IsolationForest"]
    status, _, error = call("table1", *words, "--methods", *others, "--out", "alone")
    assert status == 0, error
    status, output, error = call(
        "table1", *words, "--methods", "changes.py", "deep-svdd", "again.py", *others[1:], "--out", "beside"
    )
    assert status == 0, error
    assert "written to beside: table1.csv, table1.md, classes.csv, cells.csv" in output
    assert Path.cwd() == tmp_path
    alone, beside = (pd.read_csv(tmp_path / out / "cells.csv", dtype=str) for out in ("alone", "beside"))
    beside = beside[beside["method"].isin(others)].reset_index(drop=True)
    same = [column for column in alone if not column.endswith("seconds")]
    pd.testing.assert_frame_equal(beside[same], alone[same])
