"""Whether every change of a run and of its attestation is named."""

import json
import random
import shutil

import pytest
import yaml

from grail.config.values import EMBEDDED
from grail.errors import InputError
from grail.files import read_json, write_json
from grail.handover import verify as module
from grail.handover.attest import ATTESTATION, check_attestation
from grail.handover.verify import near, verify
from grail.run import manifest


def flip(path, at=-1):
    """Flip the lowest bit of one byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def edit(path, *keys):
    """Add 1 to a number inside a JSON file, and leave all digests as they are."""
    value = inner = json.loads(path.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] += 1
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def test_an_honest_run_passes(attested, signing_key):
    found = verify(attested, metrics=True, public_key=signing_key / "public.pem")
    assert found.changes == []
    assert found.remarks == []
    assert found.absent == ["general tasks"]
    assert len(found.checked) == len(module.CHECKS) - 1 + 3  # manifest, metrics, attestation


def test_further_checks_are_made_and_named(attested):
    also = {"two and two": lambda folder: [f"{folder.name}: four"], "broken": lambda _: 1 / 0}
    found = verify(attested, also=also)
    assert found.changes[0] == "run: four"
    assert found.changes[1].startswith("broken: could not be recomputed (ZeroDivisionError")
    assert "two and two" in found.checked


TAMPERINGS = {
    "mask": ("mask.safetensors", flip),
    "weights": ("unlearned/model.safetensors", flip),
    "results": ("results.json", lambda file: edit(file, "rows", 0, "value")),
    "audit": ("audit.json", lambda file: edit(file, "measured", 0, "rows", 0, "value")),
    "scores": ("scores/privacy.unlearn.safetensors", flip),
    "tokenizer": ("unlearned/tokenizer.json", lambda file: flip(file, 99)),
    "settings": ("config.yaml", lambda file: file.write_text(file.read_text() + "# x\n")),
    "evaluation": ("evaluation/unlearned.json", lambda file: edit(file, "values", 0, "nll")),
    "attestation": ("attestation.json", lambda file: edit(file, "harm", 0, "after")),
    "log": ("train.jsonl", lambda file: flip(file, 9)),
    "page": ("attestation.html", lambda file: file.write_text(file.read_text() + " ")),
    "key": ("attestation.key", lambda file: file.write_text("00" * 32)),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_change_is_named(what, attested):
    name, tamper = TAMPERINGS[what]
    tamper(attested / name)
    changes = verify(attested).changes
    assert any(name in text for text in changes), changes


def test_a_changed_signature_is_named(attested, signing_key):
    file = attested / ATTESTATION
    value = read_json(file)
    flipped = int(value["signature"]["value"][0], 16) ^ 1
    value["signature"]["value"] = f"{flipped:x}{value['signature']['value'][1:]}"
    write_json(file, value)
    assert "attestation.json: the signature is not one of this content." in verify(attested).changes


def test_a_changed_row_of_the_data_is_named(attested, tmp_path):
    settings = yaml.safe_load((attested / "config.yaml").read_text())
    file = tmp_path / "lose.jsonl"
    unlearn = settings["domains"]["privacy"]["unlearn"]
    shutil.copy(unlearn["train"], file)
    unlearn["train"] = str(file)
    (attested / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    record_anew(attested)
    (attested / "attestation.json").unlink()
    assert not [text for text in verify(attested).changes if text.startswith("data")]
    content = file.read_text()
    file.write_text(content.replace("?", "!", 1))
    wanted = "data: the rows of privacy.unlearn.train are not those of the run."
    assert wanted in verify(attested).changes
    file.write_text(content.replace("{", "[", 1))
    assert any(
        text.startswith("data: domains.privacy.unlearn") for text in verify(attested).changes
    )
    file.unlink()  # deleted, as the request may ask for: nothing was changed
    assert not [text for text in verify(attested).changes if text.startswith("data")]


def record_anew(folder):
    """Make the manifest again, as a forger would."""
    (folder / "manifest.json").unlink()
    manifest.record(folder)


@pytest.fixture
def with_shipped_text(finished, tmp_path):
    """A finished run whose general text is the embedded one, as it is by default."""
    finished()
    run = tmp_path / "run"
    text = (run / "config.yaml").read_text().replace(str(tmp_path / "data/general.jsonl"), EMBEDDED)
    manifest.drop(run, "config.yaml")
    (run / "config.yaml").write_text(text)
    manifest.record(run)
    return run


def test_a_row_that_cannot_be_read_any_more_is_a_change(with_shipped_text, tmp_path):
    file = tmp_path / "data" / "privacy_unlearn_train.jsonl"
    file.write_text(file.read_text().replace('"}', '"', 1))
    found = verify(with_shipped_text)
    assert found.changes[0].startswith("data: domains.privacy.unlearn.train: ")
    assert "data and model" not in found.checked


def test_rows_and_a_model_that_were_deleted_are_remarks(finished, tmp_path, tiny_model_folder):
    finished()
    run = tmp_path / "run"
    shutil.copytree(tiny_model_folder, tmp_path / "given")
    text = (
        (run / "config.yaml").read_text().replace(str(tiny_model_folder), str(tmp_path / "given"))
    )
    manifest.drop(run, "config.yaml")
    (run / "config.yaml").write_text(text)
    manifest.record(run)
    (tmp_path / "data" / "privacy_unlearn_train.jsonl").unlink()
    shutil.rmtree(tmp_path / "given")
    found = verify(run)
    assert [text for text in found.changes if not text.startswith("report")] == []
    assert any("given is not on this machine" in text for text in found.remarks)
    assert "data and model" not in found.checked


def test_figures_that_were_edited_with_all_digests_do_not_follow(attested):
    """Whoever edits a figure and every digest is found out by what the figure follows from."""
    results = json.loads((attested / "results.json").read_text())
    row = next(r for r in results["rows"] if (r["model"], r["metric"]) == ("unlearned", "US"))
    before, row["value"] = row["value"], 100.0
    del results["sha256"]
    write_json(attested / "results.json", results)
    record_anew(attested)
    place = " ".join(row[key] for key in ("model", "domain", "side", "part", "metric"))
    changes = verify(attested).changes
    told = [text for text in changes if text.startswith(f"results.json: {place} is 100 ")]
    assert len(told) == 1
    assert f"evaluation/ gives {before:g} " in told[0]
    assert f"results.json: the summary of {row['part']} does not follow from its rows." in changes
    assert "report.html, report.md: they do not say what the files say." in changes


def test_a_flipped_byte_anywhere_is_named(attested):
    """A seeded loop over all files; the manifest and the attestation see each by itself."""
    draw, file = random.Random(17), attested / ATTESTATION
    names = [*manifest.files_of(attested), "manifest.json", ATTESTATION, "attestation.html"]
    assert len(names) > 30
    assert check_attestation(file, None, None)[0] == []
    for _ in range(40):
        path = attested / draw.choice(names)
        content = path.read_bytes()
        at = draw.randrange(len(content))
        changed = content[:at] + bytes([content[at] ^ draw.randrange(1, 256)]) + content[at + 1 :]
        path.write_bytes(changed)
        said = [*manifest.problems(attested), *check_attestation(file, None, None)[0]]
        name = path.relative_to(attested).as_posix()
        same = name.endswith(".json") and equal_json(content, changed)
        assert same or any(name in text for text in said), (name, at, content[at : at + 9])
        path.write_bytes(content)


def equal_json(one, other):
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_what_was_purged_is_no_change(attested):
    gone = ["vanilla", "scores"]
    manifest.record_purged(attested, gone)
    for name in gone:
        shutil.rmtree(attested / name)
    found = verify(attested)
    assert found.changes == []
    assert any(text.startswith("vanilla/model.safetensors: purged on 20") for text in found.remarks)
    assert any(text.startswith("mask: not recomputed, scores/") for text in found.remarks)
    with pytest.raises(InputError, match="cannot be measured again"):
        verify(attested, metrics=True)


def test_an_attestation_is_checked_without_its_run(attested, tmp_path, signing_key):
    alone = tmp_path / "alone.json"
    shutil.copy(attested / ATTESTATION, alone)
    found = verify(alone, public_key=signing_key / "public.pem")
    assert (found.changes, found.checked) == ([], ["attestation"])
    edit(alone, "harm", 0, "after")
    assert "alone.json: the signature is not one of this content." in verify(alone).changes
    with pytest.raises(InputError, match="not a run directory"):
        verify(alone, metrics=True)
    alone.write_text("{}")
    assert verify(alone).changes == ["alone.json is damaged: it cannot be read as an attestation."]


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        verify(tmp_path / "none")
    with pytest.raises(InputError, match="not a run directory"):
        verify(tmp_path)


def test_figures_measured_again_are_compared(attested, monkeypatch):
    results = module.raw(attested / "results.json")
    row = next(row for row in results["rows"] if row["metric"] == "NLL")
    kept = row["value"]
    row["value"] += 0.5
    monkeypatch.setattr(module, "raw", lambda _: results)
    (text,) = module.measured_again(module.open_evidence(attested), module.NullListener())
    assert text.startswith(f"results.json: {row['model']} {row['domain']} ")
    assert f"is {row['value']}, measured again {kept}" in text


def test_rounding_is_no_difference():
    assert near(85.0, 85.04)
    assert not near(85.0, 86.0)
    assert near(2000.0, 2001.0)
    assert near(None, None)
    assert not near(None, 0.0)


def test_a_run_that_is_not_finished_is_refused_unless_something_was_changed(attested):
    (attested / "results.json").unlink()
    (attested / ATTESTATION).unlink()
    found = verify(attested)
    assert "results.json is missing." in found.changes
    assert found.remarks[0].startswith("nothing was recomputed: ")
    manifest.record(attested, "results.json")  # as a run leaves it that was stopped before
    with pytest.raises(InputError, match="is not finished"):
        verify(attested)
