"""Maximum-likelihood fit of Dirichlet distributions (Minka, *Estimating a Dirichlet distribution*, 2000)."""

from __future__ import annotations

import numpy as np
from scipy.special import polygamma, psi

#: Bounds of the concentration Σα. Vectors that are all equal have no finite maximum: the likelihood grows with Σα.
CONCENTRATION_RANGE = (1e-6, 1e8)
#: Steps end once no Σα changes by more than this, relatively.
_TOLERANCE, _MOST_STEPS = 1e-9, 1000


def inverse_digamma(values: np.ndarray) -> np.ndarray:
    """Return x > 0 with ψ(x) = ``values``, float64 of any shape (Minka, appendix C: five Newton steps)."""
    values = np.asarray(values, dtype=np.float64)
    # np.where evaluates both branches everywhere: the clips keep the one not taken from overflowing.
    x = np.where(
        values >= -2.22,
        np.exp(np.clip(values, -2.22, 700)) + 0.5,
        -1 / (np.minimum(values, -2.22) - psi(1)),
    )
    for _ in range(5):
        x = x - (psi(x) - values) / polygamma(1, x)
    return x


def fit_dirichlet(mean_log_p: np.ndarray) -> np.ndarray:
    """Maximum-likelihood parameters α of Dirichlet distributions.

    Minka's fixed point α ← ψ⁻¹(ψ(Σα) + mean log p) depends on the old α through Σα alone. Its limit is therefore the
    root of one scalar equation per distribution, found here by Newton's method on log Σα in a few steps, where the
    plain iteration can take thousands.

    Parameters
    ----------
    mean_log_p
        (…, k) the mean over samples of log p, the distributions' sufficient statistic; finite and k ≥ 2.

    Returns
    -------
    numpy.ndarray
        (…, k) float64. Where the likelihood has no maximum (one sample, or all alike), the best α with
        Σα = ``CONCENTRATION_RANGE[1]``.

    Raises
    ------
    ValueError
        If ``mean_log_p`` is not finite or k < 2.
    """
    mean_log_p = np.asarray(mean_log_p, dtype=np.float64)
    if mean_log_p.ndim == 0 or mean_log_p.shape[-1] < 2:
        raise ValueError(f"mean_log_p: got shape {mean_log_p.shape}; accepted is (…, k) with k ≥ 2")
    if not np.isfinite(mean_log_p).all():
        raise ValueError("mean_log_p: got values that are not finite")
    lowest, highest = np.log(CONCENTRATION_RANGE)
    log_sum = np.full((*mean_log_p.shape[:-1], 1), np.log(mean_log_p.shape[-1]))
    for _ in range(_MOST_STEPS):
        total = np.exp(log_sum)
        alpha = inverse_digamma(psi(total) + mean_log_p)
        new_total = alpha.sum(axis=-1, keepdims=True)
        gap = np.log(new_total) - log_sum
        slope = polygamma(1, total) * (1 / polygamma(1, alpha)).sum(axis=-1, keepdims=True) * total / new_total - 1
        # Newton's step is taken where the slope has the sign it has at the root, else the safe fixed-point step.
        step = np.where(slope < 0, -gap / np.minimum(slope, -1e-300), gap)
        new_log_sum = np.clip(log_sum + np.clip(step, -2, 2), lowest, highest)
        change = np.abs(new_log_sum - log_sum).max()
        log_sum = new_log_sum
        if change <= _TOLERANCE:
            break
    return inverse_digamma(psi(np.exp(log_sum)) + mean_log_p)
