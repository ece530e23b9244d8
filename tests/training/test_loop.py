"""The training loop: what may not move, what must add up, what an interruption may not change."""

import dataclasses
import json
import math
import shutil

import forks
import pytest
import torch
import two_processes
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from grail.artifacts import Mask
from grail.config.unlearning import Unlearning, Until
from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.errors import DivergenceError
from grail.files import file_digest, read_json, write_json
from grail.model.forward import trainable
from grail.model.weights import copy_weights
from grail.run.trainings import loop_settings, schedule_of
from grail.training import checkpoint, eight_bits
from grail.training import loop as loop_module
from grail.training.freezing import Freezing
from grail.training.gru import NEWEST
from grail.training.loop import Loop, LoopFiles, _seeded
from grail.training.optimizer import OPTIMIZERS, learning_rate, masters_of
from grail.unlearning.objectives import make_objective
from grail.unlearning.task import UnlearnTask

STEPS = 8
OPTIMISERS = ("adamw", "sgd", "adafactor", "adamw8bit")
BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class StoppedError(Exception):
    pass


def bits_of(tensor):
    return tensor.detach().contiguous().view(BITS[tensor.dtype])


def snapshot(parameters):
    return {name: p.detach().clone() for name, p in parameters.items()}


def changed(before, after, where=None):
    """Entries with other bits, among those of ``where``; does not use grail's own comparison."""
    found = 0
    for name in before:
        differs = bits_of(before[name]) != bits_of(after[name])
        found += int((differs if where is None else differs & where[name]).sum())
    return found


def inverted(bits):
    return {name: ~value for name, value in bits.items()}


def half(parameters, seed=0, share=0.5):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(p.shape, generator=generator) < share for n, p in parameters.items()}


def sided(parameters):
    unlearn, retain = half(parameters, 1), half(parameters, 2)
    return Mask({n: unlearn[n] & retain[n] for n in unlearn}, unlearn, retain)


@dataclasses.dataclass
class World:
    """A model, its task and where its loop writes; made anew, it is the same again."""

    parameters: dict
    task: object
    settings: object
    place: LoopFiles
    mask: Mask | None = None
    loop_type: type = Loop

    @property
    def rows(self):
        return self.task.rows

    def loop(self):
        return self.loop_type(
            self.parameters, self.task, self.mask, self.settings, Accelerator(cpu=True)
        )

    def run(self, tick=lambda *_: None):
        return self.loop().run(self.place, tick)

    def log(self):
        lines = [json.loads(line) for line in self.place.log.read_text().splitlines()]
        return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def rows(tiny_model, tiny_rows):
    """Every second row is what the model itself would say, so that there is something to forget."""
    model = tiny_model()
    sides = [(d, s) for s in ("unlearn", "retain") for d in "ab"] * 4
    made = []
    for i, (row, (d, s)) in enumerate(zip(tiny_rows(16), sides, strict=True)):
        ids = list(row.ids)
        for t in range(row.start, len(ids)) if i // 4 % 2 == 0 else ():
            with torch.no_grad():
                ids[t] = int(model(input_ids=torch.tensor([ids[:t]])).logits[0, -1].argmax())
        made.append(Encoded(Sample(d, s, "train", i, "", ""), tuple(ids), row.start))
    return tuple(made)


