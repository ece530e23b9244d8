"""What an attestation says: the facts of a finished run without any row's text, as one object."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.artifacts import STAMP
from grail.config.file import COMPARISON
from grail.data.samples import Sample, texts_of
from grail.errors import InputError
from grail.handover.copies import copies_of, size_of, weights_left
from grail.handover.evidence import Opened, data_files, raw
from grail.reporting.attestation import not_covered, what_next
from grail.reporting.audit.lights import lights_table
from grail.reporting.audit.tables import read_audit
from grail.reporting.tables import Table
from grail.reporting.verdict import verdict
from grail.results import GUESS, Results, read_results
from grail.run import manifest
from grail.run.provenance import versions

ATTESTATION_FORMAT = 1
FIGURES = ("scope", "how", "harm")
"""Keys that follow from the files of the run, by any grail."""
DERIVED = (*FIGURES, "outcome", "headline", "checks", "attacks", "not_covered", "next")
"""Keys that the same grail writes in the same words."""


def content(
    run: Opened, request: str, date: str, key: bytes | None, oracle: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return all that an attestation says of a finished run.

    ``date`` is in UTC, ``key`` what the rows are hashed with (None leaves the hashes out), and
    ``oracle`` what ``oracle_facts`` returns. InputError if a file is not as it was written.
    """
    results = read_results(run.folder / "results.json")
    try:
        audit = read_audit(run.folder)
    except ValueError as error:
        raise InputError(f"{error}.") from error
    found = verdict(results, audit)
    recorded = {name: entry["sha256"] for name, entry in manifest.entries(run.folder).items()}
    before, after = (
        {name: sha for name, sha in recorded.items() if name.startswith(f"{model}/")}
        for model in manifest.MODELS
    )
    others = recorded.keys() - before.keys() - after.keys() - set(manifest.REPORT)
    value = {
        "format": ATTESTATION_FORMAT,
        "request": request,
        "date": date,
        "made_with": versions(),
        "scope": scope(run, key),
        "how": _how(run, audit),
        "outcome": found.outcome,
        "headline": found.headline,
        "checks": _as_json(found.table),
        "attacks": None if audit is None else _as_json(lights_table(audit)),
        "oracle": oracle,
        "harm": _harm(results),
        "not_covered": not_covered(audit),
        "copies": copies(run),
        "next": what_next(found.outcome, found.advice, audit is not None),
        "models": {"before": before, "after": after},
        "evidence": {name: recorded[name] for name in sorted(others)},
    }
    return json.loads(json.dumps(value))


def row_hash(key: bytes, sample: Sample) -> str:
    """Return the HMAC-SHA256 of a row: of ``texts_of`` it as JSON.

    Without the key nobody can try out whether a text is among the rows.
    """
    text = json.dumps(texts_of(sample), ensure_ascii=False)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def scope(run: Opened, key: bytes | None) -> dict[str, Any]:
    """Return {domain: {side: {part: {"rows", "hashes"}}}}; only unlearn rows are hashed, sorted."""
    found: dict[str, Any] = {}
    for sample in run.context.inputs.samples:
        parts = found.setdefault(sample.domain, {}).setdefault(sample.side, {})
        part = parts.setdefault(sample.part, {"rows": 0})
        part["rows"] += 1
        if key is not None and sample.side == "unlearn":
            part.setdefault("hashes", []).append(row_hash(key, sample))
    for side in (side for sides in found.values() for side in sides.values()):
        for part in (part for part in side.values() if "hashes" in part):
            part["hashes"].sort()
    return found


def oracle_facts(
    run: Opened, audit: Mapping[str, Any] | None, oracle: Path | None
) -> dict[str, Any] | None:
    """Return which model that never knew the rows the attacks were compared with; None: with none.

    InputError if the audit was not made with the given one.
    """
    weights = None if audit is None else audit["weights"].get("oracle")
    if oracle is not None:
        stamp = oracle / "unlearned" / STAMP
        own = raw(stamp)["weights"] if stamp.is_file() else None
        if weights is None or own != weights:
            raise InputError(
                f"--oracle: the audit of {run.folder} was not made with {oracle}. Make it: "
                f"grail audit {run.folder} --oracle {oracle}"
            )
    if audit is None or audit["oracle"] is None:
        return None
    files = {} if oracle is None else manifest.entries(oracle)
    guess = audit["oracle"] == GUESS
    return {
        "compared": audit["oracle"],
        "weights": weights or ("" if guess else audit["weights"]["unlearned"]),
        "files": {n: e["sha256"] for n, e in files.items() if n.startswith("unlearned/")},
    }


def copies(run: Opened) -> list[dict[str, Any]]:
    """Return what still knows: {"what", "where", "bytes" or None, "deleted": date or None}."""
    config, folder = run.config, run.folder
    texts = ("samples.jsonl", "evaluation") if config.evaluation.show_text else ()
    kept = {"vanilla": "the model before", "scores": "scores, derived from the rows"}
    stages = (*manifest.MODELS, "scores")
    kept |= {f"{name}.checkpoint": "an unfinished stage" for name in stages}
    kept |= {"rewrites.json": "retain rows rewritten by the model before"}
    kept |= dict.fromkeys(texts, "answers in words")
    if not texts:
        kept["evaluation/neighbours.json"] = "questions and answers that the model before wrote"
    found = []
    for name, what in kept.items():
        gone = {n: day for n, day in run.purged.items() if n == name or n.startswith(f"{name}/")}
        if gone and not any((folder / own).exists() for own in gone):
            found.append({"what": what, "where": name, "bytes": 0, "deleted": max(gone.values())})
        elif (folder / name).exists():
            found.append({"what": what, "where": name, "bytes": size_of(folder / name)})
    for copy in filter(weights_left, copies_of(folder)):
        found.append({"what": f"a copy: {copy['kind']}", "where": copy["folder"], "bytes": None})
    others = {"data files": ", ".join(Path(source).name for source in data_files(config))}
    others |= {"the model as it was given": Path(config.model.name).name}
    if (folder / COMPARISON).exists() or folder.resolve().parent.name == ".cells":
        others |= {"the comparison's cells": "models and scores that its runs share"}
    others |= {"backups, and copies given to others": "to be filled in by hand"}
    found += [{"what": what, "where": where, "bytes": None} for what, where in others.items()]
    return [{"deleted": None, **entry} for entry in found]


def _how(run: Opened, audit: Mapping[str, Any] | None) -> dict[str, Any]:
    config = run.config
    return {
        "model": Path(config.model.name).name,
        "identity": run.made_with.get("model"),
        "objective": config.unlearning.objective,
        "localizer": config.localization.method,
        "reset": config.unlearning.reset is not None,
        "adapter": config.model.lora is not None,
        "seed": config.seed,
        "retraining": "" if audit is None else audit["retraining"],
        "run_with": {k: v for k, v in run.made_with.items() if k not in ("data", "model")},
    }


def _harm(results: Results) -> list[dict[str, Any]]:
    """Return what had to be kept, before and after: RS of every domain, NLL of general text."""
    rows = [r for r in results.rows if r.model == "unlearned"]
    rows = [r for r in rows if r.metric == "RS" or (r.side, r.metric) == ("general", "NLL")]
    return [
        {
            **{key: getattr(r, key) for key in ("domain", "side", "part", "metric", "n")},
            "before": results.value("vanilla", r.domain, r.side, r.part, r.metric),
            "after": r.value,
        }
        for r in rows
    ]


def _as_json(table: Table) -> dict[str, Any]:
    return {"columns": table.columns, "rows": table.rows, "note": table.note}
