"""A worker for the tests: does with each job what the job's `act` says. Protocol v1, standard library only."""

import json
import os
import resource
import signal
import sys
import time

OUT = 1


def write(data):
    while data:
        data = data[os.write(OUT, data):]


def send(message):
    write(json.dumps({"v": 1, **message}).encode() + b"\n")


def result(job, response="ok"):
    if job["kind"].startswith("analyze"):
        coverage = {"expected": 1, "used": 1, "failed": 0}
        body = {"analysis": {"coverage": coverage, "warnings": [], "methods": {}, "note": response}}
    else:
        usage = {"input": 1, "output": 2, "reasoning": 0, "cacheRead": 0, "cacheWrite": 0}
        turn = {"n": 1, "label": "scenario", "prompt": "p", "response": response, "finishReason": "stop",
                "usage": usage, "latencyMs": 1}
        body = {"transcript": {"turns": [turn], "usage": usage, "modelVersion": "play", "score": None,
                               "costUsd": "0.000001", "startedAt": "2026-01-01T00:00:00Z",
                               "completedAt": "2026-01-01T00:00:01Z"}}
    send({"type": "result", "jobId": job["jobId"], **body})


def error(job, code, **more):
    body = {"code": code, "message": f"told to say {code}", "retryable": False, **more}
    send({"type": "error", "jobId": job["jobId"], "error": body, "usage": {"input": 5, "output": 0}, "costUsd": "0.0125"})


def tell(path):
    """Whoever reads the FIFO to its end learns this pid, and when the writer has ended."""
    pipe = os.open(path, os.O_WRONLY)
    os.write(pipe, str(os.getpid()).encode())
    return pipe


def freeze():
    while True:
        time.sleep(1000)


def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def die(how, job):
    """Something that costs the whole process."""
    if how == "exit":
        os._exit(int(job.get("code", 3)))
    elif how == "segv":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "garbage":
        write(b"Traceback (most recent call last):\n")
    elif how == "half":
        write(b'{"v":1,"type":"result","jobId":"')
        os._exit(int(job.get("code", 0)))
    elif how == "utf8":
        write(b'{"v":1,"type":"progress","message":"\xff\xfe"}\n')
    elif how == "version":
        write(b'{"v":2,"type":"hello"}\n')
    elif how == "type":
        write(b'{"v":1,"type":"song"}\n')
    elif how == "flood":
        while True:
            write(b"x" * 65536)
    elif how == "close":
        os.close(OUT)
    elif how == "die slowly":
        # Its outputs go before its status can be had, as when the machine is busy.
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
        os.close(OUT)
    elif how == "freeze":
        stubborn()
    else:
        raise ValueError(how)
    if "--serve" in sys.argv or how in ("close", "die slowly", "freeze"):
        freeze()


