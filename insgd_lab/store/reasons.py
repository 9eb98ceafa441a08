r"""Why a run has failed, in one line: what its run.json keeps is a whole traceback, or the end of a worker's log.

>>> reason_of("worker 3 died of signal 9; end of worker-3.log:\nepoch 1")
'worker 3 died of signal 9'
"""

from __future__ import annotations

import re

__all__ = ["reason_of"]

_LOG = re.compile(r"; end of .*:$")
_TRACEBACK = "Traceback (most recent call last):"


def reason_of(error: str) -> str:
    """The line that names the error: of a traceback the one below the last calls, of any other text the first.

    Of a worker that died the first line ends in the name of its log, which is another for each worker.
    """
    lines = [line for line in error.splitlines() if line.strip()] or ["it left no error"]
    if lines[0] != _TRACEBACK:
        return _LOG.sub("", lines[0]).rstrip(":")
    last = len(lines) - lines[::-1].index(_TRACEBACK)
    return next((line for line in lines[last:] if not line.startswith(" ")), lines[-1])
