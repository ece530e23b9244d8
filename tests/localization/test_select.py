"""The top entries of a layer, against an independent selection in NumPy."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grail.artifacts import block_of
from grail.errors import InputError
from grail.localization.select import (
    budget,
    check_finite,
    layer_of,
    layers,
    resolved,
    top,
    top_per_layer,
    unrecognised,
)

TINY = float(np.nextafter(np.float32(0), np.float32(1)))  # the smallest denormal
LARGE = float(np.finfo(np.float32).max)
few = st.sampled_from([0.0, -0.0, TINY, 2 * TINY, 255 * TINY, 256 * TINY, 1.0, 1.5, LARGE])
any_score = st.floats(0, LARGE, width=32, allow_subnormal=True)

# parameter name -> the block it belongs to, or None outside all blocks; written down by hand
BLOCKS = {
    "model.embed_tokens.weight": None,
    "model.layers.0.self_attn.q_proj.weight": "layers.0",
    "model.layers.10.mlp.down_proj.weight": "layers.10",
    "base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight": "layers.1",
    "model.norm.weight": None,
    "lm_head.weight": None,
    "transformer.wte.weight": None,
    "transformer.h.0.attn.c_attn.weight": "h.0",
    "base_model.model.transformer.h.11.mlp.c_fc.lora_B.default.weight": "h.11",
    "gpt_neox.layers.3.attention.dense.weight": "layers.3",
    "gpt_neox.embed_in.weight": None,
    "gpt_neox.final_layer_norm.weight": None,
}
KS = (1e-6, 0.01, 0.1, 0.2, 0.3, 0.5, 0.7, 0.99, 1.0)


def exact_budget(k, entries):
    """ceil(k * entries) with k read as the decimal number that it is written as."""
    product = Fraction(str(k)) * entries
    return -(-product.numerator // product.denominator)


def numpy_top(values, count):
    order = np.lexsort((np.arange(values.size), -values))[:count]
    marks = np.zeros(values.size, dtype=bool)
    marks[order] = True
    return marks & (values > 0)


def numpy_top_per_layer(scores, k, group):
    """Top ceil(k m) of a layer, ties by flat index, no zeros; ``group``: parameter -> layer."""
    groups = {}
    for name in sorted(scores):
        groups.setdefault(group[name], []).append(name)
    marks = {}
    for names in groups.values():
        flat = np.concatenate([scores[name].numpy().ravel() for name in names])
        chosen = numpy_top(flat, exact_budget(k, flat.size))
        start = 0
        for name in names:
            part = chosen[start : start + scores[name].numel()]
            marks[name] = part.reshape(scores[name].shape)
            start += scores[name].numel()
    return marks


@pytest.mark.parametrize(("name", "block"), BLOCKS.items())
def test_layer_of_a_name(name, block):
    assert layer_of(name, "block") == (block or name)
    assert layer_of(name, "tensor") == name
    assert layer_of(name, "model") == layer_of("anything", "model")


def test_layers_group_all_names_once_and_sort_them():
    names = [*reversed(BLOCKS), "model.layers.0.mlp.up_proj.weight"]
    groups = layers(names, "block")
    assert sorted(name for group in groups.values() for name in group) == sorted(names)
    assert all(group == sorted(group) for group in groups.values())
    assert groups["layers.0"] == [
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
    ]
    assert [len(layers(names, kind)) for kind in ("tensor", "model")] == [len(names), 1]


@pytest.mark.parametrize("k", KS)
def test_budget_is_the_exact_ceiling(k):
    sizes = [*range(1, 1000), 4096, 9216 * 8, 1_000_000, 12_345_678]
    assert [budget(k, n) for n in sizes] == [exact_budget(k, n) for n in sizes]


def test_budget_is_not_misled_by_binary_fractions():
    assert 0.07 * 100 > 7  # so a plain ceiling would give 8
    assert budget(0.07, 100) == 7
    assert budget(0.07, 101) == 8
    assert budget(0.1, 30) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_without_an_order_are_refused(bad):
    with pytest.raises(InputError, match="NaN or infinite"):
        top_per_layer({"a": torch.ones(3), "b": torch.tensor([bad])}, 0.1, "tensor")
    with pytest.raises(InputError, match="NaN or infinite"):
        check_finite(torch.tensor([1.0, bad]))
    check_finite(torch.tensor([1.0, 0.0, -2.0]))


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("layer", ["block", "tensor", "model"])
def test_top_per_layer_equals_numpy(layer, k):
    generator = torch.Generator().manual_seed(int(k * 1000))
    # not in sorted order, shapes of several ranks, few distinct values
    names = sorted(BLOCKS, key=lambda name: name[::-1])
    names += ["model.layers.0.mlp.up_proj.weight", "transformer.h.0.mlp.c_fc.weight"]
    shapes = [(3, 5), (7,), (2, 3, 4), (1, 1), (), (30,)]
    scores = {
        name: torch.randint(0, 6, shapes[i % len(shapes)], generator=generator).float()
        for i, name in enumerate(names)
    }
    block = {**BLOCKS, names[-2]: "layers.0", names[-1]: "h.0"}
    group = {
        "block": {name: block[name] or name for name in names},
        "tensor": {name: name for name in names},
        "model": dict.fromkeys(names, "all"),
    }[layer]
    got = top_per_layer(scores, k, layer)
    want = numpy_top_per_layer(scores, k, group)
    assert set(got) == set(names)
    for name in names:
        assert got[name].dtype == torch.bool
        assert got[name].shape == scores[name].shape
        assert np.array_equal(got[name].numpy(), want[name]), name


def test_top_sets_are_nested_in_k():
    scores = {"a": torch.rand(50, generator=torch.Generator().manual_seed(0)).round(decimals=1)}
    chosen = [top_per_layer(scores, k, "tensor")["a"] for k in KS]
    for smaller, larger in pairwise(chosen):
        assert not (smaller & ~larger).any()


def test_top_does_not_change_its_input():
    scores = {"a": torch.tensor([3.0, 1, 2])}
    top_per_layer(scores, 0.5, "tensor")
    assert scores["a"].tolist() == [3, 1, 2]


@settings(max_examples=80)
@given(values=st.lists(st.one_of(few, any_score), max_size=50), count=st.integers(-1, 55))
def test_the_top_equals_a_stable_sort(values, count):
    scores = np.array(values, dtype=np.float32)
    marks = top(torch.from_numpy(scores), count)
    assert np.array_equal(marks.numpy(), numpy_top(scores, max(0, count)))


def test_many_entries_equal_a_stable_sort():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300_000, generator=generator).square() * 1e-6
    scores[torch.rand(300_000, generator=generator) < 0.2] = 0
    tied = scores.mul(2e7).round().div(2e7)  # a few hundred distinct values
    denormal = torch.randint(0, 99, (300_000,), generator=generator) * torch.tensor(TINY)
    assert tied.unique().numel() < 1000
    assert denormal.unique().numel() == 99
    for values in (scores, tied, denormal):
        for count in (1, 30_000, 250_000):
            marks = top(values, count)
            assert np.array_equal(marks.numpy(), numpy_top(values.numpy(), count))


def test_entries_not_above_zero_are_never_taken():
    assert top(torch.zeros(7), 7).tolist() == [False] * 7
    marks = top(torch.tensor([0.0, 2, -0.0, -3, TINY]), 5)
    assert marks.tolist() == [False, True, False, False, True]
    assert top(torch.zeros(0), 3).shape == (0,)


def test_ties_go_to_the_lowest_index():
    assert top(torch.tensor([1.0, 5, 5, 5, 1]), 2).tolist() == [False, True, True, False, False]
    assert top(torch.tensor([1.0, 5, 1, 1]), 2).tolist() == [True, True, False, False]


def test_names_in_blocks_are_those_with_a_block():
    for name, block in BLOCKS.items():
        assert block_of(name) == block


FULL = ["model.embed_tokens.weight", "model.layers.0.q.weight", "model.norm.weight"]
ADAPTER = [
    "base_model.model.model.layers.0.q.lora_A.default.weight",
    "base_model.model.model.layers.0.q.lora_B.default.weight",
]


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (FULL, "block"),
        (ADAPTER, "tensor"),
        ([name.removeprefix("base_model.model.") for name in ADAPTER], "tensor"),
        (["base_model.model.lm_head.modules_to_save.default.weight", *ADAPTER], "tensor"),
        (["base_model.model.model.layers.0.q.hada_w1_a.default"], "tensor"),
        (["model.explorama.0.weight"], "block"),
    ],
)
def test_auto_is_the_tensor_where_entries_of_tensors_cannot_be_compared(names, meant):
    assert resolved("auto", names) == meant
    assert layers(names, "auto") == layers(names, meant)
    assert {resolved(layer, names) for layer in ("block", "tensor", "model")} == {
        "block",
        "tensor",
        "model",
    }


def test_a_block_that_is_not_recognised_is_told():
    assert unrecognised("auto", FULL) is None
    strange = [name.replace("layers", "stages") for name in FULL]
    told = unrecognised("auto", strange)
    assert told is not None
    assert "3 parameters (first: model.embed_tokens.weight)" in told
    told = unrecognised("block", [*FULL, "vision.stages.3.fc.weight", "1.w"])  # one stack of two
    assert told is not None
    assert "2 parameters (first: vision.stages.3.fc.weight)" in told
    for layer, names in (("tensor", strange), ("model", strange), ("auto", ["lora_A", "lora_B"])):
        assert unrecognised(layer, names) is None


@pytest.mark.parametrize("layer", ["block", "tensor", "model"])
def test_a_score_is_looked_up_once(layer):
    """Each look-up opens a file of scores."""

    seen = []

    class Counted(dict):
        def __getitem__(self, name):
            seen.append(name)
            return super().__getitem__(name)

    scores = Counted({name: torch.rand(3, 4) for name in BLOCKS})
    marks = top_per_layer(scores, 0.25, layer)
    assert set(seen) == set(BLOCKS)
    again = {name for name in seen if seen.count(name) > 1}
    assert again <= {next(iter(BLOCKS))}, "the types of the first are checked in tests"
    whole = top_per_layer(dict(scores), 0.25, layer)
    assert all(torch.equal(marks[name], whole[name]) for name in BLOCKS)


def test_what_stays_is_allocated_before_what_goes(monkeypatch):
    """Marks that are made between the temporary tensors of a layer leave gaps in the heap."""
    order = []

    def watched(name, real):
        def call(*arguments, **named):
            order.append(name)
            return real(*arguments, **named)

        monkeypatch.setattr(torch, name, call)

    watched("empty", torch.empty)
    watched("cat", torch.cat)
    scores = {f"layers.{n}.weight": torch.rand(8) for n in range(2)}
    marks = top_per_layer(scores, 0.5, "block")
    assert order == ["empty", "cat"] * 2
    assert all(int(m.sum()) == 4 for m in marks.values())
