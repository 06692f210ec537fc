"""A model provider for tests: OpenAI's, Mistral's, Anthropic's and Google's wire formats over real HTTP.

``python stub_server.py [--port 0] [--per-minute N] [--in-flight N]`` prints its port and serves until its stdin ends.
A model's name says what becomes of a call: ``echo`` or ``rater``, then keys after ``?`` or ``;``, separated by ``&`` or
``;``:

=======================  ==============================================================================================
``delayMs=N``            waits before it answers
``gate=1``               waits until ``POST /admin/open``
``fail=NAME``            an error of `stub_formats.FAULTS`
``failFirst=N``          only the first N calls of this model and prompt fail (with ``server`` unless ``fail`` says)
``failFrom=TEXT``        only calls whose last user message is TEXT fail
``retryAfter=N``         the error's ``Retry-After`` in seconds (Google's: in its details)
``retryAfterMs=N``       the same as ``retry-after-ms``
``retryAfterDate=N``     the same as the HTTP date N seconds from now
``echoKey=1``            the answer, or the error's message, repeats the caller's API key, as some gateways do
``broken=cut``           the body ends in the middle, and with it the connection
``broken=stall``         the body stops in the middle, and the connection stays
``broken=drop``          the connection ends without an answer
``broken=html``          200 with a page that is no JSON
``broken=shape``         200 with JSON that is no answer
``empty=1``              an answer without text
``finish=WORD``          ``length`` or ``content_filter``
``spread=1``             a rater's ratings differ, by model and prompt
``reasoning=N``          so many tokens of reasoning; ``cached=N`` of the input came from a cache
=======================  ==============================================================================================

``GET /admin/stats`` tells what was seen; with ``?inFlight=N`` it answers when so many calls wait at once.
``POST /admin/ceiling`` sets ``{"perMinute": N | null, "inFlight": N | null, "windowS": 60}``; calls beyond are answered
429 with Retry-After. ``POST /admin/reset`` forgets what was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import sys
import time
from collections import Counter, deque
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit
from zlib import crc32

from stub_formats import FAULTS, Answer, Call, Json, answer, encode, error, parse

BROKEN = ("cut", "stall", "drop", "html", "shape")


class Stub:
    """What it has seen, and what it allows."""

    def __init__(self, per_minute: int | None, in_flight: int | None) -> None:
        self.per_minute = per_minute
        self.in_flight_max = in_flight
        self.window_s = 60.0
        self.changed = asyncio.Event()
        self.gate = asyncio.Event()
        self.reset()
        self.in_flight = 0

    def reset(self) -> None:
        """Forgets what was seen; calls that wait go on."""
        self.number = 0
        self.peak = 0
        self.window_peak = 0
        self.rejected = 0
        self.failed = 0
        self.gone = 0
        self.tokens = 0
        self.times: deque[float] = deque()
        self.seconds: Counter[int] = Counter()
        self.models: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()

    def stats(self) -> Json:
        """What was seen so far."""
        return {
            "accepted": self.number,
            "rejected": self.rejected,
            "failed": self.failed,
            "gone": self.gone,
            "inFlight": self.in_flight,
            "inFlightMax": self.peak,
            "windowMax": self.window_peak,
            "tokens": self.tokens,
            "perSecond": {str(second): count for second, count in sorted(self.seconds.items())},
            "models": dict(self.models),
            "keys": dict(self.keys),
        }

    def admit(self) -> int | None:
        """Takes a call in; None, or the seconds to wait when it is one too many."""
        now = time.monotonic()
        while self.times and self.times[0] <= now - self.window_s:
            self.times.popleft()
        wait: float | None = None
        if self.per_minute is not None and len(self.times) >= self.per_minute:
            wait = self.times[0] + self.window_s - now
        elif self.in_flight_max is not None and self.in_flight >= self.in_flight_max:
            wait = 1
        if wait is not None:
            self.rejected += 1
            return max(1, math.ceil(wait))
        self.times.append(now)
        self.number += 1
        self.seconds[int(time.time())] += 1
        self.window_peak = max(self.window_peak, len(self.times))
        self._count(1)
        self.peak = max(self.peak, self.in_flight)
        return None

    def _count(self, change: int) -> None:
        self.in_flight += change
        self.changed.set()
        self.changed = asyncio.Event()

    def leave(self) -> None:
        """A call has been answered or given up."""
        self._count(-1)

    async def until_in_flight(self, count: int) -> None:
        """Waits until so many calls wait for their answer at once."""
        while self.in_flight < count:
            await self.changed.wait()


def behaviour(model: str) -> dict[str, str]:
    """The keys of a model's name."""
    keys = dict(part.partition("=")[::2] for part in re.split(r"[?&;]", unquote(model))[1:])
    if keys.get("fail", "server") not in FAULTS or keys.get("broken", "cut") not in BROKEN:
        raise ValueError(f"the stub does not know {model}")
    return keys


