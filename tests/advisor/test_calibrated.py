"""From a probe to advice: synthetic probes whose edge is known, and probes that found none."""

import json
import math
import re
from dataclasses import replace
from statistics import NormalDist

import pytest
from factories import a_config
from probed import KL_SCALE, LEVELS, SCALE, a_calibration, a_hold, a_ramp, linear_holds, travelled

from advisor.advice import Question
from advisor.calibrated import advise
from advisor.learned_reward import critical_displacement
from advisor.measured import measured, refusal
from advisor.probed_constants import constants
from advisor.regime import Regime
from advisor.transfers import RefusedTransfer

CROSSING = 2e-3
EDGE = 1.25 * CROSSING
RATES = ("max_learning_rate", "suggested_learning_rate", "edge", "low", "high")
HORIZON = (0.65 / KL_SCALE / 295**0.65) ** (1 / 0.75)
"""Where 4·(295·η)^0.65·η^0.1 is 0.65: 300 steps, whose ten of warm-up count for five."""


def probe(*segments, start=0.5, **setting):
    ramp = a_ramp(start_reward=start)
    return measured(a_calibration([ramp, *segments], a_config(**setting)))


def bracketed(fresh_gain=0.1, **changes):
    """Return a probe whose holds cross at 2e-3, with a fresh hold above that."""
    fresh = a_hold(1.4 * CROSSING, fresh_gain, max_staleness=0)
    return probe(*linear_holds([1.6e-3, 2.5e-3], CROSSING), fresh, **changes)


def learned(*rates, **changes):
    return probe(*(a_hold(rate) for rate in rates or (1e-4, 3e-4)), workload="preference")


def asked(found, risk=0.05, learning_rate=None, **changes):
    """Ask a probe about its own setting, with changes."""
    setting = a_config(**{**found.setting.model_dump(), **changes})
    return advise(Question(setting=setting, risk=risk, learning_rate=learning_rate), found, LEVELS)


def unexplained(answer):
    names = [name for name, value in answer.items() if value is None]
    names += [n for n, v in answer.items() if isinstance(v, dict) and v.get("value", 0) is None]
    return [name for name in names if not (answer.get(f"{name}_reason") or "").strip()]


# -- the edge was bracketed --------------------------------------------------------------------


def test_the_rates_are_quantiles_of_the_edge_that_was_bracketed():
    found = asked(bracketed())
    assert found.edge == pytest.approx(EDGE, rel=1e-6)
    spread = math.log(found.high / found.edge) / NormalDist().inv_cdf(0.95)
    assert spread >= 0.3
    assert found.low == pytest.approx(found.edge**2 / found.high, rel=1e-6)
    assert found.max_learning_rate == pytest.approx(found.low, rel=1e-9)  # at a risk of 5 %
    assert found.binding == "staleness"
    assert found.calibrated


def test_accepting_more_risk_raises_the_rate_up_to_the_edge_at_one_half():
    found = bracketed()
    rates = [asked(found, risk).max_learning_rate for risk in (0.01, 0.05, 0.2, 0.5, 0.8)]
    assert rates == sorted(set(rates))
    assert rates[3] == pytest.approx(EDGE, rel=1e-6)


def test_the_suggested_rate_is_a_fitted_share_of_the_edge_and_never_above_the_largest_safe_one():
    assert asked(bracketed(), risk=0.3).suggested_learning_rate == pytest.approx(0.4 * EDGE)
    careful = asked(bracketed(), risk=0.001)
    assert careful.suggested_learning_rate == careful.max_learning_rate < 0.4 * EDGE


def test_a_rate_to_judge_is_judged():
    at_edge = asked(bracketed(), learning_rate=EDGE)
    assert at_edge.unsafe_probability == pytest.approx(0.5, abs=1e-6)
    assert at_edge.kappa_staleness.value == pytest.approx(1.0, rel=1e-6)
    half = asked(bracketed(), learning_rate=EDGE / 2)
    assert half.kappa_staleness.value == pytest.approx(0.5, rel=1e-6)
    assert half.unsafe_probability < 0.5
    none = asked(bracketed())
    assert none.unsafe_probability is None
    assert none.reasons["unsafe_probability"].startswith("no learning rate was given")


@pytest.mark.parametrize(
    ("rate", "regime"),
    [(100 * EDGE, Regime.STALENESS_LIMITED), (EDGE, Regime.INSUFFICIENT_DATA)],
)
def test_far_beyond_the_edge_the_regime_is_its_limit_and_at_it_undecided(rate, regime):
    assert asked(bracketed(), learning_rate=rate).regime == regime


def test_far_below_the_edge_the_regime_is_stable():
    assert asked(bracketed(), learning_rate=EDGE / 1000).regime == Regime.STABLE


