"""comparison.json as tables for terminal, Markdown, LaTeX and CSV; knows no file and no run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from grail.reporting.tables import MISSING, Table, markdown, nats, percent

MODELS = {"unlearned": "", "calibrated": " at equal retention"}
PARTS = ("train", "val")
NLLS = ("unlearn NLL", "general NLL")
BEST = "*"
GIB = 1 << 30

NOTE = (
    "Cells: mean ± standard deviation over seeds. US, RS, Avg and HS in percent, higher is better; "
    "NLL in nats/token, of general text on its held-out half; minutes = those of the unlearning "
    "steps (median step x steps); peak = "
    "resident memory of the whole run. "
)
BEST_NOTE = (
    f"{BEST} or bold = leads in this column, and the 95 % interval of its difference to the second "
    "excludes 0 (only Avg and HS are marked). "
)
DIFFERENCE_NOTE = (
    "Percentage points, with the 95 % percentile interval of a paired bootstrap (10,000 draws of "
)
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MISSING: "--",
    "→": r"$\rightarrow$",
}

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


def latex(table: Table) -> str:
    """Return one table in the style of booktabs, with its title as caption and its note below."""
    columns = "l" + "r" * (len(table.columns) - 1)
    rows = [" & ".join(map(escape_latex, table.columns)) + r" \\", r"\midrule"]
    for row in table.rows:
        rows.append(" & ".join([escape_latex(row[0]), *map(_latex_cell, row[1:])]) + r" \\")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\smallskip\footnotesize {escape_latex(table.note)}"] if table.note else []),
            r"\end{table}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(LATEX.get(character, character) for character in text)


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
    success = [f"{domain}.{metric}" for domain in domains(comparison) for metric in ("US", "RS")]
    metrics = [*success, "Avg", "HS", *NLLS]
    names = [name.replace(".", " ") for name in metrics]
    best = {
        (line["method"], line["metric"])
        for line in comparison["best"]
        if (line["model"], line["part"]) == (model, part) and line["clear"]
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
    note = NOTE + (BEST_NOTE if best else "") + _remarks(comparison)
    if model == "calibrated":
        note = f"{note} {_unmoved(comparison)}"
    return Table(title, ("Method", *names, "minutes", "peak GiB"), tuple(rows), note.strip())


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


def _unmoved(comparison: Found) -> str:
    """Name the cells in which no model between vanilla and unlearned meets the wished RS."""
    ends = {
        1: "Kept as much as wished as they were, or more (weight 1): {}.",
        0: "Had to go back to the vanilla model (weight 0), so that nothing is unlearned: {}.",
    }
    said = []
    for weight, text in ends.items():
        own = [c for c in comparison["cells"] if c.get("calibrated_weight") == weight]
        if own:
            said.append(text.format(", ".join(f"{c['method']} seed {c['seed']}" for c in own)))
    return " ".join(said)


def _remarks(comparison: Found) -> str:
    """Say what a reader must know before comparing two rows."""
    methods, lines = comparison["methods"], comparison["cells"]
    counts = {method["n_seeds"] for method in methods if method["n_seeds"]}
    remarks = []
    if len(counts) == 1:
        remarks.append(f"Seeds: {counts.pop()}.")
    elif counts:
        told = ", ".join(f"{m['method']} {m['n_seeds']}" for m in methods)
        remarks.append(f"Seeds differ: {told}.")
    failed = [f"{m['method']} ({m['failed']})" for m in methods if m["failed"]]
    if failed:
        remarks.append(f"Failed cells, which no mean includes: {', '.join(failed)}.")
    own = dict.fromkeys(line["method"] for line in lines if line.get("own_vanilla"))
    if own:
        remarks.append(f"With a vanilla model of their own: {', '.join(own)}.")
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
    return " ".join(remarks)


def _difference_table(comparison: Found, reference: str, model: str) -> Table:
    wanted, rows = (reference, model), []
    lines = [d for d in comparison["differences"] if (d["reference"], d["model"]) == wanted]
    for method in dict.fromkeys(line["method"] for line in lines):
        for part in PARTS:
            own = [line for line in lines if (line["method"], line["part"]) == (method, part)]
            found = {line["metric"]: line for line in own}
            if found:
                rows.append((method, part, *(_interval(found[m]) for m in ("Avg", "HS"))))
    drawn = {line["resampled"] for line in lines}
    note = f"{DIFFERENCE_NOTE}{' or '.join(sorted(drawn))}; the same for both methods)."
    title = f"Differences to {reference}{MODELS[model]}"
    return Table(title, ("Method", "Part", "Avg", "HS"), tuple(rows), note if rows else "")


def _interval(line: Found) -> str:
    return f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"


def _marked(table: Table, show: Any) -> Table:
    """Put marked cells into the format's own emphasis."""
    rows = (
        (row[0], *(show(cell[: -len(BEST)]) if cell.endswith(BEST) else cell for cell in row[1:]))
        for row in table.rows
    )
    return Table(table.title, table.columns, tuple(rows), table.note)


def _latex_cell(cell: str) -> str:
    if cell.endswith(BEST):
        return rf"\textbf{{{escape_latex(cell[: -len(BEST)])}}}"
    return escape_latex(cell)
