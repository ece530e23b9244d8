"""comparison.json as tables for terminal, Markdown, LaTeX and CSV; knows no file and no run."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from grail.reporting.comparison.latex import latex
from grail.reporting.run.verdict import weaknesses
from grail.reporting.tables import BEST, MISSING, Table, listed, markdown, nats, percent
from grail.results import Result, Results

_MODELS = {"unlearned": "", "calibrated": " at equal retention"}
_PARTS = ("train", "val")
_NLLS = ("unlearn NLL", "general NLL")
_GIB = 1 << 30

_NOTE = (
    "US, RS, Avg and HS in percent, higher is better; "
    "NLL in nats/token, of general text on its held-out half; minutes = those of the unlearning "
    "steps (median step x steps); peak = "
    "resident memory of the whole run. "
)
_SEEDS_NOTE = "Cells: mean ± standard deviation over seeds. "
_BEST_NOTE = (
    f"{BEST} or bold = leads in this column, and the 95 % interval of its difference to the second "
    "excludes 0 (only Avg and HS are marked). "
)
_DIFFERENCE_NOTE = (
    "Percentage points, with the 95 % percentile interval of a paired bootstrap (10,000 draws of "
)
_FEW_SEEDS_NOTE = (
    "With few seeds that differ more than rows do, such intervals are too narrow (three: about "
    "three quarters of them hold the truth); look at each seed."
)
_ONE_SEED_NOTE = "One seed: such an interval is of the rows alone; it says nothing of other seeds."
_MANY_SEEDS = 10
_MORE_RETAINED = 0.5
"""Percent of RS above the wished one that the note mentions."""

_MEASURES = ("data.", "domains.", "general.", "evaluation.")
"""Prefixes of settings that say what is measured, and on which rows."""

EDGE = " (edge)"
"""Behind the name of a method whose settings were chosen at an edge of their grid."""

_Json = Mapping[str, Any]


def comparison_tables(comparison: _Json) -> list[Table]:
    """Return the table of every part (and model), then the differences to each reference."""
    tables = [
        _success_table(comparison, model, part)
        for model in _MODELS
        for part in _PARTS
        if _of_domains(comparison, model, part)
    ]
    failed = any(method["failed"] for method in comparison["methods"])
    if failed and not tables:
        tables = [_success_table(comparison, "unlearned", "train")]
    differing = [
        _difference_table(comparison, reference, model)
        for reference in comparison["reference"]
        for model in _MODELS
    ]
    return tables + [table for table in differing if table.rows]


def comparison_markdown(comparison: _Json) -> str:
    """Return all tables as GitHub Markdown; what leads clearly is bold."""
    tables = [_marked(table, "**{}**".format) for table in comparison_tables(comparison)]
    return "\n".join([f"# {comparison['title']}", "", *map(markdown, tables)])


def comparison_latex(comparison: _Json) -> str:
    """Return all tables as LaTeX (packages: booktabs)."""
    return "\n".join(map(latex, comparison_tables(comparison)))


def comparison_csv(comparison: _Json) -> str:
    """Return one line per method, model and part, unrounded, with a column per mean and per sd."""
    lines = [
        (method, model, part, metrics)
        for method in comparison["methods"]
        for model in _MODELS
        for part in _PARTS
        if (metrics := _metrics(method, model, part)) or (method["failed"] and model == "unlearned")
    ]
    names = dict.fromkeys(name for *_, metrics in lines for name in metrics)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = ("method", "model", "part", "n_seeds", "failed", "minutes", "peak_bytes")
    kinds = ("mean", "sd")
    writer.writerow(
        [*columns, *(f"{_no_formula(name)} {kind}" for name in names for kind in kinds)]
    )
    for method, model, part, metrics in lines:
        cells = [metrics.get(name, {}).get(kind) for name in names for kind in kinds]
        minutes = (method["minutes"] or {}).get("mean")
        costs = (method["n_seeds"], method["failed"], minutes, method["peak_bytes"])
        writer.writerow([_no_formula(method["method"]), model, part, *costs, *cells])
    return stream.getvalue()


def _no_formula(text: str) -> str:
    """Return a text that no spreadsheet program takes for a formula and executes."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _metrics(method: _Json, model: str, part: str) -> _Json:
    return (method if model == "unlearned" else method.get(model, {})).get(part) or {}


