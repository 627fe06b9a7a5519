"""What is to be run: the cells of an experiment, and the key under which a finished cell is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import methods
from bench.data import Dataset
from bench.engine import protocol
from bench.engine.isolation import process_unchanged


def canonical_json(value: Any) -> str:
    """JSON with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``, 32 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class MethodSpec:
    """A method with everything that shapes its scores but the data and the seed."""

    name: str
    profile: str
    settings: dict[str, Any]
    version: int
    source: str
    needs_auxiliary: bool
    auxiliary_settings: dict[str, Any]

    def create(self, *, seed: int, device: str) -> methods.OneClassMethod:
        """Make the method, not yet fitted."""
        return methods.create(self.name, self.profile, seed, device, **self.settings)


@process_unchanged()
def method_spec(name: str, profile: str) -> MethodSpec:
    """Look a method up and read its settings in ``profile``.

    Raises
    ------
    ValueError
        If there is no such method or profile.
    """
    method = methods.create(name, profile, device="cpu")
    return MethodSpec(
        name=methods.resolve(name).name if name.startswith(("sklearn:", "pyod:")) else name,
        profile=profile,
        settings=dataclasses.asdict(method.settings),
        version=method.version,
        source=methods.source_digest(name),
        needs_auxiliary=method.needs_auxiliary,
        auxiliary_settings=method.auxiliary_settings() if method.needs_auxiliary else {},
    )


@dataclasses.dataclass(frozen=True)
class Cell:
    """One number of the experiment: one method, one draw, one class, one AUC.

    ``auxiliary`` and ``auxiliary_fingerprint`` are None for methods that need no auxiliary images.
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

    @property
    def draw_name(self) -> str:
        """The dataset's name in the draw: an image folder may move without another draw being made."""
        return "folder" if self.dataset.startswith("folder:") else self.dataset

    @property
    def key(self) -> str:
        """Content key: other data, settings, seed or protocol give another key."""
        return digest(
            {
                "protocol": protocol.VERSION,
                "dataset": self.draw_name,
                "dataset_fingerprint": self.dataset_fingerprint,
                "method": self.method.name,
                "settings": self.method.settings,
                "version": self.method.version,
                "source": self.method.source,
                "auxiliary_fingerprint": self.auxiliary_fingerprint,
                "train_per_class": self.train_per_class,
                "run": self.run,
                "class": self.class_index,
                "base_seed": self.base_seed,
            }
        )

    @property
    def auxiliary_key(self) -> str:
        """Key of what the method learns from the auxiliary images: made of everything that shapes it."""
        return digest(
            {
                "settings": self.method.auxiliary_settings,
                "source": self.method.source,
                "fingerprint": self.auxiliary_fingerprint,
                "seed": self.auxiliary_seed,
            }
        )

    @property
    def features_key(self) -> str:
        """Key of the prepared splits: shared by every cell of the same dataset, method and auxiliary."""
        return digest(
            {
                "dataset_fingerprint": self.dataset_fingerprint,
                "method": self.method.name,
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
            self.method.name,
            self.draw_name,
            self.class_index,
            self.train_per_class,
            self.run,
        )

    def __str__(self) -> str:
        where = f"{self.method.name} on {self.dataset}"
        return f"{where}, class {self.class_name!r}, m = {self.train_per_class}, run {self.run}"


def plan(
    dataset: Dataset,
    specs: Sequence[MethodSpec],
    *,
    auxiliary: Dataset | None,
    train_per_class: Sequence[int | str],
    runs: int,
    classes: Sequence[int],
    base_seed: int,
) -> list[Cell]:
    """List the cells of one dataset, in the order method, m, run, class.

    Raises
    ------
    ValueError
        If a class has fewer than m training images, or a method needs auxiliary images and there are none.
    """
    sizes = {index: int((dataset.train_labels == index).sum()) for index in classes}
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
        own = auxiliary if spec.needs_auxiliary else None
        for m in train_per_class:
            for run in range(runs):
                for index in classes:
                    cells.append(
                        Cell(
                            dataset=dataset.name,
                            dataset_fingerprint=dataset.fingerprint,
                            method=spec,
                            auxiliary=None if own is None else own.name,
                            auxiliary_fingerprint=None if own is None else own.fingerprint,
                            train_per_class=m,
                            run=run,
                            class_index=index,
                            class_name=dataset.classes[index],
                            base_seed=base_seed,
                        )
                    )
    return cells
