"""What a MySQL server is told before it is trusted."""

import socket
import struct
import threading

import pytest
from wisp_events.sources import mysql_session
from wisp_events.sources.reader import Trouble

GREETING = (
    b"\x0a8.0.36\0"
    + struct.pack("<I", 7)
    + b"12345678\0"
    + b"\xff\xff\x21\x02\0\xff\xdf\x15"
    + bytes(10)
    + b"123456789012\0"
)
SWITCH = b"\xfemysql_clear_password\0\0"


def packet(number: int, content: bytes) -> bytes:
    """A packet of the protocol."""
    return struct.pack("<I", len(content))[:3] + bytes((number,)) + content


def test_no_password_goes_in_the_clear() -> None:
    """Who asks for it without TLS, as a server or between it and us, gets an end of the connection, and the user a cure."""
    heard = b""

    def serve() -> None:
        nonlocal heard
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(60)
            peer.sendall(packet(0, GREETING + b"mysql_native_password\0"))
            heard += peer.recv(65536)
            peer.sendall(packet(2, SWITCH))
            while data := peer.recv(65536):
                heard += data

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(Trouble, match=r"in the clear.*ssl-mode"):
            mysql_session.open_session(f"mysql://shop:hunter2@127.0.0.1:{listener.getsockname()[1]}")
        server.join(60)
    assert b"shop" in heard
    assert b"hunter2" not in heard
