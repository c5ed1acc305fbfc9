"""What the log of each stack becomes: the right column, of the right policy."""

import json

import pytest
from written_logs import PRIME_ROW, START, TRL_ROW, lines, only, trainer_state

from storage.check import inconsistencies
from storage.importers.importing import import_file
from storage.records import RunStatus, missing_reason


def test_trl_writes_a_trainer_state(store, put):
    rows = [TRL_ROW, TRL_ROW | {"kl": 0.5}, TRL_ROW | {"train_loss": 0.1, "train_runtime": 9.0}]
    path = put(trainer_state(rows), "out/checkpoint-3/trainer_state.json")
    done = import_file(store, path, settings={"max_staleness": 3})
    run, [first, second, _] = only(store), store.steps(done.run_id)
    assert (done.rows, done.written, done.format, done.stack) == (3, 3, "trainer_state", "trl")
    assert (run.name, run.kind, run.status) == ("out", "imported", RunStatus.FINISHED)
    assert run.config == {"steps": 200, "learning_rate": 1e-6, "max_staleness": 3}
    assert (first.step, first.loss, first.reward_mean, first.response_length) == (1, 0.01, 0.25, 12)
    assert (first.clip_fraction_low, first.clip_fraction_high) == (0.01, 0.02)
    assert second.approx_kl is None, "kl is against the reference model"
    assert second.extra["kl"] == 0.5
    assert run.source["references"]["kl"] == "reference_model"
    assert run.source["references"]["clip_ratio/low_mean"] == "behavior"
    assert done.unknown == ()
    assert run.source["window"] == 1
    assert missing_reason(run, first, "approx_kl") == (
        "TRL GRPOTrainer logs no such drift from the behavior policy"
    )
    assert inconsistencies(store) == []


def test_trl_with_vllm_clips_against_the_proximal_policy(store, put):
    row = TRL_ROW | {"sampling/sampling_logp_difference/mean": 0.1}
    done = import_file(store, put(trainer_state([row]), "out/trainer_state.json"))
    run, [step] = only(store), store.steps(done.run_id)
    assert step.clip_fraction_low is None
    assert step.extra["clip_ratio/low_mean"] == 0.01
    assert run.source["references"]["clip_ratio/low_mean"] == "proximal"
    assert "proximal" in missing_reason(run, step, "clip_fraction_low")


def test_trl_async_measures_from_the_behavior_policy_and_counts_versions(store, put):
    row = TRL_ROW | {"kl": 0.002, "ratio": 1.01, "sample/staleness_mean": 1.0}
    row["sample/staleness_max"] = 2.0
    path = put(trainer_state([row]), "a/trainer_state.json")
    done = import_file(store, path, settings={"weight_sync_steps": "2", "knob": "4"})
    run, [step] = only(store), store.steps(done.run_id)
    assert done.stack == "trl_async"
    assert (step.approx_kl, step.extra["ratio"]) == (0.002, 1.01)
    assert (step.staleness_mean, step.staleness_max) == (3.5, 6.0)  # 1·2 + ½ + 1; (2 + 1)·2
    assert run.config["max_staleness"] == 10  # (4 + 1)·2
    assert run.source["learner_steps_per_version"] == 2


def test_rows_that_average_over_steps_say_so(store, put):
    text = trainer_state([], log_history=[{**TRL_ROW, "step": s} for s in (10, 20, 30)])
    state = json.loads(text)
    del state["logging_steps"]
    done = import_file(store, put(json.dumps(state), "b/trainer_state.json"))
    assert only(store).source["window"] == 10
    assert "each row averages 10 learner steps" in done.notes
    assert [row.step for row in store.steps(done.run_id)] == [10, 20, 30]
    assert inconsistencies(store) == []


def test_verl_writes_steps_with_data_and_its_kl_is_proximal(store, put):
    data = {
        "actor/ppo_kl": 1e-4,
        "actor/pg_clipfrac": 0.4,
        "actor/grad_norm": 0.3,
        "actor/lr": 1e-6,
        "actor/pg_loss": -0.1,
        "actor/entropy": 0.7,
        "critic/score/mean": 0.2,
        "rollout_corr/k3_kl": 0.01,
        "training/off_policy/trajectory_staleness/max": 2,
        "timing_s/gen": 3.5,
    }
    path = put(lines(*({"step": s, "data": data} for s in (1, 2))), "proj/exp.jsonl")
    done = import_file(
        store, path, settings={"parameter_sync_step": 1, "updates_per_batch": 2, "knob": 1}
    )
    run, steps = only(store), store.steps(done.run_id)
    assert (done.stack, run.name, len(steps)) == ("verl", "exp", 2)
    assert (steps[0].grad_norm, steps[0].reward_mean, steps[0].entropy) == (0.3, 0.2, 0.7)
    assert steps[0].approx_kl is None
    assert steps[0].clip_fraction_low is None
    assert steps[0].staleness_max == 5.0  # (2 + 1)·2 − 1
    assert run.config["max_staleness"] == 3
    assert run.source["references"] == {
        "actor/ppo_kl": "proximal",
        "actor/pg_clipfrac": "proximal",
        "rollout_corr/k3_kl": "behavior",
    }
    assert done.unknown == ("timing_s/gen",)
    assert not any("updates_per_batch" in note for note in done.notes)
    assert any("updates_per_batch" in n for n in import_file(store, path, name="untold").notes)
    assert steps[0].extra["timing_s/gen"] == 3.5


