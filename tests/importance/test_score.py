"""What is scored: trials, labels, batches; and how agreement is measured."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from grail.artifacts import STATISTICS, Scores
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.errors import InputError
from grail.importance import score
from grail.importance.kept import Kept
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores
from grail.importance.sums import passes
from grail.model import packing
from grail.model.forward import trainable

WORDS = ordinary_tokens(96, (0, 1, 2))


def scorer(model, seed=0, **given):
    substitution = given.pop("substitution", "inputs_and_targets")
    labels = RandomLabels(WORDS, substitution, seed)
    return Scorer(model, labels, 0, **({"batch_tokens": 10**6} | given))


def of(value, **more):
    return Scores(**{s: {"w": more.get(s, value)} for s in STATISTICS}, samples=2)


def test_same_seed_same_bytes_another_seed_other_scores(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(4)
    first, again, other = (scorer(model, seed).score(rows) for seed in (0, 0, 1))
    assert compare_scores(first, again).worst == 0
    assert compare_scores(other, first).worst > 1e-2


def test_order_of_rows_does_not_change_the_labels_drawn(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(5)
    for kind in ("loop", "batched"):
        a, b = (scorer(model, gradients=kind).score(r) for r in (rows, rows[::-1]))
        assert compare_scores(a, b).worst < 1e-5


def test_statistics_obey_their_inequalities(tiny_model, tiny_rows):
    found = scorer(tiny_model()).score(tiny_rows(5))
    for name, mean in found.mean.items():
        mean_abs, mean_sq = found.mean_abs[name], found.mean_sq[name]
        assert (mean.abs() <= mean_abs * (1 + 1e-5)).all()
        assert (mean_abs.square() <= mean_sq * (1 + 1e-5) + 1e-30).all()
        assert (mean.abs() < 0.99 * mean_abs).any()


def test_one_sample_has_equal_statistics(tiny_model, tiny_rows):
    found = scorer(tiny_model()).score(tiny_rows(1))
    for name, mean in found.mean.items():
        assert torch.equal(mean.abs(), found.mean_abs[name])
        assert torch.equal(mean.square(), found.mean_sq[name])


def test_doubling_the_rows_changes_no_mean(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(3)
    once, twice = scorer(model).score(rows), scorer(model).score(rows + rows)
    assert twice.samples == 6
    assert compare_scores(twice, once).worst < 1e-5


def test_scores_lie_on_the_cpu_in_float32_in_the_parameters_shape(tiny_model, tiny_rows):
    model = tiny_model().bfloat16()
    for kind in ("loop", "batched"):
        found = scorer(model, gradients=kind).score(tiny_rows(2))
        for statistic in STATISTICS:
            for name, value in getattr(found, statistic).items():
                assert value.dtype == torch.float32
                assert value.shape == trainable(model)[name].shape


@pytest.mark.parametrize("kind", ["loop", "batched"])
def test_progress_counts_rows(kind, tiny_model, tiny_rows):
    seen = []
    given = scorer(tiny_model(), gradients=kind, batch_tokens=40, trials=1)
    given.score(tiny_rows(6), lambda done, of, what: seen.append((done, of)))
    assert seen[-1] == (6, 6)
    assert seen == sorted(set(seen))
    assert len(seen) == 6 if kind == "loop" else 1 < len(seen) < 6


def test_budget_of_tokens_counts_the_trials(tiny_model, tiny_rows, monkeypatch):
    sizes, real = [], score.add_by_batch

    def spy(model, batch, *rest):
        sizes.append(batch.ids.numel())
        real(model, batch, *rest)

    monkeypatch.setattr(score, "add_by_batch", spy)
    rows = tiny_rows(8)
    scorer(tiny_model(), trials=3, batch_tokens=100).score(rows)
    assert max(sizes) <= 100
    assert len(sizes) > 1


def test_check_refuses_a_kernel_that_cannot_run_here(tiny_model, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    scorer(tiny_model(), kernel="auto").check()
    with pytest.raises(InputError, match=r"importance\.kernel: triton"):
        scorer(tiny_model(), kernel="triton").check()


OPT = {"hidden_size": 24, "ffn_dim": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT |= {"word_embed_proj_dim": 24}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["opt", "router", "dora", "adapter on opt", "adapter on experts"])
def test_check_refuses_layers_that_a_batch_cannot_be_separated_in(
    kind, packed, tiny_model, tiny_rows, monkeypatch
):
    """However few rows it is given: short ones must not look separable by chance."""
    monkeypatch.setitem(tiny_model.__globals__["FAMILIES"], "opt", OPT)
    family = "opt" if "opt" in kind else "llama" if kind == "dora" else "qwen2_moe"
    model = tiny_model(family, lora=False)
    if kind == "dora" or "adapter" in kind:
        settings = LoraConfig(r=2, target_modules="all-linear", use_dora=kind == "dora")
        model = get_peft_model(model, settings)
    if packed:
        packing.enable(model)
    rows = sorted(tiny_rows(8), key=lambda row: len(row.ids))
    for few in (rows[:1], rows[:2], rows):
        with pytest.raises(InputError, match=r"Set importance\.gradients: loop"):
            scorer(model).check(few)
    scorer(model, gradients="loop").check(rows)
    assert scorer(tiny_model()).check(rows[:2]) is None


class KilledError(Exception):
    pass


def told(found):
    return {
        (statistic, name): value
        for statistic in STATISTICS
        for name, value in getattr(found, statistic).items()
    }


@pytest.mark.parametrize("memory_gib", [None, 5e-5])
@pytest.mark.parametrize("kind", ["loop", "batched"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_after_a_kill_scoring_goes_on_and_ends_equal_to_the_bit(
    kind, memory_gib, dtype, tiny_model, tiny_rows, tmp_path
):
    model, rows = tiny_model().to(dtype), tiny_rows(12)
    given = {"gradients": kind, "batch_tokens": 60, "trials": 2, "memory_gib": memory_gib}
    one = scorer(model, **given)
    passed = len(passes(trainable(model), memory_gib))
    assert passed == 1 or passed > 2
    whole = one.score(rows)
    kept, ended = Kept(tmp_path / "kept", "x", 2), []

    def kill(done, total, note):
        if done > total / 2:
            raise KilledError

    with pytest.raises(KilledError):
        one.score(rows, kill, kept)
    found = one.score(rows, lambda done, *_: ended.append(done), kept)
    assert len(rows) * passed / 3 < ended[0] <= ended[-1] == len(rows) * passed
    assert found.samples == whole.samples
    assert told(found).keys() == told(whole).keys()
    assert all(torch.equal(value, told(whole)[key]) for key, value in told(found).items())


@pytest.mark.parametrize("count", [2, 3])
def test_processes_count_the_same_rows_after_each_round(count, tiny_model, tiny_rows):
    """Parts of a model can only go on from sums that all have kept after the same batch."""
    model, rows = tiny_model(), tiny_rows(11)
    shares = [
        scorer(model, batch_tokens=25, trials=1, process=(index, count))._shares(rows)
        for index in range(count)
    ]
    assert sum(len(group) for share in shares for group, _, _ in share) == len(rows)
    longest = [done for _, _, done in shares[0]]
    assert len(longest) > 1
    assert longest[-1] == len(rows)
    assert all([done for _, _, done in share] == longest[: len(share)] for share in shares)
