"""Which steps of a run a reader wants to see, as fields bound to the page's address."""

from streamlit.delta_generator import DeltaGenerator

from advisor.dashboard.run_charts import WINDOWS


def window_fields(left: DeltaGenerator, right: DeltaGenerator) -> tuple[str, int | None]:
    """Draw them; return a name of ``WINDOWS``, and the step at which it ends, None: the newest."""
    every, *_ = WINDOWS
    window = left.segmented_control(
        "Steps to show",
        list(WINDOWS),
        default=every,
        key="window",
        bind="query-params",
        label_visibility="collapsed",
        required=True,
    )
    if window in (None, every):
        return every, None
    until = right.number_input(
        "up to step",
        min_value=0,
        value=None,
        placeholder="up to the newest step",
        key="until",
        bind="query-params",
        label_visibility="collapsed",
    )
    return window, until
