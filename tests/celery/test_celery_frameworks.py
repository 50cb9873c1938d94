"""In Django's and Flask's programs, as the guide says."""

from __future__ import annotations

import time

import pytest
from celery_world import TIMEOUT, WorkerProcess
from running import run
from sqlalchemy import make_url

DJANGO = {
    "shop/__init__.py": "from shop.celery import app as celery_app\n",
    "shop/celery.py": """
import os
from celery import Celery
from thorn_celery import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
install(app)
""",
    "shop/settings.py": """
import os

SECRET_KEY = "s" * 32
USE_TZ = True
INSTALLED_APPS = ["thorn_django"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends." + os.environ["ENGINE"],
        "NAME": os.environ["NAME"],
        "HOST": os.environ["HOST"],
        "PORT": os.environ["PORT"],
        "USER": os.environ["USER_NAME"],
    }
}
THORN_DISPATCHER = "celery"
THORN_ALLOWED_NETWORKS = ["127.0.0.0/8"]
THORN_ALLOWED_PORTS = range(1, 65536)
THORN_RETRY_MAX, THORN_RETRY_DELAY = 20, 0.5
CELERY_BROKER_URL = os.environ["BROKER"]
CELERY_TASK_DEFAULT_QUEUE = os.environ["QUEUE"]
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BROKER_TRANSPORT_OPTIONS = (
    {"global_keyprefix": os.environ["QUEUE"] + ":"} if "redis" in os.environ["BROKER"] else {}
)
CELERY_THORN_ROUTES = {"bill.*": os.environ["QUEUE"] + "_bills"}
CELERY_THORN_SWEEP_INTERVAL = 0.5
""",
    "send.py": """
import sys
import django
django.setup()
from django.db import transaction
from thorn_core import get_app
from shop.celery import app as celery

thorn = get_app()
thorn.subscribe("*", sys.argv[1])
with transaction.atomic():
    thorn.send("order.paid", {"number": 1})
try:
    with transaction.atomic():
        thorn.send("order.paid", {"number": 2})
        raise KeyError
except KeyError:
    pass
thorn.send("bill.paid", {"number": 3})
assert celery.conf.beat_schedule["thorn.sweep"]["schedule"].total_seconds() == 0.5
""",
    "sweep.py": """
import django
django.setup()
from shop.celery import app
app.tasks["thorn.sweep"].delay()
""",
}
FLASK = {
    "shop.py": """
import os
from celery import Celery, Task
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from thorn_celery import install
from thorn_core import Event
from thorn_flask import ThornFlask
from thorn_sqlalchemy import SqlStore

db = SQLAlchemy()
webhooks = ThornFlask(store=lambda: SqlStore(db.engine))
order_paid = Event("order.paid")


def celery_init_app(app):
    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    install(celery_app, lambda: app.extensions["thorn"])
    return celery_app


def create_app():
    app = Flask("shop")
    queue, broker = os.environ["QUEUE"], os.environ["BROKER"]
    app.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["STORE"],
        THORN_DISPATCHER="celery",
        THORN_ALLOWED_NETWORKS=["127.0.0.0/8"],
        THORN_ALLOWED_PORTS=range(1, 65536),
        CELERY={
            "broker_url": broker,
            "task_default_queue": queue,
            "worker_enable_remote_control": False,
            "broker_transport_options": (
                {"global_keyprefix": queue + ":"} if "redis" in broker else {}
            ),
        },
    )
    db.init_app(app)
    webhooks.init_app(app)
    celery_init_app(app)
    return app


def create_celery():
    return create_app().extensions["celery"]
""",
    "sweep.py": "from worker import celery\ncelery.tasks['thorn.sweep'].delay()\n",
    "worker.py": "from shop import create_celery\ncelery = create_celery()\n",
    "send.py": """
import sys
from shop import create_app, db, order_paid, webhooks

app = create_app()


@app.post("/orders/<int:number>")
def pay(number):
    order_paid.send({"number": number}, within=db.session)
    db.session.rollback() if number == 2 else db.session.commit()
    return {}


with app.app_context():
    webhooks.thorn.store.create()
    webhooks.thorn.subscribe("*", sys.argv[1])
for number in (1, 2, 3):
    assert app.test_client().post(f"/orders/{number}").status_code == 200
""",
}


def written(files, where):
    for name, text in files.items():
        (where / name).parent.mkdir(exist_ok=True)
        (where / name).write_text(text, "utf-8")


def arrived(recipient, number, sweep):
    """Wait until so many requests arrived, with sweeps as beat has them done."""
    until = time.monotonic() + TIMEOUT
    while True:
        try:
            recipient.wait_for(number, 5)
        except TimeoutError:
            assert time.monotonic() < until
            sweep()
        else:
            return


def numbers(recipient):
    return [request.json["data"]["number"] for request in recipient.received]


# Each framework with one pair; the other pairs are tested without any.
@pytest.mark.parametrize("pair", [("rabbitmq", "mariadb")], ids="-".join, indirect=True)
def test_django(broker, place, recipient, tmp_path):
    pytest.importorskip("django")
    written(DJANGO, tmp_path)
    url = make_url(place.url)
    engines = {"postgresql": "postgresql", "mysql": "mysql"}
    environment = {
        "ENGINE": engines[url.get_backend_name()],
        "NAME": url.database,
        "HOST": url.host,
        "PORT": str(url.port),
        "USER_NAME": url.username,
        "BROKER": broker.url,
        "QUEUE": broker.name,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": str(tmp_path),
    }
    if place.kind == "mariadb":
        # Django looks for another driver, which this one can stand in for.
        imported = "import pymysql\npymysql.version_info = (2, 2, 7, 'final', 0)\n"
        (tmp_path / "shop" / "settings.py").write_text(
            imported + "pymysql.install_as_MySQLdb()\n" + DJANGO["shop/settings.py"], "utf-8"
        )
    run(tmp_path, environment, "-m", "django", "migrate", "-v", "0")
    recipient.answer(status=500, times=1)
    queues = f"{broker.name},{broker.name}_bills"
    with WorkerProcess("shop", environment, "-c", "2", "-Q", queues) as worker:
        run(tmp_path, environment, "send.py", recipient.url)
        arrived(recipient, 3, lambda: run(tmp_path, environment, "sweep.py"))
    assert sorted(set(numbers(recipient))) == [1, 3]
    assert worker.code == 0
    assert "Traceback" not in worker.text


@pytest.mark.parametrize("pair", [("redis", "postgresql")], ids="-".join, indirect=True)
def test_flask(broker, place, recipient, tmp_path):
    pytest.importorskip("flask_sqlalchemy")
    written(FLASK, tmp_path)
    environment = {
        "STORE": place.url,
        "BROKER": broker.url,
        "QUEUE": broker.name,
        "PYTHONPATH": str(tmp_path),
    }
    with WorkerProcess("worker:celery", environment, "-c", "2") as worker:
        run(tmp_path, environment, "send.py", recipient.url)
        arrived(recipient, 2, lambda: run(tmp_path, environment, "sweep.py"))
    assert sorted(set(numbers(recipient))) == [1, 3]
    assert worker.code == 0
    assert "Traceback" not in worker.text
