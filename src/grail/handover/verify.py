"""Is a run directory, and an attestation of it, still what was written? Every change is named."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from grail.errors import InputError
from grail.evaluation.equal_retention import CALIBRATED
from grail.handover.attest import ATTESTATION, check_attestation
from grail.handover.evidence import Opened, open_evidence, raw
from grail.handover.recompute import CHECKS, ON_DISK
from grail.model.save import load_weights
from grail.progress import Listener, NullListener
from grail.results import GUESS
from grail.run import manifest
from grail.run.looks import guess_domains
from grail.run.measure import guessed, rows_of
from grail.run.neighbours import neighbours_of

Also = Mapping[str, Callable[[Path], list[str] | None]]
NEAR = {"rel_tol": 1e-3, "abs_tol": 0.05}
"""How near a figure that is measured again must come: other machines add in another order."""


@dataclass
class Verified:
    """What ``verify`` found.

    Attributes:
        changes: A sentence for each change, which names the file; none: nothing was changed.
        remarks: What was not checked, and why.
        checked: What was checked.
        absent: Checks of what the run does not have.
    """

    changes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


def verify(
    target: Path,
    metrics: bool = False,
    public_key: Path | None = None,
    listener: Listener | None = None,
    also: Also = MappingProxyType({}),
) -> Verified:
    """Check a run directory with the attestation in it, or an attestation file.

    An attestation that lies in its run directory is checked with it, any other by itself.

    With ``metrics`` both models are measured again. ``public_key`` is a file with the key that must
    have signed; None: the one that the attestation names itself. ``also`` are further checks of a
    run directory: name -> function from the folder to sentences, or to None where there is nothing
    to check.

    Raises:
        InputError: if there is nothing to check, or the key cannot be read.
    """
    folder = target if target.is_dir() else target.parent
    file = folder / ATTESTATION if target.is_dir() else target
    is_run = _is_run(folder)
    if not target.exists():
        raise InputError(f"{target} does not exist. Give a run directory or an attestation.")
    if not is_run and (target.is_dir() or metrics):
        raise InputError(f"{folder} is not a run directory. Give the folder of a finished run.")
    if public_key is not None and not file.exists():
        raise InputError(f"{folder} has no {ATTESTATION} that --key could check.")
    found = Verified()
    run = check_run(folder, found, also) if is_run else None
    if metrics and run is not None:
        found.changes += measured_again(run, listener or NullListener(silent=True))
        found.checked.append("both models, measured again")
    if file.exists():
        damaged = bool(found.changes)
        changes, remarks = check_attestation(file, None if damaged else run, public_key)
        if damaged:
            remarks.append(f"{file.name}: not compared with the run, which was changed.")
        found.changes += changes
        found.remarks += remarks
        found.checked.append("attestation")
    return found


def check_run(folder: Path, found: Verified, also: Also) -> Opened | None:
    """Check a run directory and write down what is found; return it opened, if it can be."""
    if not _is_run(folder):
        raise InputError(f"{folder} is not a run directory. Give the folder of a finished run.")
    found.changes += manifest.problems(folder)
    found.checked.append(f"{len(manifest.files_of(folder))} files against {manifest.MANIFEST}")
    damaged = bool(found.changes)
    try:
        run = open_evidence(folder)
    except InputError as error:
        if not damaged:
            raise
        found.remarks.append(f"nothing was recomputed: {'; '.join(error.problems)}")
        return None
    found.remarks += [f"{name}: purged on {date}." for name, date in run.purged.items()]
    more = {name: partial(check, folder) for name, check in also.items()}
    _recompute(run, found, {n: partial(c, run) for n, c in CHECKS.items()} | more)
    found.remarks += run.remarks
    return run


def _recompute(
    run: Opened, found: Verified, checks: Mapping[str, Callable[[], list[str] | None]]
) -> None:
    """Make checks, and write down what they find."""
    damaged = bool(found.changes)
    for name, check in checks.items():
        before = len(run.remarks)
        try:
            texts = check()
        except Exception as error:  # damaged files fail in any way, and must not stop the others
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            known = damaged or (isinstance(error, InputError) and not run.has_start)
            texts = found.remarks if known else found.changes
            texts.append(f"{name}: could not be recomputed ({reason}).")
        else:
            whole = (run.has_rows and run.has_start) or name != ON_DISK
            if texts is None:
                found.absent.append(name)
            elif whole and len(run.remarks) == before:
                found.checked.append(name)
            found.changes += texts or []


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.yaml", manifest.MANIFEST))


def measured_again(run: Opened, listener: Listener) -> list[str]:
    """Measure both models, if they and the rows are there; compare each figure of the results."""
    names = manifest.MODELS
    if not run.has_rows or not all(run.has_model("metrics", name) for name in names):
        reason = "; ".join(run.remarks)
        raise InputError(f"--metrics: {run.folder} cannot be measured again ({reason}).")
    values, context = [], run.context
    context.neighbours = neighbours_of(context)
    evaluator = context.evaluator(run.config.evaluation.generate)
    for name in names:
        with listener.stage(f"measure {name}") as tick:
            load_weights(context.model, run.folder / name)
            values += evaluator.run(name, context.measured, tick)
    if domains := guess_domains(run.folder):
        with listener.stage(f"measure {GUESS}") as tick:
            load_weights(context.model, run.folder / "vanilla")
            values += guessed(context, domains, tick)
    place = ("model", "domain", "side", "part", "metric")
    rows = raw(run.folder / "results.json")["rows"]
    found = {tuple(row[key] for key in place): float(row["value"]) for row in rows}
    made = rows_of(values, context.unseen)
    again = {tuple(getattr(row, key) for key in place): row.value for row in made}
    return [
        f"results.json: {' '.join(key)} is {found.get(key)}, measured again {again.get(key)}."
        for key in dict.fromkeys((*again, *(key for key in found if key[0] != CALIBRATED)))
        if not near(found.get(key), again.get(key))
    ]


def near(one: float | None, other: float | None) -> bool:
    """Tell whether two measurements of one figure agree but for rounding."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= max(NEAR["rel_tol"] * max(abs(one), abs(other)), NEAR["abs_tol"])
