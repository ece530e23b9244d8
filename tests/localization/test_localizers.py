"""From scores to a mask, against an independent recomputation in NumPy."""

import math
import sys
from dataclasses import replace
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
import torch

from grail.artifacts import Mask, Scores
from grail.config.localization import Localization
from grail.errors import InputError
from grail.localization import localizers
from grail.localization.localizers import LOCALIZERS, check_method, code_of

# name -> (block, shape), in the styles of Llama with LoRA, GPT-2 and GPT-NeoX; order not sorted
PARAMETERS = {
    "transformer.h.1.attn.c_attn.weight": ("h.1", (6, 4)),
    "base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight": ("1", (2, 17)),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight": ("0", (9, 2)),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": ("0", (2, 9)),
    "transformer.h.1.attn.c_attn.bias": ("h.1", (11,)),
    "base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight": ("1", (5, 2)),
    "gpt_neox.layers.7.mlp.weight": ("7", (3, 3, 3)),
    "lm_head.weight": ("lm_head.weight", (30,)),
}
GROUPS = {
    "block": {name: block for name, (block, _) in PARAMETERS.items()},
    "tensor": {name: name for name in PARAMETERS},
    "model": dict.fromkeys(PARAMETERS, "model"),
}
GROUPS["auto"] = GROUPS["tensor"]  # some parameters are an adapter's
SHAPES = {name: shape for name, (_, shape) in PARAMETERS.items()}
ONE = {"entries": (100_000,)}


def no_weights():
    raise AssertionError("the vanilla model was loaded for nothing")


def localize(sides, settings, seed, weights=no_weights):
    return localizers.make_mask(sides, settings, seed, weights)


