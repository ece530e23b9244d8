"""The model card of an exported model: what was removed and how, with figures and without texts."""

import hashlib
import hmac
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from grail.config.file import read
from grail.config.merge import flatten
from grail.errors import InputError
from grail.files import digest, dump_yaml, read_json
from grail.handover.attest import KEY, row_key
from grail.handover.origin import Base
from grail.reporting.audit.tables import read_audit
from grail.reporting.run.tables import general_table, measured_tables, read_general
from grail.reporting.tables import Table, escaped, frozen_sentence, markdown
from grail.reporting.verdict import verdict
from grail.results import GUESS, Results, read_results

_MUST = {"unlearn": "lost", "retain": "kept", "check": "as it was (measured only)"}
"""Side -> what must become of its rows."""
_BESIDE = {
    None: "without a model that never saw the rows to compare with",
    GUESS: "beside the guess of a model that never saw the rows",
    "given": "beside a model that never saw the rows",
}
"""What an audit compared with -> its words."""
_ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def model_card(folder: Path, form: str, base: Base, remarks: list[str]) -> str:
    """Return the README.md of an exported model; InputError if the run's results are damaged.

    ``form`` is "merge", "adapter" or "delta", ``base`` the base model as others know it, and
    ``remarks`` are what the form has to say.
    """
    results, settings = read_results(folder / "results.json"), read(folder / "config.yaml")[1]
    try:
        localization, audit = read_json(folder / "localization.json"), read_audit(folder)
        general = general_table(read_general(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: a file of this run is missing or damaged: {error}") from error
    made_with = settings.get("made_with") or {}
    tables = [table for table in (measured_tables(results)["success"], general) if table.rows]
    flat = dict(flatten(settings))
    content: dict[str, Any] = {
        "header": dump_yaml(_header(form, base)),
        "base": base,
        "form": form,
        "dtype": flat["model.dtype"],
        "remarks": remarks,
        "scope": markdown(_scope(results)).partition("\n\n")[2],
        "digest": _keyed(folder, made_with.get("data", {})),
        "localizer": flat["localization.method"],
        "objective": flat["unlearning.objective"],
        "frozen": frozen_sentence(localization),
        "seed": flat["seed"],
        "verdict": list(map(escaped, verdict(results, audit).sentences[:-1])),  # no advice
        "figures": [markdown(table).replace("## ", "### ", 1) for table in tables],
        "audit": audit,
        "beside": _BESIDE.get(audit["oracle"], _BESIDE["given"]) if audit else "",
        "attacked": list(map(escaped, audit["sentences"])) if audit else [],
        "versions": [(name, value) for name, value in flatten(_versions(made_with)) if value],
    }
    source = resources.files("grail.handover").joinpath("card.md.jinja")
    return _ENVIRONMENT.from_string(source.read_text(encoding="utf-8")).render(content)


def _header(form: str, base: Base) -> dict[str, Any]:
    """Return what the Hub reads: the library, the base if it is on the Hub, and words to find."""
    library = "peft" if form == "adapter" else "transformers"
    named = {"base_model": base.name} if base.on_hub else {}
    return {"library_name": library, **named, "tags": ["machine-unlearning", "grail"]}


def _scope(results: Results) -> Table:
    """Count the rows of each side of each domain: no row is told."""
    counts = {
        (row.domain, row.side, row.part): row.n
        for row in results.rows
        if row.metric in ("US", "RS") and row.model == "unlearned"
    }
    rows = tuple(
        (domain, _MUST.get(side, side), part, str(count))
        for (domain, side, part), count in counts.items()
    )
    return Table("Scope", ("Domain", "Must be", "Rows", "Count"), rows)


def _keyed(folder: Path, digests: dict[str, str]) -> str:
    """Return the HMAC of the digests of the rows to be lost, with the key of the attestation.

    Without that key, which stays in the run directory, nobody can try out whether a text is among
    them.
    """
    lost = {name: value for name, value in digests.items() if ".unlearn." in name}
    return hmac.new(row_key(folder / KEY), digest(lost).encode(), hashlib.sha256).hexdigest()


def _versions(made_with: dict[str, Any]) -> dict[str, Any]:
    """Return the versions of grail, Python and what it computes with."""
    return {key: made_with.get(key, {}) for key in ("grail", "python", "packages")}
