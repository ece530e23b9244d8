"""What is recomputed: each forgery of one file, with digests that fit, is named by its check."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from grail import artifacts
from grail.files import write_json, write_text
from grail.handover import recompute
from grail.handover.evidence import open_evidence, raw
from grail.results import Result
from grail.run import directory, manifest


def changed_json(path, change):
    """Change the object in a file and write it as grail would, with its digest."""
    value = raw(path)
    value.pop("sha256")
    change(value)
    write_json(path, value)


@pytest.mark.parametrize("name", recompute.CHECKS)
def test_an_honest_run_differs_in_nothing(name, attested):
    run = open_evidence(attested)
    assert not recompute.CHECKS[name](run)
    assert run.remarks == []


def test_a_mask_that_does_not_follow_from_the_scores_is_named(attested):
    path = attested / "mask.safetensors"
    mask, inputs = artifacts.read_mask(path), artifacts.inputs_of(path)
    entry = next(iter(mask.frozen.values())).view(-1)
    entry[0] = ~entry[0]
    artifacts.write_mask(path, mask, inputs)
    run = open_evidence(attested)
    assert recompute.masks(run) == ["mask.safetensors: 1 entries do not follow from the scores."]
    assert recompute.freezing(run)  # the proof is about other entries


def test_side_masks_and_survivors_are_recomputed(finished, tmp_path):
    from grail.cli.main import main

    reset = {"share": 0.5, "keep": "random", "amount": 1.0}
    config = finished(localization={"freeze": "by_side"}, unlearning={"reset": reset})
    assert main(["run", str(config), "--json"]) == 0
    run = open_evidence(tmp_path / "run")
    assert recompute.masks(run) == recompute.freezing(run) == recompute.reported(run) == []
    path = tmp_path / "run" / "mask.safetensors"
    mask, inputs = artifacts.read_mask(path), artifacts.inputs_of(path)
    next(iter(mask.retain.values())).view(-1)[:2].logical_not_()
    artifacts.write_mask(path, mask, inputs)
    path = path.with_name("survivors.safetensors")
    kept = artifacts.read_mask(path)
    next(iter(kept.frozen.values())).view(-1)[:2].logical_not_()
    artifacts.write_mask(path, kept, inputs)
    said = [text.partition(":")[0] for text in recompute.masks(run)]
    assert said == ["mask.retain.safetensors", "survivors.safetensors"]


def test_a_frozen_entry_that_moved_is_named(attested):
    mask = artifacts.read_mask(attested / "mask.safetensors").frozen
    name = next(name for name, bits in mask.items() if bits.any())
    file = attested / "unlearned" / "model.safetensors"
    weights = load_file(file)
    at = int(mask[name].flatten().nonzero()[0])
    flat = weights[name].view(-1)
    flat[at] = torch.nextafter(flat[at], torch.tensor(torch.inf))
    save_file(weights, file, {"format": "pt"})
    own = directory.weights_digest(file.parent)
    changed_json(file.parent / "stage.json", lambda value: value.update(weights=own))
    run = open_evidence(attested)
    assert recompute.seals(run) == []  # every digest fits
    said = recompute.freezing(run)
    assert "unlearned/: 1 frozen entries are not those of vanilla/." in said
    assert any(text.startswith("results.json: sha256_after of the proof") for text in said)


@pytest.mark.parametrize("key", ["frozen", "entries", "changed"])
def test_an_edited_proof_is_named(key, attested):
    def more(value):
        value["freezing"][key] += 1

    changed_json(attested / "results.json", more)
    run = open_evidence(attested)
    assert any(f"{key} of the proof" in text for text in recompute.freezing(run))
    wanted = "results.json: the proof of freezing is not that of unlearned/stage.json."
    assert wanted in recompute.figures(run)


def test_results_are_compared_row_by_row():
    row = Result("unlearned", "d", "unlearn", "train", "US", 90.0, 4)
    area = Result("unlearned", "d", "unlearn", "train", "AUC-loss", 50.0, 8)
    content = {"rows": [vars(row)], "summary": {"train": {"models": {"unlearned": {}}}}}
    assert recompute.compare_rows(content, [row], True) == []
    (text,) = recompute.compare_rows(content, [row, area], True)
    assert "AUC-loss is not there, evaluation/ gives 50 (n 8)" in text
    assert recompute.compare_rows(content, [row, area], False) == []  # without the rows, no AUC
    (text,) = recompute.compare_rows(content, [Result(**vars(row) | {"n": 5})], True)
    assert "is 90 (n 4), evaluation/ gives 90 (n 5)" in text
    content["summary"]["train"]["Avg"] = 99.0
    (text,) = recompute.compare_rows(content, [row], True)
    assert text == "results.json: the summary of train does not follow from its rows."


def test_edited_samples_are_named(attested):
    samples = attested / "samples.jsonl"
    lines = samples.read_text().splitlines()
    line = json.loads(lines[0]) | {"accuracy": 0.5}
    write_text(samples, "\n".join([json.dumps(line), *lines[1:]]) + "\n")
    said = recompute.figures(open_evidence(attested))
    assert said == [
        "samples.jsonl: its lines do not follow from evaluation/.",
        "results.json: it is not about samples.jsonl as it is.",
    ]


def test_an_edited_verdict_of_an_audit_is_named(attested):
    changed_json(attested / "audit.json", lambda value: value.update(passed=True))
    said = recompute.audited(open_evidence(attested))
    assert said == ["audit.json: passed does not follow from its figures."]


def test_words_of_an_audit_by_another_grail_are_a_remark_and_its_outcome_is_not(attested):
    """Whoever verifies may have a newer grail, which says the same in other words."""
    path = attested / "audit.json"
    changed_json(path, lambda audit: audit["sentences"].append("In words of before."))
    (change,) = recompute.audited(open_evidence(attested))[:1]
    assert change == "audit.json: sentences does not follow from its figures."
    changed_json(path, lambda audit: audit["made_with"].update(grail="0.0.1"))
    run = open_evidence(attested)
    assert recompute.audited(run) == []
    assert run.remarks == ["audit.json: another grail wrote its words."]
    changed_json(path, lambda audit: audit.update(passed=not audit["passed"]))
    assert recompute.audited(run) == ["audit.json: passed does not follow from its figures."]


def test_an_audit_of_an_earlier_model_is_a_remark(attested):
    changed_json(attested / "audit.json", lambda value: value["weights"].update(unlearned="other"))
    run = open_evidence(attested)
    assert recompute.audited(run) == []
    assert run.remarks == ["audit.json: it is about an earlier model or of an older grail."]


def test_an_edited_report_is_named(attested):
    page = attested / "report.html"
    page.write_text(page.read_text().replace("</main>", "Passed.</main>"))
    said = recompute.reported(open_evidence(attested))
    assert said == ["report.html, report.md: they do not say what the files say."]


def test_a_seal_that_does_not_fit_is_named(attested):
    path = attested / "localization.json"
    path.write_text(path.read_text().replace('"model"', '"modes"'))
    said = recompute.seals(open_evidence(attested))
    assert said == ["localization.json: its content does not fit its own digest."]


def test_a_check_whose_files_were_purged_is_left_out_with_a_remark(attested):
    manifest.record_purged(attested, ["scores", "evaluation", "samples.jsonl"])
    run = open_evidence(attested)
    assert recompute.masks(run) == recompute.figures(run) == []
    assert [text.partition(":")[0] for text in run.remarks] == ["mask", "results.json"]
