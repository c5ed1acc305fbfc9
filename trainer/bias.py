"""Staleness bias of the surrogate gradient, without the noise that a plain norm counts as bias.

K shards of independent prompts give K vectors of each kind. Every quadratic of their means, be it
‖b‖², ⟨b, H⟩ or a cosine, uses pairs of *different* shards only, because within a shard sampling
noise correlates with itself. Such an estimate is unbiased and may come out negative; it is reported
as it is (theory.md §4, "Gradient bias"). All of it follows from the K×K matrices of inner products,
so vectors may be replaced by sketches that keep inner products.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor

from storage.records import BiasProbe

LEAST_SHARDS = 3
INTERVAL = 0.95
SKETCH_ROWS = 2**16

Gram = Mapping[tuple[str, str], NDArray[np.float64]]
"""Inner products by kinds of vector: ``gram[x, y][i, j]`` = ⟨x_i, y_j⟩ of shards i and j."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its jackknife standard error and two-sided 95 % interval, all signed."""

    value: float
    stderr: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """What K shards say about b = x − f, the bias of the gradients ``x`` against fresh ones ``f``.

    ``squared`` estimates ‖b‖², ``norm_squared`` ‖H‖² of the fresh gradient, ``harmful`` ⟨b, H⟩: the
    part along H, negative where the bias undoes progress; ``cosine`` that of E[x] and H.
    """

    squared: Interval
    norm_squared: Interval
    harmful: Interval
    cosine: Interval
    shards: int

    @property
    def relative(self) -> float:
        """√(max(0, ‖b‖²)/‖H‖²), for display; NaN when ‖H‖² is not positive."""
        if self.norm_squared.value <= 0:
            return math.nan
        return math.sqrt(max(0.0, self.squared.value) / self.norm_squared.value)


def gram_of(vectors: Mapping[str, Tensor]) -> Gram:
    """Return the inner products of shard vectors [K, d] of every pair of kinds, in float64."""
    double = {kind: rows.double() for kind, rows in vectors.items()}
    return {(x, y): (double[x] @ double[y].T).cpu().numpy() for x in double for y in double}


def difference(gram: Gram, minuend: str, subtrahend: str, name: str) -> Gram:
    """Return the inner products extended by ``name`` = minuend − subtrahend, shard by shard."""
    kinds = {x for x, _ in gram}
    extended = dict(gram)
    for kind in kinds:
        extended[name, kind] = gram[minuend, kind] - gram[subtrahend, kind]
        extended[kind, name] = extended[name, kind].T
    extended[name, name] = extended[name, minuend] - extended[name, subtrahend]
    return extended


def cross_fitted(products: NDArray[np.float64]) -> float:
    """Return Σ_{i≠j} ⟨x_i, y_j⟩ / (K(K−1)), unbiased for ⟨E x, E y⟩ of independent shards."""
    shards = len(products)
    return float((products.sum() - np.trace(products)) / (shards * (shards - 1)))


def naive(products: NDArray[np.float64]) -> float:
    """Return ⟨mean x, mean y⟩, which sampling noise inflates: for comparison only."""
    return float(products.mean())


def jackknifed(
    gram: Gram, statistic: Callable[[Gram], float], confidence: float = INTERVAL
) -> Interval:
    """Return a statistic of the shards with its jackknife interval at t_{K−1}.

    Args:
        gram: inner products of K ≥ 3 shards.
        statistic: a function of the inner products; it is asked again without each shard in turn.
        confidence: of the two-sided interval.

    Raises:
        ValueError: there are fewer than 3 shards.
    """
    shards = len(next(iter(gram.values())))
    if shards < LEAST_SHARDS:
        raise ValueError(f"shards: {shards} is not allowed; allowed: at least {LEAST_SHARDS}")
    value = statistic(gram)
    left_out = np.array([statistic(_without(gram, k)) for k in range(shards)])
    stderr = math.sqrt((shards - 1) / shards * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(stdtrit(shards - 1, (1 + confidence) / 2)) * stderr
    return Interval(value=value, stderr=stderr, low=value - half, high=value + half)


def _without(gram: Gram, shard: int) -> Gram:
    kept = np.delete(np.arange(len(next(iter(gram.values())))), shard)
    return {pair: products[kept[:, None], kept] for pair, products in gram.items()}


def bias_of(gram: Gram, kind: str, fresh: str = "fresh") -> Bias:
    """Return the bias of the gradients ``kind`` against the ``fresh`` ones."""
    full = difference(gram, kind, fresh, "bias")

    def inner(x: str, y: str) -> Interval:
        return jackknifed({(x, y): full[x, y]}, lambda g: cross_fitted(g[x, y]))

    def cosine(g: Gram) -> float:
        scale = cross_fitted(g[kind, kind]) * cross_fitted(g[fresh, fresh])
        return cross_fitted(g[kind, fresh]) / math.sqrt(scale) if scale > 0 else math.nan

    compared = {pair: full[pair] for pair in ((kind, kind), (fresh, fresh), (kind, fresh))}
    return Bias(
        squared=inner("bias", "bias"),
        norm_squared=inner(fresh, fresh),
        harmful=inner("bias", fresh),
        cosine=jackknifed(compared, cosine),
        shards=len(full[fresh, fresh]),
    )


def probe_of(bias: Bias, **rest: Any) -> BiasProbe:
    """Return a bias as a record of the archive; ``rest`` are its other fields."""
    return BiasProbe(
        shards=bias.shards,
        bias_squared=bias.squared.value,
        bias_squared_stderr=bias.squared.stderr,
        norm_squared=bias.norm_squared.value,
        norm_squared_stderr=bias.norm_squared.stderr,
        harmful=bias.harmful.value,
        harmful_stderr=bias.harmful.stderr,
        cosine=bias.cosine.value,
        cosine_stderr=bias.cosine.stderr,
        **rest,
    )


class CountSketch:
    """A random map to few dimensions that keeps inner products in expectation (CountSketch).

    Every coordinate is added with a random sign to one of ``rows`` places. For fixed x and y,
    ⟨Sx, Sy⟩ is unbiased with variance at most (‖x‖²‖y‖² + ⟨x, y⟩²)/rows (Charikar, Chen and
    Farach-Colton 2002): at 2¹⁶ rows a standard error of 0.4 % of ‖x‖‖y‖ for orthogonal vectors and
    0.55 % of ‖x‖² for a squared norm. Vectors of up to 4·rows dimensions are kept whole.
    """

    def __init__(
        self,
        dimension: int,
        device: torch.device,
        rows: int = SKETCH_ROWS,
        seed: int = 0,
    ) -> None:
        """Draw the map; the same dimension, rows and seed give the same map."""
        self.exact = dimension <= 4 * rows
        self.rows = dimension if self.exact else rows
        if self.exact:
            return
        generator = torch.Generator().manual_seed(seed)
        self._place = torch.randint(rows, (dimension,), generator=generator).to(device)
        signs = torch.randint(2, (dimension,), generator=generator, dtype=torch.int8)
        self._sign = (2 * signs - 1).to(device)

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the sketch [rows] of a vector, or a copy of it when the map is exact."""
        if self.exact:
            return vector.clone()
        return vector.new_zeros(self.rows).index_add_(0, self._place, vector * self._sign)
