"""A finished run that was attacked, attested and signed; made once, and copies of it."""

import shutil

import pytest


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory):
    """Folder with an ed25519 key: ``private.pem`` and ``public.pem``."""
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    folder, key = tmp_path_factory.mktemp("keys"), ed25519.Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "private.pem").write_bytes(content)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)
    return folder


@pytest.fixture(scope="session")
def attested_run(runs, signing_key, tmp_path_factory):
    """The folder of a run with an audit and a signed attestation: tests must not change it."""
    from grail.audit.audit import audit_run
    from grail.handover.attest import attest
    from grail.handover.evidence import open_evidence
    from grail.progress import NullListener

    folder = tmp_path_factory.mktemp("attested") / "run"
    shutil.copytree(runs["run"], folder)
    audit_run(folder, None, ["audit.attacks=[quantise]"], NullListener(silent=True))
    attest(open_evidence(folder), "2026-017", folder, sign_with=signing_key / "private.pem")
    return folder


@pytest.fixture
def attested(attested_run, tmp_path):
    """Return a copy that the test may write to."""
    return shutil.copytree(attested_run, tmp_path / "run")
