"""Logs of other trainers become runs: whole or not at all, and as often as they grow."""

import io
import json
import math
import time
import tracemalloc

import pytest
from written_logs import PRIME_ROW, START, TRL_ROW, lines, only, trainer_state

from storage.commandline import BadInput
from storage.importers.importing import import_file
from storage.importers.reading import format_of, read_logs
from storage.records import RunStatus, missing_reason


def test_two_files_of_one_run_are_one_run(store, put):
    """prime-rl's trainer knows the drift, its orchestrator the staleness and the reward."""
    drift = {key: v for key, v in PRIME_ROW.items() if "off_policy" not in key}
    age = {"off_policy/max": 4.0, "effective/math/reward/mean": 0.5}
    trainer = put(lines(*({"step": t, **drift} for t in range(3))), "r/trainer/metrics.jsonl")
    other = put(lines(*({"step": t, **age} for t in range(4))), "r/orchestrator/metrics.jsonl")
    done = import_file(store, [trainer, other])
    run, steps = only(store), store.steps(done.run_id)
    assert (run.name, done.rows) == ("r", 4)
    assert (steps[2].approx_kl, steps[2].staleness_max, steps[2].reward_mean) == (2e-3, 4.0, 0.5)
    assert (steps[3].approx_kl, steps[3].reward_mean) == (None, 0.5)
    assert run.source["files"] == [str(trainer), str(other)]
    assert import_file(store, [trainer, other]).written == 0
    other.write_text("[]\n")
    with pytest.raises(BadInput, match=f"^file: {other}: .* begins no known log"):
        import_file(store, [trainer, other])
    assert len(store.steps(done.run_id)) == 4


def test_a_verdict_stays_when_the_log_is_imported_again(store, put):
    path = put(lines({"step": 0, **PRIME_ROW}))
    done = import_file(store, path)
    store.update_run(done.run_id, status=RunStatus.COLLAPSED, outcome="collapsed")
    import_file(store, path)
    assert (only(store).status, only(store).outcome) == (RunStatus.COLLAPSED, "collapsed")


# -- facts ------------------------------------------------------------------------------------


def test_what_is_not_finite_is_kept_and_what_is_missing_is_no_zero(store, put):
    text = '{"step": 0, "loss/mean": NaN, "optim/grad_norm": Infinity, "odd": -Infinity}\n'
    text += '{"step": 1, "loss/mean": null, "optim/grad_norm": "high"}\n'
    done = import_file(store, put(text), stack="prime_rl")
    first, second = store.steps(done.run_id)
    assert math.isnan(first.loss)
    assert (first.grad_norm, first.extra["odd"]) == (math.inf, -math.inf)
    assert (second.loss, second.grad_norm, second.extra) == (
        None,
        None,
        {"optim/grad_norm": "high"},
    )
    run = store.run(done.run_id)
    assert missing_reason(run, first, "entropy") == "the log does not hold entropy/all/mean"
    assert missing_reason(run, first, "time") is None
    assert run.unmeasured["time"] == "the log holds no times"


def test_what_is_no_number_of_a_column_is_kept_beside_and_a_huge_one_is_infinite(store, put):
    text = f'{{"step": 0, "optim/lr": true, "off_policy/max": -5, "odd": 1{"0" * 400}}}\n'
    done = import_file(store, put(text), stack="prime_rl")
    [step] = store.steps(done.run_id)
    assert (step.learning_rate, step.staleness_max) == (None, None)
    assert step.extra == {"optim/lr": True, "off_policy/max": -5, "odd": math.inf}
    assert "learning_rate" not in only(store).config
    done = import_file(store, put('{"step": 0, "tokens": 1e300, "reward_mean": 1}\n'))
    assert store.steps(done.run_id)[0].extra == {"tokens": 1e300}


# -- again and again --------------------------------------------------------------------------


def test_the_same_log_again_changes_nothing_and_a_longer_one_adds_what_is_new(store, put):
    rows = [{"step": t, **PRIME_ROW} for t in range(40)]
    done = import_file(store, put(lines(*rows[:30])), settings={"max_staleness": 8})
    store.update_run(done.run_id, notes="mine", archived=True)
    before = store.run(done.run_id)
    again = import_file(store, put(lines(*rows[:30])))
    assert (again.run_id, again.rows, again.written) == (done.run_id, 30, 0)
    assert store.run(done.run_id) == before, "what was told before still holds"
    longer = import_file(store, put(lines(*rows[:-1]) + json.dumps(rows[-1])[:50]))
    assert (longer.run_id, longer.rows, longer.written) == (done.run_id, 39, 9)
    assert "the last line is not finished" in longer.notes[0]
    assert import_file(store, put(lines(*rows))).written == 1
    assert [row.step for row in store.steps(done.run_id)] == list(range(40))
    assert only(store).notes == "mine"


