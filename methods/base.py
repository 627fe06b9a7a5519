"""The interface of a one-class method: ``prepare``, ``fit``, ``score_samples`` and a frozen dataclass of settings."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import torch

from corel import _checks
from corel._device import resolve_device
from corel.training import fingerprint


class NonFiniteLossError(RuntimeError):
    """A training diverged. The benchmark records the message for this cell and goes on with the others."""


def one_line(error: BaseException, *, kind: bool = True) -> str:
    """An error in one line: its type, if ``kind`` is true, and its text; for a syntax error, without file and line."""
    text = str(error.msg) if isinstance(error, SyntaxError) else " ".join(str(error).split())
    name = type(error).__name__
    return (f"{name}: {text}" if kind else text) if text else name


_Method = TypeVar("_Method", bound=Callable[..., Any])


def needs_fit(state: str) -> Callable[[_Method], _Method]:
    """Decorate a method so that it raises a ValueError before ``fit``.

    Parameters
    ----------
    state
        Name of an attribute that is missing, or None, before ``fit``.
    """

    def decorate(method: _Method) -> _Method:
        @functools.wraps(method)
        def wrapper(self: OneClassMethod, *arguments: Any, **named: Any) -> Any:
            if getattr(self, state, None) is None:
                raise ValueError(f"{self.name}: {method.__name__} needs a fitted model; call fit first")
            return method(self, *arguments, **named)

        return cast(_Method, wrapper)

    return decorate


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a method that has none."""


class OneClassMethod(ABC):
    """A one-class model of images: ``prepare`` once, ``fit`` on one class, ``score_samples``.

    A subclass gives ``name``, and ``profiles`` if it has settings, and writes :meth:`fit` and
    :meth:`score_samples`; the rest has defaults that suit a method that is trained on the images of its class alone.

    Parameters
    ----------
    settings
        An instance of the method's own settings dataclass; None for its "paper" profile.
    seed
        An integer from −2⁶³ to 2⁶⁴ − 1. Seeds everything random in the method: the same seed, settings and features
        give the same scores, bit for bit on the CPU with the same number of threads.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` or ``device`` is not as described.
    """

    #: The method's name on the command line and in the tables.
    name: ClassVar[str]
    #: Settings by profile; "paper" holds the published values, "quick" ends in seconds on a small dataset. A single
    #: entry serves both profiles.
    profiles: ClassVar[Mapping[str, Any]] = {"paper": NoSettings(), "quick": NoSettings()}
    #: True if the method first learns from unlabelled auxiliary images (:meth:`fit_auxiliary`).
    needs_auxiliary: ClassVar[bool] = False
    #: A cell's key holds this number: raise it when a change of the code changes scores.
    version: ClassVar[int] = 1

    def __init__(self, settings: Any = None, *, seed: int = 0, device: str = "auto") -> None:
        self.settings = self.settings_of("paper") if settings is None else settings
        self.seed: int = _checks.seed("seed", seed)
        self.device: torch.device = resolve_device(device)
        #: Where a long training may keep its per-epoch checkpoint (a folder); None: nowhere. Set by the caller.
        self.checkpoint_dir: Path | None = None
        #: Whether to show progress bars on standard error. Set by the caller.
        self.progress: bool = False

    @classmethod
    def settings_of(cls, profile: str) -> Any:
        """Return the settings of a profile.

        Raises
        ------
        ValueError
            If there is no such profile.
        """
        if profile in cls.profiles:
            return cls.profiles[profile]
        if len(cls.profiles) == 1 and profile in ("paper", "quick"):
            return next(iter(cls.profiles.values()))
        raise ValueError(f"profile: got {profile!r}; {cls.name!r} has {', '.join(sorted(cls.profiles))}")

    def auxiliary_settings(self) -> dict[str, Any]:
        """What shapes :meth:`fit_auxiliary`, seed and images aside: the key of what it learns is made of it."""
        return {"method": self.name, "version": self.version, **dataclasses.asdict(self.settings)}

    def _learned_key(self, images: np.ndarray) -> str:
        """Digest of all that shapes what is learned from auxiliary images, to be kept in its file."""
        shape = repr((sorted(self.auxiliary_settings().items()), self.seed, fingerprint(images)))
        return hashlib.sha256(shape.encode()).hexdigest()

    def fit_auxiliary(self, images: np.ndarray, *, path: Path | None = None) -> Self:
        """Learn what serves every class from unlabelled images, or load it from ``path`` if it is there.

        Parameters
        ----------
        images
            (n, 3, 32, 32) uint8.
        path
            The file that keeps what was learned; written atomically at the end. None: keep it in memory only.
        """
        return self

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Turn images into the features that :meth:`fit` and :meth:`score_samples` take.

        Called once per split, never told of classes; the caller may keep the result in a file and map it into
        several processes. The default hands the images on as they are.

        Parameters
        ----------
        images
            (n, 3, 32, 32) uint8, perhaps memory-mapped and larger than memory.

        Returns
        -------
        numpy.ndarray
            n rows of features.
        """
        return images

    @abstractmethod
    def fit(self, features: np.ndarray) -> Self:
        """Fit the model to the features of the one class, (m, …) as :meth:`prepare` gave them. Returns self."""

    @abstractmethod
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Score samples, (n, …) features → (n,) float64. Higher means more like the class."""

    def score_variants(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """All the scores that the literature gives this method, by name, from one pass over ``features``.

        The first entry is what :meth:`score_samples` returns. An (n,) array is a score. A (k, n) array, by the name
        "oracle" alone, is a family of k scores of which a reference implementation takes the one with the best *test*
        AUC. Methods with one score need not override this.
        """
        return {"": self.score_samples(features)}

    def parameters(self) -> int | None:
        """How many trained parameters the fitted model scores with; None if it has none or does not count them."""
        return None

    def encode(self, features: np.ndarray) -> np.ndarray:
        """The fitted model's representation, (n, …) features → (n, k) float32, where the method has one.

        Lets a classical detector work on the codes (``sklearn:IsolationForest@corel``).
        """
        raise TypeError(f"method {self.name!r} has no representation to encode images into")
