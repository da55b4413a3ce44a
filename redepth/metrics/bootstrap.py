"""Statistics over a data set: win rates and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redepth.errors import InputError


def win_rate(before: Sequence[float], after: Sequence[float], *, lower_is_better: bool = True) -> float:
    """Return the share of images that improved; a tie is not a win.

    Raises:
        InputError: there are no images, ``before`` and ``after`` differ in length, or a value is not finite.
    """
    first, second = _paired(before, after)
    better = second < first if lower_is_better else second > first
    return float(better.double().mean())


@dataclass(frozen=True)
class Interval:
    """A relative change, or a difference of two relative changes, in percent, with its confidence interval.

    A negative change means that the mean fell; a negative difference, that it fell further.
    """

    change: float
    low: float
    high: float


def bootstrap_interval(
    before: Sequence[float],
    after: Sequence[float],
    *,
    generator: torch.Generator,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    r"""Return the relative change of the mean with its percentile bootstrap interval over images.

    .. math:: 100 \left( \overline{after} / \overline{before} - 1 \right) \; \%

    Images are drawn with replacement, each with both of its values, as for a paired comparison.

    Args:
        before: one value per image.
        after: the values of the same images afterwards.
        generator: a CPU generator; the same state gives the same interval.
        resamples: how many draws.
        level: of confidence, in (0, 1).

    Raises:
        InputError: as for `win_rate`, or the mean before is 0, so that a relative change is not defined.

    Source: Efron and Tibshirani, An introduction to the bootstrap, 1993, section 13.3.
    """
    first, second = _paired(before, after)
    means = _resampled_means(torch.stack([first, second], dim=1), generator, resamples)
    changes = 100 * (means[:, 1] / means[:, 0] - 1)
    return Interval(100 * (float(second.mean() / first.mean()) - 1), *_tails(changes, level))


def paired_difference(
    before: Sequence[float],
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    generator: torch.Generator,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Interval:
    r"""Return the difference of two relative changes with its percentile bootstrap interval over images.

    .. math:: 100 \, (\overline{ours} - \overline{theirs}) / \overline{before} \; \%

    Images are drawn with replacement, each with its three values: the difficulty of an image, which both
    changes share, cancels. The difference is below 0 where ``ours`` is the lower one.

    Args:
        before: one value per image; both changes are relative to their mean.
        ours: the same images after the one method.
        theirs: the same images after the other method.
        generator: as for `bootstrap_interval`, which has the source.
        resamples: how many draws.
        level: of confidence, in (0, 1).

    Raises:
        InputError: as for `bootstrap_interval`.
    """
    first, a = _paired(before, ours)
    _, b = _paired(before, theirs)
    means = _resampled_means(torch.stack([first, a, b], dim=1), generator, resamples)
    differences = 100 * (means[:, 1] - means[:, 2]) / means[:, 0]
    difference = 100 * float((a.mean() - b.mean()) / first.mean())
    return Interval(difference, *_tails(differences, level))


def _resampled_means(columns: Tensor, generator: torch.Generator, resamples: int) -> Tensor:
    """Return means over images drawn with replacement, (images, k) -> (resamples, k).

    Raises InputError if the mean of the first column, which changes are relative to, is 0 in a resample.
    """
    count = len(columns)
    # Chunks keep the memory bounded: thousands of images at once would need gigabytes.
    chunk = max(1, 2_000_000 // count)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    picks = (torch.randint(count, (size, count), generator=generator) for size in sizes)
    means = torch.cat([columns[pick].mean(dim=1) for pick in picks])
    if bool((means[:, 0] == 0).any()):
        raise InputError("the mean before is 0 in a resample: a change relative to it has no meaning")
    return means


def _tails(values: Tensor, level: float) -> tuple[float, float]:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.quantile(values, tails).tolist()
    return low, high


def _paired(before: Sequence[float], after: Sequence[float]) -> tuple[Tensor, Tensor]:
    first, second = (torch.as_tensor(values, dtype=torch.float64).flatten() for values in (before, after))
    if len(first) != len(second) or not len(first):
        raise InputError(f"{len(first)} values before and {len(second)} after: give both of each image")
    if not bool(torch.isfinite(first).all() & torch.isfinite(second).all()):
        raise InputError("a value before or after is not finite: leave images out that have no result")
    return first, second
