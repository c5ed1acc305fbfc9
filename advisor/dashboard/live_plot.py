"""A Plotly chart that keeps the reader's zoom, pan and legend choices while its data grow.

``st.plotly_chart`` is mounted anew at every new point and loses them. This component calls
``Plotly.react`` on the same element with a constant ``uirevision``. plotly.js itself is loaded once
per page from the server's own ``/assets``, so a refresh carries nothing but the numbers.
"""

import streamlit as st

from advisor.drawing import BLUE, SKY, Figure

_JAVASCRIPT = """
let loading;
function plotly() {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("assets/plotly.min.js", document.baseURI).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { loading = undefined; reject(new Error("plotly.js did not load")); };
    document.head.append(script);
  });
  return loading;
}
function isDark(color) {
  const [r, g, b] = color.startsWith("#")
    ? [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16))
    : (color.match(/[0-9.]+/g) ?? [255, 255, 255]).map(Number);
  return 0.3 * r + 0.6 * g + 0.1 * b < 128;
}
// The dark blue of the palette is hard to see on a dark page: it changes places with the light one.
function legible(data, dark) {
  const other = { "BLUE": "SKY", "SKY": "BLUE" };
  const swap = (key, value) => (typeof value === "string" && other[value]) || value;
  return dark ? JSON.parse(JSON.stringify(data, swap)) : data;
}
function themed(layout, style) {
  const text = style.getPropertyValue("--st-text-color").trim() || style.color;
  const grid = style.getPropertyValue("--st-border-color").trim() || "rgba(128,128,128,0.25)";
  const back = style.getPropertyValue("--st-background-color").trim() || "white";
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true };
  const touched = window.matchMedia("(pointer: coarse)").matches;
  return { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, size: 12, family: style.getPropertyValue("--st-font").trim() },
    hoverlabel: { bgcolor: back, font: { color: text } },
    dragmode: touched ? false : "zoom",  // a finger on a chart scrolls the page
    xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
}
export default function (component) {
  const { data, parentElement } = component;
  const element = parentElement.querySelector(".etalon-plot");
  const { figure, alt } = data;
  const style = getComputedStyle(element);
  const dark = isDark(style.getPropertyValue("--st-background-color").trim() || "#ffffff");
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", alt);
  element.style.height = figure.layout.height + "px";
  plotly()
    .then((Plotly) =>
      Plotly.react(element, legible(figure.data, dark), themed(figure.layout, style),
        { responsive: true, displaylogo: false,
          modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] }))
    .catch((error) => { element.textContent = "The chart cannot be drawn: " + error.message; });
}
""".replace("BLUE", BLUE).replace("SKY", SKY)

_component = st.components.v2.component(
    "etalon_live_plot",
    html="<div class='etalon-plot' style='width:100%'></div>",
    js=_JAVASCRIPT,
    isolate_styles=False,
)


def live_plot(chart: Figure, *, key: str, alt: str) -> None:
    """Draw a chart; ``key`` keeps its identity over refreshes, ``alt`` says what it shows."""
    _component(key=key, data={"figure": chart, "alt": alt})
