"""The page to try the service, in a browser: what people do with it, and what it shows of it."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from tests.servers import PHOTOS, Server
from tests.serving.conftest import KEYS
from tests.serving.page.conftest import Open

pytestmark = pytest.mark.browser

CAT = PHOTOS / "cat.jpg"
COFFEE = PHOTOS / "coffee.jpg"
CATS = re.compile("tiger cat|Egyptian cat|tabby")
EVIL = '<img src=x onerror="document.title=1">'
LOADS = 30_000
"""Milliseconds for the first heat map, whose graph is loaded when it is asked for."""

Screenshot = Callable[[Page], None]


def choose(page: Page, *files: Path | dict[str, Any]) -> None:
    page.set_input_files("#files", list(files))


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Route], None]:
    """Return a route that passes on the service's own answer after a change."""

    def answer(route: Route) -> None:
        response = route.fetch()
        body = response.json()
        change(body)
        route.fulfill(response=response, json=body)

    return answer


def check_access(page: Page) -> None:
    """Check that axe-core finds nothing serious, and that nothing is wider than the window."""
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_upload(two_models: Server, open_page: Open, screenshot: Screenshot) -> None:
    page = open_page(two_models.url + "/ui")

    choose(page, CAT)

    expect(page.locator("#first")).to_have_text(CATS)
    expect(page.locator("#bars li")).to_have_count(5)
    expect(page.locator("#announce")).to_contain_text(CATS)
    expect(page.locator("#caption")).to_contain_text("cat.jpg · 451 × 300")
    for stage in ("decode", "queue", "model", "network"):
        expect(page.locator("#timing")).to_contain_text(re.compile(rf"{stage} [\d.]+ ms"))
    # The default model's photographs are too few to promise anything: there are no empty places for it.
    for absent in ("#set", "#notes .note"):
        expect(page.locator(absent)).not_to_be_visible()
    screenshot(page)
    check_access(page)


# An event as the browser makes one, with a file in it.
GIVE = """([kind, name, base64]) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(base64), each => each.charCodeAt());
  data.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const options = { clipboardData: data, dataTransfer: data, bubbles: true };
  const event = kind === "paste" ? new ClipboardEvent(kind, options) : new DragEvent(kind, options);
  document.getElementById("stage").dispatchEvent(event);
}"""


def test_paste_and_drop(two_models: Server, open_page: Open) -> None:
    page = open_page(two_models.url + "/ui")

    page.evaluate(GIVE, ["paste", "", base64.b64encode(CAT.read_bytes()).decode()])
    expect(page.locator("#first")).to_have_text(CATS)
    expect(page.locator("#caption")).to_contain_text("pasted picture")
    page.evaluate(GIVE, ["drop", "mug.jpg", base64.b64encode(COFFEE.read_bytes()).decode()])
    expect(page.locator("#first")).to_have_text(re.compile("espresso|cup"))
    expect(page.locator("#many-title")).to_have_text("2 pictures")


def test_many_pictures_one_of_them_broken(
    two_models: Server, open_page: Open, screenshot: Screenshot, tmp_path: Path
) -> None:
    page = open_page(two_models.url + "/ui")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(CAT.read_bytes()[:2000])

    choose(page, *sorted(PHOTOS.glob("*.jpg")), broken)

    expect(page.locator("#many-title")).to_have_text("9 pictures, 1 refused")
    expect(page.locator("#strip .tile.done")).to_have_count(8)
    page.locator("#strip .tile").nth(2).click()
    expect(page.locator("#first")).to_have_text(CATS)
    screenshot(page)
    page.locator("#strip .tile.failed").click()
    expect(page.locator("#failure")).to_contain_text("broken.jpg")
    expect(page.locator("#result")).not_to_be_visible()
    expect(page.locator("#failure button")).to_have_text("Try again")
    check_access(page)
    page.click("#clear")
    expect(page.locator("#invite")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("photo.heic", b"\0\0\0\x18ftypheic" + bytes(100), ["HEIC", "Most Compatible"]),
        ("notes.txt", b"not a picture", ["JPEG, PNG or WebP"]),
        ("empty.jpg", b"", ["the body is empty"]),
    ],
)
def test_other_files_are_refused_by_name(
    two_models: Server, open_page: Open, name: str, data: bytes, words: list[str]
) -> None:
    page = open_page(two_models.url + "/ui")

    choose(page, {"name": name, "mimeType": "application/octet-stream", "buffer": data})

    for word in [name, *words]:
        expect(page.locator("#failure")).to_contain_text(word)
    expect(page.locator("#undrawn")).to_have_text(f"This browser can't draw {name}")


