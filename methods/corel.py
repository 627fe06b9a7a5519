"""COREL: one autoencoder with controlled connectivity for every class, and the ball count of its codes (§5)."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from corel import Autoencoder, BallCount, train_autoencoder
from corel._checks import count, integer, non_negative, one_of, optional, positive, real
from corel._device import standard_torch
from corel.checkpoint import write_atomically
from methods.base import NonFiniteLossError, OneClassMethod, needs_fit
from methods.neural import BATCH, CheckedSettings, check_images, checked_field

_BRANCHES = integer("divisors of 2048, the flattened convolutions", lambda k: k >= 1 and 2048 % k == 0)
_RADIUS = real("finite numbers of at least 0, and None", lambda radius: 0 <= radius < math.inf)


@dataclasses.dataclass(frozen=True)
class CorelSettings(CheckedSettings):
    """Settings of :class:`Corel`; the defaults are those of §5 and of the authors' released code.

    Parameters
    ----------
    eta
        The length η that deaths are trained towards.
    lam
        Weight λ of the connectivity loss; 0 trains for reconstruction alone.
    branches, branch_dim
        Number of branches of the code, and dimensions of each.
    epochs
        Passes over the auxiliary images.
    batch_size
        Images per batch; a partial last batch is dropped.
    lr
        Learning rate of Adam.
    reduction
        Over branches: "mean" as in the code, or "sum" as in the paper.
    radius
        Radius of the balls; None: ``eta``.
    """

    eta: float = checked_field(positive, 2.0)
    lam: float = checked_field(non_negative, 20.0)
    branches: int = checked_field(_BRANCHES, 16)
    branch_dim: int = checked_field(count, 10)
    epochs: int = checked_field(count, 50)
    batch_size: int = checked_field(count, 100)
    lr: float = checked_field(positive, 1e-3)
    reduction: str = checked_field(one_of("mean", "sum"), "mean")
    radius: float | None = checked_field(optional(_RADIUS), None)


def history_path(path: Path) -> Path:
    """The file beside that of an encoder with the history of its training, as CSV.

    Columns and rows are those that :func:`corel.train_autoencoder` returns.
    """
    return path.with_name(f"{path.name}.history.csv")


class Corel(OneClassMethod):
    """Ball counts of codes with controlled connectivity (§5, Eq. 6, Algorithm 4)."""

    name = "corel"
    profiles: ClassVar = {"paper": CorelSettings(), "quick": CorelSettings(epochs=6)}
    needs_auxiliary = True
    version = 2

    def __init__(self, settings: CorelSettings | None = None, *, seed: int = 0, device: str = "auto") -> None:
        super().__init__(settings, seed=seed, device=device)
        self._autoencoder: Autoencoder | None = None
        self._model: BallCount | None = None

    def auxiliary_settings(self) -> dict[str, Any]:
        """Every setting but the radius, which only the count uses."""
        return {name: value for name, value in super().auxiliary_settings().items() if name != "radius"}

    def fit_auxiliary(self, images: np.ndarray, *, path: Path | None = None) -> Self:
        """Train the shared autoencoder (Algorithm 4, step 1), or load it from ``path``.

        The history of the training is kept beside it (:func:`history_path`).
        """
        settings, key = self.settings, self._learned_key(images)
        autoencoder = None if path is None else self._load(Path(path), key)
        if autoencoder is None:
            checkpoint = None if path is None else Path(path).with_name(f"{Path(path).name}.checkpoint")
            try:
                autoencoder, history = train_autoencoder(
                    images,
                    eta=settings.eta,
                    lam=settings.lam,
                    branches=settings.branches,
                    branch_dim=settings.branch_dim,
                    epochs=settings.epochs,
                    batch_size=settings.batch_size,
                    lr=settings.lr,
                    reduction=settings.reduction,
                    seed=self.seed,
                    device=self.device,
                    progress=self.progress,
                    checkpoint=checkpoint,
                )
            except FloatingPointError as error:
                raise NonFiniteLossError(f"corel: {error}") from None
            if path is not None and checkpoint is not None:
                # written first, so that an encoder's file always has its history beside it
                lines = history.to_csv(index=False, lineterminator="\n").encode()
                write_atomically(history_path(path), lambda stream: stream.write(lines))
                state = {"key": key, "weights": autoencoder.state_dict()}
                write_atomically(path, lambda stream: torch.save(state, stream))
                checkpoint.unlink(missing_ok=True)
        # Rounding depends on the memory format: a loaded encoder gets that of one that was just trained.
        self._autoencoder = autoencoder.to(self.device).to(memory_format=torch.channels_last).eval()
        return self

    def _load(self, path: Path, key: str) -> Autoencoder | None:
        if not path.exists():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["key"] != key:
                return None
            with standard_torch(), torch.device("cpu"):
                autoencoder = Autoencoder(self.settings.branches, self.settings.branch_dim)
            autoencoder.load_state_dict(state["weights"])
        except Exception:  # whatever the damage to the file, the autoencoder is trained again
            return None
        return autoencoder

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Encode images: (n, 3, 32, 32) uint8 → (n, branches · branch_dim) float32."""
        if self._autoencoder is None:
            raise ValueError("corel: prepare needs a trained encoder; call fit_auxiliary first")
        check_images(images, least=0)
        codes = np.empty((len(images), self.settings.branches * self.settings.branch_dim), np.float32)
        batch = np.zeros((BATCH, *images.shape[1:]), np.uint8)
        with standard_torch(), torch.inference_mode():
            for start in range(0, len(images), BATCH):
                size = min(BATCH, len(images) - start)
                batch[:size] = images[start : start + size]
                x = torch.from_numpy(batch).to(self.device)
                x = x.to(torch.float32, memory_format=torch.channels_last).div_(255.0)
                codes[start : start + size] = self._autoencoder.encoder(x)[:size].cpu().numpy()
        return codes

    def fit(self, features: np.ndarray) -> Self:
        """Store the codes of the class (Algorithm 4, step 2)."""
        settings = self.settings
        radius = settings.eta if settings.radius is None else settings.radius
        self._model = BallCount(radius=radius, branches=settings.branches).fit(features)
        return self

    @needs_fit("_model")
    def score_samples(self, features: np.ndarray) -> np.ndarray:
        """Count stored codes around each code (Eq. 6): (n, …) → (n,) float64."""
        assert self._model is not None
        return self._model.score_samples(features)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """What the decoder makes of the codes of images: (n, 3, 32, 32) uint8 → (n, 3, 32, 32) uint8."""
        if self._autoencoder is None:
            raise ValueError("corel: reconstruct needs a trained encoder; call fit_auxiliary first")
        with standard_torch(), torch.inference_mode():
            x = torch.from_numpy(np.array(images)).to(self.device, torch.float32).div_(255.0)
            return self._autoencoder(x)[0].mul(255.0).round().clamp(0, 255).to(torch.uint8).cpu().numpy()

    def parameters(self) -> int:
        """Parameters of the encoder, which all classes share."""
        with standard_torch(), torch.device("meta"):
            encoder = Autoencoder(self.settings.branches, self.settings.branch_dim).encoder
        return sum(parameter.numel() for parameter in encoder.parameters())

    def encode(self, features: np.ndarray) -> np.ndarray:
        """The codes themselves: prepared features are codes."""
        return np.asarray(features, dtype=np.float32)
