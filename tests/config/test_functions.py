"""The user's functions are found by name, and each wrong name has its message."""

import math

import pytest

from grail.config.functions import imported
from grail.errors import InputError


def test_a_function_is_found_by_its_name():
    assert imported("math:sqrt", "section.key") is math.sqrt


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "module 'no_such_module' of no_such_module:f cannot be imported"),
        ("math.sub:f", "module 'math.sub' of math.sub:f cannot be imported"),
        (":f", "module '' of :f cannot be imported"),
        ("math:sqroot", "module 'math' has no function 'sqroot'"),
        ("math:", "module 'math' has no function ''"),
        ("math:pi", "module 'math' has no function 'pi'"),
    ],
)
def test_a_wrong_name_is_refused_with_the_setting(name, message):
    with pytest.raises(InputError) as error:
        imported(name, "section.key")
    assert str(error.value).startswith(f"section.key: {message}")