@pytest.fixture
def world(tiny_model, rows, tmp_path, monkeypatch):
    """Make a world of 2 domains x 2 sides x 4 rows; 2 epochs of 4 steps unless told otherwise."""
    monkeypatch.setattr(eight_bits, "SMALLEST", 1)

    def make(kind="lora", mask="static", name="run", dropout=0.0, inputs="x", **given):
        model = tiny_model(lora=kind == "lora", attention_dropout=dropout)
        if kind == "bf16":
            model = model.to(torch.bfloat16)
            with torch.no_grad():  # a third of all entries is minus zero
                for p in model.parameters():
                    p.view(-1)[::3] = -0.0
        model.train()
        defaults = {
            "learning_rate": 0.01,
            "epochs": 2,
            "batch_size": 2,
            "until": Until(row_accuracy=None),
        }
        defaults |= {"unlearn_weight": 1.0, "retain_weight": 2.0, "max_token_nll": None}
        settings = Unlearning(**(defaults | given))
        parameters = trainable(model)
        masks = {"static": lambda p: Mask(half(p)), "by_side": sided, "none": lambda _: None}
        masks["most"] = lambda p: Mask(half(p, share=0.85))
        made = masks[mask](parameters)
        objective = make_objective(settings)
        compared = any(objective.compares(side) for side in objective.sides)
        task = UnlearnTask(
            model,
            rows,
            objective,
            0,
            schedule_of(settings),
            split=mask == "by_side" or settings.rectify,
            reference=copy_weights(model) if compared else None,
        )
        place = LoopFiles(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.checkpoint", inputs)
        return World(parameters, task, loop_settings(settings, 0), place, made)

    return make


def stop_at(*steps):
    """A tick that interrupts when one of ``steps`` is done."""

    def tick(done, total, note):
        if done in steps:
            raise StoppedError

    return tick


# -- freezing -------------------------------------------------------------------------------------

VARIANTS = {
    "clipping": {"max_grad_norm": 0.05},
    "no clipping": {"max_grad_norm": None},
    "accumulation": {"accumulation": 2},
    "decay": {"weight_decay": 0.5},
    "resumed": {"weight_decay": 0.5, "checkpoint_steps": 3},
    "by_side": {"mask": "by_side", "weight_decay": 0.5, "accumulation": 2},
    "rectified": {"rectify": True, "weight_decay": 0.5, "accumulation": 2},
    "rectified by_side": {"rectify": True, "mask": "by_side", "weight_decay": 0.5},
    "phases": {"phases": [["a"], ["b"]], "weight_decay": 0.5},
}


def frozen_changes(world, optimizer, variant, kind, loop_type=Loop):
    """Train; return how many entries of the mask moved, and how many others did."""
    given = {"kind": kind, "optimizer": optimizer, **VARIANTS[variant]}
    made = world(**given)
    made.loop_type = loop_type
    before = snapshot(made.parameters)
    if variant == "resumed":
        with pytest.raises(StoppedError):
            made.run(stop_at(5))
        made = world(**given)
        made.loop_type = loop_type
    made.run()
    assert len(made.log()) == STEPS
    frozen = made.mask.frozen
    assert changed(before, made.parameters, frozen) == 0
    return changed(before, made.parameters, inverted(frozen))


@pytest.mark.parametrize(
    ("variant", "kind"),
    [*((v, "lora") for v in VARIANTS), *((v, "bf16") for v in ("resumed", "by_side", "rectified"))],
)
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_no_frozen_entry_moves_and_free_ones_do(world, optimizer, variant, kind):
    assert frozen_changes(world, optimizer, variant, kind) > 500


class Unmasked(Loop):
    """Negative control: leaves the mask out, and does not look afterwards."""

    def __init__(self, parameters, task, mask, *more):
        super().__init__(parameters, task, None, *more)


class WholeTensors(Loop):
    """The slow, obvious way: every entry has a gradient and moments, those of frozen ones are 0."""

    def __init__(self, parameters, task, mask, settings, accelerator):
        super().__init__(parameters, task, mask, settings, accelerator)
        self.freezing = Freezing(parameters, mask)
        self.masters = masters_of(parameters)
        self.optimizer = OPTIMIZERS[settings.optimizer](list(self.masters.values()), settings)


class Late(WholeTensors):
    """Negative control: masks from step 5 on."""

    def _step(self, rows, state, rate, files):
        masks = self.freezing.hidden
        self.freezing.hidden = {} if state.step < 4 else masks
        line = super()._step(rows, state, rate, files)
        self.freezing.hidden = masks
        return line


class OwnDecay(WholeTensors):
    """Negative control: the optimiser decays by itself."""

    def __init__(self, *given):
        super().__init__(*given)
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=0.01, weight_decay=0.5)


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_the_body_above_fails_without_the_mask(world, optimizer):
    with pytest.raises(AssertionError, match=r"assert [0-9]+ == 0"):
        frozen_changes(world, optimizer, "clipping", "lora", Unmasked)


@pytest.mark.parametrize(
    ("optimizer", "broken"), [*((name, Late) for name in OPTIMISERS), ("adamw", OwnDecay)]
)
def test_the_body_above_fails_with_a_late_mask_or_the_optimisers_decay(world, optimizer, broken):
    with pytest.raises(RuntimeError, match=r"^[0-9]+ frozen entries changed"):
        frozen_changes(world, optimizer, "clipping", "lora", broken)


