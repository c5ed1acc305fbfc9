"""Narrow down which runs Compare offers: by workload, S, η, regime and tag."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import streamlit as st

from advisor.compare import matching, regime_word
from advisor.experiments.watch import REGIME_EVENT
from advisor.wording import rate
from storage.records import RunInfo
from storage.store import Store

FILTERS = ("workload", "S", "η", "regime", "tag")


def filtered_runs(store: Store, runs: Sequence[RunInfo]) -> list[RunInfo]:
    """Let a person narrow down which runs are on offer, and take all of them at once."""
    seen = {e.run_id: e for e in store.events(last=5000) if e.kind == REGIME_EVENT}
    tags = store.tags()
    facts: dict[str, Callable[[RunInfo], Sequence[Any]]] = {
        "workload": lambda run: [run.workload or "unknown"],
        "S": lambda run: [run.config.get("max_staleness", "unknown")],
        "η": lambda run: [_rate_of(run)],
        "regime": lambda run: [regime_word(run, seen.get(run.id))],
        "tag": lambda run: tags.get(run.id, ()),
    }
    with st.expander("Filter the runs on offer", icon=":material/filter_alt:"):
        wanted: dict[str, list[Any]] = {}
        for place, name in zip(st.columns(len(FILTERS)), FILTERS, strict=True):
            values = sorted({v for run in runs for v in facts[name](run)}, key=_order)
            wanted[name] = place.multiselect(
                name, values, key=f"compare-filter-{name}", placeholder="any"
            )
        found = matching(runs, wanted, facts)
        st.button(
            f"Compare all {len(found)}",
            on_click=partial(st.session_state.__setitem__, "compare-runs", [r.id for r in found]),
            disabled=len(found) < 2,
        )
    return found


def _rate_of(run: RunInfo) -> str:
    value = run.config.get("learning_rate")
    return rate(value) if isinstance(value, float) and value > 0 else "unknown"


def _order(value: Any) -> tuple[bool, float, str]:
    try:
        return False, float(value), ""
    except (TypeError, ValueError):
        return True, 0.0, str(value)
