"""Which code computes an analysis: what has the same records, options and code has the same result."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path

_LIBRARIES = {
    "analyze:basic": ("numpy", "scipy"),
    "analyze:deep": ("numpy", "scipy", "statsmodels", "scikit-learn", "krippendorff"),
}
_SOURCES = ("analysis/*.py", "job.py", "pricing.py")
"""What an analysis runs through, below this folder."""


def versions(kind: str) -> dict[str, str]:
    """The versions of Python and of the libraries that compute this kind. Nothing of them is imported."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _LIBRARIES[kind]}


def of(kind: str) -> str:
    """A hash, 64 hexadecimal digits, of the sources and the versions of all that computes this kind."""
    digest = hashlib.sha256(repr((kind, versions(kind))).encode())
    folder = Path(__file__).parent
    for path in sorted(path for pattern in _SOURCES for path in folder.glob(pattern)):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()
