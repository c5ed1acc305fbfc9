"""A run that goes on from a checkpoint writes the rows, bit for bit, of one that never stopped."""

import shutil
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch

from trainer.checkpoint import KEPT, Checkpoints, NoCheckpoint, Pace
from trainer.hooks import Hooks
from trainer.outcome import OutcomeTracker, Start

TIMES = {"time", "seconds", "seconds_generate", "seconds_learn", "seconds_measure", "seconds_wait"}
CPU = torch.device("cpu")
STEPS = 19
FIRM = {"steps": STEPS, "prompts": 4, "group_size": 4, "learning_rate": 3e-3, "warmup_steps": 3}
FIRM["evaluation_rollouts"] = 64


class Kept:
    """Everything that a run tells, and its outcome; it is stopped at rest after ``stop_at`` steps.

    What a run that goes on does again replaces what was told before it stopped.
    """

    def __init__(self, learner, stop_at=None, folder=None, before=None):
        self.rows = {}
        self.stop_at, self.learner = stop_at, learner
        self.checkpoints = None if folder is None else Checkpoints(folder)
        if before is not None:
            found = self.checkpoints.load(CPU)
            learner.load_state_dict(found.state)
            later = {key for key in before.rows if key[1] >= found.step}
            self.rows = {k: row for k, row in before.rows.items() if k not in later}
        self.resting = None
        told = ("on_step", "on_evaluation", "on_drift", "on_bias")
        listened = dict.fromkeys(told, self.keep)
        self.outcome = learner.train(
            Hooks(
                **listened,
                on_samples=lambda rows: [self.keep(row) for row in rows],
                on_rest=self.rest,
                stop_requested=lambda: self.learner._step == self.stop_at,
            )
        )

    def keep(self, row):
        columns = {name: value for name, value in asdict(row).items() if name not in TIMES}
        names = ("lag", "staleness", "correction", "number")
        which = tuple(columns.get(name) for name in names if name in columns)
        self.rows[type(row).__name__, row.step, *map(str, which)] = repr(columns)

    def rest(self, step, stopping):
        if stopping:
            self.checkpoints.save(step, self.learner.state_dict())


SETTINGS = {
    "cyclic": {"schedule": "cyclic", "max_staleness": 3, "bias_every": 1},
    "constant": {"schedule": "constant", "max_staleness": 3, "bias_every": 1},
    "on-policy": {"max_staleness": 0},
    "sgd": {"max_staleness": 3, "optimizer": "sgd", "learning_rate": 0.5, "bias_every": 1},
    "decay, KL": {"max_staleness": 3, "weight_decay": 0.1, "kl_coefficient": 0.1},
    "study": {
        "max_staleness": 3,
        "bias_study": "0,4",
        "bias_shards": 16,
        "bias_prompts": 2,
        "evaluate_every": 7,
    },
}


# Mid-cycle but for 0, and 10 is a step with an evaluation.
STOPS = {"cyclic": (0, 10), "on-policy": (10,), "decay, KL": (6,), "study": (10,)}
MORE_STOPS = {**dict.fromkeys(SETTINGS, (6, 10)), "cyclic": (1, 6, 18)}


@pytest.mark.parametrize(
    ("setting", "stops"),
    [
        *STOPS.items(),
        *(pytest.param(*each, marks=pytest.mark.long) for each in MORE_STOPS.items()),
    ],
)
def test_going_on_gives_the_rows_of_never_having_stopped(learner, tmp_path, setting, stops):
    changes = {**FIRM, "evaluate_every": 5, "sample_every": 6, **SETTINGS[setting]}
    straight = Kept(learner(**changes))
    for at in stops:
        folder = tmp_path / str(at)
        stopped = Kept(learner(**changes), at, folder)
        resumed = Kept(learner(**changes), None, folder, stopped)
        samples_at_the_stop = {key for key in resumed.rows if key[:2] == ("Sample", at - 1)}
        for key in samples_at_the_stop - straight.rows.keys():
            del resumed.rows[key]  # what the policy said when it was stopped is kept
        assert resumed.rows == straight.rows
        assert resumed.outcome == straight.outcome
        assert torch.equal(resumed.learner.weights.vector, straight.learner.weights.vector)


def test_a_run_may_stop_again_and_again(learner, tmp_path):
    changes = {**FIRM, "max_staleness": 3, "bias_every": 1, "sample_every": 0}
    straight = Kept(learner(**changes))
    kept = Kept(learner(**changes), 3, tmp_path)
    for at in (4, 9, 14, None):
        kept = Kept(learner(**changes), at, tmp_path, kept)
    assert kept.rows == straight.rows


