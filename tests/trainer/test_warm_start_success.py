"""The success rate to which the built-in model is warm-started chooses the band of its recipe."""

from pathlib import Path

import pytest
from factories import a_config
from own_things import save_model

from trainer.workloads import arithmetic
from trainer.workloads.choice import task_and_start


@pytest.fixture
def asked(monkeypatch):
    """Give the recipes that are asked for, in place of twenty seconds of warm start."""
    found = []

    def warm_started(recipe, home, progress):
        found.append(recipe)
        return Path("nowhere")

    monkeypatch.setattr(arithmetic, "warm_started", warm_started)
    return found


def start(**changes):
    return task_and_start(a_config(**changes), Path("home"), print)


@pytest.mark.parametrize("success", [0.05, 0.5, 0.95])
def test_the_band_lies_around_the_success_that_was_asked_for(asked, success):
    start(warm_start_success=success)
    [recipe] = asked
    assert 0 < recipe.low < success < recipe.high < 1
    assert (recipe.low + recipe.high) / 2 == pytest.approx(success)


def test_different_successes_are_different_recipes_and_the_default_is_about_three_quarters(asked):
    for success in (None, 0.5, 0.51):
        start(warm_start_success=success)
    assert len({str(recipe.identity) for recipe in asked}) == 3  # each has weights of its own
    assert asked[0].low < 0.76 < asked[0].high


def test_ones_own_model_is_not_warm_started(asked, tmp_path):
    _, found = start(warm_start_success=0.5, model=str(save_model(tmp_path)))
    assert (found, asked) == (tmp_path, [])
