"""Error type for mistakes that the user can correct.

Every command prints it as a single line on standard error and exits with code 2, so the message must say what
happened *and* the exact fix.
"""


class HalftoneError(ValueError):
    """The request can't be carried out; the message names the cause and the fix."""
