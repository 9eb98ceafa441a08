"""The address of a Ray cluster: whether it can be one, and whether a Ray answers there. Ray is not needed for either.

>>> place_of("10.0.0.1:6379"), place_of("auto")
(('10.0.0.1', 6379), None)

Ray itself asks an address where nobody is again and again, for minutes, and waits for ever on a server that never
answers. Both its head and its client server speak gRPC, that is HTTP/2, in which a server begins with its settings.
"""

from __future__ import annotations

import os
import re
import socket
import time

from insgd_lab.studies.executor import ExecutionError

__all__ = ["check_answers", "place_of"]

_ADDRESS = re.compile(r"(?:ray://)?(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})")
_SECONDS = 10.0
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # with settings that set nothing
_HEAD = 9  # bytes before what a frame holds; the fourth is its kind
_SETTINGS = 4


def place_of(address: str) -> tuple[str, int] | None:
    """Return the host and port of an address; None for "auto", the cluster that this machine belongs to.

    Raises:
        ValueError: it is none, with what is expected.
    """
    if address == "auto":
        return None
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 2**16:
        raise ValueError("expected HOST:PORT, ray://HOST:PORT or auto")
    return found[1] or found[2], int(found[3])


def check_answers(address: str, seconds: float = _SECONDS) -> None:
    """Refuse an address where no Ray answers within so many seconds.

    Raises:
        ExecutionError: nobody does, or somebody else.
    """
    place = place_of(address)
    if place is None:
        return
    until = time.monotonic() + seconds
    try:
        with _connected(*place, until) as connection:
            speaks = _uses_tls() or _speaks_grpc(connection, until)
    except TimeoutError:
        raise ExecutionError(_nobody(address, f"nobody answered within {seconds:g} s")) from None
    except OSError as error:
        raise ExecutionError(_nobody(address, str(error))) from None
    except UnicodeError:
        raise ExecutionError(_nobody(address, f"{place[0]} cannot be the name of a host")) from None
    if not speaks:
        raise ExecutionError(_nobody(address, "what answers there is no Ray"))


def _nobody(address: str, reason: str) -> str:
    return (
        f"there is no Ray to join at {address}: {reason}; check the address (`ray start --head` prints it), that the "
        "cluster runs, and that no firewall stands between"
    )


def _uses_tls() -> bool:
    """Whether the cluster speaks under encryption, as Ray itself reads it; then any server will do."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def _connected(host: str, port: int, until: float) -> socket.socket:
    """Connect to the first of a host's addresses that answers; they share the time that is left."""
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for left, (family, kind, protocol, _, place) in zip(range(len(places), 0, -1), places, strict=True):
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(max((until - time.monotonic()) / left, 0.01))
        try:
            connection.connect(place)
            return connection
        except OSError:
            connection.close()
            if left == 1:
                raise
    raise OSError(f"{host} has no address")


def _speaks_grpc(connection: socket.socket, until: float) -> bool:
    """Whether a server greets back as one of HTTP/2 does."""
    connection.sendall(_GREETING)
    answer = b""
    while len(answer) < _HEAD:
        connection.settimeout(max(until - time.monotonic(), 0.01))
        more = connection.recv(_HEAD - len(answer))
        if not more:
            return False
        answer += more
    return answer[3] == _SETTINGS
