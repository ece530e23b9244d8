"""The rows of ``results.json`` and the successes computed from them; needs no torch."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from grail.errors import InputError
from grail.files import CHANGED, file_digest, read_json, write_json

GUESS = "guess"
"""The model that never knew, as far as that could be measured."""

OWN_WORDS = "own words"
"""The domain of what the model before unlearning says by itself; no user's has a space."""


@dataclass(frozen=True)
class Result:
    """One measured number, in nats for NLL, in percent (0-100) for all others but PPL.

    Attributes:
        model: "vanilla", "unlearned", "calibrated" (unlearned, interpolated to equal retention), or
            "guess" (one that never knew, as far as that could be measured; unlearn rows only).
        domain: Name of the domain; "general" for the out-of-distribution rows.
        side: "unlearn", "retain", "general" or "check" (rows that are only measured).
        part: "train" or "val".
        metric: "US" (unlearn rows), "RS" (retain and check rows), "NLL", "PPL", "ROUGE-L"; rows
            with a side: "ES" (extraction strength), "Prob", "Repetition", "Compression"; unlearn
            train rows against held-out rows: "AUC-loss", "AUC-zlib", "AUC-min-k", "AUC-min-k++",
            and the standard error of each, as "AUC-loss-error". Exact memorization is the token
            accuracy in US and RS.
        value: The mean over ``n`` samples (PPL: exp of the mean NLL; infinite values are capped).
        n: Number of samples (for an AUC, members and held-out rows together).
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
    """The content of ``results.json``: rows, the proof of freezing, {part: {model: {Avg, HS}}}.

    ``inputs`` is a digest of the models' weights, ``samples`` that of the file ``samples.jsonl``.
    """

    rows: tuple[Result, ...]
    freezing: dict[str, Any]
    summary: dict[str, dict[str, dict[str, float]]]
    inputs: str = ""
    samples: str = ""

    def __repr__(self) -> str:
        """Show a line for each model, domain, side and part."""
        heads, lines = self._table()
        widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
        shown = [heads, *lines]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in shown
        )

    def _repr_html_(self) -> str:
        """Show the same as a table in a notebook."""
        heads, lines = self._table()
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines]
        head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Return the names of the columns, and a line for each model, domain, side and part."""
        metrics = list(dict.fromkeys(row.metric for row in self.rows))
        groups: dict[tuple[str, ...], dict[str, float]] = {}
        for row in self.rows:
            group = groups.setdefault((row.model, row.domain, row.side, row.part), {})
            group[row.metric] = row.value
        lines = [
            [*names, *(f"{values[m]:.2f}" if m in values else "" for m in metrics)]
            for names, values in groups.items()
        ]
        return ["model", "domain", "side", "part", *metrics], lines

    def value(self, model: str, domain: str, side: str, part: str, metric: str) -> float | None:
        """Return the value of one row, or None if it was not measured."""
        name = (model, domain, side, part, metric)
        rows = (r for r in self.rows if (r.model, r.domain, r.side, r.part, r.metric) == name)
        return next((row.value for row in rows), None)


@dataclass(frozen=True)
class Unlearned:
    """How a model was unlearned.

    Attributes:
        steps: One entry per optimiser step: ``terms`` (each loss in nats), ``gradient_norm``.
        proof: Counts and digests of the frozen entries; ``changed`` is 0. Empty without a mask.
    """

    steps: tuple[dict[str, Any], ...]
    proof: dict[str, Any]

    def __repr__(self) -> str:
        """Show the first and the last value of each term, and the proof."""
        lines = [f"unlearned in {len(self.steps)} steps"]
        for name, first in (self.steps[0]["terms"] if self.steps else {}).items():
            lines.append(f"  {name}: {first:.2f} -> {self.steps[-1]['terms'].get(name, first):.2f}")
        if self.proof:
            frozen, entries = self.proof["frozen"], self.proof["entries"]
            lines.append(
                f"  {self.proof['changed']} of {frozen} frozen entries changed ({entries})"
            )
        return "\n".join(lines)


def harmonic_success(us: float, rs: float) -> float:
    """Harmonic mean of two successes in percent; 0 where both are 0 (paper, Eq. 7)."""
    return 2 * us * rs / (us + rs) if us + rs > 0 else 0.0


def summarise(rows: Sequence[Result], model: str, part: str) -> dict[str, float]:
    """Return {"Avg", "HS"} in percent for one model and part.

    Avg is the mean of the successes of all domains; HS is the mean of their harmonic successes. A
    domain counts if it has both US and RS (val is optional); without one the summary is empty.
    """
    values = {(r.domain, r.metric): r.value for r in rows if (r.model, r.part) == (model, part)}
    domains = sorted({d for d, metric in values if metric == "US" and (d, "RS") in values})
    pairs = [(values[domain, "US"], values[domain, "RS"]) for domain in domains]
    if not pairs:
        return {}
    return {
        "Avg": math.fsum(us + rs for us, rs in pairs) / (2 * len(pairs)),
        "HS": math.fsum(harmonic_success(us, rs) for us, rs in pairs) / len(pairs),
    }


def make_results(
    rows: Iterable[Result], freezing: dict[str, Any], inputs: str, samples: str = ""
) -> Results:
    """Return rows and the proof of freezing with the summary {part: {model: {Avg, HS}}}."""
    rows = tuple(rows)
    parts = sorted({row.part for row in rows if row.side != "general"})
    models = sorted({row.model for row in rows})
    summary = {part: {m: summarise(rows, m, part) for m in models} for part in parts}
    return Results(rows, freezing, summary, inputs, samples)


def write_results(path: Path, results: Results) -> None:
    """Write ``results.json``; each part's summary begins with the unlearned model's Avg and HS."""
    summary = {
        part: {**models.get("unlearned", {}), "models": models}
        for part, models in results.summary.items()
    }
    rows = [dict(vars(row)) for row in results.rows]
    facts = {"freezing": results.freezing, "summary": summary, "inputs": results.inputs}
    write_json(path, {"rows": rows, **facts, "samples": results.samples})


def read_pace(log: Path) -> list[float]:
    """Return the seconds of each step in a training's log; none if the log is missing.

    Raises:
        InputError: if the log is damaged.
    """
    try:
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        pace = [float(json.loads(line)["seconds"]) for line in lines if line.strip()]
        if all(map(math.isfinite, pace)):
            return pace
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError, RecursionError):
        pass
    raise InputError(f"{log} is damaged. Delete it: what it tells is then left out.")


def read_results(path: Path) -> Results:
    """Read ``results.json``.

    Raises:
        InputError: if the file is missing or is not a results file, or if it or ``samples.jsonl``
            is not as it was written.
    """
    samples = path.with_name("samples.jsonl")
    try:
        raw = read_json(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist. Run `grail evaluate` on that run first."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    except ValueError as error:
        raise InputError(f"{error}.") from error
    try:
        changed = samples.exists() and raw["samples"] not in ("", file_digest(samples))
        rows = tuple(Result(**row) for row in raw["rows"])
        summary = {part: dict(values["models"]) for part, values in raw["summary"].items()}
        content = {"rows": raw["rows"], "freezing": raw["freezing"], "summary": summary}
        TypeAdapter(Results).validate_python(content)  # types and nesting
        found = Results(rows, raw["freezing"], summary, raw["inputs"], raw["samples"])
    except (KeyError, OSError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not a results file of grail ({reason}).") from error
    if changed:
        either = f"{samples}, or {path.name} beside it,"
        raise InputError(f"{CHANGED.format(either)}.")
    return found
