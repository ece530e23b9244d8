"""An attestation as a page for readers who are no programmers; reads its content alone."""

from collections.abc import Mapping
from typing import Any

from grail.reporting.audit.lights import PLAIN_NAMES, not_asked
from grail.reporting.html import render_page
from grail.reporting.tables import MISSING, Table, arrow, nats, percent
from grail.reporting.verdict import OUTCOMES
from grail.results import GUESS

_NEVER_COVERED = (
    "Backups, logs, caches and other models: only the two models of this run were looked at. "
    "Whoever has the model before needs no attack.",
    "Facts about the same persons or works that are in none of the listed rows, and the listed "
    "facts in other languages.",
    "People who search for prompts with a program (adversarial prompts), and attacks that are not "
    "in the table above.",
    "Rounding methods that calibrate on data: rounding is simulated here.",
    "What is done to the model later: further training, merging or rounding calls for a new audit.",
    "Whether the law is satisfied: these are measurements, not a certificate.",
)

GLOSSARY = {
    "Model": "the program that answers questions; what it knows lies in its weights, a list of "
    "numbers.",
    "Before, after": "the model before and after removal.",
    "Row": "one question with its answer. Unlearn rows had to be lost, retain rows had to be kept.",
    "Train, val": "train rows were used for removal; val rows ask for the same in other words, and "
    "were only measured.",
    "A model that never knew": "a model made in the same way without the unlearn rows. It guesses "
    "some answers right. Also called an oracle. Where there is none, its guess is measured on the "
    "model from before the facts, or on rows that the model before never saw.",
    "Attack": "something that is done to the model to bring back what was removed.",
    "Points": "the difference of two percentages.",
    "NLL": "how surprised the model is by ordinary text, in nats per token; higher is worse.",
    "Token": "a piece of a word.",
    "SHA-256": "a fingerprint of a file: another file has another one. The command sha256sum "
    "prints it.",
    "Keyed hash": "a fingerprint of a row that only the holder of a secret key can make "
    "(HMAC-SHA256). It shows later that a row was on the list, without telling its text.",
}


def not_covered(audit: Mapping[str, Any] | None) -> list[str]:
    """Return what nobody looked at, a sentence each; ``audit`` is the content of audit.json."""
    if audit is None:
        return ["Attacks: none was made.", *_NEVER_COVERED]
    texts = []
    if audit["oracle"] is None:
        texts.append("What a model that never knew the rows would show: none was compared.")
    elif audit["oracle"] == GUESS:
        texts.append(
            "What a model that never knew the rows would show under attack: only its guess without "
            "any attack was measured, so that nobody can tell what relearning teaches anew."
        )
    texts += [f"{PLAIN_NAMES.get(kind, kind)}: not asked for." for kind in not_asked(audit)]
    texts += [f"{one['attack']}: not tried ({one['reason']})." for one in audit["skipped"]]
    return [*texts, *_NEVER_COVERED]


def what_next(outcome: str, advice: str, attacked: bool) -> list[str]:
    """Return what to do next, a sentence each."""
    first = {
        "pass": "Use the model after (unlearned/) in place of the model before.",
        "fail": "Do not tell anybody that the data are removed: this run does not show it.",
        "undecided": "Do not tell anybody that the data are removed yet: it is not decided.",
    }[outcome]
    texts = [first, f"{advice[:1].upper()}{advice[1:]}"]
    if not attacked:
        texts.append("Attest again after the audit: this page does not know of it.")
    when = "" if outcome == "pass" else "Once it is decided: "
    delete = f"{when}{'d' if when else 'D'}elete the copies listed above; write down when, and who."
    return [
        *texts,
        delete,
        "Put a filter on the model's answers where a single answer would do harm.",
        "Keep this page, attestation.json and the run directory; keep attestation.key apart from "
        "them.",
        "Audit and attest again after the model was trained further, merged or rounded.",
    ]


