"""Outcomes by scripted reward series, and against theory.md §6 written a second time in numpy."""

import math

import numpy as np
import pytest
from outcome_oracle import onset_batch, series, slide_batch, verdict

from trainer.outcome import OutcomeTracker, Start, judge

CERTAIN = Start(reward=0.8, reward_std=0.4, rollouts=10**12)  # a start without sampling error


def judged(rewards, start=CERTAIN, floor=0.0, versions=None):
    return judge(rewards, range(len(rewards)) if versions is None else versions, start, floor)


def wobbling(level, batches, width=0.01):
    """Rewards that alternate around a level, so that their noise has a scale."""
    return [level + (width if t % 2 else -width) for t in range(batches)]


# -- scripted series --------------------------------------------------------------------------


def test_a_steady_run_is_healthy():
    found = judged(HIGH)
    assert (found.verdict, found.onset, found.slide) == ("healthy", None, None)


# After 300 batches at 0.8 the average is 0.8; n batches at 0.1 leave 0.1 + 0.7·2^(−n/10). That is
# below half of 0.8 when 2^(−n/10) < 3/7, n > 12.2: from the 13th on, which is batch 312. It is
# below 0.85 of it, 0.68, when 2^(−n/10) < 0.829, n > 2.7: from the third on, batch 302.
HIGH = wobbling(0.8, 300)


def test_a_lasting_drop_is_a_collapse_whose_onset_is_where_the_smoothed_reward_is_below_half():
    found = judged(HIGH + [0.1] * 100)
    assert (found.verdict, found.onset, found.slide) == ("collapsed", 312, 302)
    assert found.reward_best == pytest.approx(0.8, abs=0.01)


def test_onset_and_slide_are_on_the_clock_of_the_version_that_sampled():
    rewards = HIGH + [0.1] * 100
    constant = judged(rewards, versions=[max(0, t - 7) for t in range(400)])
    assert (constant.onset, constant.slide) == (305, 295)
    cyclic = judged(rewards, versions=[t - t % 5 for t in range(400)])
    assert (cyclic.onset, cyclic.slide) == (310, 300)


@pytest.mark.parametrize(
    ("low", "word", "onset"),
    [
        (12, "finished", None),  # down, but not below half
        (13, "undetermined", None),
        (31, "undetermined", None),
        (32, "collapsed", 312),
        (500, "collapsed", 312),
    ],
)
def test_an_onset_counts_when_it_has_held_for_20_batches(low, word, onset):
    uncertain = Start(reward=0.8, reward_std=0.4, rollouts=1)  # so that it is never damaged
    found = judged(HIGH + [0.1] * low, uncertain)
    assert (found.verdict, found.onset, found.slide) == (word, onset, 302)


def test_a_run_is_undetermined_from_the_first_batch_below_half_until_it_is_clear():
    tracker = OutcomeTracker(CERTAIN, 0.0)
    for t, reward in enumerate(HIGH + [0.1] * 130):
        tracker.observe(reward, t)
        low = t - 299
        assert tracker.undetermined == (13 <= low <= 31), low
        assert (tracker.onset is not None) == (low >= 32)
        assert tracker.may_stop == (low >= 113)  # 100 batches after the onset at the 13th


def test_a_dip_that_ends_within_20_batches_is_no_collapse():
    found = judged(HIGH + [0.0] * 20 + wobbling(0.8, 200))
    assert (found.verdict, found.onset, found.slide) == ("finished", None, None)


@pytest.mark.parametrize(("height", "verdict_"), [(0.79, "collapsed"), (0.81, "finished")])
def test_a_collapse_is_withdrawn_when_the_reward_returns_to_four_fifths_of_its_peak(
    height, verdict_
):
    # From 0 it climbs towards height·0.8 and has reached it to nine digits after 300 batches.
    start = Start(reward=0.8, reward_std=0.4, rollouts=4)  # little is known: never damaged
    rewards = HIGH + [0.0] * 100 + wobbling(height * 0.8, 300, 0.001)
    found = judged(rewards, start)
    assert found.verdict == verdict_
    assert (found.onset is None) == (verdict_ == "finished")


def test_after_a_recovery_a_second_collapse_has_an_onset_of_its_own():
    rewards = HIGH + [0.1] * 50 + HIGH + [0.1] * 50
    assert judged(rewards).onset == 650 + 12


