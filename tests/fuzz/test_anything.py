"""A few hundred inputs of every kind; ``make fuzz`` tries many more, led by coverage."""

import pytest
from anything import PATIENT, PROPERTIES
from hypothesis import settings

EXAMPLES = {"logs": 80, "configurations": 150, "command_lines": 80, "questions": 40, "links": 6}


@pytest.mark.parametrize("name", PROPERTIES)
def test_no_input_ends_in_an_error_that_is_not_declared(name):
    a_few = settings(PATIENT, max_examples=EXAMPLES[name], derandomize=True)
    a_few(PROPERTIES[name])()
