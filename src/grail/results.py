"""Result rows and the successes computed from them, as JSON; needs no torch and no model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.files import write_json


@dataclass(frozen=True)
class Result:
    """One measured number. ``value``: nats for NLL, PPL as it is, all else percent (0-100).

    Attributes:
        model: "vanilla", "unlearned", or "calibrated" (unlearned, moved back to equal retention).
        domain: Name of the domain; "general" for the out-of-distribution rows.
        side: "unlearn", "retain" or "general".
        part: "train" or "val".
        metric: "US" (unlearn rows), "RS" (retain rows), "NLL", "PPL", "ROUGE-L"; rows with a side:
            "ES" (extraction strength), "Prob", "Repetition"; unlearn train rows against held-out
            ones: "AUC-loss", "AUC-zlib", "AUC-min-k", "AUC-min-k++", and the standard error of
            each, as "AUC-loss-error". Exact memorization is no metric of its own: it is the token
            accuracy of US and RS.
        value: The mean over ``n`` samples (PPL: exp of the mean NLL; infinite values are capped).
        n: Number of samples (of an AUC: members and held-out rows together).
    """

    model: str
    domain: str
    side: str
    part: str
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class Results:
    """Everything that ``results.json`` holds."""

    rows: tuple[Result, ...]
    freezing: dict[str, Any]
    summary: dict[str, dict[str, dict[str, float]]]
    inputs: str = ""

    def value(self, model: str, domain: str, side: str, part: str, metric: str) -> float | None:
        """Return the value of one row, or None where it was not measured."""
        wanted = (model, domain, side, part, metric)
        for row in self.rows:
            if (row.model, row.domain, row.side, row.part, row.metric) == wanted:
                return row.value
        return None


def harmonic_success(us: float, rs: float) -> float:
    """Harmonic mean of two successes in percent; 0 where both are 0 (paper, Eq. 7)."""
    return 2 * us * rs / (us + rs) if us + rs > 0 else 0.0


def summarise(rows: Sequence[Result], model: str, part: str) -> dict[str, float]:
    """Return {"Avg", "HS"} in percent for one model and part.

    Avg is the mean of the successes of all domains; HS is the harmonic success per domain, then
    averaged. A domain with rows on one side only (val is optional) does not count; without any
    complete domain the summary is empty.
    """
    found = {(r.domain, r.metric): r.value for r in rows if (r.model, r.part) == (model, part)}
    domains = sorted({d for d, metric in found if metric == "US" and (d, "RS") in found})
    pairs = [(found[domain, "US"], found[domain, "RS"]) for domain in domains]
    if not pairs:
        return {}
    return {
        "Avg": math.fsum(us + rs for us, rs in pairs) / (2 * len(pairs)),
        "HS": math.fsum(harmonic_success(us, rs) for us, rs in pairs) / len(pairs),
    }


def make_results(rows: Iterable[Result], freezing: dict[str, Any], inputs: str) -> Results:
    """Put rows and the proof of freezing together with the summary {part: {Avg, HS, vanilla..}}."""
    rows = tuple(rows)
    parts = sorted({row.part for row in rows if row.side != "general"})
    models = sorted({row.model for row in rows})
    summary = {part: {m: summarise(rows, m, part) for m in models} for part in parts}
    return Results(rows, freezing, summary, inputs)


def as_json(results: Results) -> dict[str, Any]:
    """Return the content of ``results.json``; the unlearned model's Avg and HS stand at the top."""
    summary = {
        part: {**models.get("unlearned", {}), "models": models}
        for part, models in results.summary.items()
    }
    return {
        "rows": [dict(vars(row)) for row in results.rows],
        "freezing": results.freezing,
        "summary": summary,
        "inputs": results.inputs,
    }


def write_results(path: Path, results: Results) -> None:
    """Write ``results.json`` (whole or not at all)."""
    write_json(path, as_json(results))


def read_results(path: Path) -> Results:
    """Read ``results.json``.

    Raises:
        InputError: if the file is missing or is not a results file.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Result(**row) for row in raw["rows"])
        summary = {part: dict(values["models"]) for part, values in raw["summary"].items()}
        return Results(rows, raw["freezing"], summary, raw["inputs"])
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist. Run `grail evaluate` on that run first."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a results file of grail ({error}).") from error
