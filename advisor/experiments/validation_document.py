"""The report of a validation: every figure with its interval, every baseline beside it. Pure."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from ..scores import Advised, Closeness, Share, best_constant, closeness, regret, share
from ..truth import RateOutcome, grid_rate
from .validation import RISKS, Judged, Truth, Validation, first_advice

PAPER_STALENESS = 1.6e-6
PAPER_HORIZON = 3.2e-5
LITERATURE_RATE = 1e-6
FULL_GRID = 9 * 3
"""Rates × seeds of the grid that an answer is held against in cost."""


TITLE = """# Is the advice true?

Every cell is a setting. Two independent probes of it are made, each advises, runs are made at what
was advised, and the truth is found on a grid of rates. Written by

    python -m advisor validate --split "held out" --report docs/validation.md

Cells, split and seeds stand in `advisor/data/cells.json` and were fixed before the first run. The
safe levels (`advisor/data/safe_levels.json`) were fitted to the other half of the cells, those for
tuning, by `python -m advisor validate --split tuning --fit FILE`. Probes never read gold; the truth
does."""
TRIED = """## What was tried and did not work

- *A ramp of the learning rate alone.* It breaks at the same rate whatever S is; see the baselines.
- *Waiting for a learned reward to fall.* It rises while gold falls: holds on it have no crossing.
- *Projecting √KL in Σ η from the first steps on.* It first grows with about the third root, later
  faster, so that an error of 0.2 in ln √KL is one of 0.6 in ln η. For long the displacement was
  projected instead, which grows regularly, with what √KL says of where it is critical; that took
  reward models for more unlike than they are. Without the first 20 steps, without what lies far
  beyond the limit, and with a pull to the usual exponents √KL itself is projected within 0.17.
- *Judging a hold against its own evaluation of the start.* 512 rollouts leave ±0.02, which flips
  the sign of a gain near the edge; the evaluations of all segments are pooled.
- *A line through all holds.* Below the best rate the gain still grows with η; the line begins at
  the largest gain.
- *Widening a limit that is carried to an easier setting.* It lowered the advice for less staleness.
  A rule that raises the edge now counts half and does not widen.
- *Withholding a suggestion where no hold gained by more than its standard error.* Three of 24 were
  withheld on the held-out cells and count as a regret of 100 %; holds stand near the edge, where
  fifty steps gain little. Since then only a probe in which nothing gained withholds one.
- *A safe level that is a curve in S or T.* The level of the survival limit is the edge over the
  crossing, 1.47 with a spread of 0.185 in ln η. Of that 0.15 is taken for the scatter of seeds,
  which leaves 0.11 between tuning cells with S from 0 to 63 and T from 200 to 384; the floor of
  the fit is 0.10. A curve has nothing to explain there, and none was fitted.
- *M2 ≤ 0.04 as a red flag.* Half of the healthy runs of the small model exceed it."""


def document(found: Validation) -> str:
    """Return the report in Markdown."""
    parts = [TITLE, _opening(found), _safety(found), _closeness(found), _regret(found)]
    facts = [_cost(found), TRIED, _cells(found), _probes(found)]
    return "\n\n".join([*parts, *facts]) + "\n"


def _opening(found: Validation) -> str:
    names = ", ".join(truth.cell.name for truth in found.truths)
    return (
        f"## Cells of the split *{found.split}*\n\n{len(found.truths)} cells ({names}), two probes "
        "with independent seeds each, three seeds for every run. Rates of the true grid stand at "
        "ratio √2. Intervals are exact at 95 %."
    )


# -- is it safe -------------------------------------------------------------------------------


def false_safe(found: Validation, risk: float) -> Share:
    """Return how many runs at the rate advised for a risk were unsafe."""
    outcomes = [o for each in found.judged if (o := each.at_risk[risk]) is not None]
    return share(sum(o.unsafe for o in outcomes), sum(o.runs for o in outcomes))


def _safety(found: Validation) -> str:
    rows = []
    for risk in RISKS:
        seen = false_safe(found, risk)
        inside = "yes" if seen.low <= risk <= seen.high else "**no**"
        kinds = [o for each in found.judged if (o := each.at_risk[risk]) is not None]
        rows.append(
            f"| {risk:.0%} | {seen.k} of {seen.n} | {_share(seen)} | {inside} | "
            f"{sum(o.collapsed for o in kinds)} / {sum(o.diverged for o in kinds)} / "
            f"{sum(o.damaged for o in kinds)} |"
        )
    per_cell = {
        truth.cell.name: sum(
            o.unsafe
            for each in found.judged
            if each.tried.cell.name == truth.cell.name and (o := each.at_risk[RISKS[0]]) is not None
        )
        for truth in found.truths
    }
    worst = max(per_cell, key=lambda name: per_cell[name])
    return (
        "### Is the advised rate safe?\n\n"
        "| stated risk | unsafe runs | observed | stated inside | collapsed/diverged/damaged |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        f"Target at risk 2 %: at most 5 %, no cell more than 2 of 6; the worst cell is {worst} "
        f"with {per_cell[worst]}."
    )


def _share(seen: Share) -> str:
    value = "-" if seen.value is None else f"{seen.value:.1%}"
    return f"{value} ({seen.low:.1%} … {seen.high:.1%})"


# -- is it close ------------------------------------------------------------------------------


def baselines(found: Validation) -> dict[str, list[Advised]]:
    """Return what every rule would have advised, Etalon's first."""
    truths = {truth.cell.name: truth for truth in found.truths}
    known = [truth for truth in found.truths if truth.rate is not None]
    constants = {
        workload: best_constant([t.rate or 0.0 for t in known if _workload(t) == workload])
        for workload in {_workload(t) for t in known}
    }
    ramps = {id(each): _ramp(each) for each in found.judged}
    ratios = [
        (truths[each.tried.cell.name].rate or 0.0) / ramp
        for each in found.judged
        if (ramp := ramps[id(each)]) is not None and truths[each.tried.cell.name].rate is not None
    ]
    ramp_share = best_constant(ratios) if ratios else 1.0

    def by_probe(rule: Callable[[Judged], float | None]) -> list[Advised]:
        return [_advised(truths[e.tried.cell.name], rule(e)) for e in found.judged]

    return {
        "Etalon, risk 2 %": by_probe(lambda e: e.tried.advice[RISKS[0]].max_learning_rate),
        "Etalon, risk 10 %": by_probe(lambda e: e.tried.advice[RISKS[1]].max_learning_rate),
        "learning-rate ramp × best factor in hindsight": by_probe(
            lambda e: None if (r := ramps[id(e)]) is None else r * ramp_share
        ),
        "best constant per workload in hindsight": [
            _advised(t, constants.get(_workload(t))) for t in found.truths
        ],
        "the paper's constants as they are": [_advised(t, _paper(t)) for t in found.truths],
        f"a published rate, {LITERATURE_RATE:g}": [
            _advised(t, LITERATURE_RATE) for t in found.truths
        ],
    }


