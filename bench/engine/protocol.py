"""The one-vs-all protocol of §5.2: which images a model may see, and how its scores become one number."""

from __future__ import annotations

import hashlib

import numpy as np

#: Part of every cell's key. Raise it when the draw or the AUC below changes: old results then no longer count.
VERSION = 1


def derive_seed(*parts: object) -> int:
    """Derive a seed from what it is for: the same parts give the same seed on every machine, 0 ≤ seed < 2⁶³."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def draw(
    labels: np.ndarray, class_index: int, train_per_class: int | str, *, dataset: str, run: int, base_seed: int
) -> np.ndarray:
    """Draw the images that a one-class model is built from (§5.2).

    The draw depends on nothing but the arguments, so that every method gets the same images.

    Parameters
    ----------
    labels
        (n,) integer labels of the training split.
    class_index
        The class to draw from.
    train_per_class
        m, the number of images to draw without replacement; ``"all"`` takes the whole class.
    dataset, run, base_seed
        What else the draw is a function of.

    Returns
    -------
    numpy.ndarray
        (m,) int64 indices into the training split, ascending.

    Raises
    ------
    ValueError
        If the class has fewer than m images, or m is below 1.
    """
    members = np.flatnonzero(np.asarray(labels) == class_index)
    if train_per_class == "all":
        if len(members) == 0:
            raise ValueError(f"class_index: class {class_index} of {dataset} has no training images")
        return members
    m = int(train_per_class)
    if not 1 <= m <= len(members):
        raise ValueError(
            f"train_per_class: got {m}, but class {class_index} of {dataset} has {len(members)} training images; "
            f"accepted are 1 to {len(members)}, and 'all'"
        )
    generator = np.random.default_rng(derive_seed("draw", base_seed, dataset, class_index, m, run))
    return np.sort(generator.choice(members, size=m, replace=False))


def test_subset(labels: np.ndarray, count: int, *, dataset: str, base_seed: int) -> np.ndarray:
    """Choose test images that stand for the whole test split: of each class its share, and one image at least.

    Shares are whole numbers by the method of the largest remainder, with ties to the class that comes first. The
    subset depends on nothing but the arguments, so that every method, class and run is scored on the same images.

    Parameters
    ----------
    labels
        (n,) integer labels of the test split.
    count
        Number of images to choose, from the number of classes to n.
    dataset, base_seed
        What else the subset is a function of.

    Returns
    -------
    numpy.ndarray
        (count,) int64 indices into the test split, ascending.

    Raises
    ------
    ValueError
        If the split has fewer images, or more classes.
    """
    labels = np.asarray(labels)
    classes, sizes = np.unique(labels, return_counts=True)
    if not len(classes) <= count <= len(labels):
        raise ValueError(
            f"--test-images: got {count}, but {dataset} has {len(labels)} test images of {len(classes)} classes; "
            f"accepted are {len(classes)} to {len(labels)}"
        )
    shares = np.ones_like(sizes)
    open_ = np.ones(len(classes), dtype=bool)  # classes whose share is more than the one image that each gets
    while True:
        left = count - np.count_nonzero(~open_)
        whole, remainder = np.divmod(sizes * left, sizes[open_].sum())
        if (whole[open_] >= 1).all():
            break
        open_ &= whole >= 1
    shares[open_] = whole[open_]
    by_remainder = np.argsort(np.where(open_, -remainder, 1), kind="stable")
    shares[by_remainder[: count - shares.sum()]] += 1
    generator = np.random.default_rng(derive_seed("test", base_seed, dataset, count))
    chosen = [
        generator.choice(np.flatnonzero(labels == label), size=share, replace=False)
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def auc(in_class: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of ``scores``, with ``in_class`` labelled 1; ties count one half.

    Computed as the Mann–Whitney statistic in whole numbers, so that it is exact up to one final division and
    does not depend on the order of the samples.

    Parameters
    ----------
    in_class
        (n,) bool, at least one True and one False.
    scores
        (n,) finite numbers; higher means more like the class.

    Raises
    ------
    TypeError
        If the scores are no real numbers.
    ValueError
        If the lengths differ, a score is NaN or infinite, or only one of the two kinds of sample is there.
    """
    in_class = np.asarray(in_class, dtype=bool)
    scores = np.asarray(scores)
    if scores.shape != in_class.shape or scores.ndim != 1:
        raise ValueError(f"scores: got shape {scores.shape}; accepted is {in_class.shape}, one score a sample")
    if scores.dtype.kind not in "biuf":
        raise TypeError(f"scores: got dtype {scores.dtype}; accepted are real numbers")
    bad = np.count_nonzero(~np.isfinite(scores))
    if bad:
        raise ValueError(f"scores: {bad} of {len(scores)} are NaN or infinite")
    positive, negative = scores[in_class], np.sort(scores[~in_class])
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError(f"in_class: got {len(positive)} samples in and {len(negative)} out of class; both are needed")
    below = int(np.searchsorted(negative, positive, side="left").sum())
    not_above = int(np.searchsorted(negative, positive, side="right").sum())
    return (below + not_above) / (2 * len(positive) * len(negative))
