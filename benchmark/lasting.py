"""Removal that lasts: methods on one set of rows, each audited beside the oracle of its seed.

Usage: python benchmark/lasting.py [--rows demo|knowundo|lume] [--seeds 0 1 2]
                                   [--methods reset-and-heal ...] [--work DIR] [--collect]

A seed's methods share one vanilla model and its scores. What is finished in DIR is not done again,
and --collect only writes results/lasting.json (lasting_ROWS.json) from all that is there. The
figures of one audit are the worst case over its attackers at each number of steps, for the model
and for the oracle.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from intervals import line
from machine import rows_of, write

from grail.data.words import words_of
from grail.files import write_text
from grail.reporting.audit.knowledge import audit_domains, known
from grail.reporting.audit.tables import read_audit

ORACLE = "exact"
ROWS = ("demo", "knowundo", "lume")
"""The demo's rows, or those of experiments/lasting_ROWS.yaml."""
LONGEST = 300
"""Characters of the rows of ROWS other than the demo's: long passages take hours to rewrite."""
_FEW = ("unlearning.batch_size=4", "unlearning.learning_rate=4e-3")
METHODS: dict[str, list[str]] = {
    "reset-and-heal": [],
    "reset-and-heal-long": ["unlearning.epochs=12"],
    **{f"reset-{share}": [f"unlearning.reset.share=0.{share}"] for share in (50, 70, 80)},
    "reset-all": ["preset=reset-all"],
    "reset-all-plain": [
        *("preset=reset-all", "unlearning.rewrites=0"),
        *("unlearning.guesses=0", "unlearning.examples=0"),
    ],
    "reset-random": ["preset=reset-random"],
    "reset-refusal": ["unlearning.teacher=refusal", "unlearning.guesses=0"],
    "distill": ["preset=distill", "unlearning.general_weight=0.5", "unlearning.retain_ratio=4"],
    "grail": ["preset=grail", *_FEW, "unlearning.epochs=12"],
    "grail-plus": ["preset=grail-plus", "unlearning.batch_size=4", "unlearning.epochs=8"],
    ORACLE: ["preset=exact"],
}
"""Method -> settings over the demo's."""
TITLE = "Known, relearnt and kept"
COLUMNS = {
    "Known as it is": "known",
    "above the oracle": "plain beyond",
    "relearnt: a tenth": "relearn-few beyond",
    "other questions": "relearn-other beyond",
    "unrelated text": "relearn-unrelated beyond",
    "Kept, listed": "retain train",
    "never listed": "retain val",
    "General text, nats": "general NLL",
}
NOTE = (
    "Percent of answer tokens that the model gets right, mean of the domains; above the oracle and "
    "relearnt: points above the oracle of the seed, the worst of domains, rates and numbers of "
    "steps. Methods without these were not attacked."
)
MADE = (
    *("unlearned", "evaluation/unlearned.json", "survivors.safetensors"),
    *("audit", "audit.json", "results.json", "manifest.json"),
)
"""What a copy of another method's folder must not keep."""


def main() -> None:
    """Run and audit what is missing, then write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Raw)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["reset-and-heal", ORACLE])
    parser.add_argument("--rows", choices=ROWS, default=ROWS[0])
    parser.add_argument("--audit", nargs="*", choices=METHODS, help="methods to audit; else all")
    parser.add_argument("--set", action="append", default=[], help="audit.KEY=VALUE of the audits")
    parser.add_argument("--work", type=Path, help="default: runs/lasting, runs/lasting_ROWS")
    parser.add_argument("--collect", action="store_true", help="only write the result file")
    options = parser.parse_args()
    rows = options.rows
    name = "lasting" if rows == ROWS[0] else f"lasting_{rows}"
    work = options.work or Path("runs") / name
    audited = options.methods if options.audit is None else options.audit
    for seed in [] if options.collect else options.seeds:
        for method in sorted(options.methods, key=lambda name: name == ORACLE):
            _run(work, seed, method, rows)
        for method in audited:
            if method != ORACLE:
                _audit(work, seed, method, options.set)
    done = [folder for folder in work.glob("[0-9]*/*") if (folder / "results.json").exists()]
    done = [folder for folder in done if folder.name != ORACLE]
    done.sort(key=lambda folder: (list(METHODS).index(folder.name), int(folder.parent.name)))
    found = [collected(folder) for folder in done]
    settings = {"command": f"python benchmark/lasting.py --rows {rows}", "methods": METHODS}
    print(f"wrote {write(name, settings, found, {})}")


_Raw = argparse.RawDescriptionHelpFormatter


def _run(work: Path, seed: int, method: str, rows: str) -> None:
    folder = work / str(seed) / method
    others = [f for f in sorted(folder.parent.glob("*")) if (f / "vanilla" / "stage.json").exists()]
    others.sort(key=lambda other: not (other / "rewrites.json").exists())  # kept where they are due
    if others and not folder.exists():
        copy_run(others[0], folder)
    command = ["demo"] if rows == ROWS[0] else _of_files(work, rows)
    command += ["--json", "--output", str(folder)]
    for setting in (f"seed={seed}", *METHODS[method]):
        command += ["--set", setting]
    _grail(command)


def copy_run(source: Path, folder: Path) -> None:
    """Copy a run's folder without what another method has to make anew; whole, or not at all."""
    part = folder.parent.with_name(f".{folder.parent.name}.{folder.name}.part")  # in no listing
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    for path in (part / name for name in MADE):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    part.rename(folder)


