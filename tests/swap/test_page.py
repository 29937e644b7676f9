"""The dashboard in a real browser: what it shows, what its buttons do, and how it looks on a phone and on a desk."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from labctl.tiny.embedding import embedding
from tests.swap.bench import GIB, Bench, bench, sentence

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser to look with")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: nobody looks at the dashboard"),
]
PICTURES = os.environ.get("LABCTL_PICTURES", "")
"""A folder to put screenshots into, to be looked at."""
KEY = "sk-sesame"
DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A picture of one pixel."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """Three models of which two fit, one that embeds, a stand-in that sees; a key is asked for."""
    commands, models = {"owl": "exec {server} --embeddings"}, {"owl": embedding()}
    with bench(["ant", "bee", "cow", "owl"], commands=commands, models=models) as it, seeing() as eye:
        os.environ["LABCTL_KEY_MASTER"] = KEY
        keys = [{"name": "master", "env": "LABCTL_KEY_MASTER", "admin": True}]
        config = it.config(keys=keys, cards={"desk:0": 9 * GIB}, labels={"desk:0": "desk 0: RTX 3060"})
        for backend in config["backends"]:
            backend["memory"] = {"desk:0": (1 if backend["name"] == "owl" else 4) * GIB}
        config["backends"][-1]["task"] = "embed"
        config["backends"].append({"name": "eye", "url": eye.url, "serves": ["eye"], "vision": True, "slots": 2})
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{_card(it.folder)}:{path}"
        try:
            it.gateway(config)
        finally:
            os.environ["PATH"] = path
            del os.environ["LABCTL_KEY_MASTER"]
        it.eye = eye  # type: ignore[attr-defined]
        yield it


def _card(folder: Path) -> Path:
    """Put a stand-in of nvidia-smi into a folder: one card."""
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, GPU-1, NVIDIA GeForce RTX 3060, 12288, 2048, 37, 55, 98.31'\n")
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with playwright.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Eye(ThreadingHTTPServer):
    """A stand-in for a server of a vision model: keeps what it was sent, and talks until nobody listens any more."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Talker)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[dict[str, Any]] = []
        self.left = threading.Event()


class _Talker(BaseHTTPRequestHandler):
    server: Eye

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            for number in range(1200):
                delta = {"reasoning_content": "I look. "} if number == 0 else {"content": f"word{number} "}
                self.wfile.write(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            self.server.left.set()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def seeing() -> Iterator[Eye]:
    """Run the stand-in."""
    with Eye() as eye:
        eye.daemon_threads = True
        threading.Thread(target=eye.serve_forever, daemon=True).start()
        yield eye
        eye.shutdown()


def opened(browser: Any, lab: Bench, *, width: int = 1280, dark: bool = False) -> Any:
    """Open the page and hand it the key; anything that it logs as an error fails the test."""
    scheme = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith(lab.url) or page.wrong.append(asked.url))
    page.goto(lab.url)
    page.fill("#key", KEY)
    page.dispatch_event("#key", "change")
    page.wait_for_selector("#servers tr")
    return page


def closed(page: Any) -> None:
    """Close the page: it had no error, and asked nobody but the gateway."""
    wrong = page.wrong
    page.close()
    assert wrong == []


def test_without_the_key_it_shows_nothing(browser: Any, lab: Bench) -> None:
    """The page is there; data come with a key."""
    page = browser.new_page()
    page.goto(lab.url)
    page.locator("#problem").filter(has_text="valid key").wait_for()
    assert page.query_selector("#servers tr") is None
    page.close()


def test_chat_start_pin_and_stop(browser: Any, lab: Bench) -> None:
    """A streamed answer, a model started, pinned and stopped by buttons, and the list of requests."""
    page = opened(browser, lab)
    cards = page.inner_text("#cards")
    assert "of 9.0 GiB · budget" in cards
    assert "2.0 GiB of 12 GiB · 37 % busy · 55 °C · 98 W" in cards
    page.select_option("#chatModel", "bee")
    page.fill("#prompt", "who are you?")
    page.click("#send")
    page.locator("#said").filter(has_text=sentence("bee")).wait_for(timeout=60_000)
    page.click("[data-act='start ant']")
    row = page.locator("#servers tr").filter(has_text="ant")
    row.locator(".ready").wait_for(timeout=60_000)
    page.click("[data-act='pin ant']")
    page.wait_for_selector("[data-act='unpin ant']")
    assert page.is_disabled("[data-act='stop ant']")
    page.click("[data-act='unpin ant']")
    page.wait_for_selector("[data-act='stop ant']:not([disabled])")
    page.click("[data-act='stop ant']")
    row.locator(".stopped").wait_for(timeout=60_000)
    assert "bee" in page.inner_text("#requests")
    assert KEY not in page.content().replace(page.input_value("#key"), "", 1)
    assert "bee" in lab.running()
    assert "ant" not in lab.running()
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / "dashboard-used.png", full_page=True)
    closed(page)


