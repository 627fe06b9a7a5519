"""Published numbers checked: by their files alone, and computed again."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from bench import publish, table1, verify
from bench.analysis import citations, publication, verification
from bench.engine import published
from bench.engine.cells import Cell
from bench.engine.command_line import run
from bench.engine.recomputation import Recomputation, sample

FOLDER = "results/small"
#: Learns from auxiliary images, and has two rows in the table: one for each offset.
LEARNER = """
import dataclasses
import os

import numpy as np

from methods import OneClassMethod


@dataclasses.dataclass(frozen=True)
class Settings:
    offset: float = 0.0


class Learner(OneClassMethod):
    name = "learner"
    needs_auxiliary = True
    profiles = {"paper": Settings()}

    def fit_auxiliary(self, images, *, path=None):
        if not path.exists():
            path.write_bytes(np.float64(images.mean()).tobytes())
        self.learned = np.frombuffer(path.read_bytes())[0]
        return self

    def prepare(self, images):
        return images.mean(axis=(2, 3)) - self.learned

    def fit(self, features):
        self.mean = features.mean(axis=0) + self.settings.offset
        return self

    def score_samples(self, features):
        return -np.abs(features - self.mean).sum(axis=1)
"""


def command(program: str, *arguments: str) -> int:
    if program == "verify":  # the engine's own tests have workers
        arguments = (*arguments, "--workers", "1")
    try:
        return run(
            f"bench.{program}", {"table1": table1, "publish": publish, "verify": verify}[program].main, arguments
        )
    except SystemExit as stop:
        return int(stop.code)


@pytest.fixture(scope="module")
def published_once(tmp_path_factory, write_experiment):
    """A folder in which a small run was made and published, with a method and data beside it."""
    place = tmp_path_factory.mktemp("verify")
    write_experiment(place)
    (place / "learner.py").write_text(LEARNER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("bench.analysis.page.write", lambda *_, **__: None)
        words = ["--datasets", "folder:images", "--methods", "mean_colour.py", "learner.py", "--train-per-class", "4",
                 "--set", "learner.py.offset=0", "--set", "learner.py.offset=90", "--workers", "1"]  # fmt: skip
        assert command("table1", *words, "--runs", "2") == 0
        assert command("publish", "runs", "--to", FOLDER) == 0
    return place


@pytest.fixture
def here(published_once, tmp_path, monkeypatch):
    """A copy of that folder, which is the working directory."""
    shutil.copytree(published_once, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def rows() -> pd.DataFrame:
    return pd.read_csv(f"{FOLDER}/rows.csv", dtype=str, keep_default_na=False)


def write_rows(frame: pd.DataFrame) -> None:
    frame.to_csv(f"{FOLDER}/rows.csv", index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)


def publish_again() -> None:
    """Make tables and digests of the rows as they are: whoever changes a number may do so too."""
    publication.write(Path(FOLDER), published.read_published(Path(FOLDER)), FOLDER)


def test_every_row_comes_out_the_same(here, capsys):
    status = command("verify", FOLDER, "--all")
    output = capsys.readouterr().out
    assert status == 0, output
    assert len(re.findall(r"^equal bit for bit: ", output, re.MULTILINE)) == 18
    assert "1 folders with 18 rows checked from their files: 0 faults" in output
    assert "18 of 18 rows were to be computed again: 18 equal bit for bit; largest difference 0" in output
    assert "trained again on auxiliary images: learner.py on folder:images" in output
    row = rows().iloc[0]
    assert re.search(rf"class '{row['class_name']}', m = 4, run {row['run']}: .*{json.loads(row['aucs'])['']}", output)


def test_a_sample_has_every_method_and_every_row_of_the_table(here, capsys):
    assert command("verify", FOLDER, "--sample", "2") == 0
    output = capsys.readouterr().out
    assert sorted(re.findall(r"bit: (\w+)\.py", output)) == ["learner", "mean_colour"]
    cells = published.read_published(Path(FOLDER)).cells
    three = sample(cells, 3, 1, ["method_identity", "settings"])
    assert len(cells[cells["key"].isin(three)].groupby(["method_identity", "settings"])) == 3
    assert sample(cells.iloc[::-1], 3, 1, ["method_identity", "settings"]) == three[::-1]
    assert len({tuple(sample(cells, 3, seed, ["method_identity", "settings"])) for seed in range(9)}) > 1
    assert sample(cells, 999, 0, ["method_identity", "settings"]) == list(cells["key"])


def test_trainings_from_a_cache_are_named(here, capsys):
    assert command("verify", FOLDER, "--sample", "9", "--cache", "runs/cache") == 0
    output = capsys.readouterr().out
    assert "taken from runs/cache, not trained again: learner.py on folder:images" in output
    assert "trained again" not in output.replace("not trained again", "")


def test_a_copied_training_stays_one_when_the_check_goes_on(here, capsys):
    copied = "not trained again: learner.py on folder:images"
    for cache, told in (
        (["--cache", "runs/cache"], "taken from runs/cache, "),
        ([], "a cache, by an earlier command, "),
    ):
        assert command("verify", FOLDER, "--sample", "9", "--out", "again", *cache) == 0
        output = capsys.readouterr().out
        assert f"{told}{copied}" in output
        assert "trained again" not in output.replace("not trained again", "")
    for training in [path for path in Path("again/cache/auxiliary").iterdir() if not path.suffix]:
        os.utime(training, ns=(0, 0))  # another file in place of the copy, as a training leaves
    assert command("verify", FOLDER, "--sample", "9", "--out", "again", "--cache", "runs/cache") == 0
    assert "trained again on auxiliary images: learner.py" in capsys.readouterr().out


def test_what_is_kept_is_not_computed_again(here, capsys, monkeypatch):
    log = here / "fits.log"
    monkeypatch.setenv("MEAN_COLOUR_LOG", str(log))
    for part in (["--sample", "4"], ["--all"]):
        assert command("verify", FOLDER, *part, "--out", "again") == 0
    assert len(log.read_text().splitlines()) == 6
    assert "18 equal bit for bit" in capsys.readouterr().out


def test_device_and_data_are_those_that_were_given(here, capsys, monkeypatch):
    given, compute = [], Recomputation.run

    def spy(self, keys, data_root, device, workers, report):
        given.append((data_root, device))
        compute(self, keys, data_root, device, workers, report)

    monkeypatch.setattr(Recomputation, "run", spy)
    assert command("verify", FOLDER, "--sample", "2", "--device", "cpu", "--data-root", "elsewhere") == 0
    assert given == [("elsewhere", "cpu")]
    assert list(Path("elsewhere").rglob("*.npy"))
    assert "2 equal bit for bit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "kept"), [([], "nothing is kept without --out"), (["--out", "again"], "kept in again")]
)
def test_ctrl_c_says_what_is_kept(here, capsys, monkeypatch, out, kept):
    compute = Recomputation.run

    def interrupted(self, keys, data_root, device, workers, report):
        def first(comparison):
            report(comparison)
            raise KeyboardInterrupt

        compute(self, keys, data_root, device, workers, first)

    monkeypatch.setattr(Recomputation, "run", interrupted)
    assert command("verify", FOLDER, "--sample", "3", *out) == 130
    captured = capsys.readouterr()
    assert captured.err.endswith(f"\nbench.verify: interrupted; 1 of 3 rows are compared; {kept}\n")
    assert len(re.findall("^equal bit for bit: ", captured.out, re.MULTILINE)) == 1
    if out:
        with sqlite3.connect("again/verify.sqlite") as connection:
            assert connection.execute("SELECT count(*) FROM cells").fetchone() == (1,)


@pytest.mark.parametrize("column", [
    "key", "dataset_fingerprint", "classes", "test_size", "method_version", "source_digest", "settings",
    "auxiliary_key", "auxiliary_fingerprint", "train_per_class", "run", "class", "seeds", "threads", "versions",
    "auc", "aucs", "fit_seconds", "score_seconds", "finished",
])  # fmt: skip
def test_one_changed_digit_is_found(here, capsys, column):
    frame = rows()
    whole = frame["aucs"].str.contains("1.0", regex=False)  # another last digit would be above 1, and is not even read
    index = frame.index[(frame["auxiliary_key"] != "") & ~whole][0]
    before = frame.loc[index, column]
    at = [place for place, letter in enumerate(before) if letter.isdigit()][-1]
    text = Path(f"{FOLDER}/rows.csv").read_text()
    changed = f"{before[:at]}{(int(before[at]) + 1) % 10}{before[at + 1 :]}"
    lines = text.split("\n")
    cells = next(csv.reader([lines[index + 1]]))
    cells[list(frame.columns).index(column)] = changed
    lines[index + 1] = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
    Path(f"{FOLDER}/rows.csv").write_text("\n".join(lines))
    assert command("verify", FOLDER, "--sample", "0") == 1
    output = capsys.readouterr().out
    assert re.search(r"^wrong: results/small/rows\.csv: changed after it was published", output, re.MULTILINE)
    if column in ("threads", "versions", "fit_seconds", "score_seconds", "finished"):
        return  # what was measured, or where: a digest alone knows it
    publish_again()
    assert command("verify", FOLDER, "--sample", "0") == 1
    output = capsys.readouterr().out
    assert re.search(r"^wrong: results/small/rows\.csv: row [0-9a-f]+: ", output, re.MULTILINE), output


def test_a_wrong_number_that_could_be_right_is_found_by_computing(here, capsys):
    frame = rows()
    aucs = json.loads(frame.loc[5, "aucs"])
    first = next(iter(aucs))
    aucs[first] = 0.5 if aucs[first] != 0.5 else 0.52
    frame.loc[5, ["auc", "aucs"]] = [repr(aucs[first]), json.dumps(aucs)]
    write_rows(frame)
    publish_again()
    assert command("verify", FOLDER, "--sample", "0") == 0
    assert command("verify", FOLDER, "--all") == 1
    output = capsys.readouterr().out
    (line,) = re.findall(r"^different: .*", output, re.MULTILINE)
    assert f": {first} {aucs[first]!r} → ".replace(":  ", ": ") in line
    assert "differs by " in line
    assert output.count("\nequal bit for bit: ") + output.startswith("equal bit for bit: ") == 17


def test_rounding_of_other_versions_is_told_from_a_difference(here, capsys):
    frame = rows()
    aucs = json.loads(frame.loc[5, "aucs"])
    first = next(iter(aucs))
    aucs[first] = aucs[first] - 0.02 if aucs[first] > 0.5 else aucs[first] + 0.02  # a pair of 50
    frame.loc[5, ["auc", "aucs"]] = [repr(aucs[first]), json.dumps(aucs)]
    frame["versions"] = '{"python":"2.7"}'
    write_rows(frame)
    assert command("verify", FOLDER, "--all", "--tolerance", "0.03") == 1  # the digests
    output = capsys.readouterr().out
    assert re.search(r"^equal within rounding: .*\(differs by 0\.02; other versions\b", output, re.MULTILINE), output
    assert "different" not in output.replace("largest difference", "")
    publish_again()
    command("verify", FOLDER, "--all", "--tolerance", "0.01")
    assert re.search(r"^different: ", capsys.readouterr().out, re.MULTILINE)


def test_tables_that_do_not_follow_from_the_rows(here, capsys):
    for name in ("table1.csv", "table1.md", "classes.csv", "command"):
        path = Path(FOLDER, name)
        before = path.read_text()
        path.write_text(before.replace("4", "5"))
        assert command("verify", FOLDER, "--sample", "0") == 1
        assert re.search(rf"{re.escape(name)}: line \d+ has ", capsys.readouterr().out)
        path.write_text(before)
    Path(FOLDER, "table1.md").unlink()
    Path(FOLDER, "command-2").write_text("old\n")
    assert command("verify", FOLDER, "--sample", "0") == 1
    output = capsys.readouterr().out
    assert "table1.md: not there" in output
    assert "command-2: there is no such file of these rows" in output


@pytest.mark.parametrize("name", ["rows.csv", "table1.csv", "table1.md", "classes.csv", "command"])
@pytest.mark.parametrize("change", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\xef\xbb\xbf" + text])
def test_every_byte_counts(here, name, change):
    """Whoever changes a file may write its digest too."""
    folder = Path(FOLDER)
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    lines = [f"{digest}  {file}\n" for file, digest in publication.digests(folder, publication.present(folder)).items()]
    (folder / publication.DIGESTS).write_text("".join(lines))
    faults = verification.check(folder).faults
    assert len(faults) == 1
    assert faults[0].startswith(f"{folder / name}: ")


def test_what_differs_in_a_long_line_is_shown(here):
    folder = Path(FOLDER)
    (folder / "rows.csv").write_bytes((folder / "rows.csv").read_bytes().replace(b"\n", b"\r\n"))
    (fault,) = [fault for fault in verification.check(folder).faults if "line 1 " in fault]
    assert '"finished"\\r\'; from the rows follows' in fault


def test_a_line_of_digests_that_is_none(here):
    with open(Path(FOLDER, publication.DIGESTS), "a") as stream:
        stream.write("something else\n")
    (fault,) = verification.check(Path(FOLDER)).faults
    assert fault.startswith("results/small/SHA256SUMS: a line is 'something else'; accepted are ")


@pytest.mark.parametrize(
    ("column", "before", "after"),
    [
        ("method", "learner.py", "corel"),
        ("method", "learner.py", "sklearn:LocalOutlierFactor@learner.py"),
        ("dataset_title", "folder:images", "cifar10"),
        ("auxiliary_title", "folder:images", "cifar100"),
    ],
)
def test_a_row_under_another_name_is_found(here, column, before, after):
    """Tables print these names, and no key is made of them."""
    frame = rows()
    frame[column] = frame[column].replace(before, after)
    write_rows(frame)
    publish_again()
    faults = [fault for fault in verification.check(Path(FOLDER)).faults if ": row " in fault]
    assert faults
    assert all(f": {column} is {after!r}, " in fault for fault in faults)


@pytest.mark.parametrize(("column", "after"), [("method", "corel"), ("auxiliary_title", "cifar100")])
def test_a_training_under_another_name_is_found(here, column, after):
    frame = pd.read_csv(f"{FOLDER}/auxiliaries.csv", dtype=str, keep_default_na=False)
    frame.assign(**{column: after}).to_csv(
        f"{FOLDER}/auxiliaries.csv", index=False, lineterminator="\n", quoting=csv.QUOTE_ALL
    )
    publish_again()
    faults = verification.check(Path(FOLDER)).faults
    assert len(faults) == len(frame)
    assert all(re.search(rf"/auxiliaries\.csv: row \w+: {column} is '{after}', ", fault) for fault in faults)


@pytest.mark.parametrize(
    ("method", "column", "after"),
    [("adt", "profile", "paper"), ("corel", "profile", "any"), ("dagmm", "changes", '{"epochs":5}')],
)
def test_settings_under_another_name_are_found(tmp_path, monkeypatch, method, column, after):
    """Quick settings that are called the paper's would stand beside its numbers."""
    shutil.copytree(Path(verification.__file__).parents[2] / "results" / "digits", tmp_path / FOLDER)
    monkeypatch.chdir(tmp_path)
    assert verification.check(Path(FOLDER)).faults == []
    frame = rows()
    frame.loc[frame["method"] == method, column] = after
    write_rows(frame)
    publish_again()
    faults = verification.check(Path(FOLDER)).faults
    assert len(faults) == (frame["method"] == method).sum()
    assert all(": profile, changes are " in fault for fault in faults)


