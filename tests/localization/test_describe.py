"""What localization.json says of the top sets, per layer and over the model."""

import json

import numpy as np
import pytest
import torch

from grail.artifacts import Mask, Scores
from grail.config.localization import Localization
from grail.localization.describe import describe, matrix, overlap_of_tops
from grail.localization.evidence import Evidence

LAYERS = {
    "layers.2": ["model.layers.2.b", "model.layers.2.a"],
    "layers.10": ["model.layers.10.a"],
    "head": ["head"],
}
NAMES = ("model.layers.10.a", "model.layers.2.b", "head", "model.layers.2.a")


def described(layer="block", method="grail", about=None):
    generator = torch.Generator().manual_seed(3)
    sides = {}
    for pair in ((d, s) for d in ("x", "y") for s in ("unlearn", "retain")):
        values = {name: torch.rand(5, 8, generator=generator) for name in NAMES}
        sides[pair] = Scores(values, values, values, samples=1)
    evidence = Evidence(sides, dict, layer=layer, k_op_ur=0.3)
    common = {"freeze": "static", "localizer": method}
    mask = Mask(evidence.overlap.op_ur, about=common | (about or {}))
    return evidence, describe(evidence, mask)


def numpy_jaccard(a, b, names):
    a, b = (np.concatenate([marks[name].numpy().ravel() for name in names]) for marks in (a, b))
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 1.0


@pytest.mark.parametrize("layer", ["block", "tensor"])
def test_every_layer_has_its_own_jaccard_matrix(layer):
    evidence, about = described(layer)
    assert about["jaccard"]["names"] == ["x.unlearn", "x.retain", "y.unlearn", "y.retain"]
    tops = [evidence.at_ur[tuple(n.split("."))] for n in about["jaccard"]["names"]]
    assert about["layer"] == layer
    assert about["layers"].keys() == LAYERS.keys()  # a report of every tensor would not be read
    for name, found in about["layers"].items():
        want = [[numpy_jaccard(a, b, LAYERS[name]) for b in tops] for a in tops]
        assert found["jaccard"] == [[round(value, 6) for value in row] for row in want]
        assert [found["jaccard"][i][i] for i in range(4)] == [1.0] * 4
    whole = [[numpy_jaccard(a, b, NAMES) for b in tops] for a in tops]
    assert about["jaccard"]["values"] == whole  # not rounded


def test_one_layer_says_what_the_model_says():
    _, about = described("model")
    rounded = [[round(value, 6) for value in row] for row in about["jaccard"]["values"]]
    assert about["layers"]["model"]["jaccard"] == rounded


def test_what_only_the_localizer_knows_is_passed_on():
    _, about = described(method="memflex", about={"memflex": {"trained": 3}, "statistic": "mean"})
    assert about["memflex"] == {"trained": 3}
    assert about["statistic"] == "mean_abs"  # that of the sets
    _, about = described(method="none", about={"memflex": {"trained": 3}})
    assert "memflex" not in about


def test_it_is_json():
    _, about = described()
    assert json.loads(json.dumps(about, allow_nan=False)) == about


def test_a_matrix_by_hand():
    a = {"p": torch.tensor([True, True, False]), "q": torch.tensor([False])}
    b = {"p": torch.tensor([False, True, True]), "q": torch.tensor([False])}
    assert matrix([a, b]) == [[1, 1 / 3], [1 / 3, 1]]
    assert matrix([a, b], ["p"], digits=6) == [[1, 0.333333], [0.333333, 1]]
    assert matrix([a, b], iter(["q"])) == [[1, 1], [1, 1]]  # two empty sets are alike


@pytest.mark.parametrize("statistic", ["mean_abs", "z_mean"])
@pytest.mark.parametrize("layer", ["tensor", "model"])
def test_the_overlap_of_two_scorings_is_that_of_their_top_sets(layer, statistic):
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(2):
        values = {name: torch.randn(4, 6, generator=generator) for name in NAMES}
        sizes = {name: value.abs() for name, value in values.items()}
        made.append(Scores(sizes, values, sizes, 1))
    how = Localization(layer=layer, statistic=statistic, k_op_ur=0.3)
    tops = []
    for scores in made:
        sides = {("d", side): scores for side in ("unlearn", "retain")}
        evidence = Evidence(sides, dict, 0, statistic, layer, 0.3)
        tops.append(evidence.at_ur["d", "unlearn"])
    assert overlap_of_tops(*made, how) == numpy_jaccard(*tops, NAMES) < 0.5
    assert overlap_of_tops(made[0], made[0], how) == 1
