"""Requests can't make the service connect, unpickle or open a file, and responses reveal nothing internal."""

import base64
import contextlib
import http.client
import json
import pickle
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import psutil
import pytest

from tests.servers import PHOTOS, QUICK, ROOT, Server, family_of, serve

CAT = (PHOTOS / "cat.jpg").read_bytes()
CANARY = "canary-7f3a"
PATHS = ("/classify", "/classify_batch")


class Audited(Server):
    """A server that logs its connections, processes and opened files."""

    def events(self) -> list[str]:
        return self.log.with_name("audit").read_text().splitlines()


@pytest.fixture(scope="session")
def trap() -> Iterator[socket.socket]:
    """Return a socket to which the service must not connect."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture(scope="session")
def audited(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    extra = {"PYTHONPATH": str(Path(__file__).parent / "audit"), "AUDIT_LOG": str(folder / "audit")}
    with serve(artifacts, folder / "log", **extra, **QUICK) as running:
        server = Audited(running.url, running.process, running.log)
        server.post("/classify", content=CAT)
        yield server


def urls(port: int) -> list[str]:
    """Return URLs that a server must not open: this machine and its networks in many spellings, other schemes."""
    end = f":{port}/{CANARY}.jpg"
    hosts = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1%25lo]",
        "[fd00::1]",
        "127.0.0.1.nip.io",
        "user@127.0.0.1",
        "127.0.0.1%00.example.com",
        "example.com@127.0.0.1",
        "100.64.0.1",
        "100.127.255.254",
        "169.254.169.254",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "①②⑦.⓪.⓪.①",
    ]
    web = [f"http://{host}{end}" for host in hosts]
    others = [
        f"https://127.0.0.1{end}",
        f"HTTP://127.0.0.1{end}",
        f"//127.0.0.1{end}",
        f"http:127.0.0.1{end}",
        f"http://127.0.0.1:{port}/redirect?to=http://169.254.169.254/{CANARY}",
        f"ftp://127.0.0.1{end}",
        f"gopher://127.0.0.1:{port}/_{CANARY}",
        f"dict://127.0.0.1:{port}/{CANARY}",
        f"ldap://127.0.0.1:{port}/{CANARY}",
        f"s3://{CANARY}/x.jpg",
        f"data:image/jpeg;base64,{base64.b64encode(CAT).decode()[:100]}",
        f"file:///tmp/{CANARY}",
        f"file://localhost/tmp/{CANARY}",
        f"/tmp/{CANARY}",
        f"../../../tmp/{CANARY}",
        f"\\\\127.0.0.1\\{CANARY}",
    ]
    return web + others


class Exploit:
    """Opens a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return open, (f"/tmp/{CANARY}", "w")


def all_the_ways(url: str) -> Iterator[tuple[dict[str, str], bytes]]:
    """Yield headers and bodies that have a URL in places that a framework may read."""
    form = 'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}'
    for name in ("image", "images"):
        parts = [
            form.format(name=name, more="", value=url),
            form.format(name=name, more="\r\nContent-Type: text/uri-list", value=url),
            form.format(name=name, more=f'; filename="{url}"', value=url),
            f"Content-Location: {url}\r\n" + form.format(name=name, more='; filename="a.jpg"', value=""),
        ]
        for part in parts:
            body = f"--b\r\n{part}\r\n--b--\r\n".encode()
            yield {"Content-Type": "multipart/form-data; boundary=b"}, body
        yield {"Content-Type": "application/json"}, json.dumps({name: url, "url": url}).encode()
        yield {"Content-Type": "application/x-www-form-urlencoded"}, urlencode({name: url}).encode()
    yield {"Content-Type": "text/plain"}, url.encode()
    yield {"Content-Type": "message/external-body; access-type=URL; URL=" + json.dumps(url)}, b""
    yield {"Content-Type": "image/jpeg", "Content-Location": url, "Referer": url, "X-Forwarded-Host": url}, url.encode()
    yield {"Content-Type": "application/vnd.bentoml+pickle", "Payload-Container": "FileObject"}, pickle.dumps(Exploit())
    yield {"Content-Type": "application/octet-stream"}, pickle.dumps(Exploit())


