"""
The toy example of the paper (Fig. 2)
=====================================

A mapping of the plane to itself, learned with the connectivity loss and nothing else (§3.2 of the paper): 1,500 points
of three Gaussians, a perceptron 2-20-20-2 with leaky ReLUs, batches of 50 points and η = 2. The mapping spreads the
points evenly. The paper draws means and covariances at random and does not print them, nor the optimiser: the Gaussians
here are others, and the optimiser is Adam with a learning rate of 0.003. Lengths are L1.
"""

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from corel import ConnectivityLoss, death_times

BATCH = 50
generator = torch.Generator().manual_seed(1)
means = 10 * torch.rand(3, 1, 2, generator=generator) - 5
points = means + torch.randn(3, 500, 2, generator=generator) @ torch.randn(3, 2, 2, generator=generator)
points = points.flatten(0, 1)  # (1500, 2)

# %%
# 60 epochs; the mapped points are kept after 20 and 60.

torch.manual_seed(0)
mapping = nn.Sequential(
    nn.Linear(2, 20), nn.LeakyReLU(), nn.Linear(20, 20), nn.LeakyReLU(), nn.Linear(20, 2)
)  # fmt: skip
connectivity = ConnectivityLoss(eta=2.0)
optimizer = torch.optim.Adam(mapping.parameters(), lr=0.003)
stages = {"data": points}
for epoch in range(1, 61):
    for batch in torch.randperm(len(points)).split(BATCH):
        optimizer.zero_grad()
        connectivity(mapping(points[batch])).backward()
        optimizer.step()
    if epoch in (20, 60):
        with torch.no_grad():
            stages[f"after {epoch} epochs"] = mapping(points)

# %%
# Above each picture, as in the paper: α̂, ε̂ and β̂, the means over 3,000 random batches of the least, the average and the
# largest death of a batch.


def spread(cloud: Tensor, batches: int = 3000) -> Tensor:
    """Return α̂, ε̂ and β̂ of a cloud, (3,)."""
    choice = torch.stack([torch.randperm(len(cloud))[:BATCH] for _ in range(batches)])
    deaths = death_times(cloud[choice])  # (3000, 50, 2) → (3000, 49), in order
    return torch.stack([deaths[:, 0], deaths.mean(1), deaths[:, -1]]).mean(1)


figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for axis, (title, cloud) in zip(axes, stages.items(), strict=True):
    for part, (colour, marker) in zip(
        cloud.chunk(3), (("#0072b2", "o"), ("#e69f00", "^"), ("#009e73", "s")), strict=True
    ):
        axis.scatter(*part.T, s=5, color=colour, marker=marker, linewidth=0)
    alpha, epsilon, beta = spread(cloud).tolist()
    axis.set_title(f"{title}\nα̂, ε̂, β̂ = {alpha:.2f}, {epsilon:.2f}, {beta:.2f}", fontsize=10)
    axis.set_aspect("equal", adjustable="datalim")
    axis.set(xticks=[], yticks=[])
plt.show()
