"""A comparison as one HTML file that opens without a network, its charts alive. Pure.

Everything that came from a person or a log is escaped: in the text as HTML, in the figures as JSON
that cannot end its script.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .drawing import Figure

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1B1F24; margin: 2rem auto; max-width: 1180px;
  padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #D5DAE0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; }
footer { color: #5B636E; margin-top: 3rem; font-size: .85rem; }
"""

DRAW = """
for (const [i, figure] of JSON.parse(document.getElementById("figures").textContent).entries())
  Plotly.newPlot(`chart-${i}`, figure.data, {...figure.layout, autosize: true},
    {responsive: true, displaylogo: false});
"""


def html_report(
    *,
    title: str,
    opening: str,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    figures: Sequence[Figure],
    plotly_js: str,
) -> str:
    """Return the report: words, tables by heading, charts; ``plotly_js`` is put into the file."""
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(opening)}</p>"]
    for heading, rows in tables.items():
        parts += [f"<h2>{escape(heading)}</h2>", _table(rows)]
    charts = "".join(
        f'<div id="chart-{i}" role="img" aria-label="{escape(_title(figure))}"></div>'
        for i, figure in enumerate(figures)
    )
    data = json.dumps(list(figures), allow_nan=False).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        + "".join(parts)
        + f'<h2>Curves</h2><div class="charts">{charts}</div>'
        + "<footer>Made by Etalon. Not measured is a dash or a gap, never a zero.</footer>"
        + f'<script>{plotly_js}</script><script type="application/json" id="figures">{data}'
        + f"</script><script>{DRAW}</script></body></html>"
    )


def _title(figure: Figure) -> str:
    return str(figure["layout"]["title"]["text"])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "<p>Nothing.</p>"
    head = "".join(f"<th>{escape(str(name))}</th>" for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
