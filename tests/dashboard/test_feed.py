"""The feed of live charts, asked as a browser asks it, on a real archive."""

import asyncio
import gzip
import json
from urllib.parse import quote

import pytest
import streamlit as st
from factories import NOON, a_run, a_step, fill
from starlette.applications import Starlette
from starlette.routing import Route
from states import STATES, healthy, live

from advisor.dashboard.curves import LONG
from advisor.dashboard.feed import address, endpoint, remember
from advisor.dashboard.run_charts import WINDOWS, drawn_now, run_charts
from storage.records import RunStatus

APP = Starlette(routes=[Route("/feed/{secret}/{run_id}", endpoint(drawn_now))])
WHOLE_DRAWING, NEWS = 50_000, 2_000
"""Bytes on their way to the browser."""


def get(path, have=""):
    """Ask the feed at an address that a page gives out; return status, headers and raw body."""
    where, _, query = f"/{path}&have={have}".partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": where,
        "raw_path": quote(where).encode(),
        "query_string": quote(query, safe="=&").encode(),
        "headers": [],
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(APP(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])


def ask(run, have="", window="all steps"):
    """Ask for what is new, and return the answer."""
    status, headers, body = get(address(run.id, window), have)
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(gzip.decompress(body), parse_constant=refuse)


def refuse(word):
    raise AssertionError(f"{word} is no JSON")


def test_with_the_token_of_a_page_only_tails_are_sent(archive):
    run = live()
    fill(archive, run, steps=40)
    charts = run_charts(archive, run, "all steps")
    token = remember(charts)
    archive.append_step(a_step(run.id, 40, learning_rate=2e-4, reward_mean=0.9, sampled_at_step=40))
    answer = ask(run, token)
    assert answer["alive"]
    assert list(answer["charts"]) == list(charts)
    batch, evaluated = answer["charts"]["reward"]["tails"]
    assert batch == {"keep": 40, "x": [40], "y": [0.9]}
    assert evaluated == {"keep": 1, "x": [], "y": []}
    assert answer["charts"]["learning_rate"]["tails"][0]["y"] == [2e-4]
    again = ask(run, answer["token"])
    assert all(not tail["x"] for c in again["charts"].values() for tail in c["tails"])


def test_a_token_is_good_once_and_an_unknown_one_gets_whole_charts(archive):
    run = live()
    fill(archive, run, steps=40)
    token = remember(run_charts(archive, run, "all steps"))
    ask(run, token)
    for unknown in (token, "", "no such token"):
        answer = ask(run, unknown)
        whole = {name: change["figure"] for name, change in answer["charts"].items()}
        assert whole == run_charts(archive, run, "all steps")


def test_two_pages_of_the_same_run_do_not_take_each_others_news(archive):
    run = live()
    fill(archive, run, steps=40)
    one, two = (remember(run_charts(archive, run, "all steps")) for _ in range(2))
    archive.append_step(a_step(run.id, 40, reward_mean=0.9, sampled_at_step=40))
    for token in (one, two):
        assert ask(run, token)["charts"]["reward"]["tails"][0]["x"] == [40]


def test_a_window_shows_the_newest_steps_only(archive):
    run = live()
    fill(archive, run, steps=250)
    figures = ask(run, window="last 200")["charts"]
    assert min(figures["entropy"]["figure"]["data"][0]["x"]) == 50
    everything = ask(run, window="no such window")["charts"]
    assert min(everything["entropy"]["figure"]["data"][0]["x"]) == 0


def test_a_run_that_has_ended_is_said_not_to_go_on(archive):
    run = live()
    fill(archive, run, steps=40)
    archive.update_run(run.id, status=RunStatus.FINISHED, outcome="healthy")
    assert not ask(run)["alive"]


@pytest.mark.parametrize("state", ["diverged", "imported", "fresh", "unmeasured", "queued"])
def test_what_is_not_measured_or_not_finite_is_sent_as_a_gap(archive, state):
    STATES[state](archive)
    (run,) = archive.runs()
    assert ask(run)["charts"]  # refuses NaN and Infinity


@pytest.mark.parametrize("secret", ["wrong", "", "é", "x" * 500])
def test_who_does_not_know_the_address_is_told_nothing(archive, secret):
    run = healthy()
    fill(archive, run, steps=5)
    status, _, body = get(f"feed/{secret}/{run.id}?window=")
    assert status == 404
    assert run.id.encode() not in body


def test_a_run_that_is_gone_or_an_archive_that_does_not_answer_is_503_until_it_does(
    archive, monkeypatch, tmp_path
):
    run = healthy()
    fill(archive, run, steps=5)
    assert get(address("no-such-run", ""))[0] == 503
    monkeypatch.setenv("ETALON_DB", str(tmp_path / "nowhere" / "archive.db"))
    st.cache_resource.clear()
    status, _, words = get(address(run.id, ""))
    assert status == 503
    assert b"Traceback" not in words
    monkeypatch.setenv("ETALON_DB", archive.url)
    assert ask(run)["charts"]


@pytest.mark.parametrize("steps_done", [LONG - 100, LONG + 100])
def test_a_long_run_fits_in_fifty_kilobytes_and_its_news_in_two(archive, steps_done):
    run = live()
    archive.create_run(run)

    def steps(numbers):
        return (
            a_step(
                run.id,
                t,
                time=NOON + t,
                sampled_at_step=t - t % 4,
                learning_rate=2e-4,
                reward_mean=0.8 + 1e-3 * (t * 7919 % 97),
                staleness_max=float(t % 4),
                cycle_drift=0.0123456 * (t % 4),
                displacement=1e-3 * t**0.5,
                approx_kl=1.23456e-3 * (t % 13),
                kl_to_start=1e-4 * t if t % 5 == 4 else None,
                clip_fraction_low=1e-3 * (t % 7),
                clip_fraction_high=1e-3 * (t % 11),
                ess_fraction=1 - 1e-3 * (t % 17),
                sequence_ess_fraction=1 - 1e-3 * (t % 19),
                entropy=0.2 + 1e-3 * (t % 23),
                grad_norm=5.0 + 0.1 * (t % 29),
                gradient_cosine=0.01 * (t % 31),
            )
            for t in numbers
        )

    archive.append_steps(steps(range(steps_done)))
    status, headers, body = get(address(run.id, "all steps"))
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert len(body) <= WHOLE_DRAWING
    answer = json.loads(gzip.decompress(body), parse_constant=refuse)
    archive.append_steps(steps(range(steps_done, steps_done + 10)))
    _, _, news = get(address(run.id, "all steps"), answer["token"])
    assert all("tails" in each for each in json.loads(gzip.decompress(news))["charts"].values())
    assert len(news) <= NEWS


def test_every_window_that_a_reader_may_choose_has_an_address_that_says_it():
    assert len({address("a-run", window) for window in WINDOWS}) == len(WINDOWS)
    assert a_run().id not in address("a-run", "all steps")
