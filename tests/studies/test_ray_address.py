"""Addresses of Ray clusters are judged without Ray: by their form, and by who answers there."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from insgd_lab.studies.executor import ExecutionError
from insgd_lab.studies.ray_address import check_answers, place_of

from .test_ray import STUDY

SETTINGS = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + bytes(6)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("ray://head.cluster:10001", ("head.cluster", 10001)),
        ("[::1]:6379", ("::1", 6379)),
        ("auto", None),
    ],
)
def test_addresses_have_a_host_and_a_port(address: str, place: tuple[str, int] | None) -> None:
    assert place_of(address) == place


@pytest.mark.parametrize("address", ["nonsense", "", "host", "host:", ":6379", "host:99999", "http://host:1", "a b:1"])
def test_others_are_refused_with_the_forms_that_are_expected(address: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT, ray://HOST:PORT or auto"):
        place_of(address)


def test_the_command_says_so_too(cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    result = cli("study", "run", "small.toml", "--ray", "nonsense")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: --ray nonsense: expected HOST:PORT, ray://HOST:PORT or auto\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"SSH-2.0-OpenSSH_9.6\r\n", "what answers there is no Ray"), (b"", "nobody answered within 0.3 s")],
)
def test_who_does_not_answer_as_ray_is_refused_in_time(answer: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with answering(server, answer), pytest.raises(ExecutionError) as caught:
            check_answers(address, seconds=0.3)
    assert str(caught.value).startswith(f"there is no Ray to join at {address}: {reason}; check the address")


def test_nobody_there_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ExecutionError, match=rf"no Ray to join at ray://127\.0\.0\.1:{port}: .*refused; check"):
        check_answers(f"ray://127.0.0.1:{port}")


def test_a_name_that_no_host_can_have_is_refused() -> None:
    with pytest.raises(ExecutionError, match=r"no Ray to join at a\.\.b:6379: a\.\.b cannot be the name of a host"):
        check_answers("a..b:6379")


def test_connecting_and_greeting_share_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def slow(connection: socket.socket, place: tuple[str, int]) -> None:
        time.sleep(0.8)
        connect(connection, place)

    monkeypatch.setattr(socket.socket, "connect", slow)
    with socket.create_server(("127.0.0.1", 0)) as server, answering(server, b""):
        began = time.monotonic()
        with pytest.raises(ExecutionError, match="nobody answered within 1 s"):
            check_answers(f"127.0.0.1:{server.getsockname()[1]}", seconds=1)
        assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(("value", "asked"), [("0", True), ("", True), ("false", True), ("1", False), ("True", False)])
def test_only_under_encryption_is_any_server_taken_for_ray(
    monkeypatch: pytest.MonkeyPatch, value: str, asked: bool
) -> None:
    monkeypatch.setenv("RAY_USE_TLS", value)
    refused = pytest.raises(ExecutionError, match="is no Ray") if asked else nullcontext()
    with socket.create_server(("127.0.0.1", 0)) as server, answering(server, b"SSH-2.0-OpenSSH_9.6\r\n"), refused:
        check_answers(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_server_of_grpc_is_taken_for_ray_even_if_it_speaks_in_pieces() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, answering(server, SETTINGS[:4], SETTINGS[4:]):
        check_answers(f"127.0.0.1:{server.getsockname()[1]}")


class answering:  # noqa: N801
    """A server that answers one caller, while it is open, and then waits for him to leave."""

    def __init__(self, server: socket.socket, *pieces: bytes) -> None:
        self.server, self.pieces = server, pieces
        self.thread = threading.Thread(target=self._answer)

    def _answer(self) -> None:
        connection, _ = self.server.accept()
        with connection, suppress(ConnectionError):  # he leaves as soon as he knows enough
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in self.pieces:
                connection.sendall(piece)
            while connection.recv(100):
                pass

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.thread.join(5)
