"""The two parts of a model: together they are the whole, and each is measured alone."""

import parts
import pytest
import torch
from opened import opened

from grail.artifacts import read_mask
from grail.model.save import load_weights
from grail.model.weights import copy_weights, put_weights


@pytest.fixture(scope="module")
def lines(finished_run):
    return {one["method"]: one for one in parts.parts(finished_run, ["grail", "random"])}


def values(one):
    return one["summary"]["unlearned"]["train"]


def test_the_shares_of_two_parts_make_the_whole(lines, finished_run):
    frozen = read_mask(finished_run / "mask.safetensors").counts()
    share = 100 * frozen["frozen"] / frozen["entries"]
    for name in ("grail", "random"):
        own = [values(lines[f"{name}: {part}"])["entries"] for part in ("frozen", "free")]
        assert own == pytest.approx([share, 100 - share])


def test_every_line_measures_every_column(lines):
    assert len(lines) == 6
    for one in lines.values():
        assert set(parts.COLUMNS.values()) <= values(one).keys() | {"general NLL"}


def test_the_whole_is_the_vanilla_model_and_nothing_is_its_base(lines, finished_run):
    context = opened(finished_run)
    load_weights(context.model, finished_run / "vanilla")
    assert any(w.any() for n, w in copy_weights(context.model).items() if "lora_B" in n)
    assert values(lines["all"])["retain train"] == pytest.approx(accuracy(context, "retain"))
    put_weights(context.model, context.before())
    assert not any(w.any() for n, w in copy_weights(context.model).items() if "lora_B" in n)
    assert values(lines["none"])["retain train"] == pytest.approx(accuracy(context, "retain"))


@torch.no_grad()
def accuracy(context, side):
    """Percent of right answer tokens, row by row without padding: mean of rows, then of domains."""
    domains = {}
    for row in context.rows:
        if (row.side, row.part) == (side, "train"):
            guesses = context.model(input_ids=torch.tensor([row.ids])).logits[0].argmax(-1)
            right = guesses[row.start - 1 : -1] == torch.tensor(row.ids[row.start :])
            domains.setdefault(row.domain, []).append(right.float().mean().item())
    means = [sum(values) / len(values) for values in domains.values()]
    return 100 * sum(means) / len(means)
