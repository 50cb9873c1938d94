"""Settings of a project: the app made of them, and what the system checks say."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import get_args

import attrs
import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections
from django.test import override_settings
from magazine_project import DATABASES

import thorn_core
from thorn_core import ConfigurationError, Event, MemoryStore, StoreSetupError, Thorn
from thorn_core.checks import FindingName
from thorn_core.testing.store_contract import NOW, make_message, make_subscription
from thorn_django import get_app
from thorn_django.checks import FINDINGS
from thorn_django.outboxes import NEEDED
from thorn_django.tables import wording_of

HERE = Path(__file__).parent


# -- the app


@pytest.fixture(autouse=True)
def _database(default_alias):
    """The app's default one."""


def test_the_app_is_made_of_the_settings_when_it_is_first_needed():
    with override_settings(THORN_EVENT_TIMEOUT=3, THORN_DISPATCHER="inline"):
        app = get_app()
        assert app is thorn_core.get_app() is Event("a.b").app
        assert app.settings.event_timeout == 3
        assert repr(app) == "<Thorn DjangoStore inline>"
        assert app.store.alias == "default"


def test_overriding_a_setting_makes_the_app_anew():
    first = get_app()
    with override_settings(THORN_EVENT_TIMEOUT=3):
        second = get_app()
        assert (second is not first, second.settings.event_timeout) == (True, 3)
        assert get_app() is second
    third = get_app()
    assert third.settings.event_timeout == 15
    with override_settings(USE_TZ=False):
        assert get_app() is third


def test_an_app_of_the_projects_own_is_the_default_one():
    with Thorn(store="django://other", dispatcher="outbox") as app:
        assert get_app() is app
        with override_settings(THORN_EVENT_TIMEOUT=3):
            assert get_app() is app
    assert get_app() is not app


def test_several_threads_make_one_app():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: get_app(), range(32)))
    assert len(made) == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("django://nowhere", "unknown database 'nowhere'; known databases: default, mariadb, "),
        ("django://default/path", "write django:// or django://alias"),
        ("django://default?x=1", "write django:// or django://alias"),
    ],
)
def test_a_store_that_is_none_is_refused(url, words):
    with pytest.raises(ConfigurationError, match=words):
        Thorn(store=url)


def test_another_store_may_be_used():
    with override_settings(THORN_STORE="memory://"):
        assert isinstance(get_app().store, MemoryStore)
        get_app().close()


def subscribers(message):
    return [f"https://example.com/{message.payload}"]


def validate(url):
    """Accepts everything."""


def encode(envelope):
    return b"x"


def test_what_can_be_imported_is_named_by_its_path():
    here = __name__
    with override_settings(
        THORN_SUBSCRIBERS={
            "a.b": f"{here}.subscribers",
            "a.c": ["https://example.com/c", f"{here}.subscribers"],
            "a.d": {"url": "https://example.com/d"},
        },
        THORN_CODECS={"text/x": f"{here}.encode"},
        THORN_RECIPIENT_VALIDATORS=["block_internal_ips", ("ensure_port", 443), f"{here}.validate"],
        THORN_DRF_PERMISSION_CLASSES=["rest_framework.permissions.AllowAny"],
    ):
        app = get_app()
        assert app.settings.subscribers["a.b"] is subscribers
        assert app.codecs["text/x"] is encode
        assert len(app.settings.recipient_validators) == 3
        assert app.settings.drf_permission_classes == ("rest_framework.permissions.AllowAny",)
        for event, count in (("a.b", 1), ("a.c", 2), ("a.d", 1)):
            app.send(event, 7)
            assert app.worker().drain() == count
        urls = [d.target.url for d in app.deliveries()]
        assert urls.count("https://example.com/7") == 2


def test_a_url_of_a_view_by_its_name():
    from types import SimpleNamespace

    reverser = thorn_core.model_reverser("article", "pk")
    get_app()
    assert reverser(SimpleNamespace(pk=7)) == "/articles/7/"
    with pytest.raises(ConfigurationError, match="no URL for view 'nowhere'"):
        thorn_core.model_reverser("nowhere")(SimpleNamespace())


# -- the subscription model


@pytest.fixture
def own_model():
    from thorn_django.store import DjangoStore

    with override_settings(THORN_SUBSCRIBER_MODEL="magazine.Hook"):
        store = DjangoStore()
        yield store
        store.close()


