"""Scores, masks and stamps on disk: read back exactly, readable by all, refused if broken."""

import hashlib
import json
import math
import struct

import artifacts
import forks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

from grail.artifacts import (
    STAMP,
    STATISTICS,
    Mask,
    Scores,
    _write,
    block_of,
    changed_entries,
    frozen_digest,
    inputs_of,
    pack_bits,
    read_mask,
    read_scores,
    seal_of,
    unpack_bits,
    write_mask,
    write_scores,
)
from grail.errors import InputError
from grail.files import write_json

SHAPES = {"b.weight": (3, 5), "a.weight": (2, 2, 2), "a.bias": (1,), "c": (17,), "scalar": ()}
ABOUT = {
    "localizer": "grail",
    "k": {"k_op_ur": 0.1, "k_op_rr": 0.2},
    "layer": "block",
    "freeze": "static",
    "counts": {"entries": 42, "frozen": 7},
    "word": 'Über \u2028 \x7f "quoted"\n',
}


def some_scores(seed=0):
    generator = torch.Generator().manual_seed(seed)
    stats = [
        {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for _ in range(3)
    ]
    return Scores(*stats, samples=12)


def some_bits(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) < 0.5 for name, shape in SHAPES.items()}


def some_mask(by_side=False):
    if not by_side:
        return Mask(some_bits(0), about=ABOUT)
    return Mask(some_bits(0), some_bits(1), some_bits(2), {**ABOUT, "freeze": "by_side"})


def assert_same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert a[name].shape == b[name].shape
        assert torch.equal(a[name], b[name]), name


def metadata(path):
    with safe_open(str(path), "np") as file:
        return file.metadata()


# -- scores ------------------------------------------------------------------------------------


def test_scores_round_trip(tmp_path):
    scores = some_scores()
    scores.mean["c"][:3] = torch.tensor([-0.0, 1e-45, -3e38])
    write_scores(tmp_path / "s" / "a.unlearn.safetensors", scores, "digest")
    back = read_scores(tmp_path / "s" / "a.unlearn.safetensors")
    for statistic in STATISTICS:
        assert_same(getattr(back, statistic), getattr(scores, statistic))
    assert torch.signbit(back.mean["c"][0])
    assert back.samples == 12
    assert inputs_of(tmp_path / "s" / "a.unlearn.safetensors") == "digest"


def test_scores_are_plain_safetensors(tmp_path):
    write_scores(tmp_path / "s.safetensors", some_scores(), "digest")
    plain = load_file(tmp_path / "s.safetensors")
    assert set(plain) == {f"{name}.{stat}" for name in SHAPES for stat in STATISTICS}
    for stat in STATISTICS:
        for name in SHAPES:
            assert np.array_equal(plain[f"{name}.{stat}"], getattr(some_scores(), stat)[name])
    about = metadata(tmp_path / "s.safetensors")
    assert about == {"inputs": "digest", "samples": "12", "sha256": about["sha256"]}


def test_scores_may_be_views_of_other_precision(tmp_path):
    wide = torch.arange(12.0, dtype=torch.bfloat16).reshape(3, 4)
    part = {"p": wide.T[1:3]}
    write_scores(tmp_path / "s.safetensors", Scores(part, part, part, samples=1), "x")
    back = read_scores(tmp_path / "s.safetensors").mean["p"]
    assert back.dtype == torch.float32
    assert torch.equal(back, wide.T[1:3].float())


# -- masks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_side", [False, True])
def test_mask_round_trip(tmp_path, by_side):
    mask, path = some_mask(by_side), tmp_path / "mask.safetensors"
    write_mask(path, mask, "digest")
    back = read_mask(path)
    assert_same(back.frozen, mask.frozen)
    assert back.by_side is by_side
    for side in ("unlearn", "retain"):
        assert_same(back.for_side(side), mask.for_side(side))
    assert back.about == mask.about
    assert back.counts() == mask.counts()
    assert inputs_of(path) == "digest"
    files = {"mask.safetensors", "mask.unlearn.safetensors", "mask.retain.safetensors"}
    assert {p.name for p in tmp_path.iterdir()} == (files if by_side else {"mask.safetensors"})