def _workload(truth: Truth) -> str:
    return str(truth.cell.setting["workload"])


def _advised(truth: Truth, rate: float | None) -> Advised:
    return Advised(cell=truth.cell.name, workload=_workload(truth), true_rate=truth.rate, rate=rate)


def _ramp(each: Judged) -> float | None:
    return next((s.broke_at for s in each.tried.probe.segments if s.is_ramp), None)


def _paper(truth: Truth) -> float:
    setting = truth.cell.setting
    staleness, steps = float(setting["max_staleness"]), float(setting["steps"])
    return min(PAPER_STALENESS / max(1, staleness), PAPER_HORIZON / steps)


def _closeness(found: Validation) -> str:
    rows = []
    for name, advised in baselines(found).items():
        score = closeness(advised)
        rows.append(f"| {name} | {_score(score)} |")
    rates = {
        w: [t.rate for t in found.truths if t.rate is not None and _workload(t) == w]
        for w in sorted({_workload(t) for t in found.truths})
    }
    spans = ", ".join(f"{w} {max(r) / min(r):.0f}×" for w, r in rates.items() if r)
    return (
        "### Is it close to the truth?\n\n"
        "| rule | missing | true / advised: median, worst | above the truth | Spearman | "
        "mean \\|log2\\| |\n|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        f"True η_max spans, within a workload: {spans}. Targets: median at most 1.5, worst at most "
        "3, Spearman at least 0.8, mean \\|log2\\| at most half that of the best constant; at most "
        "1 in 12 missing."
    )


