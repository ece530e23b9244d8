"""What a run computes, against what the stages of a real tiny run put through the model."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from grail.config.file import load_config
from grail.evaluation.equal_retention import MOST
from grail.model.probe import shares
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.forecast.cost import file_bytes, shape_of
from grail.run.forecast.work import (
    READ_AGAIN,
    models_of,
    optimizer_steps,
    step_rows,
    tokens_of,
    workload,
)
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run
from grail.run.trainings import unlearn_training
from grail.unlearning.guesses import GUESS_TOKENS, attempts

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
    "reset": {
        "unlearning": {**STAYS, "rewrites": 2, "reset": {}, "guesses": 2, "examples": 1},
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
            name += " decode" if decoding else " prompts"
        elif torch.is_grad_enabled():
            name += "+"
        mask = named.get("attention_mask")
        padded = mask is not None and mask.shape == ids.shape
        tokens = int(mask.sum() if padded else ids.numel())
        self.stages[name] = self.stages.get(name, 0) + tokens


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
    looks = work["unlearn"].get("read", 0)
    trained = real["unlearn+"] + READ_AGAIN * max(0, real.get("unlearn", 0) - looks)
    pairs = {
        "vanilla": (work["vanilla"]["train"], real["vanilla+"]),
        "unlearn": (work["unlearn"]["train"], trained),
        "evaluate": (work["evaluate"]["read"], real["evaluate"]),
        "score": (work["score"]["score"], real["score+"]),
    }
    for name, (planned, tokens) in pairs.items():
        most = 1.3 if name != "score" or not packed else 9
        assert tokens <= planned <= most * tokens, name
    trials = config.importance.trials if config.importance.labels == "random" else 1
    train = [row for row in context.rows if row.part == "train"]
    assert work["score"]["score"] == trials * tokens_of(train)
    assert ("write" in work["evaluate"]) == config.evaluation.generate
    if config.evaluation.generate:
        write = work["evaluate"]["write"]
        assert real["evaluate prompts"] < write
        assert real["evaluate prompts"] + real.get("evaluate decode", 0) <= write
    assert ("reset" in work) == bool(config.unlearning.rewrites)
    if config.unlearning.rewrites:
        assert real["rewrite"] <= work["reset"]["read"] <= 1.3 * real["rewrite"]
        pieces = ("rewrite prompts", "rewrite decode", "guess prompts", "guess decode")
        assert min(real["rewrite prompts"], real["guess prompts"]) > 0
        written = sum(real.get(piece, 0) for piece in pieces)
        assert written <= work["reset"]["write"]


def test_steps_are_those_of_a_real_run(finished):
    run, _ = finished
    steps = optimizer_steps(run.config, run.context.rows)
    for name, log in {"vanilla": "vanilla.train.jsonl", "unlearn": "train.jsonl"}.items():
        assert steps[name] == len((run.folder / log).read_text().splitlines()), name


def test_files_are_as_large_as_those_of_a_real_run(finished, payload):
    run, _ = finished
    sizes = file_bytes(run.config, shape_of(run.context.model))
    for stage, name in {"vanilla": "vanilla", "score": "scores", "unlearn": "unlearned"}.items():
        assert sizes[stage] == payload(*(run.folder / name).glob("*.safetensors")), name
    assert sizes["localize"] == payload(*run.folder.glob("mask*.safetensors"))
    if run.config.unlearning.reset:
        assert sizes["reset"] == payload(run.folder / "survivors.safetensors")


def rows_of(context):
    """Rows of one length each, a prompt of five tokens and seven answer tokens."""
    return [replace(row, ids=tuple(range(12)), start=5) for row in context.rows]


def test_twice_the_rows_are_twice_the_work(module_config):
    def of(count):
        config = load_config(module_config(rows=count, val=count, name=f"rows{count}"), [], None)
        context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
        return workload(config, rows_of(context), [])

    small, large = of(4), of(8)
    for stage, kind in (("score", "score"), ("vanilla", "train"), ("unlearn", "train")):
        assert large[stage][kind] == 2 * small[stage][kind], stage
    assert small["vanilla"] == {"train": 3 * 32 * 12}
    assert small["score"] == {"score": 2 * 16 * 12}  # two trials of each train row
    assert small["unlearn"]["train"] == 2 * 16 * 12  # a retain row with each unlearn row
    steps = 6 - 1  # all but the first, of 6 tokens
    assert small["evaluate"] == {"read": 2 * 32 * 12, "write": 2 * 32 * (5 + steps)}


def test_a_given_model_is_not_trained_and_a_target_is_searched(module_config):
    config = load_config(module_config(name="given"), ["teach=null"], None)
    context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
    rows = rows_of(context)
    assert workload(config, rows, [])["vanilla"] == {}
    with_target = load_config(module_config(name="target"), ["evaluation.retain_target=90"], None)
    plain, searched = (workload(c, rows, [])["evaluate"]["read"] for c in (config, with_target))
    assert (models_of(config), models_of(with_target)) == (2, 3)
    assert plain == 2 * len(rows) * 12
    kept = [row for row in rows if (row.side, row.part) == ("retain", "train")]
    assert searched == 3 * len(rows) * 12 + MOST * len(kept) * 12


def test_looks_and_guesses_are_read(module_config):
    """Before, between and after the steps; and once more for what a model guesses."""
    config = load_config(module_config(name="stops"), [], None)
    context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
    rows = rows_of(context)
    stops = load_config(module_config(name="stops"), ["unlearning.stop={steps: 1}"], None)
    work = workload(stops, rows, [])["unlearn"]
    train = [row for row in rows if row.part == "train"]
    unlearn = [row for row in train if row.side == "unlearn"]
    steps = stops.unlearning.epochs * len(unlearn) // stops.unlearning.batch_size
    assert work["read"] == 12 * ((2 + steps // 4) * len(train) + 2 * len(unlearn))
    assert workload(config, rows, [])["unlearn"]["read"] == 0


def test_guesses_are_written_after_their_examples(module_config):
    config = load_config(module_config(name="guesses"), ["unlearning.guesses=3"], None)
    context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
    rows = rows_of(context)
    work = workload(config, rows, [])["reset"]
    each = 8 * (5 + GUESS_TOKENS - 1)  # eight unlearn rows
    assert work == {"read": 0, "write": each}  # without examples, once
    shown = load_config(
        module_config(name="guesses"), ["unlearning.guesses=3", "unlearning.examples=2"], None
    )
    assert workload(shown, rows, [])["reset"]["write"] == attempts(3, 2) * (each + 8 * 2 * 12)
    given = load_config(module_config(name="guesses"), ["unlearning.guesses=3", "teach=null"], None)
    assert "reset" not in workload(given, rows, [])  # nothing is known from before the facts


def test_scores_in_several_passes_take_as_many_times_the_work(module_config):
    config = load_config(module_config(name="passes"), [], None)
    context = RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))
    once, thrice = (workload(config, context.rows, [], n)["score"]["score"] for n in (1, 3))
    assert thrice == once * 3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"retain_ratio": 3},
        {"general_weight": 0.2},
        {"objective": "ascent", "general_weight": 0.2},
        {"objective": "refusal"},
    ],
)
def test_a_step_has_the_rows_that_are_planned_for_it(module_config, settings):
    config = load_config(module_config(name="steps", unlearning=settings), [], None)
    context = RunContext(config, read_inputs(config), NullListener(True), torch.device("cpu"))
    task, _ = unlearn_training(context, by_side=False)
    step = max(task.plan(0), key=len)
    counts = {side: sum(row.side == side for row in step) for side in task.objective.sides}
    assert counts == step_rows(config.unlearning)