def test_subscriptions_of_the_projects_own_model_work_as_others(own_model):
    from magazine.models import Hook

    from thorn_django.models import Subscription

    store, made = own_model, make_subscription(owner="42", secrets=("whsec_x",))
    store.check()
    store.add_subscription(made)
    Hook.objects.update(plan="pro")
    moved = store.change_subscription(made.id, lambda s: attrs.evolve(s, events=("user.*",)))
    assert store.subscription(made.id) == moved
    assert moved.events == ("user.*",)
    assert [s.id for s in store.matching("user.a", sender="42", after=None, limit=9)] == [made.id]
    assert store.matching_each([make_message(event="user.a")], limit=9) == [[moved]]
    assert Hook.objects.get().plan == "pro"
    assert Subscription._meta.swapped == "magazine.Hook"
    assert store.stats(now=NOW, window=NOW - NOW).subscriptions == 1
    assert store.remove_subscription(made.id, now=NOW)
    assert not Hook.objects.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("magazine.Nothing", "doesn't have a 'Nothing' model"),
        ("nonsense", "write 'app_label.Model'"),
        ("magazine.Author", "inherit from thorn_django.models.AbstractSubscription"),
    ],
)
def test_a_subscription_model_that_is_none_is_an_error(name, words):
    with override_settings(THORN_SUBSCRIBER_MODEL=name):
        (message,) = checked("thorn.E004")
        assert words in message.msg
        with pytest.raises(ConfigurationError, match=words):
            get_app().subscribe("*", "https://example.com/")


# -- system checks


def checked(id_=None, databases=(), **options):
    """What the checks say, of Thorn's or of one kind."""
    found = run_checks(databases=list(databases), **options)
    found = [message for message in found if str(message.id).startswith("thorn")]
    assert id_ is None or {m.id for m in found} == {id_}, found
    return found


def test_a_project_that_is_right_has_nothing_to_say():
    assert checked() == []
    assert checked(databases=["default"]) == []
    assert Event("a.b")._app is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("THORN_RETRI", "Did you mean THORN_RETRY?"),
        ("THORN_STOREE", "Did you mean THORN_STORE?"),
        ("THORN_HMAC_SIGNER", "Did you mean THORN_SIGNATURES?"),
        ("THORN_XYZ", "Known settings: THORN_ALLOWED_NETWORKS, "),
    ],
)
def test_an_unknown_setting_is_an_error_with_the_nearest_name(name, hint):
    with override_settings(**{name: 1}):
        (message,) = checked("thorn.E001")
        assert message.msg == f"{name} is not a Thorn setting."
        assert hint in message.hint


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"THORN_EVENT_TIMEOUT": -1},
            "THORN_EVENT_TIMEOUT: setting event_timeout is -1; use a",
        ),
        ({"THORN_EVENT_TIMEOUT": 90, "THORN_LEASE": 30}, "a lease must be longer"),
        ({"THORN_RETRY_MAX": 3}, "set both"),
        ({"THORN_ENVELOPE": "paper"}, "one of 'thorn', 'standard', 'cloudevents'"),
        (
            {"THORN_SUBSCRIBERS": {"a.b": 7}},
            "THORN_SUBSCRIBERS: setting subscribers['a.b'] contains a int",
        ),
        ({"THORN_ALLOWED_NETWORKS": "10.0.0.0/8"}, "use a list of networks"),
        (
            {"THORN_ALLOWED_PORTS": [8080], "THORN_RECIPIENT_VALIDATORS": ["block_internal_ips"]},
            "THORN_ALLOWED_PORTS, THORN_RECIPIENT_VALIDATORS: setting allowed_ports adds ports",
        ),
        ({"THORN_SUBSCRIBERS": {"a b": "https://e.com/"}}, "event pattern 'a b'"),
        (
            {"THORN_SUBSCRIBERS": {"a.b": "no.such.thing"}},
            "'no.such.thing', which can't be imported",
        ),
        ({"THORN_CODECS": {"text/x": "json.dumpster"}}, "'json.dumpster', which can't be imported"),
    ],
)
def test_a_value_that_is_not_allowed_is_an_error(settings, words):
    with override_settings(**settings):
        (message,) = checked("thorn.E002")
        assert words in message.msg


def test_every_error_is_said_at_once():
    with override_settings(THORN_RETRY="maybe", THORN_CHUNKSIZE=0, THORN_RETRI=1):
        assert sorted(m.id for m in checked()) == ["thorn.E001", "thorn.E002", "thorn.E002"]


