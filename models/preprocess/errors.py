"""Errors of an image file: all of them are the file's fault, and say what its sender can do."""

from __future__ import annotations

from models.common.errors import HalftoneError


class ImageError(HalftoneError):
    """The bytes can't be turned into pixels."""


class NotAnImageError(ImageError):
    """The bytes are empty or not an image."""


class BrokenImageError(ImageError):
    """The JPEG, PNG or WebP file is truncated or damaged."""


class UnsupportedFormatError(ImageError):
    """The bytes are an image, but neither JPEG, PNG nor WebP."""


class TooManyPixelsError(ImageError):
    """The header announces more pixels than the limit."""


class TooComplexError(ImageError):
    """The file is built so that decoding it takes too much time or memory."""
