"""Hostile answers: both transports read each alike, however it is cut into pieces.

The recorded ones are in `answers.toml`. The fuzzing test changes them, always in the same ways; in
`nox -s campaign` at random.
"""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from thorn_core import TransportError
from thorn_core.testing.transport_contract import ALLOWED
from thorn_core.transports.answers import AnswerReader, BadAnswer
from thorn_core.transports.fast import FastReader, FastTransport
from thorn_core.transports.httpx import HttpxTransport
from thorn_core.transports.limits import CHUNK_LIMIT, HEAD_LIMIT, body_limit
from thorn_core.values import Request

KEPT = 32
READERS = [AnswerReader, FastReader]
RECORDED = tomllib.loads(Path(__file__).with_name("answers.toml").read_text("utf-8"))["answer"]


def sent(recorded):
    """The bytes of a recorded answer."""
    parts = recorded["bytes"]
    text = "".join(
        part if isinstance(part, str) else part["text"] * part["times"]
        for part in ([parts] if isinstance(parts, str) else parts)
    )
    return text.encode("latin-1")


def expected(recorded):
    if "error" in recorded:
        return recorded["error"]
    return recorded["status"], recorded["body"].encode("latin-1")


def read(reader, pieces, *, closes):
    """What a reader makes of an answer; and whether it would use the connection again."""
    reader.begin("POST", KEPT)
    try:
        for number, piece in enumerate(pieces, 1):
            if reader.feed(piece):
                return told(reader), reader.reusable and number == len(pieces)
        if not closes:
            return "waits", False
        reader.end()
    except BadAnswer as problem:
        return str(problem), False
    return told(reader), reader.reusable


def told(reader):
    return reader.response.status, reader.response.body


def cut(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("reader_class", READERS)
@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["name"])
def test_a_recorded_answer_is_read_the_same_however_it_is_cut(recorded, reader_class):
    data, closes = sent(recorded), recorded.get("closes", False)
    for size in (len(data), 1000, 7) if len(data) > 5000 else (len(data), 7, 1):
        outcome, reusable = read(reader_class(), cut(data, size), closes=closes)
        assert outcome == expected(recorded)
        assert not reusable or recorded.get("reusable", False)
    if closes:
        assert read(reader_class(), [data], closes=False) == ("waits", False)


@pytest.mark.parametrize("reader_class", READERS)
@pytest.mark.parametrize("trailer", [b"", b"X: y\r\n"])
def test_of_more_chunks_than_a_thousand_the_beginning_is_kept(reader_class, trailer):
    def body(chunks, size):
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = head + b"1\r\nx\r\n" * chunks + b"0\r\n" + trailer + b"\r\n"
        reader = reader_class()
        reader.begin("POST", 8192)
        assert any(reader.feed(piece) for piece in cut(data, size))
        return reader.response.body

    for size in (100_000, 1000, 7):
        assert body(CHUNK_LIMIT, size) == b"x" * CHUNK_LIMIT
        assert body(CHUNK_LIMIT + 1, size) == b"x" * CHUNK_LIMIT


@pytest.mark.parametrize("transport_class", [HttpxTransport, FastTransport])
def test_a_transport_gives_the_outcome_of_each_recorded_answer(transport_class):
    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        recorded = RECORDED[int(head.split(b" ")[1][1:])]
        writer.write(sent(recorded))
        if recorded.get("closes"):
            writer.write_eof()
        await reader.read()  # until the other side closes
        writer.close()

    async def outcome(transport, url):
        request = Request(
            url=url, headers={}, body=b"", validators=ALLOWED, response_limit=KEPT, keepalive=False
        )
        try:
            response = await transport.send(request)
        except TransportError as error:
            return str(error).partition(": ")[2]
        return response.status, response.body

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = transport_class()
        async with asyncio.timeout(20), server:
            outcomes = await asyncio.gather(
                *(outcome(transport, f"{url}/{number}") for number in range(len(RECORDED)))
            )
        await transport.close()
        return outcomes

    outcomes = dict(zip([r["name"] for r in RECORDED], asyncio.run(main()), strict=True))
    assert outcomes == {recorded["name"]: expected(recorded) for recorded in RECORDED}


# -- fuzzing

SMALL = [sent(recorded) for recorded in RECORDED if len(sent(recorded)) < 1000]
TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"-", b"\xff"),
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"Content-Length: 2\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"0\r\n\r\n", b"2\r\nok\r\n"),
]


@st.composite
def answers(draw):
    """A recorded answer with a few changes, in pieces."""
    data = bytearray(draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        until = at + draw(st.integers(0, 12))
        data[at:until] = draw(
            st.one_of(st.sampled_from(TOKENS), st.binary(max_size=3), st.sampled_from(SMALL))
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    pieces = [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


@given(answers(), st.booleans())
@settings(max_examples=5 * settings.default.max_examples)
def test_both_readers_agree_on_any_answer_and_no_cut_changes_it(pieces, closes):
    data = b"".join(pieces)
    # h11 takes 20 digits of a chunk's size; httptools takes any number of zeros.
    assume(not re.search(rb"0{16}", data))
    careful, _ = read(AnswerReader(), pieces, closes=closes)
    fast, reusable = read(FastReader(), pieces, closes=closes)
    assert fast == careful
    assert read(AnswerReader(), [data], closes=closes)[0] == careful
    if reusable:
        # Not a byte is left over to answer the next request.
        assert (
            read(FastReader(), [data[:-1]], closes=False)[0] == "waits" or len(careful[1]) == KEPT
        )


@given(st.sampled_from(READERS), st.binary(min_size=1, max_size=64), st.sampled_from(SMALL))
def test_no_answer_is_read_without_an_end(reader_class, block, beginning):
    reader, total = reader_class(), 0
    reader.begin("POST", KEPT)
    try:
        complete = reader.feed(beginning)
        while not complete:
            piece = block * (8192 // len(block))
            complete, total = reader.feed(piece), total + len(piece)
            assert total <= HEAD_LIMIT + body_limit(KEPT) + 2 * 8192
    except BadAnswer:
        pass