def test_a_drop_within_the_noise_is_no_collapse():
    # Half of the batches are 0 and half 1 until the end, which is all 0 for eleven: far below half
    # of the peak, yet within 3·1.4826·MAD of it (the residuals are about ±0.5).
    rewards = [float(t % 2) for t in range(300)] + [0.0] * 60
    start = Start(reward=0.5, reward_std=0.5, rollouts=10**12)
    found = series(rewards, 0.5, 0.0)
    assert found.height[-1] < 0.05
    assert judged(rewards, start).onset is None


def test_a_start_that_no_batch_reaches_is_the_peak():
    # I = 0.8 and every batch 0.3: q = 0.375 from the first batch on.
    found = judged(wobbling(0.3, 60), floor=0.0)
    assert (found.verdict, found.onset, found.reward_best) == ("collapsed", 0, 0.8)


def test_without_a_declared_chance_reward_the_floor_is_two_deviations_below_the_start():
    start = Start(reward=1.0, reward_std=0.3, rollouts=10**12)
    assert OutcomeTracker(start, None).floor == pytest.approx(0.4)
    # q = (0.6 − 0.4)/(1 − 0.4) = 1/3 is a collapse; against a floor of 0 it is 0.6, and none.
    rewards = wobbling(1.0, 200) + wobbling(0.6, 100)
    assert judged(rewards, start, floor=None).verdict == "collapsed"
    assert judged(rewards, start, floor=0.0).verdict == "damaged"


def test_a_run_that_ends_below_its_start_by_more_than_two_standard_errors_is_damaged():
    # The last max(50, 300/10) = 50 batches have mean 0.7 and standard error
    # 0.01·√(50/49)/√50 = 0.00143; the start's is 0.4/√400 = 0.02: together 0.0200, doubled 0.0401.
    rewards = wobbling(0.8, 250) + wobbling(0.7, 50)
    doubt = 2 * math.hypot(0.01 / 7, 0.02)

    def verdict_from(start_reward):
        return judged(rewards, Start(reward=start_reward, reward_std=0.4, rollouts=400)).verdict

    assert verdict_from(0.7 + doubt + 1e-6) == "damaged"
    assert verdict_from(0.7 + doubt - 1e-6) == "healthy"


def test_the_end_of_a_long_run_is_its_last_tenth():
    # Of 1 000 batches the last 100 count: mean (50·0.6 + 50·0.8)/100 = 0.7, not 0.8.
    rewards = wobbling(0.8, 900) + wobbling(0.6, 50) + wobbling(0.8, 50)
    assert judged(rewards).verdict == "damaged"
    assert judged(rewards[:-100] + wobbling(0.8, 100)).verdict == "healthy"


@pytest.mark.parametrize(("last_low", "verdict_"), [(20, "healthy"), (21, "finished")])
def test_only_what_comes_after_step_20_counts_against_health(last_low, verdict_):
    # r̄ starts with its first batch, which is below 0.85·I; it must be back at batch 21.
    start = Start(reward=0.8, reward_std=0.4, rollouts=4)
    climb = [0.6] * (last_low + 1)
    jump = 0.6 + (0.6801 - 0.6) * (1 - 0.5 ** ((last_low + 2) / 10)) / (1 - 0.5**0.1)
    rewards = [*climb, jump] + [0.75] * 100  # r̄ is 0.6801 = 0.85·0.8 + 0.0001 after the jump
    found = series(rewards, 0.8, 0.0)
    assert list(np.flatnonzero(found.smooth < 0.85 * found.peak)) == list(range(last_low + 1))
    assert judged(rewards, start).verdict == verdict_


def test_a_slide_ends_when_the_reward_comes_back_and_begins_anew():
    rewards = wobbling(0.8, 100) + [0.4] * 8 + wobbling(0.8, 100) + [0.6] * 10
    # 0.8 − 0.2·(1 − 2^(−n/10)) < 0.68: 2^(−n/10) < 0.4, n > 13: never within ten batches.
    assert judged(rewards).slide is None
    deeper = wobbling(0.8, 100) + [0.4] * 8 + wobbling(0.8, 100) + [0.4] * 10
    # 0.8 − 0.4·(1 − 2^(−n/10)) < 0.68: 2^(−n/10) < 0.7, n > 5.15: the sixth batch.
    assert judged(deeper).slide == 208 + 5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_a_divergence_and_stays_one(bad):
    found = judged([*wobbling(0.8, 30), bad, *wobbling(0.8, 30), bad])
    reason = f"a non-finite reward, {bad}, at batch 30"
    assert (found.verdict, found.reason) == ("diverged", reason)
    assert found.reward_best == pytest.approx(0.8, abs=0.02)


