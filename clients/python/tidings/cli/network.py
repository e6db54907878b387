"""The way to a server below gRPC: its name and port, and TLS. For `tidings doctor`."""

from __future__ import annotations

import socket
import ssl
from contextlib import closing
from typing import Final

from tidings.cli.contexts import Server

TIMEOUT_SECONDS: Final = 5.0

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins: the magic words, and empty settings. A server begins with its settings."""
_FRAME_HEADER_BYTES: Final = 9
_FRAME_TYPE: Final = 3
_SETTINGS: Final = b"\x04"


class Fault(Exception):
    """What is wrong, and how to mend it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


def check_address(server: Server) -> str:
    """Raises Fault."""
    with closing(_connected(server)):
        return f"{server.target} takes connections"


def check_tls(server: Server) -> str:
    """Raises Fault."""
    with closing(_connected(server)) as connection:
        return _check_handshake(server, connection) if server.tls else _check_plaintext(server, connection)


def _check_handshake(server: Server, connection: socket.socket) -> str:
    context = ssl.create_default_context(cafile=server.ca_file or None)
    context.set_alpn_protocols(["h2"])
    host, _ = _address(server)
    try:
        with context.wrap_socket(connection, server_hostname=host) as secured:
            return f"{secured.version()}, and the certificate is that of {host}"
    except ssl.SSLCertVerificationError as error:
        raise Fault(
            f"the certificate is not to be trusted: {error.verify_message}",
            "add the context again with --ca and the CA that signed it, or with the name that it is for",
        ) from error
    except (ssl.SSLError, OSError) as error:
        raise Fault(
            f"the handshake fails: {error}", "if the server has no TLS, add the context again with --plaintext"
        ) from error


def _check_plaintext(server: Server, connection: socket.socket) -> str:
    try:
        connection.sendall(_PREFACE)
        answer = connection.makefile("rb").read(_FRAME_HEADER_BYTES)
    except OSError:
        answer = b""
    if answer[_FRAME_TYPE : _FRAME_TYPE + 1] == _SETTINGS:
        return "plain text, as the context says"
    if _speaks_tls(server):
        raise Fault("the server wants TLS, and the context is plain text", "add the context again with --tls")
    raise Fault("the server does not answer HTTP/2", "look whether the port is that of Tidings")


def _speaks_tls(server: Server) -> bool:
    """Whether a handshake succeeds, whoever the server is."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    anybody.set_alpn_protocols(["h2"])
    try:
        with closing(_connected(server)) as connection, anybody.wrap_socket(connection):
            return True
    except OSError:
        return False


def _connected(server: Server) -> socket.socket:
    try:
        return socket.create_connection(_address(server), timeout=TIMEOUT_SECONDS)
    except socket.gaierror as error:
        raise Fault(f"{server.target}: there is no such host: {error}", "look whether the name is right") from error
    except ConnectionRefusedError as error:
        raise Fault(
            f"{server.target}: nothing listens there", "start the server, or look whether the port is right"
        ) from error
    except OSError as error:
        raise Fault(f"{server.target}: {error}", "look whether a firewall or a network is in between") from error


def _address(server: Server) -> tuple[str, int]:
    host, _, port = server.target.rpartition(":")
    if not port.isdecimal():
        raise Fault(f"{server.target} has no port", "write the address as HOST:PORT")
    return host.strip("[]"), int(port)
