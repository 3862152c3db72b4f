"""Test the last line and the exit code of a command that fails."""

import errno
import sys
from dataclasses import dataclass

import pytest

from models.common.cli import run
from models.common.errors import HalftoneError


@dataclass(frozen=True, kw_only=True)
class Config:
    """A command."""

    number: int = 1
    """A number."""


def outcome(monkeypatch, error):
    def command(config):
        raise error

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as caught:
        run(command, Config, prog="command")
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (HalftoneError("no: do this"), "error: no: do this\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/somewhere/file"),
            "error: the disk is full (/somewhere/file): free some space, then repeat the command\n",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            "error: the disk is full: free some space, then repeat the command\n",
        ),
    ],
)
def test_user_errors_and_full_disks_are_one_line(monkeypatch, capsys, error, message):
    assert outcome(monkeypatch, error) == 2
    assert capsys.readouterr().err == message


def test_other_system_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])

    def command(config):
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        run(command, Config, prog="command")