def test_mask_without_parameters(tmp_path):
    write_mask(tmp_path / "m.safetensors", Mask({}), "x")
    assert read_mask(tmp_path / "m.safetensors") == Mask({})


def test_mask_is_plain_safetensors_of_packed_bits(tmp_path):
    mask = some_mask()
    write_mask(tmp_path / "mask.safetensors", mask, "digest")
    plain, texts = load_file(tmp_path / "mask.safetensors"), metadata(tmp_path / "mask.safetensors")
    assert set(plain) == set(SHAPES)
    for name, bits in mask.frozen.items():
        want = np.packbits(bits.numpy().ravel(order="C"), bitorder="little")
        assert plain[name].dtype == np.uint8
        assert np.array_equal(plain[name], want)
    assert json.loads(texts["shape"]) == {name: list(shape) for name, shape in SHAPES.items()}
    assert {key: json.loads(texts[key]) for key in ABOUT} == ABOUT
    assert texts["inputs"] == "digest"


def test_counts_by_hand():
    mask = Mask({"a": torch.tensor([[True, False], [True, True]]), "b": torch.tensor([False])})
    assert mask.counts() == {"entries": 5, "frozen": 3}


def test_without_sides_frozen_holds_for_both():
    mask = some_mask()
    assert mask.for_side("unlearn") is mask.for_side("retain") is mask.frozen
    with pytest.raises(KeyError):
        mask.for_side("general")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=3), st.integers(0, 10**6))
