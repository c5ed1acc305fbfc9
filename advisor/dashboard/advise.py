"""Advise: enter a setting, get the largest safe learning rate and the reason. Streamlit page."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from advisor.answer import answer, ask, fitting_calibration, gather
from advisor.calibrated import Measured
from advisor.calibration import RunFacts
from advisor.charts import edge_chart, map_chart
from advisor.dashboard.archive import open_archive
from advisor.dashboard.config_form import config_fields
from advisor.dashboard.live_plot import live_plot
from advisor.figures import kappa_figure
from advisor.recommendation import Advice, Question
from advisor.wording import chance, command, literal
from advisor.wording import rate as written
from storage.commandline import BadInput
from storage.store import Store
from trainer.config import checked_config
from trainer.launch import launch

ASKED = ("max_staleness", "steps", "learning_rate")
MORE = ("clip_epsilon", "prompts", "group_size", "optimizer", "hidden_size", "layers", "schedule")
FIRST_VALUES = {"max_staleness": 3, "steps": 300}
HINTS = {"learning_rate": "to judge; empty: only advise"}
RISKS = (0.02, 0.05, 0.10, 0.30)
SOURCES = {
    "best": "A fitting probe, else archived runs, else published settings",
    "archive": "Archived runs of this setting, else published settings",
    "literature": "Published settings only",
}
WHAT_IF = {
    "half_max_staleness": "Half the staleness",
    "half_steps": "Half the horizon",
    "double_clip": "Twice the clip range",
    "double_batch": "Twice the batch",
}
UNSAFE = "Unsafe: collapsed, diverged, or ended worse than it began."
EARLIER = 10
CARD: Any = {"border": True, "height": "stretch"}


def page() -> None:
    """Ask, answer, explain."""
    store = open_archive()
    st.title("How large may the learning rate be?", anchor=False)
    runs = gather(store)
    with st.form("ask"):
        defaults = runs[0].config.model_dump() if runs else FIRST_VALUES
        rates = {**defaults, "learning_rate": None}
        entered = config_fields(ASKED, rates, key="ask", columns=3, hints=HINTS)
        left, right = st.columns(2)
        risk = left.selectbox(
            "accepted risk of an unsafe run", RISKS, index=1, format_func=chance, help=UNSAFE
        )
        source = right.selectbox("evidence", list(SOURCES), format_func=SOURCES.__getitem__)
        with st.expander("The rest of the setting"):
            entered |= config_fields(MORE, defaults, key="ask", columns=3)
        pressed = st.form_submit_button("Advise", type="primary", icon=":material/tune:")
    if pressed:
        evidence = [] if source == "literature" else runs
        try:
            question = ask(settings=entered, evidence=evidence, risk=risk)
        except BadInput as faults:
            for fault in str(faults).splitlines():
                st.error(literal(fault))
            return
        found = fitting_calibration(store, question.setting) if source == "best" else None
        advice = answer(store, question, evidence, found)
        st.session_state["advice"] = (question, evidence, advice, found)
    if "advice" not in st.session_state:
        _nothing_asked(runs)
        return
    _show(store, *st.session_state["advice"])


def _nothing_asked(runs: Sequence[RunFacts]) -> None:
    ended = sum(run.unsafe is not None for run in runs)
    if ended:
        st.info(f"Ended runs that can serve as evidence: {ended}. Press **Advise**.")
    else:
        st.info(
            "No ended run is archived yet, so the answer will come from published settings: wide "
            "and uncalibrated. Leave the learning rate empty to be told one; enter one to have it "
            "judged."
        )


def _show(
    store: Store,
    question: Question,
    evidence: Sequence[RunFacts],
    advice: Advice,
    found: Measured | None,
) -> None:
    _headline(advice)
    st.write(literal(advice.reason))
    left, right = st.columns(2)
    with left:
        live_plot(
            edge_chart(question, evidence, advice, found),
            key="advise-edge",
            alt="Probability of an unsafe run against the learning rate",
        )
    with right:
        live_plot(
            map_chart(question, evidence, advice, found),
            key="advise-map",
            alt="Where runs fail by staleness and learning rate",
        )
    _limits(advice)
    _what_if(advice)
    _run_it(store, question, advice)
    with st.expander(f"Evidence ({len(advice.evidence)})", expanded=not advice.calibrated):
        for each in advice.evidence:
            st.markdown(f"- {literal(each)}")
    _earlier(store)


def _headline(advice: Advice) -> None:
    if not advice.calibrated:
        st.warning(
            "Uncalibrated: learned from published settings, not from yours.",
            icon=":material/straighten:",
        )
    reasons = advice.reasons
    low = "?" if advice.low is None else written(advice.low)
    high = "?" if advice.high is None else written(advice.high)
    own = advice.unsafe_probability
    cards = st.columns([5, 5, 4] if own is None else [5, 5, 4, 4])
    cards[0].metric(
        "Largest safe learning rate",
        _rate(advice.max_learning_rate, "none"),
        help=reasons.get("max_learning_rate") or f"Within the accepted risk. {UNSAFE}",
        **CARD,
    )
    cards[1].metric(
        "Edge: half of the runs fail",
        _rate(advice.edge, "not seen"),
        delta=f"90% interval {low} … {high}",
        delta_color="off",
        delta_arrow="off",
        help=reasons.get("edge") or "Where the risk is 50%, with its interval.",
        **CARD,
    )
    cards[2].metric(
        "Suggested",
        _rate(advice.suggested_learning_rate, "none"),
        help=reasons.get("suggested_learning_rate")
        or "Where the final reward is expected to be best within the risk.",
        **CARD,
    )
    if own is not None:
        cards[3].metric("Risk at your rate", chance(own), help=UNSAFE, **CARD)


def _rate(learning_rate: float | None, otherwise: str) -> str:
    return otherwise if learning_rate is None else written(learning_rate)


def _limits(advice: Advice) -> None:
    kappas = {
        "staleness": advice.kappa_staleness,
        "horizon": advice.kappa_horizon,
        "local step": advice.kappa_local,
    }
    live_plot(kappa_figure(kappas), key="advise-kappa", alt="κ of each limit at this rate")
    regime = advice.regime.replace("_", " ")
    st.caption(f"Regime at this rate: **{regime}**, because {literal(advice.reasons['regime'])}.")
    with st.expander("Where these numbers come from"):
        for name, kappa in kappas.items():
            st.markdown(f"- **κ {name}**: {kappa.reason or 'measured on runs of this setting'}")


def _what_if(advice: Advice) -> None:
    """Say what the largest safe rate would be after changes that are usually open."""
    known = {name: rate for name, rate in advice.what_if.items() if rate is not None}
    if not known:
        return
    st.subheader("What would change it", anchor=False)
    for card, (name, rate) in zip(st.columns(len(known)), known.items(), strict=True):
        now = advice.max_learning_rate
        delta = None if now is None else f"{100 * (rate / now - 1):+.0f}%"
        card.metric(WHAT_IF[name], written(rate), delta=delta, **CARD)


def _run_it(store: Store, question: Question, advice: Advice) -> None:
    rate = advice.suggested_learning_rate or advice.max_learning_rate
    if rate is None:
        return
    shown = {"learning_rate": float(written(rate)), "name": None}
    config = checked_config({**question.setting.model_dump(), **shown})
    st.code(command(config), language="bash", wrap_lines=True)
    if st.button("Run it", icon=":material/play_arrow:"):
        run_id = launch(store, config)
        st.success(f"Run {run_id} is starting.")
        st.page_link("advisor/dashboard/watch.py", label="Watch it", query_params={"run": run_id})


def _earlier(store: Store) -> None:
    given = store.recommendations(last=EARLIER)
    with st.expander(f"Earlier advice ({len(given)})"):
        for each in given:
            asked = each.question["setting"]
            rate = each.answer["max_learning_rate"]
            words = "no rate" if rate is None else f"at most {written(rate)}"
            st.markdown(
                f"- S = {asked['max_staleness']}, T = {asked['steps']}, risk "
                f"{chance(each.question['risk'])}: **{words}**"
            )


page()
