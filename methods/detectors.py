"""Classical outlier detectors of scikit-learn and PyOD, on raw pixels or on the representation of a method."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import importlib
import inspect
import io
import json
import pkgutil
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import all_estimators

from corel._device import random_state_kept, standard_torch
from methods.base import OneClassMethod, needs_fit, one_line
from methods.neural import check_images

# Raised when a change here changes scores.
_VERSION = 1
# Rows that are converted to floating point and scored at once: 25 MB of raw pixels.
_ROWS = 2048
# Parameters that the method sets itself.
_OWN_PARAMETERS = ("device", "n_features", "n_jobs", "novelty", "random_state", "verbose")
# The parts of scikit-learn whose detectors are found without importing all of it.
_SKLEARN_MODULES = ("covariance", "ensemble", "linear_model", "mixture", "neighbors", "svm")
# Modules of PyOD whose detectors take graphs, time series, audio or text, not rows of numbers.
_PYOD_OTHER_DATA = ("audio_", "embedding", "pyg_", "ts_")


def parse(name: str) -> tuple[str, str, str | None] | None:
    """Split ``LIBRARY:NAME@ENCODER`` into its parts, the last None where it is not there; None for other names."""
    match = re.fullmatch(r"(sklearn|pyod):([^@]*)(?:@(.*))?", name)
    return None if match is None else (match[1], match[2], match[3])


class DetectorMethod(OneClassMethod):
    """A detector with the methods of a one-class model. :func:`detector_method` makes the subclasses.

    Without an encoder the features are raw pixels, flattened, in [0, 1]. With one, :meth:`prepare` and
    :meth:`fit_auxiliary` are the encoder's, :meth:`fit` fits the encoder first, and the detector sees what the
    fitted encoder's :meth:`encode` gives.
    """

    #: The detector's class.
    detector_class: ClassVar[type]
    #: Scores rows by a fitted detector, higher = more normal.
    score_rows: ClassVar[Callable[[Any, np.ndarray], np.ndarray]]
    #: The class of the encoder, None for raw pixels.
    encoder_class: ClassVar[type[OneClassMethod] | None] = None

    def __init__(self, settings: Any = None, *, seed: int = 0, device: str = "auto") -> None:
        super().__init__(settings, seed=seed, device=device)
        self._encoder = (
            None if self.encoder_class is None else self.encoder_class(self.settings.encoder, seed=seed, device=device)
        )
        # A wrong parameter or a missing package must show now, not after the encoder was trained for hours.
        self._new_detector(n_features=1)

    @property
    def encoder(self) -> OneClassMethod | None:
        """The method whose representation the detector works on, None for raw pixels."""
        if self._encoder is not None:
            self._encoder.checkpoint_dir = self.checkpoint_dir
            self._encoder.progress = self.progress
        return self._encoder

    def auxiliary_settings(self) -> dict[str, Any]:
        """The encoder's, so that its training is shared with cells of that method itself."""
        return super().auxiliary_settings() if self.encoder is None else self.encoder.auxiliary_settings()

    def fit_auxiliary(self, images: np.ndarray, *, path: Path | None = None) -> Self:
        """Train the encoder on (n, 3, 32, 32) uint8; without an encoder, do nothing."""
        if self.encoder is not None:
            self.encoder.fit_auxiliary(images, path=path)
        return self

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Features of the encoder; without one, the images themselves, as uint8."""
        return images if self.encoder is None else self.encoder.prepare(images)

    def fit(self, features: np.ndarray) -> Self:
        """Fit the encoder, if there is one, and the detector to (m, …) features.

        Raises
        ------
        ValueError
            If the detector cannot be fitted to so many or to such rows.
        """
        if self.encoder is not None:
            self.encoder.fit(features)
        rows = self._rows(features)
        detector = self._new_detector(n_features=rows.shape[1])
        with self._run_detector(f"fit to {rows.shape[0]} rows of {rows.shape[1]} features"):
            detector.fit(rows)
        self.detector = detector
        return self

    @needs_fit("detector")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Score samples, (n, …) features → (n,) float64, higher = more in class.

        Some PyOD detectors (ECOD, COPOD, COF, …) rank a sample among those scored with it. The result is always that
        of one call of the detector on all n rows, even where that takes more memory than calls on a part of them.

        Raises
        ------
        ValueError
            If the detector fails, or a score is not a number.
        """
        if len(features) > _ROWS:
            first = self._scores(features[:_ROWS])
            alone = self._scores(features[: _ROWS // 2])
            if np.allclose(alone, first[: _ROWS // 2], rtol=1e-4, atol=1e-8, equal_nan=True):
                rest = [self._scores(features[at : at + _ROWS]) for at in range(_ROWS, len(features), _ROWS)]
                return self._finite(np.concatenate([first, *rest]))
        return self._finite(self._scores(features))

    def parameters(self) -> int | None:
        """The encoder's."""
        return None if self.encoder is None else self.encoder.parameters()

    def _rows(self, features: np.ndarray) -> np.ndarray:
        """(n, …) features → (n, d) float32: codes, or pixels in [0, 1]."""
        if self.encoder is not None:
            values = np.asarray(self.encoder.encode(features), dtype=np.float32)
        else:
            values = check_images(features).astype(np.float32) / np.float32(255)
        return np.ascontiguousarray(values.reshape(len(values), -1))

    def _scores(self, features: np.ndarray) -> np.ndarray:
        rows = self._rows(features)
        with self._run_detector(f"score {rows.shape[0]} rows of {rows.shape[1]} features"):
            scores = np.asarray(type(self).score_rows(self.detector, rows), dtype=np.float64).reshape(-1)
            if len(scores) != len(rows):
                raise ValueError(f"it gave {len(scores)} scores")
        return scores

    def _finite(self, scores: np.ndarray) -> np.ndarray:
        """Refuse NaN; replace infinite scores by ones 1 beyond the finite scores, or by the next float beyond them."""
        undefined = np.count_nonzero(np.isnan(scores))
        if undefined:
            raise ValueError(f"{self.name}: {undefined} of {len(scores)} scores are not a number")
        finite = scores[np.isfinite(scores)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        low, high = min(low - 1, np.nextafter(low, -np.inf)), max(high + 1, np.nextafter(high, np.inf))
        return np.nan_to_num(scores, neginf=low, posinf=high)

    def _new_detector(self, n_features: int) -> Any:
        accepted = inspect.signature(self.detector_class).parameters
        own = {
            "device": str(self.device),
            "n_features": n_features,
            "n_jobs": 1,  # parallel sums would make scores depend on the number of cores
            "novelty": True,
            "random_state": self.seed % 2**32,
            "verbose": 0,
        }
        given = {field.name: getattr(self.settings, field.name) for field in dataclasses.fields(self.settings)}
        given.pop("encoder", None)
        given |= {key: value for key, value in own.items() if key in accepted}
        with self._run_detector("be made with these settings"):
            detector = self.detector_class(**copy.deepcopy(given))
            if hasattr(detector, "_parameter_constraints"):
                detector._validate_params()  # scikit-learn's own check, which else comes in fit
            return detector

    @contextlib.contextmanager
    def _run_detector(self, work: str) -> Iterator[None]:
        """Make the detector quiet and repeatable, and its failures one line with its name.

        Several PyOD detectors take no ``random_state`` and draw from the global generators: these are seeded here
        and put back.
        """
        with random_state_kept(self.device):  # threads take turns: Python's and NumPy's states are one for all, too
            python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
            try:
                with (
                    standard_torch(),
                    torch.device("cpu"),  # the default device only: detectors that can use a GPU are given their device
                    warnings.catch_warnings(),
                    contextlib.redirect_stdout(io.StringIO()),
                ):
                    warnings.simplefilter("ignore")
                    random.seed(self.seed)
                    np.random.seed(self.seed % 2**32)  # noqa: NPY002
                    torch.default_generator.manual_seed(self.seed)
                    if torch.cuda.is_initialized():  # else torch.manual_seed would seed GPUs at their first use, later
                        torch.cuda.manual_seed_all(self.seed)
                    yield
            except MemoryError:
                raise
            except ImportError as error:
                raise ImportError(
                    f"{self.name} needs a package that is not installed ({one_line(error, kind=False)})"
                ) from error
            except Exception as error:
                raise ValueError(f"{self.name} could not {work}: {one_line(error, kind=False)}") from error
            finally:
                random.setstate(python_state)
                np.random.set_state(numpy_state)  # noqa: NPY002


def detector_method(
    library: str, detector_name: str, encoder_name: str | None = None, encoder: type[OneClassMethod] | None = None
) -> type[DetectorMethod]:
    """Make the method that is a detector.

    Parameters
    ----------
    library
        ``"sklearn"`` or ``"pyod"``.
    detector_name
        Name of the detector's class, in any case.
    encoder_name, encoder
        The method whose representation the detector is to work on; None: raw pixels.

    Raises
    ------
    ValueError
        If the library has no such detector, or it needs more than features.
    ImportError
        If PyOD, or what the detector needs beside it, is not installed.
    """
    find = {"sklearn": _find_sklearn, "pyod": _find_pyod}[library]
    return _method_of(library, find(detector_name), encoder_name, encoder)


@functools.cache
def _method_of(
    library: str, detector: type, encoder_name: str | None, encoder: type[OneClassMethod] | None
) -> type[DetectorMethod]:
    name = f"{library}:{detector.__name__}" + ("" if encoder_name is None else f"@{encoder_name}")
    settings = _settings_class(name, detector, encoder)
    profiles: Mapping[str, Any]
    if encoder is None:
        profiles = {"paper": settings(), "quick": settings()}
    else:
        profiles = {profile: settings(encoder=inner) for profile, inner in encoder.profiles.items()}
    members = {
        "__doc__": f"{detector.__module__}.{detector.__name__} as a one-class method.",
        "__module__": __name__,
        "name": name,
        "profiles": profiles,
        "needs_auxiliary": encoder is not None and encoder.needs_auxiliary,
        # Neither number ever decreases, so their sum changes whenever one of them does.
        "version": _VERSION + (0 if encoder is None else encoder.version),
        "detector_class": detector,
        "score_rows": staticmethod({"sklearn": _sklearn_scores, "pyod": _pyod_scores}[library]),
        "encoder_class": encoder,
    }
    return type(f"{detector.__name__}Method", (DetectorMethod,), members)


def _settings_class(name: str, detector: Any, encoder: type[OneClassMethod] | None) -> type:
    """A frozen dataclass of the detector's own parameters, and the settings of the encoder."""
    fields: list[tuple[str, Any, Any]] = []
    missing = [key for key, value in inspect.signature(detector.fit).parameters.items() if _required(value)][2:]
    for key, parameter in inspect.signature(detector).parameters.items():
        if key in _OWN_PARAMETERS or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if _required(parameter):
            missing.append(key)
        elif _is_json(parameter.default):
            default = functools.partial(copy.deepcopy, parameter.default)
            fields.append((key, Any, dataclasses.field(default_factory=default)))
    if missing:
        raise ValueError(
            f"method {name!r}: {detector.__name__} cannot be used here, it also needs {', '.join(missing)}"
        )
    if encoder is not None:
        fields = [field for field in fields if field[0] != "encoder"] + [("encoder", Any, dataclasses.field())]
    return dataclasses.make_dataclass(
        f"{detector.__name__}Settings", fields, frozen=True, namespace={"__module__": __name__}, kw_only=True
    )


def _required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return named and parameter.default is parameter.empty


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _sklearn_scores(detector: Any, rows: np.ndarray) -> np.ndarray:
    if hasattr(detector, "score_samples"):
        return detector.score_samples(rows)
    return detector.decision_function(rows)


def _pyod_scores(detector: Any, rows: np.ndarray) -> np.ndarray:
    return -np.asarray(detector.decision_function(rows))  # PyOD's are higher for the more abnormal


def _find_sklearn(wanted: str) -> type:
    """The outlier detector, or estimator with ``score_samples``, of that name in any case."""
    for module_name in _SKLEARN_MODULES:
        for value in vars(importlib.import_module(f"sklearn.{module_name}")).values():
            if inspect.isclass(value) and value.__name__.lower() == wanted.lower() and _is_sklearn_detector(value):
                return value
    detectors = {name.lower(): value for name, value in all_estimators() if _is_sklearn_detector(value)}
    if wanted.lower() in detectors:
        return detectors[wanted.lower()]
    names = ", ".join(sorted(value.__name__ for value in detectors.values()))
    raise ValueError(f"method 'sklearn:{wanted}': scikit-learn has no such detector; it has {names}")


def _is_sklearn_detector(value: type) -> bool:
    """Whether a class scores samples without labels; wrappers of another estimator do not by themselves."""
    return (
        issubclass(value, BaseEstimator)
        and (issubclass(value, OutlierMixin) or hasattr(value, "score_samples"))
        and not any(_required(parameter) for parameter in inspect.signature(value).parameters.values())
    )


def _find_pyod(wanted: str) -> type:
    """The PyOD detector of that name in any case, importing its module alone."""
    try:
        known = _pyod_detectors()
    except ImportError:
        raise ImportError(
            f"method 'pyod:{wanted}' needs the package pyod, which is not installed: pip install pyod"
        ) from None
    if wanted.lower() not in known:
        names = ", ".join(sorted(class_name for _, class_name in known.values()))
        raise ValueError(f"method 'pyod:{wanted}': PyOD has no such detector; it has {names}")
    module_name, class_name = known[wanted.lower()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        package = error.name or str(error)
        raise ImportError(
            f"method 'pyod:{wanted}' needs the package {package}, which is not installed: pip install {package}"
        ) from None


@functools.cache
def _pyod_detectors() -> dict[str, tuple[str, str]]:
    """Lower-case name → (module, class) of each detector, read from the text of PyOD's modules.

    To import them all would need every package that any of them needs.
    """
    package = importlib.import_module("pyod.models")
    found: dict[str, tuple[str, str]] = {}
    for module_info in pkgutil.iter_modules(package.__path__, prefix=f"{package.__name__}."):
        base_name = module_info.name.rpartition(".")[2]
        if base_name == "base_dl" or base_name.startswith(_PYOD_OTHER_DATA):
            continue
        loader: Any = module_info.module_finder.find_spec(module_info.name, None).loader  # type: ignore[union-attr]
        for class_name in re.findall(r"^class (\w+)\(Base\w*Detector\b", loader.get_source(module_info.name), re.M):
            # A class may be in two modules, an old form and a new one: the first is the one of the plain name.
            found.setdefault(class_name.lower(), (module_info.name, class_name))
    return found