def test_pack_is_packbits_little_and_unpack_its_inverse(shape, seed):
    bits = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack_bits(bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == math.ceil(bits.numel() / 8)
    assert np.array_equal(packed, np.packbits(bits.numpy().ravel(), bitorder="little"))
    assert torch.equal(unpack_bits(packed, shape), bits)


def test_pack_reads_views_in_c_order():
    bits = torch.arange(20).reshape(4, 5).remainder(3).eq(0)
    assert torch.equal(pack_bits(bits.T), pack_bits(bits.T.contiguous()))
    assert not torch.equal(pack_bits(bits.T), pack_bits(bits))
    assert pack_bits(torch.tensor([True, False, False])).tolist() == [1]  # first entry, lowest bit


@pytest.mark.parametrize(
    "packed", [torch.zeros(1, dtype=torch.uint8), torch.zeros(3).byte(), torch.zeros(2)]
)
def test_unpack_refuses_other_than_all_bits(packed):
    with pytest.raises(ValueError, match="cannot be the bits"):
        unpack_bits(packed, [3, 5])


# -- bytes -------------------------------------------------------------------------------------


def test_equal_content_gives_equal_bytes_in_every_process(tmp_path):
    """Python's hashes of text differ between processes, and with them the order of sets."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    artifacts.main(tmp_path / "here")
    log = tmp_path / "log"
    assert forks.run(artifacts.main, tmp_path / "there", log=log) == 0, log.read_text()
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / s).iterdir()} for s in ("here", "there")
    )
    assert len(one) == 4
    assert one == two


def test_equal_content_gives_equal_bytes_whatever_the_order(tmp_path):
    mask = some_mask()
    turned = Mask(dict(reversed(mask.frozen.items())), about=dict(reversed(ABOUT.items())))
    for name, value in (("1", mask), ("2", turned), ("3", mask)):
        write_mask(tmp_path / name, value, "digest")
    files = [(tmp_path / name).read_bytes() for name in "123"]
    assert files[0] == files[1] == files[2]


def test_the_metadata_is_in_order(tmp_path):
    for repeat in range(6):  # safetensors draws a new order for every file
        write_mask(tmp_path / f"{repeat}", some_mask(), "digest")
        data = (tmp_path / f"{repeat}").read_bytes()
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        keys = list(header["__metadata__"])
        assert keys == sorted(keys)
        assert set(keys) == {*ABOUT, "inputs", "shape", "sha256"}


# -- broken files ------------------------------------------------------------------------------


def damage(path, how):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut in the header":
        path.write_bytes(data[:40])
    elif how == "cut in the data":
        path.write_bytes(data[:-1])
    elif how == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(len(data)))
    elif how == "a folder":
        path.unlink()
        path.mkdir()


HOWS = ["missing", "empty", "cut in the header", "cut in the data", "noise", "a folder"]


@pytest.mark.parametrize("how", HOWS)
def test_broken_files_are_refused_and_count_as_absent(tmp_path, how):
    s, m = tmp_path / "s.safetensors", tmp_path / "m.safetensors"
    write_scores(s, some_scores(), "digest")
    write_mask(m, some_mask(), "digest")
    for path, read in ((s, read_scores), (m, read_mask)):
        damage(path, how)
        with pytest.raises(InputError) as error:
            read(path)
        assert str(path) in str(error.value)
        assert ("does not exist" if how == "missing" else "is damaged") in str(error.value)
        assert inputs_of(path) is None


def test_the_digest_is_that_of_all_other_bytes(tmp_path):
    path = tmp_path / "m"
    write_mask(path, some_mask(), "digest")
    seal = metadata(path)["sha256"]
    assert seal_of(path) == seal
    bare = path.read_bytes().replace(seal.encode(), b"0" * 64)
    assert seal == hashlib.sha256(bare).hexdigest()


@pytest.mark.parametrize("where", [0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("bits", [1, 255])
def test_edited_files_are_refused_and_count_as_absent(tmp_path, where, bits):
    write_scores(tmp_path / "s", some_scores(), "digest")
    write_mask(tmp_path / "m", some_mask(by_side=True), "digest")
    names = ("s", "m", "m.unlearn", "m.retain")
    for name, read in zip(names, (read_scores, read_mask, read_mask, read_mask), strict=True):
        path = tmp_path / name
        sound = path.read_bytes()
        data = bytearray(sound)
        data[round(where * (len(data) - 1))] ^= bits
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"{path}( is not as grail wrote it| is damaged).*D"):
            read(path if name == "s" else tmp_path / "m")
        assert inputs_of(path) is None
        path.write_bytes(sound)
        read(path if name == "s" else tmp_path / "m")


@pytest.mark.parametrize(
    ("old", "new"), [(b"digest", b"others"), (b'"k":"1"', b'"k":"7"'), (b"[3]", b"[1]")]
)
def test_edited_metadata_is_refused(tmp_path, old, new):
    path = tmp_path / "m"
    write_mask(path, Mask({"p": torch.ones(3, dtype=torch.bool)}, about={"k": 1}), "digest")
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(InputError, match="is not as grail wrote it"):
        read_mask(path)


def test_files_of_an_older_grail_are_refused(tmp_path):
    packed = pack_bits(torch.ones(3, dtype=torch.bool))
    save_file({"p": packed}, tmp_path / "m", {"shape": '{"p": [3]}', "inputs": "digest"})
    with pytest.raises(InputError, match="an older grail wrote it"):
        read_mask(tmp_path / "m")


@pytest.mark.parametrize("side", ["unlearn", "retain"])
def test_a_mask_by_side_needs_both_sides(tmp_path, side):
    path = tmp_path / "mask.safetensors"
    write_mask(path, some_mask(by_side=True), "digest")
    path.with_name(f"mask.{side}.safetensors").unlink()
    with pytest.raises(InputError, match=rf"mask\.{side}\.safetensors does not exist"):
        read_mask(path)


def test_one_kind_is_not_read_as_the_other(tmp_path):
    write_scores(tmp_path / "s", some_scores(), "digest")
    write_mask(tmp_path / "m", some_mask(), "digest")
    with pytest.raises(InputError, match="not a mask"):
        read_mask(tmp_path / "s")
    with pytest.raises(InputError, match="not a score"):
        read_scores(tmp_path / "m")


P = torch.zeros(3)
FULL = {f"p.{stat}": P for stat in STATISTICS}


@pytest.mark.parametrize(
    ("tensors", "texts"),
    [
        (FULL, {"inputs": "x"}),  # how many samples?
        (FULL, {"samples": "many"}),
        (FULL, {"samples": "-1"}),
        ({**FULL, "q.mean": P}, {"samples": "1"}),  # q has one statistic of three
        ({"p.mean_abs": P, "p.mean": P}, {"samples": "1"}),
        ({**FULL, "weight": P}, {"samples": "1"}),
    ],
)
def test_other_tensors_are_not_scores(tmp_path, tensors, texts):
    _write(tmp_path / "s", {n: t.clone() for n, t in tensors.items()}, texts)
    with pytest.raises(InputError, match="not a score"):
        read_scores(tmp_path / "s")


BYTE = torch.ones(1, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("tensors", "texts"),
    [
        ({"p": BYTE}, {}),
        ({"p": BYTE}, {"shape": "{"}),
        ({"p": BYTE}, {"shape": "[1]"}),
        ({"p": BYTE}, {"shape": '{"q": [3]}'}),
        ({"p": BYTE}, {"shape": '{"p": [3], "q": [3]}'}),
        ({"p": BYTE, "q": BYTE}, {"shape": '{"p": [3]}'}),
        ({"p": BYTE}, {"shape": '{"p": [9]}'}),  # NumPy alone would fill up with zeros
        ({"p": BYTE}, {"shape": '{"p": "3"}'}),
        ({"p": BYTE.float()}, {"shape": '{"p": [3]}'}),
        ({"p": BYTE}, {"shape": '{"p": [3]}', "k": "not JSON"}),
    ],
)
def test_other_tensors_are_not_a_mask(tmp_path, tensors, texts):
    _write(tmp_path / "m", {n: t.clone() for n, t in tensors.items()}, texts)
    with pytest.raises(InputError, match="not a mask"):
        read_mask(tmp_path / "m")


# -- inputs ------------------------------------------------------------------------------------


def test_inputs_of_a_stamped_folder(tmp_path):
    assert inputs_of(tmp_path) is None
    write_json(tmp_path / STAMP, {"inputs": "digest", "more": 1})
    assert inputs_of(tmp_path) == "digest"
    (tmp_path / STAMP).write_text((tmp_path / STAMP).read_text().replace("1", "2"))
    assert inputs_of(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", "3", "\xff"])
def test_a_damaged_stamp_counts_as_absent(tmp_path, text):
    (tmp_path / STAMP).write_bytes(text.encode("latin-1"))
    assert inputs_of(tmp_path) is None


def test_inputs_of_files_without_them(tmp_path):
    save_file({"p": P}, tmp_path / "plain")
    save_file({"p": P}, tmp_path / "other", {"samples": "3"})
    (tmp_path / "text").write_text("hello")
    names = ("plain", "other", "text", "absent", "absent/deeper", "text/deeper")
    assert [inputs_of(tmp_path / name) for name in names] == [None] * len(names)


# -- freezing ----------------------------------------------------------------------------------

INTEGER = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}
FLOATS = list(INTEGER)


def flipped(values, index, bit):
    """Flip one bit of one entry."""
    other = values.clone()
    bits = other.view(INTEGER[values.dtype])
    size = 8 * values.element_size()
    bits.flatten()[index] ^= 1 << bit if bit < size - 1 else -(1 << bit)
    return other


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_single_bit_counts_as_a_change(dtype):
    before = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert not changed_entries(before, before.clone()).any()
    for bit in range(8 * before.element_size()):
        for index in (0, 5, 11):
            changed = changed_entries(before, flipped(before, index, bit))
            assert changed.nonzero().flatten().tolist() == [index]


@pytest.mark.parametrize("dtype", FLOATS)
def test_signs_of_zero_and_kinds_of_nan_are_told_apart(dtype):
    kind = INTEGER[dtype]
    nan = torch.tensor([math.nan], dtype=dtype).view(kind)
    before = torch.cat([torch.zeros(2, dtype=dtype), nan.view(dtype), nan.view(dtype)])
    after = torch.cat(
        [
            torch.tensor([-0.0, 0.0], dtype=dtype),
            nan.view(dtype),  # equal bits, though NaN != NaN
            (nan ^ 1).view(dtype),
        ]
    )
    assert after.isnan().tolist() == before.isnan().tolist() == [False, False, True, True]
    assert changed_entries(before, after).tolist() == [True, False, False, True]


def test_changed_entries_reads_views_in_c_order():
    before = torch.arange(6.0).reshape(2, 3)
    after = before.clone()
    after[0, 1] += 1
    assert changed_entries(before.T, after.T).tolist() == (before.T != after.T).flatten().tolist()
    leaf = before.clone().requires_grad_()
    assert changed_entries(leaf, after).sum() == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_digest_changes_with_frozen_entries_and_no_other(dtype):
    mask = some_mask()
    weights = {name: value.to(dtype) for name, value in some_scores().mean.items()}
    first = frozen_digest(weights, mask)
    assert frozen_digest({n: w.clone() for n, w in reversed(weights.items())}, mask) == first
    seen = {True: 0, False: 0}
    for name, bits in mask.frozen.items():
        for index, frozen in enumerate(bits.flatten().tolist()):
            other = {**weights, name: flipped(weights[name], index, 0)}
            assert (frozen_digest(other, mask) != first) is frozen, (name, index)
            seen[frozen] += 1
    assert min(seen.values()) > 5


def test_the_digest_tells_signs_of_zero_and_kinds_of_nan_apart():
    mask = Mask({"p": torch.tensor([True])})
    nan = torch.tensor([math.nan]).view(torch.int32)
    values = [
        torch.tensor([0.0]),
        torch.tensor([-0.0]),
        nan.view(torch.float32),
        (nan ^ 1).view(torch.float32),
    ]
    assert len({frozen_digest({"p": value}, mask) for value in values}) == 4


def test_the_digest_depends_on_where_the_entries_are():
    value = torch.tensor([1.0, 1.0])
    masks = [
        Mask({name: torch.tensor([True, False]), other: torch.tensor([False, False])})
        for name, other in (("a", "b"), ("b", "a"))
    ]
    digests = {frozen_digest({"a": value, "b": value, "more": value}, mask) for mask in masks}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "layers.0"),
        ("base_model.model.model.layers.10.mlp.up_proj.lora_A.default.weight", "layers.10"),
        ("transformer.h.3.attn.c_attn.bias", "h.3"),
        ("gpt_neox.layers.7.mlp.weight", "layers.7"),
        ("transformer.blocks.2.ffn.weight", "blocks.2"),  # MPT, DBRX, OLMo
        ("encoder.block.1.layer.0.SelfAttention.q.weight", "encoder.block.1"),  # T5: the outer one
        ("encoder.layer.4.output.weight", "encoder.layer.4"),
        ("vision.layers.3.w", "vision.layers.3"),
        ("language_model.layers.3.w", "language_model.layers.3"),
        ("model.vision_tower.encoder.layers.3.w", "vision_tower.encoder.layers.3"),
        ("model.my_layers.3.weight", None),  # another word
        ("model.layers.weight", None),
        ("model.layers.3", None),  # the block itself is no parameter in it
        ("lm_head.weight", None),
        ("model.norm.weight", None),
    ],
)
def test_the_block_of_a_parameter(name, block):
    assert block_of(name) == block
