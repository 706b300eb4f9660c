"""Tries an installed wheel: a listener, a header and a payload."""

import platform
import socket
import sys

from proxyproto_rs import Header, Listener

with Listener("127.0.0.1", 0, trusted=["127.0.0.0/8"]) as listener:
    with socket.create_connection(listener.getsockname()) as peer:
        peer.sendall(Header.v2(("192.0.2.1", 1), ("198.51.100.1", 2)).encode() + b"hello")
        sock, address = listener.accept()
        with sock:
            assert address == ("192.0.2.1", 1), address
            assert sock.recv(5) == b"hello"
print("works on Python", sys.version.split()[0], platform.machine())
