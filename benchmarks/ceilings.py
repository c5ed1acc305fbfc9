"""What a device can do, measured, and which share of it a learner step uses.

The ceilings are a large matrix product, by precision, and a large copy, which counts bytes read and
bytes written. A step's operations are those of its matrix products, 2 for each weight and token
read, and twice that again for the gradient; its bytes are the fewest that it can move: the weights
once for each token of a completion and for scoring, twice for the gradient, and seven vectors for
AdamW, all fp32. What a step moves besides, for attention or for measuring, is not counted.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

TIMES = 10
LARGE = {"cuda": (8192, 2**30), "cpu": (1024, 2**26)}
"""Rows of the matrices, and bytes of the copy: many times what a cache holds."""
FP32 = 4


@functools.cache
def ceilings(device: str) -> Mapping[str, float]:
    """Return TFLOP/s of a matrix product in fp32, on CUDA in tf32 and bf16, and GB/s of a copy."""
    rows, size = LARGE[device]
    found = {}
    for name, dtype, allowed in (
        ("fp32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "highest"),
    ):
        if name != "fp32" and device != "cuda":
            continue
        left, right = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
        with _precision(allowed):
            seconds = _seconds(functools.partial(torch.mm, left, right), device)
        found[f"{name}_tflops"] = 2 * rows**3 / seconds / 1e12
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _seconds(functools.partial(target.copy_, source), device)
    found["copy_gbps"] = 2 * size / seconds / 1e9
    return {name: round(each, 3) for name, each in found.items()}


@contextmanager
def _precision(allowed: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _seconds(work: Callable[[], object], device: str) -> float:
    """Return the median seconds of a call, after three that do not count."""
    taken = []
    for _ in range(3 + TIMES):
        begun = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[3:])


def shares(
    ceiling: Mapping[str, float], parameters: int, scored: int, tokens: int, seconds: float
) -> dict[str, object]:
    """Return which share of the fp32 and copy ceilings a step reaches, and the ceilings.

    Args:
        ceiling: what ``ceilings`` returned.
        parameters: weights of the model.
        scored: tokens that are read when the batch is scored, as many as when it is sampled.
        tokens: tokens of a completion: how often sampling reads the weights.
        seconds: of the step.
    """
    operations = (2 + 6) * parameters * scored
    moved = FP32 * parameters * (tokens + 1 + 2 + 7)
    return {
        **ceiling,
        "matmul_share": round(operations / seconds / 1e12 / ceiling["fp32_tflops"], 4),
        "copy_share": round(moved / seconds / 1e9 / ceiling["copy_gbps"], 4),
    }
