"""The page of an attestation: plain, self-contained, escaped."""

import re

import pytest

from grail.reporting.attestation import GLOSSARY, attestation_page, not_covered, what_next

CONTENT = {
    "request": "R <script>",
    "date": "2026-01-02 03:04:05",
    "made_with": {"python": "3.12", "grail": "1.0"},
    "scope": {
        "d&d": {
            "unlearn": {"train": {"rows": 3, "hashes": ["ab" * 32]}, "val": {"rows": 2}},
            "retain": {"train": {"rows": 4}},
        }
    },
    "how": {
        "model": "tiny",
        "objective": "npo",
        "localizer": "grail",
        "reset": True,
        "adapter": True,
        "seed": 7,
        "retraining": "",
    },
    "outcome": "undecided",
    "headline": "not attacked yet.",
    "checks": {"columns": ["Found", "What", "Figures"], "rows": [["✓ kept", "d", "1"]], "note": ""},
    "attacks": None,
    "oracle": None,
    "harm": [
        {"domain": "d", "side": "retain", "part": "train", "metric": "RS", "n": 4, "before": 99.0,
         "after": 91.5},
        {"domain": "general", "side": "general", "part": "val", "metric": "NLL", "n": 2,
         "before": 2.5, "after": 2.75},
    ],
    "not_covered": ["Backups."],
    "copies": [
        {"what": "the model before", "where": "vanilla", "bytes": 2_500_000, "deleted": None},
        {"what": "scores", "where": "scores", "bytes": 0, "deleted": "2026-02-03"},
    ],
    "next": ["Do not tell anybody."],
    "models": {"before": {"vanilla/a": "11" * 32}, "after": {"unlearned/a": "22" * 32}},
    "evidence": {},
}  # fmt: skip


def test_the_page_says_what_the_content_says():
    page = attestation_page(CONTENT)
    assert attestation_page(CONTENT) == page
    for text in (
        *("Undecided", "Not attacked yet.", "grail audit RUNDIR --oracle RUNDIR2", "NOT COVERED"),
        *("lose 3 rows, keep 4 rows, in 1 domain", "99.0 → 91.5 %", "2.50 → 2.75 nats per token"),
        *(
            "2.5\u00a0MB",
            "weights that matter for both were kept (objective npo, localizer grail",
            "2026-02-03",
            "☑",
            "☐",
            "ab" * 32,
            "Do not tell anybody.",
            "Backups.",
        ),
        *(f"{'11' * 32}  vanilla/a", f"{'22' * 32}  unlearned/a", "Not signed", *GLOSSARY),
        *("R &lt;script&gt;", "d&amp;d", "never knew would show is not known"),
    ):
        assert text in page, text
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=|https?://|@import|url\(", page)


def test_a_signed_page_names_the_key_and_an_oracle_is_told():
    signed = {"algorithm": "ed25519", "public_key": "cd" * 32, "value": "ef" * 64}
    for compared, told in (("given", "compared (abcabc"), ("itself", "never taught the rows")):
        oracle = {"compared": compared, "weights": "abc" * 20, "files": {}}
        page = attestation_page(CONTENT | {"signature": signed, "oracle": oracle})
        assert f"Signed (ed25519) by the key {'cd' * 32}." in page
        assert told in page


def test_attacks_are_a_table_of_lights():
    attacks = {"columns": ["Found", "Attack"], "rows": [["✗ comes back", "pruned"]], "note": "So."}
    page = attestation_page(CONTENT | {"attacks": attacks})
    assert "comes back" in page
    assert "So." in page
    assert "No attack was made" not in page


def test_what_was_not_looked_at_is_listed():
    assert not_covered(None)[0] == "Attacks: none was made."
    skipped = [{"attack": "paraphrase", "reason": "no row carries paraphrases"}]
    asked = ["quantise", "prune", "adapter", "relearn", "paraphrase", "sample"]
    audit = {"oracle": None, "skipped": skipped, "settings": {"attacks": asked}}
    texts = not_covered(audit)
    assert texts[0].startswith("What a model that never knew the rows would show")
    assert texts[1:3] == [
        "half of the answer given: not asked for.",
        "paraphrase: not tried (no row carries paraphrases).",
    ]
    assert len(not_covered(audit | {"oracle": "given", "skipped": []})) == len(texts) - 2


@pytest.mark.parametrize("outcome", ["pass", "fail", "undecided"])
def test_what_to_do_next_fits_the_outcome(outcome):
    texts = what_next(outcome, "try more rows.", attacked=False)
    assert texts[1] == "Try more rows."
    assert texts[0].startswith("Use") == (outcome == "pass")
    assert len(what_next(outcome, "x.", attacked=True)) == len(texts) - 1
