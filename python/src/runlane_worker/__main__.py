"""``python -m runlane_worker [--serve]``."""

from __future__ import annotations

import sys

from . import WORKER, stdio

_USAGE = """usage: python -m runlane_worker [--serve | --version | --help]

Without an argument: one job object on stdin, then its end; one terminal event on stdout.
--serve: JSON Lines both ways, many jobs at once, until a shutdown message or the end of stdin.
"""


def main(arguments: list[str]) -> int:
    """Runs the worker and returns the exit status."""
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(_USAGE)
        return 0
    if arguments == ["--version"]:
        sys.stdout.write(WORKER + "\n")
        return 0
    if arguments not in ([], ["--serve"]):
        sys.stderr.write(f"runlane_worker: unknown arguments {' '.join(arguments)}\n{_USAGE}")
        return 2
    try:
        channels = stdio.claim()
    except OSError as error:
        sys.stderr.write(f"runlane_worker: stdin and stdout must be open: {error}\n")
        return 2
    if arguments:
        from . import serve

        return serve.main(channels)
    from . import oneshot

    return oneshot.main(channels)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
