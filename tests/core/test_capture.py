"""Captured messages, by hand and as a fixture."""

from __future__ import annotations

from thorn_core import Event, Thorn
from thorn_core.testing import capture

pytest_plugins = ("pytester",)


def test_captured_messages_go_nowhere():
    with Thorn(dispatcher="inline") as app:
        with capture(app) as sent:
            app.send("article.created", {"n": 1})
            Event("user.created", app=app, dispatcher="background").send()
        assert [m.event for m in sent] == ["article.created", "user.created"]
        assert [m.event for m in sent.of("article.*")] == ["article.created"]
        assert app.messages_to_route() == []
        app.send("article.created")
        assert len(sent) == 2


def test_the_fixture_captures_what_the_default_app_sends(pytester):
    pytester.makepyfile(
        """
        import pytest
        from thorn_core import Thorn

        @pytest.fixture(autouse=True)
        def app():
            with Thorn() as app:
                yield app

        def test_it(app, thorn_messages):
            app.send("article.created", {"n": 1})
            assert [m.payload for m in thorn_messages] == [{"n": 1}]
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
