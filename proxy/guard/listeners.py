"""The sockets at which a guard's process listens, as its config says."""

import os
import socket
from pathlib import Path

from proxy.guard.process import Config

BACKLOG = 128


def listen(config: Config) -> dict[socket.socket, str]:
    """Each with the token that its peers must know. Raises OSError and ValueError, with nothing left open."""
    listeners: dict[socket.socket, str] = {}
    try:
        if config.path:
            listeners[_at_path(config.path)] = ""
        if config.host:
            if not config.token:
                raise ValueError("an engine on a TCP address needs a token")
            family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
            listener = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
            listeners[listener] = config.token
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def port_of(listeners: dict[socket.socket, str]) -> int:
    """Of the TCP address; 0 where there is none."""
    ports = [one.getsockname()[1] for one in listeners if one.family != socket.AF_UNIX]
    return ports[0] if ports else 0


def remove(config: Config) -> None:
    """What is left of a socket that nobody listens at any more."""
    if config.path:
        Path(config.path).unlink(missing_ok=True)


def _at_path(path: str) -> socket.socket:
    _remove_dead_socket(path)
    listener = socket.socket(socket.AF_UNIX)
    # Whoever may open the socket may have anything judged and learn how; nobody else may.
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener


def _remove_dead_socket(path: str) -> None:
    """What a process that was killed has left. A socket at which somebody listens stays, and so does a file."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
        except OSError:
            pass  # binding will say what is wrong
