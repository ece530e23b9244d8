"""The numbers of committed result files, and a small safe language of expressions over them.

A number has a method, a seed, a model (MODELS), a part and a measure: "Avg", "HS", "DOMAIN.US",
"DOMAIN.SIDE.METRIC", "general NLL", "unlearn NLL" (mean over domains), and of audits
"DOMAIN.ATTACK.AMOUNT", also followed by " beyond" (points above the oracle).
"""

from __future__ import annotations

import ast
import json
import operator
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from intervals import ends

from grail.comparison.grids import edges
from grail.results import harmonic_success

HERE = Path(__file__).resolve().parent
MODELS = ("vanilla", "unlearned", "calibrated", "oracle")
Number = tuple[str, str, str, float | None]
"""Model, part, measure and value."""
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.Eq: operator.eq,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
}


@cache
def result(name: str) -> dict[str, Any]:
    """Return the content of results/NAME.json."""
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def rows(name: str) -> list[dict[str, Any]]:
    """Return every number of a result file: method, seed, model, part, measure, value."""
    found = result(name)
    vanilla = {
        "method": "vanilla",
        "rows": found.get("comparison", {}).get("vanilla", {}).get("rows"),
    }
    return [row for one in [*found["measurements"], vanilla] for row in _of_run(one)]


