"""The Trainer's ascent and descent, and that it freezes what it is told to."""

import pytest
import torch
from races import trainer, training
from races.naive import padded
from races.subjects import Subject, field_of

from grail.model.forward import trainable


@pytest.fixture(scope="module")
def field():
    return field_of(Subject("tiny", "float32", "cpu"), None, 4)


def test_a_row_counts_as_much_as_any_other(field):
    batch = padded(field.rows, field.pad)
    with torch.no_grad():
        logits = field.model(input_ids=batch["input_ids"]).logits
    found = trainer.row_means(logits, batch["labels"])
    for b, row in enumerate(field.rows):
        log_p = logits[b, row.start - 1 : len(row.ids) - 1].log_softmax(-1)
        own = [-log_p[t, token] for t, token in enumerate(row.answer)]
        assert float(found[b]) == pytest.approx(float(sum(own)) / len(own), abs=1e-5)


def test_frozen_entries_stay_and_others_move(field, tmp_path):
    start, mask = field.start(), training.random_mask(field, 0.5)
    settings = training.settings_of(2)
    handles = trainer.freeze(field.model, mask.frozen)
    steps = training.task_of(field, settings).plan(0)
    trainer.train(field.model, steps, settings, field.pad, tmp_path)
    for handle in handles:
        handle.remove()
    for name, parameter in trainable(field.model).items():
        bits = mask.frozen[name]
        assert torch.equal(parameter[bits], start[name][bits])
        assert not torch.equal(parameter, start[name])
    field.put(start)
