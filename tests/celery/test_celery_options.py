"""What Celery's configuration may say of Thorn, and who belongs to whom."""

from __future__ import annotations

import os
import threading
import traceback
from datetime import timedelta

import pytest
from celery import Celery
from celery.signals import task_postrun
from celery_program import Setup, make

from thorn_celery import install, work
from thorn_celery.options import Route, options_of
from thorn_celery.registry import celery_of, thorn_of
from thorn_core import ConfigurationError, InvalidNameError, Settings, Thorn

LOCAL = Settings(allowed_networks=["127.0.0.0/8"], allowed_ports=range(1, 65536))


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'thorn.db'}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("thorn_routes", "bills"),
        ("thorn_routes", {"bill.*": 7}),
        ("thorn_routes", {"bill.*": {}}),
        ("thorn_routes", {"bill.*": ""}),
        ("thorn_routes", {"bill.*": {"queue": "bills", "exchange": "x"}}),
        ("thorn_routes", {"bill.*": {"priority": "high"}}),
        ("thorn_routes", {"bill.*": {"priority": True}}),
        ("thorn_retry_queue", 7),
        ("thorn_sweep_interval", 0),
        ("thorn_sweep_interval", "5"),
        ("thorn_purge_after", -1),
        ("thorn_purge_after", float("nan")),
        ("thorn_unheard_of", 1),
    ],
)
def test_what_isn_t_allowed_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=name):
        options_of({name: value})


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(InvalidNameError, match=r"bill\.\."):
        options_of({"thorn_routes": {"bill..": "bills"}})


def test_the_first_route_that_matches_holds():
    routes = {"bill.*": {"queue": "bills", "priority": 7}, "*.urgent": {"priority": 9}}
    options = options_of({"thorn_routes": routes, "thorn_purge_after": 86400})
    assert options.route_of("bill.urgent") == Route(queue="bills", priority=7)
    assert options.route_of("order.urgent") == Route(priority=9)
    assert options.route_of("order.paid") == Route()
    assert options.purge_after == timedelta(days=1)


def test_a_namespace_in_front_is_understood():
    class Project:
        CELERY_THORN_RETRY_QUEUE = "slow"
        CELERY_THORN_ROUTE = {}  # noqa: RUF012
        THORN_DISPATCHER = "celery"

    celery = Celery("shop", set_as_current=False)
    celery.config_from_object(Project(), namespace="CELERY")
    with pytest.raises(ConfigurationError, match="did you mean thorn_routes"):
        options_of(celery.conf)
    del Project.CELERY_THORN_ROUTE
    celery.config_from_object(Project(), namespace="CELERY", force=True)
    assert options_of(celery.conf).retry_queue == "slow"


def test_the_schedule_is_beat_s_unless_it_has_its_own():
    first, second = (Celery(name, set_as_current=False) for name in ("one", "two"))
    own = {"task": "thorn.sweep", "schedule": 60.0}
    first.conf.update(thorn_purge_after=timedelta(days=30), thorn_sweep_interval=2)
    second.conf.update(beat_schedule={"thorn.sweep": own})
    for celery in (first, second):
        install(celery)
    assert sorted(first.conf.beat_schedule) == ["thorn.purge", "thorn.sweep"]
    sweep = first.conf.beat_schedule["thorn.sweep"]
    assert sweep["schedule"] == timedelta(seconds=2)
    assert sweep["options"] == {"expires": 2.0}
    assert second.conf.beat_schedule == {"thorn.sweep": own}


def test_each_app_has_its_celery(url):
    with (
        Thorn(store=url, dispatcher="celery", default=False) as one,
        Thorn(store=url, dispatcher="celery", default=False) as two,
    ):
        first, second = (Celery(name, set_as_current=False) for name in ("one", "two"))
        install(first, one)
        install(second, lambda: two)
        assert (celery_of(one), celery_of(two)) == (first, second)
        assert (thorn_of(first), thorn_of(second)) == (one, two)


def test_an_app_without_a_celery_of_its_own_uses_the_current_one(url):
    current = Celery("current", broker="memory://")
    with Thorn(store=url, dispatcher="celery", default=False) as app:
        assert celery_of(app) is current
    assert "thorn.deliver" in current.tasks


def test_what_is_old_is_purged_if_the_configuration_says_so(url, recipient):
    with Thorn(store=url, dispatcher="inline", settings=LOCAL, default=False) as app:
        app.subscribe("*", recipient.url)
        assert app.send("order.paid")
        assert work.purge(app, None) == 0
        assert work.purge(app, timedelta(days=1)) == 0
        assert work.purge(app, timedelta()) == 1


def test_a_forked_child_sends_by_a_thread_of_its_own(url):
    thorn, celery = make(Setup(url, "memory://", "thorn_test"))
    celery.conf.task_always_eager = True
    with thorn:
        thorn.store.create()
        done = threading.Event()

        def ended(**_):
            done.set()

        task_postrun.connect(ended)
        thorn.send("order.paid")
        # SQLite's locks don't survive a fork while another thread writes.
        assert done.wait(30)
        task_postrun.disconnect(ended)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                receipt = thorn.send("order.paid")
                done = thorn.wait_until(lambda: thorn.store.routed(receipt.message.id), 30)
                names = [thread.name for thread in threading.enumerate()]
                code = 0 if done and names.count("thorn-celery") == 1 else 2
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
