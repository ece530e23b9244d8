"""Audits of tiny runs: what they write, do again, leave as it is, and find."""

import json
import shutil
import statistics
from contextlib import contextmanager

import pytest
import torch
import yaml
from audited_runs import LEARNS

from grail.audit.attacks.registry import attacks_of
from grail.audit.audit import Auditor, audit_run
from grail.audit.founded import unfounded
from grail.audit.runs import read_run
from grail.cli.main import main
from grail.errors import InputError
from grail.files import read_json, write_json
from grail.handover.verify import verify
from grail.model.forward import trainable
from grail.progress import silent
from grail.reporting.audit.knowledge import NOT, REMOVED
from grail.run import manifest

RATES = ("0.00075", "0.003", "0.012")
"""A quarter of the rate of unlearning, that rate, and four times it."""


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
        if path.is_file() and path.name not in (".lock", "manifest.json")
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
    assert read_json(folder / "audit.json") == json.loads(json.dumps(found))
    assert "audit/report.md" in after


def test_a_second_audit_does_nothing(runs, audited):
    folder, _ = audited
    before, ear = files(folder), Ear()
    audit_run(folder, runs["oracle"], listener=ear)
    assert not ear.done
    assert len(ear.kept) > 3 * len(RATES)
    assert files(folder) == before


def test_an_interrupted_audit_goes_on_where_it_stopped_to_the_bytes_of_a_whole_one(
    runs, audited, copied
):
    folder = copied("run")
    with pytest.raises(KeyboardInterrupt):
        audit_run(folder, runs["oracle"], listener=Ear(stop="audit unlearned: relearn-few@0.003"))
    assert not (folder / "audit.json").exists()
    ear = Ear()
    audit_run(folder, runs["oracle"], listener=ear)
    assert {"audit unlearned: quantise", "audit unlearned: relearn-few@0.00075"} <= set(ear.kept)
    assert ear.done[0] == "audit unlearned: relearn-few@0.003"
    assert files(folder) == files(audited[0])


def test_other_settings_do_again_only_what_reads_them(audited, tmp_path):
    folder = shutil.copytree(audited[0], tmp_path / "run")
    ear = Ear()
    audit_run(folder, overrides=["audit.prune=[0.5]"], listener=ear)
    assert ear.done == ["audit unlearned: prune"]
    ear = Ear()
    found = audit_run(
        folder, overrides=["audit.attacks=[prune]", "audit.prune=[0.5]"], listener=ear
    )
    assert not ear.done
    assert {entry["attack"] for entry in found["measured"]} == {"plain", "speak", "prune"}
    assert "relearn (not asked for)" in " ".join(found["sentences"])


@pytest.mark.parametrize("name", ["unlearned.plain.json", "distances.json"])
def test_a_forged_measurement_of_another_shape_is_named(name, audited, tmp_path):
    """All digests are right: whoever can write the folder can make them."""
    folder = shutil.copytree(audited[0], tmp_path / "run")
    file = folder / "audit" / name
    write_json(file, {k: v if k == "inputs" else [] for k, v in read_json(file).items()})
    (folder / "manifest.json").unlink()
    manifest.record(folder)
    with pytest.raises(InputError, match=rf"audit/{name} is damaged"):
        audit_run(folder)


def test_a_model_that_was_unlearned_again_is_measured_again(audited, tmp_path, capsys):
    folder = shutil.copytree(audited[0], tmp_path / "run")
    assert main(["run", str(folder), "--set", "unlearning.epochs=1"]) == 0
    capsys.readouterr()
    ear = Ear()
    found = audit_run(folder, overrides=["audit.attacks=[prune,relearn]"], listener=ear)
    assert {"audit unlearned: prune", "audit unlearned: relearn-few@0.003"} <= set(ear.done)
    assert not [stage for stage in ear.kept if "unlearned" in stage]
    before = json.loads((audited[0] / "audit.json").read_text())
    assert found["weights"]["unlearned"] != before["weights"]["unlearned"]


def test_the_weights_are_back_after_every_attack(runs):
    auditor = Auditor(read_run(runs["run"]), None, Ear())
    context, model = auditor.context, auditor.context.run.model
    context.load("unlearned")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for name, attack in attacks_of(context):
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
    oracle, attacks = (runs["oracle"], "quantise,relearn") if beside else (None, "quantise")
    found = audit_run(copied("same"), oracle, [f"audit.attacks=[{attacks}]"])
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
        assert {place[1] for place in way} == {"train"}, "no one reads val rows under an attack"
        assert {p: r["value"] for p, r in way.items()} == {
            p: r["value"] for p, r in plain.items() if p[1] == "train"
        }


