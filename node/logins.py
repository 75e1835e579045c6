"""Password checks off the loop: scrypt is slow on purpose, so what was right once is remembered for this process.

A remembered login is a keyed digest, valid as long as the stored hash of the user stays the same.
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable

from node.broker.passwords import verify_password
from node.broker.topology import TopologyMachine
from node.session.ports import CheckLogin

REMEMBERED_MAX = 10_000


class Logins:
    """Checks passwords against the users of the metadata."""

    def __init__(self, topology: Callable[[], TopologyMachine]) -> None:
        self._topology = topology
        self._key = secrets.token_bytes(32)
        self._remembered: dict[tuple[str, bytes], bytes] = {}  # (user, stored hash): digest of the password
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, user: str, password: str) -> bool:
        """Whether the password is right. Takes some 50 ms the first time: not for the loop."""
        record = self._topology().user(user)
        stored = record.password_hash if record is not None else b""
        digest = self._digest(password)
        known = self._remembered.get((user, stored))
        if known is not None and hmac.compare_digest(known, digest):
            return True
        if not verify_password(record, password):
            return False
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[(user, stored)] = digest
        return True

    def is_remembered(self, user: str, password: str) -> bool:
        """Whether `check` would answer yes at once."""
        record = self._topology().user(user)
        known = self._remembered.get((user, record.password_hash)) if record is not None else None
        return known is not None and hmac.compare_digest(known, self._digest(password))

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode("utf-8", "surrogateescape"), "sha256")

    def answer(self, request: CheckLogin, result: Callable[[int, str | None], None]) -> None:
        """Check a client's login and call `result(conn, user or None)` in the loop, now or later."""
        if self.is_remembered(request.user, request.password):
            result(request.conn, request.user)
            return
        task = asyncio.get_running_loop().create_task(self._answer(request, result))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: CheckLogin, result: Callable[[int, str | None], None]) -> None:
        right = await asyncio.to_thread(self.check, request.user, request.password)
        result(request.conn, request.user if right else None)
