"""The verdict says what the rows say, and is loud where something is wrong."""

from __future__ import annotations

import math

import pytest

from grail.reporting.run.verdict import run_verdict
from grail.reporting.tables import WARNING
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


def general(before: float, after: float) -> list[Result]:
    models = {"vanilla": before, "unlearned": after}
    return [Result(m, "general", "general", "train", "NLL", v, 40) for m, v in models.items()]


def said(rows: list[Result], freezing: dict | None = None) -> list[str]:
    return run_verdict(Results(tuple(rows), HELD if freezing is None else freezing, {}))


def test_a_clean_run_has_four_sentences_and_no_warning():
    assert said(rows_of() + general(2.9, 2.95)) == [
        "To be removed: privacy: forgotten (US 93.1 train, 88.0 val).",
        "To be kept: privacy: kept (RS 97.0 train, 95.0 val).",
        "General text is unharmed: its NLL hardly changed (2.90 → 2.95 nats/token).",
        "Freezing held: 0 of 100 frozen entries changed (digests equal).",
    ]


@pytest.mark.parametrize(
    ("us", "words"),
    [
        ((85.0, 85.0), "privacy: forgotten (US 85.0 train, 85.0 val)"),
        ((84.0, 84.0), "privacy: partly forgotten (US 84.0 train, 84.0 val)"),
        ((50.0,), "privacy: partly forgotten (US 50.0 train)"),
        ((49.0,), "privacy: still known (US 49.0 train)"),
        ((90.0, 20.0), "privacy: forgotten on train, still known on val (US 90.0 train, 20.0 val)"),
        ((), "privacy: not measured"),
    ],
)
def test_what_was_removed(us, words):
    assert said(rows_of(us=us))[0] == f"To be removed: {words}."


@pytest.mark.parametrize(
    ("rs", "words"),
    [
        ((85.0,), "privacy: kept (RS 85.0 train)"),
        ((84.0,), "privacy: damaged a little (RS 84.0 train)"),
        ((69.0,), "privacy: lost (RS 69.0 train)"),
        ((), "privacy: not measured"),
    ],
)
def test_what_was_kept(rs, words):
    assert said(rows_of(rs=rs))[1] == f"To be kept: {words}."


def test_three_domains_are_graded_each_in_one_sentence():
    rows = rows_of("a") + rows_of("b", us=(60.0, 60.0)) + rows_of("c", us=(1.0, 1.0))
    sentences = said(rows)
    assert len(sentences) == 4
    for words in ("a: forgotten", "b: partly forgotten", "c: still known"):
        assert words in sentences[0]


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (3.05, "hardly changed"),
        (3.4, "harmed a little: its NLL rose by 0.40 (3.00 → 3.40"),
        (3.6, "badly harmed: its NLL rose by 0.60"),
        (2.5, "unharmed: its NLL fell by 0.50"),
    ],
)
def test_general_text(after, words):
    sentence = said(rows_of() + general(3.0, after))[2]
    assert words in sentence
    assert sentence.startswith(WARNING) == ("badly" in words)
    assert sentence.removeprefix(WARNING).startswith("General text is ")


def test_general_text_not_measured_is_said():
    assert said(rows_of())[2] == "General text was not measured."


@pytest.mark.parametrize("ppl", [math.exp(50), math.inf])
def test_destroyed_text_is_named(ppl):
    destroyed = Result("unlearned", "privacy", "unlearn", "train", "PPL", ppl, 24)
    assert "unlearn rows of privacy the PPL is above 1e9" in said([*rows_of(), destroyed])[2]
    merely_high = Result("unlearned", "privacy", "unlearn", "train", "PPL", 1e6, 24)
    assert "PPL" not in said([*rows_of(), merely_high])[2]


@pytest.mark.parametrize(
    "change",
    [{"changed": 3}, {"sha256_after": "cd" * 32}, {"sha256_before": None, "sha256_after": None}],
)
def test_failed_freezing_is_loud(change):
    sentence = said(rows_of(), {**HELD, **change})[3]
    assert sentence.startswith(f"{WARNING}FREEZING FAILED")
    assert "of 100 frozen entries" in sentence


