"""What can go wrong, as far as a user can do something about it."""

from __future__ import annotations


class CompareError(Exception):
    """A request that can't be carried out; the message says what happened and what to do."""


class PeerError(CompareError):
    """One peer can't be installed, started or measured; it becomes a row with this reason."""
