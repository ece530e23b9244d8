"""Audits of tiny runs: what they write, do again, leave as it is, and find."""

import json
import shutil
from contextlib import contextmanager

import pytest
import torch

from grail.audit.audit import Auditor, audit_run
from grail.audit.runs import read_run
from grail.cli.main import main
from grail.model.forward import trainable
from grail.progress import silent
from grail.reporting.audit.knowledge import NOT, REMOVED

UNLEARNED = ("plain", "quantise", "prune", "interpolate", "relearn-few", "relearn-other")


class Ear:
    """A listener that keeps what it hears, and can interrupt when a stage begins."""

    def __init__(self, stop=""):
        self.done, self.kept, self.stop = [], [], stop

    @contextmanager
    def stage(self, name):
        if name == self.stop:
            raise KeyboardInterrupt
        self.done.append(name)
        yield silent

    def skipped(self, name):
        self.kept.append(name)

    def warn(self, text):
        raise AssertionError(text)


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def is_of_audit(name):
    return name == "audit.json" or name.startswith("audit/")


def rows_of(found, model, attack, amount):
    (entry,) = [
        e
        for e in found["measured"]
        if (e["model"], e["attack"], e["amount"]) == (model, attack, amount)
    ]
    return {(r["side"], r["part"], r["metric"]): r for r in entry["rows"]}


@pytest.fixture(scope="module")
def audited(runs, tmp_path_factory):
    """The run with its oracle, audited once: its folder and what was found."""
    folder = tmp_path_factory.mktemp("audited") / "run"
    shutil.copytree(runs["run"], folder)
    return folder, audit_run(folder, runs["oracle"], listener=Ear())


def test_the_files_of_the_run_stay_and_the_audit_has_its_own(runs, audited):
    folder, found = audited
    before, after = files(runs["run"]), files(folder)
    assert {name: after[name] for name in before} == before
    assert all(map(is_of_audit, set(after) - set(before)))
    assert json.loads(after["audit.json"]) == json.loads(json.dumps(found))
    assert "audit/report.md" in after


def test_a_second_audit_does_nothing_and_equal_audits_are_equal_bytes(runs, audited, copied):
    folder, _ = audited
    before, ear = files(folder), Ear()
    audit_run(folder, runs["oracle"], listener=ear)
    assert not ear.done
    assert len(ear.kept) > len(UNLEARNED)
    assert files(folder) == before
    other = copied("run")
    audit_run(other, runs["oracle"], listener=Ear())
    assert files(other) == before


def test_an_interrupted_audit_goes_on_where_it_stopped(runs, audited, copied):
    folder = copied("run")
    with pytest.raises(KeyboardInterrupt):
        audit_run(folder, runs["oracle"], listener=Ear(stop="audit unlearned: relearn-few"))
    assert not (folder / "audit.json").exists()
    ear = Ear()
    audit_run(folder, runs["oracle"], listener=ear)
    assert "audit unlearned: quantise" in ear.kept
    assert ear.done[0] == "audit unlearned: relearn-few"
    assert files(folder) == files(audited[0])


def test_other_settings_do_again_only_what_reads_them(audited, tmp_path):
    folder = shutil.copytree(audited[0], tmp_path / "run")
    ear = Ear()
    audit_run(folder, overrides=["audit.prune=[0.5]"], listener=ear)
    assert ear.done == ["audit unlearned: prune", "audit inside"]  # no oracle is looked into
    ear = Ear()
    found = audit_run(
        folder, overrides=["audit.attacks=[prune]", "audit.prune=[0.5]"], listener=ear
    )
    assert not ear.done
    assert {entry["attack"] for entry in found["measured"]} == {"plain", "prune"}
    assert "relearn (not asked for)" in " ".join(found["sentences"])


def test_a_model_that_was_unlearned_again_is_measured_again(audited, tmp_path, capsys):
    folder = shutil.copytree(audited[0], tmp_path / "run")
    assert main(["run", str(folder), "--set", "unlearning.epochs=1"]) == 0
    capsys.readouterr()
    ear = Ear()
    found = audit_run(folder, listener=ear)
    assert {"audit unlearned: prune", "audit unlearned: relearn-few"} <= set(ear.done)
    assert not [stage for stage in ear.kept if "unlearned" in stage]
    before = json.loads((audited[0] / "audit.json").read_text())
    assert found["weights"]["unlearned"] != before["weights"]["unlearned"]


def test_the_weights_are_back_after_every_attack(runs):
    auditor = Auditor(read_run(runs["run"]), None, Ear())
    context, model = auditor.context, auditor.context.run.model
    context.load("unlearned")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for name, attack in auditor.attacks().items():
        if not attack.why_not(context):
            attack.run(context, silent)
        now = dict(model.named_parameters())
        assert all(torch.equal(now[n], value) for n, value in before.items()), name
    assert trainable(model).keys() == before.keys()


