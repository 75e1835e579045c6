"""One write to a file at a time, under way while the caller does other things: Linux's asynchronous IO (io_submit(2)).

A thread that writes costs two hand-overs of the interpreter each time, the kernel's own queue none. The libraries for
it take `bytes`, which never lie where O_DIRECT wants them, so the four system calls are made here. Where the kernel or
a sandbox forbids them the write is made at once, and the caller waits.
"""

import ctypes
import logging
import mmap
import os
import platform
import select

_logger = logging.getLogger(__name__)

# asm/unistd_64.h of x86; asm-generic/unistd.h for all later ones.
_SETUP, _DESTROY, _GETEVENTS, _SUBMIT = (
    (206, 207, 208, 209) if platform.machine() == "x86_64" else (0, 1, 4, 2)
)
_PWRITE = 1  # linux/aio_abi.h: IOCB_CMD_PWRITE
_RESFD = 1  # IOCB_FLAG_RESFD


class _Iocb(ctypes.Structure):
    """struct iocb of linux/aio_abi.h, little-endian."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("resfd", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """struct io_event of linux/aio_abi.h."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("iocb", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class PageMemory:
    """Memory that begins at a page, as O_DIRECT wants it.

    Args:
        count: bytes.
    """

    __slots__ = ("address", "view")

    def __init__(self, count: int) -> None:
        pages = mmap.mmap(-1, count)
        self.view = memoryview(pages)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(pages))


class AsyncWrite:
    """At most one write is under way; `fileno` becomes readable when it has ended."""

    def __init__(self) -> None:
        self._resfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._result = 0
        # PyDLL: none of these calls waits; getevents is made when there is an event.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._is_set_up = False  # not before it is needed: what is set up takes 10 ms to destroy
        self._is_allowed = True
        self._iocb = _Iocb(opcode=_PWRITE, flags=_RESFD, resfd=self._resfd)
        self._events = (_Event * 1)()
        one, iocbs = ctypes.c_long(1), (ctypes.POINTER(_Iocb) * 1)(ctypes.pointer(self._iocb))
        self._submit = (ctypes.c_long(_SUBMIT), self._context, one, iocbs)
        self._take = (ctypes.c_long(_GETEVENTS), self._context, one, one, self._events, None)

    def close(self) -> None:
        """Nothing may be under way."""
        if self._context.value:
            self._call(ctypes.c_long(_DESTROY), self._context)
        os.close(self._resfd)

    def fileno(self) -> int:
        """For whoever waits: readable when the write has ended."""
        return self._resfd

    def begin(self, fd: int, memory: PageMemory, start: int, end: int, offset: int) -> None:
        """Write `memory[start:end]` to the file at the offset. The memory must stay as it is until `end`.

        Raises:
            OSError: the write could not begin.
        """
        if not self._is_set_up:
            self._set_up()
        if not self._is_allowed:
            self._result = os.pwrite(fd, memory.view[start:end], offset)
            os.eventfd_write(self._resfd, 1)
            return
        iocb = self._iocb
        iocb.fd, iocb.buffer, iocb.count, iocb.offset = fd, memory.address + start, end - start, offset
        if self._call(*self._submit) != 1:
            raise _os_error(ctypes.get_errno())

    def wait(self) -> None:
        """Until `fileno` is readable."""
        ended = select.poll()
        ended.register(self._resfd, select.POLLIN)
        ended.poll()

    def end(self) -> int:
        """How many bytes were written; call it when `fileno` is readable.

        Raises:
            OSError: of the write.
        """
        os.eventfd_read(self._resfd)
        if not self._is_allowed:
            return self._result
        if self._call(*self._take) != 1:
            raise _os_error(ctypes.get_errno())
        result = int(self._events[0].result)
        if result < 0:
            raise _os_error(-result)
        return result

    def _set_up(self) -> None:
        self._is_set_up = True
        if self._call(ctypes.c_long(_SETUP), ctypes.c_long(1), ctypes.byref(self._context)) < 0:
            self._is_allowed = False
            reason = os.strerror(ctypes.get_errno())
            _logger.warning(
                "no asynchronous IO here (io_setup: %s): the node waits for each write to its disk", reason
            )


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
