"""A plan as a whole: nothing written, finished stages known, and all numbers that add up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grail.config.file import load_config
from grail.errors import InputError
from grail.progress import NullListener
from grail.run.forecast import forecast as plan
from grail.run.forecast.cost import checkpoint_bytes, file_bytes
from grail.run.forecast.forecast import done, plan_of
from grail.run.forecast.machine import measure
from grail.run.forecast.work import optimizer_steps
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run

STAGES = ["start", "vanilla", "score", "localize", "unlearn", "evaluate"]


def planned(file):
    config = load_config(file, [], None)
    inputs = read_inputs(config)
    return plan_of(config, inputs, measure(config, inputs, NullListener(silent=True)))


def test_finished_stages_are_known(tiny_config, tmp_path):
    file = tiny_config(unlearning={"rewrites": 1})
    first = planned(file)
    stages = [*STAGES[:4], "reset", *STAGES[4:]]
    assert [stage.name for stage in first.stages] == stages
    assert not any(stage.done for stage in first.stages)
    assert not (tmp_path / "run").exists()
    config = load_config(file, [], None)
    inputs = read_inputs(config)
    Run(config, inputs).through("reset")
    assert done(config, inputs) == {"vanilla", "score", "localize", "reset"}
    second = planned(file)
    left = [s for s in second.stages if not s.done]
    assert [s.name for s in left] == ["start", "unlearn", "evaluate"]
    assert second.total["seconds"] == pytest.approx(
        [sum(s.seconds[i] for s in left) for i in (0, 1)]
    )
    assert second.total["memory"] == max(s.memory for s in left)
    (tmp_path / "run" / "rewrites.json").unlink()
    (tmp_path / "run" / "localization.json").unlink()
    assert done(config, inputs) == {"vanilla", "score"}
    other = load_config(file, ["seed=1"], None)
    assert done(other, inputs) == set()
    data = Path(config.domains["privacy"].unlearn.train)
    data.write_text(data.read_text().replace("a", "e"))
    assert done(config, read_inputs(config)) == set()


def test_a_plan_is_json(tiny_config):
    made = planned(tiny_config())
    found = json.loads(json.dumps(made.as_json()))
    assert found["shape"]["trainable"] == made.shape.trainable
    assert found["total"]["seconds"] == list(made.total["seconds"])
    assert [stage["name"] for stage in found["stages"]] == STAGES
    assert found["stages"][1]["work"]["train"] > 0


def test_seconds_and_memory_follow_from_what_was_timed(tiny_config):
    config = load_config(tiny_config(unlearning={"reset": {}, "rewrites": 1}), [], None)
    inputs = read_inputs(config)
    timing = measure(config, inputs, NullListener(silent=True))
    kinds = ("train", "score", "read", "write")
    paces = {kind: (k * 1e-3, k * 2e-3) for k, kind in enumerate(kinds, 1)}
    peak = 1000 + 3 * timing.shape.bytes
    made = plan_of(
        config,
        inputs,
        replace(timing, paces=paces, peaks=dict.fromkeys(kinds, peak), libraries=10, loading=2.0),
    )
    stages = {stage.name: stage for stage in made.stages}
    files, states = file_bytes(config, timing.shape), checkpoint_bytes(config, timing.shape)
    steps = optimizer_steps(config, timing.context.rows)
    assert min(steps.values()) > 2 * config.teach.checkpoint_steps == 4
    entries = 2 * 2 * 2 * timing.shape.trainable  # two selections on two sides of two domains
    for name, stage in stages.items():
        low = sum(kinds.index(kind) * 1e-3 * n + 1e-3 * n for kind, n in stage.work.items())
        chosen = entries * (name in ("localize", "reset"))
        moved = steps.get(name, 0) * timing.shape.trainable
        written = files.get(name, 0) + steps.get(name, 0) // 2 * states.get(name, 0)
        counts = (chosen, plan.SELECTING), (moved, plan.STEPPING), (written, plan.WRITING)
        wanted = [(1 + i) * low + sum(n * seconds[i] for n, seconds in counts) for i in (0, 1)]
        if name == "start":
            wanted = [2.0 + seconds for seconds in plan.IMPORTING]
        assert stage.seconds == pytest.approx(wanted), name
    sets = (4 * 2 + 5) * timing.shape.trainable
    proof = timing.shape.trainable_bytes + timing.shape.trainable
    assert {name: stage.memory[0] for name, stage in stages.items()} == {
        "start": 10 + timing.shape.bytes,
        "vanilla": peak + states["vanilla"],
        "score": peak,
        "localize": 10 + timing.shape.bytes + sets,
        "reset": peak + sets,
        "unlearn": peak + states["unlearn"] + proof,
        "evaluate": peak,
    }
    assert all(s.memory[1] == plan.RETAINED * s.memory[0] for s in made.stages)
    assert stages["unlearn"].files == files["unlearn"] + states["unlearn"]


def test_sums_that_do_not_fit_are_refused(tiny_config):
    file = tiny_config(importance={"memory_gib": 1e-9})
    with pytest.raises(InputError, match=r"importance\.memory_gib"):
        planned(file)
