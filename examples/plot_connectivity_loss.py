"""
A connectivity loss in one's own training loop
==============================================

An autoencoder of scikit-learn's handwritten digits with a code of 20 dimensions in four branches, trained once for
reconstruction alone and once with the connectivity loss added. The loss pulls the deaths of each branch of a batch, the
lengths at which its points merge into one component, towards η = 2.
"""

# %%
# The loop is an ordinary one. The loss takes the codes of a batch, (b, n), and gives a scalar.

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from corel import ConnectivityLoss, death_times

ETA, BRANCHES, BATCH = 2.0, 4, 50
images = torch.from_numpy(load_digits().data).float() / 16  # (1797, 64) in [0, 1]
connectivity = ConnectivityLoss(eta=ETA, branches=BRANCHES)


def train(weight: float, epochs: int = 15) -> nn.Module:
    """Return the encoder after training with ``weight`` on the connectivity loss."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(), nn.Linear(128, 20))
    decoder = nn.Sequential(nn.Linear(20, 128), nn.LeakyReLU(), nn.Linear(128, 64))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(BATCH)[:-1]:  # the last batch is smaller
            x = images[batch]
            code = encoder(x)  # (50, 20)
            loss = (decoder(code) - x).abs().sum(1).mean() + weight * connectivity(code)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return encoder


# %%
# What it does to the codes: the deaths of many batches, without and with the loss. :func:`corel.death_times` takes any
# number of leading batch dimensions, here batches and branches.


def deaths(encoder: nn.Module, batches: int = 200) -> Tensor:
    """Return the deaths of each branch of random batches, flat."""
    generator = torch.Generator().manual_seed(1)
    choice = torch.rand(batches, len(images), generator=generator).topk(BATCH).indices  # without replacement
    with torch.no_grad():
        codes = encoder(images)[choice]  # (200, 50, 20)
    return death_times(codes.unflatten(-1, (BRANCHES, -1)).transpose(1, 2)).flatten()  # (200, 4, 49)


figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for weight, colour, hatch in ((0.0, "#bbbbbb", ""), (1.0, "#0072b2", "//")):
    axes.hist(
        deaths(train(weight)), bins=torch.linspace(0, 4, 81), density=True, alpha=0.7, color=colour, hatch=hatch,
        edgecolor="white", linewidth=0, label=f"weight {weight:g} on the connectivity loss",
    )  # fmt: skip
axes.axvline(ETA, color="black", linestyle="--", linewidth=1, label="η")
axes.set(xlabel="death ε of a component (L1 length)", ylabel="density", xlim=(0, 4))
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
plt.show()
