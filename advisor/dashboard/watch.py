"""Watch: one run as it lives, its regime, and what remains. Page script of Streamlit."""

import time
from collections.abc import Sequence

import streamlit as st

from advisor.clip_bias import clip_bias_words
from advisor.dashboard.archive import (
    badge,
    diagnosis_of,
    open_archive,
    patient,
    run_label,
    status_of,
)
from advisor.dashboard.feed import address, remember
from advisor.dashboard.live_plot import Feed, live_plot
from advisor.dashboard.run_charts import BIAS_PROBES, run_charts
from advisor.dashboard.samples import show_samples
from advisor.dashboard.window import window_fields
from advisor.drawing import reading_of
from advisor.figures import kappa_figure
from advisor.overview import (
    planned_steps,
    recent_steps,
    share_done,
    step_seconds,
    tiles,
)
from advisor.regime import Diagnosis, Regime
from advisor.wording import horizon, literal, pace
from storage.records import AlertDelivery, DeliveryState, Event, RunInfo
from storage.store import Store

REFRESH_SECONDS, FEED_SECONDS = 2, 1  # of the words and numbers of the page, and of its charts
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
ALERT_ICONS = {
    DeliveryState.PENDING: ":material/schedule_send:",
    DeliveryState.DELIVERED: ":material/check:",
    DeliveryState.FAILED: ":material/error:",
}
KAPPA_HELP = (
    "Each bar is how much of a limit this run uses, as an interval: **staleness** compares the "
    "drift within a staleness cycle with the drift at which clipping takes over, **horizon** the "
    "drift up to the planned end with the drift at which runs of this setting collapsed, **slide** "
    "the same with the drift at which they began to fall, which comes earlier, **local step** the "
    "largest early update with one that breaks the policy at once. Hatched: one end is unknown."
)


def page() -> None:
    """Choose a run, then show it; what is above and below its charts again every two seconds."""
    store = open_archive()
    runs = store.runs()
    asked = st.query_params.get("run")
    shown = [run for run in runs if not run.archived or run.id == asked]
    if not shown:
        _nothing_to_watch(put_away=len(runs))
        return
    if asked is not None and asked not in {run.id for run in runs}:
        st.warning(f"There is no run {literal(asked)} in the archive; this is another one.")
    run = _chosen(shown, asked)
    left, middle, right = st.columns([4, 2, 2], vertical_alignment="center")
    window, until = window_fields(left, middle)
    alive = status_of(run).alive
    paused = alive and right.toggle("Pause", key="paused", help="Stand still; the run goes on.")
    every = REFRESH_SECONDS if alive and not paused else None
    drawn = store.last_step(run.id) is not None
    head = st.container()
    if drawn:  # the charts come first: judging a long run takes longer than drawing it
        still = every is None or until is not None
        _charts(store, run, window, until, None if still else FEED_SECONDS)
    with head:
        st.fragment(patient(_head), run_every=every)(store, run.id, was_alive=alive, drawn=drawn)
    st.fragment(patient(_foot), run_every=every)(store, run.id)


def _nothing_to_watch(*, put_away: int) -> None:
    st.title("No run yet" if not put_away else "No run to watch", anchor=False)
    if put_away:
        st.write(f"Every run is archived ({put_away}); the **Runs** page can bring them back.")
    st.write("Start one on the **Runs** page, or from a terminal:")
    st.code(
        "python -m trainer run --workload arithmetic --learning-rate 2e-4 "
        "--max-staleness 3 --steps 300",
        wrap_lines=True,
    )
    st.page_link("advisor/dashboard/runs.py", label="Go to Runs", icon=":material/list:")


def _chosen(runs: Sequence[RunInfo], asked: str | None) -> RunInfo:
    """The run of the link ``?run=ID``, else the newest that is alive, else the newest."""
    by_id = {run.id: run for run in runs}
    if st.session_state.get("watch-run") not in by_id:
        newest = next((run.id for run in runs if status_of(run).alive), runs[0].id)
        st.session_state["watch-run"] = asked if asked in by_id else newest
    left, right = st.columns([1, 1], vertical_alignment="center")
    chosen = right.selectbox(
        "Run",
        list(by_id),
        format_func=lambda run_id: run_label(by_id[run_id]),
        key="watch-run",
        label_visibility="collapsed",
    )
    left.subheader(literal(by_id[chosen].name), anchor=False)
    st.query_params["run"] = chosen
    return by_id[chosen]


def _head(store: Store, run_id: str, was_alive: bool, drawn: bool) -> None:
    run = store.run(run_id)
    alive = status_of(run).alive
    last = store.last_step(run_id)
    if was_alive and (not alive or (last is not None and not drawn)):
        st.rerun()  # the first charts, or a last full run, after which nothing refreshes any more
    steps = 0 if last is None else last + 1
    _header(run, steps, alive)
    if run.error:
        _failure(run.error)
    if last is None:
        _before_the_first_step(store.events(run_id), alive)
        return
    _tiles(store, run)
    _limits(diagnosis_of(store, run, steps), run, steps)


