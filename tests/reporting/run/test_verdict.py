"""The checks say what the rows say, and are graded by the worst of their figures."""

from __future__ import annotations

import math

import pytest

from grail.reporting.run.verdict import run_checks
from grail.reporting.tables import BAD, GOOD, NOTE, OPEN
from grail.results import Result, Results

HELD = {
    "entries": 1000,
    "frozen": 100,
    "changed": 0,
    "sha256_before": "ab" * 32,
    "sha256_after": "ab" * 32,
}


def rows_of(
    domain: str = "privacy",
    us: tuple[float, ...] = (93.1, 88.0),
    rs: tuple[float, ...] = (97.0, 95.0),
    vanilla: tuple[float, float] = (2.0, 98.0),
    n: int = 24,
) -> list[Result]:
    rows = []
    for part, value in zip(("train", "val"), us, strict=False):
        rows.append(Result("vanilla", domain, "unlearn", part, "US", vanilla[0], n))
        rows.append(Result("unlearned", domain, "unlearn", part, "US", value, n))
    for part, value in zip(("train", "val"), rs, strict=False):
        rows.append(Result("vanilla", domain, "retain", part, "RS", vanilla[1], n))
        rows.append(Result("unlearned", domain, "retain", part, "RS", value, n))
    return rows


def both(domain, side, part, metric, before, after) -> list[Result]:
    models = {"vanilla": before, "unlearned": after}
    return [Result(m, domain, side, part, metric, v, 40) for m, v in models.items()]


def general(before: float, after: float) -> list[Result]:
    return both("general", "general", "train", "NLL", before, after)


def checked(rows: list[Result], freezing: dict | None = None):
    return run_checks(Results(tuple(rows), HELD if freezing is None else freezing, {}))


def about(rows: list[Result], subject: str, freezing: dict | None = None):
    """The one check of a subject, as light, word and figures."""
    (found,) = [c for c in checked(rows, freezing) if c.subject == subject]
    return found.light, found.word, found.figures


def test_a_clean_run_has_four_good_checks():
    found = checked(rows_of() + general(2.9, 2.95))
    assert {check.light for check in found} == {GOOD}
    assert [check.sentence for check in found] == [
        "privacy, to be removed: forgotten (right answers: train rows 98.0 → 6.9 %, "
        "val rows 98.0 → 12.0 %).",
        "privacy, to be kept: kept (right answers: train rows 98.0 → 97.0 %, "
        "val rows 98.0 → 95.0 %).",
        "general text: unharmed (NLL 2.90 → 2.95 nats/token).",
        "frozen entries: unchanged bit for bit (0 of 100 changed, digests equal).",
    ]


@pytest.mark.parametrize(
    ("us", "light", "word"),
    [
        ((85.0, 85.0), GOOD, "forgotten"),
        ((99.0, 84.0), OPEN, "partly forgotten"),
        ((50.0,), OPEN, "partly forgotten"),
        ((49.0,), BAD, "still known"),
        ((90.0, 20.0), BAD, "still known"),
        ((20.0, 90.0), BAD, "still known"),
        ((), OPEN, "not measured"),
    ],
)
def test_what_was_removed_is_graded_by_the_worst_part(us, light, word):
    assert about(rows_of(us=us), "privacy, to be removed")[:2] == (light, word)


@pytest.mark.parametrize(
    ("rs", "light", "word"),
    [
        ((85.0,), GOOD, "kept"),
        ((84.0,), NOTE, "damaged a little"),
        ((99.0, 69.0), BAD, "lost"),
        ((), OPEN, "not measured"),
    ],
)
def test_what_was_kept_is_graded_by_the_worst_part(rs, light, word):
    assert about(rows_of(rs=rs), "privacy, to be kept")[:2] == (light, word)


