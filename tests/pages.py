"""What a page under AppTest shows: its words, its tiles, its charts."""

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.testing.v1 import AppTest

FIELDS = ("Selectbox", "NumberInput", "TextInput")


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
        elif kind == "Html":
            shown.append(text_of(element.value))
        elif kind in FIELDS and element.value in (None, ""):
            shown.append(element.proto.placeholder)  # that is what an empty field shows
        elif kind not in ("UnknownElement", "Progress") and hasattr(element, "value"):
            shown.append(str(element.value))
    return shown


def text_of(html: str) -> str:
    """Return what is read of a piece of HTML."""
    without_style = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", without_style)).split())


def field(page: AppTest, label: str) -> Any:
    """Return the text field of a page with this label."""
    return next(each for each in page.text_input if each.label == label)


def press(page: AppTest, label: str) -> AppTest:
    """Press the button with this label."""
    return next(each for each in page.button if each.label == label).click().run()


def headline(page: AppTest) -> tuple[str, str]:
    """Return the big number of Advise and the words below it."""
    shown = next(text for e in page.get("html") if (text := text_of(e.value)))
    number, _, below = shown.partition(" ")
    return number, below


def click_in(page: AppTest, key: str, x: float, y: float) -> AppTest:
    """Click in a chart at a place on its axes, and return the page as it is then."""
    chart = next(
        e.proto
        for e in elements(page.main)
        if type(e).__name__ == "UnknownElement" and e.proto.id.endswith(key)
    )
    state = page._tree.get_widget_states()  # AppTest has no click for a component of one's own
    event = state.widgets.add()
    event.id = _make_trigger_id(chart.id, "events")
    event.json_trigger_value = json.dumps([{"event": "point", "value": {"x": x, "y": y}}])
    return page._run(state)


def faults(page: AppTest) -> list[str]:
    """Return the messages of error of a page as they are read, in alphabetical order."""
    return sorted(each.value.replace("\\", "") for each in page.error)


def charts(page: AppTest) -> dict[str, dict[str, Any]]:
    """Return the Plotly figures of a page by their title."""
    protos = [e.proto for e in elements(page.main) if type(e).__name__ == "UnknownElement"]
    figures = [json.loads(p.json, parse_constant=_refuse)["figure"] for p in protos]
    return {figure["layout"]["title"]["text"]: figure for figure in figures}


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON, and no number to draw")


def said_in(figure: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is written in a chart, without the sign that explains how to read it."""
    return [a for a in figure["layout"].get("annotations", ()) if "hovertext" not in a]


def tiles(page: AppTest) -> dict[str, str]:
    """Return the metrics of a page: value by label."""
    return {metric.label: metric.value for metric in page.metric}


def help_of(page: AppTest, label: str) -> str:
    """Return the help text of a metric."""
    return str(next(m.proto.help for m in page.metric if m.label == label))
