"""ATTEMPTS: name -> what is done to a model and measured; each leaves the model as it was.

Labels of the values are the amounts of an attack: ``int8``, ``10`` steps, ``0.3`` of the entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from grail.audit.attacks.deployed import Change, compressed
from grail.audit.attacks.paraphrase import mean_of, worst_of
from grail.audit.attacks.prune import pruned
from grail.audit.attacks.quantise import GRIDS, quantised
from grail.audit.attacks.relearn import Descent, relearn
from grail.audit.attacks.sampling import extract, sample
from grail.audit.bench import Bench
from grail.data.batches import shuffled
from grail.data.encode import Encoded
from grail.evaluation.equal_retention import between
from grail.evaluation.evaluate import SampleValue
from grail.model.forward import is_adapter
from grail.model.weights import holding
from grail.progress import Tick, silent

PLAIN, MERGED = "plain", "merged"

Split = Callable[[Bench], tuple[list[Encoded], list[Encoded]]]
"""Which rows the attacker of a relearning has, and which are asked afterwards."""


@dataclass(frozen=True)
class Attempt:
    """One attack.

    Attributes:
        kind: The word for it in ``audit.attacks``; "" for the measurement without attack.
        models: Whom it is done to.
        reads: Settings of ``audit`` that it depends on.
        run: Does it and returns the values, labelled with their amounts.
        why_not: Why it cannot be done with this run's rows; "" if it can.
    """

    kind: str
    models: tuple[str, ...]
    reads: tuple[str, ...]
    run: Callable[[Bench, Tick], list[SampleValue]]
    why_not: Callable[[Bench], str] = lambda _: ""


def _plain(bench: Bench, tick: Tick) -> list[SampleValue]:
    return bench.read(PLAIN, bench.rows, tick)


def _quantise(bench: Bench, tick: Tick) -> list[SampleValue]:
    changes: dict[str, Change | None] = {
        name: partial(quantised, bits=bits, group=group) for name, (bits, group) in GRIDS.items()
    }
    if is_adapter(bench.context.model):  # what merging alone does in the base's precision
        changes = {MERGED: None} | changes
    return _compress(bench, changes, tick)


def _prune(bench: Bench, tick: Tick) -> list[SampleValue]:
    shares = {f"{share:g}": partial(pruned, share=share) for share in bench.settings.prune}
    return _compress(bench, dict(shares), tick)


def _compress(bench: Bench, changes: dict[str, Change | None], tick: Tick) -> list[SampleValue]:
    found: list[SampleValue] = []
    for number, (label, change) in enumerate(changes.items()):
        with compressed(bench.context.model, change):
            found += bench.read(label, bench.rows, within(tick, number, len(changes)))
    return found


def _interpolate(bench: Bench, tick: Tick) -> list[SampleValue]:
    """Go a share of the way back from the unlearned to the vanilla model."""
    found: list[SampleValue] = []
    shares = bench.settings.interpolate
    vanilla, unlearned = bench.ends("vanilla"), bench.ends("unlearned")
    for number, share in enumerate(shares):
        with holding(bench.context.model, between(vanilla, unlearned, 1 - share)):
            found += bench.read(f"{share:g}", bench.rows, within(tick, number, len(shares)))
    return found


def _relearn(bench: Bench, tick: Tick, name: str, split: Split) -> list[SampleValue]:
    """Descend on some rows and measure others after every number of steps."""
    config, how = bench.context.config, bench.settings.relearn
    taught, asked = split(bench)
    rate = how.learning_rate or config.unlearning.learning_rate
    pad = bench.context.tokenizer.pad_token_id
    descent = Descent(rate, how.batch_size, tuple(how.steps), bench.seed, pad)
    model = bench.context.model

    def measure(steps: int) -> list[SampleValue]:
        return bench.read(str(steps), asked, silent)

    def say(done: int, total: int, note: str) -> None:
        tick(done, total, f"{name}: {note}")

    points = relearn(model, taught, descent, bench.accelerator, measure, say)
    return [value for point in points for value in point]


def few(bench: Bench) -> tuple[list[Encoded], list[Encoded]]:
    """Return a share of each domain's unlearn train rows, and the measured rows among the rest."""
    taught: list[Encoded] = []
    rows = bench.given("unlearn", "train")
    for domain in dict.fromkeys(row.domain for row in rows):
        own = shuffled([r for r in rows if r.domain == domain], bench.seed, "few", domain)
        taught += own[: max(1, round(bench.settings.relearn.share * len(own)))]
    known = {row.key for row in taught}
    return taught, [row for row in bench.targets() if row.key not in known]


