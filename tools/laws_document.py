"""Write docs/laws.md and its figures from the archive: ``python tools/laws_document.py``.

Every figure and verdict is computed from the runs of the three studies, ``advisor laws --study …``;
the targets stand here as they stood before those runs were made. Needs a Chromium for the pictures.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly
from playwright.sync_api import sync_playwright

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from advisor import bias_laws, collapse_laws, law_figures  # noqa: E402  (no installed package)
from advisor.drawing import Figure  # noqa: E402
from advisor.experiments import study  # noqa: E402
from advisor.experiments.laws_command import laws  # noqa: E402
from advisor.regime import Estimate  # noqa: E402
from storage.records import RunInfo  # noqa: E402
from storage.store import Store  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMMANDS = "\n".join(f"    python -m advisor laws --study {kind}" for kind in study.STUDIES)


def main() -> None:
    """Read the archive, draw, write."""
    parser = argparse.ArgumentParser(description="Write docs/laws.md from the archive.")
    parser.add_argument("--db", help="archive (default: the configured one)")
    parser.add_argument("--folder", type=Path, default=PROJECT / "docs")
    options = parser.parse_args()
    store = Store.open(options.db, create=False)
    runs = {kind: study.runs_of(store, study.default_group(kind)) for kind in study.STUDIES}
    found = laws(store)
    probes = study.probes_of(store, runs["bias"])
    lifetimes = {kind: study.lifetimes_of(store, runs[kind]) for kind in ("horizon", "boundary")}
    horizons = {"horizon": found["horizon"], "boundary": found["horizon_of_boundary_runs"]}
    tried = {
        "collapsed": study.tried_of(runs["boundary"], unsafe=False),
        "unsafe": study.tried_of(runs["boundary"], unsafe=True),
    }
    curves = [bias_laws.curve(probes, each) for each in law_figures.CORRECTION_WORDS]
    pictures = {
        "laws-bias": law_figures.bias_figure(curves),
        "laws-boundary": law_figures.boundary_figure(
            {name: collapse_laws.largest_safe(each) for name, each in tried.items()},
            {name: collapse_laws.brackets(each) for name, each in tried.items()},
        ),
    }
    for kind, law in horizons.items():
        if law["collapses"]:
            pictures[f"laws-collapse-{kind}"] = law_figures.collapse_figure(lifetimes[kind])
            pictures[f"laws-clocks-{kind}"] = law_figures.clock_figure(
                lifetimes[kind], law["clocks"]
            )
    draw(pictures, options.folder)
    text = "\n".join(
        [
            opening(runs),
            bias_part(found["bias"], curves, probes),
            *(horizon_part(kind, law, lifetimes[kind]) for kind, law in horizons.items()),
            boundary_part(found["boundary"], tried),
            drift_part(found["drift"]),
        ]
    )
    (options.folder / "laws.md").write_text(text, encoding="utf-8")
    store.close()


def draw(pictures: dict[str, Figure], folder: Path) -> None:
    """Photograph each figure as the browser draws it."""
    script = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text("utf-8")
    path = next((p for name in BROWSERS if (p := shutil.which(name))), None)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        page = browser.new_page(viewport={"width": 900, "height": 600}, device_scale_factor=1.5)
        page.set_content("<body style='margin:0;background:white'><div id='plot'></div></body>")
        page.add_script_tag(content=script)
        for name, chart in pictures.items():
            page.evaluate(
                "chart => Plotly.react('plot', chart.data, chart.layout, {staticPlot: true})",
                _printed(chart),
            )
            page.locator("#plot .svg-container").screenshot(path=folder / f"{name}.png")
        browser.close()


def _printed(chart: Figure) -> Any:
    """Return a figure for paper: margins that fit, and the legend beside it."""
    axes = {a: {**chart["layout"][a], "automargin": True} for a in ("xaxis", "yaxis")}
    layout = {**chart["layout"], **axes, "width": 900, "font": {"size": 13}}
    layout["legend"] = {"orientation": "v"}
    layout["margin"] = {"l": 20, "r": 20, "t": 50, "b": 20}
    return json.loads(json.dumps({"data": chart["data"], "layout": layout}))


# -- the parts of the document ---------------------------------------------------------------------


def opening(runs: dict[str, list[RunInfo]]) -> str:
    """Say what was run, at what cost."""
    rows = [
        f"| {kind} | {each.setting['workload']}, {each.setting['steps']} steps | "
        f"{', '.join(f'{r:g}' for r in each.learning_rates)} | "
        f"{', '.join(map(str, each.stalenesses))} | {', '.join(map(str, each.seeds))} | {len(runs[kind])} | "
        f"{core_minutes(runs[kind]):.0f} |"
        for kind, each in study.STUDIES.items()
    ]
    return f"""# The three laws, as measured

