"""The kernel against a loop in float64; in Triton's interpreter, and on an accelerator if any."""

import importlib
import itertools

import pytest
import torch

from grail.artifacts import STATISTICS
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores
from grail.model.forward import trainable

pytest.importorskip("triton", reason="Triton is not installed (extra: triton)")

WORDS = ordinary_tokens(96, (0, 1, 2))


@pytest.fixture(scope="module")
def fused():
    """The module with its kernel in the interpreter, which is chosen when a kernel is made."""
    module = importlib.import_module("grail.importance.triton_kernel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        yield importlib.reload(module)
    importlib.reload(module)


def drawn(lengths, outputs, inputs, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(lengths) + outputs)
    tokens = sum(lengths)
    sizes = ((tokens, inputs), (tokens, outputs))
    return [torch.randn(*size, generator=generator).to(dtype) for size in sizes]


def summed(module, x, d, lengths, start=0.0, device="cpu"):
    """What the kernel leaves in three sums that begin at ``start``."""
    sums = [torch.full((d.shape[1], x.shape[1]), start, device=device) for _ in range(3)]
    module.add_products(x.to(device), d.to(device), lengths, *sums)
    return [value.cpu() for value in sums]


def by_loop(x, d, lengths):
    """The definition: one gradient a sample, in float64."""
    pairs = zip(x.double().split(lengths), d.double().split(lengths), strict=True)
    each = torch.stack([b.T @ a for a, b in pairs])
    return each.abs().sum(0), each.sum(0), each.square().sum(0)


def assert_close(found, wanted, close=1e-5):
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).abs().max() <= close * other.abs().max()


SHAPES = [
    ([1], 1, 1),
    ([5, 1, 3], 7, 10),
    ([33, 64, 2], 65, 70),  # tokens and entries beyond one tile, none a multiple of it
    ([32, 32], 64, 64),
    ([4, 0, 6], 3, 130),  # a sample of which nothing is left
]


@pytest.mark.parametrize(("lengths", "outputs", "inputs"), SHAPES)
def test_equals_a_loop_in_float64(fused, lengths, outputs, inputs):
    x, d = drawn(lengths, outputs, inputs)
    wanted = by_loop(x, d, lengths)
    assert_close(summed(fused, x, d, lengths), wanted)
    assert_close([v - 3 for v in summed(fused, x, d, lengths, start=3.0)], wanted, 1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("lengths", "outputs", "inputs"), [*SHAPES, ([90, 7] * 4, 640, 1030)])
def test_equals_a_loop_in_float64_on_an_accelerator(lengths, outputs, inputs, dtype):
    module = importlib.import_module("grail.importance.triton_kernel")
    x, d = drawn(lengths, outputs, inputs, dtype)
    found = summed(module, x, d, lengths, device="cuda")
    assert_close(found, by_loop(x, d, lengths))
    again = summed(module, x, d, lengths, device="cuda")
    assert all(map(torch.equal, found, again))


@pytest.mark.parametrize("tall", [True, False])
def test_every_tile_is_added_once_in_bands_of_any_height(fused, tall, monkeypatch):
    """Three tiles below each other are a whole band and a part of one."""
    monkeypatch.setattr(fused, "TILE", 16)
    monkeypatch.setattr(fused, "GROUP", 2)
    shape = (16 * 2 + 5, 20) if tall else (20, 16 * 2 + 5)
    x, d = drawn([2, 3], *shape)
    assert_close(summed(fused, x, d, [2, 3]), by_loop(x, d, [2, 3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_and_two_at_once_are_widened(fused, dtype):
    lengths = [40, 3]
    x, d = drawn(lengths, 20, 18, dtype)
    assert_close(summed(fused, x, d, lengths), by_loop(x, d, lengths))
    mixed = summed(fused, x, d.float(), lengths)
    assert_close(mixed, by_loop(x, d, lengths))


def test_order_of_samples_and_padding_do_not_matter(fused):
    lengths = [6, 2, 9]
    x, d = drawn(lengths, 12, 20)
    whole = summed(fused, x, d, lengths)
    parts = list(zip(x.split(lengths), d.split(lengths), strict=True))
    for order in itertools.permutations(range(3)):
        a, b = (torch.cat([parts[n][k] for n in order]) for k in (0, 1))
        mixed = summed(fused, a, b, [lengths[n] for n in order])
        assert_close(mixed, [v.double() for v in whole])
    padded = [torch.zeros(3, 9, width) for width in (20, 12)]
    padded[0].normal_()  # what stands at padding in the input is read with a gradient of zero
    for n, pair in enumerate(parts):
        for place, part in zip(padded, pair, strict=True):
            place[n, : lengths[n]] = part
    found = summed(fused, *(place.flatten(0, 1) for place in padded), [9, 9, 9])
    assert_close(found, [v.double() for v in whole])


def test_two_batches_add_up_and_equal_input_gives_equal_bits(fused):
    lengths = [5, 40, 3, 7]
    x, d = drawn(lengths, 9, 33)
    whole, again = (summed(fused, x, d, lengths) for _ in range(2))
    assert all(map(torch.equal, whole, again))
    sums = [torch.zeros(9, 33) for _ in range(3)]
    fused.add_products(x[:45], d[:45], lengths[:2], *sums)
    fused.add_products(x[45:], d[45:], lengths[2:], *sums)
    assert_close(sums, [v.double() for v in whole])


def test_plain_sum_is_the_ordinary_gradient(fused):
    layer = torch.nn.Linear(21, 13)
    x, d = drawn([8, 4], 13, 21)
    (gradient,) = torch.autograd.grad(layer(x), layer.weight, d)
    total_abs, total, _ = summed(fused, x, d, [8, 4])
    assert_close([total], [gradient.double()])
    assert (total_abs >= total.abs() - 1e-5).all()
    one = summed(fused, x[:8], d[:8], [8])  # one sample: the three sums tell of one gradient
    assert torch.equal(one[0], one[1].abs())
    assert torch.equal(one[2], one[1].square())


@pytest.mark.parametrize("tied", [True, False])
def test_scores_of_a_model_equal_batched_products(fused, tied, tiny_model, tiny_rows, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    model, rows = tiny_model("llama", lora=False, tied=tied), tiny_rows(3)
    shapes, real = [], fused.add_products

    def spy(given, gradient, lengths, *sums):
        shapes.append(tuple(sums[0].shape))
        real(given, gradient, lengths, *sums)

    monkeypatch.setattr(fused, "add_products", spy)

    def scores(kernel):
        labels = RandomLabels(WORDS, "inputs_and_targets", 0)
        return Scorer(model, labels, 0, trials=1, kernel=kernel).score(rows)

    found, reference = scores("triton"), scores("bmm")
    assert compare_scores(found, reference).worst < 1e-5
    assert all(list(getattr(found, s)) == list(getattr(reference, s)) for s in STATISTICS)
    linear = [
        tuple(p.shape)
        for name, p in trainable(model).items()
        if p.dim() == 2 and "embed" not in name  # a head tied to it has two uses, one of them not
    ]
    assert sorted(shapes) == sorted(linear)
