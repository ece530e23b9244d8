"""comparison.json as a page: who leads, forgetting against keeping, and all tables."""

from collections.abc import Mapping
from typing import Any

from grail.files import dump_yaml
from grail.reporting.comparison.pareto import pareto, pareto_table, points_of
from grail.reporting.comparison.tables import comparison_tables
from grail.reporting.html import render_page
from grail.reporting.tables import GOOD, OPEN, Table

_PARTS = ("val", "train")


def comparison_html(comparison: Mapping[str, Any]) -> str:
    """Return the page; charts of val rows come before those of train rows."""
    charts = []
    for part in _PARTS:
        points = points_of(comparison, part)
        if (chart := pareto(points, part)) is not None:
            charts.append((pareto_table(points, part), chart))
    failed = [c for c in (*comparison["grid"], *comparison["cells"]) if "failed" in c]
    shown = ("settings", "choose", "reference", "machine", "made_with")
    content = {
        "name": comparison["title"],
        "about": _about(comparison),
        "leads": _leads(comparison),
        "charts": charts,
        "tables": comparison_tables(comparison),
        "failed": [(f"{c['method']} seed {c.get('seed')}", c["failed"]) for c in failed],
        "settings": dump_yaml({key: comparison[key] for key in shown if key in comparison}),
    }
    return render_page("comparison", content)


def _about(comparison: Mapping[str, Any]) -> str:
    methods = comparison["methods"]
    seeds = sorted({seed for method in methods for seed in method["seeds"]})
    model = comparison["settings"].get("model", {}).get("name")
    parts = (
        f"{len(methods)} methods",
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}",
        f"domains {', '.join(comparison['settings']['domains'])}",
        *([f"model {model}"] if model else []),
    )
    return ", ".join(parts)


def _leads(comparison: Mapping[str, Any]) -> Table:
    """Say who leads in Avg and HS, and whether that is told from chance."""
    rows = []
    for lead in comparison["best"]:
        if lead["model"] == "unlearned":
            several = len(lead["seeds"]) > 1
            clear = lead["clear"] and several
            light, word = (GOOD, "leads clearly") if clear else (OPEN, "not told from chance")
            if lead["clear"] and not several:
                word = "leads with one seed"
            ahead = f"{lead['mean']:+.1f} [{lead['low']:+.1f}, {lead['high']:+.1f}]"
            place = f"{lead['metric']}, {lead['part']} rows"
            rows.append((f"{light} {word}", place, lead["method"], lead["second"], ahead))
    note = "Points ahead of the second, with the 95 % interval of a paired bootstrap."
    columns = ("Found", "Of", "First", "Second", "Ahead")
    return Table("Who leads", columns, tuple(rows), note if rows else "")
