"""
A one-class model of one's own images
=====================================

The paper's way (Algorithm 4), on a folder of image files: one autoencoder is trained on all images, unlabelled; a
one-class model is then made of a few images of the class of interest, and scores new ones by how many of its stored
codes are near (Eq. 6). The images are drawn here: discs, crosses and stripes in random colours and places.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw

from corel import BallCount, train_autoencoder

generator = np.random.default_rng(0)
#: What each kind of figure is made of: shapes and their left, upper, right and lower edge.
SHAPES = {
    "disc": [("ellipse", 14, 8, 50, 40)],
    "cross": [("rectangle", 27, 4, 37, 44), ("rectangle", 10, 19, 54, 29)],
    "stripes": [("rectangle", left, -10, left + 6, 60) for left in range(-10, 70, 14)],
}


def drawn(kind: str) -> Image.Image:
    """Return an image of 64 × 48 pixels with a figure of this kind."""
    colours = [tuple(generator.integers(*bounds, 3).tolist()) for bounds in ((20, 80), (150, 256))]
    image = Image.new("RGB", (64, 48), colours[0])
    x, y = generator.integers(-4, 5, 2).tolist()  # how far from the middle
    for shape in SHAPES[kind]:
        box = tuple(edge + shift for edge, shift in zip(shape[1:], (x, y, x, y), strict=True))
        getattr(ImageDraw.Draw(image), shape[0])(box, fill=colours[1])
    return image


# %%
# A folder as one may have it, ``FOLDER/CLASS/*.png``. Use your own in its place.

folder = tempfile.TemporaryDirectory()
for kind in SHAPES:
    (Path(folder.name) / kind).mkdir()
    for number in range(200):
        drawn(kind).save(Path(folder.name) / kind / f"{number:03}.png")

# %%
# The autoencoder takes RGB images of 32 × 32 pixels, channels first: (n, 3, 32, 32) uint8.


def load(path: Path) -> np.ndarray:
    """Return an image file as (3, 32, 32) uint8."""
    return np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)


files = sorted(Path(folder.name).glob("*/*.png"))
images = np.stack([load(path) for path in files])
kinds = np.array([path.parent.name for path in files])
autoencoder, history = train_autoencoder(images, epochs=10, batch_size=50, device="cpu", progress=False)
with torch.inference_mode():
    codes = autoencoder.encoder(torch.from_numpy(images) / 255).numpy()  # (600, 160): 16 branches of 10

# %%
# The model: 60 discs. The other images, 140 discs among them, are new to it (the autoencoder has seen them, without
# labels).

discs = np.flatnonzero(kinds == "disc")[:60]
new = np.setdiff1d(np.arange(len(images)), discs)
model = BallCount(radius=2.0, branches=16).fit(codes[discs])
scores = model.score_samples(codes[new])

figure, axes = plt.subplots(2, 10, figsize=(10, 2.6), layout="constrained")
order = new[np.argsort(-scores, kind="stable")]
for row, chosen, title in zip(axes, (order[:10], order[-10:]), ("most like a disc", "least like a disc"), strict=True):
    for axis, index in zip(row, chosen, strict=True):
        axis.imshow(images[index].transpose(1, 2, 0))
        axis.axis("off")
    row[0].set_title(title, loc="left", fontsize=10)
plt.show()

folder.cleanup()
