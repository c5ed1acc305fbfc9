"""The one contract by which all command lines read options, end on errors and print JSON."""

import json
import math

import pytest

from storage.commandline import BadInput, Parser, add_common_options, parse, print_json, run_command
from storage.errors import RunNotFound


def parser():
    made = Parser(prog="python -m something")
    commands = made.add_subparsers(dest="command", required=True)
    for name, option in (("run", "--learning-rate"), ("look", "--last")):
        command = commands.add_parser(name)
        add_common_options(command)
        command.add_argument(option)
        command.add_argument("--steps")
    return made


@pytest.mark.parametrize("value", ["-1e-4", "-5", "-.5", "-inf", "-NaN"])
def test_a_negative_number_is_a_value_and_no_option(value):
    assert parse(parser(), ["run", "--learning-rate", value]).learning_rate == value
    assert parse(parser(), ["run", f"--learning-rate={value}"]).learning_rate == value


def faults(*words):
    with pytest.raises(BadInput) as found:
        parse(parser(), words)
    return str(found.value).splitlines()


def test_the_value_of_an_unknown_option_is_not_reported_beside_it():
    assert faults("run", "--learnin-rate", "1") == [
        "--learnin-rate: unknown argument; did you mean --learning-rate?"
    ]
    assert faults("run", "--qqqq", "1", "more") == [
        "--qqqq: unknown argument; see --help",
        "more: unknown argument; see --help",
    ]
    assert faults("run", "--qqqq=1", "more") == [
        "--qqqq: unknown argument; see --help",
        "more: unknown argument; see --help",
    ]


def test_an_option_is_never_abbreviated():
    assert faults("run", "--step", "3") == ["--step: unknown argument; did you mean --steps?"]


def test_an_option_given_twice_is_refused_even_with_the_same_value():
    for second in (["--steps", "3"], ["--steps=4"]):
        assert faults("run", "--steps", "3", *second) == ["--steps: given twice; give it once"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BadInput("a: 1", "b: 2"), 2, "a: 1\nb: 2\n"),
        (RunNotFound("run: 'x' is not in the archive"), 2, "run: 'x' is not in the archive\n"),
        (KeyboardInterrupt(), 130, "interrupted; everything up to the last step is kept\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "[Errno 13] Permission denied: '/x'\n"),
    ],
)
def test_an_error_that_a_person_can_mend_is_an_exit_code_and_its_lines(error, code, said, capsys):
    def fail(_):
        raise error

    assert run_command(fail, []) == code
    assert capsys.readouterr() == ("", said)


def test_an_error_of_the_program_is_not_hidden():
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(fail, [])


def test_a_number_that_json_cannot_hold_becomes_null_with_its_reason(capsys):
    print_json({"a": math.nan, "b": [math.inf, 1.0], "c": {"d": -math.inf}, "e": None, "f": (1,)})
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "a": None,
        "a_reason": "computed nan",
        "b": [None, 1.0],
        "c": {"d": None, "d_reason": "computed -inf"},
        "e": None,
        "f": [1],
    }


def test_a_reason_that_was_given_is_not_replaced(capsys):
    print_json({"a_reason": "diverged", "a": math.nan})
    assert json.loads(capsys.readouterr().out) == {"a": None, "a_reason": "diverged"}
