"""A plan as a whole: nothing written, finished stages known, and all numbers that add up."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grail.config.file import load_config
from grail.errors import InputError
from grail.progress import NullListener
from grail.run.forecast import forecast as plan
from grail.run.forecast.cost import checkpoint_bytes, file_bytes, hashed_bytes
from grail.run.forecast.forecast import done, plan_of
from grail.run.forecast.holds import set_bytes
from grail.run.forecast.machine import Timing, measure
from grail.run.forecast.work import optimizer_steps
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run

KINDS = ("read", "write", "train", "score")
RATES = {
    "choosing": (1e-6, 3e-6),
    "surviving": (2e-6, 5e-6),
    "stepping": (1e-8, 4e-8),
    "hashing": (1e-9, 2e-9),
}
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


@pytest.fixture
def timed(tiny_config, monkeypatch):
    """A configuration with all stages, its inputs, and a machine with simple numbers."""
    section = {"reset": {}, "rewrites": 1, "objective": "npo"}
    config = load_config(tiny_config(unlearning=section), [], None)
    inputs = read_inputs(config)
    timing = measure(config, inputs, NullListener(silent=True))
    monkeypatch.setattr(Timing, "rate", lambda self, piece, *_: RATES[piece.__name__])
    paces = {kind: (k * 1e-3, k * 2e-3) for k, kind in enumerate(KINDS, 1)}
    rates = {"hashing": RATES["hashing"]}
    return config, inputs, replace(timing, paces=paces, rates=rates, loading=2.0)


def test_seconds_follow_from_what_was_timed(timed):
    config, inputs, timing = timed
    made = plan_of(config, inputs, timing)
    stages = {stage.name: stage for stage in made.stages}
    files, states = file_bytes(config, timing.shape), checkpoint_bytes(config, timing.shape)
    hashed = hashed_bytes(config, timing.shape)
    steps = optimizer_steps(config, timing.context.rows)
    assert min(steps.values()) > 2 * config.teach.checkpoint_steps == 4
    choosers = {"localize": "choosing", "reset": "surviving"}
    for name, stage in stages.items():
        low = sum(KINDS.index(kind) * 1e-3 * n + 1e-3 * n for kind, n in stage.work.items())
        saved = steps.get(name, 0) // 2 * states.get(name, 0)
        counts = [
            (timing.shape.trainable * (name in choosers), RATES[choosers.get(name, "stepping")]),
            (steps.get(name, 0) * timing.shape.trainable, RATES["stepping"]),
            (files.get(name, 0) + saved, plan.WRITING),
            (hashed.get(name, 0) + saved, RATES["hashing"]),
        ]
        wanted = [(1 + i) * low + sum(n * seconds[i] for n, seconds in counts) for i in (0, 1)]
        if name == "start":
            wanted = [2.0 + seconds for seconds in plan.IMPORTING]
        assert stage.seconds == pytest.approx(wanted), name
    assert stages["unlearn"].files == files["unlearn"] + states["unlearn"]


def test_memory_follows_from_what_was_measured_and_what_stages_hold(timed):
    config, inputs, timing = timed
    shape, loaded = timing.shape, 10**9
    weights = shape.trainable_bytes  # an adapter in float32: two moments, no copies
    peaks = {kind: loaded + k * 10**6 for k, kind in enumerate(KINDS, 1)}
    made = plan_of(config, inputs, replace(timing, peaks=peaks, loaded=loaded))
    sets = loaded + set_bytes(config, shape)
    trained = peaks["train"] + 2 * weights
    stage_3 = trained + weights + shape.trainable  # the weights at the start, and the mask
    kept = max(trained, peaks["score"], sets)
    found = {stage.name: stage.memory[0] for stage in made.stages}
    assert found == {
        "start": loaded,
        "vanilla": trained,
        "score": max(trained + weights, peaks["score"]),
        "localize": kept,
        "reset": max(kept + weights, sets),
        "unlearn": max(kept + weights, stage_3),
        "evaluate": max(kept, stage_3) + weights,
    }
    assert all(s.memory[1] == plan.RETAINED * s.memory[0] for s in made.stages)
    small = plan_of(config, inputs, replace(timing, peaks=dict.fromkeys(KINDS, 10), loaded=10))
    stepping = 10 + weights + 3 * weights + shape.trainable + 2 * weights  # npo has a reference
    chosen = 10 + set_bytes(config, shape)
    by_name = {stage.name: stage.memory[0] for stage in small.stages}
    assert by_name["unlearn"] == max(stepping, chosen + weights)


def test_a_stage_that_is_done_leaves_nothing_in_memory(timed, monkeypatch):
    config, inputs, timing = timed
    peaks = dict.fromkeys(KINDS, 10**9) | {"score": 10**10}
    timing = replace(timing, peaks=peaks, loaded=10**9)
    first = plan_of(config, inputs, timing).total["memory"]
    monkeypatch.setattr(plan, "done", lambda *_: {"vanilla", "score"})
    assert plan_of(config, inputs, timing).total["memory"][0] < 2 * 10**9 < first[0]


def test_sums_that_do_not_fit_are_refused(tiny_config):
    file = tiny_config(importance={"memory_gib": 1e-9})
    with pytest.raises(InputError, match=r"importance\.memory_gib"):
        planned(file)
