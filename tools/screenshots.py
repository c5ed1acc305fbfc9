"""Photograph the running dashboard: ``.venv/bin/python tools/screenshots.py``.

Makes a real archive by short runs, a probe and an import through the command line (some minutes, in
a temporary folder), starts the dashboard on it, and takes the whole of every page in light and
dark, on a desktop and on a phone: ``docs/screenshots/PAGE-THEME-WIDTH.png``, and for the README the
first screens ``watch.png`` and ``advise.png``. With ``--home`` the archive is kept and used again.
"""

import argparse
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from advisor.serve import free_port  # noqa: E402  (the project is no installed package)
from storage.store import Store  # noqa: E402

PICTURES = PROJECT / "docs" / "screenshots"
SIZES = {1280: 800, 390: 844}
THEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ENDED = {
    "gentle": (1e-4, 3),
    "steady": (4e-4, 3),
    "bold": (1.4e-3, 3),
    "too bold": (4e-3, 3),
    "fresh": (8e-4, 0),
    "stale": (8e-4, 15),
}
"""Learning rate and max staleness of the runs in the archive, by name."""
GROUP, IMPORTED = "ladder", "verl-7b"
PROBED = "--workload arithmetic --max-staleness 3 --steps 300"
LIVE = (3e-4, 3)
ENDED_STEPS, LIVE_STEPS = 300, 2000
SHOWN_IN_README = {"watch": 1055, "advise": 1050}
"""How much of these pages, in pixels from the top, is also kept as ``PAGE.png``."""
PATIENCE = 120_000
"""Milliseconds that a page may take on a busy machine."""
SHOWN_FROM = 400
"""Learner steps that the live run shall have made before it is photographed."""


def main() -> None:
    """Make the archive, open the dashboard, take the pictures."""
    parser = argparse.ArgumentParser(description="Photograph every page of the dashboard.")
    parser.add_argument("--folder", type=Path, default=PICTURES, help="where the pictures go")
    parser.add_argument("--home", type=Path, help="archive to use, made if it is empty")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        home = options.home or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {**os.environ, "ETALON_HOME": str(home.resolve()), "HF_HUB_OFFLINE": "1"}
        environment.pop("ETALON_DB", None)
        _seed(environment)
        live = _start_live(environment, stack)
        url = stack.enter_context(_dashboard(environment))
        browser = stack.enter_context(_browser())
        _wait_for_steps(environment, live)
        for theme in THEMES:
            for width in SIZES:
                _photograph(browser, url, options.folder, theme, width, live, environment)


