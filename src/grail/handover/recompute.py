"""What the files of a run must say, recomputed from the files that they follow from.

Each check returns a sentence for every difference, which names the file that differs; None where
the run has nothing of its kind.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from grail import artifacts
from grail.evaluation.equal_retention import CALIBRATED, model_digests
from grail.evaluation.general.outcomes import Outcome, compare_outcomes
from grail.evaluation.values import SampleValue
from grail.files import digest, file_digest, read_json, write_json
from grail.handover.evidence import Opened, raw
from grail.localization import evidence as scored
from grail.localization.localizers import make_mask
from grail.localization.survivors import survivors
from grail.reporting.audit.knowledge import AUDIT_FORMAT
from grail.reporting.audit.tables import audit_markdown, audit_section
from grail.reporting.audit.verdict import audit_verdict
from grail.reporting.run.page import report
from grail.results import GUESS, Result, make_results
from grail.run import directory, manifest, reset
from grail.run.looks import guess_domains
from grail.run.measure import rows_of
from grail.run.provenance import software

_NO_ROWS = "AUC"
"""Metrics that begin with this compare rows, and need the data files."""


def same_data(run: Opened) -> list[str]:
    """Compare the data files and the model with those that the run was made with."""
    if not run.has_rows:
        return [f"data: {problem}" for problem in run.broken]
    found, made = run.context.inputs.digests, run.made_with.get("data") or {}
    texts = [
        f"data: the rows of {name} are not those of the run."
        for name in sorted(found.keys() | made.keys())
        if found.get(name) != made.get(name)
    ]
    if run.has_start and run.made_with.get("model") not in (None, run.context.start):
        texts.append(f"model: {run.config.model.name} is not the one that the run started from.")
    return texts


def seals(run: Opened) -> list[str]:
    """Compare each file that carries a digest of its own content with that content."""
    texts = []
    for name in manifest.files_of(run.folder):
        if name.endswith(".json") and artifacts.SEAL in raw(run.folder / name):
            try:
                read_json(run.folder / name)
            except ValueError:
                texts.append(f"{name}: its content does not fit its own digest.")
    for name in manifest.MODELS:
        if run.has_model(f"{name}/", name):
            stamp = raw(run.folder / name / artifacts.STAMP)
            if stamp["weights"] != directory.weights_digest(run.folder / name):
                texts.append(f"{name}/: its weights do not fit {name}/{artifacts.STAMP}.")
    return texts


def masks(run: Opened) -> list[str]:
    """Make the mask, and what survives a reset, again from the scores."""
    names = [n for n in run.purged if n.startswith(("scores/", "mask", "vanilla/"))]
    other = run.config.localization.reused
    if other and not Path(other).exists():
        run.remarks.append(f"mask: not recomputed, the run that it is from is gone ({other}).")
    if run.lacks("mask", names) or (other and not Path(other).exists()):
        return []
    pairs = [(domain, side) for domain in run.config.domains for side in ("unlearn", "retain")]
    files = {pair: run.folder / "scores" / f"{'.'.join(pair)}.safetensors" for pair in pairs}
    sides = {p: artifacts.read_scores(file) for p, file in files.items() if file.exists()}
    how, seed = run.config.localization, run.config.seed
    mask, about = make_mask(sides, how, seed, lambda: run.weights("vanilla"))
    found = artifacts.read_mask(run.folder / manifest.MASKS[0])
    texts = _bits(manifest.MASKS[0], mask.frozen, found.frozen)
    for name, side in zip(manifest.MASKS[1:], ("unlearn", "retain"), strict=True):
        if mask.by_side or found.by_side:
            texts += _bits(name, mask.for_side(side), found.for_side(side))
    if json.loads(json.dumps(about)) != _unsealed(run.folder / directory.LOCALIZATION):
        texts.append(f"{directory.LOCALIZATION}: its figures do not follow from the scores.")
    if (settings := run.config.unlearning.reset) is not None:
        seen = scored.Evidence(sides, lambda: run.weights("vanilla"), seed)
        kept = artifacts.read_mask(run.folder / reset.SURVIVORS).frozen
        texts += _bits(reset.SURVIVORS, survivors(seen, found, settings).frozen, kept)
    return texts


def freezing(run: Opened) -> list[str]:
    """Compare the frozen entries of both models, and with the digests of the proof."""
    if run.lacks("freezing", manifest.MASKS) or not run.has_model("freezing", "unlearned"):
        return []
    mask = artifacts.read_mask(run.folder / manifest.MASKS[0])
    proof, after = raw(run.folder / "results.json")["freezing"], run.weights("unlearned")
    now = artifacts.frozen_digest(after, mask)
    texts = [
        f"results.json: {key} of the proof of freezing is {proof.get(key)}, unlearned/ gives {now}."
        for key in ("sha256_before", "sha256_after")
        if proof.get(key) != now
    ]
    counts = mask.counts() | {"changed": 0}
    texts += [
        f"results.json: {key} of the proof of freezing is {proof.get(key)}, the mask gives {value}."
        for key, value in counts.items()
        if proof.get(key) != value
    ]
    if not run.has_model("frozen entries before and after", "vanilla"):
        return texts
    before = run.weights("vanilla")
    moved = sum(
        int(artifacts.changed_entries(before[name], after[name])[bits.flatten()].sum())
        for name, bits in mask.frozen.items()
    )
    return texts + [f"unlearned/: {moved} frozen entries are not those of vanilla/."] * bool(moved)


def figures(run: Opened) -> list[str]:
    """Average what was measured on each row again: ``results.json`` and ``samples.jsonl``."""
    names = ["vanilla", "unlearned"]
    names += [CALIBRATED] if run.config.evaluation.retain_target is not None else []
    names += [GUESS] if guess_domains(run.folder) else []
    files = {name: f"evaluation/{name}.json" for name in names}
    if run.lacks("results.json", files.values()):
        return []
    values = [
        SampleValue(**value)
        for file in files.values()
        for value in raw(run.folder / file)["values"]
    ]
    results = raw(run.folder / "results.json")
    texts = compare_rows(results, rows_of(values, run.context.unseen), run.has_rows)
    lines = "".join(json.dumps(v.as_json(), ensure_ascii=False) + "\n" for v in values)
    samples = run.folder / "samples.jsonl"
    if not run.lacks("samples.jsonl", ["samples.jsonl"]):
        if samples.read_text(encoding="utf-8") != lines:
            texts.append("samples.jsonl: its lines do not follow from evaluation/.")
        if results["samples"] != file_digest(samples):
            texts.append("results.json: it is not about samples.jsonl as it is.")
    stages = {name: run.folder / name / artifacts.STAMP for name in names[:2]}
    stamps = {name: raw(file) for name, file in stages.items() if file.is_file()}
    if len(stamps) == 2:
        weights = {name: stamp["weights"] for name, stamp in stamps.items()}
        models = model_digests(weights, run.config.evaluation.retain_target)
        if results["inputs"] != digest(models):
            texts.append("results.json: it is not about the models in vanilla/ and unlearned/.")
    if stamps and results["freezing"] != stamps["unlearned"]["freezing"]:
        texts.append("results.json: the proof of freezing is not that of unlearned/stage.json.")
    return texts


def compare_rows(results: Mapping[str, Any], wanted: list[Result], has_rows: bool) -> list[str]:
    """Compare the content of ``results.json`` with the rows that it must have."""
    place = ("model", "domain", "side", "part", "metric")
    found = {tuple(row[key] for key in place): (row["value"], row["n"]) for row in results["rows"]}
    made = {tuple(getattr(row, key) for key in place): (row.value, row.n) for row in wanted}
    texts = [
        f"results.json: {' '.join(key)} is {_said(found, key)}, evaluation/ gives "
        f"{_said(made, key)}."
        for key in dict.fromkeys((*found, *made))
        if found.get(key) != made.get(key) and (has_rows or not key[-1].startswith(_NO_ROWS))
    ]
    own = tuple(Result(**row) for row in results["rows"])
    for part, models in make_results(own, {}, "").summary.items():
        wanted_summary = {**models.get("unlearned", {}), "models": models}
        if results["summary"].get(part) != wanted_summary:
            texts.append(f"results.json: the summary of {part} does not follow from its rows.")
    return texts


def _said(values: Mapping[Any, tuple[float, int]], key: Any) -> str:
    return "not there" if key not in values else "{:g} (n {})".format(*values[key])


def general(run: Opened) -> list[str] | None:
    """Compare ``general.json`` and its samples with the outcomes of both models."""
    files = {n: f"evaluation/general.{n}.json" for n in ("vanilla", "unlearned")}
    if not (run.folder / "general.json").exists():
        return None
    if run.lacks("general.json", files.values()):
        return []
    asked = {
        name: [Outcome(**outcome) for outcome in raw(run.folder / file)["outcomes"]]
        for name, file in files.items()
    }
    wanted = json.loads(json.dumps(compare_outcomes(asked["vanilla"], asked["unlearned"])))
    found, texts = raw(run.folder / "general.json"), []
    if {key: found.get(key) for key in wanted} != wanted:
        texts.append("general.json: its figures do not follow from evaluation/.")
    lines = "".join(json.dumps(o.as_json(n)) + "\n" for n, own in asked.items() for o in own)
    if (run.folder / "general_samples.jsonl").read_text(encoding="utf-8") != lines:
        texts.append("general_samples.jsonl: its lines do not follow from evaluation/.")
    return texts


def audited(run: Opened) -> list[str] | None:
    """Compare the figures of ``audit.json`` with the measurements, and its verdict with them."""
    path = run.folder / "audit.json"
    if not path.exists():
        return None
    found, texts = _unsealed(path), []
    own = raw(run.folder / "unlearned" / artifacts.STAMP)["weights"]
    if found["weights"]["unlearned"] != own or found["format"] != AUDIT_FORMAT:
        run.remarks.append("audit.json: it is about an earlier model or of an older grail.")
        return []
    verdict = json.loads(json.dumps(audit_verdict(found)))
    if not (same := found.get("made_with") == software()):
        run.remarks.append("audit.json: another grail wrote its words.")
        verdict.pop("sentences")
    texts += [
        f"audit.json: {key} does not follow from its figures."
        for key, value in verdict.items()
        if found.get(key) != value
    ]
    gone = [name for name in run.purged if name.startswith("audit/")]
    if same and not run.lacks("audit.json", gone):
        text = audit_markdown(audit_section(found))
        if (run.folder / "audit" / "report.md").read_text(encoding="utf-8") != text:
            texts.append("audit/report.md: it does not say what audit.json says.")
    return texts


def reported(run: Opened) -> list[str] | None:
    """Write the report again and compare; one from before the audit is a report too."""
    if not (run.folder / "report.md").exists():
        return None
    if not run.same_software:
        run.remarks.append("report: not written again, another grail made the run.")
        return []
    if run.lacks("report", manifest.REPORTED):
        return []
    found = [(run.folder / name).read_bytes() for name in sorted(manifest.REPORT)]
    same = found in _reports(run)
    return [] if same else ["report.html, report.md: they do not say what the files say."]


def _reports(run: Opened) -> list[list[bytes]]:
    """Return what a run's report must be, and what it must have been before the audit."""
    with TemporaryDirectory() as place:
        copy, wanted = Path(place), []
        for name in manifest.REPORTED:
            if (run.folder / name).exists():
                (copy / name).parent.mkdir(exist_ok=True)
                content = (run.folder / name).read_bytes()
                (copy / name).write_bytes(content)
        for name in ("results.json", "localization.json", "general.json", "audit.json"):
            if (copy / name).exists():  # figures are another check's: here they are as they are
                write_json(copy / name, _unsealed(copy / name))
        for _ in range(2):
            wanted.append([path.read_bytes() for path in sorted(report(copy))])
            (copy / "audit.json").unlink(missing_ok=True)
    return wanted


ON_DISK = "data and model"
CHECKS: dict[str, Callable[[Opened], list[str] | None]] = {
    ON_DISK: same_data,
    "digests that files carry": seals,
    "mask from scores": masks,
    "frozen entries": freezing,
    "results from evaluation": figures,
    "general tasks": general,
    "audit from its figures": audited,
    "report from results": reported,
}
"""What is recomputed, in order."""


def _bits(name: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    if wanted.keys() != found.keys():
        return [f"{name}: it has other parameters than the scores."]
    wrong = sum(int((bits != found[key]).sum()) for key, bits in wanted.items())
    return [f"{name}: {wrong} entries do not follow from the scores."] if wrong else []


def _unsealed(path: Path) -> dict[str, Any]:
    return {key: value for key, value in raw(path).items() if key != artifacts.SEAL}