def test_settings_that_are_right_together_are_no_error():
    with override_settings(THORN_EVENT_TIMEOUT=90, THORN_LEASE=200):
        assert checked() == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"THORN_STORE": "django://defautl"}, "Did you mean 'default'?"),
        ({"THORN_DATABASES": ["xyz"]}, "Known databases: default, mariadb"),
        ({"THORN_DATABASES": "default"}, "use a list of database aliases"),
        ({"THORN_STORE": "django://default/x"}, "write django:// or django://alias"),
    ],
)
def test_a_database_that_is_not_there_is_an_error(settings, words):
    with override_settings(**settings):
        (message,) = checked("thorn.E003")
        assert words in f"{message.msg} {message.hint}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"THORN_DISPATCHER": "nobody"}, "no dispatcher 'nobody'; available: "),
        ({"THORN_SIGNATURES": ["wax"]}, "setting signatures names 'wax'"),
        ({"THORN_STORE": "nosql://"}, "no store for 'nosql'"),
    ],
)
def test_what_shows_when_the_app_is_made_is_an_error(settings, words):
    with override_settings(**settings):
        (message,) = checked("thorn.E005")
        assert words in message.msg


@pytest.mark.parametrize(
    ("settings", "id_", "words"),
    [
        (
            {"THORN_RECIPIENT_VALIDATORS": [("ensure_port", 443)]},
            "thorn.W003",
            "THORN_RECIPIENT_VALIDATORS: recipient_validators permits internal addresses",
        ),
        (
            {"THORN_ALLOWED_NETWORKS": ["0.0.0.0/0"]},
            "thorn.W004",
            "THORN_ALLOWED_NETWORKS: allowed_networks permits 0.0.0.0/0, which includes every",
        ),
        ({"THORN_ALLOWED_NETWORKS": ["8.8.8.0/24"]}, "thorn.W005", "permitted anyway"),
        ({"THORN_SUBSCRIBERS": {"a.b": "http://[::1]/"}}, "thorn.W006", "which is refused"),
        ({"THORN_SIGNATURES": []}, "thorn.W007", "requests are not signed"),
    ],
)
def test_what_is_allowed_but_doubtful_is_a_warning(settings, id_, words):
    with override_settings(**settings):
        (message,) = checked(id_)
        assert words in message.msg
        assert message.hint


def test_an_event_with_a_dispatcher_that_does_not_exist_is_a_warning(monkeypatch):
    for name in ("_kept", "_declared"):
        monkeypatch.setattr(f"thorn_core.events.{name}", {})
    Event("a.b", dispatcher="inlien")
    (message,) = checked("thorn.W008")
    assert "event 'a.b': no dispatcher 'inlien'; did you mean 'inline'?" in message.msg


def test_every_finding_of_the_core_has_an_id_of_its_own():
    ids = dict(FINDINGS)
    assert {*ids, "store-not-ready"} == set(get_args(FindingName))
    assert len(set(ids.values())) == len(ids)


def test_a_sqlite_database_whose_transactions_begin_as_readers_is_warned_of(monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "OPTIONS", {})
    (message,) = checked("thorn.W001")
    assert "'transaction_mode': 'IMMEDIATE'" in message.hint
    with override_settings(THORN_STORE="memory://"):
        assert checked() == []


def test_no_database_is_asked_unless_it_may_be():
    connections["default"].close()
    opened = []
    from django.db.backends.signals import connection_created

    def note(connection, **_):
        opened.append(connection.alias)

    connection_created.connect(note)
    try:
        assert checked() == []
        assert opened == []
        assert checked(databases=["default"]) == []
        assert set(opened) == {"default"}
    finally:
        connection_created.disconnect(note)


def test_tables_that_are_missing_are_a_warning_that_lets_migrate_run(tmp_path, monkeypatch):
    empty = {**DATABASES["other"], "NAME": str(tmp_path / "empty.sqlite3")}
    settings = connections.settings["other"]
    monkeypatch.setitem(settings, "NAME", empty["NAME"])
    connections["other"].close()
    with override_settings(THORN_STORE="django://other"):
        (message,) = checked("thorn.W002", databases=["other"])
        assert message.msg.endswith("; run: manage.py migrate --database other")
        with pytest.raises(StoreSetupError, match=r"run: manage\.py migrate --database other"):
            get_app().store.create()
        with pytest.raises(StoreSetupError, match=r"run: manage\.py migrate --database other"):
            get_app().stats()
        call_command("migrate", "thorn_django", database="other", stdout=StringIO())
        assert checked(databases=["other"]) == []
        assert get_app().stats().messages == 0
        assert get_app().store.create() is None
        with connections["other"].cursor() as cursor:
            cursor.execute("ALTER TABLE thorn_deliveries DROP COLUMN reason")
        (message,) = checked("thorn.W002", databases=["other"])
        assert "thorn_deliveries in django://other has no column reason" in message.msg
        connections["other"].close()


