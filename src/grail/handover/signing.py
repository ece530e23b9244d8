"""Signatures of an attestation: ed25519, by the optional package ``cryptography``."""

from pathlib import Path
from typing import Any

from grail.errors import InputError

ALGORITHM = "ed25519"


def sign(text: bytes, key_file: Path) -> dict[str, str]:
    """Return {"algorithm", "public_key", "value"}, keys and signature as hexadecimal text.

    The key is an ed25519 private one without a passphrase, PEM or OpenSSH; InputError for another,
    or without the package.
    """
    key = _load(key_file, private=True)
    public = key.public_key().public_bytes_raw().hex()
    return {"algorithm": ALGORITHM, "public_key": public, "value": key.sign(text).hex()}


def is_signed(text: bytes, signature: dict[str, str]) -> bool:
    """Tell whether a signature by the key that it names is one of this text."""
    module = _package("exceptions")
    keys = _package("hazmat.primitives.asymmetric.ed25519")
    try:
        key = keys.Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
        key.verify(bytes.fromhex(signature["value"]), text)
    except (module.InvalidSignature, ValueError, KeyError, TypeError):
        return False
    return signature["algorithm"] == ALGORITHM


def public_key_of(key_file: Path) -> str:
    """Return a public key as hexadecimal text: from PEM, OpenSSH, or the text itself."""
    return _load(key_file, private=False).public_bytes_raw().hex()


def _load(path: Path, private: bool) -> Any:
    keys = _package("hazmat.primitives.asymmetric.ed25519")
    serialization = _package("hazmat.primitives.serialization")
    wanted = keys.Ed25519PrivateKey if private else keys.Ed25519PublicKey
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    if private:
        ways = (
            lambda: serialization.load_pem_private_key(content, password=None),
            lambda: serialization.load_ssh_private_key(content, password=None),
        )
    else:
        ways = (
            lambda: serialization.load_pem_public_key(content),
            lambda: serialization.load_ssh_public_key(content),
            lambda: wanted.from_public_bytes(bytes.fromhex(content.decode().strip())),
        )
    for way in ways:
        try:
            key = way()
        except Exception:  # each way has its own errors for what it cannot read
            continue
        if isinstance(key, wanted):
            return key
    kind = "private key without a passphrase" if private else "public key"
    raise InputError(
        f"{path} is no ed25519 {kind}. Make one: openssl genpkey -algorithm ed25519 -out KEYFILE; "
        "its public key: openssl pkey -in KEYFILE -pubout -out PUBLICKEY."
    )


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"cryptography.{name}")
    except ImportError as error:
        raise InputError(
            "Signatures need the package cryptography: pip install 'grail-unlearning[sign]'."
        ) from error
