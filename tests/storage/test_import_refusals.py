"""What is no log, or is told wrongly, is refused in one line per fault, and nothing is left."""

import json

import pytest

from storage.commandline import BadInput
from storage.importers.importing import import_file

PRIME_ROW = {"optim/lr": 1e-6, "mismatch_kl/all/mean": 2e-3, "off_policy/max": 4.0}

DEEP = b"[" * 50 + b"]" * 50
"""One level more than is allowed, within a row."""


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def faults(store, source, **options):
    with pytest.raises(BadInput) as found:
        import_file(store, source, **options)
    assert store.runs() == []
    assert store.step_counts() == {}
    return str(found.value).splitlines()


def test_bad_lines_are_named_by_number_and_nothing_is_left(store):
    good = lines({"step": 0, **PRIME_ROW})
    bad = (
        '{"step": 1\n[1]\n{"loss": 1}\n{"step": 1.5}\n{"step": -1}\n{"step": NaN}\n{"step": true}\n'
    )
    found = faults(store, (good + bad + good).encode())
    assert [line.split(":")[0] for line in found] == [
        "line 2",
        "line 3",
        "line 4",
        "line 5",
        "line 6",
        "… and 2 more lines like these",
    ]
    assert found[0].endswith("allowed: one JSON object with a step")
    assert "no step among its keys loss" in found[2]
    assert "step 1.5 is not a whole number from 0 to 2147483647" in found[3]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "file: empty"),
        (b" \n\n", "file: empty"),
        (b"step,loss\n0,1\n", "begins no known log"),
        (b"\x1f\x8b\x08\x00", "is no UTF-8 text"),
        (b'{"log_history": 3}', "no log_history"),
        (b'{"log_history": []}', "holds no row"),
        (b'{"log_history": [{"loss": 1}, 3]}', "log_history entry 1"),
        (b'{\n  "log_history": [{"step": 1}', "not JSON"),
        (b"[" * 100_000, "begins no known log"),
        (b'{"step": 0}\n{"step": 1, "x": ' + DEEP + b"}\n", "line 2: "),
        (b'{"step": 0}\n{"step": 1, "x": ' + DEEP + b"}\n", "is nested deeper than 50 levels"),
        (b'{"step": 0, "x": ' + DEEP + b"}\n", "known log, it is nested deeper than 50 levels"),
    ],
)
def test_what_is_no_log_is_refused_in_words(store, content, words):
    assert words in faults(store, content)[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"format": "csv"},
            "format: 'csv' is not allowed; allowed: auto | jsonl | tensorboard | trainer_state",
        ),
        ({"stack": "ppo"}, "stack: 'ppo' is not allowed"),
        ({"name": " "}, "name: ' ' is not allowed; allowed: 1 to 120 characters"),
        ({"group": "g" * 121}, "group: "),
        ({"most_bytes": 10}, "file: larger than allowed; allowed: at most 10 bytes"),
        ({"most_rows": 1}, "rows: more than 1; allowed: at most 1"),
        ({"settings": {"learning_rate": "11"}}, "learning_rate: 11 is not allowed; allowed: 0 <"),
        ({"settings": {"learning_rate": "nan"}}, "learning_rate: nan is not allowed"),
        ({"settings": {"learnig_rate": 1e-6}}, "did you mean learning_rate?"),
        ({"settings": {"max_staleness": 1.5}}, "max_staleness: 1.5 is not allowed"),
        ({"settings": {"a b": 1}}, "a b: not a setting here"),
        ({"settings": {"knob": -1}}, "orchestrator.max_off_policy_steps: -1"),
        (
            {"settings": {"knob": "1e308"}},
            "max_off_policy_steps: 1e+308 is not allowed",
        ),
        ({"settings": {"knob": 4097}}, "an age of 4097 learner steps; allowed: at most 4096"),
        ({"settings": {"knob": True}}, "orchestrator.max_off_policy_steps: True is not allowed"),
        ({"settings": {"knob": 1, "max_staleness": 1}}, "max_staleness: given twice"),
        (
            {"settings": {"learning_rate": 1e-6, "trainer.optim.lr": 1e-5}},
            "learning_rate: given twice, as learning_rate and as trainer.optim.lr; give it once",
        ),
        ({"settings": {"mine": "9" * 400}}, "allowed: a finite number or a word"),
        (
            {"stack": "areal", "settings": {"ppo_n_minibatches": "9" * 400}},
            "allowed: a number from 1 to 65536 for actor.ppo_n_minibatches",
        ),
        ({"stack": "areal", "settings": {"ppo_n_minibatches": 0.5}}, "0.5 is not allowed"),
        ({"format": "tensorboard"}, "file: is not of format tensorboard"),
        ({"format": "wandb"}, "file: is not of format wandb"),
    ],
)
def test_an_option_that_is_not_allowed_is_refused_and_nothing_is_left(store, options, words):
    content = lines(*({"step": t, **PRIME_ROW} for t in range(3))).encode()
    assert words in faults(store, content, **options)[0]