def test_a_probability_of_failing_grows_with_the_rate():
    rates = [EDGE * 1.3**i for i in range(-12, 13)]
    found = [asked(bracketed(), learning_rate=rate).unsafe_probability for rate in rates]
    assert found == sorted(found)
    assert found[0] < 1e-3
    assert found[-1] > 0.99


def test_where_fresh_rollouts_lose_as_well_the_local_step_binds():
    found = asked(bracketed(fresh_gain=-0.1), learning_rate=EDGE)
    assert found.binding == "local_step"
    assert found.kappa_local.value == pytest.approx(1.0, rel=1e-6)
    assert found.kappa_staleness.value is None
    assert found.kappa_staleness.is_bound
    assert found.kappa_staleness.high >= 0.999
    assert "local step binds" in found.reasons["crossover_staleness"]


def test_with_fresh_rollouts_nothing_is_stale():
    holds = linear_holds([1.6e-3, 2.5e-3], CROSSING, max_staleness=0)
    found = asked(probe(*holds, max_staleness=0), learning_rate=EDGE)
    assert (found.binding, found.kappa_staleness.value) == ("local_step", 0.0)
    assert found.edge == pytest.approx(EDGE, rel=1e-6)


def test_the_evidence_names_every_run_of_the_probe():
    found = asked(bracketed())
    assert len(found.evidence) == 4
    assert found.evidence[0] == "run ramp: ramp to η=10, S=0, 26 steps"
    assert found.evidence[1] == "run hold-0.0016: hold at η=0.0016, S=3, 50 steps"


def test_what_if_answers_every_usual_change_and_none_of_the_easier_ones_is_lower():
    for risk in (0.02, 0.05, 0.3):
        found = asked(bracketed(), risk)
        assert set(found.what_if) == {"half_max_staleness", "half_steps", "double_clip"} | {
            "double_batch"
        }
        easier = {n: r for n, r in found.what_if.items() if n != "double_batch"}
        assert all(rate >= found.max_learning_rate * (1 - 1e-9) for rate in easier.values())
        assert found.what_if["half_steps"] == pytest.approx(found.max_learning_rate)


def test_the_rate_for_half_of_the_staleness_is_the_one_that_asking_for_it_gives():
    found = bracketed()
    assert asked(found).what_if["half_max_staleness"] == pytest.approx(
        asked(found, max_staleness=1).max_learning_rate
    )
    assert asked(found).what_if["double_batch"] == pytest.approx(
        asked(found, prompts=32).max_learning_rate
    )


# -- the edge was not bracketed ----------------------------------------------------------------


def test_when_every_hold_gained_the_edge_is_open_above():
    found = asked(probe(a_hold(1e-3), a_hold(2e-3)))
    assert (found.edge, found.high) == (None, None)
    assert "none above lost" in found.reasons["high"]
    assert "none above lost" in found.reasons["edge"]
    assert 0 < found.low <= found.max_learning_rate < 4e-3
    assert found.kappa_staleness.value is None
    assert found.kappa_staleness.is_bound
    assert unexplained(found.as_json()) == []


@pytest.mark.parametrize("gain", [-0.1, 0.0, -math.inf])
def test_when_no_hold_gained_no_rate_is_advised_and_it_says_what_to_do(gain):
    found = asked(probe(a_hold(1e-3, gain), a_hold(2e-3, gain)), learning_rate=1e-3)
    assert (found.max_learning_rate, found.suggested_learning_rate, found.low) == (None, None, None)
    assert "no hold gained, down to 1.0e-3" in found.reasons["max_learning_rate"]
    assert "lower rates" in found.reasons["max_learning_rate"]
    assert found.reason.startswith("No rate can be advised at S = 3 over 300 steps")
    assert found.high > 0
    assert found.unsafe_probability > 0.5
    assert set(found.what_if.values()) == {None}
    assert unexplained(found.as_json()) == []


@pytest.mark.parametrize("found", [probe(a_hold(1e-3, -0.1)), bracketed()], ids=["none", "both"])
def test_a_limit_that_does_not_bind_is_bounded_by_all_that_the_binding_one_may_be(found):
    """κ_local ≤ κ_staleness, of which the upper end is known, or not even that."""
    answer = asked(found, learning_rate=1e-3)
    binding, other = answer.kappa_staleness, answer.kappa_local
    assert answer.binding == "staleness"
    assert (other.high is None) if binding.high is None else other.high >= binding.high * 0.999


@pytest.mark.parametrize(
    "found",
    [
        probe(),
        probe(a_hold(1e-3, None)),
        probe(a_hold(1e-3, None, start_reward=None)),
        probe(a_hold(1e-3, travel=()), workload="preference"),
        probe(workload="preference"),
        measured(a_calibration([])),
    ],
    ids=["ramp", "no gain", "no start", "no travel", "learned ramp", "nothing"],
)
def test_a_probe_that_held_nothing_is_told_to_have_said_nothing(found):
    answer = asked(found, learning_rate=1e-3)
    assert [getattr(answer, name) for name in RATES] == [None] * 5
    assert answer.unsafe_probability is None
    assert (answer.binding, answer.regime) == ("none", Regime.INSUFFICIENT_DATA)
    assert "give it a larger --budget" in answer.reason
    assert unexplained(answer.as_json()) == []


