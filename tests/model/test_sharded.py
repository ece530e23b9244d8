"""A model in parts (FSDP2) trains and is scored as a whole one, in two processes over gloo."""

import json
import shutil

import forks
import in_parts
import pytest
import torch
import two_processes
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from grail.errors import InputError
from grail.model.sharded import (
    Whole,
    is_sharded,
    own_parts,
    part,
    part_of,
    read_part,
    shard,
    summed,
    whole_of,
    write_tensors,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    codes, said = forks.both(in_parts.check, folder, folder=folder)
    assert codes == [0, 0], said
    return folder


@pytest.fixture(scope="module")
def facts(two):
    found = [json.loads((two / f"facts.{rank}.json").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    return found[0]


def furthest(a, b):
    """The largest difference of two sets of tensors, relative to the largest entry."""
    assert a.keys() == b.keys()
    largest = max(float(value.abs().max()) for value in b.values())
    return max(float((a[n].double() - b[n].double()).abs().max()) for n in a) / largest


@pytest.mark.parametrize("name", in_parts.TRAININGS)
def test_a_training_in_parts_ends_as_one_in_a_single_process(name, two, facts, tmp_path):
    one, before, mask, proof = two_processes.train(name, tmp_path, Accelerator(cpu=True))
    ranks = [load_file(two / f"{name}.{rank}.safetensors") for rank in (0, 1)]
    assert furthest(*ranks) == 0.0
    assert furthest(ranks[0], one) < 1e-6
    assert any((ranks[0][n] != before[n]).any() for n in before)
    for n, bits in mask.frozen.items():
        assert torch.equal(ranks[0][n][bits].view(torch.int32), before[n][bits].view(torch.int32))
    told = facts["proofs"][name]
    same = ("entries", "frozen", "changed", "sha256_before", "sha256_after")
    assert {key: told[key] for key in same} == {key: proof[key] for key in same}
    logs = [
        [json.loads(line) for line in (folder / f"{name}.log").read_text().splitlines()]
        for folder in (two, tmp_path)
    ]
    for a, b in zip(*logs, strict=True):
        assert (a["step"], a["ascending"]) == (b["step"], b["ascending"])
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-4)
        assert a["terms"] == pytest.approx(b["terms"], rel=1e-4)


def test_the_proof_fails_if_the_mask_is_left_out_in_one_part(facts):
    assert "frozen entries changed: the freezing is broken" in facts["unmasked"]


def test_one_process_goes_on_from_the_checkpoint_of_two(two, tmp_path):
    folder = tmp_path / "over"
    shutil.copytree(two / "over", folder)
    state = json.loads((folder / "by_side.checkpoint" / "state.json").read_text())
    assert state["step"] == 2
    steps = []
    ended, *_ = two_processes.train(
        "by_side", folder, Accelerator(cpu=True), tick=lambda done, *_: steps.append(done)
    )
    assert steps[0] == 3
    fresh, *_ = two_processes.train("by_side", tmp_path, Accelerator(cpu=True))
    assert furthest(ended, fresh) < 1e-6


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("how", ["parts", "copies"])
def test_scores_of_two_processes_are_those_of_one(how, kind, two):
    for precision, limit in (("single", 1e-6), ("double", 1e-14)):
        one = in_parts.scores_of(kind == "lora", (0, 1), double=precision == "double")
        ranks = [
            load_file(two / f"scores.{how}.{kind}.{precision}.{r}.safetensors") for r in (0, 1)
        ]
        assert furthest(*ranks) == 0.0
        assert furthest(ranks[0], one) < limit
        assert all(
            one[n].abs().max() > 0 for n in one if n.endswith("mean_abs") and ".lora_A" not in n
        )


def test_tensors_that_are_whole_stay_as_they_are(tmp_path):
    weight = nn.Parameter(torch.arange(6.0).reshape(3, 2))
    assert part(weight) is weight
    assert own_parts({"w": weight})["w"] is weight
    assert part_of(weight, weight) is weight
    assert whole_of(weight, weight) is weight
    assert Whole({"w": weight}, {"w": weight})["w"] is weight
    assert summed(2.5, sharded=False) == 2.5
    assert not is_sharded(nn.Linear(2, 2))
    write_tensors(tmp_path / "own", {"w": weight, "n": torch.tensor(3)}, {"w": weight, "n": weight})
    found = load_file(tmp_path / "own")
    assert torch.equal(found["w"], weight)
    assert int(found["n"]) == 3
    assert torch.equal(read_part(tmp_path / "own", "w", weight), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_written_file_is_what_safetensors_would_write(dtype, tmp_path):
    value = torch.tensor([[1, 0, 3], [0, 5, 6]]).to(dtype)
    write_tensors(tmp_path / "own", {"a": value, "b": value[:0]}, {"a": value, "b": value})
    save_file({"a": value, "b": value[:0]}, tmp_path / "theirs")
    own, theirs = load_file(tmp_path / "own"), load_file(tmp_path / "theirs")
    for name in ("a", "b"):
        assert own[name].dtype == theirs[name].dtype == dtype
        assert torch.equal(own[name], theirs[name])


def test_a_model_without_blocks_is_refused():
    with pytest.raises(InputError, match="FSDP2: Linear has no list of blocks"):
        shard(nn.Linear(2, 2))
