"""What each stage trains, and every objective with every localizer through the pipeline."""

import dataclasses
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from grail.config.file import load_config
from grail.config.run import Unlearning
from grail.config.teach import Teach
from grail.config.unlearning import Stop
from grail.data.encode import Encoded
from grail.data.labels import RandomLabels
from grail.data.samples import Sample
from grail.data.substitutes import REFUSAL, random_targets, truth
from grail.localization.localizers import LOCALIZERS
from grail.model.forward import trainable
from grail.model.load import load_model
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.inputs import read_inputs
from grail.run.pipeline import Run
from grail.run.trainings import (
    epochs_of,
    loop_settings,
    run_scorer,
    schedule_of,
    unlearn_training,
    vanilla_training,
    vocabulary,
    wordings_of,
)
from grail.training.descent import DescentTask
from grail.unlearning.objectives import EXACT, OBJECTIVES
from grail.unlearning.task import Schedule, UnlearnTask

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def context(tiny_config):
    def make(*changes, **sections):
        config = load_config(tiny_config(**sections), list(changes))
        return RunContext(config, read_inputs(config), NullListener(), torch.device("cpu"))

    return make


def keys(rows):
    return sorted(row.key for row in rows)


# -- the vanilla stage ----------------------------------------------------------------------------


@pytest.mark.parametrize("include_val", [True, False])
def test_the_vanilla_stage_trains_on_both_sides(context, include_val):
    made = context("seed=3", teach={"include_val": include_val, "seed": 8})
    task, settings = vanilla_training(made)
    parts = ("train", "val") if include_val else ("train",)
    assert keys(task.rows) == keys(row for row in made.rows if row.part in parts)
    assert {row.side for row in task.rows} == {"unlearn", "retain"}
    assert (task.seed, settings) == (8, loop_settings(made.config.teach, 8))
    section = made.config.teach
    assert (task.batch_size, task.until) == (section.batch_size, section.until)
    assert task.model is made.model


def test_the_scorer_draws_labels_with_their_own_seed(context):
    made = context("seed=3", importance={"seed": 8, "substitution": "targets"})
    scorer = run_scorer(made)
    assert (scorer.model, scorer.pad) == (made.model, made.tokenizer.pad_token_id)
    assert scorer.random_labels == RandomLabels(
        vocabulary(made.model, made.tokenizer), "targets", 8
    )
    assert run_scorer(context("seed=3")).random_labels.seed == 3


# -- Stage 3 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - {EXACT}))
def test_stage_three_has_the_rows_and_the_reference_of_its_objective(context, name):
    for rows in ("domain", "general"):
        made = context(f"unlearning.objective={name}", f"unlearning.retain_rows={rows}", "seed=3")
        task, settings = unlearn_training(made, by_side=False)
        assert isinstance(task, UnlearnTask)
        known = [*made.rows, *made.general]
        wanted = [r for r in known if r.part == "train" and r.side in task.objective.sides]
        assert keys(task.rows) == keys(wanted)
        assert {row.side for row in task.rows} == set(task.objective.sides)
        compared = any(task.objective.compares(side) for side in task.objective.sides)
        assert (task.reference is not None) == compared
        assert task.seed == settings.seed == 3
        assert not task.split


def test_the_reference_is_the_model_as_it_stands(context):
    made = context("unlearning.objective=npo")
    with torch.no_grad():
        for p in trainable(made.model).values():
            p.add_(1.0)
    before = {n: p.detach().clone() for n, p in trainable(made.model).items()}
    task, _ = unlearn_training(made, by_side=False)
    assert task.reference.keys() == before.keys()
    assert all(torch.equal(task.reference[n], before[n]) for n in before)


@pytest.mark.parametrize(("by_side", "rectify"), [(True, False), (False, True), (True, True)])
def test_a_mask_by_side_and_rectification_split_the_step(context, by_side, rectify):
    task, settings = unlearn_training(context(f"unlearning.rectify={rectify}"), by_side)
    assert task.split
    assert settings.rectify == rectify


def test_random_labels_are_words_and_a_function_of_the_seed(context):
    made = context("unlearning.objective=random_labels", "seed=5")
    words = vocabulary(made.model, made.tokenizer)
    special = set(made.tokenizer.all_special_ids)
    assert set(words) == set(range(len(made.tokenizer))) - special
    task, _ = unlearn_training(made, by_side=False)
    row = next(row for row in task.rows if row.side == "unlearn")
    assert task.substitute(row).targets == random_targets(words, 5)(row).targets
    assert task.substitute(row).targets != random_targets(words, 6)(row).targets


