"""What a run computes, against what the stages of a real tiny run put through the model."""

from contextlib import contextmanager

import pytest

from grail.config.file import load_config
from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.evaluation.equal_retention import MOST
from grail.forecast.cost import artifact_bytes
from grail.forecast.machine import shape_of
from grail.forecast.work import NOTHING, Passes, Reading, workload
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run

STAYS = {"learning_rate": 1e-9}  # nothing is learned: no row rests, no stage ends early
RUNS = {
    "plain": {},
    "more": {
        "unlearning": {
            **STAYS,
            "objective": "npo",
            "general_weight": 0.2,
            "accumulation": 2,
            "optimizer": "adafactor",
        },
        "localization": {"freeze": "by_side"},
        "importance": {"gradients": "loop", "trials": 3},
    },
    "refusal": {
        "unlearning": {**STAYS, "objective": "refusal", "phases": [["privacy"], ["copyright"]]},
        "importance": {"labels": "true"},
        "vanilla": {"include_val": False, **STAYS},
        "evaluation": {"generate": False},
    },
    "exact": {
        "unlearning": {"objective": "exact"},
        "localization": {"method": "none"},
        "evaluation": {"generate": False},
    },
}


class Counter:
    """A listener that knows the stage, and a hook that counts what comes through the model."""

    def __init__(self):
        self.stages, self.stage_name = {}, ""

    @contextmanager
    def stage(self, name):
        self.stage_name = name.split()[0]
        yield lambda *_: None

    def skipped(self, name):
        raise AssertionError("nothing is finished yet")

    def warn(self, text):
        pass

    def seen(self, model, inputs, named):
        import torch

        ids = named["input_ids"] if "input_ids" in named else inputs[0]
        name = self.stage_name
        if named.get("use_cache"):
            name = "decode" if ids.shape[1] == 1 else "prompts"
        elif torch.is_grad_enabled():
            name += "+"
        batches, tokens = self.stages.get(name, (0, 0))
        self.stages[name] = (batches + 1, tokens + ids.numel())


@pytest.fixture(params=[*RUNS, "padded"])
def finished(request, module_config):
    sections = RUNS.get(request.param, RUNS["more"] | {"model": {"attention": "eager"}})
    sections = {"vanilla": STAYS, "unlearning": STAYS} | sections
    config = load_config(module_config(name=request.param, **sections), [], None)
    counter = Counter()
    run = Run(config, read_inputs(config), counter)
    inner = run.context.model.get_base_model()
    handle = inner.register_forward_pre_hook(counter.seen, with_kwargs=True)
    run.through("evaluate")
    handle.remove()
    return run, counter.stages


def test_passes_and_files_are_those_of_a_real_run(finished, payload):
    run, stages = finished
    how = Reading(packed=run.config.model.attention == "auto")
    made = workload(run.config, run.context.rows, run.context.general, how)
    work = made.stages
    expected = {
        "vanilla+": work["vanilla"].backward,
        "score+": work["score"].backward,
        "unlearn+": work["unlearn"].backward,
        "unlearn": work["unlearn"].forward,
        "evaluate": work["evaluate"].forward,
    }
    if "generate" in work:
        expected |= {"prompts": work["generate"].forward, "decode": work["generate"].generated}
    want = {n: (p.batches, p.tokens) for n, p in expected.items() if p != NOTHING}
    assert stages == want
    rows, tokens, answers = made.counts["privacy.unlearn.train"]
    own = run.context.sides()["privacy", "unlearn"]
    assert (rows, tokens) == (len(own), sum(len(row.ids) for row in own))
    assert answers == sum(len(row.answer) for row in own)

    sizes = artifact_bytes(run.config, shape_of(run.context.model), sides=4)
    for name in ("vanilla", "scores", "unlearned"):
        assert sizes[name] == payload(*(run.folder / name).glob("*.safetensors")), name
    assert sizes["mask"] == payload(*run.folder.glob("mask*.safetensors"))


@pytest.mark.parametrize("packed", [True, False])
def test_twice_the_rows_are_twice_the_work_where_each_is_read_once(module_config, packed):
    def of(rows):
        config = load_config(module_config(rows=rows, name=f"rows{rows}-{packed}"), [], None)
        # rows of one length each: padding then does not depend on who shares a batch
        made = [
            Encoded(Sample(d, s, "train", i, "", ""), tuple(range(12)), start=5)
            for d in ("privacy", "copyright")
            for s in ("unlearn", "retain")
            for i in range(rows)
        ]
        return workload(config, made, [], Reading(packed))

    small, large = of(4), of(8)
    for stage, kind in (("score", "backward"), ("vanilla", "backward"), ("unlearn", "backward")):
        one, two = (getattr(made.stages[stage], kind) for made in (small, large))
        assert (two.tokens, two.answers) == (2 * one.tokens, 2 * one.answers), stage
        assert one.tokens > 0
    trials = 5 + 2 * 6 if packed else 2 * 12  # of a row, which has a prompt of five tokens
    assert small.stages["score"].backward.tokens == 16 * trials
    assert small.stages["evaluate"].forward.answers == 2 * 16 * 7  # two models
    assert large.stages["unlearn"].steps == 2 * small.stages["unlearn"].steps
    length = 11 if packed else 12
    assert small.stages["vanilla"].backward.largest == 4 * length  # rows of a step: batch_size
    assert small.stages["unlearn"].backward.largest == 2 * 2 * length  # with as many retain rows


def test_a_given_model_is_not_trained_and_a_target_is_searched(module_config):
    row = Encoded(Sample("d", "retain", "train", 0, "", ""), tuple(range(9)), start=4)
    config = load_config(module_config(name="given"), ["vanilla.skip=true"], None)
    assert workload(config, [row], [], Reading(packed=True)).stages["vanilla"].backward == NOTHING
    with_target = load_config(module_config(name="target"), ["evaluation.retain_target=90"], None)
    plain, searched = (
        workload(c, [row], [], Reading(packed=True)).stages["evaluate"].forward
        for c in (config, with_target)
    )
    assert plain.batches == 2
    assert searched.batches == 3 + MOST


def test_passes_add_up():
    rows = [
        Encoded(Sample("d", "s", "train", n, "", ""), tuple(range(n)), start=n - 2) for n in (5, 7)
    ]
    found = Reading(packed=False).passes([rows, rows[:1]], copies=3)
    assert found == Passes(2, 3 * (2 * 7 + 5), 3 * (4 + 2), 3 * 14, 3 * 4)
    packed = Reading(packed=True).passes([rows, rows[:1]], copies=3)
    assert packed == Passes(2, (3 + 3) + (5 + 3) + (3 + 3), 3 * (4 + 2), 3 + 3 + 5 + 3, 3 * 4)
    assert found + NOTHING == found
    assert found * 0 == NOTHING
    assert found * 2 == found + found
    assert found.at_once() == Passes(2, found.tokens, found.answers, found.tokens, found.answers)