@pytest.mark.parametrize("kind", ["lora", "full", "bf16"])
@pytest.mark.parametrize("variant", ["clipping", "accumulation", "decay", "resumed", "by_side"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_free_entries_alone_is_training_whole_tensors(world, optimizer, variant, kind):
    """Equal to the bit: weights, norms and terms; no state and no checkpoint of frozen entries."""
    given = {"kind": kind, "optimizer": optimizer, "mask": "most", **VARIANTS[variant]}
    whole = world(name="whole", **given)
    whole.loop_type = WholeTensors
    whole.run()
    made = world(**given)
    if variant == "resumed":
        with pytest.raises(StoppedError):
            made.run(stop_at(5))
        saved = load_file(made.place.checkpoints / "weights")
        assert {n: v.numel() for n, v in saved.items()} == free_counts(made, 0.5)
        made = world(**given)
    loop = made.loop()
    loop.run(made.place)
    assert changed(whole.parameters, made.parameters) == 0
    assert made.log() == whole.log()
    for name, master in loop.masters.items():
        kept = [v.numel() for v in loop.optimizer.state[master].values() if v.dim()]
        assert kept == [free_counts(made, 0.5)[name]] * (2 if optimizer == "adamw" else 1)


def free_counts(made, least):
    """Name -> entries that are trained: the free ones, of tensors with at least this frozen."""
    counts = {}
    for name, p in made.parameters.items():
        bits = made.mask.frozen[name]
        counts[name] = int((~bits).sum()) if bits.float().mean() >= least else p.numel()
    return counts


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_under_a_late_mask_momentum_alone_moves_frozen_entries(world, optimizer):
    made, taken = world(optimizer=optimizer), {}
    made.loop_type = Late

    def tick(done, total, note):
        if done == 4:
            taken.update(snapshot(made.parameters))

    with pytest.raises(RuntimeError, match="frozen entries changed"):
        made.run(tick)
    assert changed(taken, made.parameters, made.mask.frozen) > 100


def test_the_proof_counts_what_is_there(world):
    made = world()
    before = snapshot(made.parameters)
    proof = made.run()
    assert proof["changed"] == 0
    assert proof["frozen"] == sum(int(bits.sum()) for bits in made.mask.frozen.values())
    assert proof["entries"] == sum(p.numel() for p in made.parameters.values())
    assert proof["moved"] == changed(before, made.parameters)
    assert proof["sha256_before"] == proof["sha256_after"]


def test_an_entry_moved_behind_the_loops_back_is_found(world):
    made = world(kind="bf16")
    name, bits = next((n, b) for n, b in made.mask.frozen.items() if b.any())
    where = int((bits.flatten() & (made.parameters[name].flatten() == 0)).nonzero()[0])

    def tick(done, total, note):
        if done == STEPS:
            with torch.no_grad():
                made.parameters[name].view(-1)[where] = 0.0  # was -0.0

    with pytest.raises(RuntimeError, match=r"^1 frozen entries changed"):
        made.run(tick)


def test_a_task_and_a_mask_that_disagree_on_sides_do_not_train_unmasked(world):
    made, other = world(mask="by_side"), world()
    with pytest.raises(KeyError):
        dataclasses.replace(made, task=other.task, mask=made.mask).run()


def test_one_mask_holds_for_every_group_of_a_task_that_splits(world):
    made = world(rectify=True)
    before = snapshot(made.parameters)
    made.run()
    assert changed(before, made.parameters, made.mask.frozen) == 0
    assert changed(before, made.parameters, inverted(made.mask.frozen)) > 500


# -- one step by hand -----------------------------------------------------------------------------


def row_nll(model, row):
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    return -torch.log_softmax(logits, -1)[range(len(row.answer)), list(row.answer)].mean()


def side_gradients(made, rows):
    """Name -> gradient of each side's weighted term over ``rows``, rows one by one."""
    weights = {term.side: term.weight for term in made.task.objective.terms}
    found = {}
    for side, weight in weights.items():
        own = [row for row in rows if row.side == side]
        loss = weight * sum(row_nll(made.task.model, row) for row in own) / len(own)
        values = torch.autograd.grad(loss, list(made.parameters.values()))
        found[side] = dict(zip(made.parameters, values, strict=True))
    return found


def close(a, b, relative=2e-5):
    scale = max(float(v.detach().abs().max()) for v in b.values())
    gap = max(float((a[n].detach() - b[n].detach()).abs().max()) for n in b)
    return gap <= relative * scale


ONE_STEP = {"optimizer": "sgd", "momentum": 0.0, "epochs": 1, "batch_size": 8}


@pytest.mark.parametrize("limit", [None, 0.01, 1e6])
def test_the_mask_acts_before_the_norm_is_taken_and_clipped(world, limit):
    made = world(**ONE_STEP, max_grad_norm=limit, schedule="constant", learning_rate=1.0)
    before = snapshot(made.parameters)
    sides = side_gradients(made, made.rows)
    whole = {n: sides["unlearn"][n] + sides["retain"][n] for n in before}
    masked = {n: g * ~made.mask.frozen[n] for n, g in whole.items()}
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in masked.values()))
    unmasked = math.sqrt(sum(float(g.double().square().sum()) for g in whole.values()))
    made.run()
    (line,) = made.log()
    assert line["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert unmasked > 1.2 * norm
    scale = min(1.0, (limit or math.inf) / norm)
    moved = {n: before[n] - p.detach() for n, p in made.parameters.items()}
    assert close(moved, {n: scale * g for n, g in masked.items()}, 1e-3)


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_each_side_skips_its_own_entries_only(world, accumulation):
    given = ONE_STEP | {"max_grad_norm": None, "schedule": "constant", "accumulation": accumulation}
    made = world(mask="by_side", **given)
    before, mask = snapshot(made.parameters), made.mask
    sides = side_gradients(made, made.rows)
    expected = {
        n: sides["unlearn"][n] * ~mask.unlearn[n] + sides["retain"][n] * ~mask.retain[n]
        for n in before
    }
    made.run()
    moved = {n: (before[n] - p.detach()) / 0.01 for n, p in made.parameters.items()}
    assert close(moved, expected, 1e-3)
    for side, own, other in (
        ("retain", mask.unlearn, mask.retain),
        ("unlearn", mask.retain, mask.unlearn),
    ):  # where one side is shut out, the other alone decides, and does move
        alone = {n: own[n] & ~other[n] for n in own}
        parts = {n: moved[n] * alone[n] for n in moved}
        assert close(parts, {n: sides[side][n] * alone[n] for n in moved}, 1e-3)
        assert sum(int((parts[n] != 0).sum()) for n in parts) > 500


def test_a_side_alone_moves_nothing_that_is_hidden_from_it(world):
    """With the other side's weight at 0, only what this side may move has moved."""
    for weights, side in (
        ({"unlearn_weight": 0.0}, "retain"),
        ({"objective": "ascent"}, "unlearn"),
    ):
        made = world(mask="by_side", optimizer="adamw", name=side, **weights)
        before = snapshot(made.parameters)
        made.run()
        hidden = getattr(made.mask, side)
        assert changed(before, made.parameters, hidden) == 0
        assert changed(before, made.parameters, inverted(hidden)) > 1000


def test_equal_masks_by_side_are_one_static_mask(world):
    static = world(name="static", optimizer="sgd")
    static.run()
    both = world(name="both", optimizer="sgd")
    frozen = both.mask.frozen
    both.mask = Mask(frozen, unlearn=frozen, retain=frozen)
    both.task = dataclasses.replace(both.task, split=True)
    both.run()
    assert close(both.parameters, static.parameters, 1e-6)
    assert changed(snapshot(both.parameters), static.parameters, frozen) == 0


@pytest.mark.parametrize("mask", ["static", "by_side"])
@pytest.mark.parametrize("optimizer", ["sgd", "adafactor"])
def test_accumulation_changes_nothing_but_rounding(world, optimizer, mask):
    rules = {"until": Until(row_accuracy=0.3, domain_accuracy=0.2), "batch_size": 4}
    runs = []
    for accumulation in (1, 2, 4):
        made = world(
            mask=mask, name=str(accumulation), optimizer=optimizer, accumulation=accumulation,
            **rules,
        )  # fmt: skip
        made.run()
        runs.append(made)
    for other in runs[1:]:
        assert close(other.parameters, runs[0].parameters, 1e-6)
        for a, b in zip(other.log(), runs[0].log(), strict=True):
            assert a["terms"] == pytest.approx(b["terms"], rel=1e-4)
            assert a["ascending"] == b["ascending"]
    assert 0 < min(line["ascending"] for line in runs[0].log()) < 4  # the rules were at work


def test_the_log_has_the_rates_of_the_schedule(world):
    made = world(schedule="cosine", warmup=0.25)
    made.run()
    lines = made.log()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in lines] == [0] * 4 + [1] * 4
    rates = [learning_rate(made.settings, i / STEPS) for i in range(STEPS)]
    assert [line["lr"] for line in lines] == rates
    assert set(lines[0]["terms"]) == {"unlearn/nll", "retain/nll"}


