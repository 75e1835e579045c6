"""Passwords as salted scrypt hashes (RFC 7914): slow on purpose, so never on the loop nor in `apply`."""

import hashlib
import hmac

from node.broker.records import UserRecord

SALT_SIZE_BYTES = 16
_COST = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}  # 16 MiB and some 50 ms

GUEST_SALT = b"warren formation"
GUEST_HASH = bytes.fromhex("0867584d904814400700d8b70682f7d85a52d09049f009288790f4654f221a61")
"""Of the password guest, which is no secret: the frontend lets guest in over loopback only."""


def hash_password(password: str, salt: bytes) -> bytes:
    """The hash to keep. The salt is drawn by the caller, SALT_SIZE_BYTES of it, anew for each password."""
    return hashlib.scrypt(password.encode("utf-8", "surrogateescape"), salt=salt, **_COST)


def verify_password(user: UserRecord | None, password: str) -> bool:
    """Whether the password is the user's. An unknown user costs as much time as a wrong password."""
    salt = user.salt if user is not None else GUEST_SALT
    expected = user.password_hash if user is not None else b""
    actual = hash_password(password, salt)
    return bool(expected) and hmac.compare_digest(expected, actual)
