"""What the laws read of an archive, and that mistyped studies leave nothing behind."""

import json
import math
import signal

import numpy as np
import pytest
from factories import a_config, a_run, a_step
from processes import command

from advisor.__main__ import main
from advisor.experiments.laws_command import laws, plain
from advisor.experiments.study import STUDIES, Study, cells, lifetime, runs_of, tried_of
from advisor.regime import Estimate
from storage.commandline import run_command
from storage.records import RunStatus
from storage.store import Store


def ended(outcome, *, rate=1e-3, staleness=3, seed=0, group="laws-boundary", **changes):
    config = a_config(learning_rate=rate, max_staleness=staleness, seed=seed)
    status = RunStatus.COLLAPSED if outcome == "collapsed" else RunStatus.FINISHED
    return a_run(
        config, outcome=outcome, status=status, group=group, seed=seed, kind="sweep", **changes
    )


def series(steps, **columns):
    """A run at η = 1e-3 whose path grows by 0.1 and whose KL is 0.01·t, measured every 5 steps."""
    made = {
        "step": list(range(steps)),
        "learning_rate": [1e-3] * steps,
        "path_length": [0.1 * (t + 1) for t in range(steps)],
        "displacement": [0.1 * math.sqrt(t + 1) for t in range(steps)],
        "kl_to_start": [0.01 * (t + 1) if (t + 1) % 5 == 0 else None for t in range(steps)],
        "clip_fraction_low": [0.001] * steps,
        "clip_fraction_high": [0.002] * steps,
    }
    return made | columns


def test_clocks_are_read_at_the_weights_of_the_onset():
    found = lifetime(ended("collapsed", collapse_step=40), series(100))
    assert (found.step, found.collapsed) == (40, True)
    # θ_40 stands after learner step 39: 40 rates, 40 steps of path, KL measured last at step 39.
    assert found.clocks == pytest.approx(
        {
            "step": 40.0,
            "rate_sum": 0.04,
            "path_length": 4.0,
            "displacement": 0.1 * math.sqrt(40),
            "sqrt_kl": math.sqrt(0.4),
        }
    )
    assert found.slopes == pytest.approx(
        {"step": 1.0, "rate_sum": 1.0, "path_length": 1.0, "displacement": 0.5, "sqrt_kl": 0.5}
    )
    assert found.clip_fraction == pytest.approx(0.003)


def test_a_run_that_finished_is_censored_at_its_end():
    found = lifetime(ended("healthy"), series(100))
    assert (found.step, found.collapsed) == (100, False)


def test_an_onset_at_the_very_start_counts_as_the_first_step():
    assert lifetime(ended("collapsed", collapse_step=0), series(100)).step == 1


def test_a_displacement_that_shrinks_keeps_its_largest():
    shrinking = [1.0, 3.0, 2.0, 1.0]
    found = lifetime(ended("healthy"), series(4, displacement=shrinking))
    assert found.clocks["displacement"] == 3.0


def test_what_was_not_measured_is_not_known_and_not_zero():
    nothing = [None] * 50
    columns = {"kl_to_start": nothing, "clip_fraction_low": nothing, "clip_fraction_high": nothing}
    found = lifetime(ended("healthy", staleness=0), series(50, **columns))
    assert found.clocks["sqrt_kl"] is None
    assert found.slopes["sqrt_kl"] is None
    assert found.clip_fraction is None


def test_damaged_counts_as_unsafe_and_not_as_collapsed():
    runs = [ended(outcome) for outcome in ("healthy", "damaged", "collapsed", "undetermined")]
    assert [t.bad for t in tried_of(runs, unsafe=False)] == [False, False, True]
    assert [t.bad for t in tried_of(runs, unsafe=True)] == [False, True, True]


def test_runs_that_were_put_away_or_are_alive_are_no_evidence(store):
    store.create_run(ended("healthy"))
    store.create_run(ended("healthy", archived=True))
    store.create_run(a_run(group="laws-boundary"))
    assert len(runs_of(store, "laws-boundary")) == 1


def test_every_bundled_study_is_a_set_of_allowed_settings():
    assert len(cells("bias", STUDIES["bias"])) == 3 * 3
    assert len(cells("boundary", STUDIES["boundary"])) == 8 * 4 * 3
    config = cells("bias", STUDIES["bias"])[0]
    assert config.max_staleness == 0
    assert config.study_lags == (0, 1, 2, 4, 8, 16)
    assert config.bias_shards * config.bias_prompts * config.group_size > 50_000


