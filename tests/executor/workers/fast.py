"""Answers every job at once, as many as came together in one write: what is left is the node's own cost."""

import os
import re

ID = re.compile(rb'"jobId":\s*"([^"]*)"')
HEAD = b'{"v":1,"type":"result","jobId":"'
USAGE = b'{"input":1,"output":1,"reasoning":0,"cacheRead":0,"cacheWrite":0}'
TAIL = (b'","transcript":{"turns":[{"n":1,"label":null,"prompt":"p","response":"r","finishReason":"stop","usage":'
        + USAGE + b',"latencyMs":0}],"usage":' + USAGE + b',"modelVersion":null,"score":null,"costUsd":null,'
        b'"startedAt":"2026-01-01T00:00:00Z","completedAt":"2026-01-01T00:00:00Z"}}\n')

os.write(1, b'{"v":1,"type":"hello","pid":0,"worker":"fast"}\n')
rest = b""
while chunk := os.read(0, 1 << 16):
    *lines, rest = (rest + chunk).split(b"\n")
    answer = b"".join(HEAD + ID.search(line)[1] + TAIL for line in lines if b'"job"' in line)
    while answer:
        answer = answer[os.write(1, answer):]
    if any(b'"shutdown"' in line for line in lines):
        break
