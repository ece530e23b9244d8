"""A run from its files, and the same stages on a model in memory."""

import copy
import doctest
import json
from pathlib import Path

import pytest
import torch

import grail
from grail import api
from grail.api import run
from grail.config.run import parse_config
from grail.errors import InputError
from grail.localization.memflex import cosine
from grail.model.forward import trainable
from grail.model.weights import copy_weights


def rows(path: Path, word: str) -> str:
    lines = [{"prompt": f"{word} {i}?", "completion": f"{word * 2} {i * 7}."} for i in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def settings(tmp_path, tiny_model_folder):
    return {
        "model": {"name": str(tiny_model_folder)},
        "domains": {
            "d": {
                "unlearn": {"train": rows(tmp_path / "u.jsonl", "lose")},
                "retain": {"train": rows(tmp_path / "r.jsonl", "keep")},
            }
        },
        "data": {"template": "plain"},
        "general": {"train": None},
        "teach": {"epochs": 1},
        "unlearning": {"objective": "ascent_descent", "epochs": 1},
        "evaluation": {"generate": False},
        "output": str(tmp_path / "run"),
    }


def test_mapping_config_and_run_directory_are_the_same_run(settings, tmp_path):
    first = run(settings)
    assert {row.metric for row in first.rows} == {"US", "RS", "NLL", "PPL", "ES", "Prob"}
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert run(parse_config(settings)) == first
    assert run(tmp_path / "run") == first
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_edited_settings_of_a_run_directory_are_refused(finished, tmp_path):
    finished()
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: O"))
    with pytest.raises(InputError, match=r"config\.yaml is not as grail wrote it"):
        run(tmp_path / "run")


def test_problems_are_told_at_once(settings):
    settings["localization"] = {"method": "grial"}
    settings["unlearning"] = {"objective": "ascend"}
    with pytest.raises(InputError, match=r"'grial'(.|\n)*'ascend'"):
        run(settings)
    with pytest.raises(InputError, match="domains is missing"):
        run({"output": "x"})


# -- a model in memory --------------------------------------------------------------------------


@pytest.fixture
def memory(tiny_model, tiny_tokenizer):
    """A model, its tokenizer, and rows of both sides."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(lora=False, tied=False, vocabulary=len(tokenizer))

    def rows(side, word):
        pairs = [{"prompt": f"{word} {i}?", "completion": f"{word * 2} {i * 7}."} for i in range(4)]
        return grail.samples(pairs, side=side)

    return model, tokenizer, rows("unlearn", "lose") + rows("retain", "keep")


def test_the_examples_of_the_docstrings(memory, monkeypatch):
    model, tokenizer, rows = memory
    names = {"model": model, "tokenizer": tokenizer, "rows": rows}
    names |= {"scores": grail.score(model, tokenizer, rows, trials=1)}
    found = doctest.testmod(api, extraglobs=names)
    assert found.attempted > 5
    assert not found.failed


def test_frozen_entries_stay_and_the_others_move(memory):
    model, tokenizer, rows = memory
    before, training = copy_weights(model), model.training
    mask = grail.localize(grail.score(model, tokenizer, rows, trials=1), k_op_ur=0.3)
    unlearned = grail.unlearn(
        model, tokenizer, rows, mask=mask, epochs=2, until=None, max_token_nll=None
    )
    after = copy_weights(model)
    assert mask.counts()["frozen"] > 0
    for name, bits in mask.frozen.items():
        assert torch.equal(after[name][bits], before[name][bits]), name
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert unlearned.proof["changed"] == 0
    assert [line["step"] for line in unlearned.steps] == [1, 2]
    assert model.training == training


def test_the_stages_in_memory_are_those_of_a_run(settings, tmp_path):
    """The same scores, mask, weights and figures as from the files of a run."""
    from grail.artifacts import read_mask, read_scores
    from grail.config.run import Model
    from grail.model.load import load_model, load_tokenizer
    from grail.model.save import load_weights

    settings |= {"teach": None, "model": settings["model"] | {"lora": None}}
    expected, folder = run(settings), tmp_path / "run"
    section = Model(**settings["model"])
    model, tokenizer = load_model(section, None, 0), load_tokenizer(section)
    rows = [
        row
        for side, sources in settings["domains"]["d"].items()
        for row in grail.samples(sources["train"], side, domain="d")
    ]
    scores = grail.score(model, tokenizer, rows, template="plain")
    for side in ("unlearn", "retain"):
        on_disk = read_scores(folder / "scores" / f"d.{side}.safetensors")
        for name, value in on_disk.mean_abs.items():
            assert torch.equal(scores["d", side].mean_abs[name], value), name
    mask = grail.localize(scores)
    for name, bits in read_mask(folder / "mask.safetensors").frozen.items():
        assert torch.equal(mask.frozen[name], bits), name
    grail.unlearn(model, tokenizer, rows, mask=mask, template="plain", epochs=1)
    unlearned = copy_weights(model)
    load_weights(model, folder / "unlearned")
    assert all(torch.equal(value, unlearned[n]) for n, value in copy_weights(model).items())
    found = grail.evaluate(model, tokenizer, rows, "unlearned", template="plain", generate=False)
    assert list(found.rows) == [row for row in expected.rows if row.model == "unlearned"]


def test_an_adapter_in_memory_is_reset_but_for_what_the_mask_freezes(memory, tiny_model):
    _, tokenizer, rows = memory
    model = tiny_model(vocabulary=len(tokenizer))
    with torch.no_grad():
        for p in (p for p in model.parameters() if p.requires_grad):
            p.add_(0.1)
    before = copy_weights(model)
    mask = grail.localize(grail.score(model, tokenizer, rows, trials=1), k_op_ur=0.5)
    healing = {"objective": "distill", "reset": {"share": 1.0, "keep": "frozen"}, "epochs": 1}
    with pytest.raises(InputError, match="damage reads the scores of a run"):
        grail.unlearn(model, tokenizer, rows, mask=mask, objective="distill", reset={})
    assert all(torch.equal(value, before[n]) for n, value in copy_weights(model).items())
    grail.unlearn(model, tokenizer, rows, mask=mask, learning_rate=1e-9, **healing)
    after = copy_weights(model)
    assert mask.counts()["frozen"] > 0
    for name, bits in mask.frozen.items():
        assert torch.equal(after[name][bits], before[name][bits]), name
        if ".lora_B." in name:  # a step of 1e-9 away from a fresh B of zeros
            assert float(after[name][~bits].abs().max()) < 1e-6


def test_all_weights_in_memory_have_no_model_from_before(memory):
    model, tokenizer, rows = memory
    with pytest.raises(InputError, match="Use suppressed or refusal"):
        grail.unlearn(model, tokenizer, rows, objective="distill")
    settings = {"objective": "distill", "teacher": "refusal", "epochs": 1}
    steps = grail.unlearn(model, tokenizer, rows, **settings).steps
    assert {"unlearn/nll", "retain/nll"} <= steps[0]["terms"].keys()


def test_a_wrong_setting_is_named_before_any_work(memory):
    model, tokenizer, rows = memory
    with pytest.raises(InputError, match=r"importance: unknown key trails\. Did you mean 'trials'"):
        grail.score(model, tokenizer, rows, trails=1)
    with pytest.raises(InputError, match=r"'grial' is unknown\. Did you mean 'grail'"):
        grail.localize(grail.score(model, tokenizer, rows, trials=1), method="grial")
    with pytest.raises(InputError, match="samples row 0"):
        grail.samples([{"promt": "?"}], side="unlearn")


def test_a_chat_template_is_told_the_date_that_is_given(memory):
    model, tokenizer, rows = memory
    clock = "{{ strftime_now('%d' * 9) }}{% for m in messages %}{{ m.content }}<eos>{% endfor %}"
    fixed = clock.replace("strftime_now('%d' * 9)", "'31' * 9")
    told, written = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    told.chat_template, written.chat_template = clock, fixed
    found = grail.evaluate(model, told, rows, date="2025-01-31", generate=False)
    assert found.rows == grail.evaluate(model, written, rows, generate=False).rows
    assert found.rows != grail.evaluate(model, told, rows, generate=False).rows
    with pytest.raises(InputError, match=r"data: date .*2025-01-31"):
        grail.evaluate(model, told, rows, date="31.1.2025")


def test_results_scores_and_masks_show_what_they_hold(memory):
    model, tokenizer, rows = memory
    results = grail.evaluate(model, tokenizer, rows, generate=False)
    assert repr(results).splitlines()[0].split()[:4] == ["model", "domain", "side", "part"]
    assert len(repr(results).splitlines()) == 3
    assert results._repr_html_().count("<tr>") == 3
    scores = grail.score(model, tokenizer, rows, trials=1)
    assert "4 samples" in repr(scores["domain", "unlearn"])
    assert repr(grail.localize(scores)).startswith("Mask(grail: ")


def test_every_public_name_is_there():
    for name in grail.__all__:
        assert getattr(grail, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        grail.scores  # noqa: B018


# -- one adapter, written in several ways ----------------------------------------------------------


@pytest.fixture
def adapted(tiny_model, tiny_tokenizer, memory):
    """An adapter, its rows of two domains, and a way to write it otherwise."""
    _, tokenizer, first = memory
    model = tiny_model(vocabulary=len(tokenizer)).eval()
    others = [{"prompt": f"other {i}?", "completion": f"words {i * 3}."} for i in range(4)]
    rows = [*first, *grail.samples(others, side="unlearn", domain="b")]
    rows += grail.samples([*reversed(others)], side="retain", domain="b")
    own = copy_weights(model)

    def written(left, right):
        """B left and right A, whose product is that of B and A where left right is the unit."""
        with torch.no_grad():
            for name, p in trainable(model).items():
                p.copy_(right @ own[name] if "lora_A" in name else own[name] @ left)
        return model, tokenizer, rows

    return written


RANK = 3
UNIT = torch.eye(RANK)
TURN = torch.linalg.qr(torch.randn(RANK, RANK, generator=torch.Generator().manual_seed(0)))[0]
SWAP = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])  # ranks and a sign


def same_share(a, b):
    """The entries that both freeze, of those that one does."""
    both = sum(int((a.frozen[n] & b.frozen[n]).sum()) for n in a.frozen)
    return both / sum(int((a.frozen[n] | b.frozen[n]).sum()) for n in a.frozen)


BY_SCALE = [{}, {"method": "random"}, {"method": "magnitude"}]
BY_SCALE += [{"statistic": "z_mean", "freeze": "by_side"}, {"statistic": "mean_sq"}]


@pytest.mark.parametrize("scale", [4.0, 0.125, 30.0])
def test_the_mask_of_an_adapter_does_not_depend_on_the_scale_of_its_factors(adapted, scale):
    made, across = [], []
    for factor in (1.0, scale):
        model, tokenizer, rows = adapted(UNIT / factor, UNIT * factor)
        scores = grail.score(model, tokenizer, rows, trials=1)
        made.append([grail.localize(scores, model=model, **how) for how in BY_SCALE])
        across.append([grail.localize(scores, layer=layer) for layer in ("block", "model")])
    for first, second in zip(*made, strict=True):
        assert first.counts()["frozen"] > 50
        assert same_share(first, second) > 0.98
        if scale != 30:  # powers of two change no bit but the exponent
            assert same_share(first, second) == 1
    for first, second in zip(*across, strict=True):  # negative control: A and B in one ranking
        assert same_share(first, second) < (0.5 if scale > 1 else 0.95)


def test_ranks_in_another_order_or_with_another_sign_have_the_same_entries_frozen(adapted):
    masks = []
    for mixing in (UNIT, SWAP):
        model, tokenizer, rows = adapted(mixing.T, mixing)
        masks.append(grail.localize(grail.score(model, tokenizer, rows, trials=1)))
    moved = {
        name: (SWAP.abs() @ bits.float() if "lora_A" in name else bits.float() @ SWAP.abs().T) > 0
        for name, bits in masks[0].frozen.items()
    }
    assert same_share(grail.Mask(moved), masks[1]) > 0.98
    assert same_share(*masks) < 0.9


def test_ranks_mixed_by_a_turn_are_the_same_model_with_another_mask(adapted):
    """What cannot be invariant: an entry of A' is a mixture of those of A, and no entry of it.

    What no mixing changes is a whole factor: the cosine of two gradients, which memflex reads.
    """
    masks, scores, logits = [], [], []
    for mixing in (UNIT, TURN):
        model, tokenizer, rows = adapted(mixing.T, mixing)
        logits.append(model(input_ids=torch.tensor([[5, 9, 11, 40]])).logits.detach())
        scores.append(grail.score(model, tokenizer, rows, trials=1))
        masks.append(grail.localize(scores[-1]))
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)
    assert same_share(*masks) < 0.9
    for name in masks[0].frozen:
        sides = [[s["b", side].mean[name] for side in ("unlearn", "retain")] for s in scores]
        angles = [float(cosine(*pair)) for pair in sides]
        assert angles[0] == pytest.approx(angles[1], abs=1e-3)
