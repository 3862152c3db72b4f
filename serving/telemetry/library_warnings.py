"""Warnings of libraries (`warnings.warn`) as records of the log: in its format, and once for each line of code.

Python itself writes plain text to standard error, and once for each message: a client whose pictures cause messages
with different numbers fills the log, and the memory that holds what was shown.
"""

from __future__ import annotations

import logging
import re
import warnings

_PLACE = re.compile(r".*?:\d+: ")
"""Start of a warning as Python formats it: file and line."""


def log_warnings() -> None:
    """Log warnings from now on; those of Pillow are dropped, because the response says what is wrong with a picture."""
    # Unlike the default action, this one keeps no messages; it comes after Python's filters, which ignore some.
    warnings.filterwarnings("always", append=True)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(_FirstOfLine())


class _FirstOfLine(logging.Filter):
    """Passes the first warning of each line of code, without the text of this line."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True for the first warning of its line of code."""
        text = record.getMessage().partition("\n")[0]
        match = _PLACE.match(text)
        place = match[0] if match else ""
        if place in self._seen:
            return False
        self._seen.add(place)
        record.msg, record.args = text, ()
        return True
