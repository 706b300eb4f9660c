"""The stream of the log: what one turn of the event loop says is one write, and nothing waits longer than that."""

from __future__ import annotations

import asyncio
import io
import logging
import threading

import pytest

from proxyproto_rs.mqtt.telling.log_stream import LogStream


class Stream(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return len(text)


def say(stream: LogStream, *said: tuple[int, str]) -> None:
    for level, text in said:
        stream.handle(logging.makeLogRecord({"levelno": level, "msg": text}))


INFO, WARNING = logging.INFO, logging.WARNING


@pytest.fixture
def written() -> Stream:
    return Stream()


@pytest.fixture
def stream(written: Stream) -> LogStream:
    return LogStream(written)


async def test_the_lines_of_one_turn_are_one_write(stream: LogStream, written: Stream) -> None:
    for turn in ("first", "second"):
        say(stream, (INFO, f"{turn} a"), (INFO, f"{turn} b"))
        await asyncio.sleep(0)
    assert written.writes == ["first a\nfirst b\n", "second a\nsecond b\n"]


async def test_a_warning_is_written_at_once_behind_what_came_before(
    stream: LogStream, written: Stream
) -> None:
    say(stream, (INFO, "a"), (WARNING, "b"))
    assert written.writes == ["a\nb\n"]
    say(stream, (INFO, "c"))
    await asyncio.sleep(0)
    assert written.writes == ["a\nb\n", "c\n"]


async def test_other_threads_lines_are_written_at_once_and_in_order(
    stream: LogStream, written: Stream
) -> None:
    say(stream, (INFO, "of the loop"))
    thread = threading.Thread(target=say, args=(stream, (INFO, "of a thread")))
    thread.start()
    thread.join()
    assert written.writes == ["of the loop\nof a thread\n"]


async def test_many_lines_do_not_wait_for_the_end_of_the_turn(stream: LogStream, written: Stream) -> None:
    say(stream, (INFO, "a"), (INFO, "b" * 70_000))
    assert len(written.writes) == 1


def test_without_a_loop_each_line_is_written_at_once(stream: LogStream, written: Stream) -> None:
    say(stream, (INFO, "a"), (INFO, "b"))
    assert written.writes == ["a\n", "b\n"]


@pytest.mark.parametrize("end", ["flush", "close"])
def test_what_a_loop_that_has_ended_has_said_is_written(end: str, stream: LogStream, written: Stream) -> None:
    async def last_words() -> None:
        say(stream, (INFO, "last words"))
        raise KeyError

    loop = asyncio.new_event_loop()
    with pytest.raises(KeyError):
        loop.run_until_complete(last_words())
    loop.close()
    getattr(stream, end)()
    assert written.writes == ["last words\n"]


async def test_another_loop_says_what_the_last_one_has_left(stream: LogStream, written: Stream) -> None:
    loop = asyncio.new_event_loop()
    loop.call_soon(say, stream, (INFO, "a"))
    thread = threading.Thread(target=_one_turn, args=(loop,))
    thread.start()
    thread.join()
    assert written.writes == []
    say(stream, (INFO, "b"))
    await asyncio.sleep(0)
    assert written.writes == ["a\nb\n"]


def _one_turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()


def test_a_stream_that_cannot_be_written_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    say(LogStream(_Full()), (INFO, "a"))
    assert "no space" in capsys.readouterr().err


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError("no space")