def _of_domains(comparison: _Json, model: str, part: str) -> bool:
    """Tell whether a part has figures of a domain; general text alone makes no table."""
    found = {name for method in comparison["methods"] for name in _metrics(method, model, part)}
    return any(name.rpartition(".")[0] in comparison["settings"]["domains"] for name in found)


def _success_table(comparison: _Json, model: str, part: str) -> Table:
    domains, methods = comparison["settings"]["domains"], comparison["methods"]
    metrics = [f"{domain}.{metric}" for domain in domains for metric in comparison["columns"]]
    metrics += ["Avg", "HS", *_NLLS]
    best = {
        (lead["method"], lead["metric"])
        for lead in comparison["best"]
        if (lead["model"], lead["part"]) == (model, part)
        and lead["clear"]
        and len(lead["seeds"]) > 1  # an interval of one seed says nothing of others
    }
    vanilla = comparison["vanilla"].get(part) or {}
    rows = [("vanilla", *_means(vanilla, metrics), MISSING, MISSING)]
    for method in methods:
        cells = [
            cell + (BEST if (method["method"], metric) in best else "")
            for metric, cell in zip(
                metrics, _means(_metrics(method, model, part), metrics), strict=True
            )
        ]
        minutes, peak = method["minutes"], method["peak_bytes"]
        cost = f"{minutes['mean']:.2g}" if minutes else MISSING
        memory = f"{peak / _GIB:.2f}" if peak else MISSING
        label = method["method"] + (EDGE if method.get("edge") else "")
        rows.append((label, *cells, cost, memory))
    seeds = any(method["n_seeds"] > 1 for method in methods)
    note = (_SEEDS_NOTE if seeds else "") + _NOTE + (_BEST_NOTE if best else "")
    note += _remarks(comparison)
    if model == "calibrated":
        note += f" {_retained(comparison)}"
    title = f"{comparison['title']}: {part} rows{_MODELS[model]}"
    names = [name.replace(".", " ") for name in metrics]
    return Table(title, ("Method", *names, "minutes", "peak GiB"), tuple(rows), note.strip())


def _means(numbers: _Json, metrics: Sequence[str]) -> list[str]:
    """Return one cell per metric: mean ± standard deviation."""
    cells = []
    for metric in metrics:
        number, show = numbers.get(metric), nats if metric in _NLLS else percent
        if not number:
            cells.append(MISSING)
        elif number["sd"] is None:
            cells.append(show(number["mean"]))
        else:
            cells.append(f"{show(number['mean'])} ± {show(number['sd'])}")
    return cells


def _retained(comparison: _Json) -> str:
    """State the wished RS, and name the cells whose calibrated model does not have just that RS."""
    wished = comparison["settings"]["evaluation"]["retain_target"]
    kept: list[str] = []
    none: list[str] = []
    more: list[str] = []
    for cell in comparison["cells"]:
        name, weight = f"{cell['method']} seed {cell.get('seed')}", cell.get("calibrated_weight")
        if weight == 1:
            kept.append(name)
        elif weight == 0:
            none.append(name)
        elif weight and (rs := _calibrated_rs(cell)) > wished + _MORE_RETAINED:
            more.append(f"{name} ({percent(rs)})")
    sentences = (
        f"Wished: a mean RS of {wished:g} on train rows.",
        listed("Kept that much or more without calibration (weight 1)", kept, separator=", "),
        listed(
            "Had to go back to the vanilla model (weight 0), so that nothing is unlearned",
            none,
            separator=", ",
        ),
        listed("Kept more, since RS drops sharply from there", more, separator=", "),
    )
    return " ".join(filter(None, sentences))


def _calibrated_rs(cell: _Json) -> float:
    """Return the mean RS on train rows of a cell's calibrated model."""
    return mean(
        row["value"]
        for row in cell["rows"]
        if (row["model"], row["metric"], row["part"]) == ("calibrated", "RS", "train")
    )