def send(server: Server, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    address = urlsplit(server.url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.putrequest("POST", path, skip_accept_encoding=True)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        connection.putheader(name, value.encode())
    connection.endheaders(body)
    response = connection.getresponse()
    status, text = response.status, response.read()
    connection.close()
    return status, text


def check_nothing_happened(server: Audited, since: int, trap: socket.socket) -> None:
    happened = server.events()[since:]
    assert [event for event in happened if not event.startswith("open ")] == []
    assert [event for event in happened if CANARY in event or "/etc/" in event] == []
    with pytest.raises(BlockingIOError):
        trap.accept()


def test_no_url_is_ever_fetched(audited: Audited, trap: socket.socket) -> None:
    since = len(audited.events())
    payloads = urls(trap.getsockname()[1])

    for index, url in enumerate(payloads):
        for headers, body in all_the_ways(url):
            status, text = send(audited, PATHS[index % 2], headers, body)
            assert status in (400, 415, 422) or (status == 200 and b"not_an_image" in text), (headers, status, text)

    assert len(payloads) >= 30
    check_nothing_happened(audited, since, trap)


def test_no_model_or_version_becomes_a_path_or_an_address(audited: Audited, trap: socket.socket) -> None:
    since = len(audited.events())

    for url in urls(trap.getsockname()[1]):
        assert audited.post("/classify", params={"model": url}, content=CAT).status_code == 404
        assert audited.post("/classify", params={"image": url}, content=CAT).status_code == 422
        data = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [url]}]}
        assert audited.post("/v2/models/efficientnet_lite0/infer", json=data).status_code in (400, 422)
        assert audited.get("/v2/models/" + url.replace("/", "%2F")).status_code == 404

    check_nothing_happened(audited, since, trap)


@pytest.mark.parametrize(
    "path",
    [
        f"/static_content/../{CANARY}",
        f"/static_content/..%2f..%2f{CANARY}",
        f"/static_content/%2e%2e/%2e%2e/{CANARY}",
        f"/static_content//tmp/{CANARY}",
        f"/static_content/{CANARY}",
        f"/ui/../../{CANARY}",
        f"/docs.json%00/{CANARY}",
        f"//{CANARY}/classify",
        f"/{CANARY}%0d%0aSet-Cookie:x",
    ],
)
def test_no_path_of_a_request_is_looked_up_on_the_disk(audited: Audited, trap: socket.socket, path: str) -> None:
    since = len(audited.events())
    address = urlsplit(audited.url)
    assert address.hostname is not None
    with contextlib.closing(http.client.HTTPConnection(address.hostname, address.port, timeout=60)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read()

    assert response.status == 404
    assert CANARY.encode() not in text
    assert response.getheader("set-cookie") is None
    check_nothing_happened(audited, since, trap)


@pytest.mark.parametrize("path", ["/classify/submit", "/classify/status", "/classify/get", "/hello", "/__exit__"])
def test_nothing_else_of_bentoml_can_be_reached(audited: Audited, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert audited.request(method, path, content=CAT).status_code == 404


def test_files_of_bentomls_page_are_served(audited: Audited) -> None:
    for path in ("/schema.json", "/static_content/swagger-ui-bundle.js"):
        assert audited.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/ui"])
def test_pages_load_nothing_from_elsewhere_and_work_behind_a_prefix(audited: Audited, path: str) -> None:
    response = audited.get(path)
    scripts = [audited.get("/" + script).text for script in re.findall(r'src="(ui/[a-z]+\.js)"', response.text)]
    names = {name for script in scripts for name in re.findall(r'from "\./([a-z]+\.js)"', script)}
    text = "".join([response.text, *scripts, *(audited.get(f"/ui/{name}").text for name in names)])
    addresses = re.findall(r"""(?:src|href)="([^"]*)"|(?:fetch|json|sendPicture)\("([^"]*)\"""", text)

    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert addresses
    for address in ["".join(each) for each in addresses]:
        assert not address.startswith(("/", "http:", "https:")), address
        if not address.startswith("data:") and address not in ("classify", "explain"):
            assert audited.get("/" + address).status_code == 200


def test_the_description_is_where_people_look_for_it(audited: Audited) -> None:
    assert audited.get("/openapi.json").json() == audited.get("/docs.json").json()


def test_no_answer_tells_where_the_service_lives(audited: Audited) -> None:
    inside = [str(ROOT), "site-packages", "Traceback", "artifacts", ".py"]
    bodies = [b"", CAT[:500], b"\x89PNG\r\n\x1a\n" + bytes(50), b"RIFF\x10\x00\x00\x00WEBPVP8X" + bytes(40), b"GIF89a"]

    answers = [audited.post("/classify", content=body).text for body in bodies]
    answers += [audited.get(path).text for path in ("/nothing", "/models", "/readyz", "/v2", "/docs.json", "/v2/x")]
    answers += [audited.post("/v2/models/efficientnet_lite0/infer", content=body).text for body in bodies]

    assert [(text, word) for text in answers for word in inside if word in text] == []


def test_the_port_of_the_service_is_the_only_one(server: Server) -> None:
    ports = set()
    for process in family_of(server.process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            ports |= {each.laddr.port for each in process.net_connections("inet") if each.status == "LISTEN"}

    assert ports == {urlsplit(server.url).port}
