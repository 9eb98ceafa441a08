"""Watch a study on a terminal: its state, drawn again every two seconds until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from insgd_lab.studies.status import StudyState, Survey

__all__ = ["watch"]

_SECONDS = 2.0
_IDLE_LOOKS = 3  # a study that is about to start is not in use yet


def watch(
    survey: Survey, draw: Callable[[StudyState], RenderableType], console: Console, seconds: float = _SECONDS
) -> StudyState:
    """Draw the study's state again and again, until it has ended, nobody runs it any more, or Ctrl-C is pressed.

    Args:
        survey: reads the state.
        draw: makes a picture of it.
        console: where to draw; one that is no terminal gets one picture.
        seconds: from one picture to the next.

    Returns:
        The last state.

    Raises:
        StoreError: there is no readable study.
    """
    state, idle = survey.state(), 0
    if not console.is_terminal:
        console.print(draw(state))
        return state
    with Live(draw(state), console=console, auto_refresh=False) as live:
        try:
            while not state.ended and idle < _IDLE_LOOKS:
                time.sleep(seconds)
                state = survey.state()
                idle = 0 if state.in_use else idle + 1
                live.update(draw(state), refresh=True)
        except KeyboardInterrupt:  # it is how one stops watching
            pass
    return state