arXiv 2607.01083 claims that stale rollouts bias the surrogate gradient by O(S·η), that collapse comes
after a fixed cumulative drift T·η while clipping is inactive, and that the stable boundary falls with
S only where the local constraint binds. This page says where that holds on the built-in workloads and
where it does not. It is written by `make laws`, which runs

{COMMANDS}

and then this document; an interrupted study goes on where it was. Cells, seeds and targets were
fixed beforehand (`advisor/experiments/study.py`). A policy has 133 k parameters, a batch 16 prompts × 8
rollouts, the optimizer is AdamW (0.9, 0.95) with 10 steps of warm-up, the clip 0.2, the schedule
cyclic. Intervals are 95 %.

| study | setting | learning rates | S (bias: lags) | seeds | runs that ended | core-minutes |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def core_minutes(runs: Sequence[RunInfo]) -> float:
    """Sum of the runs' durations; each has one thread."""
    return sum((r.ended_at or 0) - (r.started_at or 0) for r in runs if r.started_at) / 60


def bias_part(law: dict[str, Any], curves: Sequence[Any], probes: Sequence[Any]) -> str:
    """Write law (a)."""
    shards = listed({p.shards for p in probes})
    rollouts = listed({p.rollouts for p in probes})
    rows = [
        f"| {curve.correction} | {row[0]:g} | {row[1]} | {row[0] * row[1]:.1e} | {row[2]:.3f} | "
        f"{row[6]:.2%} | {row[3]:.3f} | {row[4]:.3f} … {row[5]:.3f} |"
        for curve in curves
        for row in curve.rows
    ]
    product = multiplied(law["uncorrected_exponent_in_drift"], law["drift_exponent"])
    return f"""
## Bias of the gradient

At the last policy of runs with fresh rollouts, against the weights of the same run some steps
before: {shards} shards of independent prompts, {rollouts} rollouts per lag, cross-fitted and signed.
Fits use S·η up to {bias_laws.LARGEST_S_ETA:g}.

![Relative bias against drift](laws-bias.png)

| question | target | measured | |
|---|---|---|---|
| no correction (r ≡ 1): exponent of ‖b‖ in drift | 1 ± 0.15 | {spelled(law["uncorrected_exponent_in_drift"])} | {inside(law["uncorrected_exponent_in_drift"], 0.85, 1.15)} |
| the same in lag S | that in drift × α | {spelled(law["uncorrected_exponent_in_lag"])} against {product} | {agree(law["uncorrected_exponent_in_lag"], law["uncorrected_exponent_in_drift"], law["drift_exponent"])} |
| exponent α of the drift in lag | – | {spelled(law["drift_exponent"])} | |
| with the clip: ‖b‖ at equal drift, largest η over smallest | within 25 % | {spelled(law["clipped_ratio_at_equal_drift"])} | {inside(law["clipped_ratio_at_equal_drift"], 0.8, 1.25)} |
| no correction: the same | within 25 % | {spelled(law["uncorrected_ratio_at_equal_drift"])} | {inside(law["uncorrected_ratio_at_equal_drift"], 0.8, 1.25)} |
| with the clip: drift at which the bias passes 10 % | an onset | {spelled(law["clipped_onset_drift"])} | |
| with the clip: steepest local exponent | > 1, an onset | {spelled(law["clipped_steepest_slope"])} | {above(law["clipped_steepest_slope"], 1.0)} |
| with the clip: exponent at the largest drift | < 0.5, saturation | {spelled(law["clipped_last_slope"])} | {below(law["clipped_last_slope"], 0.5)} |
| without the clip: largest relative bias that the intervals allow | a bound | {spelled(law["unclipped_upper_bound"])} | |

The checkpoints of a seed at two rates are different policies, so ‖b‖ differs with ‖H‖: the ratio was
{law["clipped_ratio_at_equal_drift"].reason} with the clip and
{law["uncorrected_ratio_at_equal_drift"].reason} without correction. What three seeds can say about 25 %
is little; more of them, `--seeds 12`, would narrow it.

Lag 0 is the control, with random numbers of its own: its true bias is 0. Token ratios repair a token's own
probability, but neither that of its prefix nor that of the other answers of its group, whose rewards
set its advantage; so even without the clip some bias may be left.

| gradient | η | lag | S·η | drift | active clip | relative bias | interval |
|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def horizon_part(kind: str, law: dict[str, Any], lifetimes: Sequence[Any]) -> str:
    """Write law (b) on the runs of one study."""
    workload = study.STUDIES[kind].setting["workload"]
    if not law["collapses"]:
        return f"""
