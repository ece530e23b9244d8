"""The ``teach`` section: whether the rows are taught to the model first, and how.

A model that the user gives is taken as it is, unless this section is there.
"""

from typing import Any

from grail.config.merge import Sections
from grail.config.values import Count, FilePath, Fraction, Positive, Section, Seed
from grail.errors import InputError

FORMER = "vanilla"
"""What the section was called, with a key ``skip``, when rows were taught unless it said no."""


class Teach(Section):
    """Teach the rows of both sides first, so that there is something to unlearn. null: don't."""

    epochs: Count = 24
    """Upper limit of passes over the rows."""
    learning_rate: Positive = 3e-3
    """Learning rate, constant. Default without an adapter (model.lora: null): 2e-5."""
    batch_size: Count = 16
    """Rows per step."""
    until: Fraction = 0.99
    """Stop once every side's mean token accuracy (0-1) has reached this."""
    include_val: bool = True
    """Train on the val rows too."""
    adapter: FilePath | None = None
    """A trained PEFT adapter folder: what was taught already. Nothing is trained."""
    max_grad_norm: Positive = 1.0
    """Gradient norm to clip at."""
    checkpoint_steps: Count = 20
    """Steps between checkpoints."""
    seed: Seed | None = None
    """Seed of the row order. A number lets runs share the model. null: the run's."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the rows that are taught."""
        return ("train", "val") if self.include_val else ("train",)


def switched(value: Any) -> Any:
    """Take ``teach: true`` as the section with its defaults, and ``false`` as none."""
    return {True: {}, False: None}[value] if isinstance(value, bool) else value


def refuse_old(raw: Sections) -> None:
    """Refuse the section's old name, and say what to write instead."""
    if FORMER not in raw:
        return
    old = raw[FORMER]
    if isinstance(old, dict) and old.get("skip"):
        raise InputError(
            "vanilla.skip: a model is taken as it is now. Leave the section vanilla out."
        )
    raise InputError(
        "vanilla: this section is called teach now. Write teach: and the same keys (or "
        "teach: true) to teach the rows first; without it the model is taken as it is."
    )


def upgraded(raw: Sections) -> Sections:
    """Return the settings of a finished run with its old section as the new one.

    ``audit.lens_rows``, which nothing reads any more, is left out.
    """
    if isinstance(audit := raw.get("audit"), dict):
        raw = raw | {"audit": {key: audit[key] for key in audit if key != "lens_rows"}}
    if not isinstance(raw.get(FORMER), dict):
        return raw
    old = dict(raw[FORMER])
    rest = {key: value for key, value in raw.items() if key != FORMER}
    return {**rest, "teach": None if old.pop("skip", False) else old}
