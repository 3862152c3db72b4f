"""Administration over HTTP: authorization, loads and rollbacks of a running service, and error messages."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.bundle.store import DEFAULT_MODEL
from models.preprocess.collected import collected_pictures, read_answer
from tests.samples import edit_manifest
from tests.servers import PHOTOS, QUICK, Server, serve, wait_until

TOKEN = "a-token-of-the-tests-only"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
CAT = (PHOTOS / "cat.jpg").read_bytes()
LOAD, ROLLBACK = f"/admin/models/{DEFAULT_MODEL}/load", f"/admin/models/{DEFAULT_MODEL}/rollback"
CANARY, PROMOTE = f"/admin/models/{DEFAULT_MODEL}/canary", f"/admin/models/{DEFAULT_MODEL}/promote"


@pytest.fixture(scope="module")
def folder(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder with the default bundle, which tests change, and a second one."""
    folder = tmp_path_factory.mktemp("admin")
    for name in (DEFAULT_MODEL, "second"):
        shutil.copytree(artifacts / DEFAULT_MODEL, folder / name)
    edit_manifest(folder / "second", lambda manifest: manifest.update(temperature=3.0))
    return folder


@pytest.fixture(scope="module")
def admin(folder: Path) -> Iterator[Server]:
    """Run a service with an administrator's token."""
    collected = {"HALFTONE_COLLECT": str(folder / "collected"), "HALFTONE_COLLECT_SHARES": "random=1"}
    with serve(folder, folder / "log", HALFTONE_ADMIN_TOKEN=TOKEN, **collected, **QUICK) as server:
        yield server


@pytest.fixture
def restored(artifacts: Path, folder: Path) -> Iterator[None]:
    """Restore the default bundle afterwards."""
    yield
    shutil.rmtree(folder / DEFAULT_MODEL)
    shutil.copytree(artifacts / DEFAULT_MODEL, folder / DEFAULT_MODEL)


