"""Advise: enter a setting, get the largest safe learning rate and the reason. Streamlit page."""

from collections.abc import Sequence

import streamlit as st

from advisor.answer import answer, ask, gather
from advisor.calibration import RunFacts
from advisor.charts import edge_chart, map_chart
from advisor.dashboard.archive import open_archive
from advisor.dashboard.config_form import config_fields
from advisor.dashboard.live_plot import live_plot
from advisor.figures import kappa_figure
from advisor.recommendation import Advice, Question
from advisor.wording import rate as written
from storage.commandline import BadInput
from storage.store import Store
from trainer.config import checked_config
from trainer.launch import launch

ASKED = ("max_staleness", "steps", "learning_rate")
MORE = ("clip_epsilon", "prompts", "group_size", "optimizer", "hidden_size", "layers", "schedule")
RISKS = (0.02, 0.05, 0.10, 0.30)
SOURCES = {
    "archive": "Archived runs of this setting, else published ones",
    "literature": "Published settings only",
}


def page() -> None:
    """Ask, answer, explain."""
    store = open_archive()
    st.title("How large may the learning rate be?", anchor=False)
    runs = gather(store)
    with st.form("ask"):
        defaults = runs[0].config.model_dump() if runs else {"max_staleness": 3, "steps": 300}
        entered = config_fields(ASKED, {**defaults, "learning_rate": None}, key="ask", columns=3)
        left, right = st.columns(2)
        risk = left.selectbox(
            "accepted risk of an unsafe run", RISKS, index=1, format_func=lambda r: f"{r:.0%}"
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
                st.error(fault)
            return
        st.session_state["advice"] = (question, evidence, answer(store, question, evidence))
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


def _show(store: Store, question: Question, evidence: Sequence[RunFacts], advice: Advice) -> None:
    _headline(advice)
    st.write(advice.reason)
    left, right = st.columns(2)
    with left:
        live_plot(
            edge_chart(question, evidence, advice),
            key="advise-edge",
            alt="Probability of an unsafe run against the learning rate",
        )
    with right:
        live_plot(
            map_chart(question, evidence, advice),
            key="advise-map",
            alt="Where runs fail by staleness and learning rate",
        )
    kappas = {
        "staleness": advice.kappa_staleness,
        "horizon": advice.kappa_horizon,
        "local step": advice.kappa_local,
    }
    live_plot(kappa_figure(kappas), key="advise-kappa", alt="κ of each limit at this rate")
    st.caption(
        f"Regime at this rate: {advice.regime.replace('_', ' ')}. {advice.reasons['regime']}"
    )
    _run_it(store, question, advice)
    with st.expander(f"Evidence ({len(advice.evidence)})", expanded=not advice.calibrated):
        for each in advice.evidence:
            st.markdown(f"- {each}")
    _earlier(store)


def _headline(advice: Advice) -> None:
    if not advice.calibrated:
        st.warning(
            "Uncalibrated: learned from published settings, not from yours.",
            icon=":material/straighten:",
        )
    big, interval, suggested, own = st.columns([1.4, 1.4, 1, 1])
    largest = advice.max_learning_rate
    big.metric(
        "Largest safe learning rate",
        "none" if largest is None else written(largest),
        help=advice.reasons.get("max_learning_rate"),
    )
    low = "?" if advice.low is None else written(advice.low)
    high = "?" if advice.high is None else written(advice.high)
    edge = "not seen" if advice.edge is None else written(advice.edge)
    interval.metric(
        "Edge: half of the runs fail",
        edge,
        delta=f"90 % within {low} … {high}",
        delta_color="off",
        delta_arrow="off",
        help=advice.reasons.get("edge"),
    )
    rate = advice.suggested_learning_rate
    suggested.metric(
        "Suggested",
        "none" if rate is None else written(rate),
        help=advice.reasons.get("suggested_learning_rate")
        if rate is None
        else "Where the final reward is expected to be best within the risk.",
    )
    if advice.unsafe_probability is not None:
        own.metric("Risk at your rate", f"{advice.unsafe_probability:.0%}")
    else:
        own.metric("Binding limit", advice.binding.replace("_", " "))


def _run_it(store: Store, question: Question, advice: Advice) -> None:
    rate = advice.suggested_learning_rate or advice.max_learning_rate
    if rate is None:
        return
    rate = float(f"{rate:.3g}")
    setting = question.setting
    st.code(
        f"python -m trainer run --workload {setting.workload} --learning-rate {rate:g} "
        f"--max-staleness {setting.max_staleness} --steps {setting.steps}",
        language="bash",
    )
    if st.button("Run it", icon=":material/play_arrow:"):
        config = {**setting.model_dump(), "learning_rate": rate, "name": None}
        run_id = launch(store, checked_config(config))
        st.success(f"Run {run_id} is starting.")
        st.page_link("advisor/dashboard/watch.py", label="Watch it", query_params={"run": run_id})


def _earlier(store: Store) -> None:
    given = store.recommendations(last=10)
    with st.expander(f"Earlier advice ({len(given)})"):
        for each in given:
            asked = each.question["setting"]
            rate = each.answer["max_learning_rate"]
            words = "no rate" if rate is None else f"at most {written(rate)}"
            st.markdown(
                f"- S = {asked['max_staleness']}, T = {asked['steps']}, risk "
                f"{each.question['risk']:.0%}: **{words}**"
            )


page()