def _module(environment: dict[str, str], *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", *words],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _trainer(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return str(json.loads(done.stdout)["run_id"])


def _setting(rate: float, staleness: int, steps: int, name: str | None = None) -> list[str]:
    setting = f"--workload arithmetic --learning-rate {rate} --max-staleness {staleness}"
    words = f"{setting} --steps {steps} --json".split()
    return words if name is None else [*words, "--name", name]


def _store(environment: dict[str, str]) -> Store:
    return Store.open(str(Path(environment["ETALON_HOME"]) / "etalon.db"))


def _seed(environment: dict[str, str]) -> None:
    Path(environment["ETALON_HOME"]).mkdir(parents=True, exist_ok=True)
    store = _store(environment)
    known = {run.name for run in store.runs()}
    store.close()
    for name, (rate, staleness) in ENDED.items():
        if name not in known:
            print(f"running {name!r} at η={rate:g}, S={staleness}", file=sys.stderr)
            setting = _setting(rate, staleness, ENDED_STEPS, name)
            _trainer(environment, "run", *setting, "--group", GROUP)
    if IMPORTED not in known:
        _module(environment, "advisor", "probe", *PROBED.split(), "--json")
        log = Path(environment["ETALON_HOME"]) / "verl.jsonl"
        log.write_text("".join(map(_row_of_verl, range(1, 201))), encoding="utf-8")
        words = f"--name {IMPORTED} --set learning_rate=1e-6 --set max_staleness=7"
        _module(environment, "storage", "import", str(log), *words.split())
        store = _store(environment)
        bold = next(run.id for run in store.runs() if run.name == "too bold")
        store.tag_run(bold, ["edge"])
        store.update_run(bold, notes="what a collapse looks like")
        store.close()


def _row_of_verl(step: int) -> str:
    """Return a line of verl's file logger, of a run whose drift grows slowly."""
    share = step / 200
    data = {
        "actor/lr": 1e-6,
        "actor/grad_norm": 0.8 + 0.1 * math.sin(step),
        "actor/entropy": 0.5 - 0.2 * share,
        "actor/pg_clipfrac": 0.002 + 0.004 * share,
        "rollout_corr/k3_kl": 0.001 + 0.003 * share + 0.0004 * math.sin(3 * step),
        "critic/score/mean": 0.35 + 0.25 * share + 0.03 * math.sin(2 * step),
    }
    return json.dumps({"step": step, "data": data}) + "\n"


def _start_live(environment: dict[str, str], stack: ExitStack) -> str:
    run_id = _trainer(environment, "run", *_setting(*LIVE, LIVE_STEPS), "--detach")
    stack.callback(_trainer, environment, "stop", run_id, "--json")
    return run_id


def _wait_for_steps(environment: dict[str, str], run_id: str) -> None:
    store = _store(environment)
    try:
        _wait(lambda: store.step_counts().get(run_id, 0) >= SHOWN_FROM, 300)
    finally:
        store.close()


def _wait(true: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing came within {seconds:.0f} s")
        time.sleep(0.2)


@contextmanager
def _dashboard(environment: dict[str, str]) -> Iterator[str]:
    port = free_port(8600)
    server = subprocess.Popen(
        [sys.executable, "-m", "advisor.serve", "--port", str(port), "--no-demo"],
        cwd=PROJECT,
        env=environment,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: _answers(f"{url}/_stcore/health"), 60)
        yield url
    finally:
        server.terminate()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )


def _photograph(
    browser: Browser,
    url: str,
    folder: Path,
    theme: str,
    width: int,
    live: str,
    environment: dict[str, str],
) -> None:
    store = _store(environment)
    ids = {run.name: run.id for run in store.runs()}
    store.close()
    bold, steady = ids["too bold"], ids["steady"]
    pages: dict[str, tuple[str, int]] = {  # what to open, and how many charts to wait for
        "watch": (f"?run={live}", 13),
        "watch-collapsed": (f"?run={bold}", 13),
        "advise": ("advise?learning_rate=6e-4", 4),
        "compare": (f"compare?runs={steady}&runs={bold}&runs={ids['stale']}", 2),
        "laws": (f"laws?group={GROUP}", 2),
        "runs": ("runs", 0),
    }
    for name, (path, plots) in pages.items():
        page = browser.new_page(
            viewport={"width": width, "height": SIZES[width]},
            color_scheme="dark" if theme == "dark" else "light",
        )
        page.set_default_timeout(PATIENCE)
        page.goto(f"{url}/{path}")
        _settle(page, plots)
        tall = int(page.evaluate(_HEIGHT))
        page.set_viewport_size({"width": width, "height": max(tall, SIZES[width])})
        _settle(page, plots)
        _save(page.screenshot(), folder / f"{name}-{theme}-{width}.png")
        if (theme, width) == ("light", 1280) and name in SHOWN_IN_README:
            shown = {"x": 0, "y": 0, "width": width, "height": SHOWN_IN_README[name]}
            _save(page.screenshot(clip=shown), folder / f"{name}.png")
        page.close()


_HEIGHT = "document.querySelector('[data-testid=stMain]').scrollHeight + 60"


_DRAWN = "count => document.querySelectorAll('.etalon-plot:has(.main-svg)').length >= count"


def _save(picture: bytes, path: Path) -> None:
    """Keep a picture in 128 colors: the pages have few, and it takes a third of the space."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(128).save(path, optimize=True)


def _settle(page: Page, plots: int) -> None:
    page.locator("[data-testid=stMain]").wait_for()
    page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
    page.wait_for_function(_DRAWN, arg=plots)
    page.wait_for_timeout(1500)  # a picture, not a test: let the last chart finish its animation


if __name__ == "__main__":
    main()
