"""Samples told apart in one backward pass: packed or padded, LoRA layers whole or in halves."""

import copy

import pytest
import torch
from torch import nn

from grail.artifacts import STATISTICS
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.errors import InputError
from grail.importance.hooks import Layout, sample_hooks
from grail.importance.rules import Call
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores
from grail.importance.sums import Sums
from grail.model.forward import trainable
from grail.model.packing import enable

WORDS = ordinary_tokens(96, (0, 1, 2))
KINDS = [
    (family, lora, tied)
    for family in ("llama", "qwen2", "gemma", "gemma2", "gpt_neox", "gpt2")
    for lora, tied in ((True, None), (False, False), (False, True))
]


def scores(model, rows, gradients="batched", substitution="inputs_and_targets", **given):
    labels = RandomLabels(WORDS, substitution, 0)
    how = {"batch_tokens": 10**6, "gradients": gradients} | given
    return Scorer(model, labels, 0, **how).score(rows)


def packed(model):
    model = copy.deepcopy(model)
    assert enable(model.get_base_model() if hasattr(model, "peft_config") else model)
    return model


@pytest.mark.parametrize(("family", "lora", "tied"), KINDS)
def test_packed_rows_score_as_the_plain_loop_over_padded_ones(
    family, lora, tied, tiny_model, tiny_rows
):
    """GPT-2's embeddings of positions too: packed, every token looks up its own."""
    model, rows = tiny_model(family, lora=lora, tied=tied), tiny_rows(5)
    loop = scores(model, rows, "loop", trials=3)
    found = compare_scores(scores(packed(model), rows, trials=3), loop)
    assert found.worst < 1e-5, found
    assert all(value.any() for value in loop.mean_abs.values()), "a vacuous comparison"


@pytest.mark.parametrize("labels", ["true", "expected"])
@pytest.mark.parametrize(("lora", "tied"), [(True, None), (False, True)])
def test_labels_that_need_one_trial(labels, lora, tied, tiny_model, tiny_rows):
    model, rows = tiny_model(lora=lora, tied=tied), tiny_rows(4)
    given = {"labels": labels, "substitution": "targets"}
    found = compare_scores(
        scores(packed(model), rows, **given), scores(model, rows, "loop", **given)
    )
    assert found.worst < 1e-5, found


@pytest.mark.parametrize("lora", [True, False])
def test_who_shares_a_packed_batch_does_not_matter(lora, tiny_model, tiny_rows):
    model, rows = packed(tiny_model("qwen2", lora=lora)), tiny_rows(6)
    whole = scores(model, rows, trials=2)
    for tokens in (1, 40):  # one sample a batch; a few
        found = compare_scores(scores(model, rows, trials=2, batch_tokens=tokens), whole)
        assert found.worst < 1e-5, found


def test_the_prompt_is_read_once_for_all_trials(tiny_model, tiny_rows):
    model, rows, seen = packed(tiny_model(lora=False)), tiny_rows(3), []
    model.model.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    scores(model, rows, trials=4)
    assert seen == [sum(row.start + 4 * (len(row.answer) - 1) for row in rows)]


def test_a_whole_lora_layer_is_its_two_halves(tiny_model, tiny_rows):
    """With and without dropout in the adapter, which keeps PEFT's own layer: same scores."""
    model, rows = tiny_model(), tiny_rows(4)
    whole = scores(model, rows)
    for module in model.modules():
        if hasattr(module, "lora_A"):
            module.lora_A["default"].register_forward_hook(lambda *_: None)  # no longer plain
    found = compare_scores(scores(model, rows), whole)
    assert found.worst < 1e-5, found
    assert set(whole.mean_abs) == set(trainable(model))
    assert all(getattr(whole, statistic) for statistic in STATISTICS)


def test_a_layout_finds_the_samples_or_says_so():
    head = torch.zeros(5, 4)
    padded, packing = Layout([2, 3], rows=[1, 1]), Layout([2, 3], tokens=[6, 4])

    def call(layout, given, in_head=False):
        return layout.call(nn.Identity(), given, given, in_head)

    assert call(padded, torch.zeros(2, 7, 4)).rows == [1, 1]
    assert call(padded, head, True).rows == call(packing, head, True).rows == [2, 3]
    found = call(packing, torch.zeros(1, 10, 4))
    assert isinstance(found, Call)
    assert (found.inputs.shape, found.gradient.shape, found.rows) == ((10, 4), (10, 4), [6, 4])
    assert call(packing, torch.zeros(1, 10, dtype=torch.long)[..., None]).rows == [6, 4]
    one = Layout([1], tokens=[4])
    assert call(one, torch.zeros(1, 4), True).rows == [1]  # the head's token, as wide as the row
    for layout, given in (
        (padded, torch.zeros(1, 7, 4)),
        (packing, head),  # all tokens in one axis, by chance as many as there are answer tokens
        (padded, torch.zeros(2, 4)),  # or as many as there are rows
    ):
        with pytest.raises(InputError, match=r"cannot separate the samples in Identity"):
            call(layout, given)


class Scaled(nn.Linear):
    """A subclass that computes more than its parent: the kernel would be wrong."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(("make", "taken"), [(nn.Linear, True), (Scaled, False)])
def test_a_kernel_gets_the_weights_of_plain_linear_layers_only(make, taken):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.layer = nn.Embedding(7, 3), make(3, 4)

        def get_input_embeddings(self):
            return self.embedding

        def get_output_embeddings(self):
            return nn.Identity()

    model, shapes = Model(), []
    sums = Sums.zeros(trainable(model))

    def kernel(x, d, lengths, *totals):
        shapes.append((tuple(totals[1].shape), lengths))

    with sample_hooks(model, Layout([2], rows=[2]), sums, kernel):
        model.layer(model.embedding(torch.tensor([[1, 2], [3, 4]]))).sum().backward()
    assert shapes == ([((4, 3), [4])] if taken else [])
    assert bool(sums.total["layer.weight"].any()) != taken
    assert sums.total["layer.bias"].tolist() == ([4.0] * 4 if taken else [8.0] * 4)
    assert sums.total["embedding.weight"].any()
