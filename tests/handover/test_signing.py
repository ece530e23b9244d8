"""Signatures: round trip, forgery, keys that are none, and the missing package."""

import sys

import pytest

from grail.errors import InputError
from grail.handover import signing


def test_a_signature_is_one_of_its_text_alone(signing_key):
    signature = signing.sign(b"text", signing_key / "private.pem")
    assert signature["public_key"] == signing.public_key_of(signing_key / "public.pem")
    assert signing.is_signed(b"text", signature)
    assert not signing.is_signed(b"Text", signature)
    for key, value in (("value", "00" * 64), ("public_key", "00" * 32), ("value", "no hex")):
        assert not signing.is_signed(b"text", signature | {key: value})
    assert not signing.is_signed(b"text", {})
    assert not signing.is_signed(b"text", signature | {"algorithm": "none"})


def test_a_public_key_may_be_hexadecimal_text_or_openssh(signing_key, tmp_path):
    from cryptography.hazmat.primitives import serialization as formats

    wanted = signing.public_key_of(signing_key / "public.pem")
    key = formats.load_pem_public_key((signing_key / "public.pem").read_bytes())
    ssh = key.public_bytes(formats.Encoding.OpenSSH, formats.PublicFormat.OpenSSH)
    for name, content in (("hex", f"{wanted}\n".encode()), ("ssh", ssh)):
        (tmp_path / name).write_bytes(content)
        assert signing.public_key_of(tmp_path / name) == wanted


@pytest.mark.parametrize("content", [b"", b"no key", b"\xff\x00", b"ab" * 7])
def test_what_is_no_key_is_refused(content, tmp_path, signing_key):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(InputError, match="is no ed25519 private key"):
        signing.sign(b"text", file)
    with pytest.raises(InputError, match="is no ed25519 public key"):
        signing.public_key_of(file)
    with pytest.raises(InputError, match="is no ed25519 private key"):
        signing.sign(b"text", signing_key / "public.pem")
    with pytest.raises(InputError, match="cannot be read"):
        signing.sign(b"text", tmp_path / "none")


def test_without_the_package_it_is_named(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(InputError, match=r"pip install 'grail-unlearning\[sign\]'"):
        signing.sign(b"text", tmp_path / "key")
