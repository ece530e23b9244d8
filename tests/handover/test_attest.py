"""Attestations are written, and checked against the run that they are about."""

import os
import stat

import pytest

from grail.errors import InputError
from grail.files import read_json, write_json
from grail.handover.attest import attest, check_attestation, check_request
from grail.handover.evidence import open_evidence
from grail.reporting.attestation import attestation_page

FILE, PAGE, KEY = "attestation.json", "attestation.html", "attestation.key"


def test_both_files_say_the_same_and_the_key_is_the_owners_alone(finished_run, tmp_path):
    made = attest(open_evidence(finished_run), "R-1", tmp_path)
    assert read_json(tmp_path / FILE) == made
    assert (tmp_path / PAGE).read_text() == attestation_page(made)
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert (tmp_path / KEY).read_text().strip() not in (tmp_path / PAGE).read_text()
    assert "signature" not in made
    changes, remarks = check_attestation(tmp_path / FILE, open_evidence(finished_run), None)
    assert changes == []
    assert remarks == ["attestation.json is not signed: it shows accidents, not forgery."]


def test_the_key_is_kept_so_that_hashes_stay_the_same(finished_run, tmp_path):
    one, two = (attest(open_evidence(finished_run), "R", tmp_path)["scope"] for _ in range(2))
    assert one == two
    other = attest(open_evidence(finished_run), "R", tmp_path / "other")["scope"]
    assert one != other
    os.chmod(tmp_path / KEY, 0o644)
    with pytest.raises(InputError, match="chmod 600"):
        attest(open_evidence(finished_run), "R", tmp_path)
    (tmp_path / KEY).write_text("short")
    os.chmod(tmp_path / KEY, 0o600)
    with pytest.raises(InputError, match="is damaged"):
        attest(open_evidence(finished_run), "R", tmp_path)


@pytest.mark.parametrize("request_id", ["", "  ", "a\nb", "x" * 201, "\x00"])
def test_an_id_that_is_none_is_refused(request_id, finished_run, tmp_path):
    with pytest.raises(InputError, match="--request"):
        check_request(request_id)
    with pytest.raises(InputError, match="--request"):
        attest(open_evidence(finished_run), request_id, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "change", "named"),
    [
        ("outcome", lambda _: "pass", "outcome does not follow"),
        ("harm", lambda rows: [row | {"after": 100.0} for row in rows], "harm does not follow"),
        ("not_covered", lambda texts: texts[1:], "not_covered does not follow"),
        ("next", lambda texts: texts[1:], "next does not follow"),
        ("scope", lambda scope: dict(list(scope.items())[:1]), "scope does not follow"),
        ("evidence", lambda files: files | {"results.json": "0" * 64}, "results.json: attest"),
        ("models", lambda both: both | {"after": {"unlearned/x": "0" * 64}}, "unlearned/x: attest"),
    ],
)
def test_a_forger_who_makes_all_digests_anew_is_found_out(
    key, change, named, finished_run, tmp_path
):
    made = attest(open_evidence(finished_run), "R", tmp_path)
    forged = made | {key: change(made[key])}
    write_json(tmp_path / FILE, forged)
    (tmp_path / PAGE).write_text(attestation_page(forged))
    changes, _ = check_attestation(tmp_path / FILE, open_evidence(finished_run), None)
    assert any(named in text for text in changes), changes


def test_signatures_tell_who_attested(finished_run, tmp_path, signing_key):
    run = open_evidence(finished_run)
    made = attest(run, "R", tmp_path, sign_with=signing_key / "private.pem")
    file, public = tmp_path / FILE, signing_key / "public.pem"
    assert made["signature"]["public_key"] in (tmp_path / PAGE).read_text()
    assert check_attestation(file, run, public) == ([], [])
    changes, remarks = check_attestation(file, run, None)
    assert changes == []
    assert "whose key this is, --key tells" in remarks[0]
    other = tmp_path / "other.hex"
    other.write_text("11" * 32)
    (text,), _ = check_attestation(file, run, other)
    assert text.startswith("attestation.json was signed by another key")
    del made["signature"]
    write_json(file, made)
    (tmp_path / PAGE).unlink()
    assert check_attestation(file, run, public)[0] == ["attestation.json is not signed."]


def test_without_the_rows_nothing_is_attested(finished, tmp_path):
    finished()
    (tmp_path / "data" / "privacy_unlearn_train.jsonl").unlink()
    with pytest.raises(InputError, match="Attest before rows are deleted"):
        attest(open_evidence(tmp_path / "run"), "R", tmp_path / "out")


def test_an_attestation_of_another_grail_is_checked_by_its_digests(finished_run, tmp_path):
    made = attest(open_evidence(finished_run), "R", tmp_path)
    made["made_with"]["grail"] = "0.0.1"
    made["headline"] = "in the words of another grail."
    write_json(tmp_path / FILE, made)
    run = open_evidence(finished_run)
    changes, remarks = check_attestation(tmp_path / FILE, run, None)
    assert changes == []
    assert remarks[-1] == "attestation.json: another grail (0.0.1) wrote its words."
    made["harm"][0]["after"] += 1
    write_json(tmp_path / FILE, made)
    (text,), _ = check_attestation(tmp_path / FILE, run, None)
    assert text == "attestation.json: harm does not follow from the run."


def test_a_run_that_cannot_be_read_is_a_change(finished_run, tmp_path, monkeypatch):
    attest(open_evidence(finished_run), "R", tmp_path)
    monkeypatch.setattr("grail.handover.attestation.content", lambda *_: {}["outcome"])
    (text,), _ = check_attestation(tmp_path / FILE, open_evidence(finished_run), None)
    assert text == "attestation.json: cannot be made again (KeyError: 'outcome')."


@pytest.mark.parametrize(
    "change",
    [
        {"headline": None},
        {"made_with": {}},
        {"made_with": 3},
        {"attacks": [["one"]]},
        {"models": ""},
    ],
    ids=str,
)
def test_an_attestation_of_another_shape_is_damaged(change, finished_run, tmp_path):
    made = attest(open_evidence(finished_run), "R", tmp_path)
    wrong = {k: v for k, v in (made | change).items() if v is not None}
    write_json(tmp_path / FILE, wrong)  # with a right digest of itself
    changes, _ = check_attestation(tmp_path / FILE, None, None)
    assert changes == ["attestation.json is damaged: it cannot be read as an attestation."]