def test_rows_are_bounded_and_the_same_for_all(copied):
    folder = copied("run")
    found = audit_run(folder, overrides=["audit.max_rows=2", "audit.attacks=[prune]"])
    for entry in found["measured"]:
        assert {row["n"] for row in entry["rows"]} <= {1, 2}
    values = {
        file.name: json.loads(file.read_text())["values"]
        for file in (folder / "audit").glob("*.json")
        if "plain" in file.name or "prune" in file.name
    }
    vanilla, unlearned, pruned = (
        [v["key"] for v in values[f"{name}.json"] if v["part"] == "train" and v["model"] != "0.1"]
        for name in ("vanilla.plain", "unlearned.plain", "unlearned.prune")
    )
    assert vanilla == unlearned == pruned


def test_an_attacker_that_breaks_the_model_is_told_and_not_kept(copied):
    """The worst case is then that of the others; with no other, nothing passes."""
    for rates, left in (("[1e30]", set()), ("[1e30,0.003]", {"relearn-few"})):
        folder = copied("run")
        about = ["audit.attacks=[relearn]", f"audit.relearn.learning_rate={rates}"]
        found = audit_run(folder, overrides=about)
        assert "the attacked model broke: " in found["skipped"][0]["reason"]
        assert "relearn-few@1e+30 on unlearned" in found["sentences"][-1]
        assert not (folder / "audit" / "unlearned.relearn-few@1e+30.json").exists()
        measured = {entry["attack"] for entry in found["measured"]}
        assert measured & {"relearn-few"} == left
        shutil.rmtree(folder)


def test_the_worst_case_of_relearning_is_the_largest_over_the_attackers(audited):
    _, found = audited
    for model in ("unlearned", "oracle"):
        for step in ("1", "3"):
            worst = rows_of(found, model, "relearn-other", step)["unlearn", "train", "US"]
            of = {
                rate: rows_of(found, model, f"relearn-other@{rate}", step)["unlearn", "train", "US"]
                for rate in RATES
            }
            assert worst["value"] == min(row["value"] for row in of.values())
            assert of[worst["attacker"]]["value"] == worst["value"]
    own, other = (
        rows_of(found, model, "relearn-other", "3")["unlearn", "train", "US"]
        for model in ("unlearned", "oracle")
    )
    assert own["beyond"] == pytest.approx(own["value"] - other["value"])


def test_the_attacker_may_train_another_part_of_the_model_by_another_optimizer(audited, tmp_path):
    folder, ear = shutil.copytree(audited[0], tmp_path / "run"), Ear()
    about = ["audit.relearn.train=[all,adapter]", "audit.relearn.optimizer=[adamw,sgd]"]
    found = audit_run(folder, overrides=[*about, "audit.attacks=[relearn]"], listener=ear)
    few = [name for name in ear.done if "relearn-few" in name]
    assert len(few) == 9, "those of the first audit are kept"
    words = {"0.003, sgd", "0.002, adapter", "0.0005, adapter, sgd"}
    assert words <= {e["attack"].partition("@")[2] for e in found["measured"]}


def test_an_older_rate_is_one_attacker(copied):
    found = audit_run(
        copied("run"),
        overrides=["audit.attacks=[relearn]", "audit.relearn.learning_rate=0.01"],
    )
    assert {e["attack"] for e in found["measured"] if "few" in e["attack"]} == {
        "relearn-few",
        "relearn-few@0.01",
    }


