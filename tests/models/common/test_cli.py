"""Test the last line and the exit code of a command that fails."""

import errno
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.common.cli import run
from models.common.errors import HalftoneError
from tests.commands import run as execute
from tests.servers import environment


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
        run(command, Config, prog="command", example="--number 2")
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
        (
            OSError(errno.EROFS, "Read-only file system", "/somewhere/file"),
            "error: /somewhere/file: Read-only file system: choose another path, or change what is there or its "
            "rights\n",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "error: the operating system refused: Too many open files\n"),
    ],
)
def test_errors_that_the_user_can_mend_are_one_line(monkeypatch, capsys, error, message):
    assert outcome(monkeypatch, error) == 2
    assert capsys.readouterr().err == message


def test_errors_of_libraries_are_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["command"])

    def command(config):
        raise OSError("broken data stream")

    with pytest.raises(OSError, match="broken data"):
        run(command, Config, prog="command", example="--number 2")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("training", ["--data", "training/sample", "--model", "mobilenetv3_small", "--weights", "random", "--output"]),
        ("export.explain", ["--model", "efficientnet_lite0", "--image", "export/photos/cat.jpg", "--output"]),
        ("export.push", ["--model", "efficientnet_lite0", "--to"]),
    ],
)
def test_an_output_that_can_not_be_written_is_one_line(tmp_path, artifacts, module, arguments):
    (tmp_path / "file").write_text("in the way")
    environment = os.environ | {"HALFTONE_ARTIFACTS": str(artifacts)}

    result = execute(module, *arguments, tmp_path / "file" / "out", env=environment)

    assert (result.returncode, "Traceback" in result.stderr) == (2, False), result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A command with a check."""

    output: Path = Path("x")
    """A path."""

    number: int = 1
    """A number."""

    def __post_init__(self):
        if self.number < 0:
            raise HalftoneError(f"--number must be 0 or more, not {self.number}")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--number", "-1"], "error: --number must be 0 or more, not -1\n"),
        (["--output", "a" * 300], f"error: --output: {'a' * 60}… is too long for a file system, "),
        (["--output", "a" * 65_000], f"error: --output: {'a' * 60}… is too long for a file system, "),
        (["--output", "a/" * 3_000], f"error: --output: {'a/' * 30}… is too long for a file system, "),
    ],
)
def test_flags_that_a_check_refuses_are_one_line(monkeypatch, capsys, flags, line):
    monkeypatch.setattr(sys, "argv", ["command", *flags])
    with pytest.raises(SystemExit) as caught:
        run(pytest.fail, Checked, prog="command", example="--number 2")
    error = capsys.readouterr().err
    assert (caught.value.code, error.count("\n")) == (2, 1)
    assert error.startswith(line)


def test_an_unknown_flag_is_still_explained(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", "--numbr", "1"])
    with pytest.raises(SystemExit) as caught:
        run(pytest.fail, Checked, prog="command", example="--number 2")
    assert caught.value.code == 2
    assert "--number" in capsys.readouterr().err


def test_a_message_is_one_line_whatever_a_name_contains(monkeypatch, capsys):
    error = HalftoneError("the folder 'a\n\x1b[31mb\u2028\u202e\udcff' is odd; naïve – 猫 stays")
    assert outcome(monkeypatch, error) == 2
    assert capsys.readouterr().err == (
        "error: the folder 'a\\n\\x1b[31mb\\u2028\\u202e\\udcff' is odd; naïve – 猫 stays\n"
    )


@pytest.mark.parametrize("length", [300, 65_000])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("export", ("--model", "{name}")),
        ("export.parity", ("--model", "efficientnet_lite0", "--data", "{name}")),
        ("training", ("--data", "{name}", "--model", "resnet18", "--output", "x")),
        ("training", ("--data", "training/sample", "--model", "resnet18", "--output", "{name}")),
        ("loadtest.ask", ("--image", "{name}")),
        ("loadtest.tune", ("--model", "{name}")),
    ],
)
def test_a_name_that_is_too_long_for_the_file_system(tmp_path, module, arguments, length):
    given = [each.format(name="a" * length) for each in arguments]
    ended = execute(module, *given, env=environment(tmp_path))
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr) < 500
