"""The example blog, as its users see it: a server and a worker, processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import attrs
import httpx
import magazine_project
import pytest

from thorn_core.testing import LocalRecipient

BLOG = Path(__file__).resolve().parents[2] / "examples" / "django_blog"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TIMEOUT = 30.0


# -- processes


def environment(database, **more):
    return {
        **os.environ,
        "BLOG_DEBUG": "1",
        "BLOG_DATABASE": database,
        "DJANGO_SETTINGS_MODULE": "blog_project.settings",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def run(program, database, **more):
    """Run a program in the project; what it has printed last, decoded."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import django\ndjango.setup()\n{program}"],
        cwd=BLOG,
        env=environment(database, **more),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


class Running:
    """`manage.py` at work; ends with the block."""

    def __init__(self, *arguments, env):
        self.lines = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=BLOG,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self._reader.join()
            self.process.stdout.close()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def wait_for(self, pattern):
        """Wait until it has printed something."""

        def found():
            return re.search(pattern, "".join(self.lines))

        with self._changed:
            assert self._changed.wait_for(found, TIMEOUT), "".join(self.lines)
            return found()


SETUP = """
import io, json
from django.core.management import call_command
from blog.models import Category

call_command("migrate", verbosity=0)
tokens = {}
for name, operator in (("ada", False), ("bob", False), ("grace", True)):
    said = io.StringIO()
    call_command("make_author", name, operator=operator, stdout=said)
    tokens[name] = said.getvalue().split()[1]
Category.objects.bulk_create([Category(name="news"), Category(name="sports")])
print(json.dumps(tokens))
"""


@attrs.define
class Blog:
    """The blog at work.

    Attributes:
        url: Of the server.
        database: Of the blog.
        tokens: Of ada and bob, who write, and of grace, who operates it.
        static: The recipients of its static subscribers, by name.
    """

    url: str
    database: str
    tokens: dict[str, str]
    static: dict[str, LocalRecipient]

    def call(self, who, method, path, json=None, status=(200, 201, 202, 204)):
        """Ask the server as somebody."""
        headers = {"Authorization": f"Token {self.tokens[who]}"} if who else {}
        url = path if path.startswith("http") else self.url + path
        answer = httpx.request(method, url, json=json, headers=headers, timeout=TIMEOUT)
        allowed = status if isinstance(status, tuple) else (status,)
        assert answer.status_code in allowed, answer.text
        return answer.json() if answer.content else None

    def subscribe(self, who, event, recipient, path=""):
        document = {"event": event, "url": recipient.url + path, "hmac_secret": SECRET}
        return self.call(who, "POST", "/hooks/", document)

    def subscribe_operators(self, event, recipient, paths=("",)):
        """Subscriptions that have no owner, as those who run the blog make them."""
        program = f"""
from thorn_django import get_app
for path in {paths!r}:
    get_app().subscribe({event!r}, {recipient.url!r} + path, secret={SECRET!r})
print("null")
"""
        run(program, self.database)

    def unsubscribe(self, who, subscription):
        self.call(who, "DELETE", subscription["subscription"])

    def subscriptions(self, who):
        return [item["id"] for item in self.call(who, "GET", "/hooks/")["items"]]

    def write(self, who, title, **more):
        """Write an article; gives its path in the API."""
        article = self.call(who, "POST", "/api/articles/", {"title": title, "body": "…", **more})
        return f"/api/articles/{article['id']}/"


@pytest.fixture(scope="module")
def blog(tmp_path_factory):
    database = f"sqlite:///{tmp_path_factory.mktemp('blog') / 'blog.db'}"
    with ExitStack() as stack:
        names = ("url", "mapping", "first", "second", "desk")
        static = {name: stack.enter_context(LocalRecipient(secret=SECRET)) for name in names}
        subscribers = {
            "article.removed": static["url"].url,
            "article.tagged": {"url": static["mapping"].url, "secret": SECRET},
            "comment.created": [static["first"].url, static["second"].url],
            "article.published": "blog.subscribers.desk",
        }
        env = environment(
            database,
            BLOG_SUBSCRIBERS=json.dumps(subscribers),
            BLOG_DESKS=json.dumps({"news": static["desk"].url}),
        )
        tokens = run(SETUP, database)
        server = stack.enter_context(Running("runserver", "--noreload", "127.0.0.1:0", env=env))
        stack.enter_context(Running("thorn_worker", env=env))
        url = server.wait_for(r"http://127\.0\.0\.1:[1-9]\d*")[0]
        yield Blog(url, database, tokens, static)


