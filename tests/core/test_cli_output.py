"""What commands print of texts from elsewhere: nothing in it steers a terminal or a log."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thorn_core.cli.common import json_line, one_line, plain, safe
from thorn_core.cli.group import Failure
from thorn_core.cli.logs import JsonFormatter, TextFormatter
from thorn_core.errors import NotFoundError

# Escape sequences of 7 and 8 bits, a bell, a change of direction, line ends, half a character.
HOSTILE = "\x1b]0;title\x07\x9b2J\x7f\u202e\u2028\u2029\x85\r\nforged\ud800"
TEXTS = st.text(st.sampled_from([*HOSTILE, "é", "字", "a", '"', "\\"]), max_size=20)


@given(TEXTS)
def test_json_is_one_printable_line_that_says_the_same(text):
    line = json_line({"body": text, "headers": {text: 1}})
    assert line.isprintable()
    assert json.loads(line)["body"] == text
    line.encode()


def test_letters_of_every_language_stay_readable():
    assert json_line(["é字"]) == '["é字"]'


@pytest.mark.parametrize("show", [lambda text: plain(text).plain, safe])
def test_what_people_read_has_lines_and_nothing_else_that_steers(show):
    assert all(line.isprintable() for line in show(HOSTILE).split("\n"))
    assert show("two\nlines") == "two\nlines"
    assert one_line(HOSTILE).plain.isprintable()


def test_an_error_is_shown_without_what_steers():
    assert str(Failure(NotFoundError(HOSTILE)).message).replace("\n", "").isprintable()


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_log_record_is_a_line_that_its_message_can_not_end(formatter):
    record = logging.makeLogRecord({"msg": "refused: %s", "args": (HOSTILE,), "levelname": "INFO"})
    line = formatter.format(record)
    assert line.isprintable()


def test_a_traceback_in_a_log_has_its_lines():
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    lines = TextFormatter().format(record).split("\n")
    assert len(lines) > 3
    assert all(line.isprintable() for line in lines)
