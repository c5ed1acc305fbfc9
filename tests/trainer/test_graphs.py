"""What runs recorded on a GPU: the recording's bookkeeping, and the whole path, here on a CPU."""

import pytest
import torch

from trainer.decoding import decode, drawn
from trainer.graphs import Captured, cuda_graphs, replaying
from trainer.rollout import sample_rollouts

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def record(work, given):
    """Do the work again and again on inputs that stay where they are, as a CUDA graph does."""
    inputs, outputs = [each.clone() for each in given], []

    def replay():
        outputs[:] = work(*inputs)

    return replaying(inputs, replay, outputs)


def doubled(values):
    return [values * 2]


def test_the_second_call_of_a_shape_is_recorded_and_every_result_is_ones_own():
    captured = Captured(doubled, record)
    found, replayed = [], []
    for start in (0.0, 10.0, 20.0):
        [result] = captured(torch.arange(start, start + 3))
        found.append(result)
        replayed.append(captured.replayed)
    assert [each.tolist() for each in found] == [[0, 2, 4], [20, 22, 24], [40, 42, 44]]
    assert replayed == [False, True, True]


def test_every_shape_has_a_recording_of_its_own():
    captured = Captured(doubled, record)
    for length in (2, 3, 2, 3, 2):
        [result] = captured(torch.ones(length))
        assert result.tolist() == [2.0] * length
    assert len(captured._recordings) == 2


def test_shapes_beyond_the_most_are_run_plainly():
    captured = Captured(doubled, record)
    for length in [*range(1, 11), *range(1, 11)]:
        assert captured(torch.ones(length))[0].shape == (length,)
    assert len(captured._recordings) == 8
    assert not captured.replayed
    captured(torch.ones(3))
    assert captured.replayed


def test_what_cannot_be_recorded_runs_plainly_and_says_so_once(caplog):
    def refuse(work, given):
        raise RuntimeError("operation not permitted when stream is capturing")

    captured = Captured(doubled, refuse)
    for _ in range(4):
        assert captured(torch.ones(2))[0].tolist() == [2.0, 2.0]
        assert not captured.replayed
    [line] = caplog.messages
    assert line.startswith("not recorded as a CUDA graph, and run plainly: operation not permitted")


def test_the_paths_of_a_gpu_learn_what_the_plain_ones_do(learner):
    """Without an end both draw the most tokens, and so the same random numbers."""
    plain, recorded = (learner(learning_rate=1e-3, max_staleness=1, prompts=4) for _ in range(2))
    for run in (plain, recorded):
        run.tokenizer.eos_token = "<unk>"  # a sign that a warm-started policy does not write
        run.evaluate(0, 8)
    recorded.captured = Captured(recorded._continued, record)
    recorded.backward.captured = Captured(recorded.backward._unpadded, record)
    for step in range(6):
        expected, found = plain.learner_step(step), recorded.learner_step(step)
        assert found.extra == {
            "decoding_replayed": float(step > 0),
            "learning_replayed": float(step > 0),
        }
        for name in ("loss", "grad_norm", "approx_kl", "cycle_drift", "entropy", "tokens", "m2"):
            assert getattr(found, name) == getattr(expected, name), name
    assert torch.equal(plain.weights.vector, recorded.weights.vector)
    assert plain._sampled.batch.completions == recorded._sampled.batch.completions


def test_the_clip_bias_is_the_same_by_way_of_every_sequence(learner):
    run = learner(max_staleness=3, updates_per_batch=2, learning_rate=2e-3)
    run.evaluate(0, 8)
    for step in range(7):
        run.learner_step(step)
    batch, stream = run._sampled.batch, run.meter.stream
    scored, _ = run.backward(batch, run._proximal_B_T)
    given = (batch, run.meter._taken(scored), run.objective.divisors(batch.mask_B_T))
    expected = stream._removed(*given)
    stream.captured = Captured(stream._through_all, record)
    for _ in range(2):
        torch.testing.assert_close(stream._removed(*given), expected, rtol=1e-4, atol=1e-6)
    assert stream.captured.replayed
    assert expected.norm() > 0


