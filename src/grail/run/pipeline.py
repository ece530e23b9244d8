"""The stages in order; one whose output is on disk and whose inputs are unchanged is skipped.

Each stage reads files and writes files, and stamps them with the digest of its inputs. That is all
the stages know of each other.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import Tensor

from grail import artifacts
from grail.config import file as config_file
from grail.config.run import Config
from grail.evaluation.equal_retention import model_digests
from grail.files import digest, file_digest, write_json, write_text
from grail.importance.kept import Kept
from grail.importance.self_check import Agreement
from grail.localization.evidence import Evidence
from grail.localization.localizers import code_of, make_mask
from grail.localization.select import unrecognised
from grail.localization.survivors import survivors
from grail.model.forward import trainable
from grail.model.weights import copy_weights
from grail.progress import Listener, NullListener
from grail.reporting.run.page import report
from grail.results import GUESS, make_results, write_results
from grail.run import directory, lock, manifest, refusals, reset
from grail.run.context import RunContext
from grail.run.general import check_general, measure_general, outcomes_of
from grail.run.inputs import Inputs
from grail.run.looks import run_looks, write_looks
from grail.run.measure import rows_of, values_of
from grail.run.provenance import made_with
from grail.run.together import save_model, stages_together, write_run_scores
from grail.run.trainings import (
    agreement_of_scores,
    run_scorer,
    unlearn_facts,
    unlearn_training,
    vanilla_training,
)
from grail.run.watch import watched
from grail.training.accelerator import in_parts, make_accelerator, start_trackers
from grail.training.checkpoint import tell_reached
from grail.training.loop import Loop, LoopFiles
from grail.training.optimizer import LoopSettings
from grail.training.task import Task
from grail.unlearning.objectives import EXACT


class Run:
    """One run directory and its stages; each puts the weights it needs into the one model."""

    def __init__(self, config: Config, inputs: Inputs, listener: Listener | None = None) -> None:
        self.config, self.inputs, self.folder = config, inputs, Path(config.output)
        self.accelerator = make_accelerator(config.unlearning.trackers, self.folder)
        self.main, self.parts = self.accelerator.is_main_process, in_parts()
        self.listener: Listener = (listener or NullListener()) if self.main else NullListener(True)
        process = self.accelerator.process_index, self.accelerator.num_processes
        self.together = stages_together(config, self.parts)
        self.context = RunContext(
            config, inputs, self.listener, self.accelerator.device, process, self.parts
        )

    def through(self, last: str = "report") -> None:
        """Do every stage up to ``last``; finished ones are skipped, interrupted ones go on."""
        with watched(*self.context.process), lock.alone(self.folder, main=self.main):
            if self.main:
                manifest.renew(self.folder, self.listener.warn)
            self.accelerator.wait_for_everyone()
            self._settle(made_with(self.context.start, self.inputs.digests))
            start_trackers(self.accelerator, self.config.unlearning.model_dump(mode="json"))
            for stage in list(STAGES)[: list(STAGES).index(last) + 1]:
                self.accelerator.wait_for_everyone()
                if stage in self.together or self.main:
                    STAGES[stage](self)
                if self.main:
                    manifest.record(self.folder)
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()

    def measure_vanilla(self) -> Path:
        """Measure the model of ``through("vanilla")`` alone, for runs that share it."""
        with lock.alone(self.folder):
            weights = directory.stamp(self.folder / "vanilla")["weights"]
            manifest.discard(self.folder, self.listener.warn, *manifest.MEASURED)
            values_of(self.context, "vanilla", weights)
            outcomes_of(self.context, "vanilla", weights)
            manifest.record(self.folder)
        return self.folder / "evaluation" / "vanilla.json"

    def check_scores(self, count: int) -> Agreement:
        """Compare batched and looped scores on ``count`` train rows of the vanilla model."""
        return agreement_of_scores(self.context, count)

    def _settle(self, about: dict[str, Any]) -> None:
        """Write ``config.yaml``; new settings first prove that tokenizer, rows and model exist."""
        known = directory.has_settings(self.folder, self.config, about, self.listener.warn)
        self.accelerator.wait_for_everyone()  # all have looked before one writes
        if known:
            return
        refusals.refuse_other(self.folder, self.config, about)
        self.context.check()
        check_general(self.context)
        rows = [row for row in self.context.rows if row.part == "train"]
        run_scorer(self.context).check(sorted(rows, key=lambda row: (len(row.ids), row.key))[:2])
        if told := unrecognised(self.config.localization.layer, trainable(self.context.model)):
            self.listener.warn(told)
        if self.main:
            directory.outdate(self.folder)
            manifest.drop(self.folder, "config.yaml")
            config_file.write(self.folder / "config.yaml", self.config, about)

    def _vanilla(self) -> None:
        teach = self.config.teach
        data = self.context.data(*teach.parts) if teach and self.config.teaches else {}
        seed = self.config.vanilla_seed
        key = self.context.key("model", "data", "teach", seed=seed, rows=data)
        if self._fresh(self.folder / "vanilla", key, "vanilla"):
            return
        if data:
            task, settings = vanilla_training(self.context)
            loop = self._loop(task, None, settings)
            with self.listener.stage("vanilla") as tick:
                loop.run(self._files("vanilla", key), tick)
        save_model(self.context, "vanilla", {"inputs": key})
        if not data:
            directory.drop_training(self.folder / "vanilla")

    def _score(self) -> None:
        weights = directory.stamp(self.folder / "vanilla")["weights"]
        loaded, labels = False, self.config.label_seed
        unfinished = directory.checkpoint_of(self.folder / "scores")
        for pair, path in self._score_files().items():
            name, rows = path.stem, self.context.sides()[pair]
            facts = {"weights": weights, "rows": self.inputs.digests[f"{name}.train"]}
            key = self.context.key("model", "data", "importance", **facts, seed=labels)
            if self._fresh(path, key, f"score {name}"):
                continue
            if not loaded:
                self.context.take("vanilla")
            loaded = True
            with self.listener.stage(f"score {name}") as tick:
                kept = Kept(unfinished, key, self.config.importance.checkpoint_rows, self.parts)
                scores = [run_scorer(self.context).score(rows, tick, kept)]  # held by nobody else
                write_run_scores(path if self.main else None, scores.pop(), key, self.context.model)
        if self.main:  # the others may be ahead of its writing
            directory.keep_scores(self.folder, [f.stem for f in self._score_files().values()])
            shutil.rmtree(unfinished, ignore_errors=True)

    def _localize(self) -> None:
        how = self.config.localization
        path = self.folder / "mask.safetensors"
        hashes = self._score_seals()
        key = self.context.key("localization", "seed", scores=hashes, **code_of(how))
        whole = directory.has_mask(self.folder, how.freeze == "by_side", self.listener.warn)
        if whole and self._fresh(path, key, "localize"):
            return
        directory.drop_mask(self.folder)
        with self.listener.stage("localize") as tick:
            mask, about = make_mask(self._sides(), how, self.config.seed, self._vanilla_on_cpu)
            mask.about["scores"] = hashes
            write_json(self.folder / "localization.json", about)
            artifacts.write_mask(path, mask, key)
            tick(1, 1, "mask written")

    def _reset(self) -> None:
        weights = directory.stamp(self.folder / "vanilla")["weights"]
        manifest.discard(self.folder, self.listener.warn, reset.REWRITES)
        reset.write_rewrites(self.context, weights)
        how, path = self.config.unlearning.reset, self.folder / reset.SURVIVORS
        if how is None:
            path.unlink(missing_ok=True)
            return
        mask, scores = self.folder / "mask.safetensors", self._score_seals()
        facts = {"reset": how.model_dump(), "mask": file_digest(mask), "scores": scores}
        key = self.context.key("seed", weights=weights, **facts)
        if not self._fresh(path, key, "reset"):
            manifest.drop(self.folder, reset.SURVIVORS)
            with self.listener.stage("reset") as tick:
                found = Evidence(self._sides(), self._vanilla_on_cpu, self.config.seed)
                artifacts.write_mask(path, survivors(found, artifacts.read_mask(mask), how), key)
                tick(1, 1, "survivors written")

    def _sides(self) -> dict[tuple[str, str], artifacts.Scores]:
        return {pair: artifacts.read_scores(file) for pair, file in self._score_files().items()}

    def _score_files(self) -> dict[tuple[str, str], Path]:
        folder = self.folder / "scores"
        return {pair: folder / f"{'.'.join(pair)}.safetensors" for pair in self.context.sides()}

    def _score_seals(self) -> dict[str, str]:
        return {f.stem: artifacts.seal_of(f) for f in self._score_files().values()}  # just checked

    def _unlearn(self) -> None:
        file = self.folder / "mask.safetensors"
        weights = directory.stamp(self.folder / "vanilla")["weights"]
        read = (file, *(self.folder / name for name in (reset.SURVIVORS, reset.REWRITES)))
        files = {f.name: file_digest(f) for f in read if f.exists()}  # if the settings ask for it
        exact = self.config.unlearning.objective == EXACT  # trained as the section teach says
        how = ("unlearning", "teach") if exact else ("unlearning",)
        facts = unlearn_facts(self.context) | files
        key = self.context.key("model", "data", *how, "seed", weights=weights, **facts)
        seen = directory.has_looks(self.folder, self.config.every, self.listener.warn)
        if seen and self._fresh(self.folder / "unlearned", key, "unlearn"):
            return
        mask = artifacts.read_mask(file)
        self.context.take("vanilla")
        before = reset.before_facts(self.context)
        written = reset.read_rewrites(self.context)
        task, settings = unlearn_training(self.context, mask.by_side, before, written)
        reset.reset_model(self.context, before)
        loop, looks = self._loop(task, mask, settings), run_looks(self.context, before)
        with self.listener.stage("unlearn") as tick:
            proof = loop.run(self._files("unlearned", key), tick, looks)
        if self.main:
            write_looks(self.folder, looks, loop.looked, self.listener.warn)
        save_model(self.context, "unlearned", {"inputs": key, "freezing": proof})

    def _evaluate(self) -> None:
        if self.main:
            manifest.discard(self.folder, self.listener.warn, *manifest.MEASURED, *manifest.RESULTS)
        if self.parts:
            self.accelerator.wait_for_everyone()  # all find the same files
        stamps = directory.both(self.folder)
        digests = {name: stamp["weights"] for name, stamp in stamps.items()}
        weights = model_digests(digests, self.config.evaluation.retain_target)
        models = [*weights.items(), (GUESS, digests["vanilla"])]
        values = [value for model in models for value in values_of(self.context, *model)]
        if not self.main:
            return
        lines = [json.dumps(value.as_json(), ensure_ascii=False) + "\n" for value in values]
        write_text(samples := self.folder / "samples.jsonl", "".join(lines))
        rows, freezing = rows_of(values, self.context.unseen), stamps["unlearned"]["freezing"]
        results = make_results(rows, freezing, digest(weights), file_digest(samples))
        write_results(self.folder / "results.json", results)
        measure_general(self.context, weights)

    def _report(self) -> None:
        manifest.require(self.folder, *manifest.REPORTED)
        manifest.discard(self.folder, self.listener.warn, *manifest.REPORT)
        with self.listener.stage("report"):
            report(self.folder)

    def _fresh(self, path: Path, key: str, stage: str) -> bool:
        """Tell whether ``path`` was made from the same inputs; say so if it was."""
        made = [self.main and directory.is_made(self.folder, path, key, self.listener.warn)]
        if stage.split()[0] in self.together:  # the main process has looked for all
            broadcast_object_list(made)
        if made[0]:
            self.listener.skipped(stage)
        elif self.main:
            directory.outdate(self.folder)
        return bool(made[0])

    def _vanilla_on_cpu(self) -> dict[str, Tensor]:
        self.context.take("vanilla")
        return {name: weight.cpu() for name, weight in copy_weights(self.context.model).items()}

    def _loop(self, task: Task, mask: artifacts.Mask | None, settings: LoopSettings) -> Loop:
        """Return the loop that trains the model, which is in training mode from now on."""
        self.context.model.train()
        return Loop(trainable(self.context.model), task, mask, settings, self.accelerator)

    def _files(self, name: str, key: str) -> LoopFiles:
        """Return the log and the checkpoint folder of the training that makes a model."""
        log = directory.log_of(self.folder / name)
        if self.main:
            manifest.drop(self.folder, log.name, *([manifest.LOOKS] if name == "unlearned" else []))
        tell_reached(at := directory.checkpoint_of(self.folder / name), key, self.listener.skipped)
        return LoopFiles(log, at, key)


STAGES: dict[str, Callable[[Run], None]] = {
    "vanilla": Run._vanilla,
    "score": Run._score,
    "localize": Run._localize,
    "reset": Run._reset,
    "unlearn": Run._unlearn,
    "evaluate": Run._evaluate,
    "report": Run._report,
}
"""The stages in their order."""