def _of_run(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    about = {"method": run.get("method", run.get("localizer", "")), "seed": run.get("seed", 0)}
    names = ("model", "part", "measure", "value")
    for numbers in (_summary, _measured, _audited, _known):
        for number in numbers(run):
            yield about | dict(zip(names, number, strict=True))


def _summary(run: Mapping[str, Any]) -> Iterator[Number]:
    """Yield Avg and HS, from {model: {part: {Avg, HS}}} or {"train.Avg": value}."""
    for name, of in run.get("summary", {}).items():
        if isinstance(of, float):
            yield "unlearned", *name.split("."), of
        else:
            parts = of.items() if name in MODELS else ()
            yield from ((name, part, *one) for part, values in parts for one in values.items())


def _measured(run: Mapping[str, Any]) -> Iterator[Number]:
    """Yield rows of results, also those written as {"DOMAIN.SIDE.PART.METRIC": value}."""
    rows = run.get("rows") or []
    named = {model: run[model] for model in MODELS if isinstance(run.get(model), dict)}
    if isinstance(rows, dict):
        named, rows = {"unlearned": rows}, []
    keys = ("domain", "side", "part", "metric")
    for model, values in named.items():
        places = [dict(zip(keys, name.split("."), strict=True)) for name in values]
        about = zip(places, values.values(), strict=True)
        rows = [*rows, *({"model": model, "value": value} | place for place, value in about)]
    nlls: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        yield row["model"], row["part"], _measure(row), row["value"]
        if (row["side"], row["metric"]) == ("unlearn", "NLL"):
            nlls.setdefault((row["model"], row["part"]), []).append(row["value"])
    for place, found in nlls.items():
        yield *place, "unlearn NLL", statistics.fmean(found)


def _audited(run: Mapping[str, Any]) -> Iterator[Number]:
    for group in run.get("measured", ()):
        attack = f"{group['attack']} {group['amount']}"
        for row in group["rows"]:
            yield group["model"], row["part"], f"{_measure(row)} {attack}", row["value"]


def _known(run: Mapping[str, Any]) -> Iterator[Number]:
    for line in run.get("known", ()):
        measure = f"{line['domain']}.{line['attack']}.{line['amount']}"
        yield "unlearned", line["part"], measure, line["value"]
        yield "unlearned", line["part"], f"{measure} beyond", line["beyond"]


def _measure(line: Mapping[str, Any]) -> str:
    """Return the short name of a row of results: privacy.US, general NLL, privacy.retain.NLL."""
    if line["side"] == "general":
        return f"general {line['metric']}"
    short = line["metric"] in ("US", "RS")
    return ".".join((line["domain"], *([] if short else [line["side"]]), line["metric"]))


def paper(table: str, method: str, column: str = "Avg") -> float:
    """Return the paper's number."""
    found = json.loads((HERE / "paper.json").read_text(encoding="utf-8"))
    return found[table][method][found["columns"].index(column)]


def student(found: Mapping[Any, float]) -> list[float]:
    """Return the ends of the 95 % interval of a mean over seeds."""
    return list(ends(list(found.values())))


def within(found: Mapping[Any, float], limit: float) -> int:
    """Return the number of seeds of which no value is above the limit."""
    return len({seed for seed, _ in found} - {k[0] for k, v in found.items() if v > limit})


class Reader:
    """Evaluates expressions over one result file, and notes the seeds and choices they rest on."""

    def __init__(self, file: str, inherited: Sequence[str] = (), seeds: int = 1) -> None:
        """Read FILE.json; ``inherited``: at an edge elsewhere; ``seeds``: behind ``raw``."""
        self.file, self.inherited, self.untold = file, inherited, seeds
        self.seeds: set[int] = set()
        self.at_edge: set[str] = set()
        self.functions = {
            "of": self.of,
            "lead": self.lead,
            "interval": self.interval,
            "raw": self.raw,
            "harmonic": self.harmonic,
            "within": within,
            "said": self.said,
            "worst": self.worst,
            "each": self.each,
            "chosen": self.chosen,
            "avg": self._success("Avg"),
            "hs": self._success("HS"),
            "paper": paper,
            "mean": lambda found: statistics.fmean(values(found)),
            "sd": lambda found: statistics.stdev(values(found)),
            "pm": lambda found: [
                statistics.fmean(found.values()),
                statistics.stdev(found.values()),
            ],
            "student": student,
            "min": lambda found: min(values(found)),
            "max": lambda found: max(values(found)),
            "spread": lambda *found: [
                pick(v for one in found for v in values(one)) for pick in (min, max)
            ],
        }

    def of(self, method: str, measure: str, part: str = "train", **more: Any) -> dict[Any, float]:
        """Return {(seed, measure): value}; a measure may hold * for any text.

        ``at``: the model (default: unlearned), ``file``: another result file, ``seed``: that alone.
        """
        file, model = more.get("file", self.file), more.get("at", "unlearned")
        wanted = (method, model, part)
        found = {
            (row["seed"], row["measure"]): row["value"]
            for row in rows(file)
            if (row["method"], row["model"], row["part"]) == wanted
            and fnmatchcase(row["measure"], measure)
            and row["value"] is not None
            and more.get("seed", row["seed"]) == row["seed"]
        }
        if not found:
            raise LookupError(f"{file}: nothing for {method}, {measure}, {part}, {model}")
        self._rests(file, method, {seed for seed, _ in found})
        return found

    def _success(self, measure: str) -> Any:
        return lambda method, part="train", **more: statistics.fmean(
            self.of(method, measure, part, **more).values()
        )

    def lead(self, one: str, other: str, measure: str, part: str, **more: Any) -> float:
        """Return the mean difference over the seeds that both have."""
        return statistics.fmean(self.each(one, other, measure, part, **more))

    def each(self, one: str, other: str, measure: str, part: str, **more: Any) -> list[float]:
        """Return the difference of each seed that both have."""
        ours, theirs = (self.of(name, measure, part, **more) for name in (one, other))
        common = sorted(ours.keys() & theirs.keys())
        self._rests(more.get("file", self.file), one, {seed for seed, _ in common})
        return [ours[key] - theirs[key] for key in common]

    def interval(self, one: str, other: str, measure: str, part: str, **more: Any) -> list[float]:
        """Return the ends of the interval that the comparison has of this difference."""
        file, model = more.get("file", self.file), more.get("at", "unlearned")
        self.each(one, other, measure, part, **more)
        for line in result(file)["comparison"]["differences"]:
            if (line["model"], line["part"], line["metric"]) == (model, part, measure):
                if (line["method"], line["reference"]) == (one, other):
                    return [line["low"], line["high"]]
                if (line["method"], line["reference"]) == (other, one):
                    return [-line["high"], -line["low"]]
        raise LookupError(f"{file} has no interval of {one} against {other}")

    def harmonic(self, method: str, domain: str, part: str = "train", **more: Any) -> float:
        """Return the mean over seeds of the harmonic mean of a domain's US and RS."""
        us, rs = (self.of(method, f"{domain}.{name}", part, **more) for name in ("US", "RS"))
        pairs = zip(us.values(), rs.values(), strict=True)
        return statistics.fmean(harmonic_success(*pair) for pair in pairs)

    def said(self, method: str, pattern: str) -> dict[Any, float]:
        """Return the numbers that a pattern's group finds in the sentences of each audit."""
        runs = [run for run in result(self.file)["measurements"] if run["method"] == method]
        self.seeds.add(len(runs))
        texts = {run["seed"]: " ".join(run["audit"]["sentences"]) for run in runs}
        return {
            (seed, f"{n}."): float(number)
            for seed, text in texts.items()
            for n, number in enumerate(re.findall(pattern, text))
        }

    def worst(self, found: Mapping[Any, float]) -> dict[Any, float]:
        """Return the greatest value of each seed and domain."""
        highest: dict[Any, float] = {}
        for (seed, measure), value in found.items():
            key = (seed, measure.partition(".")[0])
            highest[key] = max(highest.get(key, value), value)
        return highest

    def chosen(self, method: str, measure: str, value: float, file: str = "") -> float:
        """Return the success of a point of a grid, which has ``value`` on its only axis."""
        for line in result(file or self.file)["comparison"]["grid"]:
            if line["method"] == method and list(line["point"].values()) == [value]:
                assert line["metric"] == measure
                self._rests(file or self.file, method, {line.get("seed", 0)})
                return line["value"]
        raise LookupError(f"no point {value} of {method}")

    def raw(self, *path: str | int) -> Any:
        """Return what lies at a path of the file; ``untold`` seeds are behind it."""
        self.seeds.add(self.untold)
        found: Any = result(self.file)
        for key in path:
            found = found[key]
        return found

    def _rests(self, file: str, method: str, seeds: set[Any]) -> None:
        if method != "vanilla":
            self.seeds.add(len(seeds))
        points: list[dict[str, Any]] = []
        best: dict[str, Any] | None = None
        for line in result(file).get("comparison", {}).get("grid", ()):
            if line["method"] == method and "failed" not in line:
                points.append(line["point"])
                best = line["point"] if line["chosen"] else best
        if (file in self.inherited and method != "vanilla") or (best and edges(points, best)):
            self.at_edge.add(f"{file}: {method}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of calls, numbers, words, lists and comparisons."""
        return self._node(ast.parse(expression, mode="eval").body)

    def _node(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.List(elts=parts):
                return [self._node(part) for part in parts]
            case ast.UnaryOp(op=op, operand=operand):
                return OPERATORS[type(op)](self._node(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATORS[type(op)](self._node(left), self._node(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return OPERATORS[type(op)](self._node(left), self._node(right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=words):
                named = {str(word.arg): self._node(word.value) for word in words}
                return self.functions[name](*map(self._node, args), **named)
        raise ValueError(f"not allowed here: {ast.dump(node)}")


def values(found: Any) -> list[float]:
    """Return the numbers of a selection, a list or a single number."""
    if isinstance(found, Mapping):
        return list(found.values())
    return list(found) if isinstance(found, Sequence) else [found]