def _remarks(comparison: _Json) -> str:
    """Say what a reader must know before comparing two rows."""
    methods, cells = comparison["methods"], comparison["cells"]
    rows = tuple(Result(**row) for row in comparison["vanilla"].get("rows", ()))
    weak = weaknesses(Results(rows, {}, {}))
    failed = [f"{m['method']} ({m['failed']})" for m in methods if m["failed"]]
    own_vanilla = list(dict.fromkeys(c["method"] for c in cells if c.get("own_vanilla")))
    versions = len(comparison.get("made_with", []))
    resumed = sum(bool(cell.get("resumed")) for cell in cells)
    chosen = [
        f"{m['method']} {', '.join(f'{k}={v}' for k, v in m['chosen'].items())}"
        for m in methods
        if m["chosen"]
    ]
    choose = comparison["choose"] if chosen else {}
    deciding = "half of the train rows" if choose.get("rows") == "half" else "the train rows"
    edge = any(m.get("edge") for m in methods)
    remarks = (
        _seeds(methods),
        f"The evidence is weak, because {'; '.join(weak)}." if weak else "",
        listed("Failed cells, which no mean includes", failed, separator=", "),
        listed("With a vanilla model of their own", own_vanilla, separator=", "),
        listed("Measured differently, or on other rows", _measured_differently(cells)),
        f"Cells were made with {versions} sets of versions (made_with)." if versions > 1 else "",
        f"{resumed} cells were interrupted: peak is that of their last part." if resumed else "",
        listed(
            f"Chosen by {choose.get('metric')} of {deciding} with seed {choose.get('seed')}", chosen
        ),
        "Train rows: the half that did not choose." if choose.get("rows") == "half" else "",
        f"{EDGE.strip()}: chosen at an edge of its grid; another value may be better."
        if edge
        else "",
    )
    return " ".join(filter(None, remarks))


def _seeds(methods: Sequence[_Json]) -> str:
    seeds = {m["method"]: ", ".join(map(str, sorted(m["seeds"]))) for m in methods if m["seeds"]}
    if len(set(seeds.values())) == 1:
        return f"Seeds: {next(iter(seeds.values()))}."
    return listed("Seeds differ", [f"{method} {numbers}" for method, numbers in seeds.items()])


def _measured_differently(cells: Sequence[_Json]) -> list[str]:
    """Name the methods whose rows, or what is measured on them, are not those of the base."""
    texts: dict[str, str] = {}
    for cell in cells:
        overrides = {k: v for k, v in cell.get("overrides", {}).items() if k.startswith(_MEASURES)}
        if overrides:
            texts[cell["method"]] = ", ".join(f"{k}={v}" for k, v in overrides.items())
    return [f"{method} ({text})" for method, text in texts.items()]


def _difference_table(comparison: _Json, reference: str, model: str) -> Table:
    lines = [
        line
        for line in comparison["differences"]
        if (line["reference"], line["model"]) == (reference, model)
    ]
    groups: dict[tuple[str, str], dict[str, _Json]] = {}
    for line in lines:
        groups.setdefault((line["method"], line["part"]), {})[line["metric"]] = line
    methods = list(dict.fromkeys(line["method"] for line in lines))
    rows = []
    for method, part in sorted(groups, key=lambda g: (methods.index(g[0]), _PARTS.index(g[1]))):
        avg, hs = (groups[method, part][metric] for metric in ("Avg", "HS"))
        by_seed = [f"{value:+.1f}" for value in avg.get("by_seed", ())]
        each = ", ".join(by_seed) if len(by_seed) > 1 else MISSING
        rows.append((method, part, _interval(avg), _interval(hs), each))
    drawn = " or ".join(sorted({line["resampled"] for line in lines}))
    note = f"{_DIFFERENCE_NOTE}{drawn}; the same for both methods). "
    if any(1 < len(line["seeds"]) < _MANY_SEEDS for line in lines):
        note += _FEW_SEEDS_NOTE
    elif any(len(line["seeds"]) == 1 for line in lines):
        note += _ONE_SEED_NOTE
    title = f"Differences to {reference}{_MODELS[model]}"
    columns = ("Method", "Part", "Avg", "HS", "Avg of each seed")
    return Table(title, columns, tuple(rows), note.strip() if rows else "")


def _interval(line: _Json) -> str:
    return f"{line['mean']:+.1f} [{line['low']:+.1f}, {line['high']:+.1f}]"


def _marked(table: Table, show: Callable[[str], str]) -> Table:
    """Show marked cells in the format's own emphasis."""
    rows = (
        (row[0], *(show(cell[: -len(BEST)]) if cell.endswith(BEST) else cell for cell in row[1:]))
        for row in table.rows
    )
    return replace(table, rows=tuple(rows))