@pytest.fixture
def recipient():
    with LocalRecipient(secret=SECRET) as recipient:
        yield recipient


@pytest.fixture
def other():
    with LocalRecipient(secret=SECRET) as recipient:
        yield recipient


@pytest.fixture(autouse=True)
def _unsubscribed(request):
    """Nobody is subscribed to anything when a test begins."""
    if "blog" in request.fixturenames:
        blog = request.getfixturevalue("blog")
        while items := blog.call("grace", "GET", "/hooks/?limit=100")["items"]:
            for item in items:
                blog.unsubscribe("grace", item)
        for recipient in blog.static.values():
            recipient.clear()


def told(requests):
    """What arrived, each verified: events and titles."""
    assert all(request.verified for request in requests), [r.error for r in requests]
    return Counter((request.json["event"], request.json["data"]["title"]) for request in requests)


# -- what users do


def test_users_subscribe_list_and_unsubscribe(blog, recipient):
    created = blog.subscribe("ada", "article.created", recipient)
    changed = blog.subscribe("ada", "article.changed", recipient)
    assert blog.subscriptions("ada") == [created["id"], changed["id"]]
    assert blog.subscriptions("bob") == []
    blog.unsubscribe("ada", created)
    assert blog.subscriptions("ada") == [changed["id"]]
    blog.call("bob", "DELETE", changed["subscription"], status=404)
    blog.call("ada", "GET", created["subscription"], status=404)
    blog.call(None, "GET", "/hooks/", status=401)


def test_every_event_of_an_article_arrives(blog, recipient):
    subscription = blog.subscribe("ada", "article.*", recipient)
    article = blog.write("ada", "Before")
    number = int(article.split("/")[-2])

    later = blog.write("ada", "Hello", category="sports")
    blog.call("ada", "DELETE", later)
    blog.call("ada", "PATCH", article, {"title": "Changed"})
    blog.call("ada", "POST", f"{article}publish/")
    blog.call("ada", "PATCH", article, {"title": "Published"})
    for name in ("python", "django", "web"):
        blog.call("ada", "POST", f"{article}tags/", {"name": name})
    blog.call("ada", "DELETE", f"{article}tags/web/")
    blog.call("ada", "DELETE", f"{article}tags/")

    requests = recipient.wait_for(13, TIMEOUT)
    assert told(requests) == {
        ("article.created", "Before"): 1,
        ("article.created", "Hello"): 1,
        ("article.removed", "Hello"): 1,
        ("article.changed", "Changed"): 2,  # once by publishing it
        ("article.changed", "Published"): 1,
        ("article.published", "Changed"): 1,
        ("article.tagged", "Published"): 3,
        # Clearing removes those that are left, and clears.
        ("article.untagged", "Published"): 2,
        ("article.tags_cleared", "Published"): 1,
    }
    (published,) = [r for r in requests if r.json["event"] == "article.published"]
    assert published.json == {
        "event": "article.published",
        "ref": f"http://127.0.0.1:8000/articles/{number}/",
        "sender": "ada",
        "data": {
            "id": number,
            "title": "Changed",
            "state": "PUBLISHED",
            "category": None,
            "tags": [],
        },
    }
    assert published.headers["hook-subscription"] == subscription["id"]
    (removed,) = [r for r in requests if r.json["event"] == "article.removed"]
    assert removed.json["ref"] == f"http://127.0.0.1:8000/articles/{later.split('/')[-2]}/"
    assert removed.json["data"]["category"] == "sports"
    (cleared,) = [r for r in requests if r.json["event"] == "article.tags_cleared"]
    assert cleared.json["data"]["tags"] == []


