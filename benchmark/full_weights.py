"""All weights: which update keeps taught facts away under attack, at equal harm?

Usage: python benchmark/full_weights.py [--seeds 0 1 2] [--work DIR]

The demo's rows are taught to all weights. Each method is taken as a direction: its unlearned
weights less the vanilla ones, or a gradient whose spectrum is damped (RepSelect, arXiv 2606.17168).
Every direction is followed until general text is as far from the vanilla model as each of
``BUDGETS`` says; there the model relearns as in ``grail audit``, and the worst case over rates and
numbers of steps is kept. ``closed`` is the share of the gap between bounded ascent and the oracle
of the seed that a method closes under attack. Writes results/full_weights.json.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from intervals import keep, line
from lasting import copy_run
from opened import knows, opened
from torch import Tensor
from torch.nn.functional import log_softmax

from grail.audit.attacks.attackers import Attacker
from grail.audit.attacks.relearn import batches, descend, few, other
from grail.audit.context import AuditContext
from grail.data.batches import collate
from grail.data.encode import Encoded
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.values import to_results
from grail.model.forward import Policy, answer_logits, evaluating
from grail.model.save import load_weights
from grail.model.weights import copy_weights, put_weights
from grail.training.descent import DescentTask

BUDGETS = (0.03, 0.1)
"""KL of general text from the vanilla model, in nats per token."""
GENERAL, SIZE = 24, 4
"""General val rows that are read, and rows of a batch."""
ATTACKERS = (Attacker(5e-6), Attacker(2e-5), Attacker(8e-5), Attacker(2e-3, "adapter"))
STEPS = (10, 20)
COMMON = (
    *("model.lora=null", "data.max_rows=12", "data.max_val_rows=6", "evaluation.generate=false"),
    *("teach.learning_rate=5e-5", "unlearning.epochs=8"),
)
"""Settings over the demo's: half of its rows, because steps of all weights take long on a CPU."""
METHODS = {
    "bounded ascent": ["preset=no-mask-plus", "unlearning.batch_size=4"],
    "reset all, heal": [
        *("preset=reset-all", "unlearning.rewrites=0"),
        *("unlearning.guesses=0", "unlearning.examples=0"),
    ],
    "exact": ["preset=exact"],
}
"""Method -> further settings."""
MOST = 1024.0
"""The longest multiple of a way that is tried."""
REPSELECT, QUEUE = "repselect", 48
"""Name of the damped gradient, and the most singular values that are damped."""
Direction = Mapping[str, Tensor]

TITLE = "All weights, at equal change of general text"
COLUMNS = {
    "Known as it is": "known",
    "after relearning, a tenth": "few",
    "other questions": "other",
    "gap closed, a tenth": "closed few",
    "gap closed, other questions": "closed other",
    "Retain, train": "retain train",
    "Retain, val": "retain val",
    "General text, nats": "general NLL",
    "from vanilla, nats": "general KL",
}
NOTE = (
    "Percent of the unlearn train rows' answer tokens that the model gets right; relearning: the "
    "worst of three rates of all weights and one of an adapter, after 10 and 20 steps; gap closed: "
    "percent of what lies between bounded ascent and the oracle."
)


def main() -> None:
    """Make each seed's models, follow each direction, attack, and write the result file."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/full"))
    options = parser.parse_args()
    settings = {"command": "python benchmark/full_weights.py", "methods": METHODS}
    settings |= {"budgets": BUDGETS, "attackers": [a.name for a in ATTACKERS]}
    for seed in options.seeds:
        folders = {name: _made(options.work / str(seed), name, seed) for name in METHODS}
        found = list(measured(folders, seed))
        print(f"wrote {keep('full_weights', settings, found)}", flush=True)


def _made(work: Path, method: str, seed: int) -> Path:
    folder = work / method.replace(" ", "-").replace(",", "")
    first = work / next(iter(METHODS)).replace(" ", "-")
    if not folder.exists() and first.exists():
        copy_run(first, folder)
    command = [sys.executable, "-m", "grail", "demo", "--json", "--output", str(folder)]
    for setting in (*COMMON, f"seed={seed}", *METHODS[method]):
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def measured(folders: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
    """Yield a line for the vanilla model, the oracle, and each method at each budget."""
    bed = Bed(folders["bounded ascent"])
    yield line("vanilla", seed, bed.values(attacked=False))
    oracle = bed.of(folders["exact"], attacked=True)
    yield line("exact", seed, oracle)
    ascent: dict[float, dict[str, float]] = {}
    for method in (*(name for name in METHODS if name != "exact"), REPSELECT):
        if method == REPSELECT:
            put_weights(bed.model, bed.vanilla)
            rows = bed.context.all_rows("unlearn", "train")
            way: Direction = repselect(bed.model, rows, bed.pad, seed)
        else:
            yield line(f"{method}, whole", seed, bed.of(folders[method], attacked=False))
            way = {n: w - bed.vanilla[n] for n, w in copy_weights(bed.model).items()}
        for budget in BUDGETS:
            share = follow(bed.model, bed.vanilla, way, bed.distance, budget)
            found = bed.values(attacked=True) | {"share": share}
            start = ascent.setdefault(budget, found)
            for kind in ("few", "other"):
                gap = start[kind] - oracle[kind]
                found[f"closed {kind}"] = 100 * (start[kind] - found[kind]) / gap
            print(method, budget, found, flush=True)
            yield line(f"{method} at {budget:g}", seed, found)


class Bed:
    """A seed's model, its rows, and the vanilla weights that all is compared with."""

    def __init__(self, folder: Path) -> None:
        run = opened(folder)
        self.context = AuditContext(run, run.config.audit, {})
        self.model, self.pad = run.model, run.tokenizer.pad_token_id
        general = [row for row in run.general if row.part == "val"][:GENERAL]
        self.rows = [*run.rows, *general]
        self.evaluator = Evaluator(self.model, run.tokenizer, generate=False)
        load_weights(self.model, folder / "vanilla")
        self.vanilla = copy_weights(self.model)
        self.distance = distance_from(self.model, general, self.pad)

    def of(self, folder: Path, attacked: bool) -> dict[str, float]:
        """Load a run's unlearned model and return its values."""
        load_weights(self.model, folder / "unlearned")
        return self.values(attacked)

    def values(self, attacked: bool) -> dict[str, float]:
        """Return what the model knows as it is now, and after the worst relearning."""
        found = knows(to_results(self.evaluator.run("", self.rows)))
        made = {"known": found["unlearn train"], "general KL": self.distance()}
        made |= {key: found[key] for key in ("retain train", "retain val", "general NLL")}
        return made | (relearnt(self.context, self.evaluator) if attacked else {})


