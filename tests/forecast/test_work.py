"""What a run computes, against what the stages of a real tiny run put through the model."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from grail.config.file import load_config
from grail.evaluation.equal_retention import MOST
from grail.forecast.cost import artifact_bytes, shape_of
from grail.forecast.work import NO_PASSES, Passes, Work, models_of, workload
from grail.model.probe import shares
from grail.progress import NullListener
from grail.run.context import RunContext
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
        "teach": {"include_val": False, **STAYS},
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

    def count(self, model, inputs, named):
        """Add a forward pass: padding is not counted."""
        ids = named["input_ids"] if "input_ids" in named else inputs[0]
        name = self.stage_name
        decoding = named.get("use_cache") and ids.shape[1] == 1
        if named.get("use_cache"):
            name = "decode" if decoding else "prompts"
        elif torch.is_grad_enabled():
            name += "+"
        mask = named.get("attention_mask")
        padded = mask is not None and mask.shape == ids.shape
        batches, tokens = self.stages.get(name, (0, 0))
        self.stages[name] = (batches + 1, tokens + int(mask.sum() if padded else ids.numel()))


@pytest.fixture(params=[*RUNS, "padded"], scope="module")
def finished(request, module_config):
    sections = RUNS.get(request.param, RUNS["more"] | {"model": {"attention": "eager"}})
    sections = {"teach": STAYS, "unlearning": STAYS} | sections
    config = load_config(module_config(name=request.param, **sections), [], None)
    counter = Counter()
    run = Run(config, read_inputs(config), counter)
    inner = run.context.model.get_base_model()
    shares(run.context.model, run.context.tokenizer.pad_token_id)  # tried once per model
    handle = inner.register_forward_pre_hook(counter.count, with_kwargs=True)
    run.through("evaluate")
    handle.remove()
    return run, counter.stages


def test_work_is_that_of_a_real_run(finished):
    """At most, and not more than 1.3 times as much where nothing ends early.

    Packed rows lack their last token, which predicts nothing, and trials share their prompt.
    """
    run, real = finished
    config, context = run.config, run.context
    packed = config.model.attention == "auto"
    work = workload(config, context.rows, context.general)
    names = ["vanilla", "unlearn"] + ([] if packed else ["score"])
    for name in names:
        planned, (batches, tokens) = work[name].backward, real[f"{name}+"]
        assert tokens <= planned.tokens <= 1.3 * tokens, name
        assert planned.batches >= batches or not packed, name
    planned, (_, again) = work["unlearn"], real.get("unlearn", (0, 0))
    assert again <= planned.forward.tokens <= 1.3 * again
    batches, tokens = real["score+"]
    scored = work["score"].backward
    trials = config.importance.trials if config.importance.labels == "random" else 1
    train = [row for row in context.rows if row.part == "train"]
    assert tokens <= scored.tokens == trials * sum(len(row.ids) for row in train)
    assert (scored.batches, work["evaluate"].forward.batches) == (batches, real["evaluate"][0])
    batches, tokens = real["evaluate"]
    assert tokens <= work["evaluate"].forward.tokens <= 1.3 * tokens
    if config.evaluation.generate:
        generated = work["generate"]
        assert real["prompts"] == (generated.forward.batches, generated.forward.tokens)
        assert real["decode"][0] <= generated.generated.batches
    assert ("generate" in work) == config.evaluation.generate


def test_files_are_as_large_as_those_of_a_real_run(finished, payload):
    run, _ = finished
    sizes = artifact_bytes(run.config, shape_of(run.context.model))
    for name in ("vanilla", "scores", "unlearned"):
        assert sizes[name] == payload(*(run.folder / name).glob("*.safetensors")), name
    assert sizes["mask"] == payload(*run.folder.glob("mask*.safetensors"))


def rows_of(context):
    """Rows of one length each, a prompt of five tokens and seven answer tokens."""
    return [replace(row, ids=tuple(range(12)), start=5) for row in context.rows]


def test_twice_the_rows_are_twice_the_work(module_config):
    def of(count):
        config = load_config(module_config(rows=count, val=count, name=f"rows{count}"), [], None)
        context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
        return workload(config, rows_of(context), [])

    small, large = of(4), of(8)
    for stage in ("score", "vanilla", "unlearn"):
        one, two = (work[stage].backward for work in (small, large))
        assert (two.tokens, two.answers) == (2 * one.tokens, 2 * one.answers), stage
    assert small["vanilla"].backward == Passes(3 * 8, 3 * 32 * 12, 3 * 32 * 7)  # of 4 rows each
    assert small["score"].backward.tokens == 2 * 16 * 12  # two trials of each train row
    assert small["unlearn"].backward == Passes(2 * 4, 2 * 16 * 12, 2 * 16 * 7)  # a retain row each
    assert small["evaluate"].forward.answers == 2 * 32 * 7  # two models
    assert small["generate"].generated.batches == 2 * 3 * (6 - 1)  # three batches of at most 12


def test_a_given_model_is_not_trained_and_a_target_is_searched(module_config):
    config = load_config(module_config(name="given"), ["teach=null"], None)
    context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
    rows = rows_of(context)
    assert workload(config, rows, [])["vanilla"] == Work()
    with_target = load_config(module_config(name="target"), ["evaluation.retain_target=90"], None)
    plain, searched = (workload(c, rows, [])["evaluate"] for c in (config, with_target))
    assert (models_of(config), models_of(with_target)) == (2, 3)
    assert plain.forward.tokens == 2 * len(rows) * 12
    kept = [row for row in rows if (row.side, row.part) == ("retain", "train")]
    assert searched.forward.tokens == 3 * len(rows) * 12 + MOST * len(kept) * 12
    assert (plain.at_most, searched.at_most) == (False, True)


def test_scores_in_several_passes_take_as_many_times_the_work(module_config):
    config = load_config(module_config(name="passes"), [], None)
    context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
    once, thrice = (workload(config, context.rows, [], n)["score"].backward for n in (1, 3))
    assert thrice == once * 3


def test_passes_add_up():
    found = Passes(1, 10, 4)
    assert found + NO_PASSES == found
    assert found * 0 == NO_PASSES
    assert found * 2 == found + found == Passes(2, 20, 8)
    assert found * 0.25 == Passes(1, 3, 1)
