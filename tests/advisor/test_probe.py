"""``python -m advisor probe``: real small probes end to end, and what is refused before one."""

import io
import json
from contextlib import closing, redirect_stderr, redirect_stdout
from functools import partial

import pytest
from factories import a_config
from own_things import own_values, save_reward_model

from advisor.__main__ import main
from advisor.experiments.probe import check_budget, default_budget, probe
from advisor.next_segment import RAMP_STEPS, hold_steps
from storage.commandline import BadInput, run_command
from storage.records import RunStatus
from storage.store import Store

STEPS = 6
ASKED = ["--max-staleness", "1", "--steps", str(STEPS)]
BUDGET = RAMP_STEPS + 3 * STEPS
ESTIMATES = ("g_1", "alpha", "r_batch", "r_crit", "local_step")
CONTRACT = {
    "max_learning_rate",
    "suggested_learning_rate",
    "edge",
    "low",
    "high",
    "kappa_staleness",
    "kappa_horizon",
    "kappa_local",
    "binding",
    "regime",
    "unsafe_probability",
    "forecast_collapse_step",
    "crossover_staleness",
    "reason",
    "evidence",
    "red_flags",
}


def options(values):
    return [w for n, v in values.items() for w in (f"--{n.replace('_', '-')}", str(v))]


def called(*words):
    """Run a command in this process; return its exit code, its output and its errors."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run_command(main, words)
    return code, out.getvalue(), err.getvalue()


def strictly(text):
    """Read one JSON object; NaN and Infinity are no JSON."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    [line] = text.splitlines()
    return json.loads(line, parse_constant=refuse)


def unexplained(answer):
    empty = [n for n, v in answer.items() if v is None]
    empty += [n for n, v in answer.items() if isinstance(v, dict) and v.get("value", 0) is None]
    return [name for name in empty if not (answer.get(f"{name}_reason") or "").strip()]


