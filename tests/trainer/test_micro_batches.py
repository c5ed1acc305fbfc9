"""A batch in pieces, and activations computed again: the same gradient and rows in less memory."""

from dataclasses import asdict

import pytest
import torch
from own_things import own_learner, write_prompts

from storage.commandline import BadInput
from trainer.backward import Backward, tensors_of
from trainer.gradients import Checkpoint, Plan
from trainer.lockstep import Lockstep
from trainer.losses import LOSSES
from trainer.recomputation import checkpointed_layers, make_checkpointed
from trainer.rollout import log_probs, pieces, sample_rollouts, score

REWARD = (
    "def judge(prompts, completions):\n"
    "    return [len(c) + 0.3 * c.count('1') for c in completions]\n"
)
UNEVEN = [{"prompt": "1" * n + "+1="} for n in (1, 7, 3, 12, 5, 2)]


def ignore(*words):
    pass


@pytest.fixture
def made(tmp_path):
    """Make a learner on prompts of uneven length with answers of up to six tokens."""
    torch.set_num_threads(1)
    write_prompts(tmp_path / "prompts.jsonl", UNEVEN)

    def make(**changes):
        settings = {"max_new_tokens": 6, "steps": 20, "learning_rate": 1e-2, "warmup_steps": 0}
        return own_learner(Lockstep, tmp_path, REWARD, **(settings | changes))

    return make


def a_stale_batch(learner):
    """Move the policy away from what sampled a batch, and return the batch."""
    batch = learner._sample(0).batch
    noise = torch.randn(learner.weights.vector.shape, generator=torch.Generator().manual_seed(1))
    learner.weights.vector.add_(noise.to(learner.device), alpha=0.05)
    return batch


def gradient(learner, batch, at_once, proximal=None):
    config, reference = learner.config, learner.reference
    of = learner.policy, learner.weights, learner.objective, reference, config.kl_coefficient
    scored, losses = Backward(*of, at_once)(batch, proximal)
    return learner.weights.gradient.clone(), tensors_of(scored) | losses


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("at_once", [1, 3, 4, 9, 1000])
def test_the_gradients_of_pieces_sum_up_to_that_of_the_whole(made, device, loss, at_once):
    """Of every loss, whether groups of four stay whole in a piece or not."""
    learner = made(device=device, loss=loss, kl_coefficient=0.3)
    batch = a_stale_batch(learner)
    noise = torch.randn(batch.mask_B_T.shape, generator=torch.Generator().manual_seed(2)).to(device)
    proximal = batch.behavior_log_probs_B_T + 0.1 * noise * batch.mask_B_T
    whole, expected = gradient(learner, batch, None, proximal)
    found, scored = gradient(learner, batch, at_once, proximal)
    assert whole.norm() > 1e-2
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    assert scored.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(scored[name], value, rtol=1e-4, atol=1e-5)
    assert expected["kl_penalty"] > 0


@pytest.mark.parametrize(
    ("at_once", "sizes"),
    [(None, [16]), (16, [16]), (99, [16]), (9, [8, 8]), (5, [4] * 4), (3, [3] * 5 + [1])],
)
def test_a_piece_holds_whole_groups_where_one_fits(made, at_once, sizes):
    batch = made()._sample(0).batch
    cut = pieces(batch, at_once)
    assert [rows.stop - rows.start for rows in cut] == sizes
    assert (cut[0].start, cut[-1].stop) == (0, 16)
    torch.testing.assert_close(
        log_probs(made().policy, batch, at_once), score(made().policy, batch)[0].detach()
    )


def test_chosen_rows_are_scored_as_in_the_batch(made):
    """Four of sixteen rows, of four different prompts, are no group."""
    learner = made()
    batch = learner._sample(0).batch
    chosen = torch.zeros(16, dtype=torch.bool)
    chosen[[1, 6, 11, 14]] = True
    expected = score(learner.policy, batch)[0][chosen]
    torch.testing.assert_close(score(learner.policy, batch.rows(chosen))[0], expected)


def rows_of(learner):
    learner.evaluate(0, 16)
    return [learner.learner_step(step) for step in range(8)]


@pytest.mark.parametrize("changes", [{"micro_batch_size": 3}, {"gradient_checkpointing": True}])
def test_everything_that_is_measured_stays_the_same(made, device, changes):
    """Of every kind: drift, clipping, clip bias, KL to the start, entropy, loss."""
    settings = {"bias_every": 1, "kl_to_start_every": 2, "loss": "cispo", "clip_epsilon_high": 0.02}
    settings["device"] = device
    plain, other = rows_of(made(**settings)), rows_of(made(**settings, **changes))
    assert any(row.clip_fraction_high for row in plain)
    for row, same in zip(plain, other, strict=True):
        for name, value in asdict(row).items():
            if isinstance(value, float) and not name.startswith(("seconds", "time")):
                found = getattr(same, name)
                assert found == pytest.approx(value, rel=5e-3, abs=1e-5), name


