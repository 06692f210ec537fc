#!/usr/bin/env python3
"""Stands in for the interpreter: a worker, warm or one-shot, whose jobs say by their model how they poison it."""

import json
import os
import signal
import sys
import time
from urllib.parse import parse_qs, urlsplit

OUT = 1


def write(data):
    while data:
        data = data[os.write(OUT, data):]


def send(message):
    write(json.dumps({"v": 1, **message}).encode() + b"\n")


def answer(job):
    usage = {"input": 1, "output": 1, "reasoning": 0, "cacheRead": 0, "cacheWrite": 0}
    turn = {"n": 1, "label": "scenario", "prompt": "p", "response": "3", "finishReason": "stop", "usage": usage,
            "latencyMs": 1}
    send({"type": "result", "jobId": job["jobId"],
          "transcript": {"turns": [turn], "usage": usage, "modelVersion": "poison", "score": 3, "costUsd": None,
                         "startedAt": "2026-01-01T00:00:00Z", "completedAt": "2026-01-01T00:00:01Z"}})


def swarm():
    for n in range(500):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if n % 2:
                os.setsid()
            time.sleep(1000)
    os._exit(1)


def poison(how, job):
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(137)
    elif how == "flood":
        for _ in range(10_000):
            write(b"x" * 1_000_000)
    elif how == "line":
        write(b'"' + b"x" * (64 << 20) + b'"\n')
    elif how == "swarm":
        swarm()
    elif how == "close":
        os.close(OUT)
    elif how == "half":
        write(b'{"v":1,"type":"result","jobId":"')
        os._exit(0)
    elif how == "utf8":
        write(b'{"v":1,"type":"result","jobId":"\xff\xfe"}\n')
        os._exit(0)
    elif how == "nan":
        write(b'{"v":1,"type":"result","jobId":' + json.dumps(job["jobId"]).encode() + b',"transcript":NaN}\n')
        os._exit(0)
    # `deaf` gets here at once: it reads no more and says nothing.
    while True:
        time.sleep(1000)


def do(job):
    query = parse_qs(urlsplit(job.get("model", {}).get("id", "")).query)
    if "poison" in query:
        poison(query["poison"][0], job)
    answer(job)


def main():
    if "--serve" not in sys.argv:
        do(json.loads(sys.stdin.buffer.readline()))
        return
    send({"type": "hello", "pid": os.getpid(), "worker": "poison"})
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["type"] == "job":
            do(message)
        elif message["type"] == "shutdown":
            return


main()
