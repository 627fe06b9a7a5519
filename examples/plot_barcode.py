"""
A persistence barcode
=====================

Points on a noisy circle: many components that merge early, and one loop that lives long. A bar begins at the length at
which a class is born and ends where it dies. All lengths are full distances, as in ripser and gudhi.
"""

import matplotlib.pyplot as plt
import torch

import corel

generator = torch.Generator().manual_seed(3)
angle = 2 * torch.pi * torch.rand(60, generator=generator)
cloud = torch.stack((angle.cos(), angle.sin()), 1) + 0.08 * torch.randn(60, 2, generator=generator)

# %%
# ``diagrams[k]`` holds the classes of dimension k. Its ``points`` are births and deaths, (number of classes, 2), with ∞
# for a class that never dies; ``birth_simplices`` and ``death_simplices`` are the simplices that create and fill it.

diagrams = corel.vr_persistence(cloud, p=2.0, max_dim=1)
lives = diagrams[1].points[:, 1] - diagrams[1].points[:, 0]
born, filled = diagrams[1].birth_simplices[lives.argmax()], diagrams[1].death_simplices[lives.argmax()]
print(f"The longest loop closes with the edge {born.tolist()} and is filled by the triangle {filled.tolist()}.")

# %%
# The barcode, and in the cloud the edge that closes the longest loop and the triangle that fills it.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", width_ratios=(1, 1.3))
left.scatter(*cloud.T, s=14, color="black", zorder=3)
left.fill(*cloud[filled].T, color="#e69f00", alpha=0.3, label="triangle that fills the loop")
left.plot(*cloud[born].T, color="#e69f00", linewidth=2.5, label="edge that closes the loop")
left.set(aspect="equal", xticks=[], yticks=[])
left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0))

corel.plot_barcode(diagrams, right)  # the arrow: one component lives for ever
plt.show()