class Connection(asyncio.Protocol):
    """One client; calls come one after the other."""

    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.data = b""
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 # the protocol's signature
        if self.task and not self.task.done():
            self.stub.gone += 1
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found or (self.task and not self.task.done()):
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        self.data = rest[length:]
        self.task = asyncio.get_running_loop().create_task(self.handle(method, target, headers, rest[:length]))

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int = 0) -> None:
        """Writes a response; the last `cut` bytes of it are left out."""
        head = {"content-type": "application/json", "content-length": str(len(body))} | (headers or {})
        text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.transport.write(f"HTTP/1.1 {status} Stub\r\n{text}\r\n".encode() + body[: len(body) - cut])

    async def handle(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        """Answers one request."""
        url = urlsplit(target)
        try:
            if url.path.startswith("/admin/"):
                self.send(200, encode(await self.admin(method, url.path, parse_qs(url.query), body)))
                return
            # A model's name in Google's path may hold a question mark.
            call = parse(unquote(target.partition("?alt=")[0] if ":generateContent" in target else url.path),
                         json.loads(body))  # fmt: skip
            if call is None:
                self.send(404, encode(error("openai", "not_found", None, "")[1]))
                return
            await self.call(call, headers)
        except (ValueError, KeyError) as problem:
            self.send(400, encode({"error": {"message": f"the stub cannot read this: {problem!r}", "type": "stub"}}))

    async def admin(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Json:
        """Looks and changes."""
        stub = self.stub
        if path == "/admin/stats":
            await stub.until_in_flight(int(query.get("inFlight", ["0"])[0]))
        elif method == "POST" and path == "/admin/open":
            stub.gate.set()
        elif method == "POST" and path == "/admin/reset":
            stub.reset()
        elif method == "POST" and path == "/admin/ceiling":
            asked = json.loads(body)
            stub.per_minute, stub.in_flight_max = asked["perMinute"], asked["inFlight"]
            stub.window_s = asked.get("windowS", 60.0)
        else:
            raise ValueError(path)
        return stub.stats()

    async def call(self, call: Call, headers: dict[str, str]) -> None:
        """Answers one call of a model."""
        stub, keys = self.stub, behaviour(call.model)
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        key = bearer or headers.get("x-api-key") or headers.get("x-goog-api-key") or ""
        stub.models[call.model] += 1
        stub.keys[key] += 1
        wait_s = stub.admit()
        if wait_s is not None:
            status, problem = error(call.format, "rate_limit", wait_s, "")
            self.send(status, encode(problem), {"retry-after": str(wait_s)})
            return
        number = stub.number
        try:
            await asyncio.sleep(int(keys.get("delayMs", 0)) / 1000)
            if keys.get("gate"):
                await stub.gate.wait()
            await self.respond(call, keys, key, number)
        finally:
            stub.leave()

    async def respond(self, call: Call, keys: dict[str, str], key: str, number: int) -> None:
        """Answers, fails or breaks off, as the model's name asks."""
        stub = self.stub
        stub.calls[call.model, call.prompt] += 1
        extra = {"x-request-id": f"req-{number}", "request-id": f"req-{number}"}
        spared = "failFirst" in keys and stub.calls[call.model, call.prompt] > int(keys["failFirst"])
        spared = spared or keys.get("failFrom", call.prompt) != call.prompt
        if ("fail" in keys or "failFirst" in keys) and not spared:
            stub.failed += 1
            asked_s = int(keys["retryAfter"]) if "retryAfter" in keys else None
            echo = f" for the key {key}" if keys.get("echoKey") else ""
            status, problem = error(call.format, keys.get("fail", "server"), asked_s, echo)
            if asked_s is not None and call.format != "google":
                extra["retry-after"] = str(asked_s)
            if "retryAfterMs" in keys:
                extra["retry-after-ms"] = keys["retryAfterMs"]
            if "retryAfterDate" in keys:
                extra["retry-after"] = formatdate(time.time() + int(keys["retryAfterDate"]), usegmt=True)
            self.send(status, encode(problem), extra)
            return
        rated = call.model.startswith("rater")
        rating = crc32(f"{call.model} {call.prompt}".encode()) % 5 + 1 if keys.get("spread") else 4
        sentence = f"On balance I would rate this {rating} out of 5."
        text = "" if keys.get("empty") else sentence if rated else call.prompt
        if keys.get("echoKey"):
            text += f" You called with the key {key}."
        reply = Answer(text, keys.get("finish", "stop"), int(keys.get("reasoning", 0)), int(keys.get("cached", 0)))
        body = encode(answer(call, reply, number))
        stub.tokens += call.input_tokens + len(text) // 4 + reply.reasoning
        broken = keys.get("broken")
        if broken == "html":
            self.send(200, b"<html>the gateway says hello</html>", extra | {"content-type": "text/html"})
        elif broken == "shape":
            self.send(200, b'{"hello": "world"}', extra)
        elif broken == "drop":
            self.transport.abort()
        elif broken is not None:
            self.send(200, body, extra, cut=len(body) // 2)
            if broken == "cut":
                self.transport.close()
            else:
                await asyncio.Event().wait()
        else:
            self.send(200, body, extra)


async def _until_stdin_ends() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass


async def serve(port: int, per_minute: int | None, in_flight: int | None) -> None:
    """Serves until stdin ends: whoever started it is gone then."""
    stub = Stub(per_minute, in_flight)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stub), "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await _until_stdin_ends()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--per-minute", type=int)
    parser.add_argument("--in-flight", type=int)
    asked = parser.parse_args()
    asyncio.run(serve(asked.port, asked.per_minute, asked.in_flight))
