"""The Python worker of Runlane.

A node starts it as a process and speaks JSON with it over stdin and stdout: one job and one answer
(``python -m runlane_worker``), or many jobs at once as JSON Lines (``python -m runlane_worker --serve``). The messages
are described by the JSON Schemas in ``schema/worker``.
"""

__version__ = "0.1.0"

WORKER = f"runlane_worker/{__version__}"
"""How this worker names itself."""
