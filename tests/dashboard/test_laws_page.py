"""Laws: what the archive says of the paper's three laws, and what is missing for them."""

import shlex

import pytest
from factories import a_config, a_run, a_step
from pages import charts, words

from advisor.__main__ import _parser
from storage.importers.importing import import_file
from storage.records import RunStatus


def add_ended(store, group, outcome, rate, *, staleness=3, seed=0, steps=0, **changes):
    """Add an ended run of a study, with as many learner steps."""
    config = a_config(learning_rate=rate, max_staleness=staleness, seed=seed)
    status = RunStatus.COLLAPSED if outcome == "collapsed" else RunStatus.FINISHED
    known = {"group": group, "seed": seed, "kind": "sweep", "status": status, "outcome": outcome}
    run = a_run(config, **(known | changes))
    store.create_run(run)
    store.append_steps(
        a_step(
            run.id,
            t,
            learning_rate=rate,
            path_length=rate * (t + 1),
            displacement=rate * (t + 1),
            kl_to_start=(rate * (t + 1)) ** 2,
            clip_fraction_low=0.001,
            clip_fraction_high=0.001,
        )
        for t in range(steps)
    )


def add_lifetimes(store, group="laws-horizon"):
    """Runs that collapse where Σ η reaches 0.04, whatever their S, up to a step."""
    for rate, onset in ((1e-3, 40), (2e-3, 20), (4e-3, 10)):
        for staleness in (0, 3):
            for seed in (0, 1):
                add_ended(
                    store,
                    group,
                    "collapsed",
                    rate,
                    staleness=staleness,
                    seed=seed,
                    steps=onset + 5,
                    collapse_step=onset + seed,
                )


def add_boundary(store, group="laws-boundary"):
    """Runs that survive up to 2e-3/√(S + 1)."""
    for staleness in (0, 3, 15):
        for seed in range(3):
            for rate in (2.5e-4, 3.5e-4, 7e-4, 1.4e-3, 2.8e-3):
                bold = rate > 2e-3 * (staleness + 1) ** -0.5
                outcome = "collapsed" if bold else "healthy"
                add_ended(store, group, outcome, rate, staleness=staleness, seed=seed)


def estimate(page, name):
    """The line of an estimate, as it is read."""
    return next(w.replace("\\", "") for w in words(page) if w.startswith(f"- **{name}**"))


def test_without_data_every_law_says_which_command_makes_them(visit):
    page = visit("laws")
    assert not page.exception
    assert not charts(page)
    commands = [each.value for each in page.code]
    assert commands == [
        f"python -m advisor laws --study {kind}" for kind in ("bias", "horizon", "boundary")
    ]
    for each in commands:
        assert _parser().parse_args(shlex.split(each)[3:]).study
    assert len([i for i in page.info if "Not enough data yet" in i.value]) == 3


def test_a_few_lifetimes_draw_the_second_law_with_its_exponent(archive, visit):
    add_lifetimes(archive)
    page = visit("laws")
    assert not page.exception
    assert len(charts(page)) == 2
    line = estimate(page, "exponents all cells, exponent in η")
    value = float(line.split(": ")[1].split()[0])
    assert value == pytest.approx(-1, abs=0.05)
    assert [each.value.split()[-1] for each in page.code] == ["bias", "boundary"]


def test_the_boundary_is_drawn_with_its_slope(archive, visit):
    add_boundary(archive)
    page = visit("laws")
    assert not page.exception
    chart = charts(page)["The boundary"]
    safe = next(t for t in chart["data"] if t["name"].endswith("no seed is unsafe"))
    # 2e-3/√(S + 1) is 2e-3, 1e-3 and 5e-4; the largest tried rate below each survives.
    assert (safe["x"], safe["y"]) == ([1, 4, 16], [1.4e-3, 7e-4, 3.5e-4])
    line = estimate(page, "unsafe, slopes, slope of log η in log (S + 1)")
    assert float(line.split(": ")[1].split()[0]) == pytest.approx(-0.5, abs=0.1)


def test_one_collapse_is_drawn_and_still_not_enough(archive, visit):
    add_ended(archive, "laws-horizon", "collapsed", 1e-3, steps=9, collapse_step=4)
    page = visit("laws")
    assert not page.exception
    assert set(charts(page)) == {"When runs collapse"}, "one collapse agrees with nothing"
    assert "python -m advisor laws --study horizon" in [each.value for each in page.code]
    line = estimate(page, "exponents all cells, exponent in η")
    assert "not known: 1 collapse; 6 at two learning rates are needed" in line


def test_the_laws_are_read_off_a_group_of_ones_own(archive, visit):
    add_lifetimes(archive, group="mine")
    assert not charts(visit("laws"))
    page = visit("laws", group="mine")
    assert page.selectbox(key="group").value == "mine"
    assert len(charts(page)) == 3  # the same runs are asked about the boundary too
    by_hand = visit("laws")
    by_hand.selectbox(key="group").select("mine").run()
    assert words(by_hand) == words(page)


def test_runs_that_were_put_away_are_no_evidence(archive, visit):
    add_lifetimes(archive)
    for run in archive.runs():
        archive.update_run(run.id, archived=True)
    page = visit("laws")
    assert not charts(page)
    assert page.selectbox(key="group").options == ["the three studies"]


def test_a_new_run_is_seen_when_the_page_is_drawn_again(archive, visit):
    add_ended(archive, "laws-horizon", "collapsed", 1e-3, steps=9, collapse_step=4)
    page = visit("laws")
    add_ended(archive, "laws-horizon", "collapsed", 2e-3, steps=9, collapse_step=2)
    page.run()
    line = estimate(page, "exponents all cells, exponent in η")
    assert "2 collapses" in line


def test_a_run_that_takes_the_place_of_another_is_seen_too(archive, visit):
    add_ended(archive, "laws-horizon", "collapsed", 1e-3, steps=9, collapse_step=4)
    page = visit("laws")
    (old,) = archive.runs()
    archive.update_run(old.id, archived=True)
    add_ended(archive, "laws-horizon", "healthy", 2e-3, steps=9)
    page.run()
    assert not charts(page)  # none collapsed any more
    assert "0 collapses" in estimate(page, "exponents all cells, exponent in η")


def test_a_group_with_a_run_of_unknown_rate_is_not_on_offer(archive, visit):
    add_lifetimes(archive, group="mine")
    add_lifetimes(archive, group="mixed")
    import_file(archive, b'{"step": 1, "reward": 0.5}', name="a log", group="mixed")
    page = visit("laws", group="mixed")
    assert not page.exception
    assert page.selectbox(key="group").options == ["the three studies", "mine"]


def test_runs_of_which_nothing_was_judged_fail_no_page(archive, visit):
    for outcome in (None, "undetermined"):
        add_ended(archive, "laws-boundary", outcome, 1e-3)
    page = visit("laws")
    assert not page.exception
    assert "python -m advisor laws --study boundary" in [each.value for each in page.code]
