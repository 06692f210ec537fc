"""The kinds ``analyze:basic`` and ``analyze:deep``.

Every analysis says how much of the run it rests on (``coverage``), what a reader must know first (``warnings``) and
how it was computed (``methods``). A number that cannot be computed is null, with a warning; none is NaN. The unit of
inference is the scenario: several scores of one scenario by one model count as their mean. docs/analysis.md has the
formulas and their sources.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from .. import WORKER, code
from ..job import Analyze
from ..protocol import Message
from .records import Table

Step = Callable[[int, int, str], None]


def run(job: Analyze, step: Step) -> Message:
    """Analyses the records; `step` is called between parts and may raise to stop.

    Raises:
        JobError: ``validation`` when a record is not what the protocol says.
    """
    table = Table.read(job.records)
    warnings = table.warnings()
    # Only the deep analysis pays for its libraries, which take seconds and 200 MB.
    module = importlib.import_module(f"{__name__}.{'basic' if job.kind == 'analyze:basic' else 'deep'}")
    parts: Message = {}
    total = len(module.PARTS)
    for done, (name, compute) in enumerate(module.PARTS.items()):
        step(done, total, name)
        parts[name] = compute(table, job, warnings)
    step(total, total, "done")
    return {
        "kind": job.kind,
        "inputHash": job.input_hash,
        **parts,
        "scenarios": table.extent(),
        "coverage": table.coverage(),
        "warnings": list(dict.fromkeys(warnings)),
        "methods": {
            "worker": WORKER,
            "code": code.of(job.kind),
            "versions": code.versions(job.kind),
            "seed": job.seed,
            "alpha": job.alpha,
            "bootstrap": job.bootstrap,
            **module.METHODS,
        },
    }