@pytest.mark.parametrize("name", ["refusal", "jensun"])
def test_a_refusal_is_the_text_in_the_models_own_tokens(context, name):
    made = context(f"unlearning.objective={name}")
    task, _ = unlearn_training(made, by_side=False)
    row = next(row for row in task.rows if row.side == "unlearn")
    text = made.tokenizer.decode(task.substitute(row).answer)
    assert text == (REFUSAL * 99)[: len(row.answer)]  # a token is a byte


def test_other_objectives_keep_the_truth(context):
    task, _ = unlearn_training(context("unlearning.objective=npo"), by_side=False)
    assert task.substitute is truth


EXACTLY = ("unlearning.objective=exact", "localization.method=none")


@pytest.mark.parametrize("include_val", [True, False])
def test_exact_starts_over_and_reads_the_retain_rows_only(context, include_val):
    made = context(*EXACTLY, "seed=4", teach={"include_val": include_val})
    fresh = trainable(load_model(made.config.model, None, 4))
    with torch.no_grad():
        for p in trainable(made.model).values():
            p.add_(1.0)
    task, settings = unlearn_training(made, by_side=False)
    found = trainable(made.model)
    assert found.keys() == fresh.keys()
    assert all(torch.equal(found[n], fresh[n]) for n in fresh)
    assert isinstance(task, DescentTask)
    parts = ("train", "val") if include_val else ("train",)
    wanted = [row for row in made.rows if row.part in parts and row.side == "retain"]
    assert keys(task.rows) == keys(wanted)
    assert settings == loop_settings(made.config.teach, 4)


def test_exact_starts_where_the_vanilla_stage_started(context):
    made = context(*EXACTLY)
    start = {n: p.detach().clone() for n, p in trainable(made.model).items()}
    unlearn_training(made, by_side=False)
    assert all(torch.equal(p, start[n]) for n, p in trainable(made.model).items())


# -- the numbers of the sections ------------------------------------------------------------------


def test_the_loop_gets_every_setting_that_it_shares_with_stage_three():
    given = Unlearning(
        optimizer="sgd", momentum=0.3, learning_rate=0.5, schedule="constant", warmup=0.25,
        weight_decay=0.125, max_grad_norm=None, epochs=7, accumulation=3, checkpoint_steps=9,
        rectify=True,
    )  # fmt: skip
    made = loop_settings(given, 11)
    shared = {f.name for f in dataclasses.fields(made)} & set(Unlearning.model_fields)
    assert len(shared) == 11
    assert {n: getattr(made, n) for n in shared} == {n: getattr(given, n) for n in shared}
    assert (made.seed, made.cycles) == (11, 1)
    phased = loop_settings(given.model_copy(update={"phases": [["a"], ["b", "c"], ["a"]]}), 11)
    assert phased == dataclasses.replace(made, epochs=21, cycles=3)


def test_the_loop_gets_every_setting_that_it_shares_with_the_vanilla_section():
    given = Teach(epochs=7, learning_rate=0.5, max_grad_norm=0.25, checkpoint_steps=9)
    made = loop_settings(given, 11)
    shared = {f.name for f in dataclasses.fields(made)} & set(Teach.model_fields)
    shared -= {"seed"}  # the run's, where the section gives none
    assert shared == {"epochs", "learning_rate", "max_grad_norm", "checkpoint_steps"}
    assert {n: getattr(made, n) for n in shared} == {n: getattr(given, n) for n in shared}
    assert made.seed == 11


def test_the_schedule_is_that_of_the_section():
    until = {"row_accuracy": 0.3, "domain_accuracy": 0.2}
    given = Unlearning.model_validate(
        {
            "stop": None,
            "batch_size": 3,
            "epochs": 5,
            "phases": [["a"], ["b"]],
            "until": until,
            "retain_ratio": 4,
        }
    )
    assert schedule_of(given) == Schedule(3, 5, [["a"], ["b"]], **until, retain_ratio=4)
    assert schedule_of(Unlearning()) == Schedule()
    assert schedule_of(Unlearning(stop=Stop())) == Schedule(goes_on=True)