def test_what_only_the_browser_can_read_is_converted(two_models: Server, open_page: Open) -> None:
    page = open_page(two_models.url + "/ui")
    gif = b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"

    choose(page, {"name": "dot.gif", "mimeType": "image/gif", "buffer": gif})

    expect(page.locator("#failure")).to_contain_text("GIF")
    page.get_by_role("button", name="Convert it in this browser").click()
    expect(page.locator("#first")).to_have_text(re.compile("%"))
    expect(page.locator("#caption")).to_contain_text("dot.gif.png · 1 × 1")


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False), (1600, True)])
def test_heat_map(two_models: Server, open_page: Open, screenshot: Screenshot, width: int, dark: bool) -> None:
    page = open_page(two_models.url + "/ui#sample=cat&heat", width=width, dark=dark)

    note = re.compile(r"^Speaks for .*cat.* strongest .* Method: class activation map\.$")
    expect(page.locator("#heat-note")).to_have_text(note, timeout=LOADS)
    frame, seen = (page.locator(each).bounding_box() for each in ("#frame", "#seen"))
    assert frame
    assert seen
    # Of 451 x 300 pixels the model sees the square in the middle, 0.875 of the height.
    assert seen["width"] / frame["width"] == pytest.approx(0.875 * 300 / 451, abs=0.01)
    assert (seen["y"] - frame["y"]) / frame["height"] == pytest.approx(0.0625, abs=0.01)
    expect(page.locator("#heat-on")).to_have_attribute("aria-checked", "true")
    expect(page.locator("#caption")).to_contain_text("Stefan van der Walt")
    screenshot(page)
    check_access(page)


def test_heat_map_of_another_class_and_strength(two_models: Server, open_page: Open) -> None:
    page = open_page(two_models.url + "/ui")
    choose(page, CAT)
    page.click("#heat-on")
    expect(page.locator("#heat-note")).to_contain_text("Speaks for", timeout=LOADS)

    page.locator("#bars button").nth(1).click()
    second = page.locator("#bars .bar-label").nth(1).inner_text()
    expect(page.locator("#heat-note")).to_contain_text(f"Speaks for {second}")
    page.select_option("#heat-class", label="tench")
    expect(page.locator("#heat-note")).to_contain_text("Speaks for tench")
    alpha = """document.getElementById("heat").getContext("2d").getImageData(0, 0, 320, 320).data
      .filter((_, i) => i % 4 === 3).reduce((sum, each) => sum + each, 0)"""
    before = page.evaluate(alpha)
    page.locator("#strength").fill("20")
    assert 0 < page.evaluate(alpha) < before
    page.click("#heat-on")
    expect(page.locator("#seen")).not_to_be_visible()


def test_without_heat_maps_there_is_no_place_for_them(two_models: Server, open_page: Open) -> None:
    page = open_page(
        two_models.url + "/ui", **{"docs.json": changed(lambda document: document["paths"].pop("/explain"))}
    )
    choose(page, CAT)

    expect(page.locator("#first")).to_have_text(CATS)
    expect(page.locator("#heating")).not_to_be_visible()
    expect(page.locator("#bars button")).to_have_count(0)


def test_an_answer_says_how_far_to_trust_it(two_models: Server, open_page: Open, screenshot: Screenshot) -> None:
    def doubt(body: dict[str, Any]) -> None:
        body |= {"confident": False, "unfamiliar": True, "prediction_set": {"coverage": 0.95, "labels": ["a", "b"]}}

    def promise(body: dict[str, Any]) -> None:
        promises = {"images": 500, "error": 0.01, "error_interval": [0.002, 0.02], "answered": 0.6, "threshold": 0.8}
        promises |= {"coverage": 0.95, "set_size": 2.5, "from": "held-out pictures", "note": None}
        body["models"][0]["promises"] = promises

    page = open_page(two_models.url + "/ui", classify=changed(doubt), models=changed(promise))
    choose(page, CAT)

    expect(page.locator("#notes")).to_contain_text("Unfamiliar This picture is unlike")
    expect(page.locator("#notes")).to_contain_text("Not sure More than 1 % of answers like this one are wrong")
    expect(page.locator("#set")).to_have_text("With 95 % coverage the right class is one of a, b.")
    expect(page.locator("#facts")).to_contain_text("at most 1 % of them wrong (95 % interval 0.2 % to 2 %)")
    expect(page.locator("#announce")).to_contain_text("Not sure")
    screenshot(page)
    check_access(page)


