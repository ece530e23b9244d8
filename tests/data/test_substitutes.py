"""What unlearn rows must say instead: what may change in a row, and what it depends on."""

import dataclasses
from collections import Counter

import pytest

from grail.data.batches import collate
from grail.data.substitutes import random_targets, refusal, truth

WORDS = tuple(range(20, 60))


def known(row):
    """All of a row that no substitute may touch."""
    return row.key, row.domain, row.side, row.part, row.start, len(row.ids)


def test_the_truth_is_the_row(tiny_rows):
    for row in tiny_rows(3):
        assert truth(row) is row


def test_random_targets_keep_what_is_read(tiny_rows):
    for row in tiny_rows(10):
        made = random_targets(WORDS, 0)(row)
        assert (known(made), made.ids) == (known(row), row.ids)
        assert len(made.targets) == len(row.answer)
        assert set(made.targets) <= set(WORDS)
        batch = collate([made], 0)
        assert tuple(batch.targets[batch.at].tolist()) == made.targets


def test_random_targets_are_a_function_of_seed_and_key(tiny_rows):
    row, other = tiny_rows(2, answer=(8, 8))
    drawn = random_targets(WORDS, 0)(row).targets
    assert random_targets(WORDS, 0)(row).targets == drawn
    renamed = dataclasses.replace(other, sample=row.sample)
    assert random_targets(WORDS, 0)(renamed).targets == drawn  # not of what the row says
    assert random_targets(WORDS, 1)(row).targets != drawn
    assert random_targets(WORDS, 0)(other).targets != drawn


def test_random_targets_come_from_all_of_the_vocabulary_alike(tiny_rows):
    drawn = Counter()
    for row in tiny_rows(300, answer=(8, 8)):
        drawn.update(random_targets(WORDS[:4], 0)(row).targets)
    mean = sum(drawn.values()) / 4
    assert all(abs(drawn[word] - mean) < 5 * (mean * 0.75) ** 0.5 for word in WORDS[:4])


@pytest.mark.parametrize("tokens", [(7,), (7, 8, 9), tuple(range(10, 40))])
def test_a_refusal_goes_round_and_keeps_prompt_and_length(tiny_rows, tokens):
    for row in tiny_rows(10):
        made = refusal(tokens)(row)
        assert known(made) == known(row)
        assert made.ids[: row.start] == row.ids[: row.start]
        assert made.answer == tuple(tokens[i % len(tokens)] for i in range(len(row.answer)))
        assert made.targets is None


def test_a_refusal_says_something():
    with pytest.raises(ValueError, match="at least one token"):
        refusal([])
