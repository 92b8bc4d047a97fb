"""A RESP client that is just enough to set up a measurement and to watch a replica."""

import socket


class ReplyError(Exception):
    """The server answered an error."""


def encode(*arguments):
    """A command's bytes; arguments are bytes, str or int."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        if not isinstance(argument, (bytes, memoryview)):
            argument = str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)


class Client:
    """One connection. Any failure of it is an OSError."""

    def __init__(self, port, timeout=30):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()
        self.socket.close()

    def call(self, *arguments):
        """The reply to a command; raises ReplyError when that is an error."""
        return self.pipeline([arguments])[0]

    def pipeline(self, commands):
        """The replies to commands that are sent together."""
        self.socket.sendall(b"".join(encode(*command) for command in commands))
        return [self._reply() for _ in commands]

    def _reply(self):
        line = self.reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ReplyError(rest.decode(errors="replace"))
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if int(rest) < 0:
                return None
            return self.reader.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        raise ConnectionError(f"not a RESP2 reply: {line!r}")