def test_a_run_that_was_not_published(here, capsys):
    Path("other-run").mkdir()
    Path("other-run", "cells.sqlite").touch()
    assert command("verify", "other-run") == 2
    assert "results/NAME: got 'other-run', the folder of a run" in capsys.readouterr().err


def test_what_is_not_here_is_named_and_not_checked(here, capsys):
    Path("learner.py").write_text(LEARNER + "# changed\n")
    assert command("verify", FOLDER, "--all") == 0
    output = capsys.readouterr().out
    assert output.count("the code of its method has changed") == 12
    assert "12 not checked, 6 equal bit for bit" in output
    Path("learner.py").unlink()
    assert command("verify", FOLDER, "--sample", "9") == 0
    assert "its method is not here: method 'learner.py': there is no file" in capsys.readouterr().out
    image = next(Path("images/test/red").iterdir())
    shutil.copy(next(Path("images/test/green").iterdir()), image)
    assert command("verify", FOLDER, "--sample", "9") == verify.NOTHING_COMPUTED
    assert "the data of folder:images here is other data" in capsys.readouterr().out
    shutil.rmtree("images")
    assert command("verify", FOLDER, "--all") == verify.NOTHING_COMPUTED
    assert capsys.readouterr().out.count("the data of folder:images is not here") == 18