BY_CHANCE = ["audit.thresholds.harmed_nll=9"]
"""What a tiny model knows of its one row of general text, two of its kind need not share."""


def test_an_oracle_passes_beside_another(runs, second_oracle, tmp_path):
    """Here it could fail: no number of the other seed's is its own."""
    folder = shutil.copytree(second_oracle, tmp_path / "second")
    found = audit_run(folder, runs["oracle"], BY_CHANCE, listener=Ear())
    assert (found["outcome"], found["passed"]) == (REMOVED, True), found["sentences"]
    assert found["oracle"] == "given"
    assert len(set(found["weights"].values())) == 3
    rows = rows_of(found, "unlearned", "plain", "plain")
    assert any(row.get("beyond") for row in rows.values())


def test_an_oracle_alone_passes_and_says_that_this_proves_nothing(runs, copied, audited):
    found = audit_run(copied("oracle"), overrides=BY_CHANCE, listener=Ear())
    assert (found["outcome"], found["passed"]) == (REMOVED, True), found["sentences"]
    assert found["oracle"] == "itself"
    assert "passes whatever it knows" in " ".join(found["sentences"])
    beside = rows_of(audited[1], "oracle", "plain", "plain")
    alone = rows_of(found, "unlearned", "plain", "plain")
    assert {p: r["value"] for p, r in beside.items()} == {p: r["value"] for p, r in alone.items()}


@pytest.mark.parametrize("beside", [False, True])
def test_a_model_that_was_not_unlearned_is_called_so(runs, copied, beside):
    attacks = [] if beside else ["audit.attacks=[quantise]"]
    found = audit_run(copied("same"), runs["oracle"] if beside else None, attacks)
    assert found["outcome"] == NOT
    assert not found["passed"]
    assert "Not unlearned" in found["sentences"][0]


def test_the_numbers_are_those_of_the_values(audited):
    folder, found = audited
    values = json.loads((folder / "audit" / "unlearned.quantise.json").read_text())["values"]
    plain = json.loads((folder / "audit" / "unlearned.plain.json").read_text())["values"]
    said = {v["key"]: v["accuracy"] for v in plain}
    rows = [v for v in values if (v["model"], v["side"], v["part"]) == ("int4", "unlearn", "train")]
    row = rows_of(found, "unlearned", "quantise", "int4")["unlearn", "train", "US"]
    assert row["n"] == len(rows) == 4
    assert row["value"] == pytest.approx(100 - 25 * sum(v["accuracy"] for v in rows))
    change = -25 * sum(v["accuracy"] - said[v["key"]] for v in rows)
    assert row["change"] == pytest.approx(change)


def test_without_a_step_nothing_is_relearnt(audited):
    _, found = audited
    plain = rows_of(found, "unlearned", "plain", "plain")["unlearn", "train", "US"]
    start = rows_of(found, "unlearned", "relearn-other", "0")["unlearn", "train", "US"]
    assert start["value"] == plain["value"]
    assert start["n"] == plain["n"]
    few = rows_of(found, "unlearned", "relearn-few", "3")["unlearn", "train", "US"]
    assert few["n"] == plain["n"] - 1  # one of four rows was given away


def test_the_ends_of_the_way_back_are_the_two_models(runs, copied):
    found = audit_run(
        copied("run"), overrides=["audit.attacks=[interpolate]", "audit.interpolate=[0, 1]"]
    )
    for amount, model in (("0", "unlearned"), ("1", "vanilla")):
        way = rows_of(found, "unlearned", "interpolate", amount)
        plain = rows_of(found, model, "plain", "plain")
        assert {p: r["value"] for p, r in way.items()} == {p: r["value"] for p, r in plain.items()}


def test_rows_are_bounded_and_the_same_for_all(copied):
    folder = copied("run")
    found = audit_run(folder, overrides=["audit.max_rows=2", "audit.attacks=[prune]"])
    for entry in found["measured"]:
        assert {row["n"] for row in entry["rows"]} <= {1, 2}
    keys = [
        [v["key"] for v in json.loads(file.read_text())["values"] if v["model"] in ("plain", "0.3")]
        for file in sorted((folder / "audit").glob("*.json"))
        if "inside" not in file.name
    ]
    assert len(keys) == 3
    assert keys[0] == keys[1] == keys[2]


def test_an_attack_that_breaks_the_model_is_told_and_not_kept(copied):
    folder = copied("run")
    found = audit_run(
        folder, overrides=["audit.attacks=[relearn]", "audit.relearn.learning_rate=1e30"]
    )
    assert found["skipped"]
    assert "the attacked model broke: " in found["skipped"][0]["reason"]
    assert "Not tried" in " ".join(found["sentences"])
    assert not (folder / "audit" / "unlearned.relearn-few.json").exists()