def distance_from(model: Policy, rows: Sequence[Encoded], pad: int) -> Callable[[], float]:
    """Return a function: the KL of the model as it is now from the model as it was, on rows.

    Nats per answer token, KL(as it was || as it is).
    """
    pieces = [collate(rows[first : first + SIZE], pad) for first in range(0, len(rows), SIZE)]

    @torch.no_grad()
    def logs() -> list[Tensor]:
        with evaluating(model):
            return [log_softmax(answer_logits(model, p).float(), -1) for p in pieces]

    before = logs()

    def distance() -> float:
        pairs = zip(before, logs(), strict=True)
        sums = [(p.exp() * (p - q)).sum(-1) for p, q in pairs]
        return float(torch.cat(sums).mean())

    return distance


def follow(
    model: Policy,
    vanilla: Direction,
    way: Direction,
    distance: Callable[[], float],
    budget: float,
) -> float:
    """Put vanilla + share * way into the model and return the share at which KL is the budget.

    Found by doubling or halving from 1, then bisection of the logarithm to 3 %.

    Raises:
        ValueError: If the KL is no number, or does not reach the budget within ``MOST`` ways.
    """

    def at(share: float) -> float:
        put_weights(model, {n: w.lerp(w + way[n], share) for n, w in vanilla.items()})
        if share > MOST or not math.isfinite(far := distance()):
            raise ValueError(f"no share of this way up to {MOST:g} is {budget:g} nats away")
        return far

    low = high = 1.0
    while at(low) > budget:
        low, high = low / 2, low
    while at(high) <= budget:
        low, high = high, high * 2
    while high / low > 1.03:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if at(middle) <= budget else (low, middle)
    at(low)
    return low


def repselect(model: Any, rows: Sequence[Encoded], pad: int, seed: int) -> dict[str, Tensor]:
    """Return the ascent gradient of the MLPs against an attacker, its top directions damped.

    An adapter relearns the rows for a pass by SGD; the gradient of the rows' NLL is then taken for
    the weights under it. Each of the largest singular values of a matrix becomes the smallest of
    them (one side of RepSelect; damping both sides would turn their order round).
    """
    steps = batches(rows, SIZE, -(-len(rows) // SIZE), seed)
    attacker = Attacker(1e-4, "adapter", "sgd")
    ways = {n: torch.zeros_like(w) for n, w in copy_weights(model).items()}
    weights = {n: p for n, p in model.named_parameters() if n in ways}
    matrices = {n for n, w in weights.items() if ".mlp." in n and w.dim() == 2}
    for _ in descend(model, steps, attacker, [len(steps)], seed, pad):
        for name in matrices:
            weights[name].requires_grad_(True)
        for own in (rows[first : first + SIZE] for first in range(0, len(rows), SIZE)):
            DescentTask(model, tuple(own), pad).run(own, own).loss.backward()
        for name in matrices:
            ways[name] = damped(weights[name].grad.float())
            weights[name].grad = None
    length = sum(float(way.square().sum()) for way in ways.values()) ** 0.5
    return {name: way / length for name, way in ways.items()}


def damped(gradient: Tensor) -> Tensor:
    """Return a matrix whose ``QUEUE`` largest singular values are about as large as the last.

    They are found by subspace iteration, to some percent where the spectrum is flat.
    """
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(gradient, q=QUEUE, niter=4)
    torch.random.set_rng_state(generator_state)
    return gradient - (u * (s - s[-1])) @ v.T


def relearnt(context: AuditContext, evaluator: Evaluator) -> dict[str, float]:
    """Return what is known of the unlearn train rows after the worst relearning of each kind."""
    model, pad = context.run.model, context.run.tokenizer.pad_token_id
    worst = {}
    for split in (few, other):
        taught, asked = split(context)
        steps = batches(taught, SIZE, STEPS[-1], context.seed)
        found = [
            knows(to_results(evaluator.run("", asked)))["unlearn train"]
            for attacker in ATTACKERS
            for _ in descend(model, steps, attacker, STEPS, context.seed, pad)
        ]
        worst[split.__name__] = max(found)
    return worst


if __name__ == "__main__":
    main()
