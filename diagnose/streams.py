"""Standard output and standard error: writing to them never fails, and the end asks what became of it."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_READER_GONE = (errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN)
_CLOSED = OSError(errno.EBADF, "it is closed")


class Stream(io.RawIOBase):
    """Takes every byte; what could not be written is told by `error`."""

    def __init__(self, raw: Any) -> None:
        """None: the process was started with this stream closed."""
        self.error: OSError | None = None
        self._raw = raw
        self._reader_gone = False

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._raw is not None and bool(self._raw.isatty())

    def fileno(self) -> int:
        """OSError where there is none."""
        if self._raw is None:
            raise _CLOSED
        return int(self._raw.fileno())

    def write(self, data: Any, /) -> int:
        """All of it, whatever becomes of it; a reader that has gone is no error."""
        view = memoryview(data).cast("B")
        if view and self.error is None and not self._reader_gone:
            try:
                self._write(view)
            except OSError as error:
                self._reader_gone = error.errno in _READER_GONE
                self.error = None if self._reader_gone else error
        return len(view)

    def _write(self, view: memoryview) -> None:
        if self._raw is None:
            raise _CLOSED
        while view:
            written = self._raw.write(view)
            if written is None:  # it does not block (O_NONBLOCK), and is full
                import select

                select.select((), (self.fileno(),), ())
            else:
                view = view[written:]


@contextmanager
def unfailing() -> Iterator[tuple[Stream, Stream]]:
    """Puts such streams in the place of sys.stdout and sys.stderr."""
    before = sys.stdout, sys.stderr
    streams = _raw(sys.stdout), _raw(sys.stderr)
    sys.stdout = _text(streams[0], before[0], line_buffering=False)
    sys.stderr = _text(streams[1], before[1], line_buffering=True)
    ours = sys.stdout, sys.stderr
    try:
        yield streams
    finally:
        for text in ours:
            text.flush()
        sys.stdout, sys.stderr = before


def _raw(text: TextIO | None) -> Stream:
    buffer = getattr(text, "buffer", None)
    return Stream(getattr(buffer, "raw", buffer))


def _text(stream: Stream, before: TextIO | None, *, line_buffering: bool) -> TextIO:
    encoding = (before.encoding if before is not None else None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(stream), encoding, "backslashreplace", newline="\n", line_buffering=line_buffering
    )
