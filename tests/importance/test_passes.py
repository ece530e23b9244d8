"""Groups that fit; the same sums, bit for bit, in one pass or in many."""

import pytest
import torch
from torch import nn

from grail.artifacts import STATISTICS
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.errors import InputError
from grail.importance import score
from grail.importance.score import Scorer
from grail.importance.sums import passes
from grail.model.forward import trainable

BYTES, GIB = 3 * 4, 2**30  # three sums in float32
WORDS = ordinary_tokens(96, (0, 1, 2))


def weights(*sizes):
    return {f"w{i}": nn.Parameter(torch.zeros(size)) for i, size in enumerate(sizes)}


def gib(entries):
    return entries * BYTES / GIB


def test_no_bound_is_one_pass():
    assert [list(group) for group in passes(weights(3, 4), None)] == [["w0", "w1"]]


@pytest.mark.parametrize(
    ("entries", "groups"),
    [
        (5, [["w0", "w1"], ["w2"], ["w3", "w4"]]),
        (6, [["w0", "w1"], ["w2"], ["w3", "w4"]]),
        (9, [["w0", "w1"], ["w2", "w3", "w4"]]),
        (14, [["w0", "w1", "w2", "w3", "w4"]]),
    ],
)
def test_groups_fit_and_keep_the_order(entries, groups):
    parameters = weights(3, 2, 5, 3, 1)
    found = passes(parameters, gib(entries))
    assert [list(group) for group in found] == groups
    assert all(sum(p.numel() for p in group.values()) <= entries for group in found)
    assert all(parameters[name] is p for group in found for name, p in group.items())


def test_a_weight_that_cannot_fit_is_named_with_its_need():
    with pytest.raises(InputError, match=r"importance\.memory_gib") as error:
        passes(weights(3, 2**20), gib(2**19))
    assert "w1" in str(error.value)
    assert f"{gib(2**20):.4g} GiB" in str(error.value)
    assert len(passes(weights(3, 2**20), gib(2**20))) == 2


def scored(model, rows, seen=None, **given):
    labels = RandomLabels(WORDS, "inputs_and_targets", 0)
    tick = (lambda *told: seen.append(told)) if seen is not None else score.silent
    return Scorer(model, labels, 0, trials=2, batch_tokens=100, **given).score(rows, tick)


@pytest.mark.parametrize("kind", ["batched", "loop"])
@pytest.mark.parametrize(("lora", "tied"), [(True, None), (False, True), (False, False)])
def test_many_passes_give_the_same_bits(kind, lora, tied, tiny_model, tiny_rows, monkeypatch):
    model, rows = tiny_model("llama", lora=lora, tied=tied), tiny_rows(3)
    whole = scored(model, rows, gradients=kind)
    parameters = trainable(model)
    sizes = [p.numel() for p in parameters.values()]
    bound = gib(max(*sizes, sum(sizes) // 3))
    held, real = [], score.Sums.zeros

    def spy(group):
        held.append(sum(p.numel() for p in group.values()))
        return real(group)

    monkeypatch.setattr(score.Sums, "zeros", spy)
    ticks = []
    split = scored(model, rows, ticks, gradients=kind, memory_gib=bound)
    assert len(held) == len(passes(parameters, bound)) > 1
    assert max(held) * BYTES <= bound * GIB
    assert sum(held) == sum(sizes)
    assert split.samples == whole.samples == 3
    for statistic in STATISTICS:
        one, other = getattr(split, statistic), getattr(whole, statistic)
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert ticks == sorted(set(ticks))
    assert ticks[-1] == (3 * len(held), 3 * len(held), "rows scored")
    assert all(p.requires_grad and p.grad is None for p in parameters.values())


def test_too_little_memory_is_told_before_a_row_is_read(tiny_model):
    labels = RandomLabels(WORDS, "targets", 0)
    scorer = Scorer(tiny_model(lora=False), labels, 0, memory_gib=gib(10))
    with pytest.raises(InputError, match="memory_gib"):
        scorer.check()
    with pytest.raises(InputError, match="memory_gib"):
        scorer.score([])
