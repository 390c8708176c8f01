"""The suite cannot reach the network, and says so."""

import os
import socket

import pytest
import pytest_socket


def test_connection_to_another_machine_is_refused() -> None:
    with socket.socket() as connection, pytest.raises(pytest_socket.SocketConnectBlockedError):
        connection.connect(("192.0.2.1", 80))


def test_loopback_is_open_for_process_groups() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()) as client:
            assert client.getpeername() == server.getsockname()


def test_hub_libraries_are_offline_and_silent() -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY"):
        assert os.environ[name] in {"1", "True"}  # a Gradio application without analytics writes True
