#!/usr/bin/env python3
"""A worker whose answers PostgreSQL cannot hold where the scenario's key ends in 3 (NUL in its usage) or 5 (half
of a surrogate pair). A NUL in an answer is none of these: it is kept. It answers only when it has eight jobs, so that their ends are written together. Analyses go to the real one.
"""

import json
import os
import sys
from pathlib import Path

if "--serve" not in sys.argv:
    real = str(Path(__file__).resolve().parents[3] / "python/.venv/bin/python")
    os.execv(real, [real, *sys.argv[1:]])

USAGE = {"input": 1, "output": 1, "reasoning": 0, "cacheRead": 0, "cacheWrite": 0}


def answer(job):
    key = job["scenario"]["key"]
    turn = {"n": 1, "label": None, "prompt": "p", "response": "a\0b", "finishReason": "stop", "usage": USAGE, "latencyMs": 1}
    bad = {"note": "\0"} if key.endswith("3") else {"note": "\ud800"} if key.endswith("5") else {}
    transcript = {"turns": [turn, turn | {"n": 2}], "usage": USAGE | bad, "modelVersion": None, "costUsd": None,
                  "score": None,
                  "startedAt": "2026-01-01T00:00:00Z", "completedAt": "2026-01-01T00:00:00Z"}
    return {"v": 1, "type": "result", "jobId": job["jobId"], "transcript": transcript}


def say(*messages):
    sys.stdout.write("".join(json.dumps(message) + "\n" for message in messages))
    sys.stdout.flush()


say({"v": 1, "type": "hello", "pid": os.getpid(), "worker": "unstorable"})
waiting = []
for line in sys.stdin:
    message = json.loads(line)
    if message["type"] == "shutdown":
        break
    if message["type"] == "job":
        waiting.append(message)
        if len(waiting) == 8 or message["attempt"] > 1:
            say(*map(answer, waiting))
            waiting = []
