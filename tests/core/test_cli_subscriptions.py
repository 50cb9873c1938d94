"""`thorn subscriptions`: listed, and a secret rotated."""

from __future__ import annotations

import json

import click
import pytest
from api_client import LOCAL, SHARED, URL

from thorn_core import Thorn
from thorn_core.cli.group import run_for


@pytest.fixture
def app():
    with Thorn(dispatcher="outbox", settings=LOCAL) as app:
        yield app


@pytest.fixture
def thorn(app, capfd):
    def thorn(*arguments):
        assert run_for(lambda: app, "subscriptions", arguments) == 0
        return capfd.readouterr().out

    return thorn


def test_a_secret_is_rotated(app, thorn):
    made = app.subscribe("*", URL, owner="7")
    told = thorn("rotate", made.id)
    rotated = app.subscription(made.id)
    assert rotated.secrets[1:] == made.secrets
    assert f"Secret: {rotated.secret}" in told
    assert "keep signing until" in told
    told = json.loads(thorn("rotate", made.id, "--secret", SHARED, "--overlap", "0", "--json"))
    assert app.subscription(made.id).secrets == (SHARED,)
    assert told == {
        "id": made.id,
        "secret": SHARED,
        "public_key": None,
        "former_secrets_until": None,
    }
    assert "revoked" in thorn("rotate", made.id, "--overlap", "0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sub_0"], "no subscription 'sub_0'"),
        (["SUB", "--secret", "short"], "8 to 255 characters"),
        (["SUB", "--overlap", "-1"], "not in the range"),
        (["SUB", "--overlap", "nan"], "not a number"),
    ],
)
def test_what_can_not_be_rotated_is_told(app, thorn, arguments, said):
    made = app.subscribe("*", URL)
    with pytest.raises(click.ClickException) as refusal:
        thorn("rotate", *(made.id if a == "SUB" else a for a in arguments))
    assert said in refusal.value.message
    assert app.subscription(made.id) == made


def test_a_private_key_is_not_printed():
    settings = LOCAL.evolve(signatures=["standard-webhooks-ed25519"])
    with Thorn(dispatcher="outbox", settings=settings) as app:
        made = app.subscribe("*", URL)

        def told(*arguments):
            with pytest.MonkeyPatch.context() as patch:
                printed = []
                patch.setattr("click.echo", lambda text, **_: printed.append(text))
                run_for(lambda: app, "subscriptions", ["rotate", made.id, *arguments, "--json"])
            return printed[0]

        assert "whsk_" not in told()
        assert json.loads(told())["public_key"] == app.subscription(made.id).public_key
