"""Running sums on disk are those that were written, of the same inputs, or none."""

import pytest
import torch
from torch import nn

from grail.importance.kept import Kept
from grail.importance.sums import Sums

PARAMETERS = {"a": nn.Parameter(torch.zeros(2, 3)), "b": nn.Parameter(torch.zeros(4))}
ALONE = (0, 1)


def filled(seed=0):
    sums = Sums.zeros(PARAMETERS)
    generator = torch.Generator().manual_seed(seed)
    for own in sums.by_statistic():
        for value in own.values():
            value.normal_(generator=generator)
    sums.samples = 7
    return sums


def same(one, other):
    pairs = zip(one.by_statistic(), other.by_statistic(), strict=True)
    return all(torch.equal(a[name], b[name]) for a, b in pairs for name in PARAMETERS)


def test_sums_come_back(tmp_path):
    kept, empty = Kept(tmp_path / "kept", "x", 1), Sums.zeros(PARAMETERS)
    assert kept.load(empty, ALONE) == 0
    kept.save(filled(1), 2, ALONE)
    kept.save(filled(), 3, ALONE)
    assert kept.load(empty, ALONE) == 3
    assert same(empty, filled())
    assert empty.samples == 7
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("change", ["inputs", "process", "damage", "shape"])
def test_those_of_another_scoring_are_not_taken(change, tmp_path):
    kept, empty = Kept(tmp_path / "kept", "x", 1), Sums.zeros(PARAMETERS)
    kept.save(filled(), 3, (0, 2) if change == "process" else ALONE)
    if change == "inputs":
        kept = Kept(tmp_path / "kept", "y", 1)
    if change == "damage":
        (file,) = (tmp_path / "kept").iterdir()
        file.write_bytes(file.read_bytes()[:-1] + b"\1")
    if change == "shape":  # a whole tensor, where there was a part
        whole = PARAMETERS | {"a": nn.Parameter(torch.zeros(4, 3))}
        assert kept.load(Sums.zeros(whole), ALONE) == 0
        return
    assert kept.load(empty, ALONE) == 0
    assert same(empty, Sums.zeros(PARAMETERS))
    assert empty.samples == 0


def test_groups_of_parameters_are_kept_apart(tmp_path):
    kept = Kept(tmp_path / "kept", "x", 1)
    for name, parameter in PARAMETERS.items():
        sums = Sums.zeros({name: parameter})
        sums.total[name].fill_(len(name) + parameter.numel())
        kept.save(sums, parameter.numel(), ALONE)
    for name, parameter in PARAMETERS.items():
        sums = Sums.zeros({name: parameter})
        assert kept.load(sums, ALONE) == parameter.numel()
        assert (sums.total[name] == len(name) + parameter.numel()).all()