def attestation_page(content: Mapping[str, Any]) -> str:
    """Return the page of an attestation, the same bytes for the same content."""
    counts = _counts(content["scope"])
    attacks = content["attacks"]
    tables = {
        "asked": Table("What was asked, and how it was done", ("", ""), _asked(content, counts)),
        "scope": Table("Which rows", ("Domain", "Rows", "Part", "Number"), tuple(counts)),
        "harm": Table("What had to be kept", _HARM, tuple(map(_harmed, content["harm"]))),
        "copies": Table("Copies to delete", _COPIES, tuple(map(_copy, content["copies"]))),
        "glossary": Table("Words on this page", ("", ""), tuple(GLOSSARY.items())),
    }
    shown = {
        **content,
        "name": content["request"],
        "outcome": OUTCOMES[content["outcome"]],
        "tables": tables,
        "checks": Table("What was checked", *_grid(content["checks"])),
        "attacks": None if attacks is None else Table("Attacks", *_grid(attacks), attacks["note"]),
        "hashes": _hashes(content["scope"]),
        "signature": content.get("signature"),
    }
    return render_page("attestation", shown)


_HARM = ("What", "Part", "Before → after", "Rows")
_COPIES = ("What", "Where", "Size", "Deleted on", "By", "Done")


def _grid(table: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    return tuple(table["columns"]), tuple(tuple(row) for row in table["rows"])


def _counts(scope: Mapping[str, Any]) -> list[tuple[str, ...]]:
    words = {"unlearn": "to be lost", "retain": "to be kept"}
    found: list[tuple[str, ...]] = []
    for domain, sides in scope.items():
        for side, parts in sides.items():
            word = str(words.get(side, side))
            found += [(domain, word, part, str(of["rows"])) for part, of in parts.items()]
    return found


def _hashes(scope: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    return [
        (f"{domain}, {part} rows to be lost", of["hashes"])
        for domain, sides in scope.items()
        for part, of in sides.get("unlearn", {}).items()
        if "hashes" in of
    ]


def _asked(
    content: Mapping[str, Any], counts: list[tuple[str, ...]]
) -> tuple[tuple[str, str], ...]:
    how, numbers = content["how"], {"to be lost": 0, "to be kept": 0}
    for _, side, part, number in counts:
        numbers[side] = numbers.get(side, 0) + int(number) * (part == "train")
    again = "possible here, see the audit" if how["retraining"] else "not offered by this run"
    oracle = content["oracle"]
    never = "none: what a model that never knew would show is not known"
    if oracle and oracle["compared"] == GUESS:
        never = "its guess was measured, without attacks; none was trained and attacked"
    elif oracle:
        never = f"compared ({oracle['weights'][:16]}…)" if oracle["compared"] == "given" else ""
        never = never or "this model is itself one: it was never taught the rows"
    return (
        ("Request", content["request"]),
        ("Date (UTC)", content["date"]),
        ("Model", how["model"]),
        (
            "Asked",
            f"lose {numbers['to be lost']} rows, keep {numbers['to be kept']} rows, in "
            f"{len(content['scope'])} domain{'s' if len(content['scope']) > 1 else ''}",
        ),
        ("Done", _done(how)),
        ("Training anew without the rows", again),
        ("A model that never knew", never),
        ("Seed", str(how["seed"])),
        (
            "Software",
            f"grail {content['made_with']['grail']}, Python {content['made_with']['python']}",
        ),
    )


def _done(how: Mapping[str, Any]) -> str:
    """Say in plain words how the rows were removed; the field's words in brackets."""
    if how["objective"] == "exact":
        return "a new model was trained without the rows (objective exact)"
    frozen = "" if how["localizer"] == "none" else ", while weights that matter for both were kept"
    trained = "an adapter" if how["adapter"] else "all weights"
    reset = "weights that matter for the rows were reset; then " if how["reset"] else ""
    return (
        f"{reset}the model was trained to lose the rows and keep the others{frozen} (objective "
        f"{how['objective']}, localizer {how['localizer']}, {trained})"
    )


def _harmed(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["metric"] == "RS":
        what, unit = f"{row['domain']}: right answers on retain rows", " %"
        shown = arrow(row["before"], row["after"], percent)
    else:
        what, unit = "general text: surprise (NLL)", " nats per token"
        shown = arrow(row["before"], row["after"], nats)
    return what, row["part"], f"{shown}{unit}", str(row["n"])


def _copy(row: Mapping[str, Any]) -> tuple[str, ...]:
    size = MISSING if row["bytes"] is None else f"{row['bytes'] / 1e6:,.1f}\u00a0MB"
    deleted = row["deleted"] or ""
    return row["what"], row["where"], size, deleted, "", "☑" if deleted else "☐"
