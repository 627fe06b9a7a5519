"""The command of Table 1, from its arguments to its files."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bench import data, table1
from bench.analysis import tables
from bench.engine.command_line import run
from bench.engine.store import Store


def command(*arguments: str) -> int:
    return run("bench.table1", table1.main, list(arguments))


@pytest.fixture
def table(image_folder: Path, method_file: str, tmp_path: Path, capsys, monkeypatch):
    """Run the command on the small folder; returns (status, standard output, standard error)."""
    log = tmp_path / "fits.log"
    monkeypatch.setenv("MEAN_COLOUR_LOG", str(log))

    def go(*arguments: str, out: str = "results", workers: bool = True):
        log.write_text("")
        given = ["--datasets", f"folder:{image_folder}", "--methods", method_file, "--out", str(tmp_path / out)]
        given += ["--train-per-class", "4", "--runs", "2", "--data-root", str(tmp_path / "data"), "--device", "cpu"]
        given += ["--workers", "1"] if workers else []
        given += arguments
        try:
            status = command(*given)
        except SystemExit as stop:
            status = int(stop.code)
        captured = capsys.readouterr()
        go.fits = log.read_text().splitlines()
        go.out = tmp_path / out
        return status, captured.out, captured.err

    return go


def without_times(path: Path) -> str:
    frame = pd.read_csv(path)
    return frame[[column for column in frame if not column.endswith("seconds")]].to_csv()


def test_prints_and_writes_the_table(table):
    status, output, _ = table()
    assert status == 0
    assert len(table.fits) == 6
    rows = pd.read_csv(table.out / "table1.csv")
    assert rows["variant"].tolist() == ["mean", "oracle"]
    assert (rows["runs"] == 2).all()
    assert (rows["classes"] == 3).all()
    assert (rows["auc_mean"] > 0.9).all()
    for mean in rows["auc_mean"]:
        assert f"{mean:.3f}" in output
    assert "Profile 'quick'" in output
    assert "Produced by: python -m bench.table1 --datasets" in output
    assert "6 cells run (0 failed), 0 taken" in output
    written = (table.out / "table1.md").read_text()
    assert "| dataset | method" in written
    assert "\n6 cells: commit " in written
    cells = pd.read_csv(table.out / "cells.csv")
    mean = cells[cells["variant"] == "mean"].groupby("run")["auc"].mean()
    assert rows.loc[0, "auc_mean"] == pytest.approx(mean.mean(), abs=1e-6)
    assert rows.loc[0, "auc_std"] == pytest.approx(mean.std(ddof=1), abs=1e-6)


def test_second_run_runs_nothing_and_a_deleted_row_reruns_that_cell_alone(table):
    table()
    first = without_times(table.out / "table1.csv")
    status, output, _ = table()
    assert (status, table.fits) == (0, [])
    assert "0 cells run (0 failed), 6 taken" in output
    with sqlite3.connect(table.out / "cells.sqlite") as connection:
        key, before = connection.execute("SELECT key, auc FROM cells WHERE run = 1 AND class = 2").fetchone()
        connection.execute("DELETE FROM cells WHERE key = ?", (key,))
    table()
    assert len(table.fits) == 1
    with sqlite3.connect(table.out / "cells.sqlite") as connection:
        assert connection.execute("SELECT auc FROM cells WHERE key = ?", (key,)).fetchone() == (before,)
    assert without_times(table.out / "table1.csv") == first


def test_workers_give_the_same_files_as_this_process(table):
    """Whether both compute is left to chance: one may be done before the other has started."""
    table(out="one")
    table("--workers", "2", out="two")
    assert len(table.fits) == 6
    assert str(os.getpid()) not in {line.split()[0] for line in table.fits}
    for name in ("table1.csv", "cells.csv"):
        assert without_times(table.out.parent / "one" / name) == without_times(table.out / name)


def test_row_says_how_it_came_about(table):
    table()
    with sqlite3.connect(table.out / "cells.sqlite") as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM cells LIMIT 1").fetchone())
    assert json.loads(row["settings"]) == {"noise": 0.2}
    assert set(json.loads(row["aucs"])) == {"mean", "oracle"}
    assert json.loads(row["aucs"])["mean"] == row["auc"]
    assert {"torch", "numpy", "python"} <= set(json.loads(row["versions"]))
    assert {"base", "method", "auxiliary"} == set(json.loads(row["seeds"]))
    assert row["fit_seconds"] > 0
    assert row["score_seconds"] > 0
    assert row["device"].startswith("cpu (")
    assert row["threads"] == 1
    assert re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{32}", row["dataset_fingerprint"])


def test_threads_that_were_asked_for_and_those_of_a_profile(table, monkeypatch):
    monkeypatch.setattr("bench.engine.cores.available_cores", lambda: 3)
    words = ["--runs", "1", "--classes", "red"]
    table(*words, "--threads", "2")
    table(*words, "--profile", "paper")
    with sqlite3.connect(table.out / "cells.sqlite") as connection:
        found = connection.execute("SELECT profile, threads FROM cells ORDER BY profile").fetchall()
    assert found == [("paper", 3), ("quick", 2)]


def test_regimes_stand_side_by_side(table):
    _, output, _ = table("--train-per-class", "all", "4")
    rows = pd.read_csv(table.out / "table1.csv")
    assert rows["train_per_class"].tolist() == ["4", "all", "4", "all"]
    assert output.index("  4  ") < output.index("all  ")


def test_changed_images_settings_or_method_are_other_cells(table, image_folder, tmp_path):
    table()
    table("--profile", "paper")
    assert len(table.fits) == 6
    table("--seed", "1")
    assert len(table.fits) == 6
    source = tmp_path / "mean_colour.py"
    source.write_text(source.read_text() + "\n# edited\n")
    table()
    assert len(table.fits) == 6
    next((image_folder / "train" / "red").iterdir()).unlink()
    table()
    assert len(table.fits) == 6


def test_settings_from_the_command_line_are_rows_and_keys(table, method_file):
    changes = [f"--set={method_file}.noise={value}" for value in ("0", "0.5")]
    status, output, _ = table(*changes)
    assert (status, len(table.fits)) == (0, 12)
    rows = pd.read_csv(table.out / "table1.csv")
    assert rows["settings"].tolist() == ["noise=0", "noise=0", "noise=0.5", "noise=0.5"]
    assert "(mean, noise=0.5)" in output
    with sqlite3.connect(table.out / "cells.sqlite") as connection:
        found = connection.execute("SELECT DISTINCT settings, changes FROM cells ORDER BY settings").fetchall()
    assert found == [('{"noise":0.0}', '{"noise":0.0}'), ('{"noise":0.5}', '{"noise":0.5}')]
    table(f"--set={method_file}.noise=0.2")  # the profile's own value
    assert len(table.fits) == 6
    assert pd.read_csv(table.out / "table1.csv")["settings"].isna().all()
    table()
    assert table.fits == []


def test_a_part_of_the_test_split(table, image_folder):
    table()
    whole = pd.read_csv(table.out / "table1.csv").to_dict("records")
    status, output, _ = table("--test-images", "6")
    assert (status, len(table.fits)) == (0, 6)
    assert "6 of 15" in output
    assert "| 6 of 15 |" in (table.out / "table1.md").read_text()
    rows = pd.read_csv(table.out / "table1.csv")
    assert rows["test_images"].tolist() == [6, 6]
    assert [row["test_images"] for row in whole] == [15, 15]
    # AUCs of 2 images in and 4 out of class are multiples of 1/16
    aucs = pd.read_csv(table.out / "cells.csv")["auc"] * 16
    assert (aucs == aucs.round()).all()
    table("--test-images", "15")
    assert table.fits == []


def test_several_auxiliary_datasets(table, image_folder, method_file):
    own = f"folder:{image_folder}"
    _, output, _ = table("--methods", "corel", method_file, "--auxiliary", own, "digits", "--dry-run")
    assert re.findall(r"(\S+) on \S+, m = 4, auxiliary (\S+): 6 cells", output) == [("corel", own), ("corel", "digits")]
    assert f"{method_file} on {own}, m = 4: 6 cells to run" in output
    assert "training of corel on digits, time unknown" in output


def test_first_rows_are_shown_before_the_last(table, method_file):
    _, output, error = table("--train-per-class", "3", "4")
    lines = [line for line in re.split(r"[\r\n]+", error) if " AUC " in line]
    assert len(lines) == 2  # both scores of m = 3
    assert re.search(rf"{method_file} \(mean\) on folder:\S+: AUC \d\.\d+ ± 0\.\d+ \(m 3, ", lines[0])
    assert "(mean)" in output


def test_dry_run_computes_and_writes_nothing(table, tmp_path):
    status, output, _ = table("--dry-run")
    assert (status, table.fits, (tmp_path / "results").exists()) == (0, [], False)
    assert "6 cells to run; no finished cell here tells how long they take" in output
    table("--runs", "1")
    before = (table.out / "cells.sqlite").read_bytes()
    _, output, _ = table("--dry-run", "--runs", "3")
    assert re.search(r"m = 4: 6 cells to run, about \d+ s, 3 there", output)
    assert re.search(r"6 cells to run, about \d+ s with 1 worker$", output.strip())
    assert (table.fits, (table.out / "cells.sqlite").read_bytes()) == ([], before)
    _, output, _ = table("--dry-run", "--runs", "1")
    assert output.endswith("nothing to run\n")


def test_dry_run_says_what_failed_before(table, monkeypatch):
    monkeypatch.setenv("MEAN_COLOUR_FAIL", "1")
    table()
    assert "0 cells to run, 4 there, 2 failed before" in table("--dry-run")[1]
    assert "2 cells to run" in table("--dry-run", "--retry-failed")[1]


def test_list_names_methods_settings_and_datasets(table, method_file):
    status, output, _ = table("--list", "--methods", method_file, "corel")
    assert (status, table.fits, (table.out).exists()) == (0, [], False)
    assert re.search(r"    noise +0\.1 +0\.2\n", output)
    assert re.search(r"    epochs +50 +", output)
    assert re.search(r"  digits +digits +found\n", output)
    assert re.search(r"  cifar10 +cifar100 +not found\n", output)


def test_list_of_a_method_whose_profiles_have_different_settings(table, tmp_path):
    (tmp_path / "two.py").write_text(
        "import dataclasses\n"
        "from methods import OneClassMethod\n"
        "@dataclasses.dataclass(frozen=True)\nclass A:\n    lr: float = 0.1\n"
        "@dataclasses.dataclass(frozen=True)\nclass B:\n    epochs: int = 3\n"
        "class Two(OneClassMethod):\n    name = 'two'\n    profiles = {'paper': A(), 'quick': B()}\n"
        "    def fit(self, features):\n        return self\n"
        "    def score_samples(self, features):\n        return features.mean((1, 2, 3))\n"
    )
    status, output, _ = table("--list", "--methods", str(tmp_path / "two.py"))
    assert status == 0
    assert re.search(r"    lr +0\.1 +–\n +epochs +– +3\n", output)


def test_a_file_of_arguments(table, tmp_path):
    words = tmp_path / "command"
    words.write_text("# one run, two classes\n--runs 1  # a comment\n\n--classes 'grey' \\red\n")
    status, _, _ = table(f"@{words}")
    assert (status, len(table.fits)) == (0, 2)
    for content, message in [(b"--classes 'grey\n", "cannot read the line"), (b"\xff\xfe", "not text in UTF-8")]:
        words.write_bytes(content)
        status, _, error = table(f"@{words}")
        assert (status, len(error.splitlines())) == (2, 1)
        assert message in error
    words.write_text(f"@{words}\n")
    assert "names itself" in table(f"@{words}")[2]


def test_time_limit_stops_before_the_next_cell(table, monkeypatch):
    status, output, _ = table("--limit-hours", "1e-9")
    assert (status, table.fits) == (0, [])
    assert "stopped by --limit-hours: 6 of 6 cells are left for another run" in output
    monkeypatch.setenv("MEAN_COLOUR_SLEEP", "2.5")
    status, output, _ = table("--limit-hours", str(4 / 3600))
    assert status == 0
    assert 1 <= len(table.fits) < 6
    assert f"stopped by --limit-hours: {6 - len(table.fits)} of 6 cells" in output
    monkeypatch.delenv("MEAN_COLOUR_SLEEP")
    status, output, _ = table("--limit-hours", "1")
    assert "stopped by" not in output
    assert "0 failed" in output


def test_help_names_every_dataset():
    help_text = "".join(table1.table1_parser().format_help().split())
    for name in data.names():
        assert name in help_text


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["--frobnicate"], ["--runs", "0"]])
@pytest.mark.parametrize("module", ["table1", "publish", "verify", "scale"])
def test_an_answer_that_needs_no_library_imports_none(words, module):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['bench.{module}', *{words!r}]\n"
        "try:\n"
        f"    runpy.run_module('bench.{module}', run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'torch', 'pandas', 'numpy', 'sklearn', 'scipy', 'matplotlib', 'numba', 'PIL', 'distributed'}\n"
        "    print('imported:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("imported: []\n"), done.stdout
    assert done.returncode == (0 if words[0] in ("--help", "--version") else 2)
    assert "Traceback" not in done.stderr
    if words == ["--version"]:
        assert re.match(r"corel \d", done.stdout)


def test_classes_by_name_and_number(table):
    table("--classes", "grey", "0")
    assert len(table.fits) == 4
    assert pd.read_csv(table.out / "cells.csv")["class_name"].unique().tolist() == ["grey", "green"]


def test_failing_cell_costs_itself_alone_and_is_said(table, monkeypatch):
    monkeypatch.setenv("MEAN_COLOUR_FAIL", "1")
    status, output, error = table()
    assert status == 1
    assert "NonFiniteLossError: mean-colour: the loss of epoch 3 is nan" in output
    assert "class 'red'" in error
    assert "6 cells run (2 failed)" in output
    rows = pd.read_csv(table.out / "table1.csv")
    assert rows["failed"].tolist() == [2, 2]
    assert (rows["classes"] == 2).all()
    assert "failed cells" in (table.out / "table1.md").read_text()
    monkeypatch.delenv("MEAN_COLOUR_FAIL")
    status, output, _ = table()
    assert (status, table.fits) == (1, [])
    assert output.count("NonFiniteLossError: mean-colour: the loss of epoch 3 is nan") == 2
    assert "2 cells failed before and were not run again; --retry-failed runs them" in output
    status, output, _ = table("--retry-failed")
    assert status == 0
    assert len(table.fits) == 2
    assert "failed:" not in output


def test_a_method_whose_every_cell_failed_alone(table):
    status, output, _ = table("--methods", "corel")
    assert status == 1
    assert re.search(r"corel +4 .* failed ", output)
    assert output.count("failed: corel on folder:") == 6
    assert pd.read_csv(table.out / "table1.csv")["failed"].tolist() == [6]
    assert "| failed |" in (table.out / "table1.md").read_text()


def test_sys_exit_in_a_method_costs_its_cells_alone(table, method_file, tmp_path):
    names = []
    for verb in ("fit", "prepare"):
        (tmp_path / f"{verb}.py").write_text(
            "import sys\nfrom methods import OneClassMethod\nclass Leaves(OneClassMethod):\n    name = 'leaves'\n"
            "    def fit(self, features):\n        return self\n    def score_samples(self, features):\n        ...\n"
            f"    def {verb}(self, features):\n        sys.exit(7)\n"
        )
        names.append(str(tmp_path / f"{verb}.py"))
    status, output, _ = table("--methods", *names, method_file)
    assert status == 1
    assert "18 cells run (12 failed)" in output
    assert output.count(": SystemExit: 7") == 12


@pytest.mark.parametrize(
    ("error", "shown"), [("KeyError('boom')", "KeyError: 'boom'"), ("SystemExit(3)", "SystemExit: 3")]
)
def test_method_that_cannot_be_made(table, method_file, error, shown):
    path = Path(method_file.partition(":")[0])
    path.write_text(
        path.read_text().replace(
            "    def fit(",
            f"    def __init__(self, settings=None, *, seed=0, device='auto'):\n        raise {error}\n\n    def fit(",
        )
    )
    status, _, err = table()
    assert status == 2
    assert err == f"bench.table1: error: method {method_file!r}: __init__ raises {shown}\n"


def test_damaged_features_are_prepared_again(table, method_file):
    path = Path(method_file.partition(":")[0])
    path.write_text(
        path.read_text().replace(
            "    def fit(", "    def prepare(self, images):\n        return images / 2\n\n    def fit("
        )
    )
    table()
    first = without_times(table.out / "table1.csv")
    for number, file in enumerate(sorted((table.out / "cache" / "features").iterdir())):
        file.write_bytes(file.read_bytes()[:1000] if number else b"nonsense")
        (table.out / "cells.sqlite").unlink()
        status, output, error = table()
        assert status == 0, error
        assert "6 cells run (0 failed)" in output
        assert without_times(table.out / "table1.csv") == first


def test_files_are_written_before_the_table_is_printed(table, monkeypatch):
    def nobody_reads(text):
        raise BrokenPipeError

    monkeypatch.setattr(tables, "to_text", nobody_reads)
    status, output, error = table()
    assert (status, output) == (141, "")
    assert "Broken" not in error
    for name in ("table1.csv", "table1.md", "cells.csv"):
        assert (table.out / name).exists()


def test_store_that_cannot_be_written_during_the_run(table, monkeypatch):
    add = Store.add

    def full(store, *arguments, **values):
        store._connection.execute("PRAGMA query_only = 1")
        add(store, *arguments, **values)

    monkeypatch.setattr(Store, "add", full)
    status, _, error = table()
    assert status == 2
    assert re.search(r"bench.table1: error: store: cannot write to '.*cells.sqlite' \(.*\)", error.splitlines()[-1])


def test_what_an_earlier_run_called_failed_heals(table, monkeypatch):
    monkeypatch.setenv("MEAN_COLOUR_FAIL", "1")
    table()
    monkeypatch.delenv("MEAN_COLOUR_FAIL")
    with sqlite3.connect(table.out / "cells.sqlite") as connection:
        failures = connection.execute("SELECT * FROM failures").fetchall()
    table("--retry-failed")
    with sqlite3.connect(table.out / "cells.sqlite") as connection:
        connection.executemany(f"INSERT INTO failures VALUES ({','.join('?' * len(failures[0]))})", failures)
    status, output, _ = table()
    assert status == 0
    assert "failed:" not in output


def test_a_failed_auxiliary_training_costs_its_method_alone(table, method_file):
    status, output, error = table("--methods", "corel", method_file)
    assert status == 1
    assert "failed: corel on folder:" in output
    assert "images: got 24, fewer than batch_size = 100" in error
    rows = pd.read_csv(table.out / "table1.csv")
    assert rows["method"].tolist() == ["corel", method_file, method_file]
    assert rows["failed"].tolist() == [6, 0, 0]
    assert "Failed: corel on folder:" in (table.out / "table1.md").read_text()


def test_failures_are_said_in_the_order_of_the_plan(table, monkeypatch):
    monkeypatch.setenv("MEAN_COLOUR_FAIL", "1")
    _, output, _ = table("--classes", "red", "--runs", "4")
    assert re.findall(r"failed: .* run (\d)", output) == ["0", "1", "2", "3"]


def test_table_where_everything_failed(table, monkeypatch):
    monkeypatch.setenv("MEAN_COLOUR_FAIL", "1")
    status, output, _ = table("--classes", "red")
    assert status == 1
    assert re.search(r"mean_colour.py:MeanColour +4 .* failed ", output)


BAD = {
    "dataset": (["--datasets", "mnist"], "--datasets: got 'mnist'"),
    "method": (["--methods", "svm"], "'svm'; available are"),
    "profile": (["--profile", "slow"], "profile: got 'slow'"),
    "class": (["--classes", "blue"], "--classes: got 'blue'; .* green, grey, red"),
    "class number": (["--classes", "3"], "--classes: got '3'"),
    "auxiliary": (["--auxiliary", "nothing"], "--auxiliary: got 'nothing'; accepted are digits"),
    "empty auxiliary": (["--auxiliary", ""], "--auxiliary: got ''; accepted are digits"),
    "seed": (["--seed", "x"], "argument --seed: got 'x'; accepted are whole numbers"),
    "threads": (["--threads", "99999999999"], "argument --threads: got '99999999999'; .* from 1 to 1024"),
    "no test images": (["--test-images", "0"], "argument --test-images: got '0'"),
    "fewer test images than classes": (
        ["--test-images", "2"],
        "--test-images: got 2, but folder:.* 15 test images of 3 classes; accepted are 3 to 15",
    ),
    "more test images than there are": (["--test-images", "16"], "--test-images: got 16, but folder:"),
    "no setting": (["--set", "x=1"], "--set: got 'x=1'; accepted is METHOD.SETTING=VALUE"),
    "setting of a method that is not run": (["--set", "corel.lam=0"], "--set: got 'corel.lam=0'; .* that is run"),
    "second auxiliary": (["--auxiliary", "digits", "nothing"], "--auxiliary: got 'nothing'"),
    "no limit": (["--limit-hours", "0"], "argument --limit-hours: got '0'; accepted are finite numbers above 0"),
    "endless limit": (["--limit-hours", "inf"], "argument --limit-hours: got 'inf'"),
    "nothing published": (["--from", "nowhere"], "--from: got 'nowhere', which holds neither"),
    "no command file": (["@nowhere"], "nowhere"),
    "empty out": (["--out", ""], "--out: got ''"),
    "m of 0": (["--train-per-class", "0"], "argument --train-per-class: got '0'"),
    "negative m": (["--train-per-class", "-3"], "--train-per-class"),
    "m that is a word": (
        ["--train-per-class", "some"],
        "got 'some'; accepted are whole numbers of at least 1, and 'all'",
    ),
    "m above the class": (["--train-per-class", "9"], "got 9, but class 'green' .* has 8 training images"),
    "no runs": (["--runs", "0"], "argument --runs: got '0'; accepted are whole numbers from 1 to 10000"),
    "more runs than can be planned": (["--runs", "9" * 400], "argument --runs: got '999"),
    "an option with control characters": (["--\x1b[2J\r\n"], r"unrecognized arguments: --\\x1b\[2J\\r\\n"),
    "no workers": (["--workers", "0"], "argument --workers: got '0'"),
    "scheduler and workers": (["--scheduler", "tcp://127.0.0.1:9"], "--scheduler: not allowed with argument --workers"),
    "unknown option": (["--frobnicate"], "--frobnicate"),
    "folder": (["--datasets", "folder:nowhere"], "nowhere"),
    "data root": (["--datasets", "cifar10"], "cifar10"),
    "imagenet": (["--datasets", "imagenet"], "imagenet"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_status_2(table, name):
    arguments, message = BAD[name]
    status, output, error = table(*arguments)
    assert status == 2
    assert output == ""
    lines = [line for line in re.split(r"[\r\n]+", error) if line and not line.startswith("decoding")]
    assert len(lines) == 1, error
    assert re.search(message, error), error


def test_no_gpu(table):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    status, _, error = table("--device", "cuda")
    assert status == 2
    assert "device: got 'cuda', but PyTorch finds no CUDA GPU here" in error


def test_unwritable_out(table, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, error = table(out="file/below")
    assert status == 2
    assert error.startswith("bench.table1: error: --out: cannot write to")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("table1.csv", Path.mkdir, "table1.csv': it is a folder"),
        ("table1.md", Path.mkdir, "table1.md': it is a folder"),
        ("cells.csv", Path.mkdir, "cells.csv': it is a folder"),
        ("cache", Path.touch, "cache' \\(File exists"),
    ],
)
def test_what_stands_in_the_way_of_results_is_found_out_first(table, tmp_path, name, make, message):
    (tmp_path / "results").mkdir()
    make(tmp_path / "results" / name)
    status, _, error = table()
    assert (status, table.fits) == (2, [])
    assert re.search(f"--out: cannot write .*{message}", error)


def test_a_run_in_a_published_folder_is_refused(table, tmp_path):
    """Its tables would be replaced, and its rows be read in place of the run's."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rows.csv").touch()
    status, _, error = table()
    assert (status, table.fits, len(error.splitlines())) == (2, [], 1)
    assert "the folder of a published table; accepted is another one for a run" in error
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["rows.csv"]


