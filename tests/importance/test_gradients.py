"""Three computations of the same statistics: hooks over a batch, a plain loop, float64 autograd."""

import copy
import random

import pytest
import torch
from torch import nn

from grail.artifacts import STATISTICS
from grail.data.batches import collate
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.errors import InputError
from grail.importance import gradients, hooks
from grail.importance.gradients import add_by_batch, add_by_loop
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores
from grail.importance.sums import Sums
from grail.model.forward import trainable

CLOSE = 1e-5
WORDS = ordinary_tokens(96, (0, 1, 2))
KINDS = [
    (family, lora, tied)
    for family in ("llama", "qwen2", "gemma", "gemma2", "gpt_neox", "gpt2")
    for lora, tied in ((True, None), (False, False), (False, True))
    if lora or family != "gpt2"
]


def scorer(model, seed=0, substitution="inputs_and_targets", **given):
    labels = RandomLabels(WORDS, substitution, seed)
    return Scorer(model, labels, 0, **({"batch_tokens": 10**6} | given))


def scores(model, rows, gradients, **given):
    return scorer(model, **given, gradients=gradients).score(rows)


def assert_same(a, b, close=CLOSE):
    assert a.samples == b.samples
    for statistic in STATISTICS:
        assert getattr(a, statistic).keys() == getattr(b, statistic).keys()
    found = compare_scores(a, b)
    assert found.worst < close, found


def by_autograd(model, rows, trials, draw):
    """The definition in a few lines, in float64, with its own shift and its own loss."""
    model = copy.deepcopy(model).double().eval()
    weights = trainable(model)
    stacked = []
    for row in rows:
        mean = 0.0
        for trial in range(trials):
            drawn = draw(row, trial)
            ids = torch.tensor([drawn.ids])
            targets = list(drawn.ids[drawn.start :] if drawn.targets is None else drawn.targets)
            logits = model(input_ids=ids).logits[0, drawn.start - 1 : -1]
            nll = -torch.log_softmax(logits.double(), -1)[range(len(targets)), targets].mean()
            found = torch.autograd.grad(nll, list(weights.values()))
            mean = mean + torch.cat([g.flatten() for g in found]) / trials
        stacked.append(mean)
    g = torch.stack(stacked)
    sizes = [p.numel() for p in weights.values()]
    return {
        statistic: {
            name: part.reshape(p.shape)
            for (name, p), part in zip(weights.items(), value.mean(0).split(sizes), strict=True)
        }
        for statistic, value in (("mean_abs", g.abs()), ("mean", g), ("mean_sq", g.square()))
    }


@pytest.mark.parametrize(("family", "lora", "tied"), KINDS)
def test_batched_equals_the_loop(family, lora, tied, tiny_model, tiny_rows):
    for seed in (0, 1):
        model = tiny_model(family, lora=lora, tied=tied, seed=seed)
        rows = tiny_rows(5, seed)
        a, b = (scores(model, rows, kind, trials=2) for kind in ("batched", "loop"))
        assert_same(a, b)
        assert set(a.mean_abs) == set(trainable(model))
        assert all(value.any() for value in b.mean_abs.values()), "a vacuous comparison"
        assert all(value.any() for value in a.mean_sq.values())


@pytest.mark.parametrize(("lora", "tied"), [(True, None), (False, True)])
@pytest.mark.parametrize("trials", [1, 2, 3])
@pytest.mark.parametrize("substitution", ["inputs_and_targets", "targets", "all"])
def test_every_substitution_and_number_of_trials(
    lora, tied, trials, substitution, tiny_model, tiny_rows
):
    model, rows = tiny_model("qwen2", lora=lora, tied=tied), tiny_rows(4)
    given = {"trials": trials, "substitution": substitution}
    assert_same(scores(model, rows, "batched", **given), scores(model, rows, "loop", **given))


@pytest.mark.parametrize("lora", [True, False])
def test_true_labels_need_one_trial(lora, tiny_model, tiny_rows):
    model, rows = tiny_model("llama", lora=lora), tiny_rows(4)
    a, b = (scores(model, rows, kind, labels="true") for kind in ("batched", "loop"))
    assert_same(a, b)
    assert_same(a, scores(model, rows, "batched", labels="true", trials=1))


