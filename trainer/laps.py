"""How long the parts of a learner step take on the device that does them."""

import time

import torch

Moment = float | torch.cuda.Event
"""Seconds of the host's clock, or an event of the device's."""


def moment(device: torch.device) -> Moment:
    """Return when the device is done with all that it was told so far.

    A GPU lags behind the processor: it marks the moment itself, and nobody waits for it.
    """
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(earlier: Moment, later: Moment) -> float:
    """Return the seconds between two moments that have both come."""
    if isinstance(earlier, torch.cuda.Event) and isinstance(later, torch.cuda.Event):
        return float(earlier.elapsed_time(later)) / 1000
    if isinstance(earlier, torch.cuda.Event) or isinstance(later, torch.cuda.Event):
        raise TypeError("the moments are of two clocks")
    return later - earlier