def test_damaged_store(table, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cells.sqlite").write_bytes(b"this is not a database, " * 100)
    status, _, error = table()
    assert status == 2
    assert "store: cannot use" in error


def _start(image_folder: Path, method_file: str, out: Path, *arguments: str, sleep: str) -> subprocess.Popen[str]:
    words = ["--datasets", f"folder:{image_folder}", "--methods", method_file, "--train-per-class", "4", "--runs", "4"]
    return subprocess.Popen(
        [sys.executable, "-m", "bench.table1", *words, "--out", str(out), "--data-root", str(out / "data"), *arguments],
        env={**os.environ, "MEAN_COLOUR_SLEEP": sleep},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finished(out: Path) -> int:
    try:
        with sqlite3.connect(f"file:{out / 'cells.sqlite'}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM cells").fetchone()[0])
    except sqlite3.Error:
        return 0


def _wait_for_cells(process: subprocess.Popen[str], out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while _finished(out) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_run_goes_on_to_the_same_table(table, image_folder, method_file, tmp_path):
    """Of one worker, tests/survival kills it at many moments."""
    out = tmp_path / "killed"
    process = _start(image_folder, method_file, out, "--workers", "2", sleep="0.5")
    _wait_for_cells(process, out, 2)
    process.kill()
    process.wait()
    kept = _finished(out)
    assert 2 <= kept < 12
    again = _start(image_folder, method_file, out, "--workers", "2", sleep="0")
    output, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert f"{12 - kept} cells run (0 failed), {kept} taken" in output
    assert table("--runs", "4", out="whole")[0] == 0
    for name in ("table1.csv", "cells.csv"):
        assert without_times(out / name) == without_times(table.out / name)


@pytest.mark.parametrize(("workers", "name"), [("2", "SIGINT"), ("2", "SIGTERM"), ("1", "SIGHUP")])
def test_signal_is_answered_in_few_words_and_keeps_what_is_finished(image_folder, method_file, tmp_path, workers, name):
    out = tmp_path / "interrupted"
    process = _start(image_folder, method_file, out, "--workers", workers, sleep="0.5")
    _wait_for_cells(process, out, 2)
    number = getattr(signal, name)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in error
    assert "resource_tracker" not in error
    how = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert re.search(rf"bench.table1: {how}; [2-9]\d* of 12 cells are finished and kept", error)
    assert 2 <= _finished(out) < 12


def test_ctrl_c_while_workers_start(image_folder, method_file, tmp_path):
    """The whole group of processes gets the signal, as from a terminal."""
    marker = tmp_path / "started"
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, sys, time\nif '--multiprocessing-fork' in sys.orig_argv:\n"
        f"    pathlib.Path({str(marker)!r}).touch()\n    time.sleep(1)\n"
    )
    words = ["--datasets", f"folder:{image_folder}", "--methods", method_file, "--train-per-class", "4"]
    words += ["--workers", "2", "--out", str(tmp_path / "out"), "--data-root", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.table1", *words],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not marker.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert error.endswith("bench.table1: interrupted; 0 of 15 cells are finished and kept\n")


def test_dask_cluster_gives_the_same_table(table):
    distributed = pytest.importorskip("distributed")
    table(out="here")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        given = ["--scheduler", cluster.scheduler_address]
        status, output, error = table(*given, out="cluster", workers=False)
    assert status == 0, error
    assert "6 cells run (0 failed)" in output
    assert str(os.getpid()) not in {line.split()[0] for line in table.fits}
    assert without_times(table.out.parent / "here" / "table1.csv") == without_times(table.out / "table1.csv")


def test_no_scheduler_there(table, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("bench.engine.cluster.ANSWER_SECONDS", 0.5)
    for device in ("auto", "cuda:99"):  # the devices are the cluster's, not of this machine
        status, _, error = table("--scheduler", "tcp://127.0.0.1:9", "--device", device, workers=False)
        assert status == 2
        assert "--scheduler: no Dask scheduler answers at 'tcp://127.0.0.1:9'" in error.splitlines()[-1]
