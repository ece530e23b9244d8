"""An attestation is written, as JSON and as a page, and checked against the run it is about."""

import json
import os
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from grail.errors import InputError
from grail.files import SEAL, read_json, replacing_file, write_json, write_text
from grail.handover import attestation, signing
from grail.handover.evidence import Opened, raw
from grail.reporting.attestation import attestation_page
from grail.reporting.audit.tables import read_audit
from grail.run import manifest
from grail.run.provenance import software

ATTESTATION, PAGE, KEY = "attestation.json", "attestation.html", "attestation.key"
_LONGEST = 200
_MISSHAPEN = (ValueError, LookupError, TypeError, AttributeError, RecursionError, TemplateError)
"""What reading, or filling the page, raises where the content is of another shape."""


def attest(
    run: Opened,
    request: str,
    output: Path,
    oracle: Path | None = None,
    sign_with: Path | None = None,
) -> dict[str, Any]:
    """Write ``attestation.json``, ``attestation.html`` and the key of its hashes; return the JSON.

    The run was verified before. ``request`` is the request's id, ``output`` the folder to write to,
    ``oracle`` the directory of the oracle that the audit was made with, and ``sign_with`` a file
    with an ed25519 private key.

    Raises:
        InputError: if the id is none, the rows are not there, or a key cannot be read.
    """
    check_request(request)
    if not run.has_rows:
        raise InputError(
            f"{run.folder}: {'; '.join(run.remarks[:1])}. Attest before rows are deleted."
        )
    facts = attestation.oracle_facts(run, read_audit(run.folder), oracle)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    found = attestation.content(run, request, now, row_key(output / KEY), facts)
    if sign_with is not None:
        found["signature"] = signing.sign(_text(found), sign_with)
    write_text(output / PAGE, attestation_page(found))
    write_json(output / ATTESTATION, found)
    return found


def check_request(request: str) -> None:
    """Refuse an id that is empty, long, or not printable."""
    if not request.strip() or len(request) > _LONGEST or not request.isprintable():
        raise InputError(
            f"--request: give an id of 1 to {_LONGEST} printable characters, such as 2026-017; it "
            "stands on the page, so do not write a name into it."
        )


def check_attestation(
    file: Path, run: Opened | None, public_key: Path | None
) -> tuple[list[str], list[str]]:
    """Check an attestation: itself, its signature, its page, and the run, if that is there.

    ``public_key`` is a file with the key that must have signed; InputError if it cannot be read.
    Return a sentence for each change, and remarks on what was not checked.
    """
    try:
        found = raw(file)
        content = {key: value for key, value in found.items() if key not in (SEAL, "signature")}
        page = attestation_page({k: v for k, v in found.items() if k != SEAL}).encode()
        made = dict(content["made_with"])
        maker = str(made["grail"])
    except (OSError, *_MISSHAPEN):
        return [f"{file.name} is damaged: it cannot be read as an attestation."], []
    changes, remarks = _signed(content, found.get("signature"), file, public_key)
    try:
        read_json(file)
    except ValueError:
        changes.append(f"{file.name}: its content does not fit its own digest.")
    shown = file.with_name(PAGE)
    same = {key: made.get(key) for key in software()} == software()
    if not same:
        remarks.append(f"{file.name}: another grail ({maker}) wrote its words.")
    elif shown.exists() and shown.read_bytes() != page:
        changes.append(f"{PAGE}: it does not say what {file.name} says.")
    if run is not None:
        compared = attestation.DERIVED if same else attestation.FIGURES
        try:
            more, open_questions = _about_run(content, file, run, set(compared))
        except Exception as error:  # what was forged can fail in any way
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            more, open_questions = [f"{file.name}: cannot be made again ({reason})."], []
        changes, remarks = [*changes, *more], [*remarks, *open_questions]
    return changes, remarks


def _about_run(
    content: Mapping[str, Any], file: Path, run: Opened, compared: set[str]
) -> tuple[list[str], list[str]]:
    """Make what is compared of an attestation again from the run."""
    recorded, remarks = manifest.entries(run.folder), []
    known = content["models"]["before"] | content["models"]["after"] | content["evidence"]
    changes = [
        f"{name}: {file.name} knows it with SHA-256 {sha}, {manifest.MANIFEST} with "
        f"{recorded.get(name, {}).get('sha256', 'none')}."
        for name, sha in known.items()
        if recorded.get(name, {}).get("sha256") != sha
    ]
    key_file = file.with_name(KEY)
    key = _read_key(key_file) if key_file.exists() else None
    again = attestation.content(run, content["request"], content["date"], key, content["oracle"])
    if key is None or not run.has_rows:
        compared -= {"scope"}
        remarks.append(f"{file.name}: the hashes of rows were not compared, key or rows are gone.")
    changes += [
        f"{file.name}: {name} does not follow from the run"
        + (f", its rows and {KEY}." if name == "scope" else ".")
        for name in sorted(compared)
        if again[name] != content.get(name)
    ]
    return changes, remarks


def _signed(
    content: Mapping[str, Any], signature: Any, file: Path, public_key: Path | None
) -> tuple[list[str], list[str]]:
    if signature is None:
        changes = [] if public_key is None else [f"{file.name} is not signed."]
        return changes, [f"{file.name} is not signed: it shows accidents, not forgery."]
    wanted = None if public_key is None else signing.public_key_of(public_key)
    if not signing.is_signed(_text(content), signature):
        return [f"{file.name}: the signature is not one of this content."], []
    if wanted not in (None, signature["public_key"]):
        return [f"{file.name} was signed by another key: {signature['public_key']}."], []
    by = f"{file.name}: signed by {signature['public_key']}"
    return [], [] if wanted else [f"{by}; whose key this is, --key tells."]


def _text(content: Mapping[str, Any]) -> bytes:
    """Return what is signed: the content as JSON with sorted keys."""
    return json.dumps(content, sort_keys=True, ensure_ascii=False).encode()


def row_key(path: Path) -> bytes:
    """Return the secret that rows are hashed with, readable by its owner alone; make it once."""
    if not path.exists():
        with replacing_file(path) as partial:
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
    elif os.name == "posix" and path.stat().st_mode & 0o077:
        raise InputError(f"{path} can be read by others. Take that away: chmod 600 {path}")
    key = _read_key(path)
    if len(key) != 32:
        raise InputError(f"{path} is damaged. Delete it; the hashes are then new ones.")
    return key


def _read_key(path: Path) -> bytes:
    try:
        return bytes.fromhex(path.read_text(encoding="utf-8").strip())
    except ValueError:  # not the key any more: no row has such a hash
        return b""
