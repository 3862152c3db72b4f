"""API keys of the clients."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from models.common.errors import HalftoneError

SECRET = re.compile(r"[!-+\--~]{16,}")
"""At least 16 visible ASCII characters without commas."""

_BEARER = b"bearer "


class Keys:
    """The accepted keys; without keys every client is accepted.

    Args:
        keys: the keys in plain text; only their hashes are kept.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read keys separated by commas, or from @FILE with one key a line; a line that starts with `#` is a comment.

        Raises:
            HalftoneError: a key is too short or has other characters, or the file can't be read or has no key.
        """
        keys = _from_file(Path(text[1:])) if text.startswith("@") else [key.strip() for key in text.split(",") if text]
        if not all(SECRET.fullmatch(key) for key in keys):
            raise HalftoneError(
                "HALFTONE_API_KEYS: every key must be at least 16 visible ASCII characters, without spaces or commas"
            )
        return cls(keys)

    def __contains__(self, key: str) -> bool:
        """Return True if `key` is accepted."""
        return self._known(key.encode())

    def allow(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return True if there are no keys, or if `Authorization: Bearer KEY` or `X-API-Key: KEY` has one of them."""
        return not self._digests or any([self._known(offered) for offered in _offered(headers)])

    def _known(self, offered: bytes) -> bool:
        # All hashes have one length and each is compared in constant time: the duration reveals nothing about the keys.
        digest = _digest(offered)
        return any([hmac.compare_digest(digest, each) for each in self._digests])


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _offered(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for name, value in headers:
        if name == b"x-api-key":
            yield value.strip()
        elif name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            yield value[len(_BEARER) :].strip()


def _from_file(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("ascii").splitlines()]
    except (OSError, ValueError) as error:
        # Without the path: a key may begin with @, too, or the content of the file may stand in its place.
        reason = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
        raise HalftoneError(f"HALFTONE_API_KEYS: can't read the file of keys that @ names ({reason})") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise HalftoneError(f"HALFTONE_API_KEYS: {path} has no key")
    return keys
