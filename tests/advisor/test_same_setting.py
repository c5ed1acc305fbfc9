"""Which fields two runs must share to be of the same setting."""

import pytest
from factories import a_config

from advisor.same_setting import NOT_THE_SETTING, differences, setting_of
from trainer.config import TrainerConfig


def test_rate_staleness_horizon_and_seed_may_differ_within_one_setting():
    other = a_config(learning_rate=1e-3, max_staleness=9, steps=7, seed=3, name="n", group="g")
    assert differences(a_config(), other) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clip_epsilon": 0.3}, "clip_epsilon 0.2 ≠ 0.3"),
        ({"optimizer": "sgd"}, "optimizer adamw ≠ sgd"),
        ({"schedule": "constant"}, "schedule cyclic ≠ constant"),
        ({"warmup_steps": 0}, "warmup_steps 10 ≠ 0"),
        ({"group_size": 4}, "group_size 8 ≠ 4"),
        ({"hidden_size": 32}, "hidden_size 64 ≠ 32"),
    ],
)
def test_every_other_field_makes_another_setting_and_is_named_with_both_values(change, words):
    assert differences(a_config(), a_config(**change)) == [words]


def test_a_clip_range_above_that_is_left_out_is_the_one_below():
    assert differences(a_config(), a_config(clip_epsilon_high=0.2)) == []
    assert differences(a_config(), a_config(clip_epsilon_high=0.3)) == [
        "clip_epsilon_high None ≠ 0.3"
    ]


def test_what_only_measures_makes_no_other_setting():
    assert TrainerConfig.model_fields.keys() >= NOT_THE_SETTING
    measures = ("evaluat", "kl_to_start", "bias_")
    assert [name for name in setting_of(a_config()) if name.startswith(measures)] == []
