"""Which rows are measured, and that drawing them depends on the seed alone."""

import pytest

from grail.audit.context import piece

COUNTS = {("a", "unlearn", "train"): 9, ("a", "retain", "train"): 3, ("b", "unlearn", "val"): 5}


GENERAL = ("general", "general")


@pytest.fixture
def context(audit_context):
    def make(general=(2, 1), **settings):
        texts = {(*GENERAL, part): n for part, n in zip(("train", "val"), general, strict=True)}
        return audit_context(COUNTS | texts, **settings)

    return make


def keys(context):
    return [row.key for row in context.rows]


def test_at_most_so_many_of_each_part_of_each_side(context):
    found = context(max_rows=4).rows
    counts = {}
    for row in found:
        place = (row.domain, row.side, row.part)
        counts[place] = counts.get(place, 0) + 1
    assert counts == {
        ("a", "unlearn", "train"): 4,
        ("a", "retain", "train"): 3,
        ("b", "unlearn", "val"): 4,
        ("general", "general", "val"): 1,
    }
    assert len(context(max_rows=None).rows) == 9 + 3 + 5 + 1


def test_the_draw_depends_on_the_seed_alone(context):
    assert keys(context(max_rows=4)) == keys(context(max_rows=4))
    assert keys(context(max_rows=4)) != keys(context(seed=1, max_rows=4))
    numbers = [int(key.rsplit(".", 1)[1]) for key in keys(context(max_rows=4))[:4]]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(("general", "count"), [((0, 0), 0), ((3, 0), 3), ((3, 2), 2)])
def test_general_text_is_the_held_out_half_where_there_is_one(context, general, count):
    assert len([r for r in context(general=general).rows if r.side == "general"]) == count


def test_targets_are_the_measured_unlearn_train_rows(context):
    made = context(max_rows=4)
    assert {(r.side, r.part) for r in made.targets()} == {("unlearn", "train")}
    assert len(made.targets()) == 4
    assert len(made.all_rows("unlearn", "train")) == 9
    assert len(made.all_rows("general", "train")) == 2


def test_pieces_of_work_add_up():
    heard = []
    for number in range(3):
        step = piece(lambda done, total, note: heard.append((done, total)), number, 3)
        step(5, 10, "")
        step(10, 10, "")
    assert heard == [(5, 30), (10, 30), (15, 30), (20, 30), (25, 30), (30, 30)]


def test_an_attack_leaves_val_rows_out_but_for_general_text(context):
    made = context(max_rows=4)
    assert {row.place for row in made.rows} - {row.place for row in made.attacked} == {
        ("b", "unlearn", "val")
    }


def test_few_rows_of_each_domain_are_answered_in_words(context):
    made = context(written_rows=2)
    places = [row.place for row in made.written("unlearn", "general")]
    assert places == [("a", "unlearn", "train")] * 2 + [("general", "general", "val")]
    assert len(context(written_rows=None).written("unlearn")) == 9
