"""What a study shows while it runs: bars on a terminal, plain lines in a pipe or file."""

from __future__ import annotations

import io
import re

import pytest

from insgd_lab.studies import progress
from insgd_lab.studies.ledger import Tally
from insgd_lab.studies.planning import Stages


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO) -> str:
    """What a study of 40 runs leaves on `stream`, without the terminal's colours and cursor moves."""
    tally = Tally(40)
    with progress.shown("mine", stream) as update:
        update(tally)
        tally.done, tally.diverged, tally.failed, tally.running = 9, 2, 1, 3
        update(tally)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())


def test_a_terminal_shows_a_bar_with_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "LINES": "20"}.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    text = shown(stream)
    last = [line for line in re.split(r"[\r\n]+", text) if line.strip()][-1]
    assert re.match(r"mine .*━.* 12/40 .*3 running, 2 diverged, 1 failed", last), text
    assert "\x1b[" in stream.getvalue()


def test_a_pipe_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0)
    stream = io.StringIO()
    assert shown(stream) == stream.getvalue()
    assert stream.getvalue().splitlines() == [
        "mine: 0 of 40 runs: 0 done, 0 diverged, 0 failed",
        "mine: 12 of 40 runs: 9 done, 2 diverged, 1 failed",
    ]


def test_plain_lines_come_seldom() -> None:
    assert shown(io.StringIO()) == ""


def test_the_time_left_is_told_once_a_run_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0)
    stream = io.StringIO()
    tally = Tally(4, done=1, executed=1)
    tally.started -= 600
    with progress.shown("mine", stream) as update:
        update(tally)
    assert stream.getvalue().endswith("1 done, 0 diverged, 0 failed; about 30 min left\n")


def test_a_search_is_shown_stage_by_stage_with_both_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0)
    tally = Tally(4, Stages(trials=8, finals=6, final=frozenset({"third"})))
    stream = io.StringIO()
    with progress.shown("mine", stream) as update:
        for run, status in {"first": "done", "second": "failed", "third": "diverged"}.items():
            tally.add(status, run)
            update(tally)
    assert stream.getvalue().splitlines() == [
        "mine: trials 1 of 8, final runs 0 of 6: 1 done, 0 diverged, 0 failed",
        "mine: trials 2 of 8, final runs 0 of 6: 1 done, 0 diverged, 1 failed",
        "mine: trials 2 of 8, final runs 1 of 6: 1 done, 1 diverged, 1 failed",
    ]
    assert (tally.left, tally.in_all - tally.ended) == (1, 11)


def test_the_time_left_of_a_search_is_that_of_both_stages() -> None:
    tally = Tally(4, Stages(trials=4, finals=6, final=frozenset()), executed=2, done=2)
    tally.started -= 20
    assert tally.seconds_left == pytest.approx(80, abs=1)