def test_without_a_mask_it_trains_everything(world):
    made = world(mask="none")
    before = snapshot(made.parameters)
    assert made.run() == {}
    total = sum(p.numel() for p in before.values())
    assert changed(before, made.parameters) > 0.9 * total


def test_the_rate_of_a_step_is_the_one_that_is_logged(world):
    made = world(optimizer="sgd", warmup=0.5)
    before = snapshot(made.parameters)
    with pytest.raises(StoppedError):
        made.run(stop_at(1))
    assert changed(before, made.parameters) == 0  # the first rate of a warm-up is 0


# -- rectification --------------------------------------------------------------------------------


def flat(gradients):
    return torch.cat([value.detach().double().flatten() for value in gradients.values()])


def hidden_from(made, side):
    """What a side must leave alone, as zeros in a flat vector of ones."""
    if made.mask is None:
        return torch.ones(sum(p.numel() for p in made.parameters.values()), dtype=torch.float64)
    own = {"unlearn": made.mask.unlearn, "retain": made.mask.retain}[side] or made.mask.frozen
    return 1 - torch.cat([own[name].flatten() for name in made.parameters]).double()


def at_odds(made):
    """Let the retain rows say what the unlearn rows say: what one side wants, the other fights."""
    texts = [row for row in made.rows if row.side == "unlearn"]
    retain = [row for row in made.rows if row.side == "retain"]
    said = [
        dataclasses.replace(row, ids=text.ids, start=text.start) if i % 2 else row
        for i, (row, text) in enumerate(zip(retain, texts, strict=True))
    ]
    return dataclasses.replace(made, task=dataclasses.replace(made.task, rows=(*texts, *said)))


