"""What localizers see: the top sets of each side, and the statistic that ranks them."""

import numpy as np
import pytest
import torch

from grail.artifacts import Scores
from grail.config.localization import Localization
from grail.errors import InputError
from grail.localization import evidence
from grail.localization.evidence import Evidence, importance, standardised


def no_weights():
    raise AssertionError("nothing is loaded to gather evidence")


def scores_of(*values, seed=0):
    """Scores of one tensor ``p``, which are told apart by their statistics."""
    mean = torch.tensor([float(value) for value in values])
    return Scores({"p": mean.abs()}, {"p": mean}, {"p": 10 * mean**2}, samples=1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_statistic_is_taken_by_its_name():
    scores = scores_of(1, -3, 2)
    assert importance(scores, "mean_abs")["p"].tolist() == [1, 3, 2]
    assert importance(scores, "mean_sq")["p"].tolist() == [10, 90, 40]
    # mean 0, variance 14 / 3
    assert importance(scores, "z_mean")["p"].tolist() == pytest.approx(
        [x / (14 / 3) ** 0.5 for x in (1, 3, 2)]
    )


def test_standardised_equals_numpy():
    for seed, shape in enumerate([(40,), (3, 5), (2, 3, 4)]):
        g = normal(*shape, seed=seed) + 0.3
        wide = g.numpy().astype(np.float64)
        want = np.abs((wide - wide.mean()) / wide.std())
        got = standardised(g)
        assert got.dtype == torch.float32
        assert np.allclose(got.numpy(), want, rtol=1e-6, atol=0)


def test_standardised_does_not_depend_on_scale_or_sign():
    g = normal(4, 6)
    assert torch.equal(standardised(g * 2**-20), standardised(g))
    assert torch.equal(standardised(-g), standardised(g))
    assert torch.allclose(standardised(g * 3e-9), standardised(g), rtol=1e-5)


def test_a_tensor_without_spread_scores_zero():
    # 0.1 has no exact mean in float32: a naive deviation would be rounding, and its z about 1
    for g in (torch.full((1001,), 0.1), torch.zeros(5), torch.tensor([7.0]), torch.tensor(2.0)):
        z = standardised(g)
        assert z.shape == g.shape
        assert not z.any()


def test_the_sign_decides_what_stands_out_of_the_mean():
    """Release and paper differ: where all gradients are near 5, the entry near 0 is the odd one."""
    sides = {("d", side): scores_of(5.1, 5, 0.1, 4.9) for side in ("unlearn", "retain")}
    chosen = {
        statistic: Evidence(sides, no_weights, statistic=statistic, k_op_ur=0.25).at_ur[
            "d", "unlearn"
        ]["p"]
        for statistic in ("mean_abs", "z_mean")
    }
    assert chosen["mean_abs"].tolist() == [True, False, False, False]
    assert chosen["z_mean"].tolist() == [False, False, True, False]


def test_the_sets_are_at_their_own_k():
    sides = {
        ("b", "unlearn"): scores_of(4, 3, 2, 1),
        ("b", "retain"): scores_of(1, 2, 3, 4),
        ("a", "unlearn"): scores_of(1, 4, 3, 2),
        ("a", "retain"): scores_of(4, 3, 1, 2),
    }
    found = Evidence(sides, no_weights, k_op_ur=0.25, k_op_rr=0.5)
    assert {key: marks["p"].nonzero().flatten().tolist() for key, marks in found.at_ur.items()} == {
        ("b", "unlearn"): [0],
        ("b", "retain"): [3],
        ("a", "unlearn"): [1],
        ("a", "retain"): [0],
    }
    assert found.at_rr["b", "retain"]["p"].tolist() == [False, False, True, True]
    assert found.overlap.op_ur["p"].tolist() == [True, False, False, False]
    assert not found.overlap.op_rr["p"].any()
    assert found.domains == ["a", "b"]
    assert found.shapes == {"p": (4,)}


def test_sides_of_different_models_are_refused():
    sides = {("d", "unlearn"): scores_of(1, 2), ("d", "retain"): scores_of(1, 2, 3)}
    with pytest.raises(InputError, match="different parameters"):
        Evidence(sides, no_weights)


def test_the_sets_are_computed_when_first_read(monkeypatch):
    calls = []
    monkeypatch.setattr(evidence, "top_per_layer", lambda *given: calls.append(given[1:]) or {})
    sides = {("d", side): scores_of(1, 2) for side in ("unlearn", "retain")}
    given = Evidence(sides, no_weights, k_op_ur=0.3, k_op_rr=0.4)
    assert given.shapes == {"p": (2,)}
    assert calls == []
    assert given.at_rr is given.at_rr
    assert calls == [(0.4, given.layer)] * 2


def test_the_defaults_are_those_of_the_settings():
    settings = Localization()
    given = Evidence({("d", side): scores_of(1) for side in ("unlearn", "retain")}, no_weights)
    assert settings.layer == "auto"
    for name in ("statistic", "k_op_ur", "k_op_rr"):
        assert getattr(given, name) == getattr(settings, name)


@pytest.mark.parametrize("layer", ["auto", "block", "tensor", "model"])
@pytest.mark.parametrize("name", ["model.layers.0.w", "base_model.model.h.0.w.lora_A.default"])
def test_what_auto_means_is_known_from_the_start(layer, name):
    values = {name: torch.ones(2)}
    sides = {("d", s): Scores(values, values, values, 1) for s in ("unlearn", "retain")}
    found = Evidence(sides, no_weights, layer=layer).layer
    assert found == (layer if layer != "auto" else "tensor" if "lora" in name else "block")
