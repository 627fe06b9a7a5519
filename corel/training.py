"""Training of the autoencoder (supplementary material, Algorithm 4, step 1)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from corel import _checks
from corel._device import random_state_kept, resolve_device, standard_torch
from corel._memory import keep_freed_memory
from corel.autoencoder import IMAGE_SIZE, Autoencoder
from corel.checkpoint import Checkpoint, check_path
from corel.persistence.spanning_tree import death_times

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the history that are measured at every iteration.
MEASURES = ("reconstruction", "connectivity", "alpha", "epsilon", "beta")

#: Images of up to so many bytes, and up to half of the free memory of the GPU, are kept there as a whole.
_RESIDENT_BYTES = 8 * 2**30


@dataclasses.dataclass(frozen=True)
class _Settings:
    eta: float
    lam: float
    branches: int
    branch_dim: int
    batch_size: int
    lr: float
    reduction: str
    seed: int

    def __post_init__(self) -> None:
        _checks.check_fields(
            self,
            eta=_checks.positive,
            lam=_checks.non_negative,
            branches=_checks.count,
            branch_dim=_checks.count,
            batch_size=_checks.count,
            lr=_checks.positive,
            reduction=_checks.one_of("mean", "sum"),
            seed=_checks.seed,
        )
        for name in ("eta", "lam", "lr"):  # 2 and 2.0 are the same training
            object.__setattr__(self, name, float(getattr(self, name)))


def train_autoencoder(
    images: np.ndarray | Tensor,
    *,
    eta: float = 2.0,
    lam: float = 20.0,
    branches: int = 16,
    branch_dim: int = 10,
    epochs: int = 50,
    batch_size: int = 100,
    lr: float = 1e-3,
    reduction: str = "mean",
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tuple[Autoencoder, pd.DataFrame]:
    """Train an autoencoder for reconstruction and connectivity (§5; supplementary material, Algorithm 4).

    Minimises, over batches, the mean of Σ|x − x̂| over the pixels of an image plus ``lam`` times the connectivity loss
    (Eq. 4) of each branch's codes, with Adam and its default moments. A partial last batch is dropped.

    Parameters
    ----------
    images
        NumPy array or tensor (n, 3, 32, 32), uint8 (scaled to [0, 1]) or floating point in [0, 1]; may be
        memory-mapped.
    eta
        The length η that death times are to have.
    lam
        Weight λ of the connectivity loss; 0 trains for reconstruction alone.
    branches, branch_dim
        Shape of the code.
    epochs
        Passes over the images.
    batch_size
        Images per batch, b. Their codes are the point clouds whose connectivity is controlled.
    lr
        Learning rate.
    reduction
        Over branches: ``"mean"`` (the authors' code) or ``"sum"`` (the paper's formula).
    seed
        From −2⁶³ to 2⁶⁴ − 1. Seeds weights and the order of images. torch's global random state is neither read nor
        changed.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or a :class:`torch.device`.
    progress
        Show a progress bar on standard error with both losses and α̂, ε̂, β̂.
    checkpoint
        A file in which the state is saved after each epoch. A training that was killed continues from there; on the
        CPU, to the same weights bit for bit. A finished training is loaded, and continued if ``epochs`` is larger now.
        A file of other images or settings is replaced. One of more epochs than are asked for is left as it is: the
        training starts anew, and is not saved.

    Returns
    -------
    tuple
        The trained :class:`~corel.Autoencoder`, in evaluation mode on ``device``, and its history: a
        :class:`pandas.DataFrame` with a row per iteration and the columns epoch (from 1), iteration (from 1),
        reconstruction, connectivity (as weighted by ``reduction``, without ``lam``), alpha, epsilon, beta (least,
        mean and largest death of a branch, averaged over branches) and seconds (of the whole epoch).

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described, ``checkpoint`` cannot be written to, or there are fewer images than a batch.
    FloatingPointError
        If the loss or the codes are no longer finite.
    """
    from tqdm.auto import tqdm

    settings = _Settings(eta, lam, branches, branch_dim, batch_size, lr, reduction, seed)
    epochs = _checks.count("epochs", epochs)
    path, where = check_path("checkpoint", checkpoint), resolve_device(device)
    array = _check_images(images)
    steps = len(array) // settings.batch_size
    if steps == 0:
        raise ValueError(f"images: got {len(array)}, fewer than batch_size = {settings.batch_size}")
    state = Checkpoint(path, "" if path is None else _key(settings, array))
    progress = _checks.boolean("progress", progress)
    keep_freed_memory()
    # the caller may have switched gradients off, or products in reduced precision on
    with torch.inference_mode(False), standard_torch():
        with random_state_kept(where):
            trainer = _Trainer(settings, where)
            start = trainer.load(state)
            if start > epochs:
                trainer, state = _Trainer(settings, where), Checkpoint(None)
                start = 0
        if start < epochs:
            state.check_writable()
            batches = _Batches(array, where)
            with tqdm(total=epochs * steps, initial=start * steps, unit="batch", disable=not progress) as bar:
                for epoch in range(start + 1, epochs + 1):
                    trainer.run_epoch(epoch, batches, steps, bar)
                    trainer.save(state, epoch)
    return trainer.model.eval(), trainer.history(steps)


class _Trainer:
    """Model, optimiser and measurements of a training in progress."""

    def __init__(self, settings: _Settings, device: torch.device) -> None:
        self.settings = settings
        torch.default_generator.manual_seed(settings.seed)
        # weights are drawn on the CPU, whatever the device: the seed then gives the same ones everywhere
        model = Autoencoder(settings.branches, settings.branch_dim, device="cpu", dtype=torch.float32)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)
        self.measured: list[Tensor] = []
        self.seconds: list[float] = []

    def load(self, checkpoint: Checkpoint) -> int:
        epoch, extra = checkpoint.load(model=self.model, optimizer=self.optimizer)
        if extra is not None:
            self.measured, self.seconds = list(extra["measured"]), list(extra["seconds"])
        return epoch

    def save(self, checkpoint: Checkpoint, epoch: int) -> None:
        extra = {"measured": self.measured, "seconds": self.seconds}
        checkpoint.save(epoch, extra=extra, model=self.model, optimizer=self.optimizer)

    def run_epoch(self, epoch: int, batches: _Batches, steps: int, bar: Any) -> None:
        settings = self.settings
        started = time.perf_counter()
        order = batches.place(_permutation(len(batches), settings.seed, epoch))
        rows: list[Tensor] = []
        self.model.train()
        shown = started
        for step in range(steps):
            x = batches.take(order[step * settings.batch_size : (step + 1) * settings.batch_size])
            try:
                rows.append(self.step(x))
            except _checks.NonFiniteError:
                raise FloatingPointError(_diverged(epoch)) from None
            bar.update()
            if x.device.type == "cpu" and time.perf_counter() - shown > 0.5:
                shown = time.perf_counter()
                _show(bar, rows[-1])
        measured = torch.stack(rows).cpu()
        if not bool(torch.isfinite(measured).all()):
            raise FloatingPointError(_diverged(epoch))
        _show(bar, measured[-1])
        self.measured.append(measured)
        self.seconds.append(time.perf_counter() - started)

    def step(self, x: Tensor) -> Tensor:
        """One step of the optimiser; returns the five measures without waiting for the device."""
        settings = self.settings
        reconstructed, z = self.model(x)
        reconstruction = (reconstructed - x).abs_().sum() / len(x)
        deaths = death_times(z.view(len(z), settings.branches, settings.branch_dim).transpose(0, 1))
        # as in connectivity_loss; the deaths themselves are measured below
        per_branch = (deaths - settings.eta).abs().sum(1)
        connectivity = per_branch.mean() if settings.reduction == "mean" else per_branch.sum()
        self.optimizer.zero_grad(set_to_none=True)
        (reconstruction + settings.lam * connectivity).backward()
        self.optimizer.step()
        with torch.no_grad():
            if deaths.shape[1] == 0:
                spread = deaths.new_zeros(3)
            else:  # the deaths of each branch are sorted
                spread = torch.stack([deaths[:, 0].mean(), deaths.mean(), deaths[:, -1].mean()])
            return torch.cat([torch.stack([reconstruction.detach(), connectivity.detach()]), spread])

    def history(self, steps: int) -> pd.DataFrame:
        import pandas as pd

        values = torch.cat(self.measured).double().numpy()
        frame = pd.DataFrame(values, columns=list(MEASURES))
        frame.insert(0, "epoch", np.arange(len(values)) // steps + 1)
        frame.insert(1, "iteration", np.arange(len(values)) + 1)
        frame["seconds"] = np.repeat(self.seconds, steps)
        return frame


class _Batches:
    """Images by index, as float batches on the device."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.images, self.device = images, device
        self.resident: Tensor | None = None
        if device.type == "cuda" and images.nbytes <= min(_RESIDENT_BYTES, torch.cuda.mem_get_info(device)[0] // 2):
            self.resident = torch.from_numpy(np.array(images)).to(device)

    def __len__(self) -> int:
        return len(self.images)

    def place(self, order: Tensor) -> Tensor:
        """Move indices to the device of the images: once an epoch, since each copy waits for the GPU."""
        return order if self.resident is None else order.to(self.device)

    def take(self, indices: Tensor) -> Tensor:
        if self.resident is not None:
            batch = self.resident[indices]
        else:
            batch = torch.from_numpy(self.images[indices.numpy()])
            if self.device.type == "cuda":
                batch = batch.pin_memory().to(self.device, non_blocking=True)
        # the convolutions of this network are faster in the channels-last memory format, on CPUs and on GPUs
        scale = 255.0 if batch.dtype == torch.uint8 else 1.0
        return batch.to(torch.float32, memory_format=torch.channels_last).div_(scale)


def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order of images in an epoch. It depends on n, seed and epoch alone: a checkpoint need not hold its state."""
    digest = hashlib.sha256(f"order {seed} {epoch}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randperm(n, generator=generator, dtype=torch.int64, device="cpu")


def _show(bar: Any, row: Tensor) -> None:
    if bar.disable:
        return
    reconstruction, connectivity, alpha, epsilon, beta = row.tolist()
    bar.set_postfix_str(
        f"reconstruction {reconstruction:.1f}, connectivity {connectivity:.2f}, "
        f"α̂ {alpha:.2f}, ε̂ {epsilon:.2f}, β̂ {beta:.2f}"
    )


def _diverged(epoch: int) -> str:
    return f"train_autoencoder: loss or codes are not finite in epoch {epoch}; a lower lr or lam may help"


def _check_images(images: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(images, Tensor):
        images = _checks.check_dense("images", images.detach()).cpu()
        if images.is_floating_point() and images.dtype not in (torch.float16, *_checks.COMPUTED):
            images = images.float()  # numpy has no bfloat16
        images = _checks.numbers("images", images)
    if not isinstance(images, np.ndarray):
        raise TypeError(f"images: got {type(images).__name__}; accepted are numpy arrays and torch tensors")
    if images.ndim != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"images: got shape {images.shape}; accepted is (n, 3, {IMAGE_SIZE}, {IMAGE_SIZE})")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise TypeError(f"images: got dtype {images.dtype}; accepted are uint8 and floating point in [0, 1]")
    images = _checks.native(images)
    if not (np.isfinite(images).all() and images.min(initial=0) >= 0 and images.max(initial=0) <= 1):
        raise ValueError("images: floating-point images must be finite and in [0, 1]")
    return images


def fingerprint(images: np.ndarray) -> str:
    """A digest of dtype, shape and content of an array of images, perhaps memory-mapped."""
    digest = hashlib.sha256(f"{images.dtype} {images.shape}".encode())
    for start in range(0, len(images), 10_000):
        digest.update(np.ascontiguousarray(images[start : start + 10_000]).data)
    return digest.hexdigest()


def _key(settings: _Settings, images: np.ndarray) -> str:
    """A digest of everything that the training depends on, except the number of epochs."""
    return hashlib.sha256(f"{dataclasses.astuple(settings)} {fingerprint(images)}".encode()).hexdigest()
