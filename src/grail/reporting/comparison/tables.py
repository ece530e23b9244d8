"""comparison.json as tables for terminal, Markdown, LaTeX and CSV; knows no file and no run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from grail.reporting.comparison.latex import latex
from grail.reporting.run.verdict import weaknesses
from grail.reporting.tables import BEST, MISSING, Table, markdown, nats, percent
from grail.results import Result, Results

MODELS = {"unlearned": "", "calibrated": " at equal retention"}
PARTS = ("train", "val")
NLLS = ("unlearn NLL", "general NLL")
GIB = 1 << 30

NOTE = (
    "US, RS, Avg and HS in percent, higher is better; "
    "NLL in nats/token, of general text on its held-out half; minutes = those of the unlearning "
    "steps (median step x steps); peak = "
    "resident memory of the whole run. "
)
SEEDS_NOTE = "Cells: mean ± standard deviation over seeds. "
BEST_NOTE = (
    f"{BEST} or bold = leads in this column, and the 95 % interval of its difference to the second "
    "excludes 0 (only Avg and HS are marked). "
)
DIFFERENCE_NOTE = (
    "Percentage points, with the 95 % percentile interval of a paired bootstrap (10,000 draws of "
)
FEW_SEEDS_NOTE = (
    "With few seeds that differ more than rows do, such intervals are too narrow (three: about "
    "three quarters of them hold the truth); look at each seed."
)
ONE_SEED_NOTE = "One seed: such an interval is of the rows alone; it says nothing of other seeds."
MANY_SEEDS = 10
MORE_RETAINED = 0.5
"""Percent of RS above the wished one that a reader is told of."""

MEASURES = ("data.", "domains.", "general.", "evaluation.")
"""Beginnings of settings that say what is measured, and on which rows."""

Found = Mapping[str, Any]


def comparison_tables(comparison: Found) -> list[Table]:
    """Return the table of every part (and model), then the differences to each reference."""
    tables = [
        _success_table(comparison, model, part)
        for model in MODELS
        for part in PARTS
        if any(_metrics(method, model, part) for method in comparison["methods"])
    ]
    failed = any(method["failed"] for method in comparison["methods"])
    if failed and not tables:
        tables = [_success_table(comparison, "unlearned", "train")]
    differing = [
        _difference_table(comparison, reference, model)
        for reference in comparison["reference"]
        for model in MODELS
    ]
    return tables + [table for table in differing if table.rows]


def comparison_markdown(comparison: Found) -> str:
    """Return all tables as GitHub Markdown; what leads clearly is bold."""
    tables = [_marked(table, "**{}**".format) for table in comparison_tables(comparison)]
    return "\n".join([f"# {comparison['title']}", "", *map(markdown, tables)])


def comparison_latex(comparison: Found) -> str:
    """Return all tables as LaTeX (packages: booktabs)."""
    return "\n".join(map(latex, comparison_tables(comparison)))


def comparison_csv(comparison: Found) -> str:
    """Return one line per method, model and part, unrounded, with a column per mean and per sd."""
    names = list(dict.fromkeys(name for *_, found in _lines(comparison) for name in found))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    about = ("method", "model", "part", "n_seeds", "failed", "minutes", "peak_bytes")
    writer.writerow([*about, *(f"{name} {kind}" for name in names for kind in ("mean", "sd"))])
    for method, model, part, found in _lines(comparison):
        cells = [found.get(name, {}).get(kind) for name in names for kind in ("mean", "sd")]
        minutes = (method["minutes"] or {}).get("mean")
        counts = (method["n_seeds"], method["failed"], minutes, method["peak_bytes"])
        writer.writerow([method["method"], model, part, *counts, *cells])
    return stream.getvalue()


def domains(comparison: Found) -> list[str]:
    """Return the domains in the order of the settings."""
    return list(comparison["settings"]["domains"])


def _lines(comparison: Found) -> Iterable[tuple[Found, str, str, Found]]:
    for method in comparison["methods"]:
        for model in MODELS:
            for part in PARTS:
                found = _metrics(method, model, part)
                if found or (method["failed"] and model == "unlearned"):
                    yield method, model, part, found


def _metrics(method: Found, model: str, part: str) -> Found:
    return (method if model == "unlearned" else method.get(model, {})).get(part) or {}


def _success_table(comparison: Found, model: str, part: str) -> Table:
    shown = comparison["columns"]
    success = [f"{domain}.{metric}" for domain in domains(comparison) for metric in shown]
    metrics = [*success, "Avg", "HS", *NLLS]
    names = [name.replace(".", " ") for name in metrics]
    best = {
        (line["method"], line["metric"])
        for line in comparison["best"]
        if (line["model"], line["part"]) == (model, part) and _leads(line)
    }
    rows = [_vanilla_row(comparison, part, metrics)]
    for method in comparison["methods"]:
        found = _metrics(method, model, part)
        cells = (
            _mean_sd(found.get(m), nats if m in NLLS else percent)
            + (BEST if (method["method"], m) in best else "")
            for m in metrics
        )
        rows.append((method["method"], *cells, *_cost(method)))
    title = f"{comparison['title']}: {part} rows{MODELS[model]}"
    seeds = any(method["n_seeds"] > 1 for method in comparison["methods"])
    note = (SEEDS_NOTE if seeds else "") + NOTE + (BEST_NOTE if best else "") + _remarks(comparison)
    if model == "calibrated":
        note = f"{note} {_retained(comparison)}"
    return Table(title, ("Method", *names, "minutes", "peak GiB"), tuple(rows), note.strip())


def _leads(line: Found) -> bool:
    """Tell whether a lead is marked; an interval of one seed says nothing of others."""
    return line["clear"] and len(line["seeds"]) > 1


def _vanilla_row(comparison: Found, part: str, metrics: Sequence[str]) -> tuple[str, ...]:
    found = comparison["vanilla"].get(part) or {}
    cells = (_mean_sd(found.get(m), nats if m in NLLS else percent) for m in metrics)
    return ("vanilla", *cells, MISSING, MISSING)


def _cost(method: Found) -> tuple[str, str]:
    peak = method["peak_bytes"]
    memory = f"{peak / GIB:.2f}" if peak else MISSING
    minutes = method["minutes"]
    return f"{minutes['mean']:.2g}" if minutes else MISSING, memory


def _mean_sd(found: Found | None, show: Any) -> str:
    if not found:
        return MISSING
    spread = "" if found["sd"] is None else f" ± {show(found['sd'])}"
    return f"{show(found['mean'])}{spread}"


def _retained(comparison: Found) -> str:
    """Say what was wished, and name the cells in which no model on the way has just that RS."""
    ends = {
        1: "Kept as much as wished as they were, or more (weight 1): {}.",
        0: "Had to go back to the vanilla model (weight 0), so that nothing is unlearned: {}.",
    }
    wished = comparison["settings"]["evaluation"]["retain_target"]
    said = [f"Wished: a mean RS of {wished:g} on train rows."]
    for weight, text in ends.items():
        own = [c for c in comparison["cells"] if c.get("calibrated_weight") == weight]
        if own:
            said.append(text.format(", ".join(f"{c['method']} seed {c['seed']}" for c in own)))
    more = [
        f"{cell['method']} seed {cell['seed']} ({percent(kept)})"
        for cell in comparison["cells"]
        if 0 < (cell.get("calibrated_weight") or 0) < 1
        and (kept := _kept(cell)) > wished + MORE_RETAINED
    ]
    if more:
        said.append(f"Kept more, since RS falls at once from there: {', '.join(more)}.")
    return " ".join(said)


def _kept(cell: Found) -> float:
    """Return the mean RS on train rows of a cell's calibrated model."""
    return mean(
        row["value"]
        for row in cell["rows"]
        if (row["model"], row["metric"], row["part"]) == ("calibrated", "RS", "train")
    )


