"""An HTTP/1.1 connection that nobody can hold for long: uvicorn's, with deadlines, and its errors in JSON as the server's."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded(seconds: float) -> type[H11Protocol]:
    """The class of connections for `uvicorn.Config(http=...)`.

    Args:
      seconds: in which the headers of a request must arrive, from the connection or from the last
        answer on; and in which a client must take an answer. What lies between headers and answer
        is the application's to bound.
    """
    return type("Connection", (_Connection,), {"seconds": seconds})


class _Connection(H11Protocol):
    seconds: float
    _timer: asyncio.TimerHandle | None = None
    _deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            super().data_received(data)

    def on_response_complete(self) -> None:
        self._begin()  # first: a request that waits behind this one is taken up in there
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._idle():
            self._end()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, f"expected a request of HTTP/1.1, found: {msg}")

    def _begin(self) -> None:
        self._end()
        self._timer = self.loop.call_later(self.seconds, self._too_late)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _idle(self) -> bool:
        """No answer is being made: a request is yet to come, or the rest of one that is answered."""
        return self.cycle is None or self.cycle.response_complete

    def _too_late(self) -> None:
        waiting = self.conn.our_state is h11.IDLE and not self.transport.is_closing()
        if self._idle() and waiting and self.conn.trailing_data[0]:
            self._refuse(408, f"headers: expected all of them within {self.seconds:g} s, found a part.")
        elif self._idle() or self.flow.write_paused:
            self.transport.abort()  # where closing would wait until the client takes what is written

    def _refuse(self, status: int, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is on its way
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if not self._idle() or self.transport.is_closing():
            self.transport.close()
            return
        self._deaf = True  # to what still comes: a system that closes on it takes the answer back
        self.transport.write_eof()
        self._begin()
