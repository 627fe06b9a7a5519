"""What the baselines that train a network on the images of one class have in common."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from corel._checks import Check, boolean, check_fields, count, positive
from corel._device import random_state_kept, standard_torch
from corel._memory import keep_freed_memory
from corel.checkpoint import Checkpoint, Stateful
from methods.base import NonFiniteLossError, OneClassMethod

#: A checkpoint is written at the first end of an epoch after this many seconds: short trainings write only the last.
SAVE_SECONDS = 5.0
#: Images evaluated at a time. Fixed, because sums may round differently in batches of another size.
BATCH = 500

_Net = TypeVar("_Net", bound=nn.Module)


def checked_field(check: Check, default: Any) -> Any:
    """A field of a settings dataclass: its default value and the check of any other."""
    return dataclasses.field(default=default, metadata={"check": check})


@dataclasses.dataclass(frozen=True)
class CheckedSettings:
    """Settings of which each field made by :func:`checked_field` is checked."""

    def __post_init__(self) -> None:
        # a subclass may have plain fields too
        checks = {f.name: f.metadata["check"] for f in dataclasses.fields(self) if "check" in f.metadata}
        check_fields(self, **checks)


@dataclasses.dataclass(frozen=True)
class TrainingSettings(CheckedSettings):
    """Settings of every neural baseline.

    Parameters
    ----------
    epochs
        Passes over the training samples.
    batch_size
        Samples per step; the last, smaller batch of an epoch is kept.
    lr
        Learning rate of Adam.
    autocast
        Whether networks compute in bfloat16 where PyTorch's autocast considers it safe, on any device: faster where
        the hardware supports it, with other scores. False: float32 throughout.
    """

    epochs: int = checked_field(count, 200)
    batch_size: int = checked_field(count, 128)
    lr: float = checked_field(positive, 1e-3)
    autocast: bool = checked_field(boolean, False)


def check_images(features: np.ndarray, least: int = 1) -> np.ndarray:
    """Return ``features`` if they are (n, 3, 32, 32) uint8 images, ``least`` or more.

    Raises
    ------
    ValueError, TypeError
        If they are not.
    """
    if not isinstance(features, np.ndarray):
        raise TypeError(f"features: got {type(features).__name__}; accepted are numpy arrays of uint8")
    if features.dtype != np.uint8:
        raise TypeError(f"features: got dtype {features.dtype}; accepted is uint8")
    if features.ndim != 4 or features.shape[1:] != (3, 32, 32) or len(features) < least:
        raise ValueError(f"features: got shape {features.shape}; accepted is (n, 3, 32, 32) with n ≥ {least}")
    return features


def as_float(images: np.ndarray, device: torch.device) -> Tensor:
    """Copy uint8 images to the device as float32, values unchanged."""
    return torch.from_numpy(np.array(images)).to(device, torch.float32)


class NeuralMethod(OneClassMethod):
    """Seeded construction, training and batched evaluation of networks on (n, 3, 32, 32) uint8 images.

    A subclass's settings extend :class:`TrainingSettings`.
    """

    def _inputs(self, images: np.ndarray) -> Tensor:
        """What the network sees: (b, 3, 32, 32) uint8 → float32 in [−1, 1], on the device."""
        return as_float(images, self.device).div_(127.5).sub_(1.0)

    def _build(self, make: Callable[[], _Net]) -> _Net:
        """Make a network with weights drawn from the method's seed, the same for every device."""
        with standard_torch(), torch.device("cpu"), random_state_kept(self.device):
            torch.default_generator.manual_seed(self.seed)
            return make().to(self.device)

    def parameters(self) -> int | None:
        """Parameters of the networks that are kept for scoring."""
        networks = [value for value in vars(self).values() if isinstance(value, nn.Module)]
        return sum(parameter.numel() for network in networks for parameter in network.parameters()) or None

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.autocast)

    def _train(
        self,
        phase: str,
        features: np.ndarray,
        net: nn.Module,
        loss: Callable[[Tensor], Tensor],
        *,
        samples: int | None = None,
        epochs: int | None = None,
        milestone: int | None = None,
        lr: float | None = None,
        weight_decay: float = 0.0,
        eps: float = 1e-7,
        check_finite: bool = True,
    ) -> None:
        """Minimise ``loss`` by Adam over batches of a new permutation of the samples in every epoch.

        Parameters
        ----------
        phase
            Name of the training: of its checkpoint and its progress bar.
        features
            What is trained on; a part of the checkpoint's key.
        net
            What is trained, in place; in evaluation mode afterwards.
        loss
            Turns the indices of a batch's samples, (b,) int64 on the device, into a scalar. It may draw from the
            CPU's global random state, which is seeded in every epoch.
        samples
            Number of samples; None: one per row of ``features``.
        epochs, lr
            None: as in the settings.
        milestone
            The epoch from which on the learning rate is a tenth.
        weight_decay, eps
            Adam's weight decay and ε. Keras, the library of all references but Deep-SVDD's, has an ε of 1e-7.
        check_finite
            False: go on whatever the losses and weights become.

        Raises
        ------
        NonFiniteLossError
            At the first loss that is NaN or infinite, and after the last step if that left such weights.
        """
        keep_freed_memory()
        settings = self.settings
        epochs = settings.epochs if epochs is None else epochs
        path: Path | None = None if self.checkpoint_dir is None else self.checkpoint_dir / f"{phase}.pt"
        digest = hashlib.sha256(np.ascontiguousarray(features).data).hexdigest()
        checkpoint = Checkpoint(path, f"{self.name} {self.version} {settings} {self.seed} {digest}")
        with standard_torch(), random_state_kept(self.device):
            optimizer = torch.optim.Adam(
                net.parameters(), settings.lr if lr is None else lr, eps=eps, weight_decay=weight_decay, fused=True
            )
            scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [] if milestone is None else [milestone])
            parts: dict[str, Stateful] = {"net": net, "optimizer": optimizer, "scheduler": scheduler}
            start, _ = checkpoint.load(**parts)
            net.train()
            saved = time.monotonic()
            shown = tqdm(
                range(start, epochs),
                f"{self.name} {phase}",
                epochs,
                initial=start,
                disable=not self.progress,
                leave=False,
            )
            for epoch in shown:
                # All that is random in an epoch follows from its number: a resumed training needs no random state.
                torch.default_generator.manual_seed(hash_seed(self.seed, phase, epoch))
                order = torch.randperm(len(features) if samples is None else samples, device="cpu")
                for batch in order.split(settings.batch_size):
                    with self._autocast():
                        value = loss(batch.to(self.device))
                    if check_finite and not torch.isfinite(value):
                        raise NonFiniteLossError(
                            f"{self.name}: the loss of {phase} is {value.item()} in epoch {epoch + 1}"
                        )
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
                scheduler.step()
                if time.monotonic() - saved > SAVE_SECONDS or epoch + 1 == epochs:
                    checkpoint.save(epoch + 1, **parts)
                    saved = time.monotonic()
        if check_finite and not all(bool(torch.isfinite(values).all()) for values in net.state_dict().values()):
            raise NonFiniteLossError(f"{self.name}: {phase} ended in weights or running averages that are not finite")
        net.eval()

    def _evaluate(self, compute: Callable[[Tensor], Tensor], images: np.ndarray, size: int = BATCH) -> np.ndarray:
        """Apply ``compute`` to what the network sees of the images, ``size`` at a time: (n, …), float32 or float64.

        Raises
        ------
        ValueError, TypeError
            If they are not (n, 3, 32, 32) uint8 with n ≥ 1.
        """
        results = []
        with standard_torch(), torch.inference_mode(), self._autocast():
            for start in range(0, len(check_images(images)), size):
                result = compute(self._inputs(images[start : start + size]))
                results.append(result.to(torch.promote_types(result.dtype, torch.float32)).cpu())
        return torch.cat(results).numpy()


def hash_seed(*parts: object) -> int:
    """A seed of 48 bits that is a hash of ``parts``."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")
