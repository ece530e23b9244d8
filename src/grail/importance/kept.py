"""The running sums of a side that is half scored, on disk: after a kill, scoring goes on there."""

from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import gather_object
from safetensors import safe_open
from torch import Tensor

from grail.artifacts import STATISTICS, check, write_sealed
from grail.errors import InputError
from grail.files import digest
from grail.importance.sums import Sums
from grail.model.sharded import write_tensors


@dataclass(frozen=True)
class Kept:
    """Where the sums are kept, by every process its own.

    Attributes:
        folder: The folder; whoever makes it drops it once the scores are written.
        inputs: Digest of what the scores depend on.
        rows: How many rows all processes score between two writings.
        parts: Whether each process has a part of the model: then all go on from the same batch.
    """

    folder: Path
    inputs: str
    rows: int
    parts: bool = False

    def save(self, sums: Sums, batches: int, process: tuple[int, int]) -> None:
        """Write the sums as they are after so many batches of this process."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = _named(sums)
        about = {"inputs": self._key(sums, process), "samples": str(sums.samples)}
        write_sealed(
            self._file(sums, process),
            lambda file, texts: write_tensors(file, own, own, texts),
            about | {"batches": str(batches)},
        )

    def load(self, sums: Sums, process: tuple[int, int]) -> int:
        """Put what was kept of the same inputs into the sums; return the batches that are in them.

        The parts of a model begin anew where they were not killed after the same batch.
        """
        path = self._file(sums, process)
        try:
            about = check(path)
        except InputError:  # there is none, or it is not as it was written
            about = {}
        whole = about.get("inputs") == self._key(sums, process)
        batches = int(about["batches"]) if whole else 0
        if self.parts and len(set(gather_object([batches]))) > 1:
            return 0
        if batches:
            with safe_open(str(path), "pt") as file:
                for name, value in _named(sums).items():
                    value.copy_(file.get_tensor(name))
            sums.samples = int(about["samples"])
        return batches

    def _file(self, sums: Sums, process: tuple[int, int]) -> Path:
        return self.folder / f"{digest(sorted(sums.total))[:12]}.{process[0]}.safetensors"

    def _key(self, sums: Sums, process: tuple[int, int]) -> str:
        shapes = {name: list(value.shape) for name, value in sums.total.items()}
        return digest([self.inputs, shapes, process])


def _named(sums: Sums) -> dict[str, Tensor]:
    pairs = zip(STATISTICS, sums.by_statistic(), strict=True)
    return {f"{n}.{statistic}": value for statistic, of in pairs for n, value in of.items()}
