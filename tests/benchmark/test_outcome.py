"""What a part hands back, and the limits that ratios are held against."""

import pytest
from races.outcome import Outcome, verdict


def test_names_begin_with_the_part():
    outcome = Outcome("scoring")
    outcome.rate("naive loop / grail, float32", 2.0)
    outcome.add("pace", samples=3)
    assert outcome.ratios == {"scoring: naive loop / grail, float32": 2.0}
    assert outcome.measurements == [{"part": "scoring", "what": "pace", "samples": 3}]


def test_a_note_is_made_once():
    outcome = Outcome("growth")
    for _ in range(2):
        outcome.note("left out")
    assert outcome.notes == ["growth: left out"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("scoring: naive loop / grail, float32", 3.1, "at least 3: yes"),
        ("scoring: naive loop / grail, bfloat16", 2.9, "at least 3: no"),
        ("scoring: memory, grail / the same bare pass, float32", 1.4, "at most 1.5: yes"),
        ("training: what a mask adds to a step, 10% frozen", 0.03, "at most 0.02: no"),
        ("scoring: vmap / grail, float32, 4 rows", 0.5, ""),
    ],
)
def test_a_ratio_is_held_against_its_limit(name, value, said):
    assert verdict(name, value) == said
