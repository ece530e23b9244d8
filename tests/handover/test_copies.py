"""Copies are noted, and told from what somebody else put in their place."""

import pytest
import torch
from safetensors.torch import save_file

from grail.handover.copies import COPIES, copies_of, is_there, note_copy


def test_copies_are_noted_in_their_order(tmp_path):
    run, copy = tmp_path / "run", tmp_path / "copy"
    run.mkdir()
    copy.mkdir()
    save_file({"a": torch.ones(2)}, copy / "model.safetensors")
    assert copies_of(run) == []
    note_copy(run, "merge", copy)
    note_copy(run, "before", copy)
    assert [entry["kind"] for entry in copies_of(run)] == ["merge", "before"]
    assert [entry["folder"] for entry in copies_of(run)] == [str(copy)] * 2
    assert all(map(is_there, copies_of(run)))
    save_file({"a": torch.zeros(2)}, copy / "model.safetensors")
    assert not any(map(is_there, copies_of(run)))


def test_an_edited_list_is_refused(tmp_path):
    (tmp_path / COPIES).write_text('{"copies": []}')
    with pytest.raises(ValueError, match="edited or damaged"):
        copies_of(tmp_path)
