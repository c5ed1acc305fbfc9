"""Watch: one run as it lives, its regime, and what remains. Page script of Streamlit."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from advisor.dashboard.archive import (
    badge,
    diagnosis_of,
    open_archive,
    run_label,
    series_of,
    status_of,
)
from advisor.dashboard.live_plot import live_plot
from advisor.figures import kappa_figure, run_figures
from advisor.glossary import label_of
from advisor.regime import Diagnosis, Estimate, Regime
from advisor.wording import pace
from storage.records import Event, RunInfo, StepMetrics, missing_reason
from storage.store import Store

REFRESH_SECONDS = 2
REGIMES = {
    Regime.STABLE: ("green", "●"),
    Regime.INSUFFICIENT_DATA: ("gray", "○"),
    Regime.STALENESS_LIMITED: ("orange", "▲"),
    Regime.HORIZON_LIMITED: ("orange", "◆"),
    Regime.STEP_LIMITED: ("orange", "■"),
    Regime.COLLAPSED: ("red", "✖"),
    Regime.DIVERGED: ("red", "✖"),
}
EVENT_ICONS = {"info": ":material/info:", "warning": ":material/warning:"}
TILES = ("reward_mean", "learning_rate", "approx_kl", "clip_fraction_low", "sequence_ess_fraction")


def page() -> None:
    """Choose a run, then show it, again every two seconds while it is alive."""
    store = open_archive()
    runs = store.runs(archived=False)
    if not runs:
        st.title("No run yet")
        st.write("Start one on the **Runs** page, or from a terminal:")
        st.code(
            "python -m trainer run --workload arithmetic --learning-rate 2e-4 "
            "--max-staleness 3 --steps 300"
        )
        return
    run = _chosen(runs)
    alive = status_of(run).alive
    st.fragment(_show, run_every=REFRESH_SECONDS if alive else None)(store, run.id, alive)


def _chosen(runs: Sequence[RunInfo]) -> RunInfo:
    """The run of the link ``?run=ID``, else the newest that is alive, else the newest."""
    by_id = {run.id: run for run in runs}
    newest = next((run.id for run in runs if status_of(run).alive), runs[0].id)
    ids = list(by_id)
    asked = st.query_params.get("run")
    chosen = st.selectbox(
        "Run",
        ids,
        index=ids.index(asked if asked in by_id else newest),
        format_func=lambda run_id: run_label(by_id[run_id]),
    )
    st.query_params["run"] = chosen
    return by_id[chosen]


def _show(store: Store, run_id: str, was_alive: bool) -> None:
    run = store.run(run_id)
    status = status_of(run)
    if was_alive and not status.alive:
        st.rerun()  # a last full run, after which nothing refreshes any more
    series = series_of(store, run_id)
    events = store.events(run_id)
    steps = len(series["step"])
    _header(run, steps, status.alive)
    if run.error:
        st.error(f"The run failed.\n```\n{run.error}\n```")
    if steps == 0:
        _before_the_first_step(events, status.alive)
        return
    last = store.steps(run_id, last=1)[0]
    _tiles(run, last)
    _limits(diagnosis_of(store, run_id, status, steps - steps % 10), run, steps)
    _charts(store, run, series)
    _events(events)


def _header(run: RunInfo, steps: int, alive: bool) -> None:
    st.subheader(run.name, anchor=False)
    planned = int(run.config.get("steps", 0)) or max(steps, 1)
    words = f"{badge(status_of(run))} &nbsp; step **{steps:,}** of {planned:,}"
    if run.outcome:
        words += f" &nbsp;·&nbsp; **{run.outcome}**: {run.outcome_reason}"
    elif alive:
        words += f" &nbsp;·&nbsp; {pace(steps, planned, run.started_at, time.time())}"
    st.markdown(words)
    st.progress(min(1.0, steps / planned))


def _before_the_first_step(events: Sequence[Event], alive: bool) -> None:
    if not alive:
        st.info("This run ended before its first learner step; there is nothing to draw.")
        return
    words = events[-1].message if events else "the process is starting"
    st.info(f"The first learner step is still to come: {words}.", icon=":material/hourglass_top:")


def _tiles(run: RunInfo, last: StepMetrics) -> None:
    for column, name in zip(st.columns(len(TILES)), TILES, strict=True):
        value = getattr(last, name)
        reason = missing_reason(run, last, name)
        shown = f"{value:.3g}" if reason is None else "–"
        column.metric(label_of(name), shown, help=reason)


def _limits(found: Diagnosis, run: RunInfo, steps: int) -> None:
    color, symbol = REGIMES[found.regime]
    word = found.regime.replace("_", " ")
    with st.container(border=True):
        st.markdown(f"**Regime** &nbsp; :{color}-badge[{symbol} {word}] &nbsp; {found.reason}")
        kappas = {
            "staleness": found.kappa_staleness,
            "horizon": found.kappa_horizon,
            "local step": found.kappa_local,
        }
        live_plot(kappa_figure(kappas), key=f"kappa-{run.id}", alt="κ of each limit against 1")
        st.caption(_horizon_words(found.horizon_step, steps))
        with st.expander("Where these numbers come from"):
            for name, kappa in kappas.items():
                st.markdown(f"- **κ {name}**: {kappa.reason or 'measured on this run'}")
            for each in found.evidence:
                st.markdown(f"- {each}")


def _horizon_words(when: Estimate, steps: int) -> str:
    if when.value is not None:
        return f"At this drift the horizon is used up at step {when.value:,.0f}; this is {steps:,}."
    if when.low is not None:
        return f"The horizon lasts beyond step {when.low:,.0f}: {when.reason}."
    return f"What remains of the horizon is unknown: {when.reason}."


def _charts(store: Store, run: RunInfo, series: Mapping[str, list[Any]]) -> None:
    evaluations = [(e.step, e.reward) for e in store.evaluations(run.id)]
    impossible = run.unmeasured.get("clip_fraction_low")
    charts = run_figures(
        series, evaluations, run.collapse_step, clipping_possible=impossible is None
    )
    if impossible:
        st.info(f"Clipping: {impossible}.")
    left, right = st.columns(2)
    for i, (name, chart) in enumerate(charts.items()):
        with right if i % 2 else left:
            title = chart["layout"]["title"]["text"]
            live_plot(chart, key=f"{name}-{run.id}", alt=f"{title} of {run.name} by learner step")


def _events(events: Sequence[Event]) -> None:
    with st.expander(f"Events ({len(events)})"):
        for event in reversed(events):
            when = time.strftime("%H:%M:%S", time.gmtime(event.time))
            icon = EVENT_ICONS.get(event.level, ":material/error:")
            st.markdown(f"{icon} `{when} UTC` **{event.kind.replace('_', ' ')}** {event.message}")


page()