@pytest.mark.parametrize(
    ("vanilla", "us", "rs", "removed", "kept"),
    [
        ((60.0, 98.0), (70.0,), (97.0,), (NOTE, "hardly known before"), (GOOD, "kept")),
        ((60.0, 98.0), (55.0,), (97.0,), (BAD, "better known now"), (GOOD, "kept")),
        (
            (2.0, 40.0),
            (90.0,),
            (41.0,),
            (GOOD, "forgotten"),
            (GOOD, "kept as far as it was known"),
        ),
    ],
)
def test_what_was_not_known_is_neither_forgotten_nor_lost(vanilla, us, rs, removed, kept):
    rows = rows_of(us=us, rs=rs, vanilla=vanilla)
    assert about(rows, "privacy, to be removed")[:2] == removed
    assert about(rows, "privacy, to be kept")[:2] == kept


def test_domains_have_checks_of_their_own_and_none_is_said():
    rows = rows_of("a") + rows_of("b", us=(1.0, 1.0))
    assert about(rows, "a, to be removed")[0] == GOOD
    assert about(rows, "b, to be removed")[0] == BAD
    assert checked([])[0].word == "no domain was measured"


@pytest.mark.parametrize(("after", "light"), [(91.0, GOOD), (80.0, BAD)])
def test_rows_that_are_only_measured_must_hold(after, light):
    rows = [*rows_of(), *both("neighbours", "check", "train", "RS", 95.0, after)]
    assert about(rows, "neighbours, only measured")[0] == light
    assert not [c for c in checked(rows) if c.subject == "neighbours, to be kept"]


@pytest.mark.parametrize(
    ("after", "light", "word"),
    [
        (3.05, GOOD, "unharmed"),
        (3.4, NOTE, "harmed a little"),
        (3.6, BAD, "badly harmed"),
        (2.5, GOOD, "unharmed"),
    ],
)
def test_general_text(after, light, word):
    figures = f"NLL 3.00 → {after:.2f} nats/token"
    assert about(rows_of() + general(3.0, after), "general text") == (light, word, figures)


def test_general_text_not_measured_is_said():
    assert about(rows_of(), "general text")[:2] == (NOTE, "not measured")


@pytest.mark.parametrize("ppl", [math.exp(50), math.inf])
def test_destroyed_text_is_named(ppl):
    destroyed = Result("unlearned", "privacy", "unlearn", "train", "PPL", ppl, 24)
    words = [check.word for check in checked([*rows_of(), destroyed])]
    assert "destroyed rather than forgotten" in words
    merely_high = Result("unlearned", "privacy", "unlearn", "train", "PPL", 1e6, 24)
    assert "destroyed" not in str(checked([*rows_of(), merely_high]))


@pytest.mark.parametrize(
    ("repeated", "packed", "light"),
    [
        ((2.0, 21.0), (90.0, 80.0), GOOD),
        ((2.0, 23.0), (90.0, 80.0), BAD),  # over 20 points more
        ((50.0, 60.0), (90.0, 80.0), GOOD),
        ((2.0, 2.0), (90.0, 39.0), BAD),
        ((2.0, 2.0), (39.0, 30.0), GOOD),  # as before
    ],
)
def test_broken_text_is_told_by_repetition_or_compression(repeated, packed, light):
    place = ("privacy", "unlearn", "train")
    rows = both(*place, "Repetition", *repeated) + both(*place, "Compression", *packed)
    rows += both("privacy", "retain", "train", "Repetition", 1.0, 1.0)
    found, word, figures = about(rows_of() + rows, "answers")
    assert (found, word) == (light, "broken text" if light == BAD else "no broken text")
    assert f"privacy unlearn train {repeated[0]:.1f} → {repeated[1]:.1f} % repeated" in figures


@pytest.mark.parametrize(
    "change",
    [{"changed": 3}, {"sha256_after": "cd" * 32}, {"sha256_before": None, "sha256_after": None}],
)
def test_failed_freezing_is_loud(change):
    light, word, figures = about(rows_of(), "frozen entries", {**HELD, **change})
    assert (light, word) == (BAD, "FREEZING FAILED")
    assert "of 100 changed" in figures


