"""Makes the mock worse than the product's own may be, in the processes of the chaos tests only.

Python imports this by itself from ``PYTHONPATH``. A model's key ``poison=WAY`` then ruins its worker in one more way, and
``outage=1`` makes it fail as long as the file that ``CHAOS_OUTAGE`` names is there.
"""

import os
import signal
import subprocess
import sys
import time
from urllib.parse import parse_qsl

try:
    from runlane_worker import stdio
    from runlane_worker.errors import JobError
    from runlane_worker.providers import mock
except ModuleNotFoundError:
    # Another Python of the same environment: nothing to spoil.
    pass
else:
    GRANDCHILDREN = 500
    LONG_LINE_BYTES = 64 << 20
    complete = mock.Mock.complete

    def ruin(way):
        if way == "forks":
            for _ in range(GRANDCHILDREN):
                subprocess.Popen(["/bin/sleep", "600"])
            os.kill(os.getpid(), signal.SIGKILL)
        elif way == "exit137":
            os._exit(137)
        elif way == "closed":
            os.close(stdio._claimed.output)
            time.sleep(600)
        elif way == "deaf":
            time.sleep(600)
        elif way == "half":
            stdio.write_raw(b'{"v":1,"type":"result","jobId":"')
            os._exit(0)
        elif way == "nan":
            stdio.write_raw(b'{"v":1,"type":"result","jobId":NaN,"transcript":NaN}\n')
            os._exit(0)
        elif way == "long":
            stdio.write_raw(b"x" * LONG_LINE_BYTES + b"\n")
            os._exit(0)
        else:
            print(f"no such poison: {way}", file=sys.stderr)
            os._exit(2)

    async def spoiled(self, request):
        keys = dict(parse_qsl(request.model_name.partition("?")[2]))
        if "poison" in keys:
            ruin(keys["poison"])
        if "outage" in keys and os.path.exists(os.environ["CHAOS_OUTAGE"]):
            raise JobError("network", "the dependency is out, as the test asks")
        return await complete(self, request)

    mock.Mock.complete = spoiled