def test_a_study_of_one_cell_per_seed_has_those_runs():
    study = Study(setting={"steps": 5}, learning_rates=(1e-3,), stalenesses=(2,), seeds=(3, 5))
    assert [c.seed for c in cells("boundary", study)] == [3, 5]


def test_the_laws_of_an_empty_archive_say_what_to_run(store):
    answer = {kind: plain(law) for kind, law in laws(store).items()}
    for kind in ("bias", "horizon", "boundary"):
        assert not answer[kind]["sufficient"]
        assert answer[kind]["to_run"] == f"python -m advisor laws --study {kind}"
    assert "are needed" in answer["horizon"]["exponents"]["rate"]["value_reason"]


def test_the_boundary_is_read_off_archived_runs(store: Store):
    rng = np.random.default_rng(0)
    for staleness in (0, 3, 15):
        for seed in range(3):
            edge = 2e-3 * (staleness + 1) ** -0.5 * math.exp(0.1 * rng.normal())
            for rate in (2.5e-4, 3.5e-4, 5e-4, 7e-4, 1e-3, 1.4e-3, 2e-3, 2.8e-3):
                verdict = "collapsed" if rate > edge else "healthy"
                store.create_run(ended(verdict, rate=rate, staleness=staleness, seed=seed))
    law = laws(store)["boundary"]
    assert law["sufficient"]
    assert law["unsafe"]["slopes"]["all"].value == pytest.approx(-0.5, abs=0.1)
    assert list(law["unsafe"]["largest_safe"]) == [0, 3, 15]


def test_horizon_reads_gold_onsets_from_series(store: Store):
    run = ended("collapsed", collapse_step=4, group="laws-horizon")
    store.create_run(run)
    for t in range(8):
        store.append_step(a_step(run.id, t, learning_rate=1e-3, path_length=0.1 * (t + 1)))
    law = laws(store)["horizon"]
    assert (law["runs"], law["collapses"]) == (1, 1)
    assert law["exponents"]["rate"] == Estimate(
        reason="1 collapse; 6 at two learning rates are needed"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--study nosuch", "nosuch"),
        ("--study bias --seeds 0", "seeds: '0' is not allowed"),
        ("--study bias --learning-rates 1e-4,x", "learning_rates: '1e-4,x' is not allowed"),
        ("--study boundary --learning-rates -1e-4", "learning_rate: -0.0001 is not allowed"),
        ("--study boundary --stalenesses 1.5", "stalenesses: '1.5' is not allowed"),
        ("--study boundary --steps 0", "steps: '0' is not allowed"),
        ("--study bias --bias-shards 3", "bias_shards: '3' is not allowed"),
        ("--study bias --stalenesses 100 --steps 64", "bias_study: '100' is not allowed"),
    ],
)
def test_a_mistyped_study_is_told_in_one_line_and_makes_nothing(
    tmp_path, monkeypatch, capsys, words, told
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    monkeypatch.delenv("ETALON_DB", raising=False)
    assert run_command(main, ["laws", *words.split(), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert told in line
    assert list(tmp_path.iterdir()) == []


def test_a_small_bias_study_runs_from_the_command_line_and_goes_on_where_it_was(
    etalon_home, tmp_path, monkeypatch, capsys
):
    study = (
        "laws --study bias --group small --learning-rates 4e-4 --stalenesses 0,2 --jobs 1 "
        "--seeds 3 --steps 12 --prompts 4 --group-size 4 --bias-shards 16 --bias-prompts 4 "
        f"--evaluation-rollouts 32 --db {tmp_path / 'laws.db'} --json"
    )
    first = command("-m", "advisor", *study.split(), home=etalon_home)
    assert first.returncode == 0, first.stderr
    answer = json.loads(first.stdout)
    assert answer["bias"]["probes"] == 3 * 2 * 4
    monkeypatch.setenv("ETALON_HOME", str(etalon_home))
    before = signal.getsignal(signal.SIGTERM)  # which the command takes
    assert run_command(main, study.split()) == 0
    signal.signal(signal.SIGTERM, before)
    assert json.loads(capsys.readouterr().out) == answer
    store = Store.open(str(tmp_path / "laws.db"))
    assert len(store.runs()) == 3
    store.close()