def test_a_method_of_another_version(here, capsys):
    frame = rows()
    row = dict(frame.iloc[-1])
    typed = published.read_published(Path(FOLDER)).cells.to_dict("records")[-1]
    cell = Cell.from_row({**typed, "method_version": 7})
    write_rows(pd.DataFrame([{**row, "method_version": "7", "key": cell.key}]))
    publish_again()
    assert command("verify", FOLDER, "--all") == verify.NOTHING_COMPUTED
    assert "its method has version 1 here, and had 7" in capsys.readouterr().out


def test_cells_that_fail_here_are_different(here, capsys, monkeypatch):
    monkeypatch.setenv("MEAN_COLOUR_FAIL", "1")
    assert command("verify", FOLDER, "--all") == 1
    assert capsys.readouterr().out.count("it fails here: NonFiniteLossError: mean-colour: the loss of epoch 3") == 2


def test_auc_that_no_scores_can_have():
    counts = {"dataset_fingerprint": "f", "class": 0, "test_images": None, "test_size": 15}

    def faults(*aucs: float) -> list[int]:
        frame = pd.DataFrame([{**counts, "key": key, "aucs": json.dumps({"": auc})} for key, auc in enumerate(aucs)])
        return list(verification.impossible_aucs(frame.astype({"test_images": "Int64"})))

    possible = [count / (2 * 5 * 10) for count in range(101)]
    assert faults(*possible) == []
    assert faults(*possible[:9], 0.981) == [9]
    assert faults(0.12345) == [0]
    assert faults(*possible[:9], 1.01, -0.01) == [9, 10]