def test_a_path_that_is_no_file_is_refused(store, tmp_path):
    assert faults(store, tmp_path / "x")[0].endswith("or a run-….wandb file")
    assert "is a folder" in faults(store, tmp_path)[0]
    assert faults(store, "")[0].startswith("file: '' names none")


def test_a_fault_names_its_file(store, tmp_path):
    log = tmp_path / "a log.jsonl"
    log.write_text(lines({"step": 0, **PRIME_ROW}) + "{broken\n" + lines({"step": 1}))
    [fault] = faults(store, log)
    assert fault.startswith(f"file: {log}: line 2: '{{broken' is not JSON")
    [missing] = faults(store, tmp_path / "nothing.jsonl")
    assert missing.startswith(f"file: {tmp_path / 'nothing.jsonl'} does not exist")


def test_another_stack_that_would_empty_columns_is_refused(store):
    content = lines(*({"step": t, **PRIME_ROW} for t in range(3))).encode()
    done = import_file(store, content)
    before = store.steps(done.run_id)
    with pytest.raises(BadInput) as fault:
        import_file(store, content, stack="openrlhf")
    words = "openrlhf would empty approx_kl, learning_rate, staleness_max of run "
    assert words in str(fault.value)
    assert "allowed: prime_rl, or delete the run first" in str(fault.value)
    assert store.steps(done.run_id) == before
    again = import_file(store, content, stack="prime_rl")
    assert (again.run_id, again.written) == (done.run_id, 0)


@pytest.mark.parametrize(
    ("key", "told", "words"),
    [
        ("kl", {"frac_reward_zero_std": 0.0}, "kl is against the reference policy"),
        ("kl", {"sampling/importance_sampling_ratio/mean": 1.0}, "kl is against the reference"),
        (
            "clip_ratio/low_mean",
            {"sampling/sampling_logp_difference/mean": 0.1},
            "clip_ratio/low_mean is against the proximal policy",
        ),
    ],
)
def test_a_stack_that_would_take_another_drift_for_that_of_staleness_is_refused(
    store, key, told, words
):
    content = lines(*({"step": t, "learning_rate": 1e-6, key: 0.5, **told} for t in range(3)))
    [fault] = faults(store, content.encode(), stack="trl_async")
    assert words in fault
    assert fault.endswith("; allowed: trl")
    done = import_file(store, content.encode())
    before = store.run(done.run_id), store.steps(done.run_id)
    with pytest.raises(BadInput, match="those of trl"):
        import_file(store, content.encode(), stack="trl_async")
    assert (store.run(done.run_id), store.steps(done.run_id)) == before


def test_what_is_refused_opens_no_archive():
    def never():
        raise AssertionError("an archive was opened")

    for told in ({"knob": 10**400}, {"knob": 5000}):
        with pytest.raises(BadInput):
            import_file(never, lines({"step": 0, **PRIME_ROW}).encode(), settings=told)


def test_a_stack_that_the_keys_contradict_is_told(store):
    done = import_file(store, lines({"step": 0, **PRIME_ROW}).encode(), stack="openrlhf")
    assert done.mapped == {}
    assert any("look like those of prime_rl" in note and "approx_kl" in note for note in done.notes)
