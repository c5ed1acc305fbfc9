"""Warm starts land in their band, are made once, and leave nothing behind when they fail."""

import json
from dataclasses import replace

import pytest
import torch
from factories import a_config

from trainer.policy import load_policy
from trainer.rollout import sample_rollouts
from trainer.warm_start import WarmStartFailed, warm_started
from trainer.workloads.arithmetic import arithmetic, recipe

SIGNS = ["<pad>", "<s>", "</s>", "<unk>", *"0123456789+="]


def ignore(words):
    pass


def untrained(**changes):
    """A recipe that is satisfied with the random weights it begins with."""
    return replace(recipe(16, 1), low=0.0, high=1.0, **changes)


def card(folder):
    return json.loads((folder / "warm_start.json").read_text())


def contents(home):
    return sorted(path.name for path in (home / "warm_starts").iterdir())


def test_the_policy_answers_three_quarters_of_all_problems(etalon_home):
    _, folder = arithmetic(a_config(), etalon_home, ignore)
    model, _ = load_policy(folder, torch.device("cpu"))
    rows = [[*f"{a}+{b}={a + b}", "</s>"][:9] for a in range(10, 100) for b in range(10, 100)]
    ids = torch.tensor([[SIGNS.index(sign) for sign in row] for row in rows])
    with torch.no_grad():
        log_probs = model(ids[:, :-1]).logits[:, -3:].log_softmax(dim=2)
    right = log_probs.gather(2, ids[:, -3:].unsqueeze(2)).squeeze(2).sum(dim=1).exp()
    assert 0.73 <= card(folder)["success_rate"] <= 0.80  # on the 2 048 problems of the test
    assert float(right.mean()) == pytest.approx(card(folder)["success_rate"], abs=0.02)


def test_the_success_rate_is_the_reward_of_sampled_answers(etalon_home):
    task, folder = arithmetic(a_config(), etalon_home, ignore)
    policy = load_policy(folder, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    prompts = task.sample_prompts(2000, generator)
    batch = sample_rollouts(*policy, task, prompts, 1, generator)
    error = float(batch.rewards_P_G.std()) / 2000**0.5  # 0.0093
    assert float(batch.rewards_P_G.mean()) == pytest.approx(
        card(folder)["success_rate"], abs=4 * error + 0.01
    )


def test_a_policy_that_was_made_before_is_not_made_again(tmp_path):
    def never():
        raise AssertionError("it was built again")

    first = warm_started(untrained(), tmp_path, ignore)
    before = {path: path.read_bytes() for path in first.iterdir()}
    told = []
    assert warm_started(untrained(build=never), tmp_path, told.append) == first
    assert told == []
    assert {path: path.read_bytes() for path in first.iterdir()} == before


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 32}, {"layers": 2}, {"torch": "0.0.0"}, {"version": 99}]
)
def test_another_recipe_has_another_folder(tmp_path, changes):
    given = untrained()
    first = warm_started(given, tmp_path, ignore)
    other = warm_started(replace(given, identity={**given.identity, **changes}), tmp_path, ignore)
    assert other != first
    assert contents(tmp_path) == sorted([first.name, other.name])
    assert card(other) == {**card(first), **changes}


def test_the_order_in_which_a_recipe_is_written_does_not_matter(tmp_path):
    given = untrained()
    turned = replace(given, identity=dict(reversed(given.identity.items())))
    assert warm_started(given, tmp_path, ignore) == warm_started(turned, tmp_path, ignore)


def test_the_recipes_of_different_models_differ():
    names = {json.dumps(dict(recipe(*size).identity)) for size in ((16, 1), (32, 1), (16, 2))}
    assert len(names) == 3


@pytest.mark.parametrize(("low", "high"), [(0.999, 1.0), (-1.0, -0.5)])
def test_a_band_that_is_not_reached_raises_and_leaves_nothing(tmp_path, low, high):
    never = replace(recipe(16, 1), low=low, high=high, max_steps=21)
    with pytest.raises(WarmStartFailed, match=f"after 21 supervised .* outside {low}…{high}"):
        warm_started(never, tmp_path, ignore)
    assert contents(tmp_path) == []


def test_an_interrupted_warm_start_leaves_nothing_and_can_be_made_again(tmp_path):
    def interrupted(words):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm_started(replace(recipe(16, 1), low=0.9), tmp_path, interrupted)
    assert contents(tmp_path) == []
    assert warm_started(untrained(), tmp_path, ignore).is_dir()


def test_a_folder_that_was_never_finished_is_made_good(tmp_path):
    folder = warm_started(untrained(), tmp_path, ignore)
    (folder / "warm_start.json").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"half")
    assert warm_started(untrained(), tmp_path, ignore) == folder
    assert (folder / "warm_start.json").exists()
    load_policy(folder, torch.device("cpu"))


def test_two_that_make_the_same_warm_start_end_with_one(tmp_path):
    """The second is overtaken: the first has published while the second was training."""
    given = untrained()

    def overtaken():
        warm_started(given, tmp_path, ignore)
        return given.build()

    folder = warm_started(replace(given, build=overtaken), tmp_path, ignore)
    assert contents(tmp_path) == [folder.name]
    load_policy(folder, torch.device("cpu"))


def test_a_step_over_the_band_goes_back_and_takes_half_the_step(tmp_path):
    """The loss is a plain slope, so that Adam moves every weight by the learning rate."""
    seen = []
    rates = iter([0.1, 0.95, 0.5])  # below the band, above it, and then within

    def success_rate(model):
        seen.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]).clone())
        return next(rates)

    slope = replace(
        recipe(16, 1),
        loss=lambda model, _: sum(p.sum() for p in model.parameters()),
        success_rate=success_rate,
        low=0.4,
        high=0.6,
        learning_rate=1.0,
        test_every=1,
    )
    folder = warm_started(slope, tmp_path, ignore)
    start, above, within = seen
    # The rate warms up over 50 steps: 1/50 in the first; half of 2/50 in the second.
    assert torch.allclose(above, start - 1 / 50, atol=1e-5)
    assert torch.allclose(within, start - 1 / 50, atol=1e-5)
    assert card(folder)["success_rate"] == 0.5
    assert card(folder)["steps"] == 2


def test_the_same_recipe_gives_the_same_weights(tmp_path):
    short = replace(recipe(16, 1), low=0.5, high=1.0)
    first, second = (
        warm_started(replace(short, success_rate=true_at_test(3)), tmp_path / name, ignore)
        for name in ("one", "two")
    )
    name = "model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    assert card(first)["steps"] == 20


def true_at_test(tests):
    """Let a recipe be satisfied at its n-th test."""
    count = iter(range(1, tests + 1))
    return lambda _: 0.5 if next(count) == tests else 0.0
