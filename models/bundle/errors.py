"""Errors of a bundle, one class a kind; the messages name the file and the command that repairs it."""

from __future__ import annotations

from models.common.errors import HalftoneError


class BundleError(HalftoneError):
    """The bundle can't be used."""


class BundleMissingError(BundleError):
    """The folder contains no bundle."""


class SchemaError(BundleError):
    """The manifest is unreadable or of an unknown schema."""


class DamagedError(BundleError):
    """A listed file is missing, can't be read or differs from the manifest; only what needs it can't be used."""


class FileMissingError(DamagedError):
    """A listed file does not exist, or the requested file is not listed in the manifest."""


class HashMismatchError(DamagedError):
    """A file's content does not match its hash in the manifest."""


class OutsideError(BundleError):
    """A path leads outside the bundle's folder."""


class SymlinkError(BundleError):
    """A file of the bundle, or a folder on the way to it, is a symbolic link."""


class StaleError(BundleError):
    """A file was made from an older version of another file."""
