"""Work that is recorded on a GPU once and replayed from then on.

Most of a small model's time on a GPU goes into telling it, kernel by kernel, what to do. A CUDA
graph keeps what was told; replaying it is one call. It repeats the same kernels on the same
memory, so a recording serves inputs of one shape, and weights that change in place.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MOST_RECORDINGS = 8
"""Of one function; every recording keeps the memory of one run of it."""

Work = Callable[..., Sequence[Tensor]]
Recorder = Callable[[Work, Sequence[Tensor]], Work]
"""Records a function as it runs on tensors of these shapes; the result may be called on others."""


class Captured:
    """A function of tensors that reads no value on the host, replayed where its shapes repeat.

    Shapes are met twice before they are recorded: the first call runs plainly, which also lets
    libraries make ready what they could not while recording. What cannot be recorded runs plainly
    ever after, and that is logged. Everything but the arguments must stay where it is in memory.
    """

    def __init__(self, work: Work, record: Recorder) -> None:
        """Wrap ``work``; the results of a call are its caller's own."""
        self._work, self._record = work, record
        self._recordings: dict[tuple[torch.Size, ...], Work] = {}
        self._met: set[tuple[torch.Size, ...]] = set()
        self._refused = False
        self.replayed = False
        """Whether the last call was a replay."""

    def __call__(self, *given: Tensor) -> Sequence[Tensor]:
        """Return what the function returns for these."""
        recording = self._recording(given)
        self.replayed = recording is not None
        return self._work(*given) if recording is None else recording(*given)

    def _recording(self, given: Sequence[Tensor]) -> Work | None:
        shapes = tuple(each.shape for each in given)
        if shapes not in self._recordings:
            full = len(self._recordings) == MOST_RECORDINGS
            if shapes not in self._met or self._refused or full:
                self._met.add(shapes)
                return None
            try:
                self._recordings[shapes] = self._record(self._work, given)
            except RuntimeError as error:
                self._refused = True
                logger.warning("not recorded as a CUDA graph, and run plainly: %s", error)
                return None
        return self._recordings[shapes]


def cuda_graphs(chance: torch.Generator | None = None) -> Recorder:
    """Return what records CUDA graphs of functions that draw from ``chance``.

    Every replay draws on where the generator stands, as the function itself would.
    """
    pool = torch.cuda.graph_pool_handle()  # recordings take turns, so they may share memory

    def record(work: Work, given: Sequence[Tensor]) -> Work:
        graph = torch.cuda.CUDAGraph()
        kept = None if chance is None else chance.clone_state()
        if chance is not None:
            graph.register_generator_state(chance)
        inputs = [each.clone() for each in given]
        try:
            with torch.cuda.graph(graph, pool=pool):
                outputs = work(*inputs)
        except RuntimeError:
            if chance is not None and kept is not None:  # as one that never was recorded
                chance.graphsafe_set_state(kept)
            raise
        return replaying(inputs, graph.replay, outputs)

    return record


def replaying(
    inputs: Sequence[Tensor], replay: Callable[[], None], outputs: Sequence[Tensor]
) -> Work:
    """Return a function that puts its arguments into ``inputs`` and copies ``outputs`` out."""

    def replayed(*given: Tensor) -> Sequence[Tensor]:
        for mine, new in zip(inputs, given, strict=True):
            mine.copy_(new)
        replay()
        return [each.clone() for each in outputs]

    return replayed
