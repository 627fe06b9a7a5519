"""
A persistence barcode
=====================

Points on a noisy circle: many components that merge early, and one loop that lives long. A bar begins at the length at
which a class is born and ends where it dies. All lengths are full distances, as in ripser and gudhi.
"""

import matplotlib.pyplot as plt
import torch

from corel import vr_persistence

generator = torch.Generator().manual_seed(3)
angle = 2 * torch.pi * torch.rand(60, generator=generator)
cloud = torch.stack((angle.cos(), angle.sin()), 1) + 0.08 * torch.randn(60, 2, generator=generator)

# %%
# ``diagrams[k]`` holds the classes of dimension k. Its ``points`` are births and deaths, (number of classes, 2), with ∞
# for a class that never dies; ``birth_simplices`` and ``death_simplices`` are the simplices that create and fill it.

diagrams = vr_persistence(cloud, p=2.0, max_dim=1)
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

end = 1.1 * max(diagram.points[diagram.points.isfinite()].max().item() for diagram in diagrams)
height = 0
for diagram, colour in zip(diagrams, ("#0072b2", "#e69f00"), strict=True):
    births, deaths = diagram.points.T
    right.hlines(
        range(height, height + len(diagram)), births, deaths.clamp(max=end), color=colour, linewidth=1.5,
        label=f"dimension {diagram.dim}: {('components', 'loops')[diagram.dim]}",
    )  # fmt: skip
    height += len(diagram)
right.plot(end, len(diagrams[0]) - 1, ">", color="#0072b2", clip_on=False)  # one component lives for ever
right.set(xlabel="length ε", yticks=[], xlim=(0, end))
right.legend(frameon=False, loc="lower right")
right.spines[["top", "right", "left"]].set_visible(False)
plt.show()
