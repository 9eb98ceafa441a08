"""What the command line prints of laws."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from insgd_lab.testing.law import BadCase
from insgd_lab.testing.laws import Outcome, get

__all__ = ["explain", "inapplicable", "progress", "read_case", "summary", "tried"]

_COLOURS = {"pass": "green", "fail": "bold red"}


def tried(outcomes: Iterable[Outcome]) -> list[tuple[str, Text, str]]:
    """Name, verdict and statement of each law that applies."""
    return [
        (outcome.law, Text(outcome.verdict, style=_COLOURS[outcome.verdict]), get(outcome.law).title)
        for outcome in outcomes
        if outcome.verdict != "not applicable"
    ]


def inapplicable(outcomes: Iterable[Outcome]) -> list[tuple[str, str]]:
    """Each reason why laws do not apply, and the laws that give it."""
    laws: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.verdict == "not applicable":
            laws.setdefault(outcome.detail, []).append(outcome.law)
    return [(reason, ", ".join(names)) for reason, names in laws.items()]


@contextmanager
def progress(name: str, total: int, stream: TextIO) -> Iterator[Callable[[Iterable[Outcome]], Iterator[Outcome]]]:
    """Give a function that passes outcomes on and counts them on a bar; without a terminal it counts nothing."""
    if not stream.isatty():
        yield iter
        return
    bar = Progress(*Progress.get_default_columns(), console=Console(file=stream), transient=True)
    with bar:
        yield lambda outcomes: iter(bar.track(outcomes, total=total, description=name))


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