def test_nothing_frozen_and_no_proof():
    free = said(rows_of(), {**HELD, "frozen": 0})[3]
    assert free == "Nothing was frozen: all 1,000 trainable entries were free to move."
    assert said(rows_of(), {})[3] == f"{WARNING}no proof of freezing was recorded."


def test_val_gap_is_said_above_ten_points_only():
    assert not any("recover more" in s for s in said(rows_of(us=(95.0, 85.0))))
    (sentence,) = [s for s in said(rows_of(us=(95.1, 85.0))) if "recover more" in s]
    assert "privacy (US 95.1 train, 85.0 val)" in sentence
    assert not any("recover more" in s for s in said(rows_of(us=(80.0, 95.0))))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vanilla": (10.1, 98.0)}, "did not know unlearn rows of privacy (US 10.1 train"),
        ({"vanilla": (2.0, 89.9)}, "did not know retain rows of privacy (RS 89.9 train"),
        ({"n": 9}, "some sides have only 9 rows"),
    ],
)
def test_weak_evidence(change, words):
    last = said(rows_of(**change))[-1]
    assert last.startswith(f"{WARNING}the evidence is weak")
    assert words in last


def areas(domain: str, loss: float, other: float, error: float = 5.0) -> list[Result]:
    """AUCs by the NLL and by Min-K%, after unlearning; 99 before."""
    place, rows = (domain, "unlearn", "train"), []
    for metric, value in (("AUC-loss", loss), ("AUC-min-k", other)):
        rows.append(Result("vanilla", *place, metric, 99.0, 44))
        rows.append(Result("unlearned", *place, metric, value, 44))
        rows.append(Result("unlearned", *place, f"{metric}-error", error, 44))
    return rows


@pytest.mark.parametrize(
    ("loss", "other", "words"),
    [
        (55.0, 60.0, "cannot be told apart (AUC-min-k 99.0 → 60.0 ± 5.0)"),
        (62.5, 40.0, "cannot be told apart (AUC-loss 99.0 → 62.5 ± 5.0)"),
        (62.6, 55.0, "still known (AUC-loss 99.0 → 62.6 ± 5.0)"),
        (62.6, 0.0, "still known (AUC-loss 99.0 → 62.6 ± 5.0)"),
        (
            60.0,
            37.0,
            "less probable than unseen text, which also shows (AUC-min-k 99.0 → 37.0",
        ),
    ],
)
def test_membership_is_told_by_the_clearest_score(loss, other, words):
    (sentence,) = [s for s in said(rows_of() + areas("privacy", loss, other)) if "held-out" in s]
    assert f"Unlearn rows against held-out rows: privacy: {words}" in sentence
    assert sentence.startswith(WARNING) == ("still known" in words)


def test_membership_of_several_domains_is_one_sentence_and_of_none_is_none():
    rows = rows_of() + areas("a", 100.0, 50.0, error=0.0) + areas("b", 50.0, 50.0)
    (sentence,) = [s for s in said(rows) if "held-out" in s]
    assert sentence.startswith(f"{WARNING}Unlearn rows against held-out rows: a: still known (")
    assert "; b: cannot be told apart (" in sentence
    assert not [s for s in said(rows_of()) if "held-out" in s]


def test_missing_vanilla_is_weak_evidence():
    rows = [row for row in rows_of() if row.model == "unlearned"]
    assert "vanilla model was not measured on all unlearn rows of privacy" in said(rows)[-1]


def test_never_more_than_six_sentences_and_no_rows_cope():
    worst = rows_of(us=(90.0, 10.0), vanilla=(50.0, 50.0), n=1) + general(1.0, 9.0)
    assert len(said(worst, {**HELD, "changed": 1})) == 6
    assert said([])[0] == "To be removed: no domain was measured."
