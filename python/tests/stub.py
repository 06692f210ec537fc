"""Starts the stub of the providers, and tells workers where it is."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from support import WAIT_S

KEYS = {
    "OPENAI_API_KEY": "sk-the-secret-of-openai",
    "OPENAI_COMPATIBLE_API_KEY": "the-secret-of-the-gateway",
    "ANTHROPIC_API_KEY": "sk-ant-the-secret-of-anthropic",
    "GOOGLE_API_KEY": "the-secret-of-google",
    "MISTRAL_API_KEY": "the-secret-of-mistral",
}


class Stub:
    """A stub in a process of its own, which ends with the block."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("stub_server.py"))
        self.process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.root = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def environment(self, **more: str) -> dict[str, str]:
        """The variables by which a worker finds it."""
        urls = {
            "OPENAI_BASE_URL": f"{self.root}/v1",
            "OPENAI_COMPATIBLE_BASE_URL": f"{self.root}/v1",
            "OLLAMA_BASE_URL": f"{self.root}/v1",
            "ANTHROPIC_BASE_URL": self.root,
            "GOOGLE_BASE_URL": self.root,
            "MISTRAL_BASE_URL": f"{self.root}/mistral",
        }
        return {**KEYS, **urls, **more}

    def get(self, path: str) -> Any:
        """What it has seen."""
        with urllib.request.urlopen(f"{self.root}/admin/{path}", timeout=WAIT_S) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Changes it."""
        request = urllib.request.Request(f"{self.root}/admin/{path}", json.dumps(body or {}).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return json.load(answer)

    def __enter__(self) -> Stub:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(WAIT_S)
        self.process.stdout.close()
