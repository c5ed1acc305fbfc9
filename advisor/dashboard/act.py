"""What to do with an answer: copy it, run it, keep it; and how earlier ones went. For Advise."""

import time

import streamlit as st

from advisor.advice import Advice
from advisor.answer import earlier_advice
from advisor.dashboard.access import may_operate
from advisor.dashboard.archive import badge, status_of
from advisor.dashboard.operate import keep, start
from advisor.dashboard.question import Asked
from advisor.settings_for import settings_for
from advisor.wording import at_most, chance, command, literal
from advisor.wording import rate as written
from storage.commandline import BadInput
from storage.importers.stacks import STACKS
from storage.store import Store
from trainer.config import TrainerConfig

ETALON = "Etalon"
FIRST_STACKS = ("trl_async", "trl", "verl", "prime_rl")
EARLIER = 20


def use_it(store: Store, asked: Asked, advice: Advice) -> None:
    """Show how to train with the answer, and do it on request."""
    rate = advice.suggested_learning_rate or advice.max_learning_rate
    if rate is None:
        return
    st.subheader("Use it", anchor=False)
    values = {"learning_rate": at_most(rate), "name": None}
    config = TrainerConfig.model_validate({**asked.question.setting.model_dump(), **values})
    others = [name for name in STACKS if name not in FIRST_STACKS]
    where = st.segmented_control(
        "Written for",
        [ETALON, *FIRST_STACKS, *others],
        format_func=lambda name: STACKS[name].title if name in STACKS else name,
        default=ETALON,
        key="for",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    if where in STACKS:
        st.code(settings_for(where, config), language=None, wrap_lines=True)
    else:
        st.code(command(config), language="bash", wrap_lines=True)
    if may_operate():
        _offer(store, asked, advice, config)


def _offer(store: Store, asked: Asked, advice: Advice, config: TrainerConfig) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Run it", type="primary", icon=":material/play_arrow:"):
            try:
                run_id = start(store, config.model_dump())
            except BadInput as faults:
                st.error(literal(str(faults)))
                return
            keep(store, asked.question, advice, run_id)
            st.success(f"Run {run_id} is starting.")
            st.page_link(
                "advisor/dashboard/watch.py",
                label="Watch it",
                icon=":material/monitoring:",
                query_params={"run": run_id},
            )
        if st.button(
            "Keep this answer",
            icon=":material/bookmark:",
            help="In the record below; running it keeps it too.",
        ):
            keep(store, asked.question, advice)


def list_earlier(store: Store) -> None:
    """List what was advised before, and how the runs that followed it went."""
    given = earlier_advice(store, last=EARLIER)
    with st.expander(f"Earlier advice ({len(given)})"):
        for each, runs in given:
            setting = each.question["setting"]
            rate = each.answer["max_learning_rate"]
            words = "no rate" if rate is None else f"at most {written(rate)}"
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(each.time))
            went = "; ".join(
                f"{badge(status_of(run))} {literal(run.name)}"
                + ("" if run.outcome is None else f", {run.outcome}")
                for run in runs
            )
            st.markdown(
                f"- {when} UTC: {literal(setting['workload'])}, S = {setting['max_staleness']}, "
                f"T = {setting['steps']}, risk {chance(each.question['risk'])}: **{words}**. "
                + (f"Run since: {went}" if went else "Not run from here.")
            )
