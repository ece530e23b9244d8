"""What the looks of a run measure, and the file that they are written to."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list

from grail.config.run import EVERY
from grail.config.unlearning import Stop, Unlearning
from grail.data.batches import by_tokens, collate
from grail.data.encode import Encoded
from grail.data.heldout import HELD_OUT
from grail.data.samples import grouped
from grail.evaluation import metrics
from grail.evaluation.evaluate import BATCH_TOKENS
from grail.files import read_json, write_json
from grail.model.answers import answers_of, mean_per_row
from grail.model.forward import Policy, device_of, evaluating, positions_of
from grail.model.weights import Weights, holding
from grail.run import manifest
from grail.run.context import RunContext
from grail.training.looks import Bounds, Looks, Seen
from grail.unlearning.guesses import after_examples, examples_for

LOOK_ROWS = {"unlearn": 64, "retain": 64, "general": 24}
"""Rows of a side that a look reads, spread evenly: it must cost less than the steps between."""
NOTHING_KEPT = (
    "no look at the training model was within the bounds of unlearning.stop and better than the "
    "model as it was, which is the result: nothing was unlearned. Lower unlearning.learning_rate, "
    "give more retain rows, or raise unlearning.stop.retain or unlearning.stop.general."
)
NOTHING_TO_DO = (
    "the unlearn rows count as forgotten before any training, so that nothing was unlearned. Do "
    "the rows ask the model as its users do?"
)
NO_GUESS = (
    "domains.{0}.unlearn.heldout: the model answers these rows about as well as those to be lost, "
    "so that they are no rows that it never saw. They do not tell what can be guessed."
)
KNOWN_BETTER = 10.0
"""Points by which the model must answer the unlearn rows better than what counts as a guess."""
Unknowing = tuple[Weights, Mapping[str, tuple[int, ...]]]
"""The weights from before the facts, and what that model reads ahead of a row, by the row's key."""
BROKEN = 1e9
"""The NLL (nats) that stands for one that is not finite."""


def looks_of(
    model: Policy,
    rows: Sequence[Encoded],
    pad: int,
    every: int | None,
    stop: Stop | None,
    before: Unknowing | None,
) -> Looks:
    """Return how a model is looked at; it holds the weights of before the training now.

    Rows are of all sides; train rows are read, of general text held-out (val) ones. Between two
    looks are ``every`` steps (None: no looks, unless ``stop`` reads them). ``before`` is the model
    from before the facts were learnt, if it is known.
    """
    every = every or (EVERY if stop else None)
    if every is None:
        return Looks()
    read = looked_at(rows)

    def measure() -> list[Seen]:
        return measured(model, read, pad)

    if stop is None:
        return Looks(every, measure)
    (guess,) = broadcast_object_list([guesses(model, rows, pad, before)])  # all stop alike
    wanted = metrics.unlearn_success([stop.forgotten])
    domains = dict.fromkeys(row.domain for row in read if row.side == "unlearn")
    forgotten = {d: max(0.0, min(wanted, guess.get(d, 100.0) - stop.above)) for d in domains}
    bounds = Bounds(forgotten, stop.retain, stop.general, stop.patience)
    return Looks(every, measure, bounds, guess)


def looked_at(rows: Sequence[Encoded]) -> list[Encoded]:
    """Return the rows that a look reads."""
    train = [row for row in rows if row.part == "train" and row.side in ("unlearn", "retain")]
    sides = grouped(train, lambda row: (row.domain, row.side))
    general = [row for row in rows if row.side == "general"]
    if general:
        unread = [row for row in general if row.part == "val"]
        sides["general", "general"] = unread or general
    return [
        row for (_, side), members in sides.items() for row in _spread(members, LOOK_ROWS[side])
    ]