def use(what):
    """Uses more than any worker may; returns what became of it."""
    try:
        if what == "memory":
            bytearray(1 << 30)
        elif what == "files":
            files = [open("/dev/null") for _ in range(2_000)]
            return f"opened {len(files)}"
        elif what == "file":
            with open("big", "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * (1 << 20))
        elif what == "processor":
            while True:
                pass
        elif what == "core":
            return str(resource.getrlimit(resource.RLIMIT_CORE))
    except (MemoryError, OSError) as error:
        return f"{type(error).__name__} {getattr(error, 'errno', None)}"
    return "used"


HELD = []
BARRIER = []


def do(job):
    act = job["act"]
    if act == "ok":
        result(job)
    elif act == "hold":
        HELD.append(job)
    elif act == "barrier":
        BARRIER.append(job)
        if len(BARRIER) == job["n"]:
            if job["then"] == "ok":
                while BARRIER:
                    result(BARRIER.pop())
            else:
                die(job["then"], job)
    elif act == "die":
        die(job["then"], job)
    elif act == "error":
        error(job, job["code"], **job.get("more", {}))
    elif act == "twice":
        result(job)
        result(job, "second")
    elif act == "stranger":
        result({**job, "jobId": "nobody"})
        result(job)
    elif act == "shape":
        send({"type": "result", "jobId": job["jobId"], "transcript": {"turns": "none"}})
    elif act == "env":
        result(job, json.dumps(dict(os.environ)))
    elif act == "place":
        result(job, json.dumps({"pid": os.getpid(), "session": os.getsid(0), "group": os.getpgrp(),
                                "cwd": os.getcwd(), "entries": os.listdir("."), "TMPDIR": os.environ.get("TMPDIR")}))
    elif act == "litter":
        os.makedirs("deep/er")
        for name in ("file", "deep/er/file"):
            with open(name, "w") as file:
                file.write("x" * 1000)
        die(job["then"], job)
    elif act == "swarm":
        pids = []
        for n in range(job["n"]):
            pid = os.fork()
            if pid == 0:
                # Half of them leave the group and the session.
                if n % 2:
                    os.setsid()
                stubborn()
                os.close(OUT)
                freeze()
            pids.append(pid)
        result(job, json.dumps(pids))
    elif act == "use":
        result(job, use(job["what"]))
    elif act == "stderr":
        os.write(2, b"begin")
        for _ in range(job["chunks"]):
            os.write(2, b"e" * 65536)
        os.write(2, b"the end \xff " + job.get("say", "").encode())
        result(job)
    elif act == "fork":
        if job.get("worker_fifo"):
            HELD.append(tell(job["worker_fifo"]))
        read, wrote = os.pipe()
        if os.fork() == 0:
            stubborn()
            if job.get("escape") or job.get("daemon"):
                os.setsid()
            if job.get("daemon"):
                if os.fork() != 0:
                    os._exit(0)
                os.chdir("/")
                for held in HELD:
                    os.close(held)
            tell(job["fifo"])
            os.write(wrote, b"!")
            freeze()
        os.read(read, 1)
        if job["then"] == "ok":
            result(job)
        else:
            die(job["then"], job)
    elif act == "tell":
        if job.get("stubborn"):
            stubborn()
        if job.get("answer"):
            result(job)
        tell(job["fifo"])
        freeze()
    elif act == "pretty":
        send({"type": "progress", "jobId": job["jobId"], "done": 1, "total": 2, "message": "half"})
        write(b'{\n "v": 1, "type": "error",\n "jobId": ' + json.dumps(job["jobId"]).encode())
        write(b',\n "error": {"code": "network", "message": "m", "retryable": true}\n}\n')
    else:
        raise ValueError(act)


def cancel(job_id):
    for job in HELD:
        if job["jobId"] == job_id:
            how = job.get("on_cancel", "cancelled")
            if how == "result":
                result(job)
            elif how == "deaf":
                return
            elif how == "held up":
                # The answer takes longer than the node's grace, and less than two of them.
                send({"type": "heartbeat", "jobId": job_id, "activity": "held up"})
                time.sleep(job["answers_after_s"])
                result(job)
            elif how == "alive for ever":
                while True:
                    send({"type": "heartbeat", "jobId": job_id, "activity": "held up"})
                    time.sleep(0.01)
            else:
                error(job, how)
            HELD.remove(job)
            return


def main():
    start = sys.argv[1]
    if start == "never":
        os.write(2, b"no module named runlane_worker\n")
        sys.exit(1)
    if start == "silent":
        freeze()
    if start == "chatter":
        write(b"Welcome to the worker!\n")
        freeze()
    if "--serve" not in sys.argv:
        do(json.loads(sys.stdin.buffer.read()))
        return
    if start == "once":
        # The first process of the directory fails, the next one serves.
        try:
            os.mkdir(sys.argv[2])
            sys.exit(7)
        except FileExistsError:
            pass
    send({"type": "hello", "pid": os.getpid(), "worker": "play"})
    if start == "unreading":
        freeze()
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["type"] == "job":
            do(message)
        elif message["type"] == "cancel":
            cancel(message["jobId"])
        elif message["type"] == "shutdown":
            return


main()