def random_weights(seed=0, shapes=SHAPES, distinct=8):
    """Whole numbers of both signs, so ties and zeros are everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(1 - distinct, distinct, shape, generator=generator).bfloat16()
        for name, shape in reversed(shapes.items())
    }


def random_scores(n, seed=0, shapes=SHAPES, distinct=8):
    """Scores of n domains; whole numbers below ``distinct``, so ties and zeros are everywhere."""
    generator = torch.Generator().manual_seed(seed)

    def one():
        stats = [
            {
                name: torch.randint(0, distinct, shape, generator=generator).float() / 4
                for name, shape in shapes.items()
            }
            for _ in range(3)
        ]
        return Scores(*stats, samples=3)

    return {(f"d{i}", side): one() for i in range(n) for side in ("unlearn", "retain")}


def numpy_top(values, k, group):
    names, marks = sorted(values), {}
    for layer in {group[name] for name in names}:
        inside = [name for name in names if group[name] == layer]
        flat = np.concatenate([values[name].ravel() for name in inside])
        count = math.ceil(Fraction(str(k)) * flat.size)
        order = np.lexsort((np.arange(flat.size), -flat))[:count]
        chosen = np.zeros(flat.size, dtype=bool)
        chosen[order] = True
        chosen &= flat > 0
        cuts = np.cumsum([values[name].size for name in inside])[:-1]
        for name, part in zip(inside, np.split(chosen, cuts), strict=True):
            marks[name] = part.reshape(values[name].shape)
    return marks


def numpy_ranked(scores, statistic):
    """What the top sets are the top of."""
    if statistic != "z_mean":
        return {name: value.numpy() for name, value in getattr(scores, statistic).items()}
    wide = {name: value.numpy().astype(np.float64) for name, value in scores.mean.items()}
    return {
        name: np.abs((g - g.mean()) / g.std() if g.std() else 0 * g).astype(np.float32)
        for name, g in wide.items()
    }


def numpy_overlaps(sides, settings, groups=GROUPS):
    """Return the top sets at both k, OP-UR and OP-RR."""
    group = groups[settings.layer]
    arrays = {key: numpy_ranked(scores, settings.statistic) for key, scores in sides.items()}
    at_ur = {key: numpy_top(a, settings.k_op_ur, group) for key, a in arrays.items()}
    at_rr = {key: numpy_top(a, settings.k_op_rr, group) for key, a in arrays.items()}
    domains = sorted({domain for domain, _ in sides})
    ur, rr = {}, {}
    for name in group:
        u = reduce(np.logical_or, [at_ur[d, "unlearn"][name] for d in domains])
        r = reduce(np.logical_or, [at_ur[d, "retain"][name] for d in domains])
        ur[name] = u & r
        rr[name] = sum(at_rr[d, "retain"][name].astype(int) for d in domains) >= 2
    return at_ur, at_rr, ur, rr


def assert_same(marks, want):
    assert set(marks) == set(want)
    for name, bits in marks.items():
        assert bits.dtype == torch.bool
        assert np.array_equal(bits.numpy(), want[name]), name


def total(marks, names=None):
    return sum(int(marks[name].sum()) for name in (names or marks))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("layer", ["block", "tensor", "model"])
@pytest.mark.parametrize("k", [(0.1, 0.2), (0.3, 0.1), (1.0, 1.0), (1e-6, 0.5), (0.05, 0.7)])
def test_the_mask_equals_numpy_bit_for_bit(n, layer, k):
    sides = random_scores(n, seed=n)
    settings = Localization(layer=layer, k_op_ur=k[0], k_op_rr=k[1])
    mask, _ = localize(sides, settings, seed=0)
    _, _, ur, rr = numpy_overlaps(sides, settings)
    assert_same(mask.frozen, {name: ur[name] | rr[name] for name in ur})
    assert not mask.by_side
    assert mask.for_side("unlearn") is mask.for_side("retain") is mask.frozen


@pytest.mark.parametrize("statistic", ["mean_abs", "mean_sq", "z_mean"])
@pytest.mark.parametrize("layer", ["block", "tensor"])
def test_the_sets_are_of_the_statistic_that_is_asked_for(statistic, layer):
    sides, settings = random_scores(3, seed=8), Localization(statistic=statistic, layer=layer)
    mask, about = localize(sides, settings, seed=0)
    _, _, ur, rr = numpy_overlaps(sides, settings)
    assert_same(mask.frozen, {name: ur[name] | rr[name] for name in ur})
    assert mask.about["statistic"] == about["statistic"] == statistic


@pytest.mark.parametrize("statistic", ["mean_abs", "mean_sq", "z_mean"])
def test_only_that_statistic_decides(statistic):
    sides, settings = random_scores(2), Localization(statistic=statistic)
    own = {"z_mean": "mean"}.get(statistic, statistic)
    noise = random_scores(2, seed=1)
    other = {key: replace(noise[key], **{own: getattr(s, own)}) for key, s in sides.items()}
    assert_same(
        localize(other, settings, 0)[0].frozen,
        {n: b.numpy() for n, b in localize(sides, settings, 0)[0].frozen.items()},
    )


@pytest.mark.parametrize("keep_ur", [True, False])
@pytest.mark.parametrize("keep_rr", [True, False])
@pytest.mark.parametrize("freeze", ["static", "by_side"])
def test_ablations_leave_out_one_set(keep_ur, keep_rr, freeze):
    sides = random_scores(3, seed=5)
    settings = Localization(keep_op_ur=keep_ur, keep_op_rr=keep_rr, freeze=freeze)
    mask, about = localize(sides, settings, seed=0)
    _, _, ur, rr = numpy_overlaps(sides, settings)
    kept_ur = {name: bits & keep_ur for name, bits in ur.items()}
    kept_rr = {name: bits & keep_rr for name, bits in rr.items()}
    if freeze == "static":
        assert_same(mask.frozen, {name: kept_ur[name] | kept_rr[name] for name in ur})
        assert mask.unlearn is None
        assert mask.retain is None
    else:
        assert_same(mask.frozen, {name: kept_ur[name] & kept_rr[name] for name in ur})
        assert_same(mask.for_side("unlearn"), kept_ur)
        assert_same(mask.for_side("retain"), kept_rr)
    # the description tells the sets as found, whatever is kept
    assert (about["model"]["op_ur"], about["model"]["op_rr"]) == (total(ur), total(rr))
    assert total(ur) > 0
    assert total(rr) > 0


def test_by_side_freezes_what_neither_side_moves():
    settings = Localization(freeze="by_side", k_op_ur=0.4, k_op_rr=0.4)
    mask, about = localize(random_scores(2), settings, seed=0)
    assert mask.by_side
    assert total(mask.frozen) > 0
    for name, bits in mask.frozen.items():
        both = mask.for_side("unlearn")[name] & mask.for_side("retain")[name]
        assert torch.equal(bits, both)
    assert mask.about["freeze"] == about["freeze"] == "by_side"


def test_one_domain_freezes_op_ur_only():
    sides, settings = random_scores(1), Localization()
    _, _, ur, rr = numpy_overlaps(sides, settings)
    mask, about = localize(sides, settings, seed=0)
    assert total(rr) == about["model"]["op_rr"] == 0
    assert_same(mask.frozen, ur)


def test_all_zero_scores_freeze_nothing():
    mask, about = localize(random_scores(2, distinct=1), Localization(k_op_ur=1.0), seed=0)
    assert mask.counts()["frozen"] == 0
    assert all(value == 1.0 for row in about["jaccard"]["values"] for value in row)


@pytest.mark.parametrize(
    "more", [{}, {"statistic": "z_mean", "layer": "tensor"}, {"keep_op_ur": False}]
)
def test_random_freezes_as_many_entries_per_tensor_elsewhere(more):
    sides, settings = random_scores(3, seed=2), Localization(method="random", **more)
    model, _ = localize(sides, Localization(**more), seed=0)
    drawn = [localize(sides, settings, seed)[0].frozen for seed in (1, 1, 2)]
    for marks in drawn:
        assert {n: int(b.sum()) for n, b in marks.items()} == {
            n: int(b.sum()) for n, b in model.frozen.items()
        }
        assert {n: b.shape for n, b in marks.items()} == {
            n: b.shape for n, b in model.frozen.items()
        }
    same = [all(torch.equal(drawn[0][n], other[n]) for n in SHAPES) for other in drawn[1:]]
    assert same == [True, False]
    assert not all(torch.equal(drawn[0][n], model.frozen[n]) for n in SHAPES)


def test_random_draws_every_entry_equally_often():
    sides = random_scores(2, seed=4, shapes={"p": (20,)}, distinct=50)
    settings = Localization(method="random", k_op_ur=0.5, k_op_rr=0.5)
    draws = torch.stack([localize(sides, settings, seed)[0].frozen["p"] for seed in range(60)])
    share = draws[0].float().mean()
    # 5 standard deviations of a mean of 60 draws
    tolerance = 5 * math.sqrt(share * (1 - share) / 60)
    assert (draws.float().mean(0) - share).abs().max() < tolerance


def test_random_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    localize(random_scores(2), Localization(method="random"), seed=3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("more", [{}, {"statistic": "mean_sq"}, {"keep_op_rr": False}])
def test_magnitude_freezes_as_many_entries_per_tensor_with_the_largest_weights(more):
    sides, weights = random_scores(3, seed=2), random_weights()
    model, _ = localize(sides, Localization(**more), seed=0)
    settings = Localization(method="magnitude", **more)
    marks = localize(sides, settings, 0, lambda: weights)[0].frozen
    want = {}
    for name, bits in model.frozen.items():
        flat = [abs(value) for value in weights[name].flatten().tolist()]
        order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))[: int(bits.sum())]
        want[name] = np.isin(np.arange(len(flat)), order).reshape(bits.shape)
    assert_same(marks, want)
    assert total(marks) == total(model.frozen) > 0


def test_magnitude_freezes_zeros_too_where_there_is_nothing_else():
    sides, settings = random_scores(2), Localization(method="magnitude", k_op_ur=1.0, k_op_rr=1.0)
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    model, _ = localize(sides, Localization(k_op_ur=1.0, k_op_rr=1.0), seed=0)
    marks = localize(sides, settings, 0, lambda: zeros)[0].frozen
    for name, bits in marks.items():
        count = int(model.frozen[name].sum())
        assert bits.flatten().tolist() == [i < count for i in range(bits.numel())]


def test_magnitude_refuses_the_weights_of_another_model():
    weights = random_weights()
    del weights["lm_head.weight"]
    with pytest.raises(InputError, match="not those that were scored"):
        localize(random_scores(2), Localization(method="magnitude"), 0, lambda: weights)


@pytest.mark.parametrize("method", [name for name in LOCALIZERS if name != "grail"])
def test_only_grail_has_sides(method):
    settings = Localization(method=method, freeze="by_side")
    with pytest.raises(InputError) as error:
        check_method(settings)
    assert f"localization.freeze: by_side has no meaning for method: {method}" in str(error.value)
    assert "Use freeze: static, or method: grail." in str(error.value)
    with pytest.raises(InputError, match="by_side"):
        localize(random_scores(2), settings, seed=0)


@pytest.mark.parametrize("magnitude", [1.0, 3.0])
def test_a_quantile_beyond_the_largest_is_refused_before_anything_is_loaded(magnitude):
    with pytest.raises(InputError, match=r"localization\.memflex\.magnitude: [13] as a quantile"):
        check_method(Localization(method="memflex", memflex={"magnitude": magnitude}))
    check_method(Localization(memflex={"magnitude": magnitude}))  # of no concern to grail


def test_none_freezes_nothing():
    mask, about = localize(random_scores(2), Localization(method="none"), seed=0)
    assert {name: tuple(bits.shape) for name, bits in mask.frozen.items()} == SHAPES
    assert total(mask.frozen) == about["model"]["frozen"] == 0
    assert about["model"]["op_ur"] > 0


def test_null_band_of_two_domains():
    """Of independent scores 7.04 % are frozen, as the top tenth is inside the top fifth.

    OP-RR: .2 * .2. OP-UR outside OP-RR: in some unlearn set (.19), in the top tenth of one retain
    side and outside the top fifth of the other (2 * .1 * .8).
    """
    generator = torch.Generator().manual_seed(0)
    independent = {
        key: Scores(*[{"entries": torch.rand(100_000, generator=generator)}] * 3, samples=1)
        for key in random_scores(2, shapes=ONE)
    }
    about = localize(independent, Localization(layer="model"), seed=0)[1]["model"]
    assert about["op_ur"] / 1e5 == pytest.approx((1 - 0.9**2) ** 2, abs=0.003)
    assert about["op_rr"] / 1e5 == pytest.approx(0.2**2, abs=0.003)
    assert about["frozen_fraction"] == pytest.approx(0.04 + 0.19 * 0.16, abs=0.003)


@pytest.mark.parametrize("alike", ["unlearn", "retain", "crossed", "all"])
def test_hard_upper_bound_of_two_domains(alike):
    """However the four sets overlap, at most k_op_ur * 2 plus (k_op_rr - k_op_ur) are frozen."""
    m = 1000
    base = torch.arange(1.0, m + 1)
    a, b = base, base.roll(m // 10)  # disjoint top tenths
    order = {
        "unlearn": [a, a, a, b],
        "retain": [a, b, a, a],
        "crossed": [a, b, a, b],
        "all": [a, a, a, a],
    }[alike]
    keys = [("x", "unlearn"), ("y", "unlearn"), ("x", "retain"), ("y", "retain")]
    sides = {
        key: Scores({"p": v}, {"p": v}, {"p": v}, samples=1)
        for key, v in zip(keys, order, strict=True)
    }
    about = localize(sides, Localization(), seed=0)[1]["model"]
    assert 0 < about["op_ur"] <= 200
    assert about["frozen"] <= 300


@pytest.mark.parametrize("layer", ["block", "tensor", "model"])
@pytest.mark.parametrize("method", LOCALIZERS)
def test_the_description_counts_right(layer, method):
    sides = random_scores(3, seed=9)
    settings = Localization(method=method, layer=layer, k_op_ur=0.15, k_op_rr=0.25)
    mask, about = localize(sides, settings, 0, random_weights)
    at_ur, at_rr, ur, rr = numpy_overlaps(sides, settings)
    model, parts = about["model"], about["layers"]
    assert model["entries"] == sum(math.prod(shape) for shape in SHAPES.values())
    assert (model["op_ur"], model["op_rr"]) == (total(ur), total(rr))
    assert model["frozen"] == total(mask.frozen) == mask.counts()["frozen"]
    assert model["frozen_fraction"] == model["frozen"] / model["entries"]
    for key in ("entries", "op_ur", "op_rr", "frozen"):
        assert sum(part[key] for part in parts.values()) == model[key]
    inside = {}
    for name, group in GROUPS["model" if layer == "model" else "block"].items():
        inside.setdefault(group, []).append(name)
    assert sorted((p["entries"], p["op_ur"], p["op_rr"]) for p in parts.values()) == sorted(
        (sum(math.prod(SHAPES[n]) for n in names), total(ur, names), total(rr, names))
        for names in inside.values()
    )
    assert model["sets"] == {
        f"{d}.{side}": {"k_op_ur": total(at_ur[d, side]), "k_op_rr": total(at_rr[d, side])}
        for d, side in sides
    }
    assert (about["localizer"], about["layer"], about["freeze"]) == (method, layer, "static")
    assert (about["k_op_ur"], about["k_op_rr"]) == (0.15, 0.25)


def test_the_jaccard_matrix_is_of_the_top_sets():
    sides, settings = random_scores(3, seed=1), Localization()
    table = localize(sides, settings, seed=0)[1]["jaccard"]
    at_ur = numpy_overlaps(sides, settings)[0]
    flat = {f"{d}.{s}": np.concatenate([at_ur[d, s][n].ravel() for n in SHAPES]) for d, s in sides}
    names, values = table["names"], table["values"]
    assert names == list(flat)
    assert table["k"] == settings.k_op_ur
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            want = (flat[a] & flat[b]).sum() / (flat[a] | flat[b]).sum()
            assert values[i][j] == want == values[j][i]
        assert values[i][i] == 1.0


def test_the_mask_carries_how_it_was_made():
    mask, _ = localize(random_scores(2), Localization(k_op_ur=0.3, layer="tensor"), seed=0)
    assert mask.about == {
        "localizer": "grail",
        "statistic": "mean_abs",
        "k": {"k_op_ur": 0.3, "k_op_rr": 0.2},
        "layer": "tensor",
        "freeze": "static",
        "counts": {
            "entries": sum(math.prod(s) for s in SHAPES.values()),
            "frozen": total(mask.frozen),
        },
    }


@pytest.mark.parametrize("method", ["memflex", "damage_budget"])
def test_the_mask_carries_what_its_localizer_adds(method):
    settings = Localization(method=method, statistic="mean_sq")
    mask, about = localize(random_scores(2), settings, seed=0)
    # what it read, not what the sets of the description are the top of
    assert mask.about["statistic"] == {"memflex": "mean", "damage_budget": "mean_abs"}[method]
    assert about["statistic"] == "mean_sq"
    assert mask.about[method] == about[method] != {}
    common = {"localizer", "statistic", "k", "layer", "freeze", "counts"}
    assert set(mask.about) == common | {method}


@pytest.mark.parametrize("method", LOCALIZERS)
def test_the_mask_does_not_depend_on_the_order_of_names_or_domains(method):
    sides, settings = random_scores(3, seed=6), Localization(method=method)

    def backward(values):
        return dict(reversed(values.items()))

    other = {
        key: Scores(backward(s.mean_abs), backward(s.mean), s.mean_sq, s.samples)
        for key, s in reversed(sides.items())
    }
    frozen = localize(sides, settings, 0, random_weights)[0].frozen
    want = {n: b.numpy() for n, b in frozen.items()}
    assert_same(localize(other, settings, 0, random_weights)[0].frozen, want)


@pytest.mark.parametrize("change", ["less", "renamed", "shape"])
def test_scores_of_different_models_are_refused(change):
    sides = random_scores(2)
    odd = dict(sides["d1", "retain"].mean_abs)
    value = odd.pop("lm_head.weight")
    if change == "renamed":
        odd["head.weight"] = value
    if change == "shape":
        odd["lm_head.weight"] = value[:1]  # would broadcast
    sides["d1", "retain"] = Scores(odd, odd, odd, samples=1)
    with pytest.raises(InputError, match="different parameters"):
        localize(sides, Localization(), seed=0)


@pytest.mark.parametrize("method", LOCALIZERS)
def test_nan_scores_are_refused_by_every_method(method):
    sides = random_scores(2)
    sides["d0", "retain"].mean_abs["lm_head.weight"][3] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        localize(sides, Localization(method=method), seed=0)


@pytest.mark.parametrize(
    ("method", "part", "statistic"),
    [("memflex", "mean", "mean_abs"), ("damage_budget", "mean_abs", "z_mean")],
)
def test_nan_is_refused_wherever_the_method_looks(method, part, statistic):
    sides = random_scores(2)
    getattr(sides["d0", "retain"], part)["lm_head.weight"][3] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        localize(sides, Localization(method=method, statistic=statistic), seed=0)


def test_unknown_method_names_the_key_and_the_allowed():
    with pytest.raises(InputError) as error:
        check_method(Localization(method="grial"))
    text = str(error.value)
    assert "localization.method" in text
    assert "'grial'" in text
    assert "Did you mean 'grail'?" in text
    assert all(name in text for name in LOCALIZERS)
    with pytest.raises(InputError, match="is unknown"):
        localize(random_scores(1), Localization(method="grial"), seed=0)
    for name in LOCALIZERS:
        check_method(Localization(method=name))


# -- the user's own localizers -----------------------------------------------------------------

MODULE = """
import torch
from grail.artifacts import Mask

