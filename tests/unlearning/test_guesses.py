"""Guesses, against greedy answers after the same examples; what is dropped, and what is shown."""

from dataclasses import replace

import pytest
import torch

from grail.unlearning import guesses as module
from grail.unlearning.guesses import beginnings, examples_for, keep_beginnings, written_guesses
from grail.unlearning.rewrites import REWRITTEN


@pytest.fixture(scope="module")
def world(writer):
    return writer(("retain",), 60)


def test_examples_are_retain_rows_in_full_and_as_many_as_fit(world):
    _, _, rows = world
    retain = [row.ids for row in rows if row.side == "retain"]
    shown = examples_for(rows, 2, 0)
    assert set(shown) == {row.key for row in rows if row.side == "unlearn"}
    pairs = {(*one, *other) for one in retain for other in retain if one != other}
    assert set(shown.values()) <= pairs
    assert shown == examples_for(rows, 2, 0)
    assert any(shown != examples_for(rows, 2, seed) for seed in range(1, 5))
    assert examples_for(rows, 9, 0).keys() == shown.keys()  # no more than there are
    assert set(examples_for(rows, 2, 0, positions=1).values()) == {()}
    longest = max(len(row.ids) for row in rows)
    room = 2 * longest + module.GUESS_TOKENS
    assert all(0 < len(ids) <= longest for ids in examples_for(rows, 3, 0, room).values())


def test_guesses_are_greedy_after_the_examples(world):
    model, tokenizer, rows = world
    written = written_guesses(model, tokenizer, rows, (3, 2, 0))
    assert written.rows
    ends = {tokenizer.eos_token_id}
    prompts = {row.sample.prompt: row for row in rows if row.side == "unlearn"}
    shown = [examples_for(rows, 2, f"0/{draw}") for draw in range(3 * module.ATTEMPTS)]
    begins = sorted({row.answer[0] for row in rows if row.side == "retain"})
    led = {}
    for number, row in enumerate(written.rows):
        assert (*row.place, row.sample.row) == ("d", "retain", REWRITTEN, number)
        asked = prompts[row.sample.prompt]
        assert row.ids[: row.start] == asked.ids[: asked.start]
        assert row.ids != asked.ids
        assert row.ids[-1] in ends
        assert tokenizer.decode(row.answer[:-1]).strip() == row.sample.completion
        said = {}
        for before in (one[asked.key] for one in shown):
            ids = [*before, *row.ids[: row.start]]
            start = len(ids)
            while len(ids) - start < len(row.answer):
                with torch.no_grad():
                    logits = model(torch.tensor([ids])).logits[0, -1]
                among = begins if len(ids) == start else range(len(logits))
                ids.append(max(among, key=logits.tolist().__getitem__))
            said.setdefault(tuple(ids[start:]), before)
        assert row.answer in said
        led.setdefault(asked.key, said[row.answer])
    assert len({row.answer for row in written.rows}) == len(written.rows)  # of all questions
    assert written.examples == led  # what led to a row's first guess


def test_a_guess_begins_as_the_retain_answers_of_its_domain_do(world):
    rows = [row for row in world[2] if row.part == "train"]
    other = replace(rows[0], sample=replace(rows[0].sample, domain="other", side="retain"))
    retain = [row for row in rows if row.side == "retain"]
    assert retain
    begins = {"d": {row.answer[0] for row in retain}}
    assert len(begins["d"]) > 1
    assert beginnings([*rows, other]) == begins  # one answer does not show how answers may begin
    unlike = next(row for row in rows if row.answer[0] != other.answer[0])
    second = replace(unlike, sample=other.sample)
    both = {other.answer[0], second.answer[0]}
    assert beginnings([*rows, other, second]) == begins | {"other": both}
    unseen = replace(second, sample=replace(other.sample, part="val"))
    assert beginnings([*rows, other, unseen]) == begins


def test_a_teacher_has_its_probabilities_among_the_first_tokens_and_all_others_untouched(world):
    rows = world[2][:3]
    strange = replace(rows[1], sample=replace(rows[1].sample, domain="strange"))
    members = [rows[0], strange, rows[2]]
    sizes = [len(row.answer) for row in members]
    given = torch.randn(sum(sizes), 50)
    begins = {"d": frozenset({3, 7}), "other": frozenset({1})}
    found = given.clone()
    keep_beginnings(found, members, begins)
    firsts = [0, sizes[0] + sizes[1]]
    for at in range(len(given)):
        expected = given[at].softmax(-1)
        if at in firsts:
            kept = torch.zeros(50)
            kept[[3, 7]] = expected[[3, 7]]
            expected = kept / kept.sum()
        torch.testing.assert_close(found[at].softmax(-1), expected)
        assert found[at].log_softmax(-1).isfinite().all()  # 0 log 0 is 0 in a divergence


def test_draws_go_on_until_there_are_guesses_enough(world, monkeypatch):
    model, tokenizer, rows = world
    lost = next(row for row in rows if row.side == "unlearn")
    retain = [row for row in rows if row.side == "retain"]
    good = tokenizer(" one two three four five six seven").input_ids[: module.GUESS_TOKENS - 1]
    for tries in (1, 2):
        answers = iter([[[]], [good]])
        monkeypatch.setattr(module, "generate", lambda *_, answers=answers, **__: next(answers))
        monkeypatch.setattr(module, "ATTEMPTS", tries)
        monkeypatch.setattr(module, "_ends", bool)
        found = written_guesses(model, tokenizer, [lost, *retain], (1, 1, 0))
        assert len(found.rows) == tries - 1


def test_without_examples_a_row_is_answered_once():
    assert module.attempts(3, 0) == 1
    assert module.attempts(0, 0) == module.attempts(0, 4) == 0
    assert module.attempts(3, 4) == 3 * module.ATTEMPTS


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ([1, 2, 3], True),
        ([1], True),
        ([], False),
        ([1, 2, 3, 1, 2, 3], False),  # loops
        (list(range(module.GUESS_TOKENS)), False),  # does not end
    ],
)
def test_an_answer_ends_and_does_not_loop(answer, kept):
    assert module._ends(answer) == kept


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("She lives in a village by the sea", True),
        ("In 1999.", True),  # two words: half of the median
        ("1999.", False),
        ("What is her name?", False),
        ("\u0645\u0627 \u0627\u0633\u0645\u0647\u0627\u061f", False),
        ("", False),
        ("She lives here.\nShe is old.", True),  # as many lines as a retain answer has
        ("\nShe lives here.\nShe is old.", False),
    ],
)
def test_a_guess_is_an_answer_in_the_style_of_the_rows(world, answer, kept):
    retain = [
        replace(row, sample=replace(row.sample, side="retain", completion=completion))
        for row, completion in zip(
            world[2], ("one two", "one two three\nfour", "1 2 3 4 5"), strict=False
        )
    ]
    assert module._answers(answer, *module._styles(retain)["d"]) == kept


def test_what_a_row_says_is_no_guess(world, monkeypatch):
    model, tokenizer, rows = world
    lost = next(row for row in rows if row.side == "unlearn")
    retain = next(row for row in rows if row.side == "retain")
    for answer in (lost.answer[:-1], lost.answer[:3], retain.answer[:-1]):
        monkeypatch.setattr(module, "generate", lambda *_, answer=answer, **__: [answer])
        monkeypatch.setattr(module, "_ends", lambda _: True)
        found = written_guesses(model, tokenizer, [lost, retain], (1, 1, 0))
        assert not found.rows
        assert not found.examples
