"""From segments to limits, on probes with a known edge; and how a limit is carried elsewhere."""

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
from factories import a_config
from probed import LEVELS, NORMS, a_hold, a_ramp, linear_holds

from advisor.limits import RateLimit, alpha_of, g_1_of, rate_at, survival_limit, unsafe_probability
from advisor.safe_levels import Level, safe_levels
from advisor.transfers import RefusedTransfer, transfer

EDGE = 2e-3
RISKS = (0.001, 0.02, 0.05, 0.1, 0.3, 0.5, 0.9)
LEARNED = {"workload": "preference"}


def limit(median=1e-3, log_sd=0.4, binding="staleness", **changes):
    return RateLimit(binding=binding, median=median, log_sd=log_sd, reason="measured", **changes)


def carried(asked, *, probed=None, start=None, segments=()):
    """Return a limit of 1e-3 at S = 15, T = 300 carried to the asked changes."""
    base = {"max_staleness": 15, "steps": 300} | (probed or {})
    holds = segments or [a_hold(1e-3, max_staleness=15)]
    return transfer(start or limit(), a_config(**base), a_config(**{**base, **asked}), holds)


# -- one limit and several ---------------------------------------------------------------------


def test_half_of_the_runs_are_unsafe_at_the_median_and_the_rest_follows_the_normal_curve():
    assert limit().unsafe_probability(1e-3) == pytest.approx(0.5)
    assert limit().unsafe_probability(1e-3 * math.exp(-0.4)) == pytest.approx(0.158655, abs=1e-6)
    assert limit().unsafe_probability(1e-3 * math.exp(0.8)) == pytest.approx(0.977250, abs=1e-6)


def test_limits_fail_independently():
    both = [limit(), limit(2e-3)]
    # 1 − (1 − 0.5)(1 − 0.5) where both were at their median.
    assert unsafe_probability([limit(), limit()], 1e-3) == pytest.approx(0.75)
    alone = [x.unsafe_probability(1.5e-3) for x in both]
    assert unsafe_probability(both, 1.5e-3) == pytest.approx(
        alone[0] + alone[1] - alone[0] * alone[1]
    )
    assert unsafe_probability([], 1.0) == 0


@pytest.mark.parametrize("limits", [[limit()], [limit(), limit(3e-3, 1.0)], [limit(1e-9, 0.05)]])
def test_a_higher_rate_is_never_safer(limits):
    rates = [10 ** (i / 10) for i in range(-110, 11)]
    found = [unsafe_probability(limits, rate) for rate in rates]
    assert found == sorted(found)
    assert all(0 <= p <= 1 for p in found)
    assert found[0] < 1e-6
    assert found[-1] > 0.99


@pytest.mark.parametrize("risk", RISKS)
def test_the_rate_of_one_limit_is_its_quantile(risk):
    quantile = 1e-3 * math.exp(0.4 * NormalDist().inv_cdf(risk))
    assert rate_at([limit()], risk) == pytest.approx(quantile, rel=1e-9)


@pytest.mark.parametrize("risk", RISKS)
def test_the_rate_of_several_limits_has_the_asked_risk_and_is_below_that_of_each(risk):
    both = [limit(), limit(2e-3, 0.9)]
    rate = rate_at(both, risk)
    assert unsafe_probability(both, rate) == pytest.approx(risk, abs=1e-9)
    assert rate < min(rate_at([x], risk) for x in both)


def test_accepting_more_risk_raises_the_rate():
    for limits in ([limit()], [limit(), limit(2e-3, 0.9)]):
        rates = [rate_at(limits, risk) for risk in RISKS]
        assert rates == sorted(set(rates))


def test_a_limit_that_was_moved_says_why_and_is_never_narrower():
    found = limit(bound="low").moved(1.5, 0.3, "a rule")
    assert (found.median, found.log_sd) == (pytest.approx(1.5e-3), pytest.approx(0.5))
    assert (found.reason, found.bound) == ("measured; a rule", "low")


# -- survival ----------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [1e-5, 2e-3, 0.7])
def test_the_survival_limit_is_the_crossing_times_its_safe_level(edge):
    holds = linear_holds([0.8 * edge, 1.25 * edge], edge)
    found = survival_limit(a_config(), [a_ramp(), *holds], LEVELS)
    assert found.median == pytest.approx(1.25 * edge, rel=1e-6)
    assert found.log_sd >= 0.3
    assert (found.binding, found.bound) == ("staleness", None)
    doubled = replace(LEVELS, edge_over_crossing=Level(value=2.5, log_sd=0.3))
    again = survival_limit(a_config(), [a_ramp(), *holds], doubled)
    assert again.median == pytest.approx(2 * found.median)


@pytest.mark.parametrize(
    ("gain", "binding"), [(0.1, "staleness"), (-0.01, "staleness"), (-0.1, "local_step")]
)
def test_the_hold_with_fresh_rollouts_tells_whether_staleness_binds(gain, binding):
    fresh = a_hold(1.4 * EDGE, gain, max_staleness=0)
    segments = [a_ramp(), *linear_holds([1.8e-3, 2.2e-3], EDGE), fresh]
    found = survival_limit(a_config(), segments, LEVELS)
    assert found.binding == binding
    assert found.median == pytest.approx(1.25 * EDGE, rel=1e-6)  # a fresh hold moves no stale edge