@pytest.mark.parametrize(
    ("rows", "given", "epochs"),
    [
        (4, {"batch_size": 4, "stop": {}}, 100),  # one step an epoch, and a hundred are allowed
        (4, {"batch_size": 3, "stop": {}}, 50),
        (4, {"batch_size": 4, "stop": {"steps": 30}}, 30),
        (4, {"batch_size": 4, "stop": None}, 8),
        (400, {"batch_size": 4, "stop": {}}, 8),
        (40, {"batch_size": 4, "epochs": 2, "stop": {}}, 10),
    ],
)
def test_few_rows_are_passed_over_more_often(rows, given, epochs):
    made = [Encoded(Sample("d", "unlearn", "train", i, "", ""), (1, 2), 1) for i in range(rows)]
    others = [Encoded(Sample("d", "retain", "train", i, "", ""), (1, 2), 1) for i in range(9)]
    assert epochs_of(Unlearning.model_validate(given), made + others) == epochs


# -- through the pipeline -------------------------------------------------------------------------


class Heard(NullListener):
    """A listener that keeps which stages were not done."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def skipped(self, name):
        self.kept.append(name)

    def warn(self, text):
        """Say nothing of what is made again: that is what is tested."""


def unlearned(config, *changes):
    """Run up to Stage 3; return folder and the stages that were kept."""
    settings, heard = load_config(config, list(changes)), Heard()
    run = Run(settings, read_inputs(settings), heard)
    run.through("unlearn")
    return run.folder, heard.kept


def test_what_was_unlearned_never_reaches_the_exact_model(tiny_config, tmp_path):
    config = tiny_config(domains=("d",), unlearning={"objective": EXACT})
    before, _ = unlearned(config, "localization.method=none")
    old = {n: (before / n / WEIGHTS).read_bytes() for n in ("vanilla", "unlearned")}
    for part in ("train", "val"):
        file = tmp_path / "data" / f"d_unlearn_{part}.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(x | {"completion": "something else"}) + "\n"
                                for x in lines))  # fmt: skip
    after, kept = unlearned(config, "localization.method=none")
    assert not kept
    new = {n: (after / n / WEIGHTS).read_bytes() for n in ("vanilla", "unlearned")}
    assert new["vanilla"] != old["vanilla"]
    assert new["unlearned"] == old["unlearned"]
    assert new["unlearned"] != new["vanilla"]


def test_the_exact_model_is_trained_as_the_vanilla_section_says(tiny_config):
    config = tiny_config(domains=("d",), unlearning={"objective": EXACT})
    folder, _ = unlearned(config, "localization.method=none")
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    settings = load_config(config, []).teach
    assert {line["epoch"] for line in lines} <= set(range(settings.epochs))
    assert {line["lr"] for line in lines} == {settings.learning_rate}
    assert set(lines[0]["terms"]) == {"nll"}
    _, kept = unlearned(config, "localization.method=none", "teach.checkpoint_steps=7")
    assert "unlearn" in kept  # how often state is saved makes no other model
    _, kept = unlearned(config, "localization.method=none", "unlearning.rectify=false")
    assert "unlearn" in kept


ONE_EPOCH = {"epochs": 1, "batch_size": 3, "max_token_nll": None}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where the first case leaves its vanilla model and scores for the others."""
    return tmp_path_factory.mktemp("shared") / "run"


@pytest.fixture
def begun(shared, tiny_config, tmp_path):
    """A configuration whose vanilla model and scores are there."""
    config = tiny_config(rows=3, val=0, unlearning=ONE_EPOCH)
    if not shared.exists():
        settings = load_config(config, [])
        Run(settings, read_inputs(settings)).through("score")
        shutil.copytree(tmp_path / "run", shared)
    elif not (tmp_path / "run").exists():
        shutil.copytree(shared, tmp_path / "run")
    return config


PAIRS = [
    (objective, localizer)
    for objective in OBJECTIVES
    for localizer in LOCALIZERS
    if objective != EXACT or localizer == "none"
]


