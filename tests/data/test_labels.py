"""Random labels: who draws, what may change, how often."""

import itertools
from collections import Counter
from dataclasses import replace
from statistics import mean

import pytest

from grail.data.encode import Encoded
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.data.samples import Sample
from grail.errors import InputError

SPECIAL = (0, 1, 2, 50)
SIZE = 96
WORDS = ordinary_tokens(SIZE, SPECIAL)
SUBSTITUTIONS = ("inputs_and_targets", "targets", "all")


def made(length, number=0, start=4):
    """A row whose answer holds ids that no draw can give: what changed can then be counted."""
    sample = Sample("d", "unlearn", "train", number, "", "")
    return Encoded(sample, (1,) * start + (2,) * length, start)


def changed(row, drawn):
    return [i for i, (a, b) in enumerate(zip(row.answer, drawn.targets, strict=True)) if a != b]


def test_ordinary_tokens_are_all_but_the_special_ones():
    assert set(WORDS) == set(range(SIZE)) - set(SPECIAL)
    assert ordinary_tokens(3, (7,)) == (0, 1, 2)
    with pytest.raises(InputError, match="special tokens only"):
        ordinary_tokens(3, (0, 1, 2))


@pytest.mark.parametrize("substitution", SUBSTITUTIONS)
def test_a_function_of_seed_key_and_trial_alone(substitution):
    row = made(12)
    base = RandomLabels(WORDS, substitution, 0)
    first = base.draw(row, 0)
    base.draw(made(12, 1), 5)  # an order of calls must not matter
    again = RandomLabels(WORDS, substitution, 0).draw(row, 0)
    assert (again, again.targets) == (first, first.targets)
    prompt = replace(row, ids=(9, 9, *row.answer), start=2)  # same key, other prompt
    assert base.draw(prompt, 0).targets == first.targets
    others = [
        base.draw(row, 1),
        base.draw(made(12, 1), 0),
        RandomLabels(WORDS, substitution, 1).draw(row, 0),
    ]
    assert len({first.targets, *(other.targets for other in others)}) == 4


@pytest.mark.parametrize("substitution", SUBSTITUTIONS)
def test_only_ordinary_tokens_and_only_in_the_answer(substitution):
    labels = RandomLabels(WORDS, substitution, 3)
    for trial in range(200):
        row = made(1 + trial % 17)
        drawn = labels.draw(row, trial)
        new = [drawn.targets[i] for i in changed(row, drawn)]
        assert set(new) <= set(WORDS)
        assert drawn.ids[: row.start] == row.ids[: row.start]
        assert (drawn.start, drawn.key, len(drawn.ids)) == (row.start, row.key, len(row.ids))
        assert drawn.side == row.side
        assert len(drawn.targets) == len(row.answer)


def test_targets_leaves_the_inputs_alone():
    row = made(12)
    drawn = RandomLabels(WORDS, "targets", 0).draw(row, 0)
    assert drawn.ids == row.ids
    assert drawn.targets != row.answer
    both = RandomLabels(WORDS, "inputs_and_targets", 0).draw(row, 0)
    assert both.targets == drawn.targets, "the same positions, the same labels"
    assert both.answer == both.targets


def test_all_changes_every_position_in_both():
    labels = RandomLabels(WORDS, "all", 0)
    for length in (1, 2, 9):
        row = made(length)
        drawn = labels.draw(row, 0)
        assert changed(row, drawn) == list(range(length))
        assert drawn.answer == drawn.targets


@pytest.mark.parametrize("substitution", ["inputs_and_targets", "targets"])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 101])
def test_at_most_half_of_the_positions_and_at_least_one(substitution, length):
    labels = RandomLabels(WORDS, substitution, 0)
    for trial in range(50):
        row = made(length)
        assert 1 <= len(changed(row, labels.draw(row, trial))) <= max(1, length // 2)


@pytest.mark.parametrize("length", [4, 16, 65, 128])
def test_positions_are_drawn_with_replacement(length):
    """floor(L/2) draws of L positions hit 1 - (1 - 1/L)^floor(L/2) of them on average."""
    labels = RandomLabels(WORDS, "inputs_and_targets", 0)
    row = made(length)
    trials = 40_000 // length
    share = mean(len(changed(row, labels.draw(row, t))) / length for t in range(trials))
    expected = 1 - (1 - 1 / length) ** (length // 2)
    assert labels.chance(length) == expected
    assert share == pytest.approx(expected, abs=0.02)  # about six standard errors
    assert abs(share - 0.5) > 0.05, "without replacement it would be one half"


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 7])
def test_chance_is_the_share_of_all_draws_that_hit_a_position(length):
    every = list(itertools.product(range(length), repeat=max(1, length // 2)))
    for position in {0, length - 1}:
        share = mean(position in positions for positions in every)
        for substitution in ("inputs_and_targets", "targets"):
            found = RandomLabels(WORDS, substitution, 0).chance(length)
            assert found == pytest.approx(share)
    assert RandomLabels(WORDS, "all", 0).chance(length) == 1


def test_positions_and_labels_are_uniform():
    labels = RandomLabels(WORDS, "inputs_and_targets", 1)
    row, trials = made(8), 4000
    positions, words = Counter(), Counter()
    for trial in range(trials):
        drawn = labels.draw(row, trial)
        hit = changed(row, drawn)
        positions.update(hit)
        words.update(drawn.targets[i] for i in hit)
    total = sum(positions.values())
    assert len(positions) == 8
    assert all(count / total == pytest.approx(1 / 8, rel=0.1) for count in positions.values())
    assert set(words) == set(WORDS)
    expected = total / len(WORDS)
    square = sum((words[w] - expected) ** 2 / expected for w in WORDS)
    assert square < 91 + 6 * (2 * 91) ** 0.5  # chi-squared with 91 degrees of freedom


def test_the_row_itself_is_not_changed():
    row = made(6)
    kept = (row.ids, row.targets)
    RandomLabels(WORDS, "all", 0).draw(row, 0)
    assert (row.ids, row.targets) == kept
