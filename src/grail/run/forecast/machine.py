"""Time a few real batches of each kind of work, and read off the process's memory."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from grail.config.run import Config
from grail.data.batches import by_tokens
from grail.data.encode import Encoded
from grail.evaluation.evaluate import BATCH_TOKENS
from grail.importance import sums
from grail.model.forward import in_mode, trainable
from grail.model.generate import generate
from grail.progress import Listener
from grail.run.context import RunContext
from grail.run.forecast.cost import Shape, shape_of
from grail.run.forecast.pieces import Pieces, hashing
from grail.run.forecast.work import prompt_batches, step_costs, tokens_of
from grail.run.inputs import Inputs
from grail.run.trainings import run_scorer, unlearn_training, vanilla_training

BATCHES, ENOUGH = 3, 10.0
"""Batches that are timed of each kind; none is begun after this many seconds."""
DECODED = 16
"""Decoding steps that are timed of a batch."""

Range = tuple[float, float]
"""From and to."""
Step = tuple[float, float]
"""The tokens of a timed batch, as ``Work`` counts them, and the seconds it took."""


@dataclass(frozen=True)
class Timing:
    """A model and rows, and this machine as timed with them: enough to plan many runs.

    Attributes:
        context: The run that was timed.
        shape: Its model in numbers.
        paces: Kind of work -> seconds per token: of the fastest timed batch, and the slowest.
        peaks: Kind -> the most memory in bytes that the process had until it was timed.
        loaded: The same once the model was loaded.
        loading: Seconds that loading the model took.
        rates: Seconds for an entry or a byte of what does not go through the model, by its name and
            settings; each is timed when it is first asked for.
    """

    context: RunContext
    shape: Shape
    paces: dict[str, Range]
    peaks: dict[str, int]
    loaded: int
    loading: float
    rates: dict[str, Range] = field(default_factory=dict)

    def rate(self, piece: Callable[..., Pieces], config: Config, *sections: Any) -> Range:
        """Return the seconds for an entry of ``choosing``, ``surviving`` or ``stepping``.

        ``sections`` are those of the configuration that decide how long it takes.
        """
        key = f"{piece.__name__} {len(config.domains)} {sections}"
        if key not in self.rates:
            self.rates[key] = pace_of(piece(self.context.model, config, _timed))
        return self.rates[key]

    @property
    def hashing(self) -> Range:
        """Seconds for a byte that is hashed."""
        if "hashing" not in self.rates:
            self.rates["hashing"] = pace_of(hashing(_timed))
        return self.rates["hashing"]


def measure(config: Config, inputs: Inputs, listener: Listener) -> Timing:
    """Load the model and time this machine with it; changes no weight and writes nothing."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    context = RunContext(config, inputs, listener, device or torch.device("cpu"))
    libraries, paces, peaks = peak_memory(context.device), dict[str, Range](), dict[str, int]()
    with listener.stage("measure") as tick:
        loading, shape = _timed(lambda: shape_of(context.model))
        loaded = max(peak_memory(context.device), libraries + shape.bytes)
        for kind, steps in STEPS.items():
            paces[kind], peaks[kind] = pace_of(steps(context)), peak_memory(context.device)
            context.model.zero_grad(set_to_none=True)
        tick(1, 1, "done")
    return Timing(context, shape, paces, peaks, loaded, loading)


def pace_of(steps: Iterator[Step]) -> Range:
    """Return the seconds per token of the fastest and of the slowest step."""
    paces, spent = list[float](), 0.0
    for tokens, seconds in steps:
        paces.append(seconds / tokens)
        spent += seconds
        if spent > ENOUGH:
            break
    return min(paces), max(paces)


def _train(context: RunContext) -> Iterator[Step]:
    config = context.config
    by_side = config.localization.freeze == "by_side"
    trainings = [(unlearn_training(context, by_side), step_costs(config.unlearning))]
    if config.teaches:
        trainings.append((vanilla_training(context), {}))
    for (task, _), costs in trainings:

        def run(step: Sequence[Encoded], task: Any = task) -> None:
            for _, rows in task.groups(step):
                if rows:
                    task.run(rows, step).loss.backward()

        with in_mode(context.model, training=True):
            for step in _spread(task.plan(0)):
                tokens = sum(len(row.ids) * costs.get(row.side, 1.0) for row in step)
                yield tokens, _timed(run, step)[0]


def _score(context: RunContext) -> Iterator[Step]:
    scorer, settings = run_scorer(context), context.config.importance
    score_passes = len(sums.passes(trainable(context.model), settings.memory_gib))
    for rows in _spread(list(context.sides().values())):
        batch = by_tokens(rows, settings.batch_tokens, copies=scorer.draws)[-1]
        yield tokens_of(batch) * scorer.draws * score_passes, _timed(scorer.score, batch)[0]


def _read(context: RunContext) -> Iterator[Step]:
    evaluator = context.evaluator(generate=False)
    for batch in _spread(by_tokens([*context.rows, *context.general], BATCH_TOKENS)):
        yield tokens_of(batch), _timed(evaluator.run, "plan", batch)[0]


def _write(context: RunContext) -> Iterator[Step]:
    for batch in _spread(prompt_batches(context.config, context.rows)):
        prompts, limits = [row.ids[: row.start] for row in batch], [1 + DECODED] * len(batch)
        seconds, texts = _timed(generate, context.model, prompts, limits, context.tokenizer)
        steps = min(DECODED, max(map(len, texts)))  # they may all have ended before
        yield sum(len(prompt) + steps for prompt in prompts), seconds


STEPS: dict[str, Callable[[RunContext], Iterator[Step]]] = {
    "read": _read,
    "write": _write,
    "train": _train,
    "score": _score,
}
"""Kind -> its timed steps. A process keeps its peak, so that what takes less memory comes first."""


def peak_memory(device: torch.device) -> int:
    """Return the most memory in bytes that this process has had so far; 0 where unknown.

    On CUDA it is that of the GPU.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if os.name != "posix":
        return 0
    if (status := Path("/proc/self/status")).is_file():  # rusage keeps the peak of the parent's
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _spread(batches: Sequence[Any]) -> Sequence[Any]:
    """Return up to ``BATCHES`` of the batches, evenly spread, the last one first."""
    return batches[:: -max(1, -(-len(batches) // BATCHES))]


def _timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return the seconds that a call takes, on an accelerator to its end, and what it returns."""
    wait = torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None
    wait()
    began = time.perf_counter()
    result = call(*arguments)
    wait()
    return time.perf_counter() - began, result
