"""What a page under AppTest shows: its words, its tiles, its charts."""

import json
from collections.abc import Iterator
from typing import Any

from streamlit.testing.v1 import AppTest


def elements(node: Any) -> Iterator[Any]:
    """Walk over everything on a page, also inside of expanders and columns."""
    for child in getattr(node, "children", {}).values():
        yield child
        yield from elements(child)


def words(page: AppTest) -> list[str]:
    """Return every text that a page shows: prose, labels, values, help, cells of tables."""
    shown: list[str] = []
    for element in elements(page.main):
        kind = type(element).__name__
        if kind == "Metric":
            shown += [element.label, element.value, element.proto.help]
        elif kind == "Dataframe":
            unknown = element.proto.placeholder if element.proto.HasField("placeholder") else "None"
            known = element.value.astype(object).where(element.value.notna(), unknown)
            shown += [str(cell) for row in known.values for cell in row]
        elif kind not in ("UnknownElement", "Progress") and hasattr(element, "value"):
            shown.append(str(element.value))
    return shown


def charts(page: AppTest) -> dict[str, dict[str, Any]]:
    """Return the Plotly figures of a page by their title."""
    protos = [e.proto for e in elements(page.main) if type(e).__name__ == "UnknownElement"]
    figures = [json.loads(p.json, parse_constant=_refuse)["figure"] for p in protos]
    return {figure["layout"]["title"]["text"]: figure for figure in figures}


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON, and no number to draw")


def tiles(page: AppTest) -> dict[str, str]:
    """Return the metrics of a page: value by label."""
    return {metric.label: metric.value for metric in page.metric}


def help_of(page: AppTest, label: str) -> str:
    """Return the help text of a metric."""
    return str(next(m.proto.help for m in page.metric if m.label == label))
