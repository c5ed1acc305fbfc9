"""One's own model, prompts and reward: what reaches the reward, and what is refused and how."""

import json
import sys

import pytest
import torch
from factories import a_config
from own_things import (
    PROMPTS,
    own_config,
    own_values,
    save_model,
    save_reward_model,
    without,
    write_prompts,
)

from storage.commandline import BadInput, run_command
from storage.records import RunStatus
from trainer.__main__ import main
from trainer.config import TrainerConfig, web_fields
from trainer.judging import RewardFailed
from trainer.launch import create_run
from trainer.lockstep import Lockstep
from trainer.policy import load_policy
from trainer.reward_model import RewardModel
from trainer.rollout import sample_rollouts, score
from trainer.worker import Worker
from trainer.workloads.choice import task_and_start

CPU = torch.device("cpu")


def ignore(*words):
    pass


def custom(config, home):
    return task_and_start(config, home, ignore)


def refusal(function, *args, **changes):
    """Return the one line that something is refused with."""
    with pytest.raises(BadInput) as found:
        function(*args, **changes)
    [line] = str(found.value).splitlines()
    return line


# -- what reaches the reward -------------------------------------------------------------------


def test_the_reward_gets_the_prompt_the_completion_and_the_other_keys_of_its_line(tmp_path):
    config = own_config(
        tmp_path,
        "def judge(prompts, completions, answer, hint):\n"
        "    for prompt, right, number in zip(prompts, answer, hint):\n"
        "        assert prompt == f'{number}+{number}=' and right == str(2 * number)\n"
        "    return [1000 * n + len(c) for n, c in zip(hint, completions)]\n",
    )
    learner = Lockstep("a run", config, *custom(config, tmp_path))
    batch = learner._sample(0).batch
    assert len(batch.completions) == 16
    for row, (completion, reward) in enumerate(
        zip(batch.completions, batch.rewards_P_G.flatten().tolist(), strict=True)
    ):
        number = int(batch.prompts[row // 4].split("+")[0])
        assert reward == 1000 * number + len(completion)


@pytest.mark.parametrize(
    ("signature", "seen"),
    [
        ("prompts, completions", []),
        ("prompts, completions, hint", ["hint"]),
        ("completions, prompts, *, answer=None", ["answer"]),
        ("**keys", ["answer", "completions", "hint", "prompts"]),
        ("prompts, completions, **keys", ["answer", "hint"]),
    ],
)
def test_a_reward_gets_the_keys_that_it_takes(tmp_path, signature, seen):
    named = {"hint": "hint", "answer": "answer"}
    told = "sorted(keys)" if "**keys" in signature else str([n for n in named if n in signature])
    config = own_config(tmp_path, f"def judge({signature}):\n    raise KeyError({told})\n")
    task, _ = custom(config, tmp_path)
    with pytest.raises(RewardFailed) as found:
        task.rewards(task.sample_prompts(2, torch.Generator()), ["1", "2"])
    assert str(found.value) == f"the reward raised KeyError: {seen}"


def test_a_key_that_a_line_lacks_is_none(tmp_path):
    save_model(tmp_path / "model")
    write_prompts(tmp_path / "prompts.jsonl", [{"prompt": "1+1=", "a": 7}, {"prompt": "2+2="}])
    config = own_config(
        tmp_path,
        "def judge(prompts, completions, a):\n"
        "    return [{'1+1=': 7, '2+2=': None}[p] == x for p, x in zip(prompts, a)]\n",
    )
    task, _ = custom(config, tmp_path)
    assert task.rewards(task.sample_prompts(2, torch.Generator()), ["", ""]) == [True, True]


def test_prompts_of_a_batch_differ_as_long_as_there_are_enough(tmp_path):
    config = own_config(tmp_path)
    task, _ = custom(config, tmp_path)
    generator = torch.Generator().manual_seed(0)
    assert sorted(task.sample_prompts(16, generator)) == sorted(p["prompt"] for p in PROMPTS)
    assert len(set(task.sample_prompts(15, generator))) == 15
    assert len(task.sample_prompts(17, generator)) == 17


def test_a_reward_may_import_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbor_of_mine.py").write_text("VALUE = 3.5\n")
    source = "import neighbor_of_mine\ndef judge(completions):\n"
    source += "    return [neighbor_of_mine.VALUE for _ in completions]\n"
    task, _ = custom(own_config(tmp_path, source.replace("(", "(prompts, ", 1)), tmp_path)
    assert task.rewards(["10+10="], [""]) == [3.5]


def test_a_reward_may_be_part_of_a_package(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    package = tmp_path / "package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "worth.py").write_text("VALUE = 2.5\n")
    (package / "rewards.py").write_text(
        "from .worth import VALUE\ndef judge(prompts, completions):\n    return [VALUE]\n"
    )
    values = own_values(tmp_path) | {"reward": f"{package}/rewards.py:judge"}
    task, _ = custom(a_config(**values), tmp_path)
    assert task.rewards(["10+10="], [""]) == [2.5]


def test_a_module_below_the_working_directory_means_the_same_file_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    values = own_values(tmp_path)
    config = a_config(**(values | {"reward": "own_reward:judge", "model": "model"}))
    assert config.reward == f"{tmp_path}/own_reward.py:judge"
    assert config.model == str(tmp_path / "model")
    assert a_config(**(values | {"reward": "statistics:fmean"})).reward == "statistics:fmean"


# -- a run -------------------------------------------------------------------------------------


def test_a_custom_run_trains_and_says_that_it_has_no_gold(store, tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    run = Worker(store, create_run(store, own_config(tmp_path)), ignore).run()
    assert run.status is RunStatus.FINISHED
    assert run.chance_reward is None
    assert "no other gold" in run.unmeasured["gold_reward_mean"]
    rows = store.steps(run.id)
    assert [row.step for row in rows] == [0, 1, 2]
    assert rows[-1].displacement > 0
    assert store.events(run.id)[0].data == {"prompts": 16}


def test_a_reward_that_favors_length_makes_completions_longer(tmp_path):
    """Alternatives end with one of 16 signs, each three tokens at most: there is much to gain."""
    config = own_config(tmp_path, learning_rate=1e-2, steps=30, max_staleness=0, warmup_steps=0)
    learner = Lockstep("a run", config, *custom(config, tmp_path))
    before = learner.evaluate(0, 512).reward
    for step in range(30):
        learner.learner_step(step)
    assert learner.evaluate(30, 512).reward > before + 0.5


def test_a_reward_model_of_ones_own_gives_the_reward(tmp_path):
    folder = save_reward_model(tmp_path / "judge")
    values = own_values(tmp_path, reward_model=str(folder))
    del values["reward"]
    config = a_config(**values)
    task, _ = custom(config, tmp_path)
    prompts, completions = ["10+10=", "11+11="], ["20", "4"]
    judge = RewardModel(folder, CPU)
    for prompt, completion, reward in zip(
        prompts, completions, task.rewards(prompts, completions), strict=True
    ):
        ids = torch.tensor([judge.tokenizer(prompt + completion)["input_ids"]])
        assert reward == pytest.approx(judge.model(ids).logits.item(), abs=1e-5)


def test_ones_own_model_starts_a_built_in_workload(tmp_path):
    folder = save_model(tmp_path / "model")
    config = a_config(model=str(folder))
    task, start = task_and_start(config, tmp_path, ignore)
    assert (task.name, start) == ("arithmetic", folder)
    assert not (tmp_path / "warm_starts").exists()


def test_the_command_line_takes_ones_own_model_prompts_and_reward(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    monkeypatch.delenv("ETALON_DB", raising=False)
    config = own_config(tmp_path)
    words = (
        f"run --workload custom --model {config.model} --reward {config.reward} "
        f"--prompts-file {config.prompts_file} --max-new-tokens 2 --prompts 2 --group-size 2 "
        "--learning-rate 1e-4 --max-staleness 1 --steps 2 --json"
    ).split()
    capsys.readouterr()  # saving a model says so
    assert run_command(main, words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["status"], answer["steps"]) == ("finished", 2)
    assert "no other gold" in answer["gold_reward_final_reason"]


# -- tokenizers --------------------------------------------------------------------------------


def test_a_tokenizer_without_padding_pads_with_the_end_and_changes_nothing(tmp_path):
    uneven = ["1+2=", "12+34=", "5=", "90+99="]
    padded = load_policy(save_model(tmp_path / "padded"), CPU)
    bare = load_policy(save_model(tmp_path / "bare", tokenizer=without("pad")), CPU)
    assert bare[1].pad_token == bare[1].eos_token == "</s>"
    task, _ = custom(own_config(tmp_path), tmp_path)
    first, second = (
        sample_rollouts(*policy, task, uneven, 8, torch.Generator().manual_seed(0))
        for policy in (padded, bare)
    )
    assert first.completions == second.completions
    assert torch.equal(first.mask_B_T, second.mask_B_T)
    assert torch.allclose(first.behavior_log_probs_B_T, second.behavior_log_probs_B_T, atol=1e-5)
    log_probs, _ = score(bare[0], second)
    assert torch.allclose(log_probs, second.behavior_log_probs_B_T, atol=1e-5)


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    folder = save_model(tmp_path / "model", tokenizer=without("eos"))
    line = refusal(load_policy, folder, CPU)
    assert line.startswith(f"model: the tokenizer of {str(folder)!r} has no end-of-sequence token")


def test_a_reward_model_without_padding_scores_a_batch_as_each_alone(tmp_path):
    judge = RewardModel(save_reward_model(tmp_path / "judge", tokenizer=without("pad")), CPU)
    prompts, completions = ["1+2=", "12+34=", "5="], ["3", "", "12345"]
    together = judge(prompts, completions)
    alone = [judge([p], [c])[0] for p, c in zip(prompts, completions, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len({round(value, 3) for value in together}) == 3


def test_equal_pairs_have_equal_scores_to_the_last_bit(tmp_path):
    judge = RewardModel(save_reward_model(tmp_path / "judge"), CPU)
    scores = judge(["1+2=", "5=", "1+2=", "5="] * 9, ["3", "5", "3", "77777"] * 9)
    assert scores == [scores[0], scores[1], scores[0], scores[3]] * 9
    assert scores[1] != scores[3]


def test_a_reward_model_with_two_labels_or_neither_token_is_refused(tmp_path):
    two = save_reward_model(tmp_path / "two", labels=2)
    assert "has 2 labels; allowed: 1" in refusal(RewardModel, two, CPU)
    bare = save_reward_model(tmp_path / "bare", tokenizer=without("pad", "eos"))
    assert "neither a padding nor an end-of-sequence token" in refusal(RewardModel, bare, CPU)


# -- what is refused before a run begins -------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is no JSON: "),
        ("[1]", 'is a list; allowed: an object with a "prompt"'),
        ('"text"', 'is text; allowed: an object with a "prompt"'),
        ('{"question": 1, "answer": 2}', 'has no "prompt"; its keys: question, answer'),
        ("{}", 'has no "prompt"; its keys: none'),
        ('{"prompt": ""}', 'has a "prompt" that is empty; allowed: text, not empty'),
        ('{"prompt": null}', 'has a "prompt" that is null; allowed: text, not empty'),
        ('{"prompt": 5}', 'has a "prompt" that is a number; allowed: text, not empty'),
        ('{"prompt": [{"role": "user"}]}', 'has a "prompt" that is a list; allowed: text'),
        ('{"prompt": "1", "completions": 2}', 'has a key "completions", which the reward'),
    ],
)
def test_the_first_bad_line_of_the_prompts_is_named(tmp_path, line, words):
    config = own_config(tmp_path)
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "1+1="}}\n\n{line}\n{{"prompt": 7}}\n')
    found = refusal(own_config, tmp_path)
    assert found.startswith(f"prompts_file: line 3 of {str(file)!r} {words}")
    assert config.prompts_file == str(file)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no prompt"), (b"\n \n", "holds no prompt"), (b'{"prompt": "\xff"}', "no UTF-8")],
)
def test_a_file_without_readable_prompts_is_refused(tmp_path, content, words):
    own_config(tmp_path)
    (tmp_path / "prompts.jsonl").write_bytes(content)
    assert words in refusal(own_config, tmp_path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "has no function 'judge'; allowed: module:function"),
        ("judge = 3", "has something else than a function named 'judge'"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("def judge(:", "cannot be imported: SyntaxError: "),
        ("raise OSError('no key')", "cannot be imported: OSError: no key"),
    ],
)
def test_a_reward_that_cannot_be_called_is_refused(tmp_path, source, words):
    line = refusal(own_config, tmp_path, source)
    assert line.startswith("reward: ")
    assert words in line


@pytest.mark.parametrize("given", ["rewards", "rewards:", ":judge", "a:b:c:d", "rewards:3"])
def test_a_reward_is_named_by_module_and_function(tmp_path, given):
    line = refusal(a_config, **(own_values(tmp_path) | {"reward": given}))
    assert line == (
        f"reward: {given!r} is not allowed; allowed: module:function or path/to/file.py:function"
    )


def test_a_module_that_does_not_exist_is_refused(tmp_path):
    values = own_values(tmp_path)
    line = refusal(a_config, **(values | {"reward": "no_such_module:judge"}))
    assert line.startswith("reward: 'no_such_module:judge' cannot be imported: ModuleNotFoundError")
    line = refusal(a_config, **(values | {"reward": "no/such/file.py:judge"}))
    assert line.endswith("cannot be imported: FileNotFoundError: there is no such file")


def test_every_thing_that_is_missing_is_asked_for_in_a_line_of_its_own():
    with pytest.raises(BadInput) as found:
        a_config(workload="custom")
    assert str(found.value).splitlines() == [
        "model: not given; the custom workload needs a folder from save_pretrained",
        "prompts_file: not given; the custom workload needs "
        'a JSONL file of objects with a "prompt"',
        "reward: not given; the custom workload needs reward or reward_model",
    ]


def test_two_rewards_are_one_too_many(tmp_path):
    folder = str(save_reward_model(tmp_path / "judge"))
    line = refusal(own_config, tmp_path, reward_model=folder)
    assert line.startswith(f"reward_model: {folder!r} is not allowed beside reward ")


@pytest.mark.parametrize("workload", ["arithmetic", "preference"])
@pytest.mark.parametrize(
    ("name", "value"), [("reward", "m:f"), ("prompts_file", "/f"), ("max_new_tokens", 3)]
)
def test_what_only_a_custom_run_reads_is_refused_elsewhere(workload, name, value):
    line = refusal(a_config, workload=workload, **{name: value})
    assert line == (
        f"{name}: {value!r} is not allowed with the workload {workload}; allowed with: custom"
    )


def test_a_folder_that_is_no_saved_model_is_refused(tmp_path):
    folder = tmp_path / "folder"
    told = "allowed: a folder from save_pretrained"

    def line():
        return refusal(a_config, model=str(folder)).removeprefix(f"model: {str(folder)!r} ")

    assert line() == f"is no folder; {told}"
    save_model(folder)
    for gone, words in (
        ("tokenizer*", "holds no tokenizer"),
        ("*.safetensors", "holds no weights (.safetensors or .bin)"),
        ("config.json", "holds no config.json"),
    ):
        for file in folder.glob(gone):
            file.unlink()
        assert line() == f"{words}; {told}"


def test_a_bad_line_ends_the_command_with_one_line_and_leaves_nothing_behind(
    tmp_path, monkeypatch, capsys
):
    config = own_config(tmp_path)
    (tmp_path / "prompts.jsonl").write_text("{\n")
    home = tmp_path / "home"
    monkeypatch.setenv("ETALON_HOME", str(home))
    monkeypatch.delenv("ETALON_DB", raising=False)
    words = (
        f"run --workload custom --model {config.model} --reward {config.reward} "
        f"--prompts-file {config.prompts_file} --learning-rate 1e-4 --max-staleness 1 --steps 2"
    ).split()
    capsys.readouterr()  # saving a model says so
    assert run_command(main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("prompts_file: line 1 of ")
    assert not home.exists()


def test_a_browser_may_set_nothing_that_names_code_or_a_file():
    kept_from_it = set(TrainerConfig.model_fields) - set(web_fields())
    assert kept_from_it == {"engine", "model", "prompts_file", "reward", "reward_model"}
