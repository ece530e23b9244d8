"""Radix selection against a sort in NumPy and against torch.topk, whoever holds the entries."""

import json
import threading

import forks
import jaxtyping
import numpy as np
import pytest
import torch
import two_shards
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from grail.errors import InputError
from grail.localization import radix
from grail.localization.radix import Processes, descend, mark_top
from grail.localization.select import top_per_layer

TINY = float(np.nextafter(np.float32(0), np.float32(1)))  # the smallest denormal
LARGE = float(np.finfo(np.float32).max)

few = st.sampled_from([0.0, -0.0, TINY, 2 * TINY, 255 * TINY, 256 * TINY, 1.0, 1.5, LARGE])
any_score = st.floats(0, LARGE, width=32, allow_subnormal=True)


def top(scores, count):
    return mark_top([[scores]], lambda _: count)[0][0]


def numpy_top(values, count):
    order = np.lexsort((np.arange(values.size), -values))[:count]
    marks = np.zeros(values.size, dtype=bool)
    marks[order] = True
    return marks & (values > 0)


def topk_top(scores, count):
    """The same by torch.topk, over all entries at once."""
    if count <= 0 or not scores.numel():
        return torch.zeros_like(scores, dtype=torch.bool)
    count = min(count, scores.numel())
    threshold = torch.topk(scores, count, sorted=True).values[-1]
    above, tied = scores > threshold, scores == threshold
    return (above | (tied & (tied.cumsum(0) <= count - int(above.sum())))) & (scores > 0)


def together(count, work):
    """Run ``work(processes)`` in threads that add up their counts; return what each returned."""
    barrier, given, results = threading.Barrier(count), [None] * count, [None] * count

    def process(index):
        def add(counts):
            given[index] = counts
            barrier.wait()
            total = sum(given)
            barrier.wait()  # all have read before one gives the next
            return total

        try:
            results[index] = work(Processes(add, index, count))
        except InputError as error:
            results[index] = error

    threads = [threading.Thread(target=process, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    return results


@settings(max_examples=80)
@given(values=st.lists(st.one_of(few, any_score), max_size=50), count=st.integers(-1, 55))
def test_the_top_equals_a_sort_and_torch_topk(values, count):
    array = np.array(values, dtype=np.float32)
    found = top(torch.from_numpy(array), count)
    assert np.array_equal(found.numpy(), numpy_top(array, max(0, count)))
    assert torch.equal(found, topk_top(torch.from_numpy(array), count))


@settings(max_examples=40)
@given(
    values=st.lists(few, min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    count=st.integers(0, 45),
)
def test_chunks_and_blocks_do_not_matter(values, cuts, count):
    whole = torch.tensor(values, dtype=torch.float32)
    chunks = whole.tensor_split(sorted(cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radix, "BLOCK", 3)
        (found,) = mark_top([chunks], lambda _: count)
    assert [marks.shape for marks in found] == [chunk.shape for chunk in chunks]
    assert torch.equal(torch.cat(found), topk_top(whole, count))


@settings(max_examples=20)
@given(
    values=st.lists(few, min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), min_size=2, max_size=2),
    inner=st.integers(0, 40),
    count=st.integers(0, 45),
)
def test_processes_find_what_one_finds(values, cuts, inner, count):
    """Chunks that every process holds a part of, in the order of the processes."""
    whole = torch.tensor(values, dtype=torch.float32)
    chunks = [c.tensor_split(sorted(cuts)) for c in whole.tensor_split([inner])]  # [chunk][process]

    def work(own):
        parts = [chunk[own.index] for chunk in chunks]
        return mark_top([parts], lambda size: count if size == len(values) else -1, own)[0]

    found = together(3, work)
    ordered = [found[process][chunk] for chunk in range(2) for process in range(3)]
    assert torch.equal(torch.cat(ordered), topk_top(whole, count))


def test_many_entries_equal_torch_topk():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300_000, generator=generator).square() * 1e-6
    scores[torch.rand(300_000, generator=generator) < 0.2] = 0
    tied = scores.mul(2e7).round().div(2e7)  # a few hundred distinct values
    assert tied.unique().numel() < 1000
    for values in (scores, tied):
        for count in (1, 30_000, 250_000):
            found = top(values, count)
            assert torch.equal(found, topk_top(values, count))
            assert int(found.sum()) == min(count, int((values > 0).sum()))


def test_layers_do_not_mix():
    layers = [[torch.tensor([3.0, 1.0]), torch.tensor([[2.0]])], [torch.tensor([0.1, 0.2])], []]
    first, second, none = mark_top(layers, lambda size: size - 1)
    assert [marks.tolist() for marks in first] == [[True, False], [[True]]]
    assert [marks.tolist() for marks in second] == [[False, True]]
    assert none == []
    assert mark_top([], lambda size: size) == []


def test_ties_go_to_the_lowest_place():
    assert top(torch.tensor([1.0, 5, 5, 5, 1]), 2).tolist() == [False, True, True, False, False]
    assert top(torch.tensor([1.0, 5, 1, 1]), 2).tolist() == [True, True, False, False]


def test_what_is_not_above_zero_is_never_taken():
    assert top(torch.zeros(7), 7).tolist() == [False] * 7
    found = top(torch.tensor([0.0, 2, -0.0, -3, TINY]), 5)
    assert found.tolist() == [False, True, False, False, True]


def test_nothing_is_taken_from_nothing():
    assert top(torch.zeros(0), 3).shape == (0,)
    assert not top(torch.ones(4), 0).any()


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_every_process_refuses_scores_without_an_order(bad):
    with pytest.raises(InputError, match="NaN or infinite"):
        top(torch.tensor([1.0, bad, 2.0]), 1)
    parts = [torch.ones(2), torch.tensor([bad]), torch.ones(0)]
    found = together(3, lambda own: mark_top([[parts[own.index]]], lambda _: 1, own))
    assert [str(error) for error in found] == [radix.NO_ORDER] * 3


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_only_float32_can_be_ranked(kind, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(TypeError, match="only float32"):
        top(torch.ones(3, dtype=kind), 1)


def test_scores_are_not_changed():
    scores = torch.tensor([3.0, 1, 2])
    top(scores, 2)
    assert scores.tolist() == [3, 1, 2]


@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=256, max_size=256), st.integers(1, 30))
def test_descend_finds_the_byte_of_a_rank(histogram, left):
    each = [byte for byte in range(255, -1, -1) for _ in range(histogram[byte])]
    if left > len(each):
        return
    byte, rank = descend(torch.tensor([histogram]), torch.tensor([left]))
    assert int(byte) == each[left - 1]
    assert int(rank) == left - sum(other > each[left - 1] for other in each)


# -- real processes --------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_of_torch_select_what_one_selects(tmp_path):
    forks.torchrun(two_shards.__file__, tmp_path)
    scores = two_shards.make_scores()
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1)]
    checked = 0
    for cut, part in two_shards.CUTS.items():
        sizes = [{n: p.numel() for n, p in part(scores, rank).items()} for rank in (0, 1)]
        assert all(sum(of.values()) > 500 for of in sizes), cut
        for k in two_shards.KS:
            for layer in ("block", "tensor", "model"):
                for name, want in top_per_layer(scores, k, layer).items():
                    parts = [ranks[f"{cut}.{k}.{layer}.{name}"].flatten() for ranks in found]
                    assert torch.equal(torch.cat(parts), want.flatten()), (cut, k, layer, name)
                    checked += int(want.sum())
    assert checked > 1000
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [radix.NO_ORDER] * 2
