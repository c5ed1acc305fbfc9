"""How often a learner step waits for its device: docs/speed.md gives every place and its number.

On a CPU nothing waits, so what would is counted: every reading of a tensor's value by Python, and
every operation whose result's size or choice depends on values. What ``on_host`` has brought over
is on the host; so is whatever is made of it alone.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from trainer import clip_bias, meter, rollout
from trainer.transfer import on_host

READINGS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}
WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.multinomial.default,  # it asks whether its input is valid
}
ALWAYS = {"sample_prompts": 1, "on_host": 2}
"""The prompts as text, the completions as text, and the numbers of the step."""


def tensors_in(*values):
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


class Waiting:
    """Counts what would wait for a device, by the function of the trainer in which it happens."""

    def __init__(self):
        self.found = Counter()
        self._on_host = WeakIdKeyDictionary()
        self._modes = (_Operations(self), _Readings(self))

    def __enter__(self):
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error):
        for mode in reversed(self._modes):
            mode.__exit__(*error)

    def brought(self, found):
        host = on_host(found)
        for each in host.values():
            self._on_host[each] = True
        return host

    def is_on_host(self, *values):
        given = tensors_in(*values)
        return bool(given) and all(each in self._on_host for each in given)

    def made(self, result):
        for each in tensors_in(result):
            self._on_host[each] = True

    def note(self):
        frame = sys._getframe(1)
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if "trainer" in path.parts and "tests" not in path.parts:
                self.found[frame.f_code.co_name] += 1
                return
            frame = frame.f_back


class _Operations(TorchDispatchMode):
    def __init__(self, waiting):
        super().__init__()
        self.waiting = waiting

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if self.waiting.is_on_host(args, kwargs):
            self.waiting.made(result)
        elif func in WAITING or _indexed_by_truth(func, args):
            self.waiting.note()
        return result


class _Readings(TorchFunctionMode):
    def __init__(self, waiting):
        super().__init__()
        self.waiting = waiting

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in READINGS and not self.waiting.is_on_host(args):
            self.waiting.note()
        return result


def _indexed_by_truth(func, args):
    if func is not torch.ops.aten.index.Tensor:
        return False
    return any(each.dtype == torch.bool for each in tensors_in(args[1]))


@pytest.fixture
def waits(monkeypatch):
    """Count what one learner step waits for, leaving out AdamW's counter, a tensor of the host."""

    def count(run, step):
        waiting = Waiting()
        for module in (meter, rollout, clip_bias):
            monkeypatch.setattr(module, "on_host", waiting.brought)
        with waiting:
            run.learner_step(step)
        waiting.found.pop("_update", None)
        return dict(waiting.found)

    return count


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "decoupled", "updates_per_batch": 2, "kl_coefficient": 0.1},
        {"loss": "gspo", "schedule": "constant"},
    ],
    ids=["grpo", "decoupled", "gspo"],
)
def test_a_step_waits_for_the_prompts_the_completions_and_its_numbers(learner, waits, changes):
    run = learner(prompts=4, **changes)
    run.evaluate(0, 8)
    run.learner_step(0)
    run.learner_step(1)
    found = waits(run, 2)
    looks = found.pop("decode")  # after every token but the last, on a CPU alone
    assert 1 <= looks <= 2
    assert found == ALWAYS


def test_what_is_measured_now_and_then_waits_once_or_twice_more(learner, waits):
    run = learner(prompts=4, bias_every=1, kl_to_start_every=4)
    run.evaluate(0, 8)
    for step in range(3):
        run.learner_step(step)
    found = waits(run, 3)
    found.pop("decode")
    # Which rollouts are clipped, the inner products of the clip bias, the KL to the start; and
    # transformers, wherever it reads whole sequences, asks whether several are packed into one.
    assert found == ALWAYS | {"on_host": 3, "_removed": 1, "kl_from": 1, "_logits": 2}


@pytest.mark.parametrize(
    "reading",
    [
        lambda values: float(values[0]),
        lambda values: values[:3].tolist(),
        lambda values: values[values > 0],
        lambda values: torch.multinomial(values[:3].exp(), 1),
    ],
    ids=["float", "tolist", "index", "multinomial"],
)
def test_a_step_that_waits_in_one_more_place_is_noticed(learner, waits, monkeypatch, reading):
    run = learner(prompts=4, bias_every=0)
    run.evaluate(0, 8)
    measured = run.meter._drift.before_update

    def and_read(weights, *others):
        reading(weights)
        return measured(weights, *others)

    monkeypatch.setattr(run.meter._drift, "before_update", and_read)
    run.learner_step(0)
    found = waits(run, 1)
    found.pop("decode")
    assert found == ALWAYS | {"before_update": 1}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_step_waits_as_often_as_is_counted_on_a_cpu(learner, recwarn):
    run = learner(device="cuda", prompts=4)
    run.evaluate(0, 8)
    for step in range(6):  # recorded by then
        run.learner_step(step)
    recwarn.clear()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        run.learner_step(6)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waited = [each for each in recwarn if "synchronizing CUDA operation" in str(each.message)]
    assert len(waited) == sum(ALWAYS.values()), [(w.filename, w.lineno) for w in waited]
