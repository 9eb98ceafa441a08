"""What the command line prints of laws."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from insgd_lab.testing.law import BadCase
from insgd_lab.testing.laws import Outcome, get

__all__ = ["explain", "read_case", "rows", "summary"]

_COLOURS = {"pass": "green", "fail": "bold red", "not applicable": "dim"}


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, Text, str]]:
    """Name, verdict and statement (or why it does not apply) of each law."""
    return [
        (
            outcome.law,
            Text(outcome.verdict, style=_COLOURS[outcome.verdict]),
            outcome.detail if outcome.verdict == "not applicable" else get(outcome.law).title,
        )
        for outcome in outcomes
    ]


def explain(name: str, outcome: Outcome, plugins: Sequence[str] = ()) -> str:
    """What broke a law, the smallest case found, and the command that tries it again."""
    law, case = get(outcome.law), json.dumps(outcome.case)
    options = [f"--plugin {shlex.quote(plugin)}" for plugin in plugins]
    command = " ".join(["insgd-lab check", name, "--law", law.name, "--replay", shlex.quote(case), *options])
    return (
        f"{name} breaks {law.name}: {law.title}\n"
        f"  where it holds: {law.domain}\n  source: {law.source}\n"
        f"  {outcome.detail}\n  smallest case found: {case}\n  replay: {command}"
    )


def summary(name: str, outcomes: Sequence[Outcome]) -> str:
    """How many laws passed, failed and did not apply."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    return f"{name}: {counts['pass']} pass, {counts['fail']} fail, {counts['not applicable']} not applicable"


def read_case(text: str) -> Any:
    """Read a case as it was printed.

    Raises:
        BadCase: the text is no JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadCase(f"--replay: {error} in {text!r}; give the case as it was printed, in quotes") from None