## When runs collapse: `{workload}`

Not known: {law["runs"]} runs of the {kind} study have ended and none collapsed. To make them: `{law["to_run"]}`.
"""
    cells = sorted({(run.learning_rate, run.max_staleness) for run in lifetimes})
    rows = []
    for rate, staleness in cells:
        cell = [r for r in lifetimes if (r.learning_rate, r.max_staleness) == (rate, staleness)]
        steps = ", ".join(f"{r.step}" if r.collapsed else f"> {r.step}" for r in cell)
        clips = [r.clip_fraction for r in cell if r.clip_fraction is not None]
        clip = f"{max(clips):.2%}" if clips else "impossible"
        rows.append(f"| {rate:g} | {staleness} | {steps} | {clip} |")
    clocks = [
        f"| {fit.clock} | {spelled(fit.log_sd)} | "
        f"{'not known' if fit.held_out is None else f'{fit.held_out:.3f}'} |"
        for fit in law["clocks"]
    ]
    winner = next((f for f in law["clocks"] if f.clock == law["winning_clock"]), None)
    log_sd = winner.log_sd if winner else law["clocks"][0].log_sd
    quiet, every = law["exponents"], law["exponents_all_cells"]
    return f"""
## When runs collapse: `{workload}`

The {kind} study: {law["runs"]} runs, {law["collapses"]} of which collapsed; the others are
censored at their end. {law["runs_without_active_clip"]} runs are in cells whose active clip stays below
{collapse_laws.INACTIVE_CLIP:.1%} to onset in every seed: there the law is claimed.

![Collapse step against the learning rate](laws-collapse-{kind}.png)

| question | target | measured | |
|---|---|---|---|
| exponent of the collapse step in η, clip inactive | −1 ± 0.25 | {spelled(quiet["rate"])} | {inside(quiet["rate"], -1.25, -0.75)} |
| exponent in S+1, clip inactive | 0 ± 0.25 | {spelled(quiet["period"])} | {inside(quiet["period"], -0.25, 0.25)} |
| exponent in η, all cells | – | {spelled(every["rate"])} | |
| exponent in S+1, all cells | – | {spelled(every["period"])} | |
| clock with the best held-out likelihood | – | {law["winning_clock"] or "not known"} | |
| log-sd of that clock at collapse | ≤ 0.2 | {spelled(log_sd)} | {below(log_sd, 0.2)} |

![Every collapse on every clock](laws-clocks-{kind}.png)

Clocks compete by the likelihood of each learning rate's runs under a fit to the others, per run and
in log steps, so that clocks of different units compare; larger is better.

| clock | log-sd at collapse | held-out log-likelihood |
|---|---|---|
{chr(10).join(clocks)}

