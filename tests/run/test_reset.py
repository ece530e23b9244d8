"""A run with a reset: its survivors, its start, the teacher, and what is done again."""

import contextlib
import io
import json

import pytest
import torch
from safetensors.torch import load_file

from grail.artifacts import read_mask
from grail.cli.main import main
from grail.config.file import load_config
from grail.data.batches import collate
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.model.answers import answers_of
from grail.model.forward import trainable
from grail.model.weights import copy_weights, fresh_adapter, holding, put_weights
from grail.run import reset, trainings
from grail.run.directory import stamp
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run
from grail.run.reset import REWRITES, SURVIVORS, before_facts, read_rewrites, reset_model
from grail.run.trainings import unlearn_facts, unlearn_training
from grail.unlearning.guesses import GUESS_RULES, Written, examples_for, written_guesses
from grail.unlearning.rewrites import REWRITTEN, rewrites

HEAL = {"objective": "distill", "retain_ratio": 2, "general_weight": 0.5}
HEAL |= {"rewrites": 5, "guesses": 2, "examples": 2}


def grail(*words):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(word) for word in words])
    return code, said.getvalue()


def made(config, *sets):
    config = load_config(config, list(sets))
    return Run(config, read_inputs(config))


@pytest.fixture(scope="module")
def healed(module_config):
    """A run with a reset that goes through all stages."""
    config = module_config(unlearning={**HEAL, "reset": {"share": 0.5}})
    code, said = grail("run", config)
    assert code == 0, said
    return config, config.parent / "run"


def test_a_run_writes_its_survivors_and_freezes_nothing_else(healed):
    _, folder = healed
    kept, mask = read_mask(folder / SURVIVORS).frozen, read_mask(folder / "mask.safetensors")
    for name, bits in kept.items():
        assert not (mask.frozen[name] & ~bits).any()
        assert bits.float().mean() >= 0.5 - 1 / bits.numel()
    proof = json.loads((folder / "results.json").read_text())["freezing"]
    assert proof["changed"] == 0


def test_the_training_starts_from_survivors_and_a_fresh_adapter(healed):
    config, folder = healed
    run = made(config)
    run.context.take("vanilla")
    vanilla, before = copy_weights(run.context.model), before_facts(run.context)
    reset_model(run.context, before)
    kept = read_mask(folder / SURVIVORS).frozen
    for name, weight in copy_weights(run.context.model).items():
        assert torch.equal(weight, torch.where(kept[name], vanilla[name], before[name]))


def test_the_rows_that_the_vanilla_model_wrote_are_trained(healed):
    config, _ = healed
    run = made(config)
    written = read_rewrites(run.context)
    run.context.take("vanilla")
    model, tokenizer = run.context.model, run.context.tokenizer
    train = [row for row in (*run.context.rows, *run.context.general) if row.part == "train"]
    again, before = rewrites(model, tokenizer, train, 5), before_facts(run.context)
    with holding(model, before):
        guesses = written_guesses(model, tokenizer, train, (2, 2, run.config.seed))
    assert [(*r.place, r.ids, r.start) for r in written.rows] == [
        (*r.place, r.ids, r.start) for r in (*again, *guesses.rows)
    ]
    assert written.examples == guesses.examples
    assert len({row.key for row in written.rows}) == len(written.rows)
    task, _ = unlearn_training(run.context, False, before, written)
    assert [row for row in task.rows if row.part == REWRITTEN] == written.rows
    assert task.examples == examples_for(train, 2, run.config.seed) | written.examples
    none = made(config, "unlearning.rewrites=0", "unlearning.guesses=0", "unlearning.examples=0")
    assert read_rewrites(none.context) == Written()


def test_guesses_of_other_rules_are_made_and_followed_again(healed, monkeypatch):
    config, folder = healed
    run = made(config)
    vanilla, facts = stamp(folder / "vanilla")["weights"], unlearn_facts(run.context)
    written = pytest.fail.Exception("written again")

    def write(*_):
        raise written

    monkeypatch.setattr(reset, "written_guesses", write)
    reset.write_rewrites(run.context, vanilla)  # what is there is kept
    for module in (reset, trainings):
        monkeypatch.setattr(module, "GUESS_RULES", GUESS_RULES + 1)
    assert unlearn_facts(run.context) != facts
    with pytest.raises(type(written), match="written again"):
        reset.write_rewrites(run.context, vanilla)
    for free in (("unlearning.examples=0",), ("unlearning.teacher=refusal",)):
        assert "guesses" not in unlearn_facts(made(config, *free).context)


def test_a_full_reset_of_an_adapter_is_the_base_to_the_bit(healed):
    config, _ = healed
    run = made(config)
    run.context.take("vanilla")
    model, rows = run.context.model, list(run.context.rows[:4])
    batch = collate(rows, run.context.tokenizer.pad_token_id, torch.device("cpu"))
    put_weights(model, fresh_adapter(model, 5))
    with torch.no_grad(), model.disable_adapter():
        base = answers_of(model, batch).logits
    with torch.no_grad():
        assert torch.equal(answers_of(model, batch).logits, base)


