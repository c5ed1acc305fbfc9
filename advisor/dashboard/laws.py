"""Laws: the paper's three laws on the runs of this archive. Page script of Streamlit."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from advisor import bias_laws, collapse_laws, law_figures
from advisor.dashboard.archive import open_archive
from advisor.dashboard.live_plot import live_plot
from advisor.drawing import Figure
from advisor.experiments.laws_command import laws, spelled
from advisor.experiments.study import (
    STUDIES,
    default_group,
    lifetimes_of,
    probes_of,
    runs_of,
    tried_of,
)
from advisor.regime import Estimate
from advisor.wording import literal
from storage.store import Store

STUDIED = "the three studies"
SECTIONS = {
    "bias": (
        "Stale rollouts bias the gradient",
        "The bias grows in proportion to drift while it is not clipped: an exponent of 1 in the "
        "uncorrected gradient. Clipping sets in at some drift and then saturates.",
    ),
    "horizon": (
        "A larger learning rate shortens the life of a run",
        "A run collapses once it is a critical distance from its start: the collapse step falls as "
        "1/η, whatever the staleness, as long as clipping is not active.",
    ),
    "boundary": (
        "The boundary falls with staleness",
        "Where staleness binds, the largest safe rate falls with S: a slope of 0 says that "
        "something else binds, −α that the drift k^α of a cycle does.",
    ),
}
WORDS = {
    "uncorrected_exponent_in_drift": "exponent of ‖bias‖ in drift, no correction",
    "uncorrected_exponent_in_lag": "exponent of ‖bias‖ in S, no correction",
    "drift_exponent": "exponent of drift in S",
    "clipped_exponent_in_drift": "exponent of ‖bias‖ in drift, clipped",
    "clipped_ratio_at_equal_drift": "‖bias‖ at equal drift, highest over lowest η, clipped",
    "uncorrected_ratio_at_equal_drift": "‖bias‖ at equal drift, highest over lowest η",
    "unclipped_upper_bound": "‖bias‖/‖H‖ without the clip, at most",
    "clipped_onset": "drift at which clipping sets in",
    "clipped_saturation": "‖bias‖/‖H‖ at which it saturates",
    "rate": "exponent in η",
    "staleness": "exponent in S + 1",
    "all": "slope of log η in log (S + 1)",
    "small_staleness": "slope at small S",
    "large_staleness": "slope at large S",
}


def page() -> None:
    """Choose the runs, then show each law with its figure, its estimates, and what is lacking."""
    store = open_archive()
    st.title("The laws on your own runs", anchor=False)
    chosen = st.selectbox(
        "Runs",
        [STUDIED, *_groups(store)],
        key="group",
        bind="query-params",
        help="A law is read off a group of runs that vary learning rate and staleness.",
    )
    group = None if chosen == STUDIED else chosen
    ended = tuple(
        (run.id, run.outcome)
        for kind in STUDIES
        for run in runs_of(store, group or default_group(kind))
    )  # these are facts: while they stand, so do the laws
    with st.spinner("Reading the laws off the archive"):
        found, figures = _laws(store, group, ended)
    for kind, (title, words) in SECTIONS.items():
        st.subheader(title, anchor=False)
        st.write(words)
        _law(found[kind], figures.get(kind, []), kind)


def _groups(store: Store) -> list[str]:
    """Return the groups of which every run tells its rate and S, which a law is read off."""
    runs = store.runs(archived=False)
    unknown = {
        run.group for run in runs if not {"learning_rate", "max_staleness"} <= run.config.keys()
    }
    return sorted({run.group for run in runs if run.group is not None} - unknown)


@st.cache_data(show_spinner=False, max_entries=8)
def _laws(
    _store: Store, group: str | None, ended: tuple[tuple[str, str | None], ...]
) -> tuple[dict[str, Any], dict[str, list[Figure]]]:
    found = laws(_store, group=group)
    figures: dict[str, list[Figure]] = {}
    runs = {kind: runs_of(_store, group or default_group(kind)) for kind in STUDIES}
    if probes := probes_of(_store, runs["bias"]):
        curves = [bias_laws.curve(probes, each) for each in law_figures.CORRECTION_WORDS]
        figures["bias"] = [law_figures.bias_figure(curves)]
    lifetimes = lifetimes_of(_store, runs["horizon"])
    if any(run.collapsed for run in lifetimes):
        clocks = found["horizon"]["clocks"]
        figures["horizon"] = [law_figures.collapse_figure(lifetimes)]
        if any(fit.median is not None for fit in clocks):
            figures["horizon"].append(law_figures.clock_figure(lifetimes, clocks))
    tried = {
        "collapsed": tried_of(runs["boundary"], unsafe=False),
        "unsafe": tried_of(runs["boundary"], unsafe=True),
    }
    if runs["boundary"]:
        figures["boundary"] = [
            law_figures.boundary_figure(
                {name: collapse_laws.largest_safe(each) for name, each in tried.items()},
                {name: collapse_laws.brackets(each) for name, each in tried.items()},
            )
        ]
    return found, figures


def _law(law: Mapping[str, Any], figures: list[Figure], kind: str) -> None:
    if not law["sufficient"]:
        st.info("Not enough data yet. This command makes the runs, and goes on where it was:")
        st.code(law["to_run"], language="bash", wrap_lines=True)
    for i, (place, chart) in enumerate(
        zip(st.columns(max(1, len(figures))), figures, strict=False)
    ):
        with place:
            live_plot(chart, key=f"law-{kind}-{i}", alt=chart["layout"]["title"]["text"])
    rows = list(_estimates(law))
    if rows:
        with st.expander(f"Estimates ({len(rows)})", expanded=bool(law["sufficient"])):
            for name, estimate in rows:
                st.markdown(f"- **{literal(name)}**: {literal(spelled(estimate))}")


def _estimates(law: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Estimate]]:
    found: list[tuple[str, Estimate]] = []
    for name, value in law.items():
        words = prefix + WORDS.get(name, str(name).replace("_", " "))
        if isinstance(value, Estimate):
            found.append((words, value))
        elif isinstance(value, Mapping):
            found += _estimates(value, f"{words}, ")
    return found


page()
