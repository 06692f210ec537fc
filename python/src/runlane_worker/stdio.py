"""Keeps the real stdin and stdout for the protocol.

Libraries print. Whatever is written to file descriptor 1 after `claim`, by Python or by C code, goes to stderr, and
whoever reads file descriptor 0 finds it empty.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple


class Channels(NamedTuple):
    """The file descriptors of the protocol; children do not inherit them."""

    input: int
    output: int


_claimed: Channels | None = None


def claim() -> Channels:
    """Takes stdin and stdout away from everybody else; call it once, first.

    Raises:
        OSError: One of them is closed.
    """
    global _claimed
    channels = Channels(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    if sys.stdout is not None:
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a TextIOWrapper at this point
    _claimed = channels
    return channels


def write_raw(data: bytes) -> None:
    """Writes to the real stdout, blocking, past all order: only for the mock's misbehaviour.

    Raises:
        RuntimeError: Before `claim`.
        OSError: The reader is gone.
    """
    if _claimed is None:
        raise RuntimeError("stdout was not claimed")
    blocking = os.get_blocking(_claimed.output)
    os.set_blocking(_claimed.output, True)
    write_all(_claimed.output, data)
    os.set_blocking(_claimed.output, blocking)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes everything to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