def test_a_fresh_hold_that_diverged_lost():
    fresh = a_hold(1.4 * EDGE, -math.inf, max_staleness=0, gain_stderr=None, diverged=True)
    segments = [*linear_holds([1.8e-3, 2.2e-3], EDGE), fresh]
    assert survival_limit(a_config(), segments, LEVELS).binding == "local_step"


def test_with_fresh_rollouts_only_the_local_step_can_bind():
    holds = linear_holds([1.8e-3, 2.2e-3], EDGE, max_staleness=0)
    assert survival_limit(a_config(max_staleness=0), holds, LEVELS).binding == "local_step"


def test_holds_that_all_gained_bound_the_edge_from_below():
    found = survival_limit(a_config(), [a_hold(1e-3), a_hold(2e-3)], LEVELS)
    assert (found.bound, found.median) == ("low", pytest.approx(4e-3))
    assert "holds gained up to 2.0e-3 and none above lost" in found.reason


@pytest.mark.parametrize("gains", [(-0.1, -0.2), (-0.1, -math.inf), (-math.inf, -math.inf), (0, 0)])
def test_holds_of_which_none_gained_bound_the_edge_from_above(gains):
    holds = [a_hold(rate, gain) for rate, gain in zip((1e-3, 2e-3), gains, strict=True)]
    found = survival_limit(a_config(), holds, LEVELS)
    assert (found.bound, found.median) == ("high", pytest.approx(5e-4))
    assert "no hold gained" in found.reason


def test_where_nothing_was_held_or_the_reward_is_learned_nothing_is_said():
    assert survival_limit(a_config(), [a_ramp()], LEVELS) is None
    assert survival_limit(a_config(), [a_ramp(), a_hold(1e-3, None)], LEVELS) is None
    assert survival_limit(a_config(), [a_hold(1e-3, max_staleness=0)], LEVELS) is None
    assert survival_limit(a_config(**LEARNED), linear_holds([1e-3, 4e-3], EDGE), LEVELS) is None


@pytest.mark.parametrize("start", [0.0, -4.0])
def test_a_start_of_zero_or_below_moves_no_edge(start):
    holds = linear_holds([1.8e-3, 2.2e-3], EDGE, start_reward=start)
    assert survival_limit(a_config(), holds, LEVELS).median == pytest.approx(1.25 * EDGE, rel=1e-6)


def test_gains_that_are_not_numbers_are_no_gains():
    found = survival_limit(a_config(), [a_hold(1e-3, math.nan), a_hold(2e-3, math.nan)], LEVELS)
    assert found is None or found.bound == "high"


def test_it_is_not_said_that_no_hold_gained_when_one_did():
    holds = [a_hold(1e-4, -0.001), a_hold(1e-3, 0.1), a_hold(2e-3, -0.1)]
    found = survival_limit(a_config(), holds, LEVELS)
    assert "no hold gained" not in found.reason
    assert found.median > 1e-3


def test_a_fresh_hold_without_a_gain_tells_nothing():
    fresh = a_hold(1.4 * EDGE, None, max_staleness=0)
    segments = [*linear_holds([1.8e-3, 2.2e-3], EDGE), fresh]
    assert survival_limit(a_config(), segments, LEVELS).median == pytest.approx(1.25 * EDGE)


# -- drift -------------------------------------------------------------------------------------


def test_the_drift_exponent_is_that_of_the_gentlest_hold():
    steep = a_hold(1e-2, effective_norms={str(k): 9.0 for k in (1, 2, 4)})
    assert alpha_of([steep, a_hold(1e-3)]) == pytest.approx(0.7)
    assert g_1_of([steep, a_hold(1e-3)]) == pytest.approx(300)
    assert alpha_of([steep]) == 1.0
    assert g_1_of([steep]) == pytest.approx(9.0)


@pytest.mark.parametrize(("power", "expected"), [(-2.0, 0.1), (1.0, 1.0)])
def test_the_drift_exponent_stays_where_a_drift_can_be(power, expected):
    hold = a_hold(1e-3, effective_norms={str(k): k**power for k in (1, 2, 4)})
    assert alpha_of([hold]) == expected


@pytest.mark.parametrize("norms", [{}, {"1": 3.0, "2": 2.0}, {"1": 3.0, "2": 0.0, "4": 1.0}])
def test_without_three_lags_the_drift_exponent_is_the_usual_one(norms):
    hold = a_hold(1e-3, effective_norms=norms)
    assert (alpha_of([hold]), g_1_of([hold])) == (0.7, None)
    assert alpha_of([a_ramp(effective_norms=NORMS)]) == 0.7
    assert alpha_of([]) == 0.7


# -- transfer ----------------------------------------------------------------------------------


def test_the_setting_that_was_probed_is_answered_as_it_was_measured():
    assert carried({}) == limit()