def test_an_image_is_sent_and_a_stream_is_stopped(browser: Any, lab: Bench) -> None:
    """The model's own choice of what it takes; Stop ends the request at the server; what was thought is shown."""
    eye = lab.eye  # type: ignore[attr-defined]
    page = opened(browser, lab)
    page.select_option("#chatModel", "ant")
    assert not page.is_visible("#image")
    page.select_option("#chatModel", "eye")
    page.set_input_files("#image", {"name": "dot.png", "mimeType": "image/png", "buffer": DOT})
    page.fill("#prompt", "what is this?")
    page.press("#prompt", "Control+Enter")
    page.locator("#said").filter(has_text="I look. word1 word2").wait_for()
    assert page.get_attribute("#said", "aria-busy") == "true"
    page.click("#halt")
    page.locator("#said").filter(has_text="(stopped)").wait_for()
    assert eye.left.wait(10), "the server was left to talk to nobody"
    text, image = eye.asked[-1]["messages"][0]["content"]
    assert text == {"type": "text", "text": "what is this?"}
    assert base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,")) == DOT
    assert page.input_value("#image") == ""
    page.locator("#requests tr").filter(has_text="499").first.wait_for()
    closed(page)


def test_embeddings_snippets_and_the_list_of_requests(browser: Any, lab: Bench) -> None:
    """A text's vector and who waits for it, what clients need to be told, and a list that shows no prompt."""
    page = opened(browser, lab)
    assert page.input_value("#embedModel") == "owl"
    page.fill("#text", "a text that nobody else is to see")
    page.click("#embed")
    page.locator("#vector").filter(has_text="64 numbers").wait_for(timeout=60_000)
    page.locator("#embedQueue").filter(has_text="ready · 0 of 2 at work · 0 waiting").wait_for()
    page.select_option("#chatModel", "cow")
    page.evaluate("document.addEventListener('copy', () => { window.taken = getSelection().toString() })")
    for kind, words in {
        "Python": "OpenAI(base_url=",
        "curl": '"model": "cow"',
        "Open WebUI": "OPENAI_API_BASE_URL",
    }.items():
        page.select_option("#kind", kind)
        assert words in page.inner_text("#snippet")
        assert KEY not in page.inner_text("#snippet")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")  # as over plain HTTP
    page.click("#copy")
    page.locator("#copied").filter(has_text="copied").wait_for()
    assert page.evaluate("window.taken") == page.inner_text("#snippet")
    page.locator("#requests tr").filter(has_text="owl").first.wait_for()
    assert "nobody else" not in page.inner_text("#requests")
    page.click("#clear")
    page.locator("#requests tr").first.wait_for(state="detached")
    closed(page)
    assert httpx.delete(f"{lab.url}/api/requests").status_code == 401


CONTRAST = """() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(x => x / 255).map(x =>
    x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$|transparent/.test(c)) return c; } return "rgb(255, 255, 255)"; };
  return [...document.querySelectorAll("body *")].filter(e => !e.disabled && !e.closest(".sr, script, .hidden") &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())).map(e => {
      const a = light(getComputedStyle(e).color), b = light(ground(e));
      return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.outerHTML.slice(0, 80)]; }).filter(p => p[0] < 4.5);
}"""
"""Texts that stand out from their ground by less than WCAG 2.2 asks for (1.4.3: 4.5 to 1)."""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits(browser: Any, lab: Bench, width: int, *, dark: bool) -> None:
    """Nothing sticks out at a phone's width; every control can be reached with the keyboard and has a name."""
    page = opened(browser, lab, width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea')].filter(e =>
            !e.innerText?.trim() && !e.getAttribute('aria-label') && !e.labels?.length).length"""
    )
    assert unnamed == 0
    assert page.evaluate(CONTRAST) == []
    page.focus("#key")
    reached: list[str] = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.act || ''"))
        if reached[-1]:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", reached
    act = next(name for name in reached if name.endswith(" ant"))
    places = [reached.index(name) for name in (act, "chatModel", "prompt", "text", "copy")]
    assert places == sorted(places), "Tab goes through the page as it reads"
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"dashboard-{width}-{'dark' if dark else 'light'}.png", full_page=True)
    closed(page)


def test_a_foreign_page_can_do_nothing(lab: Bench) -> None:
    """A request that another site's page has made is refused, and so is one without a key."""
    headers = {"authorization": f"Bearer {KEY}", "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert httpx.post(f"{lab.url}/api/servers/ant/start", headers=headers).status_code == 403
    assert httpx.post(f"{lab.url}/api/servers/ant/start").status_code == 401
    policy = httpx.get(lab.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
