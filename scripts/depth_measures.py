"""The MiDaS loss (arXiv:1907.01341) and the figures by which the bundled model is judged."""

from __future__ import annotations

import numpy as np
import torch

TRIM = (
    0.95  # the paper drops the worst fifth because its labels are noisy; ours are exact, and thin things live there
)
FARTHEST = 80.0  # metres; beyond lies what the usual benchmarks mask as well
RATIO = 0.25  # of the logarithm of depth: errors much larger than this weigh little more


def plain_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Error and gradient error against inverse depth from its 2nd (0) to its 95th percentile (1); N×h×w each.

    It rewards a guess that is only slightly better than none, which the invariant loss does not: there a weak
    prediction is stretched to full contrast first. So it teaches from the first step, and it fixes the output's scale.
    """
    low, high = (value[..., None] for value in quantiles(target.flatten(1)[:, ::5], 0.02, 0.95))
    residual = prediction - ((target - low) / (high - low).clamp(min=1e-3)).clamp(0, 1.5)
    return residual.abs().mean() + 0.5 * gradient_error(residual)


def midas_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Scale- and shift-invariant trimmed error plus gradient matching; N×h×w each."""
    residual = standardised(prediction) - standardised(target)
    error = residual.abs().flatten(1)
    [most] = quantiles(error.detach()[:, ::7], TRIM)
    return torch.minimum(error, most).mean() + 0.5 * gradient_error(residual)


def ratio_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How far the fitted depth is from the true one, as a ratio: what δ1 counts, made smooth; N×h×w each.

    Scale and shift are fitted as `judge` fits them. In inverse depth alone, all that is far away weighs next to
    nothing. Below the scene's farthest inverse depth the logarithm goes on as a straight line.
    """
    value, truth = prediction.flatten(1), target.flatten(1)
    valid = (truth >= 1 / FARTHEST).float()
    count = valid.sum(1, keepdim=True).clamp(min=1)
    middle, level = ((valid * x).sum(1, keepdim=True) / count for x in (value, truth))
    away = valid * (value - middle)
    scale = (away * (truth - level)).sum(1, keepdim=True) / (away.square().sum(1, keepdim=True) + 1e-4 * count)
    fitted = level + scale.clamp(min=0) * (value - middle)
    lowest = torch.where(valid > 0, truth, torch.inf).amin(1, keepdim=True).clamp(1 / FARTHEST, 1e2)
    bent = torch.where(fitted > lowest, fitted.clamp(min=lowest).log(), lowest.log() + fitted / lowest - 1)
    error = (bent - truth.clamp(min=1 / FARTHEST).log()).abs()
    return (valid * torch.log1p(error / RATIO)).sum(1).div(count[:, 0]).mean() * RATIO


def quantiles(rows: torch.Tensor, *shares: float) -> list[torch.Tensor]:
    """Of each row, N×1 each, as `torch.quantile` has them, with one sorting, and such that they can be compiled."""
    ordered = rows.sort(dim=1).values
    places = [share * (rows.shape[1] - 1) for share in shares]
    below = [min(int(place), rows.shape[1] - 2) for place in places]
    return [torch.lerp(ordered[:, k : k + 1], ordered[:, k + 1 : k + 2], place - k)
            for place, k in zip(places, below, strict=True)]


def standardised(inverse: torch.Tensor) -> torch.Tensor:
    """Shifted by the median and divided by the mean distance from it, picture by picture."""
    flat = inverse.flatten(1)
    middle = flat[:, ::3].median(dim=1, keepdim=True).values
    spread = (flat - middle).abs().mean(dim=1, keepdim=True)
    return ((flat - middle) / spread.clamp(min=1e-3)).view_as(inverse)


def gradient_error(residual: torch.Tensor, scales: int = 4) -> torch.Tensor:
    """Mean gradient of the residual at four scales: edges must lie where they are."""
    total = residual.new_zeros(())
    for scale in range(scales):
        part = residual[:, :: 1 << scale, :: 1 << scale]
        across = (part[:, :, 1:] - part[:, :, :-1]).abs().clamp(max=4.0).mean()
        down = (part[:, 1:] - part[:, :-1]).abs().clamp(max=4.0).mean()
        total = total + across + down
    return total / 2


def judged(depth: np.ndarray) -> np.ndarray:
    """Which pixels count: neither sky nor beyond 80 m."""
    return (depth > 0) & (depth <= FARTHEST)


def judge(prediction: np.ndarray, depth: np.ndarray) -> tuple[float, float]:
    """δ1 and Spearman's rank correlation of a prediction (H×W, larger is nearer) with depth in metres (0 = sky).

    Pixels of sky or beyond 80 m are left out, as benchmarks do. Scale and shift are the least-squares fit in inverse
    depth over the rest; the fitted depth is limited to the range of the scene's true depth before it is compared.
    """
    valid = judged(depth)
    truth, value = depth[valid].astype(np.float64), prediction[valid].astype(np.float64)
    (scale, shift), *_ = np.linalg.lstsq(np.stack([value, np.ones_like(value)], 1), 1 / truth, rcond=None)
    fitted = 1 / np.clip(scale * value + shift, 1 / truth.max(), 1 / truth.min())
    delta1 = np.mean(np.maximum(fitted / truth, truth / fitted) < 1.25)
    return float(delta1), _spearman(value, 1 / truth)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; 0 when one of them is constant and ranks nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing their mean rank."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[where]
