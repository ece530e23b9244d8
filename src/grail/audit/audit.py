"""The audit in order: measure, attack, measure again, look inside; then one file of findings.

What is on disk already, from the same weights, rows and settings, is not done again. The files of
the run stay as they are: all goes to ``audit/`` and ``audit.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from grail.artifacts import read_mask
from grail.audit.attacks.table import ATTEMPTS, Attempt
from grail.audit.bench import Bench
from grail.audit.findings import Measured, findings
from grail.audit.inside import chosen, inside
from grail.audit.subject import Subject, finished, oracle_for
from grail.errors import DivergenceError
from grail.evaluation.evaluate import read_values, write_values
from grail.files import digest, file_digest, write_json, write_text
from grail.model.save import load_weights
from grail.model.weights import copy_weights
from grail.progress import Listener, NullListener
from grail.reporting.audit.tables import audit_markdown, audit_section
from grail.reporting.audit.verdict import verdict
from grail.run import directory
from grail.run.context import RunContext
from grail.training.accelerator import make_accelerator

FILE = "audit.json"


def audit_run(
    folder: Path,
    oracle: Path | None = None,
    overrides: Sequence[str] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Audit a finished run and return what ``audit.json`` then holds.

    Args:
        folder: The run directory.
        oracle: The directory of a run of objective ``exact`` on the same model and data.
        overrides: ``audit.KEY=VALUE``, over what the run's ``config.yaml`` says.
        listener: Who hears of the attacks and their progress.

    Raises:
        InputError: if the run is not finished, or the oracle is not one of this run.
    """
    subject = finished(folder, overrides)
    beside = None if oracle is None else oracle_for(subject, oracle)
    return Auditor(subject, beside, listener or NullListener()).run()


@dataclass
class Auditor:
    """One audit: whose, beside which oracle, and who listens."""

    subject: Subject
    oracle: Subject | None
    listener: Listener
    held: str = field(default="", init=False)

    def __post_init__(self) -> None:
        subject, accelerator = self.subject, make_accelerator()
        device = accelerator.device
        self.context = RunContext(subject.config, subject.inputs, self.listener, device)
        self.bench = Bench(self.context, subject.config.audit, accelerator, self._ends)

    def run(self) -> dict[str, Any]:
        """Do what is missing and write ``audit.json`` and ``audit/report.md``."""
        folder = self.subject.folder
        with directory.alone(folder):
            measured: Measured = {}
            skipped: list[dict[str, str]] = []
            for name, attempt in self._asked().items():
                if why := attempt.why_not(self.bench):
                    skipped.append({"attack": name, "reason": why})
                    continue
                for model in [model for model in attempt.models if model in self._models()]:
                    self._attempt(name, attempt, model, measured, skipped)
            found = self._findings(measured, skipped)
            write_json(folder / FILE, found)
            write_text(folder / "audit" / "report.md", audit_markdown(audit_section(found)))
        return found

    def _asked(self) -> dict[str, Attempt]:
        attacks = self.subject.config.audit.attacks
        return {n: a for n, a in ATTEMPTS.items() if not a.kind or a.kind in attacks}

    def _models(self) -> dict[str, tuple[Path, str]]:
        """Return the models that are measured: name -> (folder, digest of the weights).

        A run that is an oracle itself needs no other beside it.
        """
        models = {
            name: (self.subject.folder / name, weights)
            for name, weights in self.subject.weights.items()
        }
        if self.oracle is not None:
            weights = self.oracle.weights["unlearned"]
            models["oracle"] = (self.oracle.folder / "unlearned", weights)
        return models

    def _attempt(
        self,
        name: str,
        attempt: Attempt,
        model: str,
        measured: Measured,
        skipped: list[dict[str, str]],
    ) -> None:
        """Measure one model under one attack, or take what was measured before."""
        path = self.subject.folder / "audit" / f"{model}.{name}.json"
        key = self._key(name, attempt, model)
        found = read_values(path, key)
        if found is not None:
            self.listener.skipped(f"audit {model}: {name}")
        else:
            try:
                with self.listener.stage(f"audit {model}: {name}") as tick:
                    self._take(model)
                    found = attempt.run(self.bench, tick)
            except DivergenceError as error:
                if not attempt.kind:  # the run's own model is broken: nothing can be said of it
                    raise
                why = f"the attacked model broke: {str(error).split('. ')[0]}"
                skipped.append({"attack": f"{name} on {model}", "reason": why})
                return
            write_values(path, found, key)
        for value in found:
            measured.setdefault((model, name, value.model), []).append(value)

    def _key(self, name: str, attempt: Attempt, model: str) -> str:
        """Digest all that a measurement depends on."""
        config, bench = self.subject.config, self.bench
        settings = config.audit.model_dump(mode="json")
        reads = ("max_rows", "generate", *attempt.reads)
        rate = config.unlearning.learning_rate if "relearn" in attempt.reads else None
        weights = {key: value for key, (_, value) in self._models().items()}
        inputs = self.subject.inputs
        samples = [s for s in (*inputs.samples, *inputs.general) if s.paraphrases]
        others = {sample.key: sample.paraphrases for sample in samples}
        return self.context.key(
            "model",
            "data",
            "evaluation",
            attack=name,
            weights=[weights[model], weights["vanilla"] if name == "interpolate" else None],
            rows=inputs.digests,
            chosen=digest([row.key for row in bench.rows]),
            settings={key: settings[key] for key in reads} | {"rate": rate},
            draws=bench.seed,
            paraphrases=others if name == "paraphrase" else None,
        )

    def _findings(self, measured: Measured, skipped: list[dict[str, str]]) -> dict[str, Any]:
        """Return the content of ``audit.json``: no path and no time, so that equal audits agree."""
        config = self.subject.config
        itself = self.subject.is_oracle and self.oracle is None
        oracle = "itself" if itself else "given" if self.oracle is not None else None
        found = {
            "weights": {name: weights for name, (_, weights) in self._models().items()},
            "run": {
                "model": config.model.name,
                "objective": config.unlearning.objective,
                "localizer": config.localization.method,
                "seed": config.seed,
            },
            "oracle": oracle,
            "settings": config.audit.model_dump(mode="json"),
            "skipped": skipped,
            "measured": findings(measured, oracle),
            "inside": self._inside(),
        }
        return found | verdict(found)

    def _inside(self) -> dict[str, Any]:
        """Look into the models, or take what was seen before."""
        path = self.subject.folder / "audit" / "inside.json"
        mask = self.subject.folder / "mask.safetensors"
        models = self._models()
        rows = {".".join(place): [r.key for r in own] for place, own in chosen(self.bench).items()}
        key = self.context.key(
            "model",
            "data",
            weights={name: weights for name, (_, weights) in models.items()},
            mask=file_digest(mask),
            rows=self.subject.inputs.digests,
            chosen=rows,
        )
        found = _read(path, key)
        if found is not None:
            self.listener.skipped("audit inside")
            return found
        with self.listener.stage("audit inside") as tick:
            frozen = read_mask(mask).frozen
            found = inside(self.bench, tuple(models), self._take, frozen, tick)
        write_json(path, {"inputs": key, "found": found})
        return found

    # -- models --------------------------------------------------------------------------------

    def _take(self, model: str) -> None:
        """Let the bench's model be one of the models."""
        if self.held != model:
            self.held = ""
            load_weights(self.context.model, self._models()[model][0])
            self.held = model

    def _ends(self, model: str) -> dict[str, Tensor]:
        self._take(model)
        return copy_weights(self.context.model)


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """Return what was seen before; None if it is absent, damaged or of other inputs."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept["found"] if kept["inputs"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
