"""The loop over epochs that the trainings of the neural baselines share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from corel._memory import reuse_freed_memory
from corel.checkpoint import Checkpoint, Stateful
from methods.base import NonFiniteLossError, OneClassMethod

#: A checkpoint is written at the first end of an epoch after this many seconds: short trainings pay for one only.
SAVE_SECONDS = 5.0


def check_images(features: np.ndarray) -> np.ndarray:
    """Return ``features`` if they are (n, 3, 32, 32) uint8 images with n ≥ 1.

    Raises
    ------
    ValueError, TypeError
        If they are not.
    """
    if not isinstance(features, np.ndarray):
        raise TypeError(f"features: got {type(features).__name__}; accepted are numpy arrays of uint8")
    if features.dtype != np.uint8:
        raise TypeError(f"features: got dtype {features.dtype}; accepted is uint8")
    if features.ndim != 4 or features.shape[1:] != (3, 32, 32) or len(features) == 0:
        raise ValueError(f"features: got shape {features.shape}; accepted is (n, 3, 32, 32) with n ≥ 1")
    return features


def train_epochs(
    method: OneClassMethod,
    phase: str,
    features: np.ndarray,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor], Tensor],
    *,
    samples: int,
    batch_size: int,
    epochs: int,
    milestone: int | None = None,
) -> None:
    """Minimise ``loss`` over batches of a new permutation of the samples in every epoch.

    Parameters
    ----------
    method
        Gives seed, settings, checkpoint folder and whether to show progress.
    phase
        Name of the training: of its checkpoint and its progress bar.
    features
        What is trained on; a part of the checkpoint's key.
    net, optimizer
        What is trained, in place.
    loss
        Turns the numbers of a batch's samples, (b,) int64, into a scalar. May draw from torch's global random state,
        which is seeded anew in every epoch.
    samples, batch_size, epochs
        The last, smaller batch of an epoch is kept.
    milestone
        The epoch from which on the learning rate is a tenth.

    Raises
    ------
    NonFiniteLossError
        At the first loss that is NaN or infinite, and after the last step if that left such weights.
    """
    path: Path | None = None if method.checkpoint_dir is None else method.checkpoint_dir / f"{phase}.pt"
    digest = hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest()
    checkpoint = Checkpoint(path, f"{method.name} {method.version} {method.settings} {method.seed} {digest}")
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [] if milestone is None else [milestone])
    parts: dict[str, Stateful] = {"net": net, "optimizer": optimizer, "scheduler": scheduler}
    with (
        torch.random.fork_rng(devices=[method.device] if method.device.type == "cuda" else []),
        reuse_freed_memory(),
    ):
        start, _ = checkpoint.load(**parts)
        net.train()
        saved = time.monotonic()
        for epoch in tqdm(
            range(start, epochs),
            f"{method.name} {phase}",
            epochs,
            initial=start,
            disable=not method.progress,
            leave=False,
        ):
            # whatever is random in an epoch is a function of its number: a resumed training needs no random state
            torch.manual_seed(hash_seed(method.seed, phase, epoch))
            for batch in torch.randperm(samples).split(batch_size):
                value = loss(batch)
                if not torch.isfinite(value):
                    raise NonFiniteLossError(
                        f"{method.name}: the loss of {phase} is {value.item()} in epoch {epoch + 1}"
                    )
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            scheduler.step()
            if time.monotonic() - saved > SAVE_SECONDS or epoch + 1 == epochs:
                checkpoint.save(epoch + 1, **parts)
                saved = time.monotonic()
    if not all(bool(torch.isfinite(values).all()) for values in net.state_dict().values()):
        raise NonFiniteLossError(f"{method.name}: {phase} ended in weights or running averages that are not finite")
    net.eval()


def hash_seed(*parts: object) -> int:
    """A seed that differs wherever ``parts`` do."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6], "big")