@pytest.mark.parametrize(
    ("family", "lora", "labels"),
    [("llama", True, "random"), ("gemma2", False, "random"), ("gpt_neox", False, "true")],
)
def test_both_equal_autograd_in_float64(family, lora, labels, tiny_model, tiny_rows):
    model, rows = tiny_model(family, lora=lora, seed=3), tiny_rows(4, 3)
    trials = 3 if labels == "random" else 1
    given = scorer(model, trials=trials, labels=labels)
    draw = given.random_labels.draw if labels == "random" else lambda row, _: row
    truth = by_autograd(model, rows, trials, draw)
    for kind in ("batched", "loop"):
        found = scores(model, rows, kind, trials=trials, labels=labels)
        for statistic in STATISTICS:
            for name, value in truth[statistic].items():
                gap = (getattr(found, statistic)[name] - value).abs().max() / value.abs().max()
                assert gap < CLOSE, (kind, name, statistic)


@pytest.mark.parametrize("lora", [True, False])
def test_who_shares_a_batch_does_not_matter(lora, tiny_model, tiny_rows):
    model, rows = tiny_model("llama", lora=lora), tiny_rows(7, 5)
    together = scores(model, rows, "batched", trials=2)
    assert_same(scores(model, rows, "batched", trials=2, batch_tokens=1), together)
    assert_same(scores(model, rows, "batched", trials=2, batch_tokens=60), together)
    assert_same(scores(model, rows[::-1], "loop", trials=2), together)
    mixed = random.Random(0).sample(rows, len(rows))
    sums, draw = Sums.zeros(trainable(model)), scorer(model).random_labels.draw
    for group in (mixed[:1], mixed[1:5], mixed[5:]):
        add_by_batch(model, collate([draw(r, t) for r in group for t in (0, 1)], 0), 2, sums)
    assert_same(sums.scores(), together)


def test_batches_whose_answers_have_one_token(tiny_model, tiny_rows):
    """Then as many answer tokens as rows reach the head: the two layouts must not be mixed up."""
    model, rows = tiny_model("llama", lora=False), tiny_rows(4, answer=(1, 1))
    assert {len(row.answer) for row in rows} == {1}
    assert_same(scores(model, rows, "batched"), scores(model, rows, "loop"))


@pytest.mark.parametrize(("lora", "tied"), [(True, None), (False, True)])
def test_chunks_of_one_sample(lora, tied, tiny_model, tiny_rows, monkeypatch):
    model, rows = tiny_model("gemma", lora=lora, tied=tied), tiny_rows(5)
    whole = scores(model, rows, "batched", trials=2)
    calls, add = [], hooks.add_statistics

    def counted(sums, gradients):
        calls.append(len(gradients))
        add(sums, gradients)

    monkeypatch.setattr(hooks, "add_statistics", counted)
    monkeypatch.setattr(hooks, "CHUNK_BYTES", 1)
    assert_same(scores(model, rows, "batched", trials=2), whole, close=1e-6)
    assert set(calls) == {1}
    assert len(calls) == 5 * len(trainable(model))


def test_adapter_on_embeddings_and_head(tiny_model, tiny_rows):
    """PEFT's LoRA of an embedding is used without a module call: refused, never left out."""
    from peft import LoraConfig, get_peft_model

    base = tiny_model("llama", lora=False)
    head = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    for name, parameter in trainable(head).items():
        nn.init.normal_(parameter, std=0.3 if "lora_B" in name else 0.1)
    assert_same(scores(head, tiny_rows(4), "batched"), scores(head, tiny_rows(4), "loop"))
    base = tiny_model("llama", lora=False)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]))
    with pytest.raises(InputError, match=r"importance\.gradients: loop"):
        scores(model, tiny_rows(3), "batched")