def test_a_log_that_is_compared_in_portions_renews_what_changed_in_each(put, store, monkeypatch):
    monkeypatch.setattr("storage.step_store._ROWS_AT_ONCE", 3)
    rows = [{"step": step, "loss": 1.0, "grad_norm": step / 10} for step in range(0, 20, 2)]
    log = put(lines(*rows))
    assert import_file(store, log).written == 10
    assert import_file(store, log).written == 0
    changed = [row | {"loss": 2.0} if row["step"] in (4, 6) else row for row in rows]
    done = import_file(store, put(lines(*changed, {"step": 20, "loss": 3.0})))
    assert done.written == 3
    losses = store.series(done.run_id, ["loss"])["loss"]
    assert losses == [1.0, 1.0, 2.0, 2.0, *6 * [1.0], 3.0]


def test_a_log_that_is_read_takes_little_more_memory_than_its_text(put):
    """One string per key, not one per row, and the bytes are gone once they are text."""
    values = dict.fromkeys((f"training/a_key_of_this_log/{n}" for n in range(10)), 0.1234567890123)
    log = put(lines(*({"step": step, "data": values} for step in range(3000))))
    tracemalloc.start()
    rows = read_logs([log], format="auto", most_bytes=2**21, most_rows=3000).rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len({id(key) for row in rows.values() for key in row}) == len(values)
    assert peak < 2.7 * log.stat().st_size


def test_a_step_whose_later_part_came_later_is_renewed(store, put):
    part = {"step": 0, **PRIME_ROW}
    done = import_file(store, put(lines(part)))
    late = {"step": 0, "effective/math/reward/mean": 0.5}
    again = import_file(store, put(lines(part, late)))
    assert (again.run_id, again.written) == (done.run_id, 1)
    assert store.steps(done.run_id)[0].reward_mean == 0.5


def test_a_path_its_bytes_and_a_stream_are_the_same_log(store, put):
    path = put(lines({"step": 0, **PRIME_ROW}))
    content = path.read_bytes()
    ids = {
        import_file(store, each, name="one").run_id
        for each in (path, str(path), content, io.BytesIO(content))
    }
    assert len(ids) == 1
    assert import_file(store, path, name="two").run_id not in ids
    assert {run.name for run in store.runs()} == {"one", "two"}


def test_what_is_told_later_holds_and_staleness_may_be_told_in_either_unit(store, put):
    path = put(lines({"step": 0, **PRIME_ROW}))
    for told, wanted in (
        ({"max_off_policy_steps": 4}, 4),
        ({"max_staleness": 2}, 2),
        ({"orchestrator.max_off_policy_steps": "8", "max_steps": "300"}, 8),
        ({"orchestrator.group_size": 16}, 8),
    ):
        import_file(store, path, settings=told)
        assert only(store).config["max_staleness"] == wanted
    assert only(store).config == {
        "learning_rate": 1e-6,
        "max_staleness": 8,
        "steps": 300,
        "group_size": 16,
    }


def test_one_setting_under_two_names_is_one_setting(store, put):
    path = put(lines({"step": 0, **PRIME_ROW}))
    for told, rate in (
        ("trainer.optim.lr", 1e-3),
        ("learning_rate", 2e-3),
        ("trainer.optim.lr", 3e-3),
    ):
        done = import_file(store, path, settings={told: rate})
        assert only(store).config["learning_rate"] == rate
    assert "learning_rate 0.003 holds, as told or configured; the largest logged is 1e-06" in (
        done.notes
    )
    done = import_file(store, path, settings={"learning_rate": 1.0000001e-6})
    assert not any("as told" in note for note in done.notes)


def test_a_line_that_is_cut_within_a_character_is_left_for_later(store, put):
    whole = lines({"step": 0, **PRIME_ROW}).encode() + '{"step": 1, "of": "é"}\n'.encode()
    done = import_file(store, whole[: whole.index("é".encode()) + 1])
    assert (done.rows, done.notes[0][:32]) == (1, "the last line is not finished an")
    assert import_file(store, whole).written == 1


def test_a_live_log_is_a_running_run_until_it_is_imported_as_ended(store, put):
    path = put(lines({"step": 0, "time": START, **PRIME_ROW}))
    import_file(store, path, live=True)
    assert (only(store).status, only(store).ended_at) == (RunStatus.RUNNING, None)
    import_file(store, path)
    assert (only(store).status, only(store).ended_at) == (RunStatus.FINISHED, START)