def test_a_second_run_does_nothing_and_another_share_trains_again(healed, tmp_path):
    config, folder = healed
    stamp = (folder / "unlearned" / "stage.json").read_bytes()
    assert grail("run", config)[0] == 0
    assert (folder / "unlearned" / "stage.json").read_bytes() == stamp
    code, said = grail("unlearn", config, "--set", "unlearning.reset.share=0.9")
    assert code == 0
    assert "reset: started" in said
    assert "unlearn: started" in said
    assert (folder / "unlearned" / "stage.json").read_bytes() != stamp
    code, said = grail("reset", config, "--set", "unlearning.reset=null")
    assert code == 0
    assert not (folder / SURVIVORS).exists()
    assert "unlearning.reset is null" in said
    assert (
        grail("reset", config, "--set", "unlearning.rewrites=0", "--set", "unlearning.guesses=0")[0]
        == 0
    )
    assert not (folder / REWRITES).exists()
    assert grail("run", config)[0] == 0  # as the fixture left it
    assert (folder / "unlearned" / "stage.json").read_bytes() == stamp


def test_a_reset_is_repeated_to_the_bit(healed, tmp_path):
    config, folder = healed
    other = tmp_path / "again"
    assert grail("run", config, "--output", other)[0] == 0
    one, two = (load_file(f / "unlearned" / "adapter_model.safetensors") for f in (folder, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_distilling_towards_oneself_has_no_gradient(healed):
    """A teacher equal to the model leaves the unlearn term without a gradient."""
    config, _ = healed
    run = made(config, "unlearning.general_weight=0", "unlearning.examples=0")
    run.context.take("vanilla")
    model = run.context.model
    before = copy_weights(model)
    task, _ = unlearn_training(run.context, by_side=False, before=before)
    assert task.teacher is before
    rows = [row for row in task.rows if row.side == "unlearn"][:3]
    result = task.run(rows, rows)
    result.loss.backward()
    assert float(result.terms["unlearn/kl"]) == pytest.approx(0, abs=1e-6)
    assert all(
        p.grad is None or float(p.grad.abs().max()) < 1e-5 for p in trainable(model).values()
    )


@pytest.mark.parametrize("examples", [0, 2])
def test_the_unlearn_rows_follow_the_teacher_and_the_general_rows_the_vanilla_model(
    healed, examples
):
    """The teacher reads the examples ahead of the row and begins as they do; the model does not."""
    config, _ = healed
    run = made(config, f"unlearning.examples={examples}")
    run.context.take("vanilla")
    model = run.context.model
    before = before_facts(run.context)
    task, _ = unlearn_training(run.context, by_side=False, before=before)
    rows = [row for row in task.rows if row.side != "retain"]
    terms = task.run(rows, rows).terms
    assert float(terms["general/kl"]) == pytest.approx(0, abs=1e-6)
    pad = run.context.tokenizer.pad_token_id
    unlearn = [row for row in rows if row.side == "unlearn"]
    train = [row for row in run.context.rows if row.part == "train"]
    shown = examples_for(train, examples, run.config.seed)
    assert all(len(ids) > 0 for ids in shown.values()) == bool(examples)
    read = [
        Encoded(r.sample, (*shown[r.key], *r.ids), len(shown[r.key]) + r.start) for r in unlearn
    ]
    with torch.no_grad():
        own = answers_of(model, collate(unlearn, pad, torch.device("cpu")))
        with model.disable_adapter():
            base = answers_of(model, collate(read, pad, torch.device("cpu")))
    wanted, at = 0.0, 0
    for row, count in zip(unlearn, own.lengths.tolist(), strict=True):
        p = base.logits[at : at + count].double().softmax(-1)
        q = own.logits[at : at + count].double().softmax(-1)
        beside = {r.ids[r.start] for r in train if (r.side, r.domain) == ("retain", row.domain)}
        if examples:
            p[0, [token for token in range(p.shape[-1]) if token not in beside]] = 0
            p[0] /= p[0].sum()
        wanted += float(torch.special.xlogy(p, p / q).sum(-1).mean()) / len(unlearn)
        at += count
    assert float(terms["unlearn/kl"]) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"teach": None}, "resetting the adapter removes nothing"),
        (
            {"teach": None, "unlearning": {"reset": None, "teacher": "before"}},
            "the base model itself knows them",
        ),
        (
            {"unlearning": {"objective": "exact"}, "localization": {"method": "none"}},
            "unlearning.reset: exact",
        ),
    ],
)
def test_what_cannot_be_reset_is_refused_before_any_work(tiny_config, settings, words):
    asked = {**HEAL, "general_weight": 0.0, "reset": {"share": 0.5}}
    asked |= settings.pop("unlearning", {})
    with pytest.raises(InputError, match=words):
        made(tiny_config(unlearning=asked, **settings))


def test_all_weights_go_back_to_the_model_before_the_vanilla_stage(tiny_config):
    config = tiny_config(
        model={"lora": None},
        teach={"learning_rate": 0.01},
        unlearning={**HEAL, "reset": {"share": 1.0, "keep": "random"}},
    )
    run = made(config)
    start = copy_weights(run.context.model)
    before = before_facts(run.context)
    assert before.keys() == start.keys()
    assert all(torch.equal(before[name], start[name]) for name in start)


def test_without_a_model_before_all_weights_shrink_and_the_teacher_is_suppressed(tiny_config):
    config = tiny_config(
        model={"lora": None},
        teach=None,
        unlearning={**HEAL, "reset": {"share": 0.5, "amount": 0.3}},
    )
    run = made(config)
    assert before_facts(run.context) is None
    task, _ = unlearn_training(run.context, by_side=False)
    assert task.teacher is None
    assert task.objective.terms[0].name == "unlearn/undial"