def test_position_embeddings_of_gpt2_ask_for_the_loop(tiny_model, tiny_rows):
    model, rows = tiny_model("gpt2", lora=False), tiny_rows(3)
    with pytest.raises(InputError, match=r"importance\.gradients: loop") as error:
        scores(model, rows, "batched")
    assert "Embedding" in str(error.value)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    looped = scores(model, rows, "loop")
    assert looped.mean_abs["transformer.wpe.weight"].any()
    one_by_one = scores(model, rows, "batched", batch_tokens=1, trials=1)
    assert_same(one_by_one, scores(model, rows, "loop", trials=1))


def state_of(model):
    hooks = sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    return hooks, flags, [m.training for m in model.modules()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", ["batched", "loop"])
def test_the_model_is_left_as_it_was(kind, lora, training, tiny_model, tiny_rows):
    model = tiny_model("llama", lora=lora).train(training)
    before, weights = state_of(model), copy.deepcopy(model.state_dict())
    scores(model, tiny_rows(3), kind)
    assert state_of(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("phase", ["forward", "loss", "backward"])
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("kind", ["batched", "loop"])
def test_the_model_is_left_as_it_was_after_an_exception(
    kind, lora, phase, tiny_model, tiny_rows, monkeypatch
):
    model = tiny_model("llama", lora=lora).train()
    before, calls = state_of(model), []

    def fail(*_):
        calls.append(1)
        if len(calls) > (kind == "loop"):  # in the loop: in the second trial
            raise ZeroDivisionError("planned")

    def hook(module, inputs, out):
        if phase == "forward":
            fail()
        if phase == "backward":
            out.register_hook(fail)

    real = gradients.token_nll
    if phase == "loss":
        monkeypatch.setattr(gradients, "token_nll", lambda *given: fail() or real(*given))
    handle = model.get_submodule(
        "base_model.model.model.layers.0.mlp" if lora else "model.layers.0.mlp"
    ).register_forward_hook(hook)
    with pytest.raises(ZeroDivisionError):
        scores(model, tiny_rows(3), kind, trials=2)
    handle.remove()
    assert state_of(model) == before
    assert all(p.grad is None for p in model.parameters())


def test_gradients_of_a_training_step_do_not_leak_into_the_scores(tiny_model, tiny_rows):
    model, rows = tiny_model("llama"), tiny_rows(2)
    clean = scores(model, rows, "loop")
    for parameter in trainable(model).values():
        parameter.grad = torch.ones_like(parameter)
    for kind in ("loop", "batched"):
        assert_same(scores(model, rows, kind), clean)
    assert all(p.grad.eq(1).all() for p in trainable(model).values())


def test_dropout_is_off_while_scoring(tiny_model, tiny_rows):
    model = tiny_model("llama", attention_dropout=0.5).train()
    a, b = (scores(model, tiny_rows(3), "batched") for _ in range(2))
    assert compare_scores(a, b).worst == 0
    assert_same(a, scores(model, tiny_rows(3), "loop"))


def test_loss_is_per_sample_not_per_batch(tiny_model, tiny_rows):
    """A longer companion must not change a sample's weight: sums of single scores say so."""
    model, rows = tiny_model("llama"), tiny_rows(3, answer=(1, 20))
    alone = [scores(model, [row], "batched") for row in rows]
    together = scores(model, rows, "batched")
    for name, value in together.mean.items():
        mean = sum(part.mean[name] for part in alone) / 3
        assert torch.allclose(value, mean, rtol=0, atol=1e-5 * float(mean.abs().max()))


def test_loop_averages_trials_before_the_absolute_value(tiny_model, tiny_rows):
    """Eq. 3 takes |.| of the sample's averaged gradient; two trials can cancel."""
    model, (row,) = tiny_model("llama"), tiny_rows(1)
    draw = scorer(model).random_labels.draw
    single = []
    for trial in (0, 1):
        sums = Sums.zeros(trainable(model))
        add_by_loop(model, [collate([draw(row, trial)], 0)], sums)
        single.append(sums.scores())
    both = scores(model, [row], "loop", trials=2)
    for name, value in both.mean_abs.items():
        expected = (single[0].mean[name] + single[1].mean[name]).abs() / 2
        assert torch.allclose(value, expected, atol=1e-6 * float(expected.max()))
        per_trial = (single[0].mean_abs[name] + single[1].mean_abs[name]) / 2
        assert value.sum() < 0.999 * per_trial.sum()
