"""Why a run has failed, in one line: the one that says it, not the last that was printed."""

from __future__ import annotations

import pytest

from insgd_lab.store import reason_of

RAISED = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in f
    raise ValueError
ValueError: batch of 1 image
of two lines
"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RAISED, "ValueError: batch of 1 image"),
        ("its worker died 2 times; end of logs/worker-0.log:\nepoch 3: loss 0.1", "its worker died 2 times"),
        ("OSError: its own\nof two lines", "OSError: its own"),
        ("", "it left no error"),
        ("Traceback (most recent call last):\n  File", "  File"),
    ],
)
def test_the_line_that_names_the_error_is_found(error: str, reason: str) -> None:
    assert reason_of(error) == reason