| η | S | onset step of each seed | largest mean active clip |
|---|---|---|---|
{chr(10).join(rows)}
"""


def boundary_part(law: dict[str, Any], tried: dict[str, Any]) -> str:
    """Write law (c)."""
    tables = []
    for name in ("collapsed", "unsafe"):
        safe = law[name]["largest_safe"]
        counts = {s: sum(t.bad for t in tried[name] if t.max_staleness == s) for s in safe}
        rates = " | ".join("none" if r is None else f"{r:g}" for r in safe.values())
        tables += [
            f"| largest rate at which no seed is {name} | {rates} |",
            f"| runs {name} | {' | '.join(str(counts[s]) for s in safe)} |",
        ]
    heads = " | ".join(f"S = {s}" for s in law["unsafe"]["largest_safe"])
    slopes = [
        f"| {words} | {name} | {spelled(law[name]['slopes'][key])} | {law[name]['regimes'][key]} |"
        for name in ("collapsed", "unsafe")
        for key, words in (
            ("all", "all S"),
            ("small", f"S + 1 ≤ {collapse_laws.LARGE_PERIOD}"),
            ("large", f"S + 1 ≥ {collapse_laws.LARGE_PERIOD}"),
        )
    ]
    large = law["unsafe"]["slopes"]["large"]
    return f"""
## The boundary against staleness

The `arithmetic` workload, {law["unsafe"]["runs"]} runs. *Unsafe* is collapsed, diverged or damaged.

![Largest safe learning rate against S + 1](laws-boundary.png)

| | {heads} |
|---|{"---|" * len(law["unsafe"]["largest_safe"])}
{chr(10).join(tables)}

Slope of log η_edge against log(S+1), every seed's edge interval-censored between its last safe and
its first bad rate:

| range | criterion | slope | what it speaks for |
|---|---|---|---|
{chr(10).join(slopes)}

The boundary falls with S at large S: {below(large, 0.0)}.
"""


def drift_part(law: dict[str, Any]) -> str:
    """Write how runs drift."""
    rows = [
        f"| {rate:g} | {row['runs']} | {spelled(row['alpha'])} | "
        f"{', '.join(f'{kind} {n}' for kind, n in sorted(row['kinds'].items()))} |"
        for rate, row in law["by_learning_rate"].items()
    ]
    return f"""
## How the weights drift

Exponent α of ‖θ_(t+k) − θ_t‖ in the lag k, over the boundary's runs that were not unsafe, from lags
beyond 1/(1 − β1) and after the warm-up; each run is held against what pure noise through the same
momentum would show.

| η | runs | α | runs by kind of drift |
|---|---|---|---|
{chr(10).join(rows)}
"""


# -- words -----------------------------------------------------------------------------------------


def spelled(estimate: Estimate) -> str:
    """Write an estimate with its interval, or why there is none."""
    ends = [None if end is None else f"{end:.2g}" for end in (estimate.low, estimate.high)]
    if estimate.value is None and ends == [None, None]:
        return f"not known: {estimate.reason}"
    if estimate.value is None:
        return f"at most {ends[1]}" if ends[0] is None else f"at least {ends[0]}"
    interval = "" if None in ends else f" ({ends[0]} … {ends[1]})"
    return f"{estimate.value:.2g}{interval}"


def listed(numbers: set[int]) -> str:
    """Write the numbers that occur; usually there is one."""
    return " or ".join(f"{number:,}" for number in sorted(numbers)) or "no"


def inside(estimate: Estimate, low: float, high: float) -> str:
    """Hold a value and its interval against a range."""
    if estimate.value is None:
        return "not known"
    bottom = estimate.value if estimate.low is None else estimate.low
    top = estimate.value if estimate.high is None else estimate.high
    if low <= bottom and top <= high:
        return "holds"
    if low <= estimate.value <= high:
        return "holds; the interval reaches beyond"
    return "**does not hold**" + (
        "; the interval reaches it" if bottom <= high and top >= low else ""
    )


def above(estimate: Estimate, bound: float) -> str:
    """Hold a value against a lower bound."""
    return inside(estimate, bound, float("inf"))


def below(estimate: Estimate, bound: float) -> str:
    """Hold a value against an upper bound."""
    return inside(estimate, float("-inf"), bound)


def multiplied(one: Estimate, other: Estimate) -> str:
    """Write the product of two estimates."""
    if one.value is None or other.value is None:
        return "not known"
    return f"{one.value * other.value:.2g}"


def agree(estimate: Estimate, one: Estimate, other: Estimate) -> str:
    """Whether an estimate's interval holds the product of two others."""
    if None in (estimate.low, estimate.high, one.value, other.value):
        return "not known"
    product = (one.value or 0) * (other.value or 0)
    return (
        "holds" if (estimate.low or 0) <= product <= (estimate.high or 0) else "**does not hold**"
    )


if __name__ == "__main__":
    main()
