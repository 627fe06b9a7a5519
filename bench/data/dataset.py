"""A dataset as the rest of the benchmark sees it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.text import as_text

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A train and a test split.

    Attributes
    ----------
    name
        The name it was asked for by.
    title
        What tables call it: the name, with "(folder)" where an image folder stands in for the official files.
        Characters that are not text are escaped (:func:`bench.data.text.as_text`), here and in ``classes``.
    classes
        Class names, all different; labels are indices into it.
    fingerprint
        Digest of images, labels and class names: other data, another fingerprint, wherever the files lie.
    folder
        Where the arrays are kept; an absolute path.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    fingerprint: str
    folder: Path

    def _array(self, file: str) -> np.memmap:
        import numpy as np

        return np.load(self.folder / file, mmap_mode="r")

    @property
    def train_images(self) -> np.memmap:
        """(n, 3, 32, 32) uint8, memory-mapped."""
        return self._array("train-images.npy")

    @property
    def train_labels(self) -> np.memmap:
        """(n,) int64, memory-mapped."""
        return self._array("train-labels.npy")

    @property
    def test_images(self) -> np.memmap:
        """(n, 3, 32, 32) uint8, memory-mapped."""
        return self._array("test-images.npy")

    @property
    def test_labels(self) -> np.memmap:
        """(n,) int64, memory-mapped."""
        return self._array("test-labels.npy")

    def class_indices(self, wanted: Sequence[str] | None) -> list[int]:
        """Indices of the classes that ``wanted`` names, in its order; of all classes for None.

        A word is a class name if there is a class of that name, and otherwise a number from 0.

        Raises
        ------
        ValueError
            If there is no such class, or two words mean the same class. The message names the option ``--classes``.
        """
        if wanted is None:
            return list(range(len(self.classes)))
        # later entries win: a name takes precedence over a number
        index_of = {str(index): index for index in range(len(self.classes))}
        index_of.update({label: index for index, label in enumerate(self.classes)})
        said: dict[int, str] = {}
        for word in wanted:
            index = index_of.get(as_text(os.fsencode(word)))
            if index is None:
                shown = ", ".join(self.classes[:20]) + (", …" if len(self.classes) > 20 else "")
                raise ValueError(
                    f"--classes: got {word!r}; {as_text(self.name)} has {shown}, "
                    f"or give numbers 0 to {len(self.classes) - 1}"
                )
            if index in said:
                raise ValueError(
                    f"--classes: {said[index]!r} and {word!r} both mean class {self.classes[index]!r} (a word is a "
                    "class name if there is one of that name, otherwise a number from 0); give each class once"
                )
            said[index] = word
        return list(said)