def test_a_hundred_subscribers_of_one_event_are_all_told(blog, recipient):
    # So many that nobody is told that it was too often.
    for number in range(40):
        blog.subscribe("ada", "article.created", recipient, f"?n={number}")
    operators = [f"?n={number}" for number in range(40, 100)]
    blog.subscribe_operators("article.created", recipient, operators)
    blog.write("ada", "The Boring Bear")
    requests = recipient.wait_for(100, TIMEOUT)
    assert told(requests) == {("article.created", "The Boring Bear"): 100}
    assert {request.path for request in requests} == {f"/?n={n}" for n in range(100)}
    assert len({request.headers["hook-subscription"] for request in requests}) == 100
    assert len({request.headers["webhook-id"] for request in requests}) == 1


def test_a_senders_events_reach_their_own_subscriptions_and_the_operators(blog, recipient, other):
    blog.subscribe("ada", "article.*", recipient)
    with LocalRecipient(secret=SECRET) as operators:
        blog.subscribe("bob", "article.*", other)
        blog.subscribe_operators("article.*", operators)
        blog.write("ada", "Ada's")
        blog.write("bob", "Bob's")
        assert told(operators.wait_for(2, TIMEOUT)) == {
            ("article.created", "Ada's"): 1,
            ("article.created", "Bob's"): 1,
        }
    assert told(recipient.wait_for(1, TIMEOUT)) == {("article.created", "Ada's"): 1}
    assert told(other.wait_for(1, TIMEOUT)) == {("article.created", "Bob's"): 1}


def test_after_unsubscribing_nothing_arrives(blog, recipient, other):
    subscription = blog.subscribe("ada", "article.created", recipient)
    blog.subscribe("ada", "article.created", other)
    blog.write("ada", "Angry Bots")
    recipient.wait_for(1, TIMEOUT)
    blog.unsubscribe("ada", subscription)
    for title in ("Funky Bots", "Sleepy Bots"):
        blog.write("ada", title)
    # All recipients of a message are looked up together, and it is older than the last.
    assert len(other.wait_for(3, TIMEOUT)) == 3
    assert told(recipient.received) == {("article.created", "Angry Bots"): 1}


def test_static_subscribers_of_every_kind_are_told(blog):
    for category in ("news", "sports"):
        article = blog.write("ada", f"About {category}", category=category)
        blog.call("ada", "POST", f"{article}publish/")
    blog.call("ada", "POST", f"{article}tags/", {"name": "static"})
    with httpx.Client(base_url=blog.url) as reader:
        page = article.removeprefix("/api")
        reader.get(page)
        token = reader.cookies["csrftoken"]
        form = {"name": "Bob", "text": "Nice", "csrfmiddlewaretoken": token}
        assert reader.post(page, data=form).status_code == 302
    blog.call("ada", "DELETE", article)

    (removed,) = blog.static["url"].wait_for(1, TIMEOUT)
    assert removed.json["event"] == "article.removed"
    assert told(blog.static["mapping"].wait_for(1, TIMEOUT)) == {
        ("article.tagged", "About sports"): 1
    }
    for name in ("first", "second"):
        (comment,) = blog.static[name].wait_for(1, TIMEOUT)
        assert comment.json["data"] == {"article": "About sports", "name": "Bob", "text": "Nice"}
        assert comment.json["ref"].endswith(page)
        assert comment.json["sender"] == "ada"
    (published,) = blog.static["desk"].wait_for(1, TIMEOUT)
    assert published.json["data"]["category"] == "news"


def test_a_request_that_fails_after_its_change_sends_nothing(blog, recipient):
    blog.subscribe("ada", "article.*", recipient)
    article = blog.write("ada", "Empty", body="")
    problem = blog.call("ada", "POST", f"{article}publish/", status=400)
    assert problem == {"body": ["There is nothing to publish yet."]}
    assert blog.call("ada", "GET", article)["state"] == "DRAFT"
    blog.call("ada", "PATCH", article, {"body": "Something"})
    blog.call("ada", "POST", f"{article}publish/")
    assert told(recipient.wait_for(4, TIMEOUT)) == {
        ("article.created", "Empty"): 1,
        ("article.changed", "Empty"): 2,
        ("article.published", "Empty"): 1,
    }


