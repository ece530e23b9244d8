"""Whether the figures of ``audit.json`` follow from what was measured on each row."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.audit.audit import FILE
from grail.audit.findings import AttackValues, findings
from grail.evaluation.values import SampleValue
from grail.run import manifest

_PLACE = ("model", "attack", "amount")


def unfounded(folder: Path) -> list[str] | None:
    """Return a sentence for each figure of a run's audit that does not follow from ``audit/``.

    None without an audit, or where what it has measured was purged: there is nothing to check.
    Digests are not looked at.

    Raises:
        OSError: if a file is missing.
        ValueError, LookupError, TypeError: if one cannot be read as what it is.
    """
    gone = any(name.startswith("audit/") for name in manifest.purged(folder))
    if gone or not (folder / FILE).exists():
        return None
    found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    made = json.loads(json.dumps(findings(_measured(folder, found), found["oracle"])))
    one, other = (
        {tuple(e[key] for key in _PLACE): e["rows"] for e in entries}
        for entries in (found["measured"], made)
    )
    return [
        f"{FILE}: {' '.join(key)} does not follow from audit/."
        for key in dict.fromkeys((*one, *other))
        if one.get(key) != other.get(key)
    ]


def _measured(folder: Path, found: Mapping[str, Any]) -> AttackValues:
    """Return the values of all models and attacks that an audit names, in its own order."""
    values: AttackValues = {}
    for model, attack in dict.fromkeys((e["model"], e["attack"]) for e in found["measured"]):
        path = folder / "audit" / f"{model}.{attack}.json"
        if path.exists():  # a worst case over attackers has no file of its own
            for value in json.loads(path.read_text(encoding="utf-8"))["values"]:
                values.setdefault((model, attack, value["model"]), []).append(SampleValue(**value))
    return values