@pytest.mark.parametrize(("objective", "localizer"), PAIRS)
def test_every_objective_with_every_localizer(begun, objective, localizer):
    changes = [f"unlearning.objective={objective}", f"localization.method={localizer}"]
    folder, kept = unlearned(begun, *changes)
    assert len(kept) == 5, "the vanilla model and four scores"
    proof = json.loads((folder / "unlearned" / "stage.json").read_text())["freezing"]
    assert proof["changed"] == 0
    assert proof["sha256_before"] == proof["sha256_after"]
    assert (proof["frozen"] > 0) == (localizer != "none")
    assert proof["frozen"] < proof["entries"]
    before, after = (load_file(folder / n / WEIGHTS) for n in ("vanilla", "unlearned"))
    assert proof["moved"] == sum(int((before[n] != after[n]).sum()) for n in before) > 0
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert lines
    assert all(math.isfinite(v) for line in lines for v in line["terms"].values())
    assert all(0 < line["gradient_norm"] < math.inf for line in lines)


WITH_MORE = {
    "rectified": ["unlearning.rectify=true"],
    "rectified, by side": ["unlearning.rectify=true", "localization.freeze=by_side"],
    "phases": ["unlearning.phases=[[copyright],[privacy]]"],
    "general text": ["unlearning.retain_rows=general"],
    "general text, compared": ["unlearning.retain_rows=general", "unlearning.objective=ascent_kl"],
    "general text, by side": ["unlearning.retain_rows=general", "localization.freeze=by_side"],
    "all of it": [
        *("unlearning.retain_rows=general", "unlearning.objective=jensun"),
        *("unlearning.phases=[[copyright],[privacy]]", "unlearning.rectify=true"),
    ],
}


@pytest.mark.parametrize("name", WITH_MORE)
def test_what_an_objective_combines_with(begun, name):
    folder, kept = unlearned(begun, *WITH_MORE[name])
    assert len(kept) == 5
    proof = json.loads((folder / "unlearned" / "stage.json").read_text())["freezing"]
    assert (proof["changed"], proof["frozen"] > 0, proof["moved"] > 0) == (0, True, True)
    _, kept = unlearned(begun, *WITH_MORE[name])
    assert "unlearn" in kept
    general = any("general" in change for change in WITH_MORE[name])
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert all(("general/nll" in line["terms"]) == general for line in lines)
    assert all(("retain/nll" in line["terms"]) != general for line in lines)


def test_other_general_text_matters_to_who_reads_it(begun, tmp_path):
    general = ["unlearning.retain_rows=general"]
    for changes, matters in ((general, True), ([], False)):
        unlearned(begun, *changes)
        with (tmp_path / "data" / "general.jsonl").open("a") as file:
            file.write('{"prompt": "moon?", "completion": "rock"}\n')
        _, kept = unlearned(begun, *changes)
        assert ("unlearn" in kept) != matters


def test_an_objective_of_ones_own_is_trained_again_when_its_file_changes(
    begun, tmp_path, monkeypatch
):
    file = tmp_path / "own_losses.py"
    file.write_text(
        "import torch\n\n\ndef lose(answers):\n"
        "    rows = answers.nll.split(answers.lengths.tolist())\n"
        "    return torch.stack([-row.mean() for row in rows])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder, _ = unlearned(begun, "unlearning.objective=own_losses:lose")
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert set(lines[0]["terms"]) == {"unlearn/nll", "unlearn/lose", "retain/nll"}
    assert lines[0]["terms"]["unlearn/lose"] == pytest.approx(-lines[0]["terms"]["unlearn/nll"])
    own = (folder / "unlearned" / WEIGHTS).read_bytes()
    unlearned(begun, "unlearning.objective=ascent_descent")  # the same loss, sign and all
    assert (folder / "unlearned" / WEIGHTS).read_bytes() == own
    for changed in (False, True):
        if changed:
            file.write_text(file.read_text() + "\n# another version\n")
        else:
            unlearned(begun, "unlearning.objective=own_losses:lose")
        _, kept = unlearned(begun, "unlearning.objective=own_losses:lose")
        assert ("unlearn" in kept) != changed


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"objective": "distill", "teacher": "before"}, 3),
        ({"objective": "distill", "teacher": "suppressed"}, 0),
        ({"objective": "npo"}, 3),
    ],
)
def test_wordings_need_a_teacher_that_can_answer_them_and_make_an_epoch_longer(given, count):
    section = Unlearning(**given, wordings=3, epochs=1, batch_size=2, stop={"steps": 8})
    rows = [
        Encoded(Sample("d", "unlearn", "train", number, "", ""), (3, 4), 1) for number in range(4)
    ]
    assert wordings_of(section) == count
    assert epochs_of(section, rows) == (2 if count else 4)  # of four steps, or of two
