"""Embedded dataset, written for this project: two fictitious domains and general rows.

Each domain is about six invented entities (persons or books). The rows to unlearn and the rows to
retain name the same entities and differ only in the question: private against public facts
(``privacy``), protected text against facts about the book (``copyright``). The validation rows ask
for facts of the training rows in other words. The training rows to unlearn also have
``paraphrases``, two other prompts for the same completion each, for the audit.
"""

import json
import random
from collections.abc import Sequence
from importlib import resources
from typing import Any

from grail.errors import InputError, did_you_mean

DOMAINS = ("privacy", "copyright")

_SEED = 20250
_FILES = {"privacy": "persons.json", "copyright": "works.json"}
_GENERAL = "general.jsonl"
_PARAPHRASES = "paraphrases.json"  # prompt -> other prompts


def _read(name: str) -> str:
    """Returns one text file of the package's data folder."""
    return (resources.files("grail.data") / "texts" / name).read_text(encoding="utf-8")


def _check(kind: str, name: str, allowed: Sequence[str]) -> None:
    """Raises InputError if a name is not one of the allowed ones."""
    if name not in allowed:
        hint, names = did_you_mean(name, allowed), ", ".join(allowed)
        raise InputError(f"embedded has no {kind} '{name}'.{hint} Allowed: {names}, or a file.")


def _shuffled(rows: list[dict[str, Any]], label: str) -> list[dict[str, Any]]:
    """Shuffles rows in place by the fixed seed and a label, and returns them."""
    random.Random(f"{_SEED}/{label}").shuffle(rows)
    return rows


def rows(domain: str, side: str, part: str) -> list[dict[str, Any]]:
    """Builds the rows of one side ("unlearn", "retain") and part of one of ``DOMAINS``.

    The part "train" has four rows per entity, "val" two. Returned is a new list of ``{"prompt":
    ..., "completion": ...}`` rows in a fixed shuffled order, some with ``"paraphrases"``. Unknown
    names are refused.
    """
    _check("domain", domain, DOMAINS)
    _check("side", side, ("unlearn", "retain"))
    _check("part", part, ("train", "val"))
    paraphrases = json.loads(_read(_PARAPHRASES))
    entities = json.loads(_read(_FILES[domain]))
    pairs = [pair for entity in entities for pair in entity[side][part]]
    rows = [
        {"prompt": prompt, "completion": completion}
        | ({"paraphrases": paraphrases[prompt]} if prompt in paraphrases else {})
        for prompt, completion in pairs
    ]
    return _shuffled(rows, f"{domain}/{side}/{part}")


def general_rows() -> list[dict[str, Any]]:
    """Returns the general-knowledge rows in a fixed shuffled order; no domain appears in them."""
    lines = _read(_GENERAL).splitlines()
    return _shuffled([json.loads(line) for line in lines if line.strip()], "general")