def version(server: Server) -> str:
    return str(server.post("/classify", content=CAT).json()["version"])


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize("path", ["/admin/models", "/admin/", "/admin/collected", LOAD])
def test_without_a_token_there_is_no_administration(server: Server, path: str) -> None:
    response = server.post(path, headers=BEARER)

    assert code(response) == (404, "not_found")
    assert "HALFTONE_ADMIN_TOKEN" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer é"],
)
@pytest.mark.parametrize("path", ["/admin/models", LOAD, ROLLBACK, "/admin/nothing"])
def test_only_requests_with_the_token_are_served(admin: Server, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    response = admin.post(path, headers=headers)

    assert code(response) == (401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert TOKEN not in response.text


def test_a_bundle_is_loaded_and_rolled_back(admin: Server, folder: Path, restored: None) -> None:
    first = version(admin)
    edit_manifest(folder / DEFAULT_MODEL, lambda manifest: manifest.update(temperature=2.0))

    answer = admin.post(LOAD, headers=BEARER).json()
    second = version(admin)
    listed = admin.get("/admin/models", headers=BEARER).json()["models"]
    metadata = admin.get(f"/v2/models/{DEFAULT_MODEL}").json()
    text = admin.get("/metrics").text
    back = admin.post(ROLLBACK, headers=BEARER).json()

    assert (answer["version"], answer["replaced"]["version"]) == (second, first)
    assert second != first
    assert [(model["version"], model["previous"]["version"], model["swapping"]) for model in listed] == [
        (second, first, False)
    ]
    assert metadata["versions"] == [second]
    assert [line for line in text.splitlines() if line.startswith("halftone_model_info{")] == [
        f'halftone_model_info{{name="{DEFAULT_MODEL}",variant="{answer["variant"]}",version="{second}"}} 1.0'
    ]
    assert f'halftone_answers_total{{model="{DEFAULT_MODEL}",role="active",version="{second}"}} 1.0' in text
    assert (back["version"], version(admin)) == (first, first)


def test_a_bad_bundle_changes_nothing_and_the_response_says_why(admin: Server, folder: Path, restored: None) -> None:
    before = version(admin)
    with (folder / DEFAULT_MODEL / "model.fp32.onnx").open("ab") as file:
        file.write(b"\0")

    response = admin.post(LOAD, headers=BEARER)

    assert code(response) == (422, "bundle_refused")
    message = response.json()["error"]["message"]
    assert message.startswith(f"the content of {DEFAULT_MODEL}/model.fp32.onnx differs from the manifest")
    assert str(folder) not in response.text
    assert version(admin) == before


def test_another_bundle_is_served_under_the_name(admin: Server, folder: Path) -> None:
    answer = admin.post(LOAD, headers=BEARER, json={"bundle": "second"}).json()

    assert (answer["name"], answer["bundle"]) == (DEFAULT_MODEL, "second")
    served = admin.post("/classify", content=CAT).json()
    assert (served["model"], served["version"]) == (DEFAULT_MODEL, answer["version"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"bundle": "../admin"}', 422),
        ('{"bundle": "/etc"}', 422),
        ('{"bundle": ""}', 422),
        ('{"bundle": 5}', 422),
        ('{"bundle": "third"}', 422),
        ('{"bundel": "second"}', 422),
        ("[]", 422),
        ("{", 422),
        ("[" * 60_000, 422),
        ("x" * 400_000, 413),
    ],
)
def test_the_error_for_a_wrong_body_has_a_message(admin: Server, folder: Path, body: str, status: int) -> None:
    response = admin.post(LOAD, headers=BEARER, content=body)

    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert str(folder) not in response.text


def test_a_candidate_is_tried_out_and_promoted(admin: Server) -> None:
    first = version(admin)
    other = "second" if admin.get("/admin/models", headers=BEARER).json()["models"][0]["bundle"] != "second" else None
    body = {"share": 1, "sticky": "X-User"} | ({"bundle": other} if other else {})

    started = admin.post(CANARY, headers=BEARER, json=body).json()
    candidate = started["candidate"]
    assert (candidate["share"], candidate["sticky"], candidate["auto"]) == (1, "x-user", False)
    assert version(admin) == candidate["version"] != first
    changed = admin.post(CANARY, headers=BEARER, json={"share": 0}).json()
    assert (changed["candidate"]["share"], changed["candidate"]["answers"]) == (0, 1)
    assert version(admin) == first
    (listed,) = admin.get("/admin/models", headers=BEARER).json()["models"]
    assert (listed["version"], listed["candidate"]["version"]) == (first, candidate["version"])
    assert set(listed["candidate"]["criteria"]) == {"errors", "agreement", "confidence", "latency"}
    assert code(admin.post(LOAD, headers=BEARER)) == (409, "canary_running")
    assert code(admin.post(CANARY, headers=BEARER, json={"bundle": "third"})) == (409, "canary_running")
    metrics = admin.get("/metrics").text
    assert f'halftone_canary_share{{model="{DEFAULT_MODEL}",version="{candidate["version"]}"}} 0.0' in metrics
    assert f'role="candidate",version="{candidate["version"]}"}} 1.0' in metrics

    promoted = admin.post(PROMOTE, headers=BEARER).json()
    assert (promoted["version"], promoted["replaced"]["version"]) == (candidate["version"], first)
    state = admin.get(CANARY, headers=BEARER).json()
    assert state["candidate"] is None
    assert [each["decision"] for each in state["decisions"]] == ["started", "changed", "promoted"]
    assert code(admin.request("DELETE", CANARY, headers=BEARER)) == (409, "no_canary")
    assert admin.post(ROLLBACK, headers=BEARER).json()["version"] == first


@pytest.mark.parametrize(
    "body",
    [
        '{"share": -0.1}',
        '{"share": 1.1}',
        '{"share": NaN}',
        '{"share": true}',
        '{"share": "1"}',
        '{"sticky": ""}',
        '{"sticky": "a b"}',
        '{"auto": 1}',
        '{"min_agreement": 1}',
        '{"max_slowdown": 0.5}',
        '{"bundle": "../second"}',
        '{"shares": 1}',
        "[]",
        "{",
    ],
)
def test_a_wrong_body_starts_no_candidate(admin: Server, body: str) -> None:
    response = admin.post(CANARY, headers=BEARER, content=body)

    assert code(response) == (422, "bad_parameter")
    assert admin.get(CANARY, headers=BEARER).json()["candidate"] is None


def test_unknown_models_paths_and_methods(admin: Server) -> None:
    assert code(admin.post("/admin/models/third/load", headers=BEARER)) == (404, "model_not_found")
    assert code(admin.post("/admin/models/third/rollback", headers=BEARER)) == (404, "model_not_found")
    assert code(admin.post("/admin/models/third/canary", headers=BEARER)) == (404, "model_not_found")
    assert code(admin.get("/admin/models/third/canary", headers=BEARER)) == (404, "model_not_found")
    assert code(admin.request("PUT", CANARY, headers=BEARER)) == (405, "method_not_allowed")
    assert code(admin.post("/admin/nothing", headers=BEARER)) == (404, "not_found")
    assert code(admin.post("/admin/models", headers=BEARER)) == (405, "method_not_allowed")
    assert code(admin.get(LOAD, headers=BEARER)) == (405, "method_not_allowed")


def collected(server: Server) -> int:
    return int(server.get("/admin/collected", headers=BEARER).json()["pictures"])


def test_collected_pictures_are_counted_and_deleted(admin: Server, folder: Path) -> None:
    admin.request("DELETE", "/admin/collected", headers=BEARER)
    answer = admin.post("/classify?top_k=1", content=CAT, headers={"X-Request-Id": "of-a-client"}).json()
    wait_until(lambda: collected(admin) == 1, "the picture was collected")

    (path,) = collected_pictures(folder / "collected")
    kept = read_answer(path)
    assert (kept.model, kept.version, kept.variant) == (answer["model"], answer["version"], answer["variant"])
    assert [label for label, _ in kept.predictions] == [each["label"] for each in answer["predictions"]]
    assert b"of-a-client" not in path.read_bytes()
    assert admin.request("DELETE", "/admin/collected", headers=BEARER).json() == {"deleted": 1}
    assert admin.get("/admin/collected", headers=BEARER).json() == {"pictures": 0, "bytes": 0, "oldest": None}
    assert code(admin.post("/admin/collected", headers=BEARER)) == (405, "method_not_allowed")


def test_requests_do_not_notice_that_the_folder_of_collected_pictures_is_gone(admin: Server, folder: Path) -> None:
    shutil.rmtree(folder / "collected")
    photos = [path.read_bytes() for path in sorted(PHOTOS.glob("*.jpg"))[:3]]

    for photo in photos:
        assert admin.post("/classify", content=photo).status_code == 200
    failed = 'halftone_collected_total{result="failed"} 3.0'
    wait_until(lambda: failed in admin.get("/metrics").text, "three failures were counted")

    assert admin.log.read_text().count("pictures can't be collected (No such file or directory)") == 1
    assert code(admin.get("/admin/collected", headers=BEARER)) == (503, "folder_failed")
    (folder / "collected").mkdir()
    admin.post("/classify", content=photos[0])
    wait_until(lambda: collected(admin) == 1, "the next picture was collected")


def test_a_watched_folder_is_loaded(artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    shutil.copytree(artifacts, folder)
    with serve(folder, tmp_path / "log", HALFTONE_WATCH="0.2", **QUICK) as server:
        first = version(server)
        manifest = json.loads((folder / DEFAULT_MODEL / "manifest.json").read_text())
        (folder / DEFAULT_MODEL / "new").write_text(json.dumps(manifest | {"temperature": 2.0}))
        (folder / DEFAULT_MODEL / "new").replace(folder / DEFAULT_MODEL / "manifest.json")

        wait_until(lambda: version(server) != first, "the changed bundle was served")