def test_a_base_that_knows_gives_all_back_when_the_adapter_is_taken_off(tmp_path, runs):
    """The adapter is laid over the finished vanilla model, which knows every row."""
    source = yaml.safe_load((runs["run"] / "config.yaml").read_text())
    source |= {"output": str(tmp_path / "over"), "model": {"name": str(runs["run"] / "vanilla")}}
    source["model"] |= {"lora": {"r": 2}, "dtype": "float32"}
    source["teach"] = None
    source["unlearning"] |= {"learning_rate": 0.02}
    del source["made_with"], source["preset"]
    file = tmp_path / "over.yaml"
    file.write_text(yaml.safe_dump(source))
    assert main(["run", str(file)]) == 0
    found = audit_run(tmp_path / "over", overrides=["audit.attacks=[adapter]"])
    plain = {m: rows_of(found, m, "plain", "plain") for m in ("vanilla", "unlearned")}
    off, half = (rows_of(found, "unlearned", "adapter", amount) for amount in ("off", "0.5"))
    at = ("unlearn", "train", "US")
    assert off[at]["value"] == plain["vanilla"][at]["value"] < plain["unlearned"][at]["value"]
    assert half[at]["n"] == off[at]["n"] == 4
    text = " ".join(found["sentences"])
    assert "adapter taken off" in text
    assert "Give away merged weights only" in text
    assert "Exact retraining" not in text
    assert not found["passed"]


def test_exact_retraining_is_named_with_its_cost_and_a_command_that_runs(audited, runs):
    _, found = audited
    lines = [json.loads(x) for x in (runs["run"] / "train.jsonl").read_text().splitlines()]
    pace = [line["seconds"] for line in lines]
    assert found["seconds"]["unlearned"] == round(statistics.median(pace) * len(pace), 1)
    assert found["retraining"] == "--set preset=exact"
    text = " ".join(found["sentences"])
    assert f"Training took {found['seconds']['unlearned']:g} s here" in text
    dearer = found["seconds"]["oracle"] > found["seconds"]["unlearned"]
    assert ("Exact retraining is possible" in text) != dearer


def test_without_an_oracle_the_guess_of_the_run_is_compared_with_and_can_be_checked(tiny_config):
    """The untaught model guesses; each figure follows from what was measured on each row."""
    settings = LEARNS | {"unlearning": {"objective": "distill", "stop": {"steps": 8}, "epochs": 1}}
    config = tiny_config(name="guessed", **settings)
    folder = config.with_name("guessed")
    assert main(["run", str(config)]) == 0
    measured = read_json(folder / "evaluation" / "guess.json")["values"]
    found = audit_run(folder, None, ["audit.attacks=[quantise]"], Ear())
    assert (found["oracle"], found["guess"]) == ("guess", {"privacy": False})
    guess = rows_of(found, "guess", "plain", "plain")
    for model, attack, amount in (
        ("unlearned", "plain", "plain"),
        ("unlearned", "quantise", "int4"),
    ):
        own = rows_of(found, model, attack, amount)
        for part in ("train", "val") if attack == "plain" else ("train",):
            known = [100 * v["accuracy"] for v in measured if v["part"] == part]
            place = ("unlearn", part, "US")
            assert guess[place]["value"] == pytest.approx(100 - statistics.mean(known))
            beyond = own[place]["value"] - guess[place]["value"]
            assert own[place]["beyond"] == pytest.approx(beyond)
    assert any("counted from the guess" in sentence for sentence in found["sentences"])
    assert unfounded(folder) == []
    assert verify(folder, metrics=True).changes == []
    copy = folder / "audit" / "guess.plain.json"
    content = read_json(copy)
    content["values"][0]["accuracy"] = 1.0
    write_json(copy, content)
    assert any("guess plain" in text for text in unfounded(folder))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_every_attack_is_made_on_a_base_in_few_bits(kind, tiny_config, tmp_path):
    """What no attack touches is what the run's own evaluation found, on the same rounded base."""
    config = tiny_config(
        domains=("privacy",),
        model={"quantise": kind},
        evaluation={"generate": False},
        audit={"relearn": {"steps": [1], "batch_size": 2}},
    )
    run = tmp_path / "run"
    assert main(["run", str(config)]) == 0
    assert main(["audit", str(run)]) == 0
    audit = read_json(run / "audit.json")
    assert [one["attack"] for one in audit["skipped"]] == ["paraphrase"]  # no row carries any
    made = {one["attack"] for one in audit["measured"] if one["model"] == "unlearned"}
    assert {"quantise", "prune", "adapter", "relearn-few", "relearn-other", "sample"} <= made
    for model in ("vanilla", "unlearned"):
        seen = read_json(run / "evaluation" / f"{model}.json")["values"]
        known = {row["key"]: (row["accuracy"], row["nll"]) for row in seen}
        for row in read_json(run / "audit" / f"{model}.plain.json")["values"]:
            if row["side"] == "unlearn":
                assert (row["accuracy"], row["nll"]) == pytest.approx(known[row["key"]])
