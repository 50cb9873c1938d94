"""Signature schemes: each signs, and verifies."""

from __future__ import annotations

import base64
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
    check_key,
    make_keys,
    new_ed25519_keypair,
    new_secret,
    sign_all,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOLERANCE = timedelta(minutes=5)
# The same in each of pytest's processes, as the ids of tests have to be.
PRIVATE = "whsk_" + base64.b64encode(bytes(range(32))).decode()
PUBLIC = SCHEMES["standard-webhooks-ed25519"].public_key(PRIVATE)
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


def test_without_a_key_of_its_own_a_scheme_makes_no_signature_and_no_request_is_signed():
    signable = Signable(id="a", timestamp=0, body=b"")
    for name, scheme in SCHEMES.items():
        wrong = SECRET if "ed25519" in name else PRIVATE
        for secrets in ([wrong], [PUBLIC], []):
            assert not scheme.sign(signable, secrets)
            with pytest.raises(ConfigurationError, match="no key to sign with"):
                sign_all([scheme], signable, secrets)


def test_nothing_is_signed_if_a_scheme_signs_nothing():
    class Silent:
        name = "silent"

        def sign(self, signable, secrets):
            return {}

    with pytest.raises(ConfigurationError, match="silent has no key"):
        schemes = [SCHEMES["standard-webhooks"], Silent()]
        sign_all(schemes, Signable(id="a", timestamp=0, body=b""), [SECRET])


def test_a_private_key_verifies_what_it_signed():
    headers = headers_of("standard-webhooks-ed25519", b"{}")
    verify("standard-webhooks-ed25519", headers, b"{}", secrets=[PRIVATE])


DEFAULT = [SCHEMES["standard-webhooks"], SCHEMES["hook-hmac"]]
TEXTS = [SCHEMES[name] for name in ("hook-hmac", "github", "stripe")]
ED25519 = [SCHEMES["standard-webhooks-ed25519"]]
RAW = SECRET.removeprefix("whsec_")


@pytest.mark.parametrize(
    ("schemes", "secret"),
    [
        (DEFAULT, SECRET),
        (DEFAULT, RAW),
        (DEFAULT, "whsec_" + base64.b64encode(b"x" * 24).decode()),
        (DEFAULT, "whsec_" + base64.b64encode(b"x" * 64).decode()),
        (TEXTS, "C=JTX)v3~dQ"),
        (TEXTS, "It's a Secret to Everybody"),
        (TEXTS, SECRET),
        (ED25519, PRIVATE),
        (DEFAULT + ED25519, SECRET),
        (DEFAULT + ED25519, PRIVATE),
        ([], "It's a Secret to Everybody"),
    ],
)
def test_a_key_that_every_scheme_can_sign_with_is_taken(schemes, secret):
    check_key(schemes, secret)
    assert secret in make_keys(schemes, secret)


