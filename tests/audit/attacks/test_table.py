"""What the attacker of each relearning has, and what is asked afterwards."""

from dataclasses import replace

import pytest

from grail.audit.attacks.table import ATTEMPTS, asked_otherwise, few, other, unrelated, within


@pytest.fixture
def bench(made_bench):
    def make(train=20, val=3, general=2, share=0.1, max_rows=None):
        counts = {
            (domain, side, part): count
            for domain in ("a", "b")
            for side in ("unlearn", "retain")
            for part, count in (("train", train), ("val", val))
        }
        counts["general", "general", "train"] = general
        return made_bench(counts, relearn={"share": share}, max_rows=max_rows)

    return make


def places(rows):
    return {(row.domain, row.side, row.part) for row in rows}


@pytest.mark.parametrize(("train", "share", "each"), [(20, 0.1, 2), (3, 0.1, 1), (20, 0.5, 10)])
@pytest.mark.parametrize("max_rows", [None, 2])
def test_few_are_a_share_of_each_domain_and_are_not_asked(bench, train, share, each, max_rows):
    made = bench(train=train, share=share, max_rows=max_rows)
    taught, asked = few(made)
    assert len(taught) == 2 * each
    assert places(taught) == {("a", "unlearn", "train"), ("b", "unlearn", "train")}
    assert not {row.key for row in taught} & {row.key for row in asked}
    if max_rows is None:
        assert len(taught) + len(asked) == 2 * train


def test_other_are_the_val_rows_and_unrelated_is_general(bench):
    taught, asked = other(bench())
    assert places(taught) == {("a", "unlearn", "val"), ("b", "unlearn", "val")}
    assert places(asked) == {("a", "unlearn", "train"), ("b", "unlearn", "train")}
    taught, again = unrelated(bench())
    assert places(taught) == {("general", "general", "train")}
    assert again == asked


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("few", {"train": 1, "share": 1.0}), ("other", {"val": 0}), ("unrelated", {"general": 0})],
)
def test_an_attack_without_rows_says_why(bench, name, lacks):
    attempt = ATTEMPTS[f"relearn-{name}"]
    assert attempt.why_not(bench(**lacks))
    assert attempt.why_not(bench()) == ""


def test_pieces_of_work_add_up():
    heard = []
    for number in range(3):
        piece = within(lambda done, total, note: heard.append((done, total)), number, 3)
        piece(5, 10, "")
        piece(10, 10, "")
    assert heard == [(5, 30), (10, 30), (15, 30), (20, 30), (25, 30), (30, 30)]


def test_every_paraphrase_is_a_row_of_its_own(made_bench, tiny_tokenizer):
    bench = made_bench({("a", "unlearn", "train"): 2, ("a", "retain", "train"): 1})
    bench.context.tokenizer = tiny_tokenizer()
    paraphrases = [("one?", "two?"), (), ("three?",)]
    texts = {"prompt": "old?", "completion": "yes"}
    bench.rows = tuple(
        replace(row, sample=replace(row.sample, **texts, paraphrases=others))
        for row, others in zip(bench.rows, paraphrases, strict=True)
    )
    rows = asked_otherwise(bench)
    assert [row.key for row in rows] == [bench.rows[i].key for i in (0, 0, 2)]
    assert [row.sample.prompt for row in rows] == ["one?", "two?", "three?"]
    said = [bench.context.tokenizer.decode(row.ids[1:-1]) for row in rows]
    assert said == ["one?\n\nyes", "two?\n\nyes", "three?\n\nyes"]
    assert {(row.domain, row.side) for row in rows} == {("a", "unlearn"), ("a", "retain")}