def _score(score: Closeness) -> str:
    return (
        f"{score.missing} of {score.cells} | {score.median:.2f}, {score.worst:.2f} | "
        f"{score.above.k} of {score.above.n} | {_number(score.spearman)} | "
        f"{_number(score.mean_log2)}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# -- is the suggestion good, is it cheap ------------------------------------------------------


def regrets(found: Validation) -> list[tuple[str, float | None]]:
    """Return the regret of every suggested rate against the best, re-run on fresh seeds."""
    each = []
    for judged in found.judged:
        truth = found.truth_of(judged.tried.cell)
        each.append((truth.cell.name, _regret_of(truth, judged.at_suggested)))
    return each


def _regret_of(truth: Truth, got: RateOutcome | None) -> float | None:
    if truth.best is None or truth.best.reward is None:
        return None
    reward = truth.start if got is None or got.reward is None else got.reward
    return regret(truth.best.reward, reward, truth.start)


def constant_regrets(found: Validation) -> list[float]:
    """Return the regret of the best constant per workload, read off the grid."""
    constants: dict[str, float] = {}
    for workload in {_workload(t) for t in found.truths}:
        rates = {i for t in found.truths if _workload(t) == workload for i in t.outcomes}
        constants[workload] = min(
            (grid_rate(i) for i in rates),
            key=lambda rate: _sum_of_regrets(
                [t for t in found.truths if _workload(t) == workload], rate
            ),
        )
    values = [_regret_at(t, constants[_workload(t)]) for t in found.truths]
    return [v for v in values if v is not None]


def _sum_of_regrets(truths: Sequence[Truth], rate: float) -> float:
    values = [_regret_at(t, rate) for t in truths]
    return sum(1.0 if v is None else min(v, 2.0) for v in values)


def _regret_at(truth: Truth, rate: float) -> float | None:
    known = {i: o for i, o in truth.outcomes.items() if o.reward is not None}
    if not known:
        return None
    near = min(known, key=lambda i: abs(math.log(grid_rate(i) / rate)))
    if abs(math.log(grid_rate(near) / rate)) > math.log(1.5):  # beyond the grid: as its start
        return 1.0
    return _regret_of(truth, known[near])


def _regret(found: Validation) -> str:
    each = [value for _, value in regrets(found) if value is not None]
    constant = constant_regrets(found)
    if not each:
        return "### Is the suggested rate good?\n\nNo cell has a best rate to compare with."
    words = (
        f"median {statistics.median(each):.0%}, worst {max(each):.0%} of {len(each)} "
        f"suggestions; best constant per workload in hindsight: median "
        f"{statistics.median(constant):.0%}, worst {max(constant):.0%}"
    )
    return (
        "### Is the suggested rate good?\n\nRegret is (best − got)/(best − start) on θ_T, the best "
        f"rate re-run on three fresh seeds: {words}. Targets: median at most 10 %, worst at most "
        "30 %, and half that of the best constant."
    )


def _cost(found: Validation) -> str:
    shares, apart = [], []
    by_cell: Mapping[str, list[Judged]] = {t.cell.name: [] for t in found.truths}
    for each in found.judged:
        by_cell[each.tried.cell.name].append(each)
        grid = FULL_GRID * int(each.tried.cell.setting["steps"])
        shares.append(each.tried.probe.calibration.cost_steps / grid)
    for pair in by_cell.values():
        edges = [e for each in pair if (e := first_advice(each.tried).edge) is not None]
        if len(edges) == 2:
            apart.append(max(edges) / min(edges))
    steps = [each.tried.probe.calibration.cost_steps for each in found.judged]
    agree = (
        f"two probes of a cell agree on the edge within a factor of {statistics.median(apart):.2f} "
        f"(median), {max(apart):.2f} (worst)"
        if apart
        else "no cell has two edges"
    )
    return (
        f"### What does an answer cost?\n\n{statistics.median(steps):.0f} learner steps (median; "
        f"at most {max(steps):.0f}), evaluations included: {statistics.median(shares):.1%} of nine "
        f"rates × three seeds × T (worst {max(shares):.1%}, target 10 %); {agree} (target 1.5)."
    )


# -- the facts --------------------------------------------------------------------------------


def _cells(found: Validation) -> str:
    rows = []
    for truth in found.truths:
        setting = ", ".join(f"{k} {v}" for k, v in truth.cell.setting.items() if k != "workload")
        grid = "; ".join(
            f"{grid_rate(i):.2g}: {o.collapsed}/{o.diverged}/{o.damaged}"
            + ("" if o.reward is None else f" → {o.reward:.3f}")
            for i, o in sorted(truth.outcomes.items())
        )
        rate = "none" if truth.rate is None else f"{truth.rate:.3g}"
        rows.append(
            f"| {truth.cell.name} | {_workload(truth)}: {setting} | {truth.start:.3f} | {rate} | "
            f"{grid} |"
        )
    return (
        "### The truth of every cell\n\nPer rate: collapsed/diverged/damaged of three seeds → mean "
        "final reward (gold where there is one).\n\n"
        "| cell | setting | start | true η_max | grid |\n|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _probes(found: Validation) -> str:
    rows = []
    for each in found.judged:
        advice = first_advice(each.tried)
        given = "; ".join(
            f"{risk:.0%}: {_rate(each.tried.advice[risk].max_learning_rate)} ({_unsafe(o)})"
            for risk, o in each.at_risk.items()
        )
        value = _regret_of(found.truth_of(each.tried.cell), each.at_suggested)
        rows.append(
            f"| {each.tried.cell.name} | {each.tried.probe_seed} | {advice.binding} | "
            f"{_rate(advice.edge)} | {given} | {_rate(advice.suggested_learning_rate)} | "
            f"{'-' if value is None else f'{value:.0%}'} |"
        )
    return (
        "### Every probe and what it advised\n\nIn brackets: unsafe of the runs that were made at "
        "that rate.\n\n"
        "| cell | probe seed | binding | edge | advised at risk | suggested | regret |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2g}"


def _unsafe(outcome: RateOutcome | None) -> str:
    return "-" if outcome is None else f"{outcome.unsafe} of {outcome.runs}"