def other(bench: Bench) -> tuple[list[Encoded], list[Encoded]]:
    """Return the unlearn val rows (the same facts asked otherwise), and the measured train rows."""
    return bench.given("unlearn", "val"), list(bench.targets())


def unrelated(bench: Bench) -> tuple[list[Encoded], list[Encoded]]:
    """Return general text (benign relearning, arXiv 2406.13356), and the measured train rows."""
    return bench.given("general", "train"), list(bench.targets())


def _no_rows(bench: Bench, split: Split, why: str) -> str:
    return "" if all(split(bench)) else why


def within(tick: Tick, number: int, count: int) -> Tick:
    """Return a tick for the ``number``-th of ``count`` pieces of equal work."""

    def piece(done: int, total: int, note: str) -> None:
        tick(number * total + done, count * total, note)

    return piece


def _paraphrase(bench: Bench, tick: Tick) -> list[SampleValue]:
    """Ask in other words; a row's mean and worst case over its paraphrases."""
    by_row: dict[str, list[SampleValue]] = {}
    for value in bench.read("asked otherwise", asked_otherwise(bench), tick):
        by_row.setdefault(value.key, []).append(value)
    groups = list(by_row.values())
    means = [replace(mean_of(group), model="mean") for group in groups]
    return means + [replace(worst_of(group), model="worst") for group in groups]


def asked_otherwise(bench: Bench) -> list[Encoded]:
    """Return the measured rows that have paraphrases, once with each of them as the prompt."""
    encoder = bench.encoder()
    rows = [
        encoder.encode(replace(row.sample, prompt=prompt))[0]
        for row in bench.rows
        for prompt in row.sample.paraphrases
    ]
    return [row for row in rows if row.answer]  # else the prompt alone fills data.max_tokens


def _relearning(name: str, split: Split, why: str) -> Attempt:
    return Attempt(
        "relearn",
        ("unlearned", "oracle"),
        ("relearn",),
        partial(_relearn, name=name, split=split),
        partial(_no_rows, split=split, why=why),
    )


def _writing(
    name: str, reads: tuple[str, ...], run: Callable[[Bench, Tick], list[SampleValue]]
) -> Attempt:
    return Attempt(name, ("vanilla", "unlearned", "oracle"), reads, run)


ATTEMPTS: dict[str, Attempt] = {
    PLAIN: Attempt("", ("vanilla", "unlearned", "oracle"), (), _plain),
    "quantise": Attempt("quantise", ("unlearned", "oracle"), (), _quantise),
    "prune": Attempt("prune", ("unlearned", "oracle"), ("prune",), _prune),
    "interpolate": Attempt("interpolate", ("unlearned",), ("interpolate",), _interpolate),
    "relearn-few": _relearning("few", few, "no unlearn train row is left to measure"),
    "relearn-other": _relearning("other", other, "there are no unlearn val rows"),
    "relearn-unrelated": _relearning("unrelated", unrelated, "there is no general text"),
    "paraphrase": Attempt(
        "paraphrase",
        ("vanilla", "unlearned", "oracle"),
        (),
        _paraphrase,
        lambda bench: "" if asked_otherwise(bench) else "no row carries paraphrases",
    ),
    "sample": _writing("sample", ("samples", "written_rows"), sample),
    "extract": _writing("extract", ("told", "written_rows"), extract),
}
