"""What is sent in tests of projects is captured, in test cases of every kind; nothing leaves."""

from __future__ import annotations

import io
import unittest
from contextlib import suppress

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from eventing.models import Post

from thorn_core import Event, Thorn, get_app, signals
from thorn_core.testing import LocalRecipient
from thorn_django.models import Message
from thorn_django.testing import WebhookTestMixin, capture

pytest_plugins = ("pytester",)

paid = Event("invoice.paid")
LOCAL = {"THORN_ALLOWED_NETWORKS": ["127.0.0.0/8"], "THORN_ALLOWED_PORTS": range(1, 65536)}


class Boom(Exception):
    """Ends a block."""


class InATransaction(WebhookTestMixin, TestCase):
    """A project's tests, most of which run inside a transaction that never commits."""

    @classmethod
    def setUpTestData(cls):
        cls.post = Post.objects.create(title="before any test")

    def test_what_is_sent_is_there_at_once(self):
        paid.send({"number": 1}, sender="ada")
        assert [m.event for m in self.thorn_messages] == ["invoice.paid"]
        assert len(self.thorn_messages) == 1

    def test_model_events_are_there(self):
        post = Post.objects.create(title="Hello")
        post.title = "Bye"
        post.save()
        self.assertEventSent("post.created")
        message = self.assertEventSent("post.changed")
        assert message.payload["title"] == "Bye"

    def test_what_is_sent_in_atomic_is_there_when_that_ends(self):
        with transaction.atomic():
            paid.send({"number": 1})
            with transaction.atomic():
                paid.send({"number": 2})
            self.assertEventNotSent()
        assert [m.payload["number"] for m in self.thorn_messages] == [1, 2]

    def test_what_is_rolled_back_is_not_there(self):
        with suppress(Boom), transaction.atomic():
            paid.send({"number": 1})
            raise Boom
        with transaction.atomic():
            paid.send({"number": 2})
            with suppress(Boom), transaction.atomic():
                paid.send({"number": 3})
                raise Boom
        self.assertEventSent("invoice.paid", payload={"number": 2})

    def test_what_on_commit_sends_is_there_once_that_is_run(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: paid.send({"number": 1}))
            self.assertEventNotSent()
        assert len(callbacks) == 1  # the program's own
        self.assertEventSent("invoice.paid", payload={"number": 1})

    def test_looking_changes_nothing_for_callbacks_that_are_captured(self):
        ran = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            paid.send({"number": 1})
            self.assertEventSent("invoice.paid")
            transaction.on_commit(lambda: ran.append(1))
            self.assertEventSent("invoice.paid")
        assert (len(callbacks), ran) == (1, [1])
        self.assertEventSent("invoice.paid")

    def test_what_others_do_on_commit_is_left_to_them(self):
        transaction.on_commit(lambda: self.fail("this is not ours to run"))
        paid.send({"number": 1})
        self.assertEventSent("invoice.paid")

    def test_what_was_sent_before_is_left_alone(self):
        told = []

        def tell(app, *, message):
            told.append(message.event)

        with signals.message_sent.connected_to(tell):
            paid.send({"number": 1})
            assert len(self.thorn_messages) == len(self.thorn_messages) == 1
        assert told == ["invoice.paid"]

    def test_nothing_is_kept_in_the_store(self):
        before = Message.objects.count()
        paid.send({"number": 1})
        self.assertEventSent("invoice.paid")
        assert Message.objects.count() == before

    @override_settings(THORN_EVENT_TIMEOUT=7)
    def test_an_app_of_overridden_settings_is_captured_too(self):
        paid.send({"number": 1})
        with self.settings(THORN_EVENT_TIMEOUT=8):
            paid.send({"number": 2})
        paid.send({"number": 3})
        self.assertEventSent("invoice.paid", times=3)

    async def test_asynchronous_tests_see_it_too(self):
        await paid.asend({"number": 1})
        await sync_to_async(paid.send)({"number": 2})
        self.assertEventSent("invoice.paid", times=2)


class WithTransactions(WebhookTestMixin, TransactionTestCase):
    """Tests whose transactions are real."""

    def test_commits_and_rollbacks_are_what_they_are(self):
        with transaction.atomic():
            paid.send({"number": 1})
            self.assertEventNotSent("invoice.*")
        with suppress(Boom), transaction.atomic():
            paid.send({"number": 2})
            raise Boom
        self.assertEventSent("invoice.paid", payload={"number": 1})

    def _fixture_teardown(self):
        """The database is the other tests' too."""


