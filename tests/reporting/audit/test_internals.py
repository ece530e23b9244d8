"""What was seen inside, in words and tables, from findings written by hand."""

import pytest

from grail.config.audit import Audit
from grail.reporting.audit.internals import internals_sentences, internals_tables
from grail.reporting.tables import MISSING, WARNING


def sight(model, *share, side="unlearn"):
    return {"model": model, "domain": "d", "side": side, "share": list(share), "n": 16}


def found(*lens, frozen=0.0, no_lens=None):
    blocks = {"0": 0.05, "1": 0.2, "outside the blocks": None}
    moved = {"model": 0.1, "blocks": blocks, "frozen": frozen}
    inside = {"moved": moved, "lens": list(lens), "no_lens": no_lens}
    return {"inside": inside, "settings": Audit().model_dump(mode="json")}


@pytest.mark.parametrize(
    ("share", "oracle", "alarm"),
    [
        ((40.0, 5.0), None, True),
        ((14.0, 2.0), None, False),  # not above what may be left
        ((40.0, 35.0), None, False),  # the output says it, too
        ((40.0, 5.0), 30.0, False),  # a model that never saw it shows nearly as much
        ((40.0, 5.0), 20.0, True),
    ],
)
def test_an_answer_that_stands_in_a_block_only_is_hidden(share, oracle, alarm):
    lens = [sight("vanilla", 1.0, 98.0), sight("unlearned", *share)]
    if oracle is not None:
        lens.append(sight("oracle", oracle, 1.0))
    text = "\n".join(internals_sentences(found(*lens)))
    assert (f"{WARNING}Hidden rather than gone: d: " in text) == alarm
    assert f"at most {share[0]:.1f} % in any block (block 1 of 2" in text


def test_the_block_that_moved_most_is_named_and_a_frozen_entry_that_moved():
    assert "by 10.0 % of their norm, most in block 2 (20.0 %)" in internals_sentences(found())[0]
    assert internals_sentences(found(frozen=1e-3))[0].startswith(f"{WARNING}Frozen entries moved")


def test_what_could_not_be_seen_is_told():
    assert internals_sentences(found(no_lens="no lens for x."))[-1].endswith("no lens for x.")
    assert internals_sentences({}) == []
    assert internals_tables({}) == []


def test_every_block_has_a_line():
    lens = [sight("vanilla", 1.0, 98.0), sight("unlearned", 40.0, 5.0)]
    (blocks,) = internals_tables(found(*lens))
    assert blocks.columns == ("Block", "Moved %", "d unlearn")
    assert blocks.rows == (
        ("1", "5.0", "1.0 → 40.0"),
        ("2", "20.0", "98.0 → 5.0"),
        ("outside the blocks", MISSING, MISSING),
    )