class Probed:
    """A probe by the command line: of what, into which archive, and what it printed."""

    def __init__(self, folder, values):
        sizes = {"steps": STEPS, "prompts": 4, "group_size": 2, "max_staleness": 1}
        self.setting = {**values, **sizes, "warmup_steps": 0}
        self.db = str(folder / "archive.db")
        self.model = folder / "model" / "model.safetensors"
        self.before = self.model.read_bytes()
        words = [*options(self.setting), "--budget", str(BUDGET), "--db", self.db, "--json"]
        self.code, self.out, self.err = called("probe", *words)

    @property
    def answer(self):
        return strictly(self.out)

    def recommended(self, *words):
        return called("recommend", *ASKED, "--db", self.db, "--json", *words)


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """Probe an untrained model, rewarded by the length of its completions."""
    folder = tmp_path_factory.mktemp("probed")
    return Probed(folder, own_values(folder))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Probe the same on a reward model."""
    folder = tmp_path_factory.mktemp("learned")
    values = own_values(folder, reward_model=str(save_reward_model(folder / "judge")))
    return Probed(folder, {name: value for name, value in values.items() if name != "reward"})


@pytest.fixture(params=["probed", "learned"])
def either(request):
    return request.getfixturevalue(request.param)


# -- what a probe prints and keeps -------------------------------------------------------------


def test_a_probe_prints_its_constants_with_interval_or_reason_as_one_json_object(either):
    assert (either.code, either.err) == (0, "")
    answer = either.answer
    assert {"calibration_id", "learner_steps", "cost_steps", "seconds", "run_ids"} <= set(answer)
    for name in ESTIMATES:
        assert set(answer[name]) == {"value", "low", "high", "is_bound", "reason"}
        ends = [answer[name][end] for end in ("low", "value", "high")]
        known = [end for end in ends if end is not None]
        assert known == sorted(known)
        assert known or answer[name]["reason"]
    assert unexplained(answer) == []


def test_a_probe_spends_at_most_its_budget_and_counts_its_evaluations(either):
    answer = either.answer
    assert RAMP_STEPS + STEPS <= answer["learner_steps"] <= BUDGET
    # A batch is 8 rollouts; each segment evaluates 512 at its start alone.
    assert answer["cost_steps"] > answer["learner_steps"] + 0.4 * 512 / 8 * len(answer["run_ids"])
    assert answer["seconds"] > 0


def test_every_segment_is_a_run_of_the_archive(either):
    answer = either.answer
    with closing(Store.open(either.db, create=False)) as store:
        runs = [store.run(run_id) for run_id in answer["run_ids"]]
        assert {run.id for run in store.runs()} == {run.id for run in runs}
        counts = store.step_counts()
    assert {run.kind for run in runs} == {"probe"}
    assert {run.group for run in runs} == {answer["calibration_id"]}
    assert runs[0].name.startswith("probe: ramp at η=10, S=0")
    assert all(run.name.startswith("probe: hold at η=") for run in runs[1:])
    assert all(
        run.status in (RunStatus.FINISHED, RunStatus.DIVERGED) or run.outcome for run in runs
    )
    assert sum(counts[run.id] for run in runs) == answer["learner_steps"]
    assert len({run.config["seed"] for run in runs}) == len(runs)
    assert runs[0].config["ramp_from"] == 1e-8
    assert {run.config["steps"] for run in runs[1:]} == {STEPS}
    assert {run.config["stop_on_collapse"] for run in runs} == {False}


def test_the_calibration_is_kept_with_its_setting_and_the_model_untouched(either):
    answer = either.answer
    with closing(Store.open(either.db, create=False)) as store:
        [found] = store.calibrations()
    assert found.id == answer["calibration_id"]
    assert list(found.run_ids) == answer["run_ids"]
    assert [each["run_id"] for each in found.segments] == answer["run_ids"]
    assert (found.setting["max_staleness"], found.setting["steps"]) == (1, STEPS)
    assert found.setting["ramp_from"] is None
    assert found.learner_steps == sum(each["steps"] for each in found.segments)
    assert either.model.read_bytes() == either.before


def test_a_hold_of_a_learned_reward_is_measured_by_how_far_it_went(learned):
    with closing(Store.open(learned.db, create=False)) as store:
        [found] = store.calibrations()
    holds = [each for each in found.segments if each["ramp_from"] is None]
    assert all(each["max_staleness"] == 1 for each in holds)
    assert all(each["travel"] for each in holds)
    for hold in holds:
        sums = [x for x, _, _ in hold["travel"]]
        assert sums == sorted(sums)
        assert sums[-1] == pytest.approx(hold["learning_rate"] * hold["steps"], rel=0.5)


def test_without_json_a_probe_says_the_same_in_words(tmp_path):
    values = own_values(tmp_path, steps=2, prompts=2, group_size=2)
    words = [*options({**values, "max_staleness": 0}), "--budget", "28"]
    code, out, _ = called("probe", *words, "--db", str(tmp_path / "a.db"))
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("calibration ")
    assert "28 learner steps" in lines[0]
    assert [line.split()[0] for line in lines[1:6]] == list(ESTIMATES)
    name = lines[0].split()[1].rstrip(":")
    assert lines[-1].startswith(f"python -m advisor recommend --calibration {name}")


# -- what may be asked of it -------------------------------------------------------------------


def test_a_calibration_answers_with_the_whole_contract(either):
    name = either.answer["calibration_id"]
    code, out, err = either.recommended("--calibration", name, "--learning-rate", "1e-3")
    assert (code, err) == (0, "")
    answer = strictly(out)
    assert set(answer) >= CONTRACT
    assert answer["calibrated"] is True
    assert [line.split(":")[0] for line in answer["evidence"]] == [
        f"run {run_id}" for run_id in either.answer["run_ids"]
    ]
    assert unexplained(answer) == []
    assert answer["unsafe_probability"] is None or 0 <= answer["unsafe_probability"] <= 1


def test_the_settings_that_are_not_said_are_those_of_the_probe_which_is_found_by_itself(either):
    name = either.answer["calibration_id"]
    named = strictly(either.recommended("--calibration", name)[1])
    rest = {n: v for n, v in either.setting.items() if n not in ("max_staleness", "steps")}
    code, out, _ = either.recommended(*options(rest))
    assert code == 0
    assert strictly(out)["evidence"] == named["evidence"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--optimizer", "sgd"], "another setting: optimizer adamw ≠ sgd"),
        (["--adam-beta1", "0.5"], "another setting: adam_beta1 0.9 ≠ 0.5"),
        (["--risk", "0"], "risk: 0.0 is not allowed"),
    ],
)
def test_another_setting_is_refused_in_one_line_and_nothing_is_kept(probed, words, told):
    with closing(Store.open(probed.db, create=False)) as store:
        before = store.recommendations()
    name = probed.answer["calibration_id"]
    code, out, err = probed.recommended("--calibration", name, *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert told in err
    with closing(Store.open(probed.db, create=False)) as store:
        assert store.recommendations() == before


@pytest.mark.parametrize("unknown", ["nosuch", "", "20260101-120000-abcdef"])
def test_an_unknown_calibration_is_refused_in_one_line_that_names_the_command(probed, unknown):
    code, out, err = probed.recommended("--calibration", unknown)
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"calibration: {unknown!r} is not in the archive; python -m advisor probe makes one"
    ]


def test_a_probe_is_no_outcome_so_without_its_setting_literature_answers(probed):
    code, out, _ = probed.recommended("--workload", "arithmetic")
    assert code == 0
    assert strictly(out)["calibrated"] is False


# -- what is refused before it costs anything --------------------------------------------------


ALLOWED = "is not allowed; allowed: whole number, 1 <= budget <= 1000000"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--budget", "31"], "budget: 31 is not allowed; allowed: at least 32, one ramp and one"),
        (["--budget", "1"], "budget: 1 is not allowed; allowed: at least 32"),
        (["--budget", "0"], f"budget: '0' {ALLOWED}"),
        (["--budget=-5"], f"budget: '-5' {ALLOWED}"),
        (["--budget", "many"], f"budget: 'many' {ALLOWED}"),
        (["--budget", "1e3"], f"budget: '1e3' {ALLOWED}"),
        (["--budget", "300.5"], f"budget: '300.5' {ALLOWED}"),
        (["--budget", "²"], f"budget: '²' {ALLOWED}"),
        (["--budget="], f"budget: '' {ALLOWED}"),
        (["--budget", "1000001"], f"budget: '1000001' {ALLOWED}"),
        (["--budget"], "argument --budget: expected one argument"),
        (["--buget", "300"], "--buget: unknown argument; did you mean --budget?"),
        (["--learning-rate", "1e-4"], "--learning-rate: not an option of this command"),
        (
            ["--clip-epsilon", "2"],
            "clip_epsilon: '2' is not allowed; allowed: 0 < clip_epsilon < 1",
        ),
    ],
)
def test_a_mistyped_probe_is_refused_in_one_line_and_leaves_nothing(fresh_home, words, told):
    code, out, err = called("probe", *ASKED, *words, "--json")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(told)
    assert not fresh_home.exists()


@pytest.mark.parametrize(
    ("steps", "budget"), [(1000, 300), (137, 300), (136, 299), (80, 176), (30, 66), (8, 34)]
)
def test_a_short_horizon_is_probed_with_less(steps, budget):
    assert default_budget(a_config(max_staleness=3, steps=steps)) == budget


@pytest.mark.parametrize(("max_staleness", "steps"), [(0, 300), (63, 300), (3, 8)])
def test_the_least_budget_is_a_ramp_and_one_hold(max_staleness, steps):
    setting = a_config(max_staleness=max_staleness, steps=steps)
    least = RAMP_STEPS + hold_steps(setting)
    check_budget(setting, least)
    with pytest.raises(BadInput, match=f"budget: {least - 1} is not allowed; .* at least {least}"):
        check_budget(setting, least - 1)


# -- what happens on the way -------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """Return the configuration of a custom run that takes two steps."""
    return partial(
        a_config,
        **own_values(tmp_path, steps=2, prompts=2, group_size=2),
        max_staleness=0,
        threads=1,
    )


def test_a_probe_that_is_interrupted_keeps_its_runs_and_makes_no_calibration(store, tiny):
    def progress(words, done, budget):
        if done > RAMP_STEPS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(store, tiny(), budget=100, progress=progress)
    assert store.calibrations() == []
    ended = {run.name.split()[1]: run.status for run in store.runs()}
    assert ended == {"ramp": RunStatus.FINISHED, "hold": RunStatus.STOPPED}
    assert {run.kind for run in store.runs()} == {"probe"}


JUDGE = "def judge(prompts, completions, **keys):\n    "


def probed_with(folder, reward, *words):
    values = own_values(folder, reward, steps=2, prompts=2, group_size=2, max_staleness=0)
    db = str(folder / "archive.db")
    return called("probe", *options(values), "--budget", "30", "--db", db, *words, "--json")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('no')", "the probe failed: the reward raised ValueError: no"),
        ("return [float('nan')] * len(completions)", "ended as diverged: the reward of the start"),
    ],
)
def test_a_reward_that_cannot_be_used_is_told_in_one_line(tmp_path, body, told):
    own_values(tmp_path)  # the model is saved outside of what is listened to
    code, out, err = probed_with(tmp_path, JUDGE + body)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert told in err
    with closing(Store.open(str(tmp_path / "archive.db"), create=False)) as store:
        assert store.calibrations() == []


@pytest.mark.parametrize("value", ["0.0", "-float(len(completions[0]))"])
def test_rewards_of_zero_or_below_are_probed_like_any_other(tmp_path, value):
    code, out, _ = probed_with(tmp_path, JUDGE + f"return [{value}] * len(completions)")
    assert code == 0
    assert unexplained(strictly(out)) == []


def test_a_last_evaluation_that_is_no_number_ends_no_probe(tmp_path):
    """Only the last evaluation is of 1024 rollouts, and it is watched by nothing."""
    body = "return [float('nan') if len(prompts) == 1024 else 1.0] * len(completions)"
    code, out, _ = probed_with(tmp_path, JUDGE + body)
    assert code == 0
    assert unexplained(strictly(out)) == []


def test_progress_counts_the_steps_of_all_segments_towards_the_budget(store, tiny):
    told = []
    found = probe(store, tiny(), budget=30, progress=lambda *words: told.append(words))
    done = [steps for words, steps, _ in told if words.startswith(("ramp", "hold"))]
    assert done == sorted(done)
    assert done[-1] == found.learner_steps <= 30
    assert {budget for _, _, budget in told} == {30}
    assert told[0][0].startswith("ramp at η=10, S=0")


def test_the_same_seed_gives_the_same_probe_and_another_one_does_not(store, tiny):
    def facts(seed):
        found = probe(store, tiny(seed=seed), budget=28, progress=lambda *_: None)
        own = ("run_id", "seconds_generate", "seconds_learn")
        return [{k: v for k, v in each.items() if k not in own} for each in found.segments]

    first = facts(3)
    assert facts(3) == first
    assert facts(4) != first


def test_a_budget_that_is_too_small_makes_no_run(store, tiny):
    with pytest.raises(BadInput, match="at least 28"):
        probe(store, tiny(), budget=27, progress=lambda *_: None)
    assert store.runs() == []