@pytest.mark.parametrize("look_every", [3, None])
def test_looking_seldom_or_never_draws_the_same_completions_and_more_after_their_end(
    learner, look_every
):
    run = learner(prompts=4)

    def rollouts(unpadded=None):
        chance = torch.Generator().manual_seed(5)
        prompts = ["12+34=", "56+78="]
        return sample_rollouts(
            run.policy, run.tokenizer, run.task, prompts, 4, chance, unpadded=unpadded
        )

    def blind(ids_P_L):
        return decode(
            run.policy,
            ids_P_L,
            None,
            group_size=4,
            max_new_tokens=12,
            pad=run.tokenizer.pad_token_id,
            end=run.tokenizer.eos_token_id,
            generator=torch.Generator().manual_seed(5),
            look_every=look_every,
        )

    object.__setattr__(run.task, "max_new_tokens", 12)
    plain, found = rollouts(), rollouts(blind)
    assert plain.mask_B_T.shape[1] < 12  # all have ended, and the plain path stopped there
    assert found.completions == plain.completions
    for name in ("completion_ids_B_T", "mask_B_T", "behavior_log_probs_B_T"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name


def test_an_id_is_drawn_as_multinomial_draws_it():
    for seed, (rows, ids) in enumerate([(128, 16), (7, 5000), (1, 3)]):
        log_prob = (3 * torch.randn(rows, ids)).log_softmax(dim=1)
        mine, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
        for _ in range(5):
            expected = torch.multinomial(log_prob.exp(), 1, generator=theirs)
            assert torch.equal(drawn(log_prob, mine), expected)
        assert torch.equal(mine.get_state(), theirs.get_state())


@needs_cuda
def test_a_cuda_graph_draws_the_numbers_that_come_next():
    device = torch.device("cuda")
    plain, recorded = (torch.Generator(device).manual_seed(3) for _ in range(2))

    def uniform(like, chance):
        return [torch.rand(like.shape, generator=chance, device=device) + like]

    captured = Captured(lambda like: uniform(like, recorded), cuda_graphs(recorded))
    for call in range(4):
        like = torch.full((5,), float(call), device=device)
        assert torch.equal(captured(like)[0], uniform(like, plain)[0])
    assert captured.replayed


@needs_cuda
def test_a_function_that_waits_for_the_device_is_not_recorded_and_its_chance_goes_on(caplog):
    device = torch.device("cuda")
    plain, refused = (torch.Generator(device).manual_seed(3) for _ in range(2))

    def waits(like, chance):
        found = torch.rand(like.shape, generator=chance, device=device)
        return [found * float(found.sum())]

    captured = Captured(lambda like: waits(like, refused), cuda_graphs(refused))
    like = torch.zeros(5, device=device)
    for _ in range(4):
        assert torch.equal(captured(like)[0], waits(like, plain)[0])
    assert not captured.replayed
    assert len(caplog.messages) == 1


@needs_cuda
def test_on_a_gpu_recorded_steps_learn_what_plain_ones_do(learner):
    recorded, plain = (
        learner(device="cuda", learning_rate=1e-3, max_staleness=1) for _ in range(2)
    )
    plain.captured = plain.backward.captured = plain.meter.stream.captured = None
    for run in (recorded, plain):
        run.evaluate(0, 64)
    for step in range(8):
        found, expected = recorded.learner_step(step), plain.learner_step(step)
        assert recorded._sampled.batch.completions == plain._sampled.batch.completions
        for name in ("loss", "grad_norm", "approx_kl", "entropy"):
            assert getattr(found, name) == pytest.approx(
                getattr(expected, name), rel=1e-3, abs=1e-6
            )
    assert found.extra == {"decoding_replayed": 1.0, "learning_replayed": 1.0}
    assert expected.extra == {}
