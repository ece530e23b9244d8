"""What an attestation says of a run: facts, no text of any row."""

import hashlib
import hmac
import json

import pytest

from grail.data.samples import Sample
from grail.errors import InputError
from grail.handover.attestation import content, copies, oracle_facts, row_hash, scope
from grail.handover.evidence import open_evidence, raw
from grail.reporting.audit.lights import lights_table
from grail.reporting.audit.tables import read_audit
from grail.run import manifest

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def run(attested_run):
    return open_evidence(attested_run)


@pytest.fixture(scope="module")
def said(run):
    return content(run, "R", "2026-01-02 03:04:05", KEY, None)


def test_a_row_is_hashed_with_its_turns_prompt_and_answer():
    sample = Sample("d", "unlearn", "train", 0, "Who?", "Mära", (("system", "Be kind."),))
    text = json.dumps([[["system", "Be kind."]], "Who?", "Mära"], ensure_ascii=False)
    wanted = hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()
    assert row_hash(KEY, sample) == wanted != row_hash(KEY[::-1], sample)


def test_the_scope_counts_all_rows_and_hashes_those_to_be_lost(run):
    found, rows = scope(run, KEY), run.context.inputs.samples
    for (domain, side, part), own in {s.place: s for s in rows}.items():
        entry = found[domain][side][part]
        mine = [s for s in rows if s.place == own.place]
        assert entry["rows"] == len(mine)
        hashes = sorted(row_hash(KEY, s) for s in mine) if side == "unlearn" else None
        assert entry.get("hashes") == hashes
    assert "hashes" not in json.dumps(scope(run, None))


def test_digests_are_those_of_the_files(run, said):
    for model, name in (("before", "vanilla"), ("after", "unlearned")):
        wanted = {
            path.relative_to(run.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (run.folder / name).iterdir()
        }
        assert said["models"][model] == wanted
    assert {"mask.safetensors", "results.json", "audit.json", "train.jsonl"} <= set(
        said["evidence"]
    )
    assert not set(said["evidence"]) & {"report.html", "attestation.json", "vanilla/stage.json"}


def test_outcome_attacks_and_harm_are_those_of_the_files(run, said):
    assert said["outcome"] in ("fail", "undecided")
    lights = lights_table(read_audit(run.folder))
    assert [tuple(row) for row in said["attacks"]["rows"]] == list(lights.rows)
    rows = raw(run.folder / "results.json")["rows"]
    for entry in said["harm"]:
        place = {key: entry[key] for key in ("domain", "side", "part", "metric", "n")}
        for model, key in (("vanilla", "before"), ("unlearned", "after")):
            assert {"model": model, **place, "value": entry[key]} in rows
    assert {entry["metric"] for entry in said["harm"]} == {"RS", "NLL"}
    assert any("none was compared" in text for text in said["not_covered"])
    assert "relearn: not asked for." in said["not_covered"]


def test_no_text_of_a_row_is_in_it(run, said):
    text = json.dumps(said)
    for sample in run.context.inputs.samples:
        assert sample.prompt not in text
        assert sample.completion not in text


def test_copies_are_listed_with_what_was_purged(attested):
    before = {entry["what"]: entry for entry in copies(open_evidence(attested))}
    assert before["the model before"]["bytes"] > 0
    assert before["the model before"]["deleted"] is None
    assert "privacy_unlearn_train.jsonl" in before["data files"]["where"]
    manifest.record_purged(attested, ["vanilla/model.safetensors"])
    (attested / "vanilla" / "model.safetensors").unlink()  # what is no weight stays in a purge
    after = {entry["what"]: entry for entry in copies(open_evidence(attested))}
    assert after["the model before"]["deleted"].startswith("20")
    assert after["the model before"]["bytes"] == 0


def test_what_the_model_wrote_by_itself_is_a_copy_too(attested):
    (attested / "evaluation" / "neighbours.json").write_text("{}")
    run = open_evidence(attested)
    assert "evaluation/neighbours.json" in {entry["where"] for entry in copies(run)}


def test_an_oracle_is_that_of_the_audit_or_refused(run, runs):
    audit = read_audit(run.folder)
    assert oracle_facts(run, None, None) is None
    assert oracle_facts(run, audit, None) is None  # it was compared with none
    for folder in (runs["oracle"], run.folder.parent):
        with pytest.raises(InputError, match=r"grail audit .* --oracle"):
            oracle_facts(run, audit, folder)
    own = raw(runs["oracle"] / "unlearned" / "stage.json")["weights"]
    compared = audit | {"oracle": "given", "weights": audit["weights"] | {"oracle": own}}
    facts = oracle_facts(run, compared, runs["oracle"])
    assert (facts["compared"], facts["weights"]) == ("given", own)
    assert "unlearned/model.safetensors" in facts["files"]
