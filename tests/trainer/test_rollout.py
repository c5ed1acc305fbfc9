"""Sampling and scoring are the same distribution, whatever the padding."""

import math
from dataclasses import replace

import pytest
import torch

from trainer.judging import RewardFailed
from trainer.policy import load_policy
from trainer.rollout import Task, sample_rollouts, score
from trainer.workloads.arithmetic import build_model, build_tokenizer, exact_match, sample_prompts

UNEVEN = ["1+2=", "12+34=", "5=", "90+99="]  # padded on the left to the longest
VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", *"0123456789+="]
PAD, END = VOCABULARY.index("<pad>"), VOCABULARY.index("</s>")


@pytest.fixture(scope="module")
def random_policy():
    """A policy that knows nothing: every sign, the end included, comes up again and again."""
    torch.set_num_threads(1)
    model = build_model(32, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform, so that a wrong log-probability shows
    return model, build_tokenizer()


def a_task(**changes):
    values = {
        "name": "task",
        "chance_reward": 0.0,
        "max_new_tokens": 6,
        "sample_prompts": sample_prompts,
        "rewards": lambda _, completions: [float(len(c)) for c in completions],
    }
    return Task(**(values | changes))


def sampled(policy, prompts=UNEVEN, group_size=5, seed=0, **task):
    generator = torch.Generator().manual_seed(seed)
    return sample_rollouts(*policy, a_task(**task), prompts, group_size, generator)


def plain_log_probs(model, prompt, ids):
    """Score one completion alone, without padding, cache or mask."""
    question = [VOCABULARY.index(sign) for sign in prompt]
    with torch.no_grad():
        logits = model(torch.tensor([question + ids])).logits[0]
    rows = logits.log_softmax(dim=1)[len(question) - 1 : -1]
    return rows.gather(1, torch.tensor(ids).unsqueeze(1)).squeeze(1), rows


def live_ids(batch, row):
    return batch.completion_ids_B_T[row][batch.mask_B_T[row].bool()].tolist()


@pytest.mark.parametrize("prompts", [UNEVEN, ["12+34=", "56+78="]], ids=["padded", "even"])
def test_sampling_scoring_and_a_plain_forward_pass_agree_on_every_token(random_policy, prompts):
    model, _ = random_policy
    batch = sampled(random_policy, prompts)
    log_prob_B_T, entropy_B_T = score(model, batch)
    assert torch.allclose(log_prob_B_T, batch.behavior_log_probs_B_T, atol=1e-5)
    assert log_prob_B_T.requires_grad
    assert not entropy_B_T.requires_grad
    for row in range(len(batch.completions)):
        length = int(batch.mask_B_T[row].sum())
        expected, rows = plain_log_probs(model, prompts[row // 5], live_ids(batch, row))
        assert torch.allclose(log_prob_B_T[row, :length], expected, atol=1e-5)
        entropy = -(rows.exp() * rows).sum(dim=1)
        assert torch.allclose(entropy_B_T[row, :length], entropy, atol=1e-5)
        assert not log_prob_B_T[row, length:].any()
        assert not entropy_B_T[row, length:].any()
    assert batch.behavior_log_probs_B_T.std() > 0.5


@pytest.mark.parametrize("prompts", [UNEVEN, ["12+34=", "56+78="]], ids=["padded", "even"])
@pytest.mark.parametrize("tokens", [1, 6])
def test_reading_a_prompt_once_for_its_group_changes_no_gradient(random_policy, prompts, tokens):
    model, _ = random_policy
    batch = sampled(random_policy, prompts, max_new_tokens=tokens)
    alone = replace(batch, rewards_P_G=batch.rewards_P_G.reshape(-1, 1))  # groups of one
    weight_B_T = torch.randn(batch.mask_B_T.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for each in (batch, alone):
        log_prob_B_T, entropy_B_T = score(model, each)
        gradient = torch.autograd.grad((log_prob_B_T * weight_B_T).sum(), [*model.parameters()])
        found.append(
            (log_prob_B_T.detach(), entropy_B_T, torch.cat([g.flatten() for g in gradient]))
        )
    for shared, single in zip(*found, strict=True):
        assert (shared - single).norm() <= 1e-5 * single.norm()
        assert single.norm() > 0


def test_the_warm_started_policy_scores_as_it_sampled(learner):
    run = learner(prompts=4)
    batch = run._sample(0).batch
    log_prob, _ = score(run.policy, batch)
    assert torch.allclose(log_prob, batch.behavior_log_probs_B_T, atol=1e-5)


def test_a_mask_ends_with_the_first_end_of_sequence_and_padding_follows(random_policy):
    batch = sampled(random_policy, group_size=40)
    endings = []
    for row, ids in enumerate(batch.completion_ids_B_T.tolist()):
        length = int(batch.mask_B_T[row].sum())
        assert batch.mask_B_T[row].tolist() == [1.0] * length + [0.0] * (len(ids) - length)
        assert END not in ids[: length - 1]
        assert ids[length:] == [PAD] * (len(ids) - length)
        assert ids[length - 1] == END or length == 6
        endings.append((length, ids[length - 1] == END))
    assert {length for length, _ in endings} == {1, 2, 3, 4, 5, 6}
    assert (6, False) in endings


def test_a_batch_whose_rollouts_have_all_ended_is_not_continued(random_policy):
    lengths = set()
    for seed in range(30):
        batch = sampled(random_policy, UNEVEN[:1], group_size=2, seed=seed)
        assert batch.mask_B_T.shape[1] == int(batch.mask_B_T.sum(dim=1).max())
        lengths.add(batch.mask_B_T.shape[1])
    assert {3, 6} <= lengths


def test_a_completion_is_the_text_before_the_end_and_hides_no_token(random_policy):
    batch = sampled(random_policy, group_size=100)
    for row, text in enumerate(batch.completions):
        ids = live_ids(batch, row)
        written = ids[:-1] if ids[-1] == END else ids
        assert text == "".join(VOCABULARY[i] for i in written)
    # A policy may write the padding sign before it ends: no part of a right answer.
    assert any("<pad>" in text for text in batch.completions)


def test_rows_are_prompt_by_prompt_and_rewards_belong_to_them(random_policy):
    asked = []

    def rewards(prompts, completions):
        asked.extend(zip(prompts, completions, strict=True))
        return [float(i) for i in range(len(prompts))]

    batch = sampled(random_policy, group_size=3, rewards=rewards)
    assert [prompt for prompt, _ in asked] == [p for p in UNEVEN for _ in range(3)]
    assert [text for _, text in asked] == batch.completions
    assert batch.rewards_P_G.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_the_generator_alone_decides_what_is_sampled(random_policy):
    state = torch.get_rng_state()
    first, again, other = (sampled(random_policy, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.completion_ids_B_T, again.completion_ids_B_T)
    assert torch.equal(first.behavior_log_probs_B_T, again.behavior_log_probs_B_T)
    assert first.completions == again.completions
    assert first.completions != other.completions


def test_tokens_come_up_as_often_as_the_policy_says(random_policy):
    model, _ = random_policy
    rollouts = 4000
    batch = sampled(random_policy, ["12+34="], group_size=rollouts, max_new_tokens=1)
    _, [row] = plain_log_probs(model, "12+34=", [0])
    expected = row.exp().double() * rollouts
    counts = torch.bincount(batch.completion_ids_B_T[:, 0], minlength=16).double()
    likely = expected >= 5  # the rule of thumb for χ²
    chi_square = float(((counts - expected)[likely] ** 2 / expected[likely]).sum())
    degrees = int(likely.sum()) - 1
    assert degrees >= 3
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)  # about four deviations


def test_gold_judges_the_same_rollouts_and_never_reaches_the_reward(random_policy):
    batch = sampled(random_policy, gold=lambda _, texts: [-1.0] * len(texts))
    assert batch.gold_P_G.tolist() == [[-1.0] * 5] * 4
    assert torch.equal(batch.decisive_P_G, batch.gold_P_G)
    assert batch.rewards_P_G.min() >= 0
    without = sampled(random_policy)
    assert without.gold_P_G is None
    assert torch.equal(without.decisive_P_G, without.rewards_P_G)
    assert torch.equal(without.rewards_P_G, batch.rewards_P_G)


def test_the_first_prompts_of_a_batch_keep_all_that_belongs_to_them(random_policy):
    batch = sampled(random_policy)
    head = batch.first(2)
    assert head.prompts == UNEVEN[:2]
    assert head.completions == batch.completions[:10]
    assert torch.equal(head.rewards_P_G, batch.rewards_P_G[:2])
    assert torch.equal(head.behavior_log_probs_B_T, batch.behavior_log_probs_B_T[:10])
    model, _ = random_policy
    assert torch.allclose(score(model, head)[0], score(model, batch)[0][:10], atol=1e-5)


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        (lambda *_: 1 / 0, "the reward raised ZeroDivisionError: division by zero"),
        (lambda *_: [1.0], "the reward returned 1 values for 20 completions"),
        (lambda _, texts: [None] * len(texts), "the reward returned None (NoneType) for"),
        (lambda _, texts: ["1"] * len(texts), "the reward returned '1' (str) for"),
    ],
)
def test_a_reward_that_is_not_one_number_per_completion_fails_in_one_line(
    random_policy, rewards, words
):
    with pytest.raises(RewardFailed) as found:
        sampled(random_policy, rewards=rewards)
    assert str(found.value).startswith(words)
    assert "\n" not in str(found.value)


def test_a_reward_that_is_not_finite_is_kept_as_it_is(random_policy):
    batch = sampled(
        random_policy, UNEVEN[:1], 3, rewards=lambda *_: [math.nan, math.inf, -math.inf]
    )
    nan, high, low = batch.rewards_P_G[0].tolist()
    assert math.isnan(nan)
    assert (high, low) == (math.inf, -math.inf)


# -- the built-in workload ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "reward"),
    [("46", 1), ("47", 0), ("", 0), ("046", 0), ("46=", 0), ("4<pad>6", 0), ("46<pad>", 0)],
)
def test_only_the_exact_sum_is_rewarded(completion, reward):
    assert exact_match(["12+34="], [completion]) == [reward]


def test_problems_have_terms_of_two_digits_and_come_from_the_generator():
    prompts = sample_prompts(2000, torch.Generator().manual_seed(3))
    terms = [tuple(map(int, p.rstrip("=").split("+"))) for p in prompts]
    assert {len(prompt) for prompt in prompts} == {6}
    assert min(min(pair) for pair in terms) == 10
    assert max(max(pair) for pair in terms) == 99
    assert prompts == sample_prompts(2000, torch.Generator().manual_seed(3))
    assert prompts != sample_prompts(2000, torch.Generator().manual_seed(4))


def test_a_policy_that_is_loaded_scores_as_the_one_that_was_saved(random_policy, tmp_path):
    model, tokenizer = random_policy
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_policy(tmp_path, torch.device("cpu"))
    mine, theirs = sampled(random_policy), sampled(loaded)
    assert torch.equal(mine.completion_ids_B_T, theirs.completion_ids_B_T)
    assert torch.allclose(mine.behavior_log_probs_B_T, theirs.behavior_log_probs_B_T)
    assert mine.completions == theirs.completions