def test_of_another_database_only_the_outbox_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(connections.settings["other"], "NAME", str(tmp_path / "empty.sqlite3"))
    connections["other"].close()
    with override_settings(THORN_DATABASES=["default", "other"]):
        (message,) = checked("thorn.W002", databases=["default", "other"])
        missing = "thorn_messages, thorn_idempotency, thorn_outbox;"
        assert f"missing table {missing}" in message.msg
        with pytest.raises(StoreSetupError, match=f"missing table {missing}"):
            get_app().store.check()
        with connections["other"].cursor() as cursor:
            for statement in wording_of("sqlite").ddl(NEEDED):
                cursor.execute(statement)
        assert checked(databases=["default", "other"]) == []
        get_app().store.check()
        connections["other"].close()


# -- migrations


def test_the_migrations_are_those_of_the_models(alias):
    from django.apps import apps
    from django.db.migrations.autodetector import MigrationAutodetector
    from django.db.migrations.loader import MigrationLoader
    from django.db.migrations.state import ProjectState

    loader = MigrationLoader(connections[alias])
    detector = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps))
    changes = detector.changes(graph=loader.graph)
    assert "thorn_django" not in changes


def test_the_models_pass_djangos_checks_on_every_database(alias):
    found = run_checks(databases=[alias])
    assert [m for m in found if m.obj is not None and "thorn" in str(m.obj).lower()] == []


def test_the_migrations_can_be_taken_back(alias):
    from magazine_project import clear_database

    for target in ("zero", None):
        arguments = ["thorn_django"] if target is None else ["thorn_django", target]
        call_command("migrate", *arguments, database=alias, stdout=StringIO())
        with connections[alias].cursor() as cursor:
            tables = connections[alias].introspection.table_names(cursor)
        assert ("thorn_messages" in tables) is (target is None)
    clear_database(alias)


# -- without a project


def run(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=HERE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_programs_without_django_do_not_import_it():
    program = (
        "import json, sys; from thorn_core import Thorn\n"
        "with Thorn(dispatcher='outbox') as app: app.send('a.b')\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] == 'django']))"
    )
    assert run(program) == []


def test_a_store_of_a_project_that_is_not_set_up_says_so():
    program = (
        "import json; from thorn_core import ConfigurationError, Thorn\n"
        "try: Thorn(store='django://')\n"
        "except ConfigurationError as error: print(json.dumps(str(error)))"
    )
    assert "standalone scripts must call django.setup() first" in run(program)
    program = (
        "import json; from django.conf import settings; import django\n"
        "settings.configure(); django.setup()\n"
        "from thorn_core import ConfigurationError, Thorn\n"
        "try: Thorn(store='django://')\n"
        "except ConfigurationError as error: print(json.dumps(str(error)))"
    )
    assert "needs 'thorn_django' in INSTALLED_APPS" in run(program)


def test_setting_a_project_up_opens_no_database_and_makes_no_app():
    program = (
        "import json, sys, threading; sys.path.insert(0, '.')\n"
        "import magazine_project; magazine_project.configure()\n"
        "from django.db import connections; from thorn_core import current_app\n"
        "opened = [c.alias for c in connections.all() if c.connection is not None]\n"
        "print(json.dumps([opened, current_app._default_app is None, threading.active_count()]))"
    )
    assert run(program) == [[], True, 1]


# -- docstrings


DOCTESTS = """
import doctest, importlib, json, logging, pathlib, sys
sys.path.insert(0, ".")
logging.disable()
import magazine_project
magazine_project.configure()
import thorn_django
tried = failed = 0
root = pathlib.Path(thorn_django.__file__).parent
for path in sorted(root.rglob("*.py")):
    name = ".".join(["thorn_django", *path.relative_to(root).with_suffix("").parts])
    # Migrations' names aren't modules', and Django's admin isn't in this project.
    if ".migrations" not in name and ".admin" not in name:
        found = importlib.import_module(name.removesuffix(".__init__"))
        result = doctest.testmod(found, optionflags=doctest.ELLIPSIS)
        tried, failed = tried + result.attempted, failed + result.failed
print(json.dumps([tried > 3, failed]))
"""


def test_the_examples_of_the_docstrings_run():
    # In a process of their own: they declare models.
    assert run(DOCTESTS) == [True, 0]
