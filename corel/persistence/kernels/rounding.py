"""Constants of the definition of lengths in :mod:`corel.persistence.metric`, for all that computes lengths."""

from __future__ import annotations

import torch

#: For p = 2, by dtype: the smallest sum of squares that is used as it is, and the exponents a of the powers of two by
#: which coordinates are scaled where the sum is too large, and where it is too small.
EUCLIDEAN_RANGE = {torch.float32: (2.0**-100, -80, 100), torch.float64: (2.0**-900, -540, 600)}