def _remarks(comparison: Found) -> str:
    """Say what a reader must know before comparing two rows."""
    methods, lines = comparison["methods"], comparison["cells"]
    remarks = [_seeds(methods)]
    rows = tuple(Result(**row) for row in comparison["vanilla"].get("rows", ()))
    if weak := weaknesses(Results(rows, {}, {})):
        remarks.append(f"The evidence is weak, because {'; '.join(weak)}.")
    failed = [f"{m['method']} ({m['failed']})" for m in methods if m["failed"]]
    if failed:
        remarks.append(f"Failed cells, which no mean includes: {', '.join(failed)}.")
    own = dict.fromkeys(line["method"] for line in lines if line.get("own_vanilla"))
    if own:
        remarks.append(f"With a vanilla model of their own: {', '.join(own)}.")
    measured = _measured_otherwise(lines)
    if measured:
        remarks.append(f"Measured otherwise, or on other rows: {measured}.")
    if len(versions := comparison.get("made_with", [])) > 1:
        remarks.append(f"Cells were made with {len(versions)} sets of versions (made_with).")
    resumed = sum(bool(line.get("resumed")) for line in lines)
    if resumed:
        remarks.append(f"{resumed} cells were interrupted: peak is that of their last part.")
    chosen = [
        f"{m['method']} {', '.join(f'{k}={v}' for k, v in m['chosen'].items())}"
        for m in methods
        if m["chosen"]
    ]
    if chosen:
        about = comparison["choose"]
        remarks.append(
            f"Chosen by {about['metric']} of the train rows with seed {about['seed']}: "
            f"{'; '.join(chosen)}."
        )
    return " ".join(filter(None, remarks))