def largest(evidence):
    scores = evidence.sides["d0", "retain"].mean_abs
    return Mask({name: scores[name] > 1 for name in evidence.shapes}, about={"limit": 1})

def nothing(evidence):
    return {}
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    file = tmp_path / "own_localizers.py"
    file.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop("own_localizers", None)


def test_an_own_localizer_is_named_in_the_settings(own_module):
    sides = random_scores(2)
    settings = Localization(method="own_localizers:largest")
    mask, about = localize(sides, settings, seed=0)
    scores = sides["d0", "retain"].mean_abs
    assert_same(mask.frozen, {name: (value > 1).numpy() for name, value in scores.items()})
    assert mask.about["localizer"] == about["localizer"] == "own_localizers:largest"
    assert mask.about["limit"] == 1
    assert about["model"]["frozen"] == total(mask.frozen) > 0


def test_a_localizer_is_passed_from_python():
    sides = random_scores(2)

    def own(evidence):
        return Mask(evidence.overlap.op_rr)

    mask, about = localizers.make_mask(sides, Localization(), 0, no_weights, own)
    assert_same(mask.frozen, numpy_overlaps(sides, Localization())[3])
    assert about["localizer"].endswith(":own")


def test_an_own_localizer_may_tell_the_sides_apart():
    sides = random_scores(2)

    def own(evidence):
        ur, rr = evidence.overlap.op_ur, evidence.overlap.op_rr
        return Mask({name: ur[name] & rr[name] for name in ur}, ur, rr)

    mask, about = localizers.make_mask(sides, Localization(), 0, no_weights, own)
    assert about["freeze"] == mask.about["freeze"] == "by_side"


