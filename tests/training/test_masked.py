"""Frozen entries under any torch optimizer and in the Trainer, each with its negative control."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from grail.artifacts import Mask
from grail.errors import InputError
from grail.model.forward import trainable
from grail.training.masked import MaskedOptimizer, MaskedTrainerMixin

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.3),
    "adam, coupled decay": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.3),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.3),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01, weight_decay=0.3),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def half(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = {n: torch.rand(p.shape, generator=generator) for n, p in trainable(model).items()}
    return Mask({n: value < 0.5 for n, value in draw.items()})


def copies(model):
    return {n: p.detach().clone() for n, p in trainable(model).items()}


def moved(before, model, frozen):
    """Entries with other bits: (frozen ones, free ones); does not use grail's own comparison."""
    differs = {
        n: before[n].view(torch.int32) != p.detach().view(torch.int32)
        for n, p in trainable(model).items()
    }
    return tuple(
        sum(int((differs[n] & (bits if inside else ~bits)).sum()) for n, bits in frozen.items())
        for inside in (True, False)
    )


def train(model, optimizer, steps=4, accumulation=2, limit=0.05, scheduler=None):
    """A loop of one's own; returns the norms that clipping saw."""
    norms = []
    for step in range(steps):
        for part in range(accumulation):
            generator = torch.Generator().manual_seed(100 * step + part)
            x = torch.randn(5, 6, generator=generator)
            (model(x).square().mean() / accumulation).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), limit)))
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
    return norms


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_entries_keep_every_bit_and_free_ones_move(name):
    model = network()
    mask, before = half(model), copies(model)
    optimizer = MaskedOptimizer(OPTIMIZERS[name](model.parameters()), model, mask)
    train(model, optimizer)
    inside, outside = moved(before, model, mask.frozen)
    assert inside == 0
    assert outside == sum(int((~bits).sum()) for bits in mask.frozen.values())
    proof = optimizer.prove()
    assert (proof["changed"], proof["moved"]) == (0, outside)
    assert proof["frozen"] == sum(int(bits.sum()) for bits in mask.frozen.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_the_mask_the_same_loop_moves_them(name):
    model = network()
    mask, before = half(model), copies(model)
    train(model, OPTIMIZERS[name](model.parameters()))
    assert moved(before, model, mask.frozen)[0] > 0


def test_masking_gradients_alone_is_not_enough_under_weight_decay():
    """What the step itself undoes: without it, the proof finds that decay moved frozen entries."""
    model = network()
    mask = half(model)
    optimizer = MaskedOptimizer(OPTIMIZERS["adamw"](model.parameters()), model, mask)
    train(model, optimizer.optimizer)
    with pytest.raises(RuntimeError, match="frozen entries changed"):
        optimizer.prove()


def test_clipping_sees_the_norm_of_the_free_entries():
    model = network()
    mask = half(model)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    gradients = torch.autograd.grad(model(x).square().mean(), list(model.parameters()))
    named = dict(zip(trainable(model), gradients, strict=True))
    free = sum(float(named[n][~bits].double().square().sum()) for n, bits in mask.frozen.items())
    optimizer = MaskedOptimizer(OPTIMIZERS["sgd"](model.parameters()), model, mask)
    (norm,) = train(model, optimizer, steps=1, accumulation=1)
    assert norm == pytest.approx(math.sqrt(free), rel=1e-5)
    assert norm < 0.95 * math.sqrt(sum(float(g.double().square().sum()) for g in gradients))


def test_free_entries_move_as_under_gradients_masked_by_hand():
    """AdamW, entry by entry: a free entry does not notice that others are frozen."""
    models = [network(), network()]
    mask = half(models[0])
    optimizers = [OPTIMIZERS["adamw"](m.parameters()) for m in models]
    masked = MaskedOptimizer(optimizers[0], models[0], mask)
    for step in range(5):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():  # the second model gets the frozen entries back by hand
            for n, p in trainable(models[1]).items():
                p.copy_(torch.where(mask.frozen[n], trainable(models[0])[n], p))
        for model in models:
            model(x).square().mean().backward()
        for n, p in trainable(models[1]).items():
            p.grad = p.grad * ~mask.frozen[n]
        for optimizer in (masked, optimizers[1]):
            optimizer.step()
            optimizer.zero_grad()
    for n, p in trainable(models[0]).items():
        free = ~mask.frozen[n]
        assert torch.equal(p[free], trainable(models[1])[n][free])


def test_a_gradient_set_by_hand_is_masked_too():
    model = network()
    mask, before = half(model), copies(model)
    optimizer = MaskedOptimizer(OPTIMIZERS["sgd"](model.parameters()), model, mask)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.inf)
    optimizer.step()
    assert moved(before, model, mask.frozen)[0] == 0