class WithoutDatabase(WebhookTestMixin, SimpleTestCase):
    """Assertions, and what they say."""

    def setUp(self):
        super().setUp()
        self.messages = [
            paid.send({"number": 1}, sender="ada").message,
            paid.send({"number": 2}, sender=7).message,
            Event("order.placed").send("x" * 500).message,
        ]

    databases = "__all__"

    def test_messages_are_a_sequence(self):
        assert self.thorn_messages == self.messages
        assert self.thorn_messages != []
        assert self.thorn_messages[-1] == self.messages[-1]
        assert self.thorn_messages[:2] == self.messages[:2]
        assert self.messages[1] in self.thorn_messages
        self.thorn_messages.clear()
        assert self.thorn_messages == []
        assert not self.thorn_messages

    def test_messages_are_found_by_what_they_say(self):
        of = self.thorn_messages.of
        assert of("invoice.*") == self.messages[:2]
        assert of("*", sender=7) == self.messages[1:2]
        assert of("*", sender=None) == self.messages[2:]
        assert of("*", payload={"number": 1}) == self.messages[:1]
        assert of("*", ref="https://example.com/") == []

    def test_an_assertion_gives_the_message_back(self):
        message = self.assertEventSent("invoice.paid", sender="ada", payload={"number": 1})
        assert message == self.messages[0]

    def test_an_assertion_that_fails_says_what_was_sent(self):
        with pytest.raises(AssertionError, match="sent 2 times instead of 1; of <3 messages>"):
            self.assertEventSent("invoice.paid")
        with pytest.raises(AssertionError, match="sender 'bob': sent 0 times") as caught:
            self.assertEventSent("*", sender="bob")
        assert "invoice.paid {'number': 2} sender='7'" in str(caught.value)
        assert len(str(caught.value)) < 600
        with pytest.raises(AssertionError, match=r"invoice.\*: sent 2 times"):
            self.assertEventNotSent("invoice.*")


CASES = (InATransaction, WithTransactions, WithoutDatabase)
# They are a project's: its runner runs them.
for case in CASES:
    case.__test__ = False
TESTS = [
    (case, name) for case in CASES for name in unittest.defaultTestLoader.getTestCaseNames(case)
]


@pytest.fixture
def own_databases(default_alias, monkeypatch):
    for case in CASES[:2]:
        monkeypatch.setattr(case, "databases", {"default"})


@pytest.mark.usefixtures("own_databases")
@pytest.mark.parametrize(("case", "name"), TESTS, ids=[name for _, name in TESTS])
def test_in_a_test_case(case, name):
    result = unittest.TextTestRunner(io.StringIO()).run(unittest.TestSuite([case(name)]))
    assert result.testsRun == 1
    assert [text for _, text in (*result.failures, *result.errors)] == []


def test_nothing_goes_over_the_network(default_alias):
    with (
        LocalRecipient() as recipient,
        override_settings(THORN_DISPATCHER="inline", **LOCAL),
    ):
        get_app().subscribe("*", recipient.url)
        with capture() as sent:
            paid.send({"number": 1})
            Event("invoice.sent", dispatcher="background").send()
        assert [message.event for message in sent] == ["invoice.paid", "invoice.sent"]
        assert recipient.received == ()
        assert paid.send({"number": 2})
        (request,) = recipient.received
        assert request.json["data"] == {"number": 2}
        assert len(sent) == 2


def test_an_app_may_be_named():
    with Thorn() as app, Thorn() as other, capture(app) as sent:
        Event("a.b", app=app).send()
        Event("a.c", app=other).send()
        assert [message.event for message in sent] == ["a.b"]
        with override_settings(THORN_EVENT_TIMEOUT=5):
            assert [message.event for message in sent] == ["a.b"]


def test_the_fixture_of_pytest_knows_of_transactions_of_tests(pytester):
    pytester.makeconftest(
        """
        import pytest
        from django.conf import settings

        settings.configure(
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "thorn_django"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            USE_TZ=True,
        )
        import django
        django.setup()

        pytest_plugins = ["thorn_django.testing.plugin"]
        """
    )
    pytester.makepyfile(
        """
        from django.db import transaction
        from django.test import TestCase
        from thorn_core import Event
        import pytest

        @pytest.fixture
        def db():
            # As pytest-django does.
            case = type("Case", (TestCase,), {"__test__": False})
            case.setUpClass()
            test = case("run")
            test._pre_setup()
            yield
            test._post_teardown()
            case.tearDownClass()

        def test_it(db, thorn_messages):
            with transaction.atomic():
                Event("invoice.paid").send({"number": 7})
            assert [m.payload for m in thorn_messages] == [{"number": 7}]
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
