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
import struct

_logger = logging.getLogger(__name__)

# setup, destroy, getevents, submit: asm/unistd_64.h of x86, asm-generic/unistd.h of the others.
_GENERIC = (0, 1, 4, 2)
_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": _GENERIC, "riscv64": _GENERIC, "loongarch64": _GENERIC}
# linux/aio_abi.h, struct iocb: data, key, rw_flags, opcode, priority, fd, buffer, count, offset, reserved, flags,
# resfd; struct io_event: data, iocb, result, result2.
_IOCB = struct.Struct("<QIiHhIQQqQII")
_EVENT = struct.Struct("<QQqq")
_PWRITE = 1  # IOCB_CMD_PWRITE
_RESFD = 1  # IOCB_FLAG_RESFD
_ONE = ctypes.c_long(1)


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
        # PyDLL: who gives up the interpreter waits for it afterwards.
        self._call = ctypes.PyDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._is_set_up = False  # not before it is needed: what is set up takes 10 ms to destroy
        is_64_bit = ctypes.sizeof(ctypes.c_void_p) == 8
        self._calls = _CALLS.get(platform.machine()) if is_64_bit else None  # None: not asked, or refused
        self._iocb, self._event = bytearray(_IOCB.size), bytearray(_EVENT.size)
        self._iocbs = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._iocb)))
        self._events = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(self._event)))

    def close(self) -> None:
        """Nothing may be under way."""
        if self._calls and self._context.value:
            self._ask(self._calls[1], self._context)
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
        if self._calls is None:
            self._result = os.pwrite(fd, memory.view[start:end], offset)
            os.eventfd_write(self._resfd, 1)
            return
        where = (fd, memory.address + start, end - start, offset)
        _IOCB.pack_into(self._iocb, 0, 0, 0, 0, _PWRITE, 0, *where, 0, _RESFD, self._resfd)
        if self._ask(self._calls[3], self._context, _ONE, ctypes.byref(self._iocbs)) != 1:
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
        if self._calls is None:
            return self._result
        if self._ask(self._calls[2], self._context, _ONE, _ONE, self._events, None) != 1:
            raise _os_error(ctypes.get_errno())
        _, _, result, _ = _EVENT.unpack(self._event)
        if result < 0:
            raise _os_error(-result)
        return int(result)

    def _set_up(self) -> None:
        self._is_set_up = True
        reason = "unknown on this machine"
        if self._calls:
            if self._ask(self._calls[0], _ONE, ctypes.byref(self._context)) == 0:
                return
            reason = os.strerror(ctypes.get_errno())
        self._calls = None
        _logger.warning(
            "no asynchronous IO here (io_setup: %s): the node waits for each write to its disk", reason
        )

    def _ask(self, number: int, *args: object) -> int:
        return int(self._call(ctypes.c_long(number), *args))


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