PAGE = """# A page

<!-- rows: results/small -->

| method | AUC | m |
|---|---:|---:|
{row}

| method | here |
|---|---|
| learner | [{auc}](results/small/table1.csv "auc_mean: method=learner.py; settings=offset=0") |

Learner, [{auc} ± {std}](results/small/table1.csv "auc_mean: method=learner.py; settings=offset=0") in `0.1234`; 0.76.

```
0.12345 ± 0.01
```
"""


def page(**changes: str) -> Path:
    table = pd.read_csv(f"{FOLDER}/table1.csv", dtype=str, keep_default_na=False)
    row = table[(table["method"] == "learner.py") & (table["settings"] == "offset=0")].iloc[0]
    auc, std = f"{float(row['auc_mean']):.3f}", f"{float(row['auc_std']):.3f}"
    values = {"row": f"| learner.py (offset=0) | **{auc} ± {std}** | 4 |", "auc": auc, "std": std, **changes}
    Path("README.md").write_text(PAGE.format(**values))
    return Path("README.md")


def test_numbers_of_a_page(here, capsys):
    text = page().read_text()
    assert citations.check_page(Path("README.md"), every_number=True) == []
    assert command("verify") == 0
    assert "1 folders with 18 rows, 1 pages checked from their files: 0 faults" in capsys.readouterr().out
    for change, fault in [
        ({"auc": "0.123"}, r"README\.md:11: 0\.123: .*table1\.csv has \d\.\d+ as auc_mean"),
        ({"std": "0.999"}, r"README\.md:13: .* as auc_std"),
        ({"row": "| learner.py (offset=0) | 0.123 ± 0.001 | 4 |"}, r"README\.md:7: no row of results/small has method"),
        ({"row": "| learner.py (offset=0) | | 4 |"}, r"README\.md:7: no row"),
    ]:
        page(**change)
        assert command("verify") == 1
        assert re.search(fault, capsys.readouterr().out), change
    for old, new, fault in [
        ("<!-- rows: results/small -->", "", r":7: \d\.\d{3} does not say which row"),
        ("rows: results/small", "rows: results/none", "there is no results/none/table1.md"),
        ("# A page", "AUC 0.9712 is good", r":1: 0\.9712 does not say which row"),
        ("# A page", "<!-- rows: results/small -->", r":1: no table follows"),
        ("; settings=offset=0", "", "2 lines of .*table1.csv have method=learner.py; one is needed"),
        ("auc_mean:", "mean:", "has no column mean"),
        ("results/small/table1.csv", "results/none.csv", "none.csv cannot be read"),
    ]:
        Path("README.md").write_text(text.replace(old, new))
        faults = citations.check_page(Path("README.md"), every_number=True)
        assert re.search(fault, "\n".join(faults)), (old, faults)
    page()
    Path(FOLDER, "page").mkdir()
    Path(FOLDER, "page", "report.md").write_text("AUC 0.97312, as bench.report writes it\n")
    assert command("verify") == 0
    Path("README.md").write_text("Dropout 0.125, AUC 0.97312\n")
    assert citations.check_page(Path("README.md"), every_number=False) == []