def test_what_became_of_deliveries_can_be_looked_up(blog, recipient):
    subscription = blog.subscribe("ada", "article.*", recipient)
    recipient.answer(status=400, times=1)
    blog.write("ada", "Refused")
    recipient.wait_for(1, TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while True:
        found = blog.call("ada", "GET", subscription["deliveries"])["items"]
        if (found and found[0]["attempt_count"] == 1) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    (delivery,) = found
    assert (delivery["state"], delivery["event"]) == ("pending", "article.created")
    link = f"/hooks/deliveries/{delivery['id']}/"
    (attempt,) = blog.call("ada", "GET", link)["attempts"]
    assert attempt["status"] == 400
    blog.call("bob", "GET", link, status=404)


# -- transactions

SCENARIOS = """
import json
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from blog.models import Article, Tag
from thorn_django import get_app

class Boom(Exception):
    pass

call_command("migrate", verbosity=0)
ada = User.objects.create(username="ada")
get_app().subscribe("article.*", RECIPIENT, secret=SECRET, owner=ada)

def write(title):
    return Article.objects.create(author=ada, title=title)

with transaction.atomic():
    write("outer")
    try:
        with transaction.atomic():
            write("rolled back with its savepoint")
            raise Boom
    except Boom:
        pass
    with transaction.atomic():
        write("inner")

try:
    with transaction.atomic():
        with transaction.atomic():
            write("inside of what is rolled back")
        raise Boom
except Boom:
    pass

with transaction.atomic(durable=True):
    durable = write("durable")

try:
    with transaction.atomic(durable=True):
        write("saved before an exception")
        raise Boom
except Boom:
    pass

with transaction.atomic():
    locked = Article.objects.select_for_update().get(pk=durable.pk)
    locked.title = "locked"
    locked.save()

try:
    with transaction.atomic():
        locked = Article.objects.select_for_update().get(pk=durable.pk)
        locked.title = "locked, and rolled back"
        locked.state = "PUBLISHED"
        locked.save()
        locked.tags.add(Tag.objects.create(name="rolled-back"))
        raise Boom
except Boom:
    pass

transaction.set_autocommit(False)
write("autocommit is off")
transaction.commit()
write("autocommit is off, and rolled back")
transaction.rollback()
transaction.set_autocommit(True)

# The instance knows that its former change was rolled back.
locked.title = "published"
locked.save()
call_command("thorn_worker", once=True)
print(json.dumps(sorted(Article.objects.values_list("title", flat=True))))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'blog.db'}"
        return
    name = f"thorn_blog_{uuid.uuid4().hex[:12]}"
    server = magazine_project.DATABASES["postgresql"]
    where = f"{server['USER']}:{server['PASSWORD']}@{server['HOST']}:{server['PORT'] or 5432}"
    with magazine_project.administered("postgresql") as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    try:
        yield f"postgresql://{where}/{name}"
    finally:
        with magazine_project.administered("postgresql") as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_exactly_what_was_committed_is_delivered(database, recipient):
    program = f"RECIPIENT, SECRET = {recipient.url!r}, {SECRET!r}\n{SCENARIOS}"
    titles = run(program, database)
    assert titles == ["autocommit is off", "inner", "outer", "published"]
    assert told(recipient.received) == {
        ("article.created", "outer"): 1,
        ("article.created", "inner"): 1,
        ("article.created", "durable"): 1,
        ("article.created", "autocommit is off"): 1,
        ("article.changed", "locked"): 1,
        ("article.changed", "published"): 1,
        ("article.published", "published"): 1,
    }


# -- the project itself


@pytest.mark.parametrize(
    "arguments",
    [("check", "--fail-level", "WARNING"), ("makemigrations", "--check"), ("test",)],
    ids=lambda arguments: arguments[0],
)
def test_the_project_is_in_order(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=BLOG,
        env=environment(f"sqlite:///{tmp_path / 'blog.db'}"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
