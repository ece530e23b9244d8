"""What true answers cost and how sure a model is: recomputed row by row, with and without facts."""

import statistics

import pytest
import spread
import torch
from opened import opened

from grail.data.batches import collate
from grail.model.answers import answers_of
from grail.model.save import load_weights
from grail.unlearning.guesses import Written, after_examples


@pytest.fixture(scope="module")
def lines(finished_run):
    found = spread.measured(finished_run, finished_run)
    return {one["method"]: one["summary"]["unlearned"]["train"] for one in found}


def test_the_numbers_are_those_of_single_rows(lines, finished_run):
    context = opened(finished_run)
    load_weights(context.model, finished_run / "unlearned")
    context.model.eval()
    nll, entropy = {}, {}
    for row in context.rows:
        if (row.side, row.part) == ("unlearn", "train"):
            with torch.no_grad():
                batch = collate([row], context.tokenizer.pad_token_id, context.device)
                log_p = answers_of(context.model, batch).logits.double().log_softmax(-1)
            true = log_p[range(len(log_p)), list(row.answer)]
            nll.setdefault(row.domain, []).append(-true.mean().item())
            each = -(log_p.exp() * log_p).sum(-1)
            entropy.setdefault(row.domain, []).append(each.mean().item())
    found = lines[finished_run.name]
    for name, values in (("NLL", nll), ("entropy NLL", entropy)):
        expected = statistics.fmean(map(statistics.fmean, values.values()))
        assert found[name] == pytest.approx(expected, rel=1e-4)


def test_the_oracle_is_the_model_of_its_folder(lines, finished_run):
    assert lines["oracle"] == lines[finished_run.name]
    assert lines["vanilla"]["NLL"] != pytest.approx(lines["oracle"]["NLL"], rel=1e-3)


def test_the_model_from_before_has_no_adapter(lines, finished_run):
    context = opened(finished_run)  # a fresh adapter changes nothing
    lost = [row for row in context.rows if (row.side, row.part) == ("unlearn", "train")]
    fresh = spread.spread(context, lost, before=False)
    assert lines["before, bare question"] == pytest.approx(fresh, rel=1e-5)


def test_the_model_from_before_reads_what_the_teacher_read(lines, finished_run, monkeypatch):
    """Examples of the run, where it wrote some; others for the rest."""
    context = opened(finished_run)
    lost = [row for row in context.rows if (row.side, row.part) == ("unlearn", "train")]
    own = next(row for row in context.rows if (row.side, row.part) == ("retain", "train")).ids
    unlearning = context.config.unlearning.model_copy(update={"examples": 1})
    context.config = context.config.model_copy(update={"unlearning": unlearning})
    monkeypatch.setattr(spread, "opened", lambda run: context)
    written = {row.key: own for row in lost}
    monkeypatch.setattr(spread, "read_rewrites", lambda _: Written([], written))
    found = {one["method"]: one for one in spread.measured(finished_run, finished_run)}
    read = [after_examples(row, written) for row in lost]
    expected = spread.spread(context, read, before=True)
    assert found["before, after examples"]["summary"]["unlearned"]["train"] == expected
    assert "before, after examples" not in lines  # this run has none
