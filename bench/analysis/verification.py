"""Whether a published folder holds together: checked from its files alone, nothing is computed again."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tempfile
from collections.abc import Mapping
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import methods
from bench.analysis import citations, publication
from bench.engine import protocol, published
from bench.engine.cells import Cell, auxiliary_key, canonical_json, flattened, printable, profile_and_changes
from bench.engine.store import Rows
from methods import detectors, own


@dataclasses.dataclass
class Publication:
    """A published folder as it was read.

    ``faults`` are lines for people. ``unsound`` holds the keys of rows that are not what their columns say, so that
    there is nothing to compute again. ``rows`` is None where they cannot be read.
    """

    folder: Path
    rows: Rows | None = None
    faults: list[str] = dataclasses.field(default_factory=list)
    unsound: set[str] = dataclasses.field(default_factory=set)

    def say(self, file: str, text: str) -> None:
        """Add a fault."""
        self.faults.append(f"{self.folder / file}: {text}")


def check_all(here: Path) -> tuple[list[Publication], list[Path], list[str]]:
    """Check what is published below ``here``: ``results/``, and the numbers of the pages that cite it.

    Returns
    -------
    tuple
        The folders, the pages on which every measured number must say where it comes from (README.md and those of
        ``results/``), and the faults of all of them and of ``docs/``, where numbers are checked that do.

    Raises
    ------
    ValueError
        If there is nothing to check.
    """
    root = here / "results"
    pages = [page for page in (here / "README.md", *sorted(root.rglob("*.md"))) if page.is_file()]
    # made of rows, not written by hand; table1.md is compared as a whole
    pages = [page for page in pages if page.name not in ("table1.md", "report.md")]
    publications = [check(folder) for folder in _folders(root)]
    if not publications and not pages:
        raise ValueError("results/NAME: there is neither README.md nor results/ here; name a folder")
    faults = [fault for publication in publications for fault in publication.faults]
    faults += [fault for page in pages for fault in citations.check_page(page, every_number=True)]
    for page in sorted((here / "docs").glob("*.md")):
        faults += citations.check_page(page, every_number=False)
    return publications, pages, faults


def _folders(root: Path) -> list[Path]:
    """The folders below ``root`` that hold rows or tables, and ``root`` if it does."""
    places = [root, *sorted(path for path in root.rglob("*") if path.is_dir())] if root.is_dir() else []
    return [place for place in places if publication.present(place)]


def check(folder: Path) -> Publication:
    """Read a published folder and check it.

    Every file must be what its rows give, byte for byte, and have the digest that was written with it; each row must
    have the key and the derived columns that follow from its other columns; each AUC must be a count of pairs.
    """
    found = Publication(folder)
    name = published.FILES["cells"]
    if not (folder / name).is_file():
        found.say(name, "not there: nothing tells where the tables of this folder come from; publish rows with them")
        return found
    _check_digests(found)
    try:
        found.rows = published.read_published(folder)
    except ValueError as error:
        found.say(name, str(error))
        return found
    for table in ("cells", "failures"):
        _check_rows(found, table)
    _check_auxiliaries(found)
    for key, text in _contradictions(found.rows.all_cells()).items():
        found.say(name, f"row {key}: {text}")
    for key, text in impossible_aucs(found.rows.cells).items():
        found.say(name, f"row {key}: {text}")
    _check_files(found)
    return found


def _check_digests(found: Publication) -> None:
    file = publication.DIGESTS
    try:
        lines = (found.folder / file).read_text(encoding="utf-8").splitlines()
        noted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    except (OSError, UnicodeDecodeError):
        found.say(file, "not there or not readable; python -m bench.publish writes it")
        return
    if "" in noted:
        found.say(file, f"a line is {noted.pop('')!r}; accepted are a digest, two spaces and the name of a file")
    held = publication.digests(found.folder, publication.present(found.folder))
    for name in sorted({*noted, *held}):
        if noted.get(name) != held.get(name):
            what = "not there" if name not in held else "changed after it was published"
            found.say(name, f"{what}: its digest is not that in {file}")


def _check_rows(found: Publication, table: str) -> None:
    """Each row must be the one that its own columns give: key, seeds and all else that derives from others."""
    rows, file = getattr(found.rows, table), published.FILES[table]
    for key in rows.loc[rows["key"].duplicated(), "key"].unique():
        found.say(file, f"row {key}: it is there more than once")
    for row in rows.to_dict("records"):
        faults = _faults_of(row)
        if faults:
            found.unsound.add(row["key"])
        if table == "cells":
            faults += _measurement_faults(row)
        for fault in faults:
            found.say(file, f"row {row['key']}: {fault}")


def _faults_of(row: Mapping[str, Any]) -> list[str]:
    if row["protocol"] != protocol.VERSION:
        return [f"its protocol is {row['protocol']}, and that of this package {protocol.VERSION}"]
    try:
        cell = Cell.from_row(row)
        again = cell.row()
        settings = flattened(cell.method.settings)
        foreign = [name for name, value in cell.method.changes.items() if settings.get(name, ...) != value]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"its columns are not those of a cell ({type(error).__name__}: {error})"]
    differing = [name for name, value in again.items() if value != _plain(row[name])]
    faults = []
    if "key" in differing:
        faults.append("its key is not the digest of its columns: one of data, settings, method, draw or seed changed")
        differing.remove("key")
    if differing:
        faults.append(f"{', '.join(differing)}: not what follows from its other columns")
    if foreign:
        faults.append(f"changes: {', '.join(foreign)} not as in its settings")
    told = (row["method"], row["method_version"], row["profile"], row["settings"], row["changes"])
    return faults or [*_name_faults(row, cell), *_profile_faults(*told)]


def _name_faults(row: Mapping[str, Any], cell: Cell) -> list[str]:
    """Whether tables call data and method what they are: no key is made of these names."""
    faults = [*_title_faults(row, "dataset"), *_title_faults(row, "auxiliary")]
    detector = detectors.parse(cell.method.name)
    part = cell.method.name if detector is None else detector[2]
    shared = "" if detector is None else f"{cell.method.name.partition('@')[0]}@"
    identity = cell.method.identity
    if identity and (own.parse(part or "") is None or not identity.startswith(shared)):
        faults.append(f"method is {cell.method.name!r}, and by its method_identity it is {identity!r}")
    return faults


def _title_faults(row: Mapping[str, Any], column: str) -> list[str]:
    name, title = row[column], row[f"{column}_title"]
    if name is None or title in (name, f"{name} (folder)"):
        return []
    return [f"{column}_title is {title!r}, which is no name of {name!r}"]


@functools.lru_cache(maxsize=4096)  # most rows of a table have the same ones
def _profile_faults(method: str, version: int, profile: str, settings: str, changes: str) -> list[str]:
    """Whether settings are called what they are: those of a profile, or by what they differ from one.

    Asked of this package's own methods, whose profiles are known without running a file, in their present version.
    """
    known = methods.built_in().get(method)
    if known is None or version != known.version:
        return []
    given = flattened(json.loads(settings))
    profiles = {
        name: flattened(json.loads(canonical_json(dataclasses.asdict(known.settings_of(name)))))
        for name in ("paper", "quick")
    }
    right, differing = profile_and_changes(given, profiles, profile)
    if (profile, json.loads(changes)) == (right, differing):
        return []
    return [f"profile, changes are {profile!r}, {changes}; by its settings {right!r}, {canonical_json(differing)}"]


def _plain(value: Any) -> Any:
    return None if pd.isna(value) else value


def _measurement_faults(row: Mapping[str, Any]) -> list[str]:
    aucs = json.loads(row["aucs"])
    faults = []
    if row["auc"] != next(iter(aucs.values())):
        faults.append(f"auc is {row['auc']!r}, and the first of its aucs {next(iter(aucs.values()))!r}")
    if row["aucs"] != json.dumps(aucs):
        faults.append(f"aucs are {row['aucs']}, which no run writes so")
    for column in ("fit_seconds", "score_seconds"):
        if not 0 <= row[column] < math.inf:
            faults.append(f"{column} is {row[column]}")
    return faults + _origin_faults(row)


def _origin_faults(row: Mapping[str, Any]) -> list[str]:
    """Whether the row says where, when and by what it was computed."""
    faults = [f"{name} is empty" for name in ("device", "git_commit") if not row[name].strip()]
    if row["threads"] < 1:
        faults.append(f"threads is {row['threads']}")
    try:
        datetime.fromisoformat(row["finished"])
    except ValueError as error:
        faults.append(f"finished: {error}")
    return faults


def _check_auxiliaries(found: Publication) -> None:
    assert found.rows is not None
    file = published.FILES["auxiliaries"]
    for row in found.rows.auxiliaries.to_dict("records"):
        faults = [*_origin_faults(row), *_title_faults(row, "auxiliary")]
        settings = json.loads(row["settings"])
        learner = printable(str(settings.get("method", row["method"])))
        if row["method"] != learner:
            faults.append(f"method is {row['method']!r}, and by its settings {learner!r}")
        if auxiliary_key(settings, row["source_digest"], row["auxiliary_fingerprint"], row["seed"]) != row["key"]:
            faults.append("its key is not the digest of its columns: one of settings, source, data or seed changed")
        if not 0 <= row["seconds"] < math.inf:
            faults.append(f"seconds is {row['seconds']}")
        for fault in faults:
            found.say(file, f"row {row['key']}: {fault}")


def _contradictions(cells: pd.DataFrame) -> dict[str, str]:
    """By key, rows whose dataset or class is not described as in most rows of the same data."""
    faults = {}
    data = ["dataset_fingerprint"]
    for column, by in (("classes", data), ("test_size", data), ("class_name", [*data, "class"])):
        usual = cells.groupby(by)[column].transform(lambda values: values.mode().iloc[0])
        for row in cells[cells[column] != usual].to_dict("records"):
            faults[row["key"]] = f"{column} is {row[column]!r}, and not so in most rows of the same data"
    return faults


def impossible_aucs(cells: pd.DataFrame) -> dict[str, str]:
    """AUCs that no scores can have, by the key of their row.

    Of N test images, P in the class, an AUC is a whole number over 2P(N − P) (ties count one half), rounded once to
    float64. P is not in the rows, but the same for all cells of a class: it is taken to be what fits most of them. A
    number with a changed digit nearly never fits.
    """
    faults: dict[str, str] = {}
    scored = cells["test_images"].fillna(cells["test_size"]).astype("int64")
    groups = [cells["dataset_fingerprint"], cells["class"], scored]
    for (_, _, count), group in cells.groupby(groups, sort=False):
        positive = np.arange(1, max(2, count), dtype=np.float64)
        pairs = 2 * positive * (count - positive)
        values = [(key, auc) for key, aucs in zip(group["key"], group["aucs"], strict=True)
                  for auc in json.loads(aucs).values()]  # fmt: skip
        with np.errstate(divide="ignore", invalid="ignore"):
            # the quotient of two whole numbers below 2⁵³ is exact but for one rounding, here as in the protocol
            fits = {auc: np.rint(auc * pairs) / pairs == auc for _, auc in values}
            votes = np.sum([fits[auc] for _, auc in values], axis=0)
            best = int(votes.argmax())
        for key, auc in values:
            if not (0 <= auc <= 1 and fits[auc][best]):
                faults[key] = (
                    f"AUC {auc!r} is no count of pairs out of {count:,} test images with {best + 1:,} in the class"
                )
    return faults


def _check_files(found: Publication) -> None:
    """Write the folder once more from its rows, and compare."""
    assert found.rows is not None
    with tempfile.TemporaryDirectory(prefix="corel-verify-") as place:
        again = Path(place)
        try:
            publication.write(again, published.merge([("", found.rows)]), found.folder.as_posix())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found.say("table1.csv", f"no table can be made of the rows ({type(error).__name__}: {error})")
            return
        written, held = publication.present(again), publication.present(found.folder)
        for name in sorted({*written, *held}):
            if name not in held or name not in written:
                found.say(name, "not there" if name not in held else "there is no such file of these rows")
                continue
            wanted, given = (_lines(folder / name) for folder in (again, found.folder))
            for number, (one, other) in enumerate(zip_longest(wanted, given), 1):
                if one != other:
                    pairs = enumerate(zip_longest(one or "", other or ""))
                    at = next((place for place, (letter, its) in pairs if letter != its), 0)
                    said = "ends" if other is None else f"has {_around(other, at)}"
                    follows = "nothing" if one is None else _around(one, at)
                    found.say(name, f"line {number} {said}; from the rows follows {follows}")
                    break


def _lines(path: Path) -> list[str]:
    """The lines, but for what in them says how the folder was called when it was published."""
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")  # every byte counts, those of line ends too
    if path.name.startswith("command"):
        head, at, _ = lines[0].partition("@")
        lines[0] = f"{head}{at}"
    return lines


def _around(text: str, place: int) -> str:
    """A line, or what of a long one stands around ``place``."""
    if len(text) <= 160:
        return repr(text)
    start = max(0, min(place - 80, len(text) - 160))
    return repr(f"{'…' * (start > 0)}{text[start : start + 160]}{'…' * (start + 160 < len(text))}")