def guesses(
    model: Policy, rows: Sequence[Encoded], pad: int, before: Unknowing | None
) -> dict[str, float]:
    """Return domain -> US (percent) of a model that never knew, as far as that can be measured.

    The model as it is answers the domain's heldout rows; where there are none, the model from
    before the facts answers the unlearn rows (after its examples). Whoever answers nearly as well
    as the model does the unlearn rows is no model that never knew: else all would be forgotten
    before it began.
    """
    unlearn = [row for row in looked_at(rows) if row.side == "unlearn"]
    found: list[Seen] = []
    if before is not None:
        weights, examples = before
        with holding(model, weights):
            found += measured(model, [after_examples(row, examples) for row in unlearn], pad)
    found += measured(model, [row for row in rows if row.part == HELD_OUT], pad)
    own = {
        row["domain"]: row["success"] for row in (measured(model, unlearn, pad) if found else [])
    }
    guess = {row["domain"]: row["success"] for row in found}
    return {d: us for d, us in guess.items() if us >= own.get(d, 0.0) + KNOWN_BETTER}


@torch.no_grad()
def measured(model: Policy, rows: Sequence[Encoded], pad: int) -> list[Seen]:
    """Return success (percent) and NLL (nats) of each side of rows, without generating."""
    sides: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for group in by_tokens(rows, BATCH_TOKENS):
        with evaluating(model):
            answers = answers_of(model, collate(group, pad, device_of(model)))
        nlls = mean_per_row(answers.nll, answers.lengths).tolist()
        for row, accuracy, nll in zip(group, answers.accuracy.tolist(), nlls, strict=True):
            accuracies, losses = sides.setdefault((row.domain, row.side), ([], []))
            accuracies.append(accuracy)
            losses.append(nll if math.isfinite(nll) else BROKEN)
    success = {"unlearn": metrics.unlearn_success, "retain": metrics.retain_success}
    return [
        {
            "domain": None if side == "general" else domain,
            "side": side,
            "success": success[side](found) if side in success else None,
            "nll": metrics.mean(losses),
        }
        for (domain, side), (found, losses) in sorted(sides.items())
    ]


def examples_read(section: Unlearning) -> int:
    """Return how many examples the model from before the facts reads ahead of a question."""
    return section.examples if section.objective == "distill" else 0


def unknowing(
    model: Policy,
    before: Weights | None,
    rows: Sequence[Encoded],
    section: Unlearning,
    seed: int,
) -> Unknowing | None:
    """Return the model from before the facts, and examples that it reads ahead of every row.

    They are drawn anew: distill's teacher reads others ahead of a row that has a guess.
    """
    if before is None:
        return None
    count = examples_read(section)
    return before, examples_for(rows, count, seed, positions_of(model.config)) if count else {}


def run_looks(context: RunContext, before: Weights | None) -> Looks:
    """Return how a run's model is looked at in Stage 3; it holds the weights of before it now."""
    config, rows = context.config, [*context.rows, *context.general]
    model, section = context.model, config.unlearning
    known = unknowing(model, before, rows, section, config.seed)
    pad, stop = context.tokenizer.pad_token_id, section.stop
    looks = looks_of(model, rows, pad, config.every, stop, known)
    held = dict.fromkeys(row.domain for row in rows if row.part == HELD_OUT)
    for domain in (d for d in held if stop and d not in looks.guess):
        context.listener.warn(NO_GUESS.format(domain))
    return looks


def write_looks(
    folder: Path, looks: Looks, rows: Sequence[Seen], warn: Callable[[str], None]
) -> None:
    """Write ``evaluation/steps.json`` of a run, or drop that of others where nothing was seen.

    It is said if the best model that was seen is the one before the training.
    """
    if not rows:
        (folder / manifest.LOOKS).unlink(missing_ok=True)
        return
    kept = looks.kept(rows)
    found = {"rows": list(rows), "kept": kept, "guess": dict(looks.guess)}
    write_json(folder / manifest.LOOKS, found)
    if looks.bounds and not kept:
        warn(NOTHING_TO_DO if {row["step"] for row in rows} == {0} else NOTHING_KEPT)


def guess_domains(folder: Path) -> list[str]:
    """Return the domains whose guess the looks of a run have measured."""
    file = folder / manifest.LOOKS
    return list(read_json(file).get("guess", {})) if file.is_file() else []


def _spread(rows: list[Encoded], most: int) -> list[Encoded]:
    """Return at most so many rows, evenly apart."""
    count = min(most, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]
