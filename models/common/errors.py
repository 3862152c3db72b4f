"""The one error type that a user of Halftone is meant to read.

Every command turns it into a single line on standard error and exit code 2, so its message must say
what happened *and* the exact fix.
"""


class HalftoneError(ValueError):
    """The request can't be carried out as given; the message names the cause and the fix."""