def test_a_loss_that_is_not_finite_is_a_divergence_whatever_the_reward():
    tracker = OutcomeTracker(CERTAIN, 0.0)
    tracker.observe(0.8, 0)
    assert not tracker.diverged
    tracker.observe(0.8, 1, finite=False)
    assert tracker.diverged
    assert not tracker.undetermined
    assert tracker.conclude().verdict == "diverged"


def test_a_divergence_takes_precedence_over_a_collapse():
    assert judged(HIGH + [0.0] * 100 + [math.nan]).verdict == "diverged"


@pytest.mark.parametrize("batches", [0, 1])
def test_too_few_batches_are_undetermined(batches):
    found = judged([0.8] * batches)
    assert found.verdict == "undetermined"
    assert found.reward_best == (0.8 if batches else None)


# -- rewards below 0 --------------------------------------------------------------------------


def test_a_collapse_is_seen_among_negative_rewards_too():
    start = Start(reward=-1.0, reward_std=0.5, rollouts=10**12)
    rewards = wobbling(-1.0, 300) + [-3.0] * 100
    # floor −2: q = (r̄ + 2)/1 < 0.5 at r̄ < −1.5: −1 − 2(1 − 2^(−n/10)), n > 4.15: the fifth.
    found = judged(rewards, start, floor=None)
    assert (found.verdict, found.onset) == ("collapsed", 304)
    assert found.slide is None  # a share of a negative peak says nothing


def test_a_share_of_a_peak_that_is_not_positive_is_not_held_against_a_run():
    start = Start(reward=-1.0, reward_std=0.5, rollouts=10**12)
    found = judged(wobbling(-1.0, 300), start, floor=None)
    assert (found.verdict, found.slide) == ("finished", None)
    assert "not positive" in found.reason


def test_a_reward_that_rises_from_below_0_is_healthy():
    start = Start(reward=-1.0, reward_std=0.5, rollouts=10**12)
    rising = [-1.0 + 2.0 * t / 300 for t in range(300)]
    found = judged(rising + wobbling(1.0, 100), start, floor=None)
    assert (found.verdict, found.slide) == ("healthy", None)


# -- the same written a second time -----------------------------------------------------------


def random_run(seed):
    """Make up a run of any outcome: levels that last for a while, with noise, between 0 and 1."""
    rng = np.random.default_rng(seed)
    rewards = []
    level, noise = rng.uniform(0.4, 0.9), rng.choice([0.005, 0.03, 0.1])
    while len(rewards) < 400:
        for _ in range(int(rng.integers(5, 120))):
            rewards.append(level + noise * rng.normal())
        level = rng.choice([0.0, 0.1, 0.3, level, 0.6, 0.9])
    steps = int(rng.integers(2, 420))
    staleness = int(rng.integers(0, 9))
    versions = [t - t % (staleness + 1) for t in range(len(rewards))]
    start = Start(reward=float(rewards[0]), reward_std=0.3, rollouts=512)
    floor = None if seed % 3 == 0 else 0.0
    return rewards[:steps], versions[:steps], start, floor


def test_random_runs_are_judged_as_by_a_second_reading_of_the_definitions():
    seen = []
    for seed in range(100):
        rewards, versions, start, floor = random_run(seed)
        found = judge(rewards, versions, start, floor)
        bottom = start.reward - 2 * start.reward_std if floor is None else floor
        mine = series(rewards, start.reward, bottom)
        onset, slide = onset_batch(mine), slide_batch(mine)
        error = start.reward_std / math.sqrt(start.rollouts)
        assert found.verdict == verdict(rewards, start.reward, error, bottom), seed
        assert found.onset == (None if onset is None else versions[onset]), seed
        assert found.slide == (None if slide is None else versions[slide]), seed
        assert found.reward_best == pytest.approx(mine.peak[-1])
        assert found.reason
        seen.append(found.verdict)
    assert set(seen) == {"collapsed", "undetermined", "damaged", "healthy", "finished"}
    assert min(seen.count(word) for word in set(seen)) >= 3
