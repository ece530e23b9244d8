"""A plan as a whole: nothing written, finished stages known, a model that is not there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from grail.config.file import load_config
from grail.errors import InputError
from grail.forecast import forecast as plan
from grail.forecast import machine, outline
from grail.forecast.forecast import done, measure, plan_of
from grail.progress import NullListener
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run

STAGES = {"vanilla", "score", "localize", "unlearn", "evaluate", "generate"}


@pytest.fixture(autouse=True)
def _brief(monkeypatch):
    monkeypatch.setattr(machine, "SIDE", 16)


def planned(file):
    config = load_config(file, [], None)
    inputs = read_inputs(config)
    return plan_of(config, inputs, measure(config, inputs, NullListener(silent=True)))


def test_finished_stages_are_known(tiny_config, tmp_path):
    file = tiny_config()
    first = planned(file)
    assert {stage.name for stage in first.stages} == STAGES
    assert not any(stage.done for stage in first.stages)
    assert not (tmp_path / "run").exists()
    config = load_config(file, [], None)
    inputs = read_inputs(config)
    Run(config, inputs).through("localize")
    assert done(config, inputs) == {"vanilla", "score", "localize"}
    second = planned(file)
    assert [s.name for s in second.stages if s.done] == ["vanilla", "score", "localize"]
    left = [s.seconds for s in second.stages if not s.done]
    assert second.seconds == (sum(low for low, _ in left), sum(high for _, high in left))
    needed = second.libraries + max(s.memory for s in second.stages if not s.done)
    assert second.memory == (needed, plan.RETAINED * needed)
    (tmp_path / "run" / "localization.json").unlink()
    assert done(config, inputs) == {"vanilla", "score"}
    other = load_config(file, ["seed=1"], None)
    assert done(other, inputs) == set()
    data = Path(config.domains["privacy"].unlearn.train)
    data.write_text(data.read_text().replace("a", "e"))
    assert done(config, read_inputs(config)) == set()


def test_a_model_that_is_not_loaded_is_estimated(tiny_config, monkeypatch):
    file = tiny_config()
    loaded = planned(file)
    monkeypatch.setattr(outline, "_memory", lambda: 1000)
    drawn = planned(file)
    assert drawn.shape == loaded.shape
    assert drawn.artifacts == loaded.artifacts
    assert [s.work for s in drawn.stages] == [s.work for s in loaded.stages]
    assert plan.COUNTED in drawn.notes
    assert plan.TIMED in loaded.notes
    assert all(high > low > 0 for low, high in (s.seconds for s in drawn.stages))


def test_a_plan_is_json(tiny_config):
    made = planned(tiny_config())
    found = json.loads(json.dumps(made.as_json()))
    assert found["shape"]["trainable"] == made.shape.trainable
    assert found["total"]["seconds"] == list(made.seconds)
    assert [stage["name"] for stage in found["stages"]] == [stage.name for stage in made.stages]
    assert found["stages"][0]["work"]["backward"]["tokens"] > 0


def test_seconds_and_memory_follow_from_what_was_timed(tiny_config):
    config = load_config(tiny_config(), [], None)
    inputs = read_inputs(config)
    timing = measure(config, inputs, NullListener(silent=True))
    libraries, weights = 1000, timing.shape.bytes
    speed = replace(
        timing.speed,
        seconds=dict.fromkeys(timing.speed.seconds, (1e-9, 2e-9)),
        peaks=dict.fromkeys(timing.speed.peaks, libraries + 3 * weights),
        share=0.5,
    )
    made = plan_of(config, inputs, replace(timing, speed=speed, libraries=libraries))
    stages = {stage.name: stage for stage in made.stages}
    for name in ("vanilla", "score", "unlearn", "evaluate", "generate"):
        count = stages[name].operations
        assert stages[name].seconds == pytest.approx((0.5e-9 * count, 2e-9 * count))
    sizes = made.artifacts
    assert {name: stage.memory for name, stage in stages.items()} == {
        "vanilla": 3 * weights + sizes["vanilla.checkpoint"],
        "score": 3 * weights,
        "localize": weights + sizes["scores"],
        "unlearn": 3 * weights + sizes["unlearned.checkpoint"],
        "evaluate": 3 * weights,
        "generate": 3 * weights,
    }
    assert any("50 % of a core" in note for note in made.notes)


def test_a_model_too_large_to_be_timed_is_counted(tiny_config, monkeypatch):
    monkeypatch.setattr(plan, "LONGEST", 0.0)
    made = planned(tiny_config())
    assert plan.COUNTED in made.notes
    low, high = made.speed.seconds["vanilla"]
    assert (low * made.speed.rate, high * made.speed.rate) == pytest.approx(plan.UNTIMED)


def test_sums_that_do_not_fit_are_refused(tiny_config):
    file = tiny_config(importance={"memory_gib": 1e-9})
    with pytest.raises(InputError, match=r"importance\.memory_gib"):
        planned(file)
