"""The audit: measure, attack and measure again, judge; then one file of findings.

A measurement on disk with the same weights, rows and settings is not repeated. The files of the
run stay as they are; the audit writes ``audit/`` and ``audit.json``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grail.artifacts import read_mask
from grail.audit.attacks.registry import PLAIN, Attack, attacks_of
from grail.audit.context import AuditContext
from grail.audit.distances import distances
from grail.audit.findings import AttackValues, findings
from grail.audit.runs import FinishedRun, read_oracle, read_run
from grail.data.heldout import HELD_OUT
from grail.errors import DivergenceError, InputError, reading
from grail.evaluation.values import values_in
from grail.files import digest, file_digest, read_json, write_json, write_text
from grail.progress import Listener, NullListener
from grail.reporting.audit.knowledge import AUDIT_FORMAT
from grail.reporting.audit.moved import moved_sentence, moved_tables
from grail.reporting.audit.tables import audit_markdown, audit_section
from grail.reporting.audit.verdict import audit_verdict
from grail.results import GUESS
from grail.run import lock, manifest
from grail.run.context import RunContext
from grail.run.provenance import software
from grail.training.accelerator import in_parts, make_accelerator

FILE = "audit.json"
_COPIED = f"audit/{GUESS}.{PLAIN}.json"


def audit_run(
    folder: Path,
    oracle: Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    listener: Listener | None = None,
) -> dict[str, Any]:
    """Audit a finished run and return the content of ``audit.json``.

    ``oracle`` is the directory of a run of objective ``exact`` on the same model and data;
    ``overrides`` are ``audit.KEY=VALUE`` texts, or ``{"audit": {...}}``, over those of
    ``config.yaml``.

    Raises:
        InputError: if the run is not finished, or the oracle does not fit it.
    """
    if in_parts():
        raise InputError(
            "grail audit needs the whole model in one process: its attacks compress, prune and "
            "train it. Run it without accelerate launch, or with --num_processes 1."
        )
    run = read_run(folder, overrides)
    oracle_run = None if oracle is None else read_oracle(run, oracle)
    heard = listener or NullListener()
    with lock.alone(folder):
        manifest.discard(folder, heard.warn, *manifest.AUDIT)
        found = Auditor(run, oracle_run, heard).run_all()
        manifest.record(folder, *manifest.AUDIT)
        return found


class Auditor:
    """One audit: the models, and what was measured so far."""

    def __init__(self, run: FinishedRun, oracle: FinishedRun | None, listener: Listener) -> None:
        self.run, self.oracle, self.listener = run, oracle, listener
        self.weights = dict(run.weights)
        folders = {name: run.folder / name for name in run.weights}
        if oracle is not None:
            self.weights["oracle"] = oracle.weights["unlearned"]
            folders["oracle"] = oracle.folder / "unlearned"
        device = make_accelerator().device
        context = RunContext(run.config, run.inputs, listener, device)
        self.context = AuditContext(context, run.config.audit, folders)
        self.values: AttackValues = {}
        self.skipped: list[dict[str, str]] = []

    def run_all(self) -> dict[str, Any]:
        """Measure what is missing; write and return ``audit.json``, write ``audit/report.md``."""
        attacks: dict[str, Attack] = {}
        for name, attack in attacks_of(self.context):
            if not (why := attack.why_not(self.context)):
                attacks[name] = attack
            elif (skipped := {"attack": name.partition("@")[0], "reason": why}) not in self.skipped:
                self.skipped.append(skipped)
        for model in self.weights:  # each is loaded once
            for name, attack in attacks.items():
                if model in attack.models:
                    self._attack(name, attack, model)
        self._guess()
        audit = self._figures()
        audit |= audit_verdict(audit) | {"made_with": software()}
        write_json(self.run.folder / FILE, audit)
        report = audit_markdown(audit_section(audit))
        write_text(self.run.folder / "audit" / "report.md", report)
        return audit

    def _attack(self, name: str, attack: Attack, model: str) -> None:
        """Measure one model under one attack, or read what was measured before."""
        file, stage = f"audit/{model}.{name}.json", f"audit {model}: {name}"

        def measure() -> dict[str, Any]:
            with self.listener.stage(stage) as tick:
                self.context.load(model)
                return {"values": [v.as_json() for v in attack.run(self.context, tick)]}

        try:
            key = self._key(name, attack, model)
            stored = self.context.run.kept(file, key, stage, measure)
        except DivergenceError as error:
            if not attack.kind:  # the run's own model is broken
                raise
            why = f"the attacked model broke: {str(error).split('. ')[0]}"
            self.skipped.append({"attack": f"{name} on {model}", "reason": why})
            return
        for value in values_in(self.run.folder / file, stored, some=name == PLAIN):
            self.values.setdefault((model, name, value.model), []).append(value)

    def _guess(self) -> None:
        """Put what the run has measured of a model that never knew where there is no oracle."""
        copy, source = (self.run.folder / name for name in (_COPIED, manifest.GUESSED))
        if self.oracle is not None or self.run.is_oracle or not source.exists():
            copy.unlink(missing_ok=True)
            return
        manifest.require(self.run.folder, manifest.GUESSED)
        asked = {row.key for row in self.context.rows}
        found = values_in(source, read_json(source))
        values = [replace(value, model=PLAIN) for value in found if value.key in asked]
        write_json(copy, {"values": [value.as_json() for value in values]})
        self.values[GUESS, PLAIN, PLAIN] = values

    def _key(self, name: str, attack: Attack, model: str) -> str:
        """Return the digest of all that a measurement depends on."""
        context, weights = self.context, self.weights
        settings = self.run.config.audit.model_dump(mode="json")
        samples = [s for s in (*self.run.inputs.samples, *self.run.inputs.general) if s.paraphrases]
        prompts = {sample.key: sample.paraphrases for sample in samples}
        return context.run.key(
            "model",
            "data",
            "evaluation",
            format=AUDIT_FORMAT,
            attack=name,
            weights=[weights[model], weights["vanilla"] if name == "interpolate" else None],
            rows=self.run.inputs.digests,
            chosen=digest([row.key for row in context.rows]),
            settings={key: settings[key] for key in ("max_rows", "generate", *attack.settings)},
            facts=attack.facts,
            draws=context.seed,
            paraphrases=prompts if name == "paraphrase" else None,
        )

    def _figures(self) -> dict[str, Any]:
        """Return ``audit.json`` without its verdict: no path and no time, so equal audits agree."""
        config = self.run.config
        oracle = "itself" if self.run.is_oracle else None
        oracle = "given" if self.oracle is not None else oracle
        guess = self.values.get((GUESS, PLAIN, PLAIN), [])
        oracle = GUESS if guess else oracle
        runs = {"unlearned": self.run, **({"oracle": self.oracle} if self.oracle else {})}
        return {
            "format": AUDIT_FORMAT,
            "weights": self.weights,
            "run": {
                "model": config.model.name,
                "objective": config.unlearning.objective,
                "localizer": config.localization.method,
                "seed": config.seed,
            },
            "oracle": oracle,
            "guess": {v.domain: f".{HELD_OUT}." in v.key[len(v.domain) :] for v in guess},
            "retraining": self.run.retraining,
            "seconds": {name: run.seconds for name, run in runs.items()},
            "settings": config.audit.model_dump(mode="json"),
            "skipped": self.skipped,
            "measured": findings(self.values, oracle),
            "inside": {"moved": self._moved()},
        }

    def _moved(self) -> dict[str, Any]:
        """Return how far the weights moved, or read what was found before."""
        mask, stage = self.run.folder / "mask.safetensors", "audit distances"
        key = self.context.run.key("model", weights=self.run.weights, mask=file_digest(mask))

        def measure() -> dict[str, Any]:
            with self.listener.stage(stage) as tick:
                before, after = map(self.context.weights, ("vanilla", "unlearned"))
                moved = distances(before, after, read_mask(mask).frozen)
                tick(1, 1, "done")
                return {"moved": moved}

        stored = self.context.run.kept(file := "audit/distances.json", key, stage, measure)
        with reading(self.run.folder / file):
            moved_tables({"inside": stored})  # can it be shown?
            moved_sentence({"inside": stored})
            return stored["moved"]