def test_the_gradient_bias_of_a_study_is_the_same_in_pieces(made):
    learner = made()
    present = learner.weights.snapshot()
    plan = Plan(shards=16, prompts=3, group_size=4, seed=0)
    found = [
        Checkpoint(
            policy=learner.policy,
            weights=learner.weights,
            behavior_policy=learner.behavior_policy,
            behavior_weights=learner.behavior_weights,
            tokenizer=learner.tokenizer,
            task=learner.task,
            objective=learner.objective,
            at_once=at_once,
        ).measure(present + 0.01, plan)
        for at_once in (None, 5)
    ]
    for kind, vectors in found[0].vectors.items():
        torch.testing.assert_close(found[1].vectors[kind], vectors, rtol=1e-3, atol=1e-5)


# -- gradient checkpointing --------------------------------------------------------------------


def test_the_gradient_is_the_same_when_activations_are_computed_again(made):
    plain, again = made(), made(gradient_checkpointing=True)
    batch = a_stale_batch(plain)
    again.weights.load(plain.weights.vector)
    assert len(checkpointed_layers(again.policy)) == 1
    expected, _ = gradient(plain, batch, None)
    found, _ = gradient(again, batch, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_layers_really_are_computed_again_and_only_for_a_gradient(made):
    learner = made(gradient_checkpointing=True)
    batch = learner._sample(0).batch
    calls = []
    [layer] = checkpointed_layers(learner.policy)
    layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        score(learner.policy, batch)
    assert len(calls) == 2  # the prompts, then the answers on their cache
    calls.clear()
    log_prob, _ = score(learner.policy, batch)
    assert len(calls) == 1
    torch.autograd.backward(log_prob.sum())
    assert len(calls) == 2
    assert not any(module.training for module in learner.policy.modules())


def test_a_checkpointed_policy_samples_what_the_plain_one_does(made):
    plain, again = made(), made(gradient_checkpointing=True)
    one, other = (
        sample_rollouts(
            learner.policy,
            learner.tokenizer,
            learner.task,
            ["1+1=", "111+1="],
            4,
            torch.Generator().manual_seed(0),
        )
        for learner in (plain, again)
    )
    assert one.completions == other.completions
    assert torch.equal(one.behavior_log_probs_B_T, other.behavior_log_probs_B_T)


def test_dropout_in_a_layer_itself_stays_off(tmp_path):
    """OPT drops out in its layers' own forward, by their own mode."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=16,
            hidden_size=16,
            word_embed_proj_dim=16,
            ffn_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            dropout=0.5,
        )
    ).eval()
    make_checkpointed(model, tmp_path)
    from trainer.recomputation import recomputed

    ids = torch.arange(8).view(1, 8)
    expected = model(ids, use_cache=False).logits
    with recomputed(checkpointed_layers(model)):
        torch.testing.assert_close(model(ids, use_cache=False).logits, expected)


def test_a_model_without_it_is_refused(tmp_path):
    class Bare:
        def activation_checkpointing_enable(self):
            raise ValueError("Bare does not support gradient checkpointing.")

    with pytest.raises(BadInput, match="gradient_checkpointing: the model"):
        make_checkpointed(Bare(), "/a")


# -- memory ------------------------------------------------------------------------------------


def kept_bytes(learner, batch, at_once):
    """Return the most bytes that graphs keep for the backward pass at any one time."""
    alive = most = 0
    weights = {learner.weights.vector.untyped_storage().data_ptr()}

    class Kept:
        def __init__(self, tensor):
            nonlocal alive, most
            self.tensor = tensor
            own = tensor.untyped_storage().data_ptr() not in weights
            self.size = tensor.numel() * tensor.element_size() if own else 0
            alive += self.size
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        gradient(learner, batch, at_once)
    return most


def test_pieces_and_recomputation_keep_less_for_the_backward_pass(made):
    plain, again = (
        made(prompts=6, group_size=8),
        made(prompts=6, group_size=8, gradient_checkpointing=True),
    )
    batch = plain._sample(0).batch
    whole = kept_bytes(plain, batch, None)
    eighth = kept_bytes(plain, batch, 8)
    assert 0 < eighth < whole / 4
    alone = [kept_bytes(each, batch, 1) for each in (plain, again)]
    assert alone[1] < alone[0] / 1.5