def test_the_proof_and_live_figures(two_models: Server, open_page: Open) -> None:
    page = open_page(two_models.url + "/ui")

    expect(page.locator("#claim")).to_have_text(
        re.compile(r"^Answers as the FP32 reference does on [\d.]+ % of \d+ clear images\.$")
    )
    for fact in ("onnxruntime-fp32", "8 photographs, 320 crops", "torch-fp32", "core"):
        expect(page.locator("#facts")).to_contain_text(fact)
    choose(page, CAT)
    expect(page.locator("#charts")).to_contain_text(re.compile(r"Requests[1-9.0]+/s.*p50 .* ms · p99"), timeout=10_000)
    expect(page.locator("#charts svg")).to_have_count(4)
    expect(page.locator("#drift")).to_contain_text("Drift of second: not known, because the model was not proved")


def test_drift_in_words(two_models: Server, open_page: Open, screenshot: Screenshot) -> None:
    states = {"dark": (0, 1), "like": (0, 0), "new": ("NaN", "NaN")}
    lines = [f'halftone_model_info{{name="{name}",version="1",variant="v"}} 1.0' for name in states]
    for name, values in states.items():
        for measure, value in zip(("class", "brightness"), values, strict=True):
            labels = f'model="{name}",version="1",variant="v",measure="{measure}"'
            # Two workers: the other has no full window yet.
            lines += [f'halftone_input_drift_detected{{{labels},worker="{worker}"}} {each}' for worker, each in
                      ((0, value), (1, "NaN"))]  # fmt: skip
    page = open_page(two_models.url + "/ui", metrics=lambda route: route.fulfill(body="\n".join(lines)))

    drift = page.locator("#drift")
    expect(drift).to_contain_text("Drift of dark: other pictures come than those that the model was proved on.")
    expect(drift).to_contain_text("Different: brightness. Collect some")
    expect(drift).to_contain_text("Drift of like: none. The last 500")
    expect(drift).to_contain_text("Drift of new: known once 500")
    screenshot(page)
    check_access(page)


def test_a_key_is_asked_for_and_kept_for_the_session(
    guarded_server: Server, open_page: Open, screenshot: Screenshot
) -> None:
    page = open_page(guarded_server.url + "/ui", ready=False)
    expect(page.locator("#status")).to_have_text("This service needs an API key")
    check_access(page)
    screenshot(page)

    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    expect(page.locator("#status")).to_have_text("This API key is not valid")
    page.fill("#key", KEYS[0])
    page.press("#key", "Enter")
    expect(page.locator("#status")).to_have_text("Ready")
    choose(page, CAT)
    expect(page.locator("#first")).to_have_text(CATS)
    expect(page.locator("#snippet")).to_contain_text("$HALFTONE_KEY")
    assert KEYS[0] not in page.locator("main").inner_text()
    page.reload()
    expect(page.locator("#status")).to_have_text("Ready")
    assert page.context.storage_state()["origins"] == []


def test_two_models(two_models: Server, open_page: Open) -> None:
    page = open_page(two_models.url + "/ui")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    choose(page, CAT)
    expect(page.locator("#first")).to_have_text(CATS)

    page.select_option("#model", "second")

    expect(page.locator("#snippet")).to_contain_text("model=second")
    expect(page.locator("#first")).to_have_text(CATS)
    expect(page.locator("#result")).not_to_have_class("old")
    assert [url.partition("?")[2] for url in asked if "/classify" in url] == [
        "model=efficientnet_lite0",
        "model=second",
    ]