def test_nothing_frozen_and_no_proof():
    free = about(rows_of(), "frozen entries", {**HELD, "frozen": 0})
    assert free == (NOTE, "nothing was frozen", "all 1,000 trainable entries were free to move")
    assert about(rows_of(), "frozen entries", {})[:2] == (BAD, "no proof was recorded")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vanilla": (10.1, 98.0)}, "did not know unlearn rows of privacy (US 10.1 train"),
        ({"vanilla": (2.0, 89.9)}, "did not know retain rows of privacy (RS 89.9 train"),
        ({"n": 9}, "some sides have only 9 rows"),
    ],
)
def test_weak_evidence(change, words):
    light, word, figures = about(rows_of(**change), "the evidence")
    assert (light, word) == (OPEN, "weak")
    assert words in figures


def test_missing_vanilla_is_weak_evidence():
    rows = [row for row in rows_of() if row.model == "unlearned"]
    figures = about(rows, "the evidence")[2]
    assert "vanilla model was not measured on all unlearn rows of privacy" in figures


def areas(domain: str, loss: float, other: float, error: float = 5.0) -> list[Result]:
    """AUCs by the NLL and by Min-K%, after unlearning; 99 before."""
    place, rows = (domain, "unlearn", "train"), []
    for metric, value in (("AUC-loss", loss), ("AUC-min-k", other)):
        rows += both(*place, metric, 99.0, value)
        rows.append(Result("unlearned", *place, f"{metric}-error", error, 44))
    return rows


KNOWN, ALIKE = (OPEN, "still recognised as known"), (GOOD, "cannot be told apart")


@pytest.mark.parametrize(
    ("loss", "other", "graded", "numbers"),
    [
        (55.0, 60.0, ALIKE, "AUC-min-k 99.0 → 60.0 ± 5.0"),
        (62.5, 40.0, ALIKE, "AUC-loss 99.0 → 62.5 ± 5.0"),
        (62.6, 55.0, KNOWN, "AUC-loss 99.0 → 62.6 ± 5.0"),
        (62.6, 0.0, KNOWN, "AUC-loss 99.0 → 62.6 ± 5.0"),
        (
            60.0,
            37.0,
            (NOTE, "less probable than unseen text, which also shows"),
            "AUC-min-k 99.0 → 37.0 ± 5.0",
        ),
    ],
)
def test_membership_is_told_by_the_clearest_score(loss, other, graded, numbers):
    rows = rows_of() + areas("privacy", loss, other)
    assert about(rows, "privacy, against rows never seen") == (*graded, numbers)


@pytest.mark.parametrize(
    ("side", "before", "after", "word"),
    [
        ("unlearn", 99.0, 50.0, "greedy answers still reveal much"),
        ("unlearn", 99.0, 49.0, ""),
        ("retain", 99.0, 69.0, "greedy answers have degraded"),
        ("retain", 99.0, 69.1, ""),
    ],
)
def test_greedy_answers(side, before, after, word):
    rows = rows_of() + both("privacy", side, "val", "ROUGE-L", before, after)
    told = [check for check in checked(rows) if "greedy" in check.word]
    assert [check.word for check in told] == [word] * bool(word)
    assert all(c.figures == f"ROUGE-L: val rows 99.0 → {after:.1f}" for c in told)


def test_an_answer_that_is_still_given_word_for_word_is_told_whatever_tokens_say():
    rows = rows_of() + both("privacy", "unlearn", "train", "Verbatim", 100.0, 20.0)
    (found,) = [check for check in checked(rows) if "word for word" in check.word]
    assert (found.light, found.subject) == (OPEN, "privacy, to be removed")
    assert "100.0 → 20.0 %" in found.figures
    rows = rows_of() + both("privacy", "unlearn", "train", "Verbatim", 100.0, 0.0)
    assert not [check for check in checked(rows) if "word for word" in check.word]
