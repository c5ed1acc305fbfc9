"""How the dashboard holds out, in a real browser: ``python -m benchmarks.dashboard``.

    python -m benchmarks.dashboard [--minutes N] [--steps N] [--json]

Open: from the navigation to the first chart of a run of a million steps, to the list of 200 runs,
and, as what a machine needs for any page, to the words of an empty Streamlit app; the servers being
warm, one after the other several times, the median and the range. Refresh: bytes on the wire and
server time of one request of the feed for a live run of 20 000 steps. Endure: a run that is written
at ten steps a second is watched with all of its charts, asked for once a second, for ``--minutes``;
given are the requests, those whose points were drawn, and the memory of page and server at eleven
times from the beginning to the end. The archive lies in a folder that is deleted afterwards.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from advisor.serve import APP, free_port
from storage.records import RunInfo, RunStatus, StepMetrics
from storage.store import Store
from trainer.config import checked_config

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 120_000
OPENED = 9
MEMORIES = 10
EMPTY = "import streamlit as st; st.write('nothing')"
RUNS_LISTED = 200
FED_STEPS = 20_000
STEPS_PER_SECOND = 10
PORTION = 20_000
FIRST_CHART = "() => document.querySelectorAll('.etalon-plot .main-svg').length > 0"
TABLE = "() => document.querySelectorAll('[data-testid=stDataFrame] canvas').length > 0"
WORDS = "() => document.querySelectorAll('[data-testid=stMarkdown]').length > 0"
NEWEST = """() => [...document.querySelectorAll('.js-plotly-plot')].map(
    (chart) => Math.max(-1, ...chart.data.map((trace) => trace.x.at(-1) ?? -1)))"""
GROWING = 8
"""Of the charts of a run at least so many have a point more at every request."""


def main(argv: Sequence[str]) -> int:
    """Measure, and print what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.steps, options.minutes)
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:<40} {value}" for name, value in found.items()))
    return 0


def measure(home: Path, steps: int, minutes: float) -> dict[str, Any]:
    """Make the archive, serve it, and look at it."""
    store = Store.open(str(home / "etalon.db"))
    long = _add_run(store, "long", steps, RunStatus.FINISHED)
    for i in range(RUNS_LISTED - 2):
        _add_run(store, f"run {i}", 2, RunStatus.FINISHED)
    live = _add_run(store, "live", FED_STEPS, RunStatus.RUNNING)
    empty = home / "empty.py"
    empty.write_text(EMPTY)
    with (
        _served(home, APP) as (url, server),
        _served(home, empty) as (floor, _),
        sync_playwright() as playwright,
    ):
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        answer = _opened(browser, url, floor, long)
        with _being_written(store, live):
            answer |= _refreshed(browser, url, live)
            answer |= _endured(browser, url, live, server, minutes)
        browser.close()
    store.close()
    return answer


def _add_run(store: Store, name: str, steps: int, status: RunStatus) -> str:
    now = time.time()
    config = checked_config(
        {"learning_rate": 2e-4, "max_staleness": 3, "steps": max(steps, 1_000_000)}
    )
    run = RunInfo(
        id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{name.replace(' ', '-')}",
        name=name,
        created_at=now,
        started_at=now,
        status=status,
        pid=os.getpid() if status.alive else None,
        pid_started=psutil.Process().create_time() if status.alive else None,
        config=config.model_dump(mode="json"),
        workload="arithmetic",
    )
    store.create_run(run)
    for first in range(0, steps, PORTION):
        last = min(first + PORTION, steps)
        store.append_steps(_row(run.id, step) for step in range(first, last))
    return run.id


def _row(run_id: str, step: int) -> StepMetrics:
    """Return a step whose numbers are cheap to make and differ from step to step."""
    wave = ((step * 7919) % 1000) / 1000
    return StepMetrics(
        run_id=run_id,
        step=step,
        time=1.7e9 + step / STEPS_PER_SECOND,
        learning_rate=2e-4,
        staleness_max=float(step % 4),
        sampled_at_step=step - step % 4,
        reward_mean=0.7 + 0.2 * wave,
        approx_kl=0.003 * (step % 4) + 0.001 * wave,
        kl_to_start=0.1 + 0.02 * wave if step % 10 == 9 else None,
        cycle_drift=0.02 * (step % 4) + 0.001 * wave,
        displacement=(step + 1) ** 0.5 * 0.01,
        clip_fraction_low=0.01 * wave,
        clip_fraction_high=0.005 * wave,
        ess_fraction=0.99,
        sequence_ess_fraction=0.9 + 0.05 * wave,
        entropy=0.3 + 0.01 * wave,
        grad_norm=3 + wave,
        gradient_cosine=wave - 0.5,
    )