def test_a_scheduler_drives_the_rate_and_the_state_is_the_wrapped_optimizers():
    model = network()
    inner = OPTIMIZERS["adamw"](model.parameters())
    optimizer = MaskedOptimizer(inner, model, half(model))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    train(model, optimizer, steps=3, scheduler=scheduler)
    assert inner.param_groups is optimizer.param_groups
    assert inner.param_groups[0]["lr"] == pytest.approx(0.01 * 0.125)
    assert optimizer.state is inner.state
    state = optimizer.state_dict()
    assert state["state"][0]["step"] == 3
    other = MaskedOptimizer(OPTIMIZERS["adamw"](model.parameters()), model, half(model))
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert len(inner.param_groups) == 2
    assert optimizer.step(lambda: 7.0) == 7.0


def test_what_cannot_be_frozen_is_refused():
    model = network()
    mask, inner = half(model), OPTIMIZERS["adamw"](model.parameters())
    sided = dataclasses.replace(mask, unlearn=mask.frozen, retain=mask.frozen)
    with pytest.raises(InputError, match="by_side"):
        MaskedOptimizer(inner, model, sided)
    wrong = Mask(mask.frozen | {"0.weight": mask.frozen["0.weight"][:, :5]})
    with pytest.raises(InputError, match=r"shape \(8, 5\) for 0\.weight, but .* \(8, 6\)"):
        MaskedOptimizer(inner, model, wrong)
    other = Mask({"9.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"entries of 9\.weight, which the model does not train"):
        MaskedOptimizer(inner, model, other)


# -- the Trainer ----------------------------------------------------------------------------------


class MaskedTrainer(MaskedTrainerMixin, Trainer):
    pass


class Answers(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = [{"input_ids": list(row.ids), "labels": list(row.ids)} for row in rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {name: torch.tensor(ids[:4]) for name, ids in self.rows[index].items()}


@pytest.fixture
def trainer(tiny_model, tiny_rows, tmp_path):
    """A trainer over 8 rows: AdamW with weight decay, accumulation and clipping."""

    def make(mask=True, lora=True, **more):
        model = tiny_model(lora=lora)
        arguments = TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2,
            num_train_epochs=3, learning_rate=0.01, weight_decay=0.3, max_grad_norm=0.5,
            warmup_steps=2, logging_strategy="no", save_strategy="no", report_to=[], use_cpu=True,
            disable_tqdm=True, dataloader_pin_memory=False, **more,
        )  # fmt: skip
        given = {"model": model, "args": arguments, "train_dataset": Answers(tiny_rows(8))}
        made = MaskedTrainer(**given, mask=half(model)) if mask else Trainer(**given)
        made.remove_callback(PrinterCallback)
        return made

    return make


@pytest.mark.parametrize("lora", [True, False])
def test_frozen_entries_keep_every_bit_in_the_trainer(trainer, lora):
    made = trainer(lora=lora)
    before = copies(made.model)
    with pytest.raises(RuntimeError, match="before train"):
        made.prove()
    made.train()
    inside, outside = moved(before, made.model, made.mask.frozen)
    assert inside == 0
    assert outside > 500
    proof = made.prove()
    assert (proof["changed"], proof["moved"]) == (0, outside)
    made.train()  # once more, with the optimizer that is there
    assert moved(before, made.model, made.mask.frozen)[0] == 0
    assert made.prove()["changed"] == 0


def test_without_the_mixin_the_trainer_moves_them(trainer):
    made = trainer(mask=False)
    before, mask = copies(made.model), half(made.model)
    made.train()
    assert moved(before, made.model, mask.frozen)[0] > 500


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA"])
def test_sharded_models_are_refused(trainer, kind, monkeypatch):
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType[kind])
    with pytest.raises(InputError, match=kind):
        trainer()


def test_optimizers_that_update_during_the_backward_pass_are_refused(trainer):
    with pytest.raises(InputError, match="galore_adamw_layerwise"):
        trainer(optim="galore_adamw_layerwise")


def test_a_step_that_a_gradient_scaler_skips_leaves_the_weights(tiny_model):
    """A fused optimizer unscales by itself, but only the wrapper gets the scaler's factors."""
    model = tiny_model(lora=False)
    mask = half(model)
    inner = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    optimizer = MaskedOptimizer(inner, model, mask)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(sum(p.sum() for p in model.parameters()) * float("inf")).backward()
    scaler.step(optimizer)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