@pytest.mark.parametrize(
    ("schemes", "secret", "why"),
    [
        *((schemes, "", "8 to 255 characters") for schemes in (DEFAULT, TEXTS, ED25519, [])),
        *((schemes, "short", "8 to 255 characters") for schemes in (DEFAULT, TEXTS)),
        *((schemes, "x" * 256, "8 to 255 characters") for schemes in (DEFAULT, TEXTS)),
        *((schemes, 12345678, "must be a string") for schemes in (DEFAULT, TEXTS, ED25519)),
        *((schemes, SECRET.encode(), "must be a string") for schemes in (DEFAULT, TEXTS)),
        *((schemes, " " + SECRET, "white space") for schemes in (DEFAULT, TEXTS)),
        *((schemes, SECRET + "\n", "white space") for schemes in (DEFAULT, TEXTS)),
        (TEXTS, "a secret\N{NO-BREAK SPACE}", "white space"),
        (TEXTS, "line\nbreak12", "unprintable character"),
        (TEXTS, "zero\N{ZERO WIDTH SPACE}width", "unprintable character"),
        (TEXTS, "half \ud800 a character", "unprintable character"),
        *((schemes, "v1," + SECRET, "begins with 'v1,'") for schemes in (DEFAULT, TEXTS)),
        *((schemes, PUBLIC, "public key") for schemes in (DEFAULT, TEXTS)),
        (ED25519, PUBLIC, "whsk_ followed by base64"),
        *((schemes, PRIVATE, "add standard-webhooks-ed25519") for schemes in (DEFAULT, TEXTS)),
        (ED25519, SECRET, "whsk_ followed by base64"),
        (ED25519, "whsk_YWJj", "whsk_ followed by base64"),
        (ED25519, "whsk_" + base64.b64encode(b"x" * 64).decode(), "whsk_ followed by base64"),
        (DEFAULT + ED25519, PUBLIC, "public key"),
        (DEFAULT, "whsec_!!!!!!!!", "must be whsec_ followed by base64 of 24 to 64 bytes"),
        (DEFAULT, "a shared text", "base64 of 24 to 64 bytes"),
        (DEFAULT, RAW.lower() + "=", "base64 of 24 to 64 bytes"),
        (DEFAULT, "whsec_" + base64.b64encode(b"x" * 23).decode(), "base64 of 24 to 64 bytes"),
        (DEFAULT, "whsec_" + base64.b64encode(b"x" * 65).decode(), "base64 of 24 to 64 bytes"),
        # Without padding, for URLs, and with bits that decoders drop or refuse.
        (DEFAULT, "whsec_" + 34 * "A", "base64 of 24 to 64 bytes"),
        (DEFAULT, "whsec_" + 31 * "A" + "-", "base64 of 24 to 64 bytes"),
        (DEFAULT, "whsec_" + 34 * "A" + "B=", "base64 of 24 to 64 bytes"),
        (TEXTS, "whsec_YWJj", "base64 of 24 to 64 bytes"),
    ],
)
def test_a_key_that_a_scheme_can_not_sign_with_is_refused_and_not_shown(schemes, secret, why):
    with pytest.raises(ConfigurationError, match=why) as refusal:
        check_key(schemes, secret)
    assert not secret or str(secret) not in str(refusal.value)


def test_the_private_key_may_come_with_its_public_one():
    both = base64.b64decode(PRIVATE.removeprefix("whsk_")) + base64.b64decode(
        PUBLIC.removeprefix("whpk_")
    )
    secret = "whsk_" + base64.b64encode(both).decode()
    check_key(ED25519, secret)
    assert ED25519[0].public_key(secret) == PUBLIC


def test_keys_are_minted_for_the_schemes_in_use():
    assert make_keys(DEFAULT) != make_keys(DEFAULT)
    assert [key[:6] for key in make_keys(DEFAULT)] == ["whsec_"]
    assert [key[:6] for key in make_keys(TEXTS)] == ["whsec_"]
    assert [key[:5] for key in make_keys(ED25519)] == ["whsk_"]
    assert [key[:4] for key in make_keys(ED25519 + DEFAULT)] == ["whse", "whsk"]
    for schemes in (DEFAULT, TEXTS, ED25519, DEFAULT + ED25519, []):
        for key in make_keys(schemes):
            check_key(schemes, key)


def test_beside_a_given_key_the_one_of_the_other_kind_stays_or_is_minted():
    schemes, current = DEFAULT + ED25519, make_keys(DEFAULT + ED25519)
    assert make_keys(schemes, SECRET, current=current) == (SECRET, current[1])
    assert make_keys(schemes, PRIVATE, current=current) == (current[0], PRIVATE)
    kept, minted = make_keys(schemes, SECRET, current=[SECRET])
    assert kept == SECRET
    assert minted.startswith("whsk_")
    # A text that was taken when other schemes were in use signs nothing now.
    replaced, _ = make_keys(schemes, PRIVATE, current=["a shared text"])
    assert replaced.startswith("whsec_")


def test_schemes_that_have_no_key_in_common_are_named():
    class Digits:
        name = "digits"

        def mint(self):
            return "12345678"

        def check(self, secret):
            if not secret.isdigit():
                raise ConfigurationError("use digits")

    assert make_keys([Digits(), SCHEMES["hook-hmac"]]) == ("12345678",)
    with pytest.raises(ConfigurationError, match="schemes digits, standard-webhooks; remove one"):
        make_keys([Digits(), SCHEMES["standard-webhooks"]])


def test_without_cryptography_ed25519_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    for make in (new_ed25519_keypair, lambda: make_keys(ED25519)):
        with pytest.raises(ConfigurationError, match=r"thorn-core\[ed25519\]"):
            make()
