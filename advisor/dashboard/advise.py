"""Advise: ask about a setting, see the largest safe learning rate and why. Page of Streamlit."""

from html import escape

import streamlit as st

from advisor.advice import Advice
from advisor.answer import consider, step_seconds, what_would_change
from advisor.charts import Boundary, boundary, edge_chart, map_chart, trade_chart
from advisor.dashboard.act import list_earlier, use_it
from advisor.dashboard.archive import open_archive
from advisor.dashboard.live_plot import live_plot
from advisor.dashboard.question import UNSAFE, Asked, asked
from advisor.figures import kappa_figure
from advisor.regime import Regime
from advisor.wording import MISSING, chance, literal, probe_command
from advisor.wording import rate as written
from storage.commandline import BadInput
from storage.store import Store

WHAT_IF = {
    "half_max_staleness": "Half the staleness",
    "half_steps": "Half the horizon",
    "double_clip": "Twice the clip range",
    "double_batch": "Twice the batch",
}
BIG = """
<div style="line-height:1.15">
<div style="font-size:clamp(3rem, 9vw, 5.2rem); font-weight:700">{number}</div>
<div style="font-size:1.05rem">{words}</div></div>
"""


def page() -> None:
    """Read the question, answer it, explain."""
    store = open_archive()
    st.title("How large may the learning rate be?", anchor=False)
    try:
        question = asked(store)
        advice = consider(question.question, question.evidence, question.found)
    except BadInput as faults:
        for fault in str(faults).splitlines():
            st.error(literal(fault))
        return
    _headline(question, advice)
    places, trials = boundary(question.question, question.evidence, question.found)
    left, right = st.columns(2)
    with left:
        live_plot(
            map_chart(question.question, advice, places, trials),
            key="advise-map",
            alt="Where runs fail, by staleness and learning rate, with past runs and your setting",
            on_point=_ask_there,
        )
        st.caption("Click anywhere in the map to ask about that staleness and rate.")
    with right:
        live_plot(
            edge_chart(question.question, question.evidence, advice, question.found),
            key="advise-edge",
            alt="Probability of an unsafe run against the learning rate",
        )
    _limits(advice)
    _what_if(question, advice)
    _trade(store, question, places)
    use_it(store, question, advice)
    with st.expander(f"Evidence ({len(advice.evidence)})", expanded=not advice.calibrated):
        for each in advice.evidence:
            st.markdown(f"- {literal(each)}")
    list_earlier(store)


def _ask_there(x: float, y: float) -> None:
    """Take S and η from a place in the map, whose axis shows S + 1."""
    st.session_state["max_staleness"] = str(max(0, round(x - 1)))
    st.session_state["unit"] = "learner steps"
    st.session_state["learning_rate"] = written(y)


def _headline(question: Asked, advice: Advice) -> None:
    if not advice.calibrated:
        st.warning(
            "Uncalibrated: learned from published settings, not from yours. A probe measures yours "
            "with short runs; for a model that trains elsewhere, `python -m advisor plan` names "
            "them.",
            icon=":material/straighten:",
        )
        st.code(probe_command(question.question.setting), language="bash", wrap_lines=True)
    reasons, rate = advice.reasons, advice.max_learning_rate
    risk = chance(question.question.risk)
    left, right = st.columns([5, 4], vertical_alignment="center")
    with left.container(border=True):
        st.caption(f"Largest safe learning rate at a risk of {risk}", help=UNSAFE)
        binding = advice.binding.replace("_", " ")
        limit = "nothing measured binds" if binding == "none" else f"{binding} is what limits it"
        why = reasons.get("max_learning_rate", "")
        words = f"{_interval(advice)}; {limit}" if rate is not None else why
        number = MISSING if rate is None else written(rate)
        st.html(BIG.format(number=escape(number), words=escape(words)))
    with right:
        st.write(literal(advice.reason))
        own = advice.unsafe_probability
        cards = st.columns(2 if own is None else 3)
        cards[0].metric(
            "Suggested",
            _rate(advice.suggested_learning_rate, MISSING),
            help=reasons.get("suggested_learning_rate")
            or "Where the final reward is expected to be best within the risk.",
        )
        cards[1].metric(
            "Edge: half fail",
            _rate(advice.edge, "not seen"),
            help=reasons.get("edge") or "Where the risk is 50%.",
        )
        if own is not None:
            cards[2].metric("Risk at your rate", chance(own), help=UNSAFE)