def test_pools_and_windows_that_are_full_go_on_too(learner, tmp_path):
    # 40 batches of 8 prompts times 8: 2 560 sequences make radii; 16 batches of an age an estimate.
    changes = {**FIRM, "steps": 46, "prompts": 8, "group_size": 8, "learning_rate": 1e-3}
    changes |= {"max_staleness": 1, "bias_every": 1, "evaluate_every": 100}
    straight = Kept(learner(**changes))
    assert {key[0] for key in straight.rows} >= {"BiasProbe", "LagDrift", "Sample"}
    stopped = Kept(learner(**changes), 41, tmp_path)
    resumed = Kept(learner(**changes), None, tmp_path, stopped)
    assert {k: v for k, v in resumed.rows.items() if k in straight.rows} == straight.rows


def test_the_judge_of_a_run_goes_on_as_if_nothing_had_happened():
    rewards = [0.8 + 0.02 * (i % 3) for i in range(40)] + [0.1 + 0.02 * (i % 3) for i in range(40)]
    start = Start(reward=0.8, reward_std=0.4, rollouts=512)
    straight = OutcomeTracker(start, 0.0)
    resumed = OutcomeTracker(start, 0.0)
    for version, reward in enumerate(rewards):
        straight.observe(reward, version)
        resumed.observe(reward, version)
        other = OutcomeTracker(start, 0.0)
        other.load_state_dict(resumed.state_dict())
        resumed = other
        assert resumed.conclude() == straight.conclude()
    assert straight.conclude().verdict == "collapsed"


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def state():
    shared = torch.arange(3.0)
    return {
        "shared": {2: (shared, 0.1), 4: (shared, float("inf"))},
        "bytes": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "array": np.array([[1 / 3, np.nan]]),
        "floats": [0.1, float("nan"), -0.0],
        "nothing": None,
        "words": ["a", "b"],
        "empty": [],
        "yes": True,
    }


def test_what_is_written_is_read_back_to_the_bit(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(7, state)
    found = checkpoints.load(CPU)
    assert (found.step, found.damaged) == (7, ())
    read = found.state
    assert read["shared"][2][0] is read["shared"][4][0]
    assert torch.equal(read["shared"][2][0], torch.arange(3.0))
    assert read["shared"][4][1] == float("inf")
    assert torch.equal(read["bytes"], state["bytes"])
    assert torch.equal(read["scalar"], state["scalar"])
    assert read["array"].tobytes() == state["array"].tobytes()
    assert repr(read["floats"]) == repr(state["floats"])
    rest = ("nothing", "words", "empty", "yes")
    assert [read[name] for name in rest] == [state[name] for name in rest]


def test_the_newest_two_are_kept_and_nothing_half_made(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "run")
    (tmp_path / "run" / ".3-killed").mkdir(parents=True)
    for step in (5, 20, 100):
        checkpoints.save(step, state)
    assert sorted(each.name for each in (tmp_path / "run").iterdir()) == ["100", "20"]
    assert KEPT == 2
    checkpoints.keep(1)
    assert checkpoints.steps() == [100]
    checkpoints.keep(0)
    assert not (tmp_path / "run").exists()


def cut(folder, name):
    file = folder / name
    file.write_bytes(file.read_bytes()[:-1])


def turn_a_bit(folder, name):
    file = folder / name
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "card.json"])
@pytest.mark.parametrize("damage", [cut, turn_a_bit, lambda folder, name: (folder / name).unlink()])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(tmp_path, state, name, damage):
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(5, state)
    checkpoints.save(6, state)
    damage(tmp_path / "run" / "6", name)
    found = checkpoints.load(CPU)
    assert found.step == 5
    assert len(found.damaged) == 1
    assert "step 6 is damaged" in found.damaged[0]
    assert checkpoints.steps() == [5]  # so that step 6 can be written again


def test_without_any_that_can_be_read_the_error_says_so(tmp_path, state):
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(NoCheckpoint, match="there is no checkpoint in"):
        checkpoints.load(CPU)
    checkpoints.save(5, state)
    shutil.rmtree(tmp_path / "run" / "5")
    (tmp_path / "run" / "5").mkdir()
    with pytest.raises(NoCheckpoint, match="step 5 is damaged"):
        checkpoints.load(CPU)


def test_what_is_no_state_is_refused_and_leaves_nothing(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run")
    with pytest.raises(TypeError, match="set cannot be part of a checkpoint"):
        checkpoints.save(1, {"a": {1, 2}})
    assert list((tmp_path / "run").iterdir()) == []


def test_checkpoints_are_due_at_the_start_and_then_at_their_pace():
    pace = Pace(5)
    assert pace.due(0)
    pace.saved(0.1)
    assert [step for step in range(1, 16) if pace.due(step)] == [5, 10, 15]
    assert not Pace(0).due(0)
    timed = Pace(None)
    assert timed.due(0)
    timed.saved(0.0)
    assert not timed.due(1)


def test_a_state_holds_a_field_for_every_one_of_the_rollouts(learner, tmp_path):
    run = learner(**FIRM)
    Kept(run, 0, tmp_path)
    batch = Checkpoints(tmp_path).load(CPU).state["beginning"]["batch"]
    assert list(batch) == [field.name for field in fields(run._begun().batch)]