def test_prime_rl_writes_several_partial_rows_of_a_step(store, put):
    rows = []
    for t in range(3):
        rows += [
            {"step": t, "time": START + t, **PRIME_ROW},
            {"step": t, "time": START + t + 0.1, "effective/math/reward/mean": 0.5 + t},
        ]
    done = import_file(store, put(lines(*rows)))
    run, steps = only(store), store.steps(done.run_id)
    assert (done.stack, done.rows, run.name) == ("prime_rl", 3, "run-7")
    assert [row.reward_mean for row in steps] == [0.5, 1.5, 2.5]
    assert (steps[2].approx_kl, steps[2].staleness_max) == (2e-3, 4.0)
    assert steps[2].extra["mismatch_kl/math/mean"] == 3e-3
    assert [row.time for row in steps] == [START + t + 0.1 for t in range(3)]
    assert (run.started_at, run.ended_at) == (START + 0.1, START + 2.1)
    assert done.unknown == ()


def test_rewards_of_two_agents_are_no_one_reward(store, put):
    row = PRIME_ROW | {"effective/a/reward/mean": 1.0, "effective/b/reward/mean": 2.0}
    done = import_file(store, put(lines({"step": 0, **row})))
    [step] = store.steps(done.run_id)
    assert step.reward_mean is None
    assert step.extra["effective/b/reward/mean"] == 2.0


def test_tinker_logs_versions_and_half_a_mean_square(store, put):
    row = {
        "step": 10,
        "progress/batch": 10,
        "sampling_client/step_min": 7,
        "sampling_client/step_mean": 8.5,
        "sampling_client/step_max": 10,
        "optim/kl_sample_train_v1": 0.01,
        "optim/kl_sample_train_v2": 0.02,
        "optim/lr": 1e-5,
        "env/all/reward/total": 0.3,
    }
    done = import_file(store, put(lines(row)), settings={"num_substeps": 2})
    [step] = store.steps(done.run_id)
    assert done.stack == "tinker"
    assert step.log_ratio_rms == pytest.approx(0.2)  # √(2·0.02)
    assert step.approx_kl is None, "k1 is no k3"
    assert (step.staleness_mean, step.staleness_max) == (3.5, 7.0)  # 1.5·2 + ½; (3 + 1)·2 − 1
    assert step.extra["optim/kl_sample_train_v1"] == 0.01


def test_a_plain_log_is_taken_by_the_glossary_but_no_drift_of_unknown_reference(store, put):
    row = {"step": 0, "reward_mean": 0.5, "approx_kl": 0.1, "mine": {"a": [1]}, "tokens": 7.0}
    done = import_file(store, put(lines(row)))
    [step] = store.steps(done.run_id)
    assert (done.stack, step.reward_mean, step.tokens) == (None, 0.5, 7)
    assert step.approx_kl is None
    assert step.extra == {"approx_kl": 0.1, "mine": {"a": [1]}}
    assert done.unknown == ("approx_kl", "mine")
    assert any("approx_kl: against which policy is not known" in note for note in done.notes)


def test_the_same_key_means_what_its_stack_means(store, put):
    """``kl`` is drift in one stack and a penalty in another; without a stack it is neither."""
    path = put(lines({"step": 0, "kl": 0.1, "train/reward": 1.0}))
    for stack, column, reference in (
        ("trl", None, "reference_model"),
        ("trl_async", 0.1, "behavior"),
        ("openrlhf", None, "reference_model"),
    ):
        done = import_file(store, path, stack=stack, name=stack)
        [step] = store.steps(done.run_id)
        assert (step.approx_kl, step.reward_mean) == (column, 1.0)
        assert store.run(done.run_id).source["references"]["kl"] == reference


@pytest.mark.parametrize("bypass", [True, False])
def test_verl_measures_from_the_behavior_policy_only_where_it_was_told_to(store, bypass):
    row = {"actor/ppo_kl": 2e-3, "actor/pg_clipfrac": 0.01, "actor/lr": 1e-6}
    told = {"bypass_mode": True} if bypass else {}
    log = json.dumps({"step": 1, "data": row}).encode()
    found = import_file(store, log, stack="verl", settings=told)
    [step] = store.steps(found.run_id)
    references = store.run(found.run_id).source["references"]
    assert step.approx_kl == (2e-3 if bypass else None)
    assert references["actor/pg_clipfrac"] == ("behavior" if bypass else "proximal")
    assert step.extra["actor/pg_clipfrac"] == 0.01
