"""Stage 1: how important each entry is for one side of one domain (paper, Eq. 3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from grail.artifacts import STATISTICS, Scores
from grail.data.batches import Batch, by_tokens, collate
from grail.data.encode import Encoded
from grail.data.labels import RandomLabels
from grail.errors import InputError
from grail.importance.expected import ExpectedNll
from grail.importance.gradients import TokenLoss, add_by_batch, add_by_loop, nll_of_targets
from grail.importance.kept import Kept
from grail.importance.kernel_choice import choose_kernel
from grail.importance.sums import Sums, passes
from grail.model.forward import Policy, device_of, trainable
from grail.model.sharded import is_sharded
from grail.progress import Tick, silent


@dataclass(frozen=True)
class Scorer:
    """Scores the trainable parameters of a model on rows of one side.

    Attributes:
        model: The model; its trainable parameters are scored.
        random_labels: Draws the substituted labels (not called for ``labels: true``).
        pad: Padding token id.
        labels: "random", "true", or "expected" (the limit of infinitely many random trials).
        trials: Draws per sample; with true and expected labels one is enough.
        gradients: "batched", or "loop": one backward pass per sample and trial.
        batch_tokens: The most tokens of a batch, trials included.
        memory_gib: The most that the running sums may take, in GiB; None: no limit.
        kernel: "bmm", "triton", or "auto"; see ``choose_kernel``.
        process: This process's number and how many there are: each scores its batches, and the
            sums of all are added up.
    """

    model: Policy
    random_labels: RandomLabels
    pad: int
    labels: str = "random"
    trials: int = 3
    gradients: str = "batched"
    batch_tokens: int = 2048
    memory_gib: float | None = None
    kernel: str = "auto"
    process: tuple[int, int] = (0, 1)

    def check(self, rows: Sequence[Encoded] = ()) -> None:
        """Refuse settings that this model cannot be scored with, by scoring a few rows batched."""
        groups = passes(trainable(self.model), self.memory_gib)
        choose_kernel(self.kernel, device_of(self.model))
        if self.gradients == "loop" and is_sharded(self.model):
            raise InputError(
                "importance.gradients: loop cannot score a model in parts (FSDP2). Use batched."
            )
        if self.gradients == "batched" and rows:
            for parameters in groups:
                self._score_group(rows, Sums.zeros(parameters), lambda _: None)

    def score(
        self, rows: Sequence[Encoded], tick: Tick = silent, kept: Kept | None = None
    ) -> Scores:
        """Return the statistics over ``rows``, in one pass per group of parameters.

        Of a model in parts, they are those of this process's part. With ``kept``, the running sums
        are written now and then, and scoring goes on from what was kept: equal to the bit.
        """
        groups = passes(trainable(self.model), self.memory_gib)
        found: dict[str, dict[str, Tensor]] = {name: {} for name in STATISTICS}
        for number, parameters in enumerate(groups):

            def scored(samples: int, before: int = number * len(rows)) -> None:
                tick(before + samples, len(rows) * len(groups), "rows scored")

            part = self._score_group(rows, Sums.zeros(parameters), scored, kept)
            for name in STATISTICS:
                found[name].update(getattr(part, name))
        return Scores(**found, samples=len(rows))

    def _score_group(
        self,
        rows: Sequence[Encoded],
        sums: Sums,
        scored: Callable[[int], None],
        kept: Kept | None = None,
    ) -> Scores:
        """Return the statistics of the parameters in ``sums``."""
        loss: TokenLoss = nll_of_targets
        if self.labels == "expected":
            loss = ExpectedNll(self.random_labels)
        groups = self._shares(rows)
        first = kept.load(sums, self.process) if kept else 0
        several = len(sums.total) < len(trainable(self.model))  # a pass that is done is kept, too
        written = groups[first - 1][2] if first else 0
        kernel = choose_kernel(self.kernel, device_of(self.model))
        for number, (group, sums.idle, done) in enumerate(groups[first:], first + 1):
            if self.gradients == "loop":
                batches = [self._batch([trial]) for trial in self.drawn(group[0])]
                add_by_loop(self.model, batches, sums, loss)
            else:
                batch = self._batch([trial for row in group for trial in self.drawn(row)])
                add_by_batch(self.model, batch, self.draws, sums, loss, kernel)
            if kept and (done - written >= kept.rows or (several and number == len(groups))):
                kept.save(sums, number, self.process)
                written = done
            scored(done)
        if self.process[1] > 1:
            sums.over_processes(len(rows))
        return sums.scores()

    def _shares(self, rows: Sequence[Encoded]) -> list[tuple[list[Encoded], bool, int]]:
        """Return this process's batches; whether each is idle; and the rows that are done after it.

        The batches are those of one process, dealt out in turn, and all processes' rows are counted
        round by round: they agree on when to keep their sums. The parts of a model must do as many
        passes: whoever has a batch less repeats one, idle, to keep step with the others.
        """
        if self.gradients == "loop":
            groups = [[row] for row in rows]
        else:
            groups = by_tokens(rows, self.batch_tokens, copies=self.draws)
        index, count = self.process
        done = [sum(map(len, groups[: first + count])) for first in range(0, len(groups), count)]
        own = [(group, False) for group in groups[index::count]]
        if is_sharded(self.model) and len(own) < len(done):
            own.append((groups[0], True))
        return [(*batch, rows_done) for batch, rows_done in zip(own, done, strict=False)]

    @property
    def draws(self) -> int:
        """How often each sample is scored: true and expected labels do not vary."""
        return self.trials if self.labels == "random" else 1

    def drawn(self, row: Encoded) -> list[Encoded]:
        """Return the row with the labels of each trial."""
        if self.labels != "random":
            return [row]
        return [self.random_labels.draw(row, trial) for trial in range(self.trials)]

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        return collate(rows, self.pad, device_of(self.model))