@pytest.mark.parametrize("start", [0.0, -5.0])
def test_a_start_of_zero_or_below_is_no_obstacle(start):
    holds = linear_holds([1.6e-3, 2.5e-3], CROSSING, start_reward=start)
    found = probe(*holds, start=start)
    assert asked(found).edge == pytest.approx(EDGE, rel=1e-6)


def test_a_gain_within_its_noise_withholds_no_suggestion_but_no_gain_at_all_does():
    """Holds stand near the edge, where fifty steps gain little."""
    small = asked(probe(a_hold(1e-3, 0.01), a_hold(2e-3, -0.1)))
    assert 0 < small.suggested_learning_rate <= small.max_learning_rate
    none = asked(probe(a_hold(1e-3, -0.01), a_hold(2e-3, -0.1)))
    assert none.suggested_learning_rate is None
    assert "the start is the best policy" in none.reasons["suggested_learning_rate"]


def test_no_rate_rests_on_gains_that_are_not_numbers():
    found = asked(probe(a_hold(1e-3, math.nan), a_hold(2e-3, math.nan)))
    assert found.max_learning_rate is None


# -- a learned reward --------------------------------------------------------------------------


def test_on_a_learned_reward_the_horizon_binds_where_the_power_laws_say():
    found = asked(learned(), learning_rate=HORIZON)
    assert found.binding == "horizon"
    assert found.edge == pytest.approx(HORIZON, rel=1e-6)
    assert found.unsafe_probability == pytest.approx(0.5, abs=1e-6)
    assert found.kappa_horizon.value == pytest.approx(1.0, rel=1e-6)
    assert found.kappa_staleness.value is None
    assert unexplained(found.as_json()) == []


def test_at_half_of_the_horizon_rate_kappa_is_the_displacement_it_reaches():
    found = asked(learned(), learning_rate=HORIZON / 2)
    assert found.kappa_horizon.value == pytest.approx(0.5**0.7, rel=1e-6)


def test_half_of_the_steps_may_be_taken_at_nearly_twice_the_rate():
    found = asked(learned(), steps=155)  # 150 instead of 295 after ten of warm-up
    assert found.edge == pytest.approx(HORIZON * (295 / 150) ** (0.65 / 0.75), rel=1e-6)
    half = asked(learned()).what_if["half_steps"]
    assert half > 1.75 * asked(learned()).max_learning_rate


def test_the_collapse_of_a_learned_reward_is_forecast_where_it_is_reached():
    own = 20 * HORIZON
    found = asked(learned(), learning_rate=own)
    # 4·(Σ η)^0.65·η^0.1 = 2.2·0.65, and ten warm-up steps count for five.
    step = (2.2 * 0.65 / KL_SCALE / own**0.1) ** (1 / 0.65) / own + 5
    assert 20 < step < 300
    assert found.forecast_collapse_step == pytest.approx(step, rel=1e-6)
    gentle = asked(learned(), learning_rate=HORIZON)
    assert gentle.forecast_collapse_step is None
    assert gentle.reasons["forecast_collapse_step"] == "none within 300 steps"
    assert asked(bracketed(), learning_rate=1.0).forecast_collapse_step is None


def test_a_probe_that_measured_no_kl_is_told_to_have_said_nothing():
    still = [
        a_hold(rate, travel=tuple((x, 0.0, d) for x, _, d in travelled(rate, 50)))
        for rate in (1e-3, 2e-3)
    ]
    found = asked(probe(*still, workload="preference"))
    assert found.max_learning_rate is None
    assert unexplained(found.as_json()) == []


def test_less_staleness_never_lowers_the_rate_on_a_learned_reward():
    found = asked(learned())
    assert found.what_if["half_max_staleness"] >= found.max_learning_rate * (1 - 1e-9)


