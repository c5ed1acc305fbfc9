"""Rollouts to read: what the policy said at a step, one run or several side by side. For pages."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from advisor.wording import MISSING, literal, shortened
from storage.records import RunInfo, Sample
from storage.store import Store
from storage.words import counted

COLUMNS: dict[str, Any] = {
    "prompt": st.column_config.TextColumn(width="medium"),
    "completion": st.column_config.TextColumn(width="large", help="as the sampling policy said it"),
    "reward": st.column_config.NumberColumn(format="%.3g", help="what is optimised"),
    "gold": st.column_config.NumberColumn(format="%.3g", help="what is really wanted, if known"),
    "advantage": st.column_config.NumberColumn(
        format="%.2f", help="against its own group; above 0 the completion becomes more likely"
    ),
    "age": st.column_config.NumberColumn(help="staleness, in learner steps"),
    "ratio": st.column_config.NumberColumn(
        format="%.3g",
        help="importance weight of the whole completion; far from 1 the learner has moved on",
    ),
}
PLACES = 2
"""Runs beside each other; a third begins a new row."""


def show_samples(store: Store, runs: Sequence[RunInfo]) -> None:
    """Let a reader choose a step and read what the policies of these runs said at it."""
    kept = {run.id: store.sampled_steps(run.id) for run in runs}
    steps = sorted({step for each in kept.values() for step in each})
    with st.expander(
        f"What the policy says ({counted(len(steps), 'step')} kept)", icon=":material/chat:"
    ):
        if not steps:
            st.caption(
                "No rollout is kept. Etalon's own trainer keeps some every `sample_every` steps; "
                "imported logs hold no rollouts."
            )
            return
        step = _step(steps)
        places = st.columns(min(PLACES, len(runs)))
        for i, run in enumerate(runs):
            with places[i % len(places)]:
                _of_run(store, run, kept[run.id], step, named=len(runs) > 1)


def _step(steps: Sequence[int]) -> int:
    if len(steps) == 1:
        return steps[0]
    return int(st.select_slider("Learner step", steps, value=steps[-1], key="samples-step"))


def _of_run(store: Store, run: RunInfo, kept: Sequence[int], step: int, *, named: bool) -> None:
    before = [each for each in kept if each <= step]
    if named:
        st.markdown(f"**{literal(shortened(run.name))}**")
    if not before:
        st.caption(f"No rollout is kept up to step {step}.")
        return
    if before[-1] != step:
        st.caption(f"Nearest before: step {before[-1]}.")
    st.dataframe(
        [_row(sample) for sample in store.samples(run.id, step=before[-1])],
        hide_index=True,
        column_config=COLUMNS,
        placeholder=MISSING,
    )


def _row(sample: Sample) -> dict[str, Any]:
    return {
        "prompt": sample.prompt,
        "completion": sample.completion,
        "reward": sample.reward,
        "gold": sample.gold,
        "advantage": sample.advantage,
        "age": sample.staleness,
        "ratio": sample.ratio,
    }