# -- the file ---------------------------------------------------------------------------------


def test_the_format_is_told_by_the_content():
    assert format_of(lines({"step": 1})) == "jsonl"
    assert format_of("\n\n" + lines({"step": 1, "data": {}})) == "jsonl"
    assert format_of(trainer_state([TRL_ROW])) == "trainer_state"
    assert format_of(json.dumps(json.loads(trainer_state([TRL_ROW])))) == "trainer_state"


@pytest.mark.parametrize("rows", [30_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_long_log_is_imported_within_seconds(store, put, rows):
    path = put("".join(lines({"step": t, **PRIME_ROW}) for t in range(rows)))
    begun = time.process_time()  # of this process alone, whatever else the machine does
    assert import_file(store, path).written == rows
    assert time.process_time() - begun < 10 + rows * 200e-6
    assert len(store.overview(only(store).id, ["loss"])["loss"][0]) <= 2000


def test_the_size_of_the_model_can_be_told(store):
    log = json.dumps({"step": 1, "reward": 0.5}).encode()
    found = import_file(store, log, stack="trl", settings={"parameters": "7e9"})
    assert store.run(found.run_id).parameters == 7_000_000_000
    with pytest.raises(BadInput, match="parameters: 0 is not allowed; allowed: whole number, 1 <="):
        import_file(store, log, stack="trl", settings={"parameters": 0})


def test_several_values_of_a_step_and_key_are_told_and_the_last_is_kept(store, put):
    rows = [{"step": t, "loss/mean": float(t)} for t in range(12)]
    rows += [{"step": t, "loss/mean": -1.0} for t in range(2, 12)]
    rows += [{"step": 0, "loss/mean": 0.0}, {"step": 1, "optim/lr": 1e-6}]  # the same, another key
    done = import_file(store, put(lines(*rows)), stack="prime_rl")
    assert "10 steps have several values of a key, the last is kept: 2, 3, 4, 5, 6, 7, 8, 9 …" in (
        done.notes
    )
    assert [row.loss for row in store.steps(done.run_id)] == [0.0, 1.0, *[-1.0] * 10]


def test_totals_without_a_step_are_left_out_and_told(store, put):
    total = {"tokens/cumulative/sampled": 10.0, "cost/cumulative_usd": 0.1}
    done = import_file(store, put(lines({"step": 0, "optim/lr": 1e-6}, total)), stack="tinker")
    assert done.rows == 1
    assert any("sum up tokens or cost" in note for note in done.notes)


def test_the_configuration_beside_metrics_is_read_and_what_is_told_goes_before(store, tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text(lines({"step": 0, "optim/kl_sample_train_v1": 0.1}))
    config = {
        "learning_rate": 2e-5,
        "num_substeps": 2,
        "async_config": {"max_steps_off_policy": 3},
        "steps": "many",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = store.run(import_file(store, log).run_id)
    assert run.config["learning_rate"] == 2e-5
    assert run.config["max_staleness"] == 7  # (3 + 1)·2 − 1
    told = {"max_staleness": 5, "learning_rate": 1e-5}
    run = store.run(import_file(store, log, settings=told).run_id)
    assert (run.config["max_staleness"], run.config["learning_rate"]) == (5, 1e-5)


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ('{"learning_rate": 2e-5', "config.json beside the log is not read: Expecting"),
        ("[]", "config.json beside the log is not read: it is no JSON object"),
        ('{"a":' * 51 + "1" + "}" * 51, "config.json beside the log is not read: nested deeper"),
        ('{"num_substeps": 1' + "0" * 400 + "}", "num_substeps inf of the log is left out"),
        ('{"num_substeps": 0.5}', "num_substeps 0.5 of the log is left out; allowed: 1 to 65536"),
        (
            '{"num_substeps": 60000, "async_config": {"max_steps_off_policy": 9}}',
            "async_config.max_steps_off_policy: 9 allows an age of 599999 learner steps",
        ),
    ],
)
def test_a_configuration_that_cannot_be_is_left_out_and_told(store, tmp_path, config, note):
    log = tmp_path / "metrics.jsonl"
    log.write_text(lines({"step": 0, "optim/kl_sample_train_v1": 0.1}))
    (tmp_path / "config.json").write_text(config)
    done = import_file(store, log)
    assert any(note in each for each in done.notes)
    assert "max_staleness" not in only(store).config