def _of_files(work: Path, rows: str) -> list[str]:
    """Keep the short rows of an experiment's files in ``work``; return the command to run it."""
    file = Path(__file__).parent / "experiments" / f"lasting_{rows}.yaml"
    command = ["run", str(file)]
    for domain, sides in yaml.safe_load(file.read_text(encoding="utf-8"))["domains"].items():
        for side, part in product(("unlearn", "retain"), ("train", "val")):
            lines = (file.parent / sides[side][part]).read_text(encoding="utf-8").splitlines()
            short = [one for one in lines if sum(map(len, json.loads(one).values())) <= LONGEST]
            name = f"{domain}.{side}.{part}"
            goal = work.absolute() / "rows" / f"{name}.jsonl"
            write_text(goal, "\n".join([*short, ""]))
            command += ["--set", f"domains.{name}={goal}"]
    return command


def _audit(work: Path, seed: int, method: str, settings: Sequence[str]) -> None:
    folder, oracle = work / str(seed) / method, work / str(seed) / ORACLE
    command = ["audit", "--json", str(folder), "--oracle", str(oracle)]
    for setting in settings:
        command += ["--set", setting]
    for other in folder.parent.glob("*/audit"):  # what is measured on both stays the same
        for model in ("vanilla", "oracle"):
            for file in other.glob(f"{model}.*.json"):
                goal = folder / "audit" / file.name
                if not goal.exists():
                    goal.parent.mkdir(exist_ok=True)
                    shutil.copyfile(file, goal)
    _grail(command)


def _grail(command: Sequence[str]) -> None:
    began = time.monotonic()
    print(" ".join(command), flush=True)
    whole = [sys.executable, "-m", "grail", *command]
    done = subprocess.run(whole, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1):  # 1: the audit was not passed
        sys.exit(done.returncode)
    print(f"{(time.monotonic() - began) / 60:.1f} min", flush=True)


def collected(folder: Path) -> dict[str, Any]:
    """Return the figures of one run, and of its audit where it has one."""
    results, audit = folder / "results.json", read_audit(folder) or {}
    domains = audit_domains(audit) if audit else ()
    keys = ("outcome", "passed", "sentences", "seconds", "settings")
    return {
        "seed": int(folder.parent.name),
        "method": folder.name,
        "vanilla": rows_of(results, "vanilla"),
        "unlearned": rows_of(results, "unlearned"),
        "oracle": rows_of(folder.parent / ORACLE / "results.json", "unlearned"),
        "freezing": json.loads(results.read_text(encoding="utf-8"))["freezing"],
        "answers": answers(folder),
        "audit": {key: audit[key] for key in keys if key in audit},
        "known": [
            {"domain": domain, "part": part, **vars(row)}
            for domain in domains
            for part in ("train", "val")
            for row in known(audit, "unlearned", domain, part, "US")
        ],
        "extractable": [most_extractable(audit, domain) for domain in domains],
    }


def most_extractable(audit: Mapping[str, Any], domain: str) -> dict[str, Any]:
    """Return the relearning whose answers are the furthest above the oracle's by extraction."""
    rows = known(audit, "unlearned", domain, "train", "ES")
    of = [row for row in rows if row.attack.startswith("relearn") and row.beyond is not None]
    return {"domain": domain, **vars(max(of, key=lambda row: row.beyond or 0.0))}


def lines(measurements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a method and seed, as ``intervals.table`` reads them; see ``COLUMNS``.

    The vanilla model and the oracle are lines, too.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
    for one in measurements:
        seed = one["seed"]
        for method, model in (("vanilla", "vanilla"), (ORACLE, "oracle")):
            found.setdefault((method, seed), _kept(one[model]))
        worst: dict[str, float] = {}
        for row in one["known"]:
            attack = f"{row['attack'].partition('@')[0]} beyond"
            if row["part"] == "train" and row["beyond"] is not None:
                worst[attack] = max(worst.get(attack, row["beyond"]), row["beyond"])
        values = _kept(one["unlearned"])
        values |= {key: worst[key] for key in COLUMNS.values() if key in worst}
        found[one["method"], seed] = values
    return [line(method, seed, values) for (method, seed), values in found.items()]


def _kept(rows: Mapping[str, float]) -> dict[str, float]:
    """Return the means over domains of what is known and kept."""
    places = {"known": "unlearn.train.US", "retain train": "retain.train.RS"}
    places |= {"retain val": "retain.val.RS"}
    found = {
        key: fmean(value for name, value in rows.items() if name.endswith(place))
        for key, place in places.items()
    }
    found["known"] = 100 - found["known"]
    return found | {"general NLL": rows["general.general.val.NLL"]}


def answers(folder: Path) -> dict[str, int]:
    """Count a run's answers to the removed questions, and those that are no sentence.

    ``bare`` ones have no word (a year, a number), ``loops`` say three words in a row twice.
    A run that keeps no texts (``report.sample_text``) has no such answers.
    """
    values = json.loads((folder / "evaluation" / "unlearned.json").read_text("utf-8"))["values"]
    removed = [value for value in values if value["side"] == "unlearn"]
    texts = [value["generation"] for value in removed if "generation" in value]
    bare = [text for text in texts if not re.search(r"[^\W\d_]{2,}", text)]
    return {"asked": len(texts), "bare": len(bare), "loops": sum(map(_loops, texts))}


def _loops(text: str) -> bool:
    words = words_of(text)
    runs = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return len(runs) > len(set(runs))


if __name__ == "__main__":
    main()
