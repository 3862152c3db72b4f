"""What may be wrong with a bundle, each kind by itself; the messages name the file and the command that repairs it."""

from __future__ import annotations

from models.common.errors import HalftoneError


class BundleError(HalftoneError):
    """The bundle can't be used as it is."""


class BundleMissingError(BundleError):
    """There is no bundle at that place."""


class SchemaError(BundleError):
    """The manifest is unreadable or of an unknown schema."""


class FileMissingError(BundleError):
    """The manifest lists a file that is not there, or a file is asked for that it does not list."""


class HashMismatchError(BundleError):
    """A file's content is not what the manifest says."""


class OutsideError(BundleError):
    """A path leads outside the bundle's folder."""


class SymlinkError(BundleError):
    """A file of the bundle, or a folder on the way to it, is a symbolic link."""


class StaleError(BundleError):
    """A file was made from an older version of another file."""
