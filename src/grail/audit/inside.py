"""Where the knowledge went: how far each block moved, and what each block would still answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from grail.audit.bench import Bench
from grail.audit.distance import distances
from grail.audit.lens import anatomy, look, summary
from grail.data.batches import shuffled
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.progress import Tick


def inside(
    bench: Bench,
    models: Sequence[str],
    take: Callable[[str], None],
    frozen: Mapping[str, Tensor],
    tick: Tick,
) -> dict[str, Any]:
    """Return {"moved", "lens", "no_lens"}.

    ``lens`` has {"model", "domain", "side"} and what ``evaluation.lens.summary`` says of the train
    rows; it is empty where the model's parts cannot be told apart, and ``no_lens`` says why.

    Args:
        bench: The model and its rows.
        models: Names of the models that are looked into.
        take: Lets the bench's model be one of them.
        frozen: Parameter name -> entries that unlearning had to leave alone.
        tick: Hears of the rows.
    """
    moved = distances(bench.ends("vanilla"), bench.ends("unlearned"), frozen)
    try:
        anatomy(bench.context.model)
    except InputError as error:
        return {"moved": moved, "lens": [], "no_lens": str(error)}
    return {"moved": moved, "lens": list(_lens(bench, models, take, tick)), "no_lens": None}


def _lens(
    bench: Bench, models: Sequence[str], take: Callable[[str], None], tick: Tick
) -> list[dict[str, Any]]:
    sides = chosen(bench)
    rows = [row for own in sides.values() for row in own]
    found: list[dict[str, Any]] = []
    for number, model in enumerate(models):
        take(model)

        def say(done: int, total: int, note: str, number: int = number) -> None:
            tick(number * total + done, len(models) * total, note)

        pad = bench.context.tokenizer.pad_token_id
        sights = list(look(bench.context.model, rows, pad, say))
        for (domain, side), own in sides.items():
            keys = {row.key for row in own}
            about = summary([sight for sight in sights if sight.row.key in keys])
            found.append({"model": model, "domain": domain, "side": side} | about)
    return found


def chosen(bench: Bench) -> dict[tuple[str, str], list[Encoded]]:
    """Return the train rows that are looked at: at most ``audit.lens_rows`` of each side."""
    most = bench.settings.lens_rows
    sides: dict[tuple[str, str], list[Encoded]] = {}
    for row in bench.rows:
        if row.part == "train" and row.side != "general":
            sides.setdefault((row.domain, row.side), []).append(row)
    return {
        place: own if most is None else shuffled(own, bench.seed, "lens", *place)[:most]
        for place, own in sides.items()
    }
