"""The naive ways find the same numbers as grail's: else they would be raced for nothing."""

from dataclasses import replace

import pytest
import torch
from races import naive

from grail.config.run import Evaluation
from grail.data.batches import IGNORED, collate
from grail.data.labels import RandomLabels
from grail.data.samples import Sample
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.values import to_results
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores


def test_labels_stand_where_transformers_shifts_them_from(tiny_rows):
    rows = tiny_rows(5)
    ours, theirs = collate(rows, 0), naive.padded(rows, 0)
    assert torch.equal(theirs["input_ids"], ours.ids)
    assert torch.equal(theirs["attention_mask"], ours.attention)
    assert torch.equal(theirs["labels"][:, 1:], ours.targets[:, :-1])
    assert (theirs["labels"][:, 0] == IGNORED).all()


@pytest.mark.parametrize("lora", [True, False])
def test_the_naive_scores_are_those_of_the_batches(tiny_model, tiny_rows, lora):
    model, rows = tiny_model(lora=lora), tiny_rows(5)
    labels = RandomLabels(tuple(range(3, 96)), "inputs_and_targets", 7)
    ours = Scorer(model, labels, 0, trials=2).score(rows)
    theirs = naive.scores(model, rows, labels, 2)
    assert theirs.samples == ours.samples == 5
    assert compare_scores(ours, theirs).worst < 1e-4
    assert compare_scores(ours, naive.scores(model, rows, labels, 1)).worst > 1e-2


def test_one_by_one_measures_what_batches_measure(tiny_model, tiny_rows, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    model = tiny_model(vocabulary=len(tokenizer))
    rows = tiny_rows(4, vocabulary=len(tokenizer))
    sample = Sample("d", "unlearn", "train", 0, "?", "abc")
    rows = [replace(row, sample=replace(sample, row=i)) for i, row in enumerate(rows)]
    settings = Evaluation(max_new_tokens=5)
    ours = Evaluator(model, tokenizer, max_new_tokens=5).run("vanilla", rows)
    theirs = naive.values(model, tokenizer, rows, settings)
    for value in ours:
        other = theirs[value.key]
        assert other.nll == pytest.approx(value.nll, abs=1e-5)
        assert (other.accuracy, other.rouge_l) == (pytest.approx(value.accuracy), value.rouge_l)
    means = {f"{r.domain}.{r.side}.{r.part}.{r.metric}": r.value for r in to_results(ours)}
    for name, mean in naive.table(rows, theirs).items():
        assert mean == pytest.approx(means[name], abs=1e-3)
