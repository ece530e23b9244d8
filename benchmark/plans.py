"""What ``grail plan`` says of six runs, and what these then take: peak memory and seconds.

    python benchmark/plans.py [--only NAME ...]       # writes results/plans.json

Small runs of a few steps each on a random Llama, planned and run one after the other: an adapter,
plain, on NF4 and with checkpointing; all weights in one process, in two with a part each (FSDP2),
and with five domains. Memory is the peak of a process.
The run in parts is planned by ``--shape`` alone, which knows no times of this machine. Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from machine import write
from peaks import make_model, measured, write_settings

WIDTH, LAYERS, HEADS, ROWS = 512, 12, 8, 8
WANTED = {"memory": 1.2, "seconds": 1.5}
"""The largest ratio, either way, of what was measured and what was planned."""
SHORT: dict[str, Any] = {"teach": {"epochs": 2}, "evaluation": {"max_new_tokens": 8}}
ADAPTER: dict[str, Any] = SHORT | {"unlearning": {"objective": "npo", "epochs": 2}}
WEIGHTS: dict[str, Any] = SHORT | {"model": {"lora": None, "dtype": "float32"}}
WEIGHTS |= {"unlearning": {"objective": "ascent_descent", "epochs": 2}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "adapter": (ADAPTER, {}, 2, 1),
    "adapter on NF4": (ADAPTER, {"quantise": "nf4"}, 2, 1),
    "adapter, checkpointing": (ADAPTER, {"gradient_checkpointing": True}, 2, 1),
    "all weights": (WEIGHTS, {}, 2, 1),
    "all weights, five domains": (WEIGHTS, {}, 5, 1),
    "all weights, FSDP2 on 2 processes": (WEIGHTS, {}, 2, 2),
}
"""Name -> sections of the settings, more keys of ``model``, domains and processes."""


def main() -> None:
    """Plan and run each case, and write results/plans.json."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    found, ratios = [], {}
    for name in parser.parse_args().only:
        with tempfile.TemporaryDirectory() as folder:
            row = {"case": name, **case(Path(folder), *CASES[name])}
        print(row, flush=True)
        found.append(row)
        for kind in WANTED:
            if row["planned"][kind]:
                ratio = row["measured"][kind] / row["planned"][kind]
                ratios[f"{name}: {kind}"] = round(ratio, 3)
    settings = {"width": WIDTH, "layers": LAYERS, "rows": ROWS, "wanted": WANTED}
    print(f"wrote {write('plans', settings, found, ratios)}")


def case(
    folder: Path, sections: dict[str, Any], more: dict[str, Any], domains: int, processes: int
) -> dict[str, Any]:
    """Plan a case and run it; return both, in MiB and seconds."""
    model = {"name": str(folder / "model")} | sections.get("model", {}) | more
    make_model(folder / "model", WIDTH, LAYERS, HEADS)
    file, output = folder / "settings.yaml", folder / "plan.json"
    write_settings(file, sections | {"model": model}, domains, ROWS, length=24)
    words = [str(file), "--output", str(folder / "run")]
    by_shape = ["--shape", model["name"], "--devices", str(processes)] if processes > 1 else []
    measured(["plan", *words, "--json", *by_shape], output=output)
    plan = json.loads(output.read_text(encoding="utf-8").splitlines()[-1])
    took = measured(["run", *words], processes)
    most = {
        "memory": max(one["VmHWM"] for one in took) / 2**20,
        "seconds": max(one["seconds"] for one in took),
    }
    return {"planned": planned(plan, processes), "measured": most}


def planned(plan: dict[str, Any], processes: int) -> dict[str, Any]:
    """Return the peak in MiB and the seconds that a plan names; the middle of each range."""
    if processes > 1:
        ways = zip(plan["ways"], plan["unified"], strict=True)
        peak = next(most for way, most in ways if way["shards"] == processes)
        return {"memory": peak / 2**20, "seconds": None}
    total = plan["total"]
    middle = {kind: (low * high) ** 0.5 for kind, (low, high) in total.items()}
    return {
        "memory": middle["memory"] / 2**20,
        "seconds": middle["seconds"],
        "stages": [
            {"name": s["name"], "memory": s["memory"], "seconds": s["seconds"]}
            for s in plan["stages"]
        ],
    }


if __name__ == "__main__":
    main()
