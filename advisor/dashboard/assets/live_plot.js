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

// What was hidden in the legend stays so, also where a curve grew long and has two traces now.
function hiddenAlike(traces, drawn) {
  const hidden = new Set(
    (drawn ?? []).filter((trace) => trace.visible === "legendonly").map((trace) => trace.name),
  );
  return traces.map((trace) =>
    hidden.has(trace.name) ? { ...trace, visible: "legendonly" } : trace,
  );
}

function render(Plotly, element, { figure, alt, onDark }) {
  const style = getComputedStyle(element);
  const dark = isDark(style.getPropertyValue("--st-background-color").trim() || "#ffffff");
  const colored = dark ? recolored(figure.data, onDark) : figure.data;
  const traces = hiddenAlike(colored, element.data);
  element.setAttribute("aria-label", alt);
  element.style.height = `${figure.layout.height}px`;
  return Plotly.react(element, traces, themed(figure.layout, style), CONFIG);
}

// One chart after the other; in between the page shows what is drawn and answers its reader.
let turn = Promise.resolve();

function inTurn(draw) {
  const drawn = turn.then(() => new Promise((resolve) => setTimeout(resolve))).then(draw);
  turn = drawn.catch(() => {});
  return drawn;
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
      await inTurn(() => render(Plotly, element, data));
    }
    if (state.gone) Plotly.purge(element);
  } catch (error) {
    state.failed = true;
    element.textContent = `The chart cannot be drawn: ${error.message}`;
  } finally {
    state.busy = false;
  }
}

// What a live run adds is asked for here, once for all charts of a page that show the run, and not
// while the page is hidden. feed.py answers with the tails of the curves; the rest stays.
const feeds = new Map();

function changed(figure, change) {
  if (change.figure) return change.figure;
  const data = figure.data.map((trace, i) => {
    const { keep, x, y } = change.tails[i];
    return { ...trace, x: trace.x.slice(0, keep).concat(x), y: trace.y.slice(0, keep).concat(y) };
  });
  return { data, layout: change.layout ?? figure.layout };
}

async function ask(feed) {
  if (document.hidden) return;
  const asked = feed.token;
  const reply = await fetch(new URL(`${feed.address}&have=${asked}`, document.baseURI));
  if (!reply.ok) return; // the archive does not answer: what is shown stays
  const { token, charts, alive } = await reply.json();
  if (feed.token !== asked) return; // the page was drawn anew meanwhile
  feed.token = token;
  feed.alive = alive;
  for (const [name, { element, state }] of feed.charts) {
    if (!charts[name]) continue;
    state.shown = { ...state.shown, figure: changed(state.shown.figure, charts[name]) };
    state.data = state.shown;
    keepDrawing(element, state);
  }
}

async function keepAsking(feed) {
  if (feed.asking) return;
  feed.asking = true;
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  await pause(1000 * feed.seconds);
  while (feed.alive && feed.charts.size) {
    const due = pause(1000 * feed.seconds);
    await ask(feed).catch(() => {}); // asks again
    await due;
  }
  feed.asking = false;
}

function follow(element, state, { address, token, name, seconds }) {
  const feed = feeds.get(address) ?? { address, charts: new Map() };
  feeds.set(address, feed);
  Object.assign(feed, { token, seconds, alive: true });
  feed.charts.set(name, { element, state });
  keepAsking(feed);
  state.leave = () => feed.charts.get(name)?.state === state && feed.charts.delete(name);
}

// A click in the plot area as a place on the axes. Plotly itself tells of clicks on points only.
function pointed(element, event) {
  const area = element.querySelector(".nsewdrag")?.getBoundingClientRect();
  const axes = element._fullLayout;
  if (!area || !axes) return null;
  const [left, top] = [event.clientX - area.left, event.clientY - area.top];
  if (left < 0 || top < 0 || left > area.width || top > area.height) return null;
  return { x: axes.xaxis.p2d(left), y: axes.yaxis.p2d(top) };
}

export default function draw({ data, parentElement, setTriggerValue }) {
  const element = parentElement.querySelector(".etalon-plot");
  const state = elements.get(element) ?? { busy: false };
  elements.set(element, state);
  element.setAttribute("role", "img");
  element.style.cursor = data.pointing ? "crosshair" : "";
  element.onclick = (event) => {
    const place = data.pointing && pointed(element, event);
    if (place) setTriggerValue("point", place);
  };
  state.leave?.();
  state.data = data;
  state.shown = data;
  state.gone = false; // an element that was taken away may come back
  if (data.feed) follow(element, state, data.feed);
  keepDrawing(element, state);
  return () => {
    state.gone = true;
    state.leave?.();
    keepDrawing(element, state);
  };
}