def test_texts_from_data_stay_texts(two_models: Server, open_page: Open, screenshot: Screenshot) -> None:
    def rename(body: dict[str, Any]) -> None:
        for each in body["predictions"]:
            each["label"] = EVIL
        body["prediction_set"] = {"coverage": 0.95, "labels": [EVIL]}

    def rename_all(body: dict[str, Any]) -> None:
        model = body["models"][0]
        model |= {"labels": [EVIL] * 1000, "version": EVIL, "license": EVIL, "source": EVIL, "variant": EVIL}
        model["parity"] |= {"reference": EVIL, "notes": [EVIL], "host": {"cpu": EVIL, "cores": 2}}

    def name(body: dict[str, Any]) -> None:
        body |= {"label": EVIL, "method": EVIL}

    page = open_page(
        two_models.url + "/ui", classify=changed(rename), models=changed(rename_all), explain=changed(name)
    )
    choose(page, {"name": f"{EVIL}.jpg", "mimeType": "image/jpeg", "buffer": CAT.read_bytes()})
    page.click("#heat-on")

    expect(page.locator("#heat-note")).to_contain_text(f"Method: {EVIL}", timeout=LOADS)
    expect(page.locator("#first")).to_contain_text(EVIL)
    expect(page.locator("#caption")).to_contain_text(f"{EVIL}.jpg")
    expect(page.locator("#snippet")).to_contain_text("onerror")
    assert page.locator("[onerror], img[src='x']").count() == 0
    assert page.title() == "Halftone"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    screenshot(page)


@pytest.mark.parametrize("name", ["cat's & dog.jpg", "sample"])
def test_copied_commands_and_programs_work(two_models: Server, open_page: Open, tmp_path: Path, name: str) -> None:
    sample = name == "sample"
    page = open_page(two_models.url + ("/ui#sample=cat" if sample else "/ui"))
    if not sample:
        (tmp_path / name).write_bytes(CAT.read_bytes())
        choose(page, tmp_path / name)
    expect(page.locator("#first")).to_have_text(CATS)
    copied = {}
    for language in ("curl", "python", "javascript"):
        page.click(f"[data-language={language}]")
        page.click("#copy")
        expect(page.locator("#copy")).to_have_text("Copied")
        copied[language] = page.evaluate("navigator.clipboard.readText()")

    assert len(set(copied.values())) == 3
    shell = subprocess.run(["sh", "-c", copied["curl"]], cwd=tmp_path, capture_output=True, text=True, check=True)
    python = subprocess.run(
        [sys.executable, "-c", copied["python"]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    best = json.loads(shell.stdout)["predictions"][0]
    assert python.stdout.splitlines()[0] == f"{best['probability']:6.1%}  {best['label']}"
    assert "await fetch(" in copied["javascript"]


def test_a_busy_service_is_asked_again(two_models: Server, open_page: Open) -> None:
    answers = [503, 429]

    def busy(route: Route) -> None:
        if not answers:
            return route.continue_()
        error = {"code": "queue_full", "message": "the queue is full: try again"}
        return route.fulfill(status=answers.pop(), json={"error": error}, headers={"Retry-After": "1"})

    page = open_page(two_models.url + "/ui", classify=busy)
    choose(page, CAT)

    expect(page.locator("#caption")).to_have_text("The service is busy: trying again in 1 s")
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#first")).to_have_text(CATS)
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")


def test_without_an_answer_it_says_so_and_tries_again(two_models: Server, open_page: Open) -> None:
    page = open_page(two_models.url + "/ui")
    page.route("**/classify?*", lambda route: route.abort())
    choose(page, CAT)
    expect(page.locator("#failure")).to_contain_text("The connection ended without an answer")

    page.unroute("**/classify?*")
    page.get_by_role("button", name="Try again").click()

    expect(page.locator("#first")).to_have_text(CATS)
    expect(page.locator("#failure")).not_to_be_visible()


def test_all_of_it_with_the_keyboard(two_models: Server, open_page: Open) -> None:
    page = open_page(two_models.url + "/ui")
    page.wait_for_selector("#sample-list img")
    names = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.id || document.activeElement.title"))
    assert {"model", "key", "choose", "shoot", "a cat", "copy", "snippet"} <= names

    page.focus("#sample-list button[title='a cat']")
    page.keyboard.press("Enter")
    expect(page.locator("#first")).to_have_text(CATS)
    page.focus("#heat-on")
    page.keyboard.press("Space")
    expect(page.locator("#heat-note")).to_contain_text("Speaks for", timeout=LOADS)
    page.focus("#bars li:nth-child(2) button")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