@pytest.mark.parametrize("mask", ["none", "static", "by_side"])
def test_rectified_steps_are_those_computed_by_hand(world, mask):
    """Three steps of plain SGD over all rows; the direction is an average over the steps."""
    given = ONE_STEP | {"epochs": 3, "max_grad_norm": None, "schedule": "constant"}
    given |= {"learning_rate": 0.05, "rectify": True, "mask": mask}
    made, by_hand = (at_odds(world(name=name, **given)) for name in ("made", "hand"))
    free = {side: hidden_from(by_hand, side) for side in ("unlearn", "retain")}
    direction, opposed, expected = None, [], []

    for _ in range(3):
        sides = side_gradients(by_hand, by_hand.rows)
        u, r = (flat(sides[side]) * free[side] for side in ("unlearn", "retain"))
        direction = r if direction is None else (1 - NEWEST) * direction + NEWEST * r
        d = direction * free["unlearn"]  # what unlearn rows may not move, they may not use
        opposed.append(float(u @ d) < 0)
        if opposed[-1]:
            u = u - (u @ d) / (d @ d) * d
        assert float(u @ direction) >= -1e-9 * float(u.norm() * direction.norm())
        expected.append(float((u + r).norm()))
        step, start = 0.05 * (u + r), 0
        with torch.no_grad():
            for p in by_hand.parameters.values():
                p -= step[start : start + p.numel()].view_as(p).float()
                start += p.numel()
    assert any(opposed)
    made.run()
    norms = [line["gradient_norm"] for line in made.log()]
    assert norms == pytest.approx(expected, rel=1e-3)
    assert close(made.parameters, by_hand.parameters, 1e-5)
    plain = at_odds(world(name="plain", **(given | {"rectify": False})))
    plain.run()
    assert not close(made.parameters, plain.parameters, 1e-4)


@pytest.mark.parametrize("accumulation", [2, 3])
def test_rectification_knows_no_micro_batches(world, accumulation):
    runs = []
    for pieces in (1, accumulation):
        given = {"optimizer": "sgd", "rectify": True, "accumulation": pieces, "batch_size": 4}
        runs.append(world(name=str(pieces), **given))
        runs[-1].run()
    assert close(runs[0].parameters, runs[1].parameters, 1e-6)


# -- phases ---------------------------------------------------------------------------------------

PHASES = {"phases": [["b"], ["a"]], "epochs": 2}  # 2 steps an epoch: the second begins at step 5


def test_a_phase_trains_its_domains_only_and_has_the_rates_of_a_training(world):
    made = world(**PHASES, schedule="cosine", warmup=0.25)
    trained = []

    class Watched:
        plan, groups, history = made.task.plan, made.task.groups, made.task.history

        def run(self, rows, step):
            trained.append({row.domain for row in step})
            return made.task.run(rows, step)

    dataclasses.replace(made, task=Watched()).run()
    assert trained == [{"b"}] * 4 + [{"a"}] * 4
    lines = made.log()
    assert [line["epoch"] for line in lines] == [0, 0, 1, 1, 2, 2, 3, 3]
    rates = [line["lr"] for line in lines]
    assert rates[:4] == rates[4:] == [learning_rate(made.settings, i / 4) for i in range(4)]


