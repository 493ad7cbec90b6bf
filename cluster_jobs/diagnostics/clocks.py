"""The clock offsets of other machines, measured by asking them for the time over TCP."""

import math
import socket
import threading
import time

QUESTIONS = 8
PATIENCE_SECONDS = 10.0


class ClockServer:
    """Compares the clock of every machine that connects with this one's: ``with ClockServer(nonce) as server``.

    ``offsets`` holds, by the machine's name, its clock minus this one's in seconds. The answer is taken as the time
    half-way between question and reply, so the error is at most half of the fastest round trip.
    """

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce
        self.offsets: dict[str, float] = {}
        self._socket = socket.create_server(("", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "ClockServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection:
                connection.settimeout(PATIENCE_SECONDS)
                try:
                    self._ask(connection)
                except (OSError, ValueError):  # another program, or a machine that died: it gets no offset
                    continue

    def _ask(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rw") as lines:
            nonce, name = lines.readline().split()
            if nonce != self.nonce:
                return
            fastest, offset = math.inf, 0.0
            for _ in range(QUESTIONS):
                asked = time.time()
                print("?", file=lines, flush=True)
                answer, answered = float(lines.readline()), time.time()
                if answered - asked < fastest:
                    fastest, offset = answered - asked, answer - (asked + answered) / 2
            self.offsets[name] = offset