def mask_with(**changes):
    """A mask that freezes everything, with changed tensors (None: without); types unchecked."""
    mask = Mask({name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()})
    mask.frozen.update(changes)
    for name in [name for name, bits in changes.items() if bits is None]:
        del mask.frozen[name]
    return mask


EVERYTHING, LESS = mask_with().frozen, mask_with(**{"lm_head.weight": None}).frozen


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (EVERYTHING, r"must return a grail\.artifacts\.Mask, not dict"),
        (Mask(LESS), r"1 are missing or unknown \(first: lm_head\.weight\)"),
        (mask_with(x=torch.ones(1) > 0), r"1 are missing or unknown \(first: x\)"),
        (
            mask_with(**{"lm_head.weight": torch.ones(30)}),
            r"lm_head\.weight must be a bool tensor of shape \(30,\), not torch.float32",
        ),
        (
            mask_with(**{"lm_head.weight": torch.ones(2) > 0}),
            r"bool tensor of shape \(30,\), not torch.bool of shape \(2,\)",
        ),
        (Mask(EVERYTHING, EVERYTHING), "entries for one side only"),
        (Mask(EVERYTHING, EVERYTHING, LESS), "1 are missing or unknown"),
    ],
)
def test_a_result_that_is_no_mask_of_the_model_is_refused(mask, message):
    with pytest.raises(InputError, match=message):
        localizers.make_mask(random_scores(2), Localization(), 0, no_weights, lambda _: mask)


def test_names_of_own_localizers_are_checked_before_anything_is_loaded(own_module):
    check_method(Localization(method="own_localizers:nothing"))
    for name in ("own_localizers:smallest", "no_such_localizers:largest"):
        with pytest.raises(InputError, match=r"^localization\.method: module"):
            check_method(Localization(method=name))


def test_the_code_of_an_own_localizer_is_part_of_what_made_the_mask(own_module):
    largest = Localization(method="own_localizers:largest")
    assert code_of(Localization()) == {}
    before = code_of(largest)
    assert before == code_of(Localization(method="own_localizers:nothing")) != {}
    own_module.write_text(MODULE.replace("> 1", "> 2"))
    assert code_of(largest) != before