def _interval(advice: Advice) -> str:
    low, high = (None if end is None else written(end) for end in (advice.low, advice.high))
    if low is None or high is None:
        end = f"at most {high}" if low is None else f"at least {low}"
        return f"half of the runs fail at {end} (95% sure)"
    return f"half of the runs fail at {low} … {high} (90% interval)"


def _rate(learning_rate: float | None, otherwise: str) -> str:
    return otherwise if learning_rate is None else written(learning_rate)


def _limits(advice: Advice) -> None:
    kappas = {
        "staleness": advice.kappa_staleness,
        "horizon": advice.kappa_horizon,
        "local step": advice.kappa_local,
    }
    if advice.kappa_slide.value is not None:
        kappas["slide"] = advice.kappa_slide
    live_plot(kappa_figure(kappas), key="advise-kappa", alt="κ of each limit at this rate")
    regime = advice.regime.replace("_", " ")
    open_ended = advice.regime is Regime.INSUFFICIENT_DATA
    words = f"Regime at this rate: **{'not decided' if open_ended else regime}**"
    st.caption(f"{words}, because {literal(advice.reasons['regime'])}.")
    with st.expander("Where these numbers come from"):
        for name, kappa in kappas.items():
            st.markdown(f"- **κ {name}**: {kappa.reason or 'measured on runs of this setting'}")


def _what_if(question: Asked, advice: Advice) -> None:
    """Say what the largest safe rate would be after changes that are usually open."""
    changes = what_would_change(question.question, question.evidence, advice, question.found)
    known = {name: rate for name, rate in changes.items() if rate is not None}
    if not known:
        return
    st.subheader("What would change it", anchor=False)
    for card, (name, rate) in zip(st.columns(len(known)), known.items(), strict=True):
        now = advice.max_learning_rate
        percent = 0 if now is None else round(100 * (rate / now - 1))
        delta = f"{percent:+d}%" if percent else None if now is None else "no change"
        card.metric(
            WHAT_IF[name],
            written(rate),
            delta=delta,
            delta_color="normal" if percent else "off",
            delta_arrow="auto" if percent else "off",
            border=True,
        )


def _trade(store: Store, question: Asked, places: list[Boundary]) -> None:
    measured = step_seconds(store, question.question, question.evidence, question.found)
    st.subheader("What staleness buys", anchor=False)
    left, right = st.columns([1, 3], vertical_alignment="center")
    with left:
        generate = _seconds("generating a batch takes, s", "generate_seconds", measured, 0)
        learn = _seconds("learning from it takes, s", "learn_seconds", measured, 1)
    with right:
        if generate is None or learn is None:
            st.info("Enter how long generating and learning take, or probe the setting.")
            return
        chart = trade_chart(places, generate, learn, question.question.setting.max_staleness)
        live_plot(chart, key="advise-trade", alt="Learning per hour against staleness")


def _seconds(
    label: str, key: str, measured: tuple[float, float] | None, which: int
) -> float | None:
    value = st.number_input(
        label,
        min_value=0.001,
        max_value=1e6,
        value=None,
        placeholder="not known" if measured is None else f"{measured[which]:.3g}, measured",
        key=key,
        bind="query-params",
        help="Empty: as a probe or the newest run of this setting took, if there is one.",
    )
    return value if value is not None else (None if measured is None else measured[which])


page()
