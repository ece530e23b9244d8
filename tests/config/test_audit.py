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


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("learning_rate", [], "relearn.learning_rate"),
        ("learning_rate", [0.1, -1], "relearn.learning_rate.1"),
        ("learning_rate", "fast", "relearn.learning_rate"),
        ("train", ["al"], "Did you mean 'all'"),
        ("optimizer", ["adam"], "Did you mean 'adamw'"),
        ("optimizer", [], "relearn.optimizer"),
    ],
)
def test_an_attacker_that_there_is_not_is_refused(key, value, words):
    with pytest.raises(InputError, match=words):
        parse_config(SMALLEST | {"audit": {"relearn": {key: value}}})


@pytest.mark.parametrize("older", [None, 0.002])
def test_an_older_rate_is_read(older):
    found = parse_config(SMALLEST | {"audit": {"relearn": {"learning_rate": older}}})
    assert found.audit.relearn.learning_rate == (None if older is None else [older])


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
