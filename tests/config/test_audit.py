"""The audit section: what it refuses, and the older name of its list of attacks."""

import pytest

from grail.config.audit import ALL, with_attacks
from grail.config.run import parse_config
from grail.errors import InputError

PART = {"train": "x.jsonl"}
SMALLEST = {"domains": {"a": {"unlearn": PART, "retain": PART}}, "output": "out"}


def test_without_a_word_every_attack_is_tried():
    assert parse_config(SMALLEST).audit.attacks == list(ALL)


def test_an_unknown_attack_gets_a_hint():
    with pytest.raises(InputError, match=r"audit.attacks.0 .*Did you mean 'quantise'"):
        parse_config(SMALLEST | {"audit": {"attacks": ["quantize"]}})


@pytest.mark.parametrize("steps", [[5, 5], [10, 5]])
def test_points_of_a_curve_follow_each_other(steps):
    with pytest.raises(InputError, match="grow from one number to the next"):
        parse_config(SMALLEST | {"audit": {"relearn": {"steps": steps}}})


def test_the_older_name_is_read_and_the_newer_one_wins():
    old = SMALLEST | {"evaluation": {"attacks": ["prune"], "generate": False}}
    assert parse_config(old).audit.attacks == ["prune"]
    assert parse_config(old).evaluation.generate is False
    both = old | {"audit": {"attacks": ["relearn"], "max_rows": 3}}
    assert parse_config(both).audit.attacks == ["relearn"]
    assert parse_config(both).audit.max_rows == 3
    empty = SMALLEST | {"evaluation": {"attacks": []}}
    assert parse_config(empty) == parse_config(SMALLEST)


def test_what_is_given_is_not_changed():
    old = {"evaluation": {"attacks": ["prune"]}}
    with_attacks(old)
    assert old == {"evaluation": {"attacks": ["prune"]}}
