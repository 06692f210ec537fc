"""Gives the mock trouble that lasts until somebody ends it, in the processes of the runbooks' tests only.

Python imports this by itself from ``PYTHONPATH``. While the directory ``TROUBLE`` has a file ``lasts``, or the one that the
key ``while`` names, a model with the key ``trouble=down`` fails as a provider that is down, ``trouble=auth`` as one that knows us no more, ``trouble=crash`` kills its
worker, and ``trouble=slow`` does not answer.
"""

import asyncio
import os
import signal
from urllib.parse import parse_qsl

try:
    from runlane_worker.errors import JobError
    from runlane_worker.providers import mock
except ModuleNotFoundError:
    # Another Python of the same environment: nothing to spoil.
    pass
else:
    LOOK_SECONDS = 0.05
    complete = mock.Mock.complete

    async def troubled(self, request):
        keys = dict(parse_qsl(request.model_name.partition("?")[2]))
        trouble, mark = keys.get("trouble"), os.path.join(os.environ["TROUBLE"], keys.get("while", "lasts"))
        if trouble == "down" and os.path.exists(mark):
            raise JobError("server_error", "503: the provider is down", http_status=503)
        if trouble == "auth" and os.path.exists(mark):
            raise JobError("auth", "401: this key has expired", http_status=401)
        if trouble == "crash" and os.path.exists(mark):
            os.kill(os.getpid(), signal.SIGSEGV)
        while trouble == "slow" and os.path.exists(mark):
            await asyncio.sleep(LOOK_SECONDS)
        return await complete(self, request)

    mock.Mock.complete = troubled