@pytest.mark.parametrize(
    ("value", "printed", "same"),
    [
        ("0.759600", "0.760", True), ("0.759400", "0.760", False), ("0.7595", "0.760", True), ("0.76", "0.76", True),
        ("0.76", "0.75", False), ("0.76", "0.760", True), ("0.76", "0.761", False), ("1234.56", "1,235", True),
        ("nan", "0.76", False), ("", "0.76", False), ("text", "0.76", False), ("-0.003", "−0.003", True),
        ("0.003", "−0.003", False), ("0.76", "about 0.76", False),
    ],
)  # fmt: skip
def test_a_number_is_compared_as_it_is_printed(tmp_path, value, printed, same):
    (tmp_path / "t.csv").write_text(f"# a comment\na,b\n{value},x\n")
    (tmp_path / "p.md").write_text(f'It is [{printed}](t.csv "a: b=x").\n')
    assert (citations.check_page(tmp_path / "p.md", every_number=True) == []) is same


def test_published_folders_without_rows_are_faults(here, capsys):
    Path("results/other").mkdir()
    Path("results/other/table1.csv").write_text("a,b\n")
    Path("results/table1.md").write_text("| a |\n")
    assert command("verify") == 1
    output = capsys.readouterr().out
    for place in ("results", "results/other"):
        assert f"wrong: {place}/rows.csv: not there" in output
    Path(FOLDER, "rows.csv").write_text("damaged\n")
    assert command("verify", FOLDER) == 1
    output = capsys.readouterr().out
    assert "its columns are those of another version" in output
    assert "0 of 0 rows were to be computed again: none" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "results/NAME: got 'nowhere'"),
        (["--all"], "--all: needs results/NAME"),
        ([FOLDER, "--sample", "-1"], "--sample: got '-1'"),
        ([FOLDER, "--sample", "3", "--all"], "not allowed with"),
        ([FOLDER, "--tolerance", "nan"], "--tolerance: got 'nan'"),
        ([FOLDER, "--device", "abacus"], "device: got 'abacus'"),
        ([FOLDER, "--cache", "runs"], "--cache: got 'runs'"),
        ([FOLDER, "--out", "mean_colour.py"], "--out: cannot write to 'mean_colour.py'"),
        ([FOLDER, "--seed", "x"], "--seed: got 'x'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(here, capsys, words, message):
    assert command("verify", *words) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    assert message in error


def test_nothing_to_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command("verify") == 2
    assert "there is neither README.md nor results/ here" in capsys.readouterr().err