# -- what a calibration may be asked -----------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 9},
        {"steps": 3000},
        {"max_staleness": 15},
        {"max_staleness": 0},
        {"clip_epsilon": 0.3, "clip_epsilon_high": 0.4},
        {"clip_epsilon_high": 0.2},
        {"prompts": 3, "group_size": 5, "hidden_size": 128},
        {"evaluate_every": 7, "stop_on_collapse": False},
        {"micro_batch_size": 4, "gradient_checkpointing": True, "lora_targets": "q_proj"},
    ],
)
def test_what_a_rule_leads_to_is_answered(changes):
    assert refusal(bracketed(), a_config(**changes)) is None
    assert asked(bracketed(), **changes).max_learning_rate > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer": "sgd"}, "optimizer adamw ≠ sgd"),
        ({"schedule": "constant"}, "schedule cyclic ≠ constant"),
        ({"layers": 3}, "layers 2 ≠ 3"),
        ({"adam_beta1": 0.0, "prompts": 3}, "adam_beta1 0.9 ≠ 0.0"),
        ({"kl_coefficient": 0.1}, "kl_coefficient 0.0 ≠ 0.1"),
        ({"warm_start_success": 0.5}, "warm_start_success None ≠ 0.5"),
        ({"workload": "preference"}, "workload arithmetic ≠ preference"),
        ({"lora_rank": 8}, "lora_rank None ≠ 8"),
        ({"precision": "bf16"}, "precision fp32 ≠ bf16"),
        ({"max_staleness": 16}, "S = 16 is more than 4 times beyond"),
    ],
)
def test_what_no_rule_leads_to_is_refused_with_the_difference(changes, told):
    words = refusal(bracketed(), a_config(**changes))
    assert told in words
    assert "prompts" not in words
    assert "\n" not in words
    with pytest.raises(RefusedTransfer, match=re.escape(words)):
        asked(bracketed(), **changes)


def test_a_probe_of_adapters_speaks_of_the_same_adapters_alone():
    """Their learning rates are others, and so is the unit of their drift (theory.md §8.6)."""
    found = bracketed(lora_rank=8)
    assert refusal(found, a_config(lora_rank=8, lora_alpha=16.0, prompts=8)) is None
    for changes, told in (
        ({}, "lora_rank 8 ≠ None"),
        ({"lora_rank": 4}, "lora_rank 8 ≠ 4"),
        ({"lora_rank": 8, "lora_alpha": 8.0}, "lora_alpha 16.0 ≠ 8.0"),
        ({"lora_rank": 8, "lora_targets": "q_proj"}, "lora_targets all-linear ≠ q_proj"),
        ({"lora_rank": 8, "hidden_size": 128}, "no rule carries their limits from hidden_size 64"),
    ):
        assert told in refusal(found, a_config(**changes))


def test_a_calibration_is_read_back_from_json_as_it_was():
    stored = a_calibration([a_ramp(None), a_hold(1e-3, -math.inf), a_hold(1e-4)])
    plain = json.loads(json.dumps(stored.segments))
    again = measured(replace(stored, segments=tuple(plain)))
    assert again.segments == (a_ramp(None), a_hold(1e-3, -math.inf), a_hold(1e-4))
    assert [s.run_id for s in again.holds] == ["hold-0.001", "hold-0.0001"]


def test_only_holds_at_the_staleness_in_question_count_as_stale():
    assert [s.max_staleness for s in bracketed().holds] == [3, 3, 0]
    assert [s.max_staleness for s in bracketed().stale] == [3, 3]


# -- the constants of a probe ------------------------------------------------------------------


def test_the_constants_are_those_that_the_holds_were_made_of():
    found = constants(bracketed(), LEVELS)
    assert found["g_1"].value == pytest.approx(300)
    assert found["alpha"].value == pytest.approx(0.7)
    # A hold at η drifts 100·η within a cycle, so 0.2 at the crossing.
    assert found["r_batch"].value == pytest.approx(100 * CROSSING, rel=1e-6)
    assert found["r_batch"].low < found["r_batch"].value < found["r_batch"].high
    assert found["local_step"].is_bound
    assert found["local_step"].low == pytest.approx(EDGE, rel=1e-6)


def test_where_the_local_step_binds_it_is_known_and_the_batch_radius_bounded():
    found = constants(bracketed(fresh_gain=-0.1), LEVELS)
    assert found["local_step"].value == pytest.approx(EDGE, rel=1e-6)
    assert found["r_batch"].value is None
    assert found["r_batch"].low == pytest.approx(100 * CROSSING, rel=1e-6)


def test_how_far_a_policy_may_go_is_bounded_by_holds_that_gained_or_known_by_their_kl():
    by_gain = constants(bracketed(), LEVELS)["r_crit"]
    assert by_gain.is_bound
    assert by_gain.low == pytest.approx(SCALE * (50 * 2.8e-3) ** 0.7)  # the fresh hold gained
    by_kl = constants(learned(), LEVELS)["r_crit"]
    known = critical_displacement(a_config(workload="preference"), learned().holds, LEVELS)
    assert (by_kl.value, by_kl.is_bound) == (known.value, False)


def test_of_a_probe_that_held_nothing_every_constant_is_unknown_with_a_reason():
    for found in (probe(), probe(workload="preference"), measured(a_calibration([]))):
        for name, estimate in constants(found, LEVELS).items():
            assert (estimate.value, estimate.low, estimate.high) == (None, None, None), name
            assert estimate.reason
