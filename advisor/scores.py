"""How advice is scored against the truth of cells. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

INTERVAL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """k of n, with the exact (Clopper–Pearson) 95 % interval of the probability behind it."""

    k: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """K / n, or None of nothing."""
        return self.k / self.n if self.n else None


def share(k: int, n: int) -> Share:
    """Return k of n with its exact interval; of nothing it is 0…1."""
    if n == 0:
        return Share(k=0, n=0, low=0.0, high=1.0)
    from scipy.stats import binomtest  # takes a second to import, and few commands score

    found = binomtest(k, n).proportion_ci(confidence_level=INTERVAL, method="exact")
    return Share(k=k, n=n, low=float(found.low), high=float(found.high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Advised:
    """What was advised for a cell, and the truth; a rate that is None was not given."""

    cell: str
    workload: str
    true_rate: float | None
    rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Closeness:
    """How close advised rates lie to the truth.

    ``median`` and ``worst`` are of true / advised (a missing advice counts as infinite),
    ``above`` counts advice above the truth, ``spearman`` is the rank correlation, ``mean_log2`` the
    mean |log2 (true / advised)| of what was given.
    """

    cells: int
    missing: int
    median: float
    worst: float
    above: Share
    spearman: float | None
    mean_log2: float | None


def closeness(advised: Sequence[Advised]) -> Closeness:
    """Score rates against the truth of their cells; cells without a true rate are left out."""
    known = [a for a in advised if a.true_rate is not None]
    given = [(a.true_rate or 0.0, a.rate) for a in known if a.rate is not None]
    ratios = [true / rate for true, rate in given] + [math.inf] * (len(known) - len(given))
    correlation = None
    if len({t for t, _ in given}) > 1 and len({r for _, r in given}) > 1:
        from scipy.stats import spearmanr

        correlation = float(spearmanr(*zip(*given, strict=True)).statistic)
    return Closeness(
        cells=len(known),
        missing=len(known) - len(given),
        median=statistics.median(ratios) if ratios else math.nan,
        worst=max(ratios, default=math.nan),
        above=share(sum(ratio < 1 for ratio in ratios), len(ratios)),
        spearman=correlation,
        mean_log2=statistics.fmean(abs(math.log2(t / r)) for t, r in given) if given else None,
    )


def best_constant(true_rates: Sequence[float]) -> float:
    """Return the constant with the smallest mean |log2| to the truths: their median in logs."""
    return math.exp(statistics.median(math.log(rate) for rate in true_rates))


def regret(best: float, got: float, start: float) -> float | None:
    """Return (best − got) / (best − start): 0 is as good as the best, 1 learned nothing."""
    return (best - got) / (best - start) if best > start else None
