"""What a look measures, against the evaluation of the same model, and when a run may end."""

import json

import pytest
import torch
from torch import nn

from grail.config.file import load_config
from grail.config.unlearning import Stop
from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.files import write_json
from grail.model.forward import trainable
from grail.progress import NullListener
from grail.run import looks
from grail.run.inputs import read_inputs
from grail.run.looks import NOTHING_KEPT, looked_at, looks_of
from grail.run.pipeline import Run
from grail.training.looks import Bounds, Looks


class Heard(NullListener):
    def __init__(self):
        super().__init__()
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def run_of(file, listener=None):
    config = load_config(file, [])
    return Run(config, read_inputs(config), listener)


def steps_of(run):
    return json.loads((run.folder / "evaluation" / "steps.json").read_text())


@pytest.mark.parametrize("every", [3, 8, 100])
def test_a_run_is_looked_at_and_what_is_seen_is_what_the_evaluation_measures(tiny_config, every):
    """Eight rows in steps of two: four steps an epoch, two epochs."""
    run = run_of(tiny_config(evaluation={"every": every, "generate": False}))
    run.through("evaluate")
    found = steps_of(run)
    steps = sorted({row["step"] for row in found["rows"]})
    assert steps == sorted({*range(0, 9, every), 0, 8})
    assert found["kept"] == 8
    assert {row["epoch"] for row in found["rows"] if row["step"] == 8} == {2.0}
    results = json.loads((run.folder / "results.json").read_text())["rows"]
    at = {(r["model"], r["domain"], r["side"], r["part"], r["metric"]): r["value"] for r in results}
    for step, model in ((0, "vanilla"), (8, "unlearned")):
        for row in (row for row in found["rows"] if row["step"] == step):
            domain, side = row["domain"] or "general", row["side"]
            assert row["nll"] == pytest.approx(at[model, domain, side, "train", "NLL"], rel=1e-5)
            metric = {"unlearn": "US", "retain": "RS"}.get(side)
            expected = at[model, domain, side, "train", metric] if metric else None
            assert row["success"] == (metric and pytest.approx(expected))
    run_of(run.folder.parent / "run.yaml").through("unlearn")  # nothing is made again
    assert steps_of(run) == found


def test_a_run_without_looks_has_no_file_of_an_earlier_one(tiny_config):
    run = run_of(tiny_config(evaluation={"every": 8}))
    run.through("unlearn")
    assert steps_of(run)["rows"]
    run = run_of(tiny_config(unlearning={"learning_rate": 0.02}), Heard())
    run.through("unlearn")
    assert not (run.folder / "evaluation" / "steps.json").exists()


@pytest.mark.parametrize("edit", [None, '"epoch": 9', "sealed"])
def test_looks_that_were_deleted_or_edited_are_taken_again(edit, tiny_config):
    """The results repeat what they say can be guessed."""
    config = tiny_config(evaluation={"every": 3, "generate": False})
    run = run_of(config)
    run.through("evaluate")
    path = run.folder / "evaluation" / "steps.json"
    before, results = steps_of(run), (run.folder / "results.json").read_bytes()
    if edit is None:
        path.unlink()
    elif edit == "sealed":
        write_json(path, {k: v for k, v in before.items() if k != "sha256"} | {"guess": {"d": 0.0}})
    else:
        path.write_text(path.read_text().replace('"epoch": 0', edit))
    heard = Heard()
    run = run_of(config, heard)
    run.through("evaluate")
    assert steps_of(run) == before
    assert (run.folder / "results.json").read_bytes() == results
    assert any("steps.json" in text for text in heard.warnings) == (edit is not None)


def test_harm_beyond_all_bounds_leaves_the_model_as_it_was_and_is_told(tiny_config):
    stop = {"retain": 0.0, "general": 0.0, "steps": 4}
    config = tiny_config(evaluation={"every": 2}, unlearning={"stop": stop, "learning_rate": 0.1})
    heard = Heard()
    run = run_of(config, heard)
    run.through("unlearn")
    assert steps_of(run)["kept"] == 0
    assert NOTHING_KEPT in heard.warnings
    stamps = [
        json.loads((run.folder / n / "stage.json").read_text()) for n in ("vanilla", "unlearned")
    ]
    assert stamps[0]["weights"] == stamps[1]["weights"]


