"""How far the weights moved, in words and as a table, from findings written by hand."""

from grail.reporting.audit.moved import frozen_moved, moved_sentence, moved_tables
from grail.reporting.tables import MISSING, WARNING


def found(frozen=0.0):
    blocks = {"0": 0.05, "1": 0.2, "outside the blocks": None}
    return {"inside": {"moved": {"model": 0.1, "blocks": blocks, "frozen": frozen}}}


def test_the_block_that_moved_most_is_named_and_a_frozen_entry_that_moved():
    assert "by 10.0 % of their norm, most in block 2 (20.0 %)" in moved_sentence(found())
    assert moved_sentence(found(frozen=1e-3)).startswith(f"{WARNING}Frozen entries moved")
    assert (frozen_moved(found()), frozen_moved(found(frozen=1e-3))) == (False, True)


def test_every_block_has_a_line():
    (blocks,) = moved_tables(found())
    assert blocks.columns == ("Block", "Moved %")
    assert blocks.rows == (("1", "5.0"), ("2", "20.0"), ("outside the blocks", MISSING))


def test_what_was_not_looked_at_is_not_told():
    assert (moved_sentence({}), frozen_moved({}), moved_tables({})) == ("", False, [])
