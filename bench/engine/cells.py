"""What is to be run: the cells of an experiment, and the key under which a finished cell is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

import methods
from bench.data import Dataset
from bench.data.text import escaped_controls
from bench.engine import protocol
from bench.engine.isolation import process_unchanged
from methods import detectors, own


def canonical_json(value: Any) -> str:
    """JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, 32 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


def printable(text: str) -> str:
    r"""``text`` as it can be stored, the same under every locale.

    Names of files are bytes; Python represents those that it cannot decode by lone surrogates (U+DC80 to U+DCFF). UTF-8
    is decoded, all else is written as an escape (``\xff``), and so are line breaks and what a terminal would obey.
    """
    if text.isprintable():
        return text
    text = re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda half: f"\\u{ord(half[0]):x}", text)  # these stand for no byte
    return escaped_controls(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


@dataclasses.dataclass(frozen=True)
class MethodSpec:
    """A method with everything that shapes its scores but the data and the seed.

    Attributes
    ----------
    name
        What it is called on the command line.
    profile
        The profile that was asked for.
    settings
        All of its settings, those of an encoder as a dictionary within.
    version, source
        Of its code: see :attr:`methods.OneClassMethod.version` and :func:`methods.source_digest`.
    needs_auxiliary, auxiliary_settings
        Whether it learns from auxiliary images, and what shapes what it learns.
    identity
        What the method is, however the path to its file is spelled; empty where ``name`` says it.
    origin
        The profile that the settings are from: "any" where all profiles agree, empty for ``profile``.
    changes
        The settings that differ from that profile's, by dotted name.
    """

    name: str
    profile: str
    settings: dict[str, Any]
    version: int
    source: str
    needs_auxiliary: bool
    auxiliary_settings: dict[str, Any]
    identity: str = ""
    origin: str = ""
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name, with the changed settings in parentheses: ``corel (lam=0)``."""
        changes = described(self.changes)
        return f"{self.name} ({changes})" if changes else self.name

    @property
    def auxiliary_version(self) -> int | None:
        """Version of the built-in method that learns from the auxiliary images in place of this one, if another does.

        None for version 2, too: the keys of published rows were made without it.
        """
        version = self.auxiliary_settings.get("version")
        return version if self.source and not self.auxiliary_source and version != 2 else None

    @property
    def auxiliary_source(self) -> str:
        """``source``, or nothing if what is learned from auxiliary images is learned by a built-in method."""
        lent = self.auxiliary_settings.get("method") in methods.built_in() and "class" not in self.auxiliary_settings
        return "" if lent else self.source

    def create(self, *, seed: int, device: str) -> methods.OneClassMethod:
        """Make the method, not yet fitted."""
        return methods.create(self.name, self.profile, seed, device, **self.settings)


@process_unchanged()
def method_spec(name: str, profile: str, changes: Mapping[str, Any] | None = None) -> MethodSpec:
    """Look a method up and read its settings in ``profile``, with ``changes`` made as by :func:`methods.create`.

    Raises
    ------
    ValueError
        If there is no such method or profile, or a setting cannot have such a value.
    TypeError
        If there is no such setting.
    """
    # first of all: creating the method may change the working directory, which a path in its name may be relative to
    shown = methods.resolve(name).name if name.startswith(("sklearn:", "pyod:")) else name
    identity, source = _identity(name), methods.source_digest(name)
    method = methods.create(name, profile, device="cpu", **(changes or {}))
    settings = dataclasses.asdict(method.settings)
    profiles = {known: flattened(dataclasses.asdict(method.settings_of(known))) for known in _profiles(method, profile)}
    origin, changed = profile_and_changes(flattened(settings), profiles, profile)
    auxiliary_settings = method.auxiliary_settings() if method.needs_auxiliary else {}
    learner = getattr(method, "encoder", None) or method
    lent = auxiliary_settings.get("method") in methods.built_in() and auxiliary_settings["method"] != learner.name
    if auxiliary_settings and identity and not lent:  # classes of one file may share a name
        auxiliary_settings["class"] = identity.partition("@")[2] or identity
    return MethodSpec(
        name=shown,
        profile=profile,
        settings=settings,
        version=method.version,
        source=source,
        needs_auxiliary=method.needs_auxiliary,
        auxiliary_settings=auxiliary_settings,
        identity=identity,
        origin=origin,
        changes=changed,
    )


def profile_and_changes(
    settings: Mapping[str, Any], profiles: Mapping[str, Mapping[str, Any]], profile: str
) -> tuple[str, dict[str, Any]]:
    """The name of the profile that has these settings, or ``profile`` with the settings that differ from it.

    Settings are flattened. The name is "any" if all of several profiles have them.
    """
    equal = [name for name, values in profiles.items() if values == settings]
    if equal:
        return "any" if len(equal) == len(profiles) > 1 else equal[0], {}
    own = profiles.get(profile, {})
    return profile, {name: value for name, value in settings.items() if own.get(name, ...) != value}


def _profiles(method: methods.OneClassMethod, profile: str) -> list[str]:
    return list(dict.fromkeys([*(["paper", "quick"] if len(method.profiles) == 1 else method.profiles), profile]))


def _identity(name: str) -> str:
    """Name and class of a method from a file, wherever the file is; empty for all other methods."""
    detector = detectors.parse(name)
    if detector is not None:
        encoder = _identity(detector[2]) if detector[2] else ""
        return f"{methods.resolve(name).name.partition('@')[0]}@{encoder}" if encoder else ""
    if own.parse(name) is None:
        return ""
    method = methods.resolve(name)
    return f"{method.name}:{method.__qualname__}"


def flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name: ``{"encoder": {"epochs": 3}}`` → ``{"encoder.epochs": 3}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{name}.{inner}": part for inner, part in flattened(value).items()}
        else:
            flat[name] = value
    return flat


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the experiment: one method, one draw, one class, one AUC.

    ``auxiliary`` and ``auxiliary_fingerprint`` are None for methods that need no auxiliary images. ``test_images`` is
    the number of test images that are scored, None for all ``test_size`` of them. What comes after it is for tables
    alone: titles of both datasets, and the number of classes.
    """

    dataset: str
    dataset_fingerprint: str
    method: MethodSpec
    auxiliary: str | None
    auxiliary_fingerprint: str | None
    train_per_class: int | str
    run: int
    class_index: int
    class_name: str
    base_seed: int
    test_images: int | None = None
    test_size: int = 0
    classes: int = 0
    dataset_title: str = ""
    auxiliary_title: str | None = None

    @property
    def draw_name(self) -> str:
        """The dataset's name in seeds: one for all image folders, so that moving a folder does not change the draw."""
        return "folder" if self.dataset.startswith("folder:") else self.dataset

    @property
    def key(self) -> str:
        """Content key: other data, settings, seed or protocol give another key."""
        parts = {
            "protocol": protocol.VERSION,
            "dataset": self.draw_name,
            "dataset_fingerprint": self.dataset_fingerprint,
            "method": self.method_identity,
            "settings": self.method.settings,
            "version": self.method.version,
            "source": self.method.source,
            "auxiliary_fingerprint": self.auxiliary_fingerprint,
            "train_per_class": self.train_per_class,
            "run": self.run,
            "class": self.class_index,
            "base_seed": self.base_seed,
        }
        if self.test_images is not None:  # keys of whole test splits are older than this part
            parts["test_images"] = self.test_images
        if self.method.auxiliary_version is not None:
            parts["lender_version"] = self.method.auxiliary_version
        return digest(parts)

    @property
    def method_identity(self) -> str:
        """What the method is, however its name is spelled."""
        return self.method.identity or self.method.name

    @property
    def auxiliary_key(self) -> str:
        """Key of what the method learns from the auxiliary images: made of everything that shapes it."""
        return auxiliary_key(
            self.method.auxiliary_settings,
            self.method.auxiliary_source,
            self.auxiliary_fingerprint,
            self.auxiliary_seed,
        )

    @property
    def features_key(self) -> str:
        """Key of the prepared splits: shared by every cell of the same dataset, method and auxiliary."""
        return digest(
            {
                "dataset_fingerprint": self.dataset_fingerprint,
                "method": self.method_identity,
                "settings": self.method.settings,
                "version": self.method.version,
                "source": self.method.source,
                "auxiliary": self.auxiliary_key if self.method.needs_auxiliary else None,
                "seed": self.auxiliary_seed,
            }
        )

    @property
    def auxiliary_seed(self) -> int:
        """Seed of the training on auxiliary images: the same for every dataset, class and run."""
        return protocol.derive_seed("auxiliary", self.base_seed)

    @property
    def method_seed(self) -> int:
        """Seed of the method's own randomness in this cell."""
        return protocol.derive_seed(
            "method",
            self.base_seed,
            self.method_identity,
            self.draw_name,
            self.class_index,
            self.train_per_class,
            self.run,
        )

    def __str__(self) -> str:
        where = f"{self.method.label} on {self.dataset}"
        return f"{where}, class {self.class_name!r}, m = {self.train_per_class}, run {self.run}"

    def row(self) -> dict[str, Any]:
        """Everything that is known of the cell before it is run, as columns of the store.

        :meth:`from_row` makes the cell of it again: a row tells all that it takes to compute it once more.
        """
        spec, auxiliary = self.method, self.auxiliary is not None
        seeds = {"base": self.base_seed, "method": self.method_seed, "auxiliary": self.auxiliary_seed}
        return {
            "key": self.key,
            "protocol": protocol.VERSION,
            "dataset": printable(self.dataset),
            "dataset_title": printable(self.dataset_title or self.dataset),
            "dataset_fingerprint": self.dataset_fingerprint,
            "classes": self.classes,
            "test_size": self.test_size,
            "test_images": self.test_images,
            "method": printable(spec.name),
            "method_identity": printable(self.method_identity),
            "method_version": spec.version,
            "source_digest": spec.source,
            "profile": spec.origin or spec.profile,
            "settings": canonical_json(spec.settings),
            "changes": canonical_json(spec.changes),
            "auxiliary": printable(self.auxiliary) if self.auxiliary is not None else None,
            "auxiliary_title": printable(self.auxiliary_title or self.auxiliary) if self.auxiliary else None,
            "auxiliary_fingerprint": self.auxiliary_fingerprint,
            "auxiliary_settings": canonical_json(spec.auxiliary_settings) if auxiliary else None,
            "auxiliary_key": self.auxiliary_key if auxiliary else None,
            "train_per_class": str(self.train_per_class),
            "run": self.run,
            "class": self.class_index,
            "class_name": printable(self.class_name),
            "seeds": canonical_json(seeds),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Cell:
        """The cell that a row of the store or of a published table is of."""
        auxiliary = row["auxiliary"] is not None
        spec = MethodSpec(
            name=row["method"],
            profile="paper" if row["profile"] == "any" else row["profile"],
            settings=json.loads(row["settings"]),
            version=int(row["method_version"]),
            source=row["source_digest"],
            needs_auxiliary=auxiliary,
            auxiliary_settings=json.loads(row["auxiliary_settings"]) if auxiliary else {},
            identity=row["method_identity"] if row["method_identity"] != row["method"] else "",
            origin=row["profile"],
            changes=json.loads(row["changes"]),
        )
        return cls(
            dataset=row["dataset"],
            dataset_fingerprint=row["dataset_fingerprint"],
            method=spec,
            auxiliary=row["auxiliary"],
            auxiliary_fingerprint=row["auxiliary_fingerprint"],
            train_per_class="all" if row["train_per_class"] == "all" else int(row["train_per_class"]),
            run=int(row["run"]),
            class_index=int(row["class"]),
            class_name=row["class_name"],
            base_seed=json.loads(row["seeds"])["base"],
            test_images=None if pd.isna(row["test_images"]) else int(row["test_images"]),
            test_size=int(row["test_size"]),
            classes=int(row["classes"]),
            dataset_title=row["dataset_title"],
            auxiliary_title=row["auxiliary_title"],
        )


def auxiliary_key(settings: Mapping[str, Any], source: str, fingerprint: str | None, seed: int) -> str:
    """Content key of a training on auxiliary images."""
    return digest({"settings": settings, "source": source, "fingerprint": fingerprint, "seed": seed})


def described(settings: Mapping[str, Any]) -> str:
    """Settings as a table shows them: ``lam=0, reduction=sum``."""
    return ", ".join(f"{name}={shown_value(value)}" for name, value in settings.items())


def shown_value(value: Any) -> str:
    """The value of a setting as a table shows it."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) else canonical_json(value) if isinstance(value, list) else str(value)


def plan(
    dataset: Dataset,
    specs: Sequence[MethodSpec],
    *,
    auxiliary: Dataset | None,
    train_per_class: Sequence[int | str],
    runs: int,
    classes: Sequence[int],
    base_seed: int,
    test_images: int | None = None,
) -> list[Cell]:
    """List the cells of one dataset and one auxiliary dataset, in the order method, m, run, class.

    Raises
    ------
    ValueError
        If a class has fewer than m training images, the test split cannot give so many test images, or a method
        needs auxiliary images and there are none.
    """
    test_labels = np.asarray(dataset.test_labels)
    if test_images is not None:
        protocol.test_subset(test_labels, test_images, dataset=dataset.name, base_seed=base_seed)
        if test_images == len(test_labels):  # that is the whole split
            test_images = None
    counts = np.bincount(dataset.train_labels, minlength=len(dataset.classes))
    sizes = {index: int(counts[index]) for index in classes}
    for m in train_per_class:
        for index, size in sizes.items():
            if m != "all" and not 1 <= int(m) <= size:
                raise ValueError(
                    f"--train-per-class: got {m}, but class {dataset.classes[index]!r} of {dataset.name} has {size} "
                    f"training images; accepted are 1 to {size}, and 'all'"
                )
    cells = []
    for spec in specs:
        if spec.needs_auxiliary and auxiliary is None:
            raise ValueError(f"auxiliary: method {spec.name!r} needs auxiliary images")
        needed = auxiliary if spec.needs_auxiliary else None
        cells += [
            Cell(
                dataset=dataset.name,
                dataset_fingerprint=dataset.fingerprint,
                method=spec,
                auxiliary=None if needed is None else needed.name,
                auxiliary_fingerprint=None if needed is None else needed.fingerprint,
                train_per_class=m,
                run=run,
                class_index=index,
                class_name=dataset.classes[index],
                base_seed=base_seed,
                test_images=test_images,
                test_size=len(test_labels),
                classes=len(dataset.classes),
                dataset_title=dataset.title,
                auxiliary_title=None if needed is None else needed.title,
            )
            for m in train_per_class
            for run in range(runs)
            for index in classes
        ]
    return cells