def test_a_phase_begins_with_a_new_optimiser_and_a_new_direction(world, monkeypatch):
    made = world(**PHASES, rectify=True)
    loop, counts, begun = made.loop(), [], []
    real = loop_module.averaged

    def averaged(direction, retain):
        begun.append(not direction)
        return real(direction, retain)

    monkeypatch.setattr(loop_module, "averaged", averaged)

    def tick(done, total, note):
        counts.append({int(state["step"]) for state in loop.optimizer.state.values()})

    loop.run(made.place, tick)
    assert counts == [{1}, {2}, {3}, {4}] * 2
    assert begun == [True, False, False, False] * 2


def test_a_phase_that_is_over_leaves_its_epochs_empty_and_the_next_one_begins(world):
    made = world(**(PHASES | {"epochs": 3}), until=Until(row_accuracy=1.0))  # all at once
    made.run()
    assert [line["epoch"] for line in made.log()] == [0, 0, 3, 3]


# -- interruptions --------------------------------------------------------------------------------


def assert_same_end(a, b):
    assert changed(snapshot(a.parameters), b.parameters) == 0
    assert a.log() == b.log()
    assert not a.place.log.with_name(a.place.log.name + ".partial").exists()


def run_and_keep(made, stops):
    """Run to the end; keep the files as they are at each stop, under ``stopped1`` and so on.

    What a killed process leaves behind at that moment, without a run for every stop.
    """
    log = made.place.log

    def tick(done, total, note):
        if done in stops:
            shutil.copy(f"{log}.partial", log.with_name(f"stopped{done}.jsonl.partial"))
            if made.place.checkpoints.exists():
                shutil.copytree(made.place.checkpoints, log.with_name(f"stopped{done}.checkpoint"))

    made.run(tick)