@pytest.mark.parametrize(
    ("max_staleness", "factor"),
    [
        (7, min(1.4, (15 / 7) ** 0.35)),
        (13, (15 / 13) ** 0.35),
        (0, 1.4),  # never beyond what was held with fresh rollouts
        (31, (15 / 31) ** 0.7),
        (63, (15 / 63) ** 0.7),
    ],
)
def test_where_staleness_binds_the_edge_follows_the_drift_exponent(max_staleness, factor):
    found = carried({"max_staleness": max_staleness})
    assert found.median == pytest.approx(1e-3 * factor, rel=1e-6)


def test_more_staleness_than_was_probed_is_less_certain_and_far_more_is_refused():
    assert carried({"max_staleness": 31}).log_sd == pytest.approx(
        math.hypot(0.4, 0.4 * 0.7 * math.log(31 / 15))
    )
    assert carried({"max_staleness": 7}).log_sd == pytest.approx(0.4)
    with pytest.raises(RefusedTransfer, match=r"probed at S = 15; S = 64 is more than 4 times"):
        carried({"max_staleness": 64})


def test_fresh_rollouts_say_nothing_of_stale_ones():
    with pytest.raises(RefusedTransfer, match="fresh rollouts only"):
        carried({"max_staleness": 1}, probed={"max_staleness": 0})


def test_where_the_local_step_binds_less_staleness_buys_nothing():
    local = limit(binding="local_step")
    assert carried({"max_staleness": 0}, start=local).median == pytest.approx(1e-3)
    assert carried({"max_staleness": 31}, start=local).median < 1e-3
    assert carried({"clip_epsilon": 0.4}, start=local).median == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("asked", "factor", "wider"),
    [
        ({"prompts": 32}, 2**0.25, 0.0),  # the square root of 2, of which half counts
        ({"prompts": 8, "group_size": 4}, 0.5, 0.6 * math.log(2)),
        ({"prompts": 32, "group_size": 4}, 1.0, 0.0),
        ({"hidden_size": 128}, 0.5, 0.4 * math.log(2)),
        ({"hidden_size": 32}, 1.4, 0.0),  # half of 2 is more than fresh rollouts were held at
        ({"steps": 600}, 1.0, 0.1 * math.log(2)),
        ({"steps": 150}, 1.0, 0.0),
        ({"clip_epsilon": 0.1}, math.log(0.9) / math.log(0.8), 0.4 * math.log(2.1179)),
        (
            {"clip_epsilon": 0.1, "clip_epsilon_high": 0.2},
            math.log(0.9) / math.log(0.8),
            0.4 * math.log(2.1179),
        ),
        ({"clip_epsilon_high": 0.4}, 1.0, 0.0),  # below, as many tokens are clipped as before
        ({"clip_epsilon": 0.22}, math.sqrt(math.log(1.22) / math.log(1.2)), 0.0),
        ({"clip_epsilon": 0.4}, math.sqrt(math.log(1.4) / math.log(1.2)), 0.0),
    ],
)
def test_every_rule_has_its_factor_and_its_price(asked, factor, wider):
    found = carried(asked)
    assert found.median == pytest.approx(1e-3 * factor, rel=1e-6)
    assert found.log_sd == pytest.approx(math.hypot(0.4, wider), rel=1e-3)


def test_plain_gradient_descent_knows_no_width_rule():
    found = carried({"hidden_size": 128}, probed={"optimizer": "sgd"})
    assert found.median == pytest.approx(1e-3)
    assert found.log_sd > 0.4


@pytest.mark.parametrize("risk", [0.02, 0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("log_sd", [0.3, 0.4, 0.76])
@pytest.mark.parametrize("probed_at", [1, 3, 15, 63])
@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"max_staleness": s // 2},
        lambda _: {"max_staleness": 0},
        lambda _: {"steps": 150},
        lambda _: {"clip_epsilon": 0.4},
        lambda _: {"clip_epsilon_high": 0.4},
    ],
    ids=["half S", "S = 0", "half T", "double clip", "double clip above"],
)
def test_an_easier_setting_never_lowers_the_rate(change, probed_at, log_sd, risk):
    start = limit(log_sd=log_sd)
    probed = {"max_staleness": probed_at}
    segments = [a_hold(1e-3, max_staleness=probed_at)]
    found = carried(change(probed_at), probed=probed, start=start, segments=segments)
    assert rate_at([found], risk) >= rate_at([start], risk) * (1 - 1e-9)


def test_a_wider_clip_never_lowers_the_rate_at_the_smallest_risks():
    found = carried({"clip_epsilon": 0.4}, start=limit(log_sd=0.3))
    assert rate_at([found], 1e-6) >= rate_at([limit(log_sd=0.3)], 1e-6)


# -- safe levels -------------------------------------------------------------------------------


def test_the_packaged_levels_are_positive_and_name_how_far_they_scatter():
    levels = safe_levels()
    each = [levels.edge_over_crossing, levels.edge_over_horizon, levels.sqrt_kl]
    assert all(level.value > 0 and level.log_sd > 0 for level in each)
    assert set(levels.best_over_edge) == {"survival", "horizon"}
    assert all(0 < share <= 1 for share in levels.best_over_edge.values())
    assert levels.collapse_over_damage > 1