def _foot(store: Store, run_id: str) -> None:
    show_samples(store, [store.run(run_id)])
    _alerts(store.deliveries(run_id))
    _events(store.events(run_id))


def _header(run: RunInfo, steps: int, alive: bool) -> None:
    planned = planned_steps(run)
    of = "" if planned is None else f" of {planned:,}"
    words = f"{badge(status_of(run))} &nbsp; step **{steps:,}**{of}"
    if run.outcome is not None and run.outcome != run.status:
        words += f" &nbsp;·&nbsp; **{run.outcome}**"
    if run.outcome_reason is not None:
        words += f" &nbsp;·&nbsp; {literal(run.outcome_reason)}"
    if alive:
        words += f" &nbsp;·&nbsp; {pace(steps, planned, run.started_at, time.time())}"
    st.markdown(words)
    done = share_done(run, steps)
    if done is not None:
        st.progress(done)


def _failure(traceback: str) -> None:
    st.error(f"The run failed: {literal(traceback.strip().splitlines()[-1])}")
    with st.expander("Traceback"):
        st.code(traceback, language="python", wrap_lines=True)


def _before_the_first_step(events: Sequence[Event], alive: bool) -> None:
    if not alive:
        st.info("This run ended before its first learner step; there is nothing to draw.")
        return
    words = literal(events[-1].message) if events else "the process is starting"
    st.info(f"The first learner step is still to come: {words}.", icon=":material/hourglass_top:")


def _tiles(store: Store, run: RunInfo) -> None:
    recent = store.steps(run.id, last=recent_steps(run))
    with st.container(horizontal=True, horizontal_alignment="distribute", gap="small"):
        for tile in tiles(run, recent):
            st.metric(tile.label, tile.value, help=tile.help, width=165)
    st.caption(
        f"Of the last {len(recent)} learner steps: reward their mean, KL (nats per token) and "
        "clipping (share of tokens) their highest, effective sample size (ESS) its lowest."
    )


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
        if found.kappa_slide.value is not None:
            kappas["slide"] = found.kappa_slide
        live_plot(kappa_figure(kappas), key=f"kappa-{run.id}", alt="κ of each limit against 1")
        if found.regime not in (Regime.COLLAPSED, Regime.DIVERGED):
            st.caption(horizon(found.horizon_step, steps))
        with st.expander("Where these numbers come from"):
            st.markdown(KAPPA_HELP)
            for name, kappa in kappas.items():
                st.markdown(f"- **κ {name}**: {kappa.reason or 'measured on this run'}")
            for each in found.evidence:
                st.markdown(f"- {each}")


def _charts(
    store: Store, run: RunInfo, window: str, until: int | None, seconds: float | None
) -> None:
    charts = run_charts(store, run, window, until)
    feed = None
    if seconds is not None:
        where = address(run.id, window)
        feed = Feed(address=where, token=remember(charts), seconds=seconds)
    if "clip_bias" in charts:
        probes = store.bias_probes(run.id, last=BIAS_PROBES)
        st.caption(clip_bias_words(probes, step_seconds(store.steps(run.id, last=1))))
    places = (place for _ in charts for place in st.columns(2))  # row by row, on a phone too
    for name, chart in charts.items():
        with next(places):
            title = chart["layout"]["title"]["text"]
            alt = f"{title} of {run.name} by learner step. {reading_of(chart)}"
            live_plot(chart, key=f"{name}-{run.id}", alt=alt, name=name, feed=feed)


def _events(events: Sequence[Event]) -> None:
    with st.expander(f"Events ({len(events)})"):
        for event in reversed(events):
            when = time.strftime("%H:%M:%S", time.gmtime(event.time))
            icon = EVENT_ICONS.get(event.level, ":material/error:")
            kind = event.kind.replace("_", " ")
            st.markdown(f"{icon} `{when} UTC` **{kind}** {literal(event.message)}")


def _alerts(deliveries: Sequence[AlertDelivery]) -> None:
    if not deliveries:
        return
    with st.expander(f"Alerts ({len(deliveries)})"):
        for each in deliveries:
            when = time.strftime("%H:%M:%S", time.gmtime(each.time))
            why = "" if each.failure is None else f", {each.failure}"
            how = literal(f"{each.destination}: {each.state}{why}")
            words = literal(f"{each.rule}: {each.message}")
            st.markdown(f"{ALERT_ICONS[each.state]} `{when} UTC` {words} &nbsp;·&nbsp; {how}")


page()
