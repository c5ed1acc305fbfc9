// Draws one chart in the element that Streamlit gives it; live_plot.py says why it exists.

let loading;

function plotly() {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("plotly/plotly.min.js", import.meta.url).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = undefined;
      reject(new Error("plotly.js did not load"));
    };
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

function recolored(traces, colors) {
  const other = (key, value) => (typeof value === "string" && colors[value]) || value;
  return JSON.parse(JSON.stringify(traces, other));
}

function themed(layout, style) {
  const variable = (name) => style.getPropertyValue(name).trim();
  const text = variable("--st-text-color") || style.color;
  const grid = variable("--st-border-color") || "rgba(128,128,128,0.25)";
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true };
  const touched = window.matchMedia("(pointer: coarse)").matches;
  return {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: text, size: 12, family: variable("--st-font") },
    hoverlabel: { bgcolor: variable("--st-background-color") || "white", font: { color: text } },
    dragmode: touched ? false : "zoom", // a finger on a chart scrolls the page
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
}

const CONFIG = {
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
};

function render(Plotly, element, { figure, alt, onDark }) {
  const style = getComputedStyle(element);
  const dark = isDark(style.getPropertyValue("--st-background-color").trim() || "#ffffff");
  const traces = dark ? recolored(figure.data, onDark) : figure.data;
  element.setAttribute("aria-label", alt);
  element.style.height = `${figure.layout.height}px`;
  return Plotly.react(element, traces, themed(figure.layout, style), CONFIG);
}

// One drawing at a time for each element, and of those that wait only the latest: Plotly stumbles
// when it is called, or its element is taken away, while it still draws.
const elements = new WeakMap();

async function keepDrawing(element, state) {
  if (state.busy) return;
  state.busy = true;
  try {
    const Plotly = await plotly();
    while (state.data && !state.gone) {
      const data = state.data;
      state.data = null;
      if (state.failed) {
        Plotly.purge(element);
        element.textContent = "";
        state.failed = false;
      }
      await render(Plotly, element, data);
    }
    if (state.gone) Plotly.purge(element);
  } catch (error) {
    state.failed = true;
    element.textContent = `The chart cannot be drawn: ${error.message}`;
  } finally {
    state.busy = false;
  }
}

export default function draw({ data, parentElement }) {
  const element = parentElement.querySelector(".etalon-plot");
  const state = elements.get(element) ?? { busy: false };
  elements.set(element, state);
  element.setAttribute("role", "img");
  state.data = data;
  state.gone = false; // an element that was taken away may come back
  keepDrawing(element, state);
  return () => {
    state.gone = true;
    keepDrawing(element, state);
  };
}
