"""Settings from the environment, and from a file that has less priority."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.common.errors import HalftoneError
from serving.settings import Settings

FILE = "# tuned\n\nHALFTONE_VARIANT=openvino-fp32\n HALFTONE_THREADS = 3 \nHALFTONE_BATCH=\n"


def settings_of(path: Path, **environment: str) -> Settings:
    return Settings.from_environment({"HALFTONE_SETTINGS": str(path), **environment})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tuned.env"
    path.write_text(FILE)
    return path


def test_a_file_sets_what_the_environment_does_not(file: Path) -> None:
    found = settings_of(file, HALFTONE_THREADS="", HALFTONE_QUEUE="99", PATH="/bin")

    assert (found.variant, found.threads, found.batch, found.queue) == ("openvino-fp32", 3, 0, 99)


def test_a_relative_folder_in_a_file_starts_in_the_files_folder(file: Path) -> None:
    file.write_text("HALFTONE_COLLECT=collected")
    assert settings_of(file).collect == str(file.parent / "collected")

    file.write_text("HALFTONE_COLLECT=/var/collected")
    assert settings_of(file).collect == "/var/collected"


def test_the_environment_wins(file: Path) -> None:
    assert settings_of(file, HALFTONE_THREADS="1").threads == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HALFTONE_QUEUE=1\nthreads: 3\n", "line 2 of"),
        ("OTHER=1\n", "must be HALFTONE_NAME=VALUE"),
        ("HALFTONE_QUEUE\n", "must be HALFTONE_NAME=VALUE"),
        ("HALFTONE_SETTINGS=x.env\n", "set it in the environment"),
        ("HALFTONE_ARTIFACTS=x\n", "set it in the environment"),
        ("HALFTONE_QUEUE=1\nHALFTONE_QUEUE=2\n", "a second time"),
        ("HALFTONE_THREAD=1\n", "did you mean HALFTONE_THREADS?"),
        ("HALFTONE_THREADS=-1\n", "HALFTONE_THREADS must be 0 or more"),
        ("#" * 70_000, "more than 65536 bytes"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(file: Path, text: str, message: str) -> None:
    file.write_text(text)

    with pytest.raises(HalftoneError, match=message.replace("?", r"\?")):
        settings_of(file)


SECRET = "c2VjcmV0-of-an-operator=="


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"HALFTONE_ADMIN_TOKEN {SECRET}", "line 1 of .* write HALFTONE_ADMIN_TOKEN=VALUE"),
        (f"HALFTONE_ADMIN_TOKEN: {SECRET}", "line 1 of .* write HALFTONE_ADMIN_TOKEN=VALUE"),
        (f"export HALFTONE_API_KEYS={SECRET}", "line 1 of .* write HALFTONE_API_KEYS=VALUE"),
        (f"ADMIN_TOKEN={SECRET}", "line 1 of .* must be HALFTONE_NAME=VALUE"),
        (f"HALFTONE_API_KEYS=\n{SECRET}", "line 2 of .* must be HALFTONE_NAME=VALUE"),
        (f"HALFTONE_{SECRET}", "line 1 of .* must be HALFTONE_NAME=VALUE"),
        (f"HALFTONE_QUEUE=5 HALFTONE_ADMIN_TOKEN={SECRET}", "HALFTONE_QUEUE contains another setting"),
        (f"HALFTONE_MODEL=x HALFTONE_API_KEYS={SECRET}", "HALFTONE_MODEL contains another setting"),
        (f"HALFTONE_ADMIN_TOKEN=1 {SECRET}", "HALFTONE_ADMIN_TOKEN must be at least 16"),
        (f"HALFTONE_API_KEYS=1 {SECRET}", "HALFTONE_API_KEYS: every key must be"),
        (f"HALFTONE_API_KEYS={SECRET}\nHALFTONE_ADMIN_TOKEN={SECRET}", "must not be one of"),
        (f"HALFTONE_ADMIN_TOKEN={SECRET}\nHALFTONE_ADMIN_TOKEN={SECRET}", "line 2 of .* a second time"),
        (f"HALFTONE_TRACE_ENDPOINT=otlp://user:{SECRET}@host", "HALFTONE_TRACE_ENDPOINT must be a URL"),
    ],
)
def test_no_error_shows_a_secret(file: Path, text: str, words: str) -> None:
    file.write_text(text)

    with pytest.raises(HalftoneError, match=words) as error:
        settings_of(file)

    assert SECRET not in str(error.value)


def test_settings_in_place_of_their_file_are_not_shown() -> None:
    with pytest.raises(HalftoneError, match="must be the path") as error:
        settings_of(Path(f"HALFTONE_ADMIN_TOKEN={SECRET}"))

    assert SECRET not in str(error.value)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(HalftoneError, match="No such file"):
        settings_of(tmp_path / "no.env")
    with pytest.raises(HalftoneError, match="Is a directory"):
        settings_of(tmp_path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_are_settings_or_a_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.env"
    path.write_bytes(data)

    with contextlib.suppress(HalftoneError):
        assert settings_of(path).queue >= 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"HALFTONE_WORKERS": "0"}, "HALFTONE_WORKERS must be at least 1"),
        ({"HALFTONE_WORKERS": "257"}, "HALFTONE_WORKERS must be at most 256"),
        ({"HALFTONE_WORKERS": "2", "HALFTONE_ADMIN_TOKEN": "x" * 20}, "HALFTONE_ADMIN_TOKEN needs HALFTONE_WORKERS=1"),
        ({"HALFTONE_DECODERS": "-2"}, "HALFTONE_DECODERS must be 0 or more, or -1"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(HalftoneError, match=message):
        Settings.from_environment(values)


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.settings.cores", lambda: 16)

    assert [Settings(workers=workers).worker_threads for workers in (1, 4, 5, 32)] == [16, 4, 3, 1]
    more = Settings(workers=4, threads=7)
    assert (more.worker_threads, more.busy_threads, more.decoder_processes) == (7, 4, 4)