def _seeds(methods: Sequence[Found]) -> str:
    own = {m["method"]: ", ".join(map(str, sorted(m["seeds"]))) for m in methods if m["seeds"]}
    if len(set(own.values())) == 1:
        return f"Seeds: {next(iter(own.values()))}."
    told = "; ".join(f"{method} {seeds}" for method, seeds in own.items())
    return f"Seeds differ: {told}." if own else ""


def _measured_otherwise(lines: Sequence[Found]) -> str:
    """Name the methods whose rows, or what is measured on them, are not those of the base."""
    found = {
        line["method"]: ", ".join(f"{key}={value}" for key, value in own.items())
        for line in lines
        if (own := {k: v for k, v in line.get("overrides", {}).items() if k.startswith(MEASURES)})
    }
    return "; ".join(f"{method} ({own})" for method, own in found.items())


def _difference_table(comparison: Found, reference: str, model: str) -> Table:
    wanted, rows = (reference, model), []
    lines = [d for d in comparison["differences"] if (d["reference"], d["model"]) == wanted]
    for method in dict.fromkeys(line["method"] for line in lines):
        for part in PARTS:
            own = [line for line in lines if (line["method"], line["part"]) == (method, part)]
            found = {line["metric"]: line for line in own}
            if found:
                intervals = (_interval(found[m]) for m in ("Avg", "HS"))
                rows.append((method, part, *intervals, _by_seed(found["Avg"])))
    drawn = {line["resampled"] for line in lines}
    note = f"{DIFFERENCE_NOTE}{' or '.join(sorted(drawn))}; the same for both methods). "
    if any(1 < len(line["seeds"]) < MANY_SEEDS for line in lines):
        note += FEW_SEEDS_NOTE
    elif any(len(line["seeds"]) == 1 for line in lines):
        note += ONE_SEED_NOTE
    title = f"Differences to {reference}{MODELS[model]}"
    columns = ("Method", "Part", "Avg", "HS", "Avg of each seed")
    return Table(title, columns, tuple(rows), note.strip() if rows else "")


def _interval(line: Found) -> str:
    return f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"


def _by_seed(line: Found) -> str:
    each = line.get("by_seed", ())
    return ", ".join(f"{value:+.1f}" for value in each) if len(each) > 1 else MISSING


def _marked(table: Table, show: Any) -> Table:
    """Put marked cells into the format's own emphasis."""
    rows = (
        (row[0], *(show(cell[: -len(BEST)]) if cell.endswith(BEST) else cell for cell in row[1:]))
        for row in table.rows
    )
    return Table(table.title, table.columns, tuple(rows), table.note)
