"""Too few open files: what doesn't fit is said at the start, and a service that is ready needs no further one."""

import base64
import contextlib
import io
import resource
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.servers import PHOTOS, PLAIN, QUICK, ROOT, environment, free_port, serve
from tests.serving.process.starts import command, workers_of

CAT = (PHOTOS / "cat.jpg").read_bytes()


def cat(kind: str, quarter_turns: int = 0) -> bytes:
    """The cat's photo in a format; a turned one is turned back by its EXIF orientation."""
    file = io.BytesIO()
    with Image.open(PHOTOS / "cat.jpg") as image:
        exif = Image.Exif()
        exif[0x0112] = 6 if quarter_turns else 1
        turned = image.transpose(Image.Transpose.ROTATE_90) if quarter_turns else image
        turned.save(file, kind, exif=exif, quality=95)
    return file.getvalue()


def limited(files: int) -> list[str]:
    """The command that starts a server that may open only so many files."""
    return ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *command("{port}")]


def lowest_unused(pid: int) -> int:
    """The number that the next file of a process would get."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
@pytest.mark.parametrize("decoders", ["0", "1"])
def test_first_requests_of_every_kind_need_no_further_file(artifacts: Path, tmp_path: Path, decoders: str) -> None:
    model = "/v2/models/efficientnet_lite0"
    infer = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(CAT).decode()]}
    requests = [
        *(("POST", "/classify", {"content": each}) for each in (CAT, cat("JPEG", 1), cat("PNG"), cat("WEBP"))),
        ("POST", "/classify", {"files": {"image": CAT}}),
        ("POST", "/classify_batch", {"files": [("images", CAT), ("images", CAT)]}),
        *(
            ("GET", path, {})
            for path in (
                "/metrics",
                "/models",
                "/docs.json",
                "/ui",
                "/ui/main.js",
                "/ui/small/cat.jpg",
                "/v2",
                model,
                f"{model}/ready",
            )
        ),
        ("POST", f"{model}/infer", {"json": {"inputs": [infer]}}),
    ]
    settings = {"HALFTONE_DECODERS": decoders, **QUICK}
    with serve(artifacts, tmp_path / "log", **settings) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=60, verify=PLAIN)) for _ in requests]
        for client in clients:
            assert client.get("/livez").status_code == 200
        (worker,) = workers_of(server.process.pid)
        limit = lowest_unused(worker.pid)
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (limit, limit))

        for client, (method, path, content) in zip(clients, requests, strict=True):
            answer = client.request(method, path, **content)
            assert answer.status_code == 200, (path, answer.text)
            assert "classify" not in path or "tabby" in answer.text
        assert "Traceback" not in server.log.read_text()


def test_connections_that_do_not_fit_are_refused_and_the_start_says_how_many_do(
    artifacts: Path, tmp_path: Path
) -> None:
    settings = {"HALFTONE_DECODERS": "1", **QUICK}
    with serve(artifacts, tmp_path / "log", limited(230), **settings) as server, contextlib.ExitStack() as stack:
        assert "so 50 connections may be open instead of HALFTONE_CONNECTIONS=1000" in server.log.read_text()
        assert server.log.read_text().count("`ulimit -n 2130`") == 1
        clients = [stack.enter_context(httpx.Client(base_url=server.url, timeout=60, verify=PLAIN)) for _ in range(90)]
        for client in clients:
            assert client.get("/livez").status_code == 200

        refused = clients[-1].get("/models")

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_connections")


def test_a_start_that_has_too_few_files_is_refused(artifacts: Path) -> None:
    port = free_port()
    start = [part.format(port=port) for part in limited(64)]

    result = subprocess.run(start, cwd=ROOT, env=environment(artifacts), capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert result.stderr.startswith("error: a process may open only 64 files, and 16 connections need ")