@pytest.mark.parametrize("mask", ["static", "by_side"])
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_resumed_equals_uninterrupted(world, optimizer, mask):
    given = {"optimizer": optimizer, "mask": mask, "dropout": 0.3, "checkpoint_steps": 3}
    given |= {"until": Until(row_accuracy=0.3, domain_accuracy=0.1), "weight_decay": 0.1}
    given |= {"epochs": 3}
    stops = (1, 3, 4, 8)  # 3: before the checkpoint is there; 4: just after
    whole = world(name="whole", **given)
    run_and_keep(whole, stops)
    assert STEPS <= len(whole.log()) < 3 * STEPS / 2  # what was seen matters: unlearned rows rest,
    assert len({line["ascending"] for line in whole.log()}) > 1  # and get no gradient
    for stop in stops:
        torch.manual_seed(stop)  # another process draws from elsewhere
        again = world(name=f"stopped{stop}", **given)
        done = []
        proof = again.run(lambda step, *_: done.append(step))  # noqa: B023
        assert done[0] == 3 * ((stop - 1) // 3) + 1
        assert_same_end(again, whole)
        assert proof["changed"] == 0


RESUMED = {
    "rectified": {"rectify": True, "mask": "by_side", "optimizer": "sgd"},
    "bfloat16": {"kind": "bf16", "learning_rate": 1e-4, "weight_decay": 0.1},
    "phases": PHASES,
    "phases, rectified": PHASES | {"rectify": True, "optimizer": "adafactor"},
    "a reference": {"objective": "npo"},
    "two references": {"objective": "ascent_kl", **PHASES},
}


@pytest.mark.parametrize(  # 4: exactly at the border of a phase
    ("name", "every"), [*((name, 4) for name in RESUMED), ("phases, rectified", 1)]
)
def test_what_a_loop_carries_is_resumed(world, name, every):
    given = {"dropout": 0.3, "checkpoint_steps": every, **RESUMED[name]}
    whole, stops = world(name="whole", **given), (4, 5, STEPS)
    run_and_keep(whole, stops)
    assert len(whole.log()) == STEPS
    for stop in stops:
        again, done = world(name=f"stopped{stop}", **given), []
        again.run(lambda step, *_: done.append(step))  # noqa: B023
        assert done[0] == every * ((stop - 1) // every) + 1
        assert_same_end(again, whole)


def test_what_16_bits_do_not_show_is_carried_all_the_same(world):
    """At a rate of which a step changes no entry of 1 or so, sixteen steps do."""
    given = {"kind": "bf16", "learning_rate": 4e-4, "mask": "none", "schedule": "constant"}
    made = world(**given, epochs=4)
    before = snapshot(made.parameters)
    norms = [name for name in before if "norm" in name]  # near 1: a bfloat16 is 0.4 or 0.8 % apart
    ones, seen = {name: before[name] for name in norms}, []
    large = {name: value.abs() > 0.5 for name, value in ones.items()}

    def tick(done, total, note):
        seen.append(changed(ones, {name: made.parameters[name] for name in norms}, large))

    made.run(tick)
    assert seen[0] == 0
    assert seen[-1] > 0.1 * sum(int(bits.sum()) for bits in large.values())


def test_the_direction_is_part_of_what_is_resumed(world):
    """Otherwise the test above would not see it missing."""
    given = {"rectify": True, "checkpoint_steps": 4, "name": "run"}
    whole = world(**(given | {"name": "whole"}))
    whole.run()
    with pytest.raises(StoppedError):
        world(**given).run(stop_at(5))
    file = world(**given).place.checkpoints / "direction"
    save_file({n: 100 * v for n, v in load_file(file).items()}, file)
    state = read_json(file.with_name("state.json"))
    state["files"]["direction"] = file_digest(file)
    write_json(file.with_name("state.json"), state)
    again = world(**given)
    again.run()
    assert changed(snapshot(again.parameters), whole.parameters) > 0


def test_dropout_is_drawn_anew_at_every_step(world):
    """Otherwise the test above would not see a wrong seed."""
    with_dropout, without = world(dropout=0.3, name="a"), world(name="b")
    with_dropout.run()
    without.run()
    assert with_dropout.log()[0]["terms"] != without.log()[0]["terms"]
    model, rows = with_dropout.task.model, with_dropout.rows
    losses = []
    for seed, step, process in ((0, 1, 0), (0, 1, 0), (0, 2, 0), (1, 1, 0), (0, 1, 1)):
        state = torch.random.get_rng_state()
        with _seeded(seed, step, process):
            losses.append(float(with_dropout.task.run(rows, rows).loss.detach()))
        assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert losses[0] == losses[1]
    assert len(set(losses)) == 4


def test_interrupted_twice_and_in_the_middle_of_a_save(world, monkeypatch):
    given = {"checkpoint_steps": 2}
    whole = world(name="whole", **given)
    whole.run()
    with pytest.raises(StoppedError):
        world(**given).run(stop_at(3))
    real = checkpoint.write_tensors

    def broken(path, *more):
        real(path, *more)
        if path.name == "optimizer":  # of the next checkpoint
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_tensors", broken)
        with pytest.raises(StoppedError):
            world(**given).run()
    last = world(**given)
    done = []
    last.run(lambda step, *_: done.append(step))
    assert done[0] == 3
    assert_same_end(last, whole)


def test_killed_after_the_loop_but_before_the_weights_are_saved(world):
    given = {"checkpoint_steps": 3}
    whole = world(name="whole", **given)
    whole.run()
    world(**given).run()
    again = world(**given)  # the log has its name, the checkpoint is still there
    done = []
    again.run(lambda step, *_: done.append(step))
    assert done == [7, 8]
    assert_same_end(again, whole)


def test_a_checkpoint_of_other_inputs_is_not_used(world):
    given = {"checkpoint_steps": 2}
    with pytest.raises(StoppedError):
        world(inputs="other", learning_rate=0.1, **given).run(stop_at(5))
    whole = world(name="whole", **given)
    whole.run()
    made = world(**given)
    done = []
    made.run(lambda step, *_: done.append(step))
    assert done[0] == 1
    assert_same_end(made, whole)


def test_settings_changed_and_changed_back_do_not_mix_logs(world):
    """The first settings' checkpoint must not be joined to the second settings' log."""
    given = {"checkpoint_steps": 3}
    whole = world(name="whole", **given)
    whole.run()
    with pytest.raises(StoppedError):
        world(**given).run(stop_at(5))
    with pytest.raises(StoppedError):
        world(inputs="other", learning_rate=0.1, **given).run(stop_at(2))
    made = world(**given)
    made.run()
    assert_same_end(made, whole)


def test_a_stale_partial_log_is_not_continued(world):
    made = world()
    made.place.log.with_name(made.place.log.name + ".partial").write_text('{"step": 99}\n')
    made.run()
    assert [line["step"] for line in made.log()] == list(range(1, STEPS + 1))


# -- divergence -----------------------------------------------------------------------------------


class Poisoned:
    """A task whose n-th step goes wrong."""

    def __init__(self, task, step, how):
        self.task, self.step, self.how, self.calls = task, step, how, 0
        self.plan, self.groups, self.history = task.plan, task.groups, task.history

    def run(self, rows, step):
        self.calls += 1
        outcome = self.task.run(rows, step)
        return self.how(outcome) if self.calls == self.step else outcome


def spoil_loss(value):
    def how(outcome):
        terms = outcome.terms | {"retain/nll": torch.tensor(value)}
        return dataclasses.replace(outcome, loss=outcome.loss * value, terms=terms)

    return how


def spoil_gradient(outcome):
    nothing = (outcome.loss * 0.0).sqrt()  # 0, with a gradient of 0 / 0
    return dataclasses.replace(outcome, loss=outcome.loss + nothing)


@pytest.mark.parametrize(
    ("how", "term"),
    [
        (spoil_loss(math.nan), "retain/nll is nan"),
        (spoil_loss(math.inf), "retain/nll is inf"),
        (spoil_gradient, "gradient norm is nan"),
    ],
)
@pytest.mark.parametrize("saved", [True, False])
def test_divergence_stops_before_the_step(world, how, term, saved):
    made = world(checkpoint_steps=3 if saved else 100, weight_decay=0.1)
    made.task, taken = Poisoned(made.task, 5, how), {}

    def tick(done, total, note):
        taken.clear()
        taken.update(snapshot(made.parameters))

    with pytest.raises(DivergenceError) as error:
        made.run(tick)
    text = str(error.value)
    assert "step 5" in text
    assert term in text
    assert "step 4 was the last finite" in text
    assert (str(made.place.checkpoints) in text) == saved
    assert ("none yet" in text) != saved
    assert changed(taken, made.parameters) == 0
    assert not made.place.log.exists()
    assert made.place.checkpoints.exists() == saved


def test_after_divergence_the_checkpoint_goes_on(world):
    whole = world(name="whole", checkpoint_steps=3)
    whole.run()
    made = world(checkpoint_steps=3)
    made.task = Poisoned(made.task, 5, spoil_loss(math.nan))
    with pytest.raises(DivergenceError):
        made.run()
    again = world(checkpoint_steps=3)
    again.run()
    assert_same_end(again, whole)


def test_the_checkpoint_of_another_run_is_not_offered_as_the_last_good_one(world):
    with pytest.raises(StoppedError):
        world(inputs="other", checkpoint_steps=1).run(stop_at(3))
    made = world()
    made.task = Poisoned(made.task, 1, spoil_loss(math.nan))
    with pytest.raises(DivergenceError, match="none yet"):
        made.run()


def test_what_is_frozen_may_have_no_finite_gradient(world):
    """The mask fills with zeros; multiplying by zero would leave NaN."""
    plain, made = world(name="plain"), world()
    plain.run()
    for name, p in made.parameters.items():
        bits = made.mask.frozen[name]
        p.register_hook(lambda g, bits=bits: g.masked_fill(bits, math.nan))
    made.run()
    assert_same_end(made, plain)


# -- processes ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    codes, said = forks.both(two_processes.main, tmp_path, folder=tmp_path)
    assert codes == [0, 0], said
    (tmp_path / "one").mkdir()
    for name in two_processes.RUNS:
        facts = [json.loads((tmp_path / f"{name}.{rank}.json").read_text()) for rank in (0, 1)]
        assert facts[0] == facts[1]
        assert facts[0]["processes"] == 2
        assert facts[0]["frozen"] is True
        ranks = [load_file(tmp_path / f"{name}.{rank}.safetensors") for rank in (0, 1)]
        assert changed(*ranks) == 0
        one, before, mask, proof = two_processes.train(
            name, tmp_path / "one", Accelerator(cpu=True)
        )
        assert changed(before, ranks[0], inverted(mask.frozen)) > 500
        assert proof["sha256_after"] == facts[0]["proof"]["sha256_after"]
        assert close(ranks[0], one, 1e-6), name
        logs = [
            [json.loads(line) for line in (folder / f"{name}.log").read_text().splitlines()]
            for folder in (tmp_path, tmp_path / "one")
        ]
        for a, b in zip(*logs, strict=True):
            assert {k: a[k] for k in ("step", "epoch", "lr", "ascending")} == {
                k: b[k] for k in ("step", "epoch", "lr", "ascending")
            }
            assert a["terms"] == pytest.approx(b["terms"], rel=1e-4)
            assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)


def test_a_checkpoint_whose_replacement_was_cut_off_is_found(world):
    """Killed between the two renames: only NAME.old is left."""
    with pytest.raises(StoppedError):
        world(checkpoint_steps=2).run(stop_at(3))
    again = world(checkpoint_steps=2)
    folder = again.place.checkpoints
    folder.rename(folder.with_name(f"{folder.name}.old"))
    steps = []
    again.run(lambda done, *_: steps.append(done))
    assert steps[0] == 3