@contextmanager
def _served(home: Path, app: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port(8750)
    words = ["-m", "streamlit", "run", str(app), f"--server.port={port}", "--server.headless=true"]
    server = subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "ETALON_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while not _answers(f"{url}/_stcore/health") and time.monotonic() < until:
            time.sleep(0.2)
        yield url, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _opened(browser: Browser, url: str, floor: str, long: str) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    views: dict[str, tuple[str, Callable[[], object]]] = {
        "first_chart_of_the_long_run_s": (
            f"{url}/?run={long}",
            lambda: page.wait_for_function(FIRST_CHART),
        ),
        f"list_of_{RUNS_LISTED}_runs_s": (
            f"{url}/runs",
            lambda: page.wait_for_function(TABLE),
        ),
        "empty_streamlit_page_s": (floor, lambda: page.wait_for_function(WORDS)),
    }
    taken: dict[str, list[float]] = {name: [] for name in views}
    for _ in range(OPENED + 1):  # the first visit warms the server
        for name, (address, shown) in views.items():
            page.goto("about:blank")
            begun = time.perf_counter()
            page.goto(address)
            shown()
            taken[name].append(time.perf_counter() - begun)
    page.close()
    return {name: _spread(seconds[1:]) for name, seconds in taken.items()}


def _refreshed(browser: Browser, url: str, live: str) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    asked: list[Any] = []
    sizes: list[float] = []
    page.on("requestfinished", lambda r: asked.append(r) if "/feed/" in r.url else None)
    page.on(
        "response",
        lambda r: sizes.append(float(r.headers["content-length"])) if "/feed/" in r.url else None,
    )
    page.goto(f"{url}/?run={live}")
    page.wait_for_function(FIRST_CHART)
    while len(asked) < 2 * OPENED:
        page.wait_for_timeout(500)
    times = [r.timing["responseStart"] - r.timing["requestStart"] for r in asked]
    page.close()
    return {"feed_bytes": _spread(sizes), "feed_ms": _spread(times)}


def _endured(
    browser: Browser, url: str, live: str, server: psutil.Process, minutes: float
) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    answered: list[float] = []
    page.on("response", lambda r: answered.append(time.time()) if "/feed/" in r.url else None)
    page.goto(f"{url}/?run={live}")
    page.wait_for_function(FIRST_CHART)
    page.wait_for_timeout(5_000)
    memories, begun = [_memory(page, server)], len(answered)
    drawn, newest = 0, page.evaluate(NEWEST)
    start = time.monotonic()
    while (passed := (time.monotonic() - start) / (60 * minutes)) < 1:
        if passed * MEMORIES >= len(memories):
            memories.append(_memory(page, server))
        count = len(answered)
        page.wait_for_timeout(250)
        if len(answered) > count:
            page.wait_for_timeout(250)
            now = page.evaluate(NEWEST)
            grown = sum(a > b for a, b in zip(now, newest, strict=True))
            drawn, newest = drawn + (grown >= GROWING), now
    memories.append(_memory(page, server))
    asked = len(answered) - begun
    charts = page.locator(".js-plotly-plot").count()
    page.close()
    return {
        "charts": charts,
        "minutes": minutes,
        "requests": asked,
        "requests_whose_points_were_drawn": drawn,
        "page_mb": [page_mb for page_mb, _ in memories],
        "server_mb": [server_mb for _, server_mb in memories],
    }


@contextmanager
def _being_written(store: Store, live: str) -> Iterator[None]:
    done = threading.Event()
    writer = threading.Thread(target=_write, args=(store, live, done), daemon=True)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()


def _write(store: Store, live: str, done: threading.Event) -> None:
    step = FED_STEPS
    while not done.wait(1 / STEPS_PER_SECOND):
        store.append_step(_row(live, step))
        store.heartbeat(live, time.time())
        step += 1


def _memory(page: Page, server: psutil.Process) -> tuple[float, float]:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    return round(used / 1e6, 1), round(server.memory_info().rss / 1e6, 1)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
