"""Signature schemes: each signs, and verifies."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core import ConfigurationError, SignatureError
from thorn_core.signatures import (
    SCHEMES,
    HookHMAC,
    Signable,
    check_secret,
    new_ed25519_keypair,
    new_secret,
    sign_all,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOLERANCE = timedelta(minutes=5)
PRIVATE, PUBLIC = new_ed25519_keypair()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEYS = {
    name: (PRIVATE, PUBLIC) if name == "standard-webhooks-ed25519" else (SECRET, SECRET)
    for name in SCHEMES
}
TIMED = ("standard-webhooks", "standard-webhooks-ed25519", "stripe")


def headers_of(name, body, *, secrets=None, at=NOW, identity="msg_1"):
    signable = Signable(id=identity, timestamp=int(at.timestamp()), body=body)
    made = SCHEMES[name].sign(signable, [KEYS[name][0]] if secrets is None else secrets)
    timed = {"webhook-id": identity, "webhook-timestamp": str(signable.timestamp)}
    return {k.lower(): v for k, v in {**timed, **made}.items()}


def verify(name, headers, body, *, secrets=None, now=NOW):
    keys = [KEYS[name][1]] if secrets is None else secrets
    return SCHEMES[name].verify(headers, body, keys, now=now, tolerance=TOLERANCE)


@pytest.mark.parametrize("name", SCHEMES)
@given(body=st.binary(max_size=200))
def test_what_is_signed_verifies(name, body):
    verified = verify(name, headers_of(name, body), body)
    assert (verified.at is None) == (name not in TIMED)
    if verified.at is not None:
        assert verified.at == NOW


@pytest.mark.parametrize("name", SCHEMES)
def test_another_body_is_refused(name):
    headers = headers_of(name, b"{}")
    with pytest.raises(SignatureError, match="no signature of this body"):
        verify(name, headers, b"{ }")


@pytest.mark.parametrize("name", SCHEMES)
def test_another_secret_is_refused(name):
    other = new_ed25519_keypair()[1] if "ed25519" in name else new_secret()
    with pytest.raises(SignatureError):
        verify(name, headers_of(name, b"{}"), b"{}", secrets=[other])
    with pytest.raises(SignatureError):
        verify(name, headers_of(name, b"{}"), b"{}", secrets=[])


@pytest.mark.parametrize("name", [n for n in SCHEMES if n != "github"])
def test_during_a_rotation_either_secret_verifies(name):
    pairs = [new_ed25519_keypair() if "ed25519" in name else (new_secret(),) * 2 for _ in range(2)]
    headers = headers_of(name, b"{}", secrets=[private for private, _ in pairs])
    for _, public in pairs:
        verify(name, headers, b"{}", secrets=[public])
        verify(name, headers, b"{}", secrets=[KEYS[name][1], public])


def test_github_has_room_for_the_newest_secret_only():
    headers = headers_of("github", b"{}", secrets=[PRIVATE, SECRET, new_secret()])
    assert verify("github", headers, b"{}").at is None
    assert SCHEMES["github"].sign(Signable(id="a", timestamp=0, body=b""), [PRIVATE]) == {}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_missing_header_is_named(name):
    headers = headers_of(name, b"{}")
    signature = next(k for k in headers if k not in ("webhook-id", "webhook-timestamp"))
    del headers[signature]
    with pytest.raises(SignatureError, match="is missing"):
        verify(name, headers, b"{}")


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("offset", [-301, 301])
def test_a_time_outside_the_tolerance_is_refused(name, offset):
    headers = headers_of(name, b"{}", at=NOW + timedelta(seconds=offset))
    with pytest.raises(SignatureError, match="too old" if offset < 0 else "in the future"):
        verify(name, headers, b"{}")
    edge = headers_of(name, b"{}", at=NOW + timedelta(seconds=299 if offset > 0 else -299))
    verify(name, edge, b"{}")


@pytest.mark.parametrize("name", ["standard-webhooks", "standard-webhooks-ed25519"])
@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp"])
def test_id_and_time_are_signed_too(name, header):
    headers = headers_of(name, b"{}")
    headers[header] = str(int(NOW.timestamp()) + 1)
    with pytest.raises(SignatureError):
        verify(name, headers, b"{}")


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "٣", "9" * 30])
def test_a_time_that_is_none_is_refused(value):
    headers = headers_of("standard-webhooks", b"{}")
    headers["webhook-timestamp"] = value
    with pytest.raises(SignatureError):
        verify("standard-webhooks", headers, b"{}")


@pytest.mark.parametrize("name", SCHEMES)
@given(value=st.text(max_size=60))
def test_a_signature_of_anything_is_refused(name, value):
    headers = headers_of(name, b"{}")
    signature = next(k for k in headers if k not in ("webhook-id", "webhook-timestamp"))
    headers[signature] = value
    with pytest.raises(SignatureError):
        verify(name, headers, b"{}")


def test_a_stripe_signature_needs_one_time():
    headers = headers_of("stripe", b"{}")
    for value in ("v1=abc", "t=1,t=2,v1=abc"):
        headers["stripe-signature"] = value
        with pytest.raises(SignatureError, match="no timestamp"):
            verify("stripe", headers, b"{}")


@pytest.mark.parametrize("digest", ["sha256", "sha512", "sha1"])
def test_hook_hmac_has_the_digest_of_ones_choice(digest):
    signable = Signable(id="a", timestamp=0, body=b"{}", digest=digest)
    headers = {"hook-hmac": HookHMAC().sign(signable, [SECRET])["Hook-HMAC"]}
    HookHMAC(digest=digest).verify(headers, b"{}", [SECRET], now=NOW, tolerance=TOLERANCE)
    other = "sha1" if digest == "sha256" else "sha256"
    with pytest.raises(SignatureError):
        HookHMAC(digest=other).verify(headers, b"{}", [SECRET], now=NOW, tolerance=TOLERANCE)


def test_signatures_that_share_a_header_stand_side_by_side():
    signable = Signable(id="msg_1", timestamp=int(NOW.timestamp()), body=b"{}")
    made = sign_all(list(SCHEMES.values()), signable, [SECRET, PRIVATE])
    versions = [part.partition(",")[0] for part in made["webhook-signature"].split(" ")]
    assert versions == ["v1", "v1a"]
    assert set(made) == {
        "webhook-signature",
        "Hook-HMAC",
        "X-Hub-Signature-256",
        "Stripe-Signature",
    }


def test_a_secret_of_another_kind_signs_nothing():
    signable = Signable(id="a", timestamp=0, body=b"")
    for name, scheme in SCHEMES.items():
        wrong = SECRET if "ed25519" in name else PRIVATE
        assert scheme.sign(signable, [wrong]) == {}


def test_a_private_key_verifies_what_it_signed():
    headers = headers_of("standard-webhooks-ed25519", b"{}")
    verify("standard-webhooks-ed25519", headers, b"{}", secrets=[PRIVATE])


def test_secrets_that_are_given_are_checked_and_never_shown():
    assert check_secret("a shared text") == "a shared text"
    assert check_secret(SECRET) == SECRET
    assert check_secret(PRIVATE) == PRIVATE
    for bad in (
        "",
        "short",
        "whsec_!!!!!!!!",
        "whsec_YWJj",
        "whsk_YWJj",
        "line\nbreak12",
        12345678,
    ):
        with pytest.raises(ConfigurationError) as refusal:
            check_secret(bad)
        assert not bad or str(bad) not in str(refusal.value)


def test_a_secret_that_is_none_can_not_sign():
    with pytest.raises(ConfigurationError, match="base64"):
        SCHEMES["standard-webhooks"].sign(Signable(id="a", timestamp=0, body=b""), ["whsec_!"])


def test_new_secrets_differ_and_pass_the_check():
    assert check_secret(new_secret()) != new_secret()


def test_without_cryptography_ed25519_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(ConfigurationError, match=r"thorn-core\[ed25519\]"):
        new_ed25519_keypair()