def rows_of(side, part, count, domain="d"):
    return [Encoded(Sample(domain, side, part, i, "", ""), (1, 5, 2), 1) for i in range(count)]


def test_a_look_reads_few_rows_evenly_and_of_general_text_those_held_out():
    rows = [*rows_of("unlearn", "train", 128), *rows_of("retain", "train", 3)]
    rows += [*rows_of("unlearn", "val", 5), *rows_of("unlearn", "heldout", 5)]
    general = rows_of("general", "train", 40, "general"), rows_of("general", "val", 30, "general")
    read = looked_at([*rows, *general[0], *general[1]])
    unlearn, kept, text = (
        [r for r in read if r.side == s] for s in ("unlearn", "retain", "general")
    )
    assert [row.sample.row for row in unlearn] == list(range(0, 128, 2))
    assert (len(kept), len(text), {row.part for row in text}) == (3, 24, {"val"})
    assert {row.part for row in looked_at([*rows, *general[0]])} == {"train"}


@pytest.mark.parametrize(
    ("known", "held", "forgotten", "guess"),
    [(0.0, 40.0, 40.0, {"d": 40.0}), (0.0, 90.0, 75.0, {"d": 90.0}), (30.0, 35.0, 75.0, {})],
)
def test_rows_that_no_model_has_seen_say_what_can_be_guessed(
    known, held, forgotten, guess, monkeypatch
):
    """A model that guesses most of them right need not be driven below that.

    Rows that it answers as well as those to be lost are no guess: all would be forgotten at once.
    """

    def told(model, rows, pad):
        us = {"train": known, "heldout": held}
        found = {row.part: us[row.part] for row in rows}
        return [
            {"domain": "d", "side": "unlearn", "success": us, "nll": 1.0} for us in found.values()
        ]

    monkeypatch.setattr(looks, "measured", told)
    rows = [*rows_of("unlearn", "train", 2), *rows_of("unlearn", "heldout", 2)]
    made = looks_of(nn.Identity(), rows, 0, 4, Stop(forgotten=0.25, above=0), None)
    assert (made.bounds.forgotten, made.guess) == ({"d": forgotten}, guess)
    made = looks_of(nn.Identity(), rows[:2], 0, 4, Stop(forgotten=0.25), None)
    assert (made.bounds.forgotten, made.guess) == ({"d": 75.0}, {})


def test_rows_forgotten_before_any_training_are_told_as_such(tmp_path):
    bounds = Bounds({"d": 85.0}, 5.0, 0.1, 10)
    row = {"step": 0, "epoch": 0, "domain": "d", "side": "unlearn", "success": 90.0, "nll": 1.0}
    said = []
    looks.write_looks(tmp_path, Looks(4, list, bounds), [row], said.append)
    looks.write_looks(tmp_path, Looks(4, list, bounds), [row, row | {"step": 4}], said.append)
    assert said == [looks.NOTHING_TO_DO, NOTHING_KEPT]


def test_the_model_from_before_guesses_after_its_examples(tiny_model, tiny_rows, monkeypatch):
    model, asked = tiny_model(), []
    before = {name: p.detach() + 0.1 for name, p in trainable(model).items()}
    wanted = {name: value.clone() for name, value in before.items()}
    rows = [
        Encoded(Sample("d", "unlearn", "train", i, "", ""), row.ids, row.start)
        for i, row in enumerate(tiny_rows(2, answer=(3, 5)))
    ]

    def told(model, rows, pad):
        if not rows:
            return []
        asked.append([(row.ids, row.answer) for row in rows])
        same = all(torch.equal(p, wanted[n]) for n, p in trainable(model).items())
        return [{"domain": "d", "side": "unlearn", "success": 60.0 if same else 0.0, "nll": 1.0}]

    monkeypatch.setattr(looks, "measured", told)
    examples = {row.key: (3, 4, 5) for row in rows}
    assert looks.guesses(model, rows, 0, (before, examples)) == {"d": 60.0}
    assert asked[0] == [((3, 4, 5, *row.ids), row.answer) for row in rows]
    assert asked[-1] == [(row.ids, row.answer) for row in rows]
