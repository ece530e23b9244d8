"""What the stages of a run work with, loaded when first needed: tokenizer, model, rows, digests.

Knows no stage, and of the run directory the folders of its models alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from grail import __version__
from grail.config.run import Config
from grail.data.encode import Encoded, Encoder, encode_all
from grail.data.heldout import unseen
from grail.data.samples import CHECK, Sample, grouped
from grail.errors import InputError
from grail.evaluation.evaluate import Evaluator
from grail.files import cached, digest
from grail.localization.reused import check_fit
from grail.model.forward import Policy, is_adapter, positions_of, trainable
from grail.model.load import load_model, load_tokenizer
from grail.model.save import load_weights
from grail.model.sharded_files import load_parts, load_sharded
from grail.model.sources import find
from grail.model.vocabulary import in_full
from grail.model.weights import Weights, copy_weights, fresh_adapter, put_weights
from grail.progress import Listener, NullListener
from grail.run import directory
from grail.run.inputs import Inputs, knows_before
from grail.run.memory import check_room
from grail.run.provenance import model_identity

ROUNDED = (
    "model.dtype: {} weights are trained through float32 copies, and the result is rounded: what "
    "moved by less than they can show ends where it began. Set model.dtype: float32 to keep all."
)
IN_FULL = (
    "model.quantise: {} leaves {} in full: an adapter changes it, or the model uses its weight in "
    "another way than by calling it. Plans count it in 8 bits."
)
FORMAT = 2  # raised when files of an older grail must not be taken for current ones
UNRELATED = (
    "checkpoint_steps",
    "checkpoint_rows",
    "trackers",
    "memory_gib",
)  # settings that do not change what is made
COVERED = ("max_rows", "max_val_rows", "seed", "retain_target", "general_tasks")
COVERED += ("general_max_items",)  # all of them told by what a stage adds


@dataclass
class RunContext:
    """Tokenizer, model and rows of one run.

    The model is one object; stages put the weights of whichever model they are about into it.

    Attributes:
        config: The settings.
        inputs: The rows as they were read.
        listener: Hears warnings.
        device: Where the model lies.
        process: This process's number and how many there are.
        in_parts: Whether each process has a part of the model (FSDP2).
        neighbours: What the model before unlearning says by itself, in ids, once it is written.
    """

    config: Config
    inputs: Inputs
    listener: Listener
    device: torch.device
    process: tuple[int, int] = (0, 1)
    in_parts: bool = False
    neighbours: tuple[Encoded, ...] = ()

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.config.output)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.process[0] == 0

    def take(self, name: str) -> None:
        """Put weights on disk into the model; InputError if they are not as they were written."""
        directory.sound(self.folder / name)
        (load_parts if self.in_parts else load_weights)(self.model, self.folder / name)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.config.model, self.config.adapter)

    @cached_property
    def model(self) -> Policy:
        """The policy, on its device."""
        if self.in_parts:
            return load_sharded(self.config.model, self.config.vanilla_seed, self.device)
        made = load_model(self.config.model, self.config.adapter, self.config.vanilla_seed)
        return made.to(self.device)

    def start_over(self, seed: int) -> None:
        """Put weights into the model as they are before the teaching."""
        fresh = load_model(self.config.model, self.config.adapter, seed)
        put_weights(self.model, dict(fresh.named_parameters()))

    def before(self) -> Weights | None:
        """Return the trainable weights from before the facts were learnt, if they are known."""
        if not knows_before(self.config):
            return None
        on_top = self.config.teaches and find(self.config.model.name).adapter is not None
        if is_adapter(self.model) and not on_top:
            return fresh_adapter(self.model, self.config.seed)
        return copy_weights(load_model(self.config.model, None, 0).to(self.device))

    @cached_property
    def rows(self) -> tuple[Encoded, ...]:
        """All rows with a side, in ids."""
        return self._encoded(self.inputs.samples)

    @cached_property
    def general(self) -> tuple[Encoded, ...]:
        """The general rows, in ids."""
        return self._encoded(self.inputs.general)

    @property
    def measured(self) -> list[Encoded]:
        """All rows that the evaluation measures."""
        return [*self.rows, *self.general, *self.neighbours]

    @property
    def encoder(self) -> Encoder:
        """Turns the rows into ids."""
        data = self.config.data
        return Encoder(self.tokenizer, data.template, data.max_tokens, data.date)

    @cached_property
    def unseen(self) -> frozenset[str]:
        """Keys of the unlearn rows that no training has read."""
        return unseen(self.inputs.samples, self.config.teach)

    @cached_property
    def start(self) -> str:
        """Digest of the identity of the model and adapter that the run starts from."""
        return model_identity(self.config.model.name, self.config.adapter)

    def check(self) -> None:
        """Load tokenizer, rows and model, and refuse rows that the model has no room for."""
        embeddings: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        self.check_rows(embeddings.weight.shape[0], positions_of(self.model.config))
        if (few := self.config.model.quantise) and (whole := in_full(self.model)):
            self.listener.warn(IN_FULL.format(few, " and ".join(whole)))
        if (run := self.config.localization.reused) is not None:
            check_fit(run, self.start, {n: p.shape for n, p in trainable(self.model).items()})
        if any(p.dtype.itemsize < 4 for p in trainable(self.model).values()):
            self.listener.warn(ROUNDED.format(str(self.model.dtype).removeprefix("torch.")))

    def check_rows(self, embedded: int, positions: int | None) -> None:
        """Load tokenizer and rows, and refuse rows that a model of this size has no room for."""
        section = self.config.evaluation
        limit = section.max_new_tokens if section.generate else None
        check_room((*self.rows, *self.general), self.tokenizer, embedded, positions, limit)

    def evaluator(self, generate: bool) -> Evaluator:
        """Return an Evaluator of the model, with or without generations."""
        settings = self.config.evaluation
        return Evaluator(
            *(self.model, self.tokenizer, generate),
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            min_k=settings.min_k,
            show_text=settings.show_text,
        )

    def sides(self) -> dict[tuple[str, str], list[Encoded]]:
        """Train rows by (domain, side)."""
        train = (row for row in self.rows if row.part == "train")
        return grouped(train, lambda row: (row.domain, row.side))

    def key(self, *sections: str, **more: Any) -> str:
        """Digest what a stage depends on: sections of the configuration, and other facts.

        The section ``model`` stands for the base model's files too.
        """
        values = self.config.model_dump(mode="json")
        chosen = {name: values[name] for name in sections}
        for section in chosen.values():
            if isinstance(section, dict):
                for name in UNRELATED + COVERED:
                    section.pop(name, None)
        if "model" in sections:
            more["start"] = self.start
            if self.config.model.quantise is not None:
                more["vocabulary"] = "int8"  # an older grail left it in full
        return digest({"format": FORMAT, "grail": __version__, **chosen, **more})

    def kept(
        self, file: str, key: str, stage: str, make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return what a file of the run directory holds, if made from ``key``; else make it."""
        heard = self.listener
        path = self.folder / file
        return cached(path, key, make, lambda: heard.skipped(stage), heard.warn, self.main)

    def data(self, *parts: str) -> dict[str, str]:
        """Digests of the given parts; general rows and checked ones are parts of their own."""
        places = {sample.place for sample in (*self.inputs.samples, *self.inputs.general)}
        apart = ("general", CHECK)
        names = [str(p) for p in places if (p.side if p.side in apart else p.part) in parts]
        return {name: self.inputs.digests[name] for name in names}

    def _encoded(self, samples: Sequence[Sample]) -> tuple[Encoded, ...]:
        rows, warnings = encode_all(self.encoder, samples)
        for warning in warnings:
            self.listener.warn(warning)
        return tuple(rows)


class _Heard(NullListener):
    """Keeps the warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def check_texts(config: Config, inputs: Inputs) -> list[str]:
    """Check a run's rows as its model will read them, if that is a folder here; loads no weights.

    Return warnings about what ``data.max_tokens`` cuts. InputError as ``RunContext.check``.
    """
    from transformers import AutoConfig

    place = Path(find(config.model.name).base)
    if not place.is_dir():
        return []
    try:
        architecture: Any = AutoConfig.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise InputError(f"model.name: {place}/config.json cannot be read ({error}).") from error
    listener = _Heard()
    context = RunContext(config, inputs, listener, torch.device("cpu"))
    context.check_rows(architecture.get_text_config().vocab_size, positions_of(architecture))
    return listener.warnings
