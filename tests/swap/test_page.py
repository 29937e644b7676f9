"""The dashboard in a real browser: what it shows, what its buttons do, and how it looks on a phone and on a desk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.swap.bench import Bench, bench, sentence

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser to look with")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: nobody looks at the dashboard"),
]
PICTURES = os.environ.get("LABCTL_PICTURES", "")
"""A folder to put screenshots into, to be looked at."""
KEY = "sk-sesame"


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """Three models of which two fit; a key is asked for."""
    with bench(["ant", "bee", "cow"]) as it:
        os.environ["LABCTL_KEY_MASTER"] = KEY
        keys = [{"name": "master", "env": "LABCTL_KEY_MASTER", "admin": True}]
        try:
            it.gateway(it.config(keys=keys, labels={"gpu": "desk 0: RTX 3060"}))
        finally:
            del os.environ["LABCTL_KEY_MASTER"]
        yield it


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with playwright.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


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
    page.select_option("#chatModel", "bee")
    page.fill("#prompt", "who are you?")
    page.click("#send")
    page.locator("#said").filter(has_text=sentence("bee")).wait_for(timeout=60_000)
    page.click("[data-act='start ant']")
    page.locator("#servers .ready").nth(1).wait_for(timeout=60_000)
    page.click("[data-act='pin ant']")
    page.wait_for_selector("[data-act='unpin ant']")
    assert page.is_disabled("[data-act='stop ant']")
    page.click("[data-act='unpin ant']")
    page.wait_for_selector("[data-act='stop ant']:not([disabled])")
    page.click("[data-act='stop ant']")
    page.locator("#servers .ready").nth(1).wait_for(timeout=60_000, state="detached")
    assert "bee" in page.inner_text("#requests")
    assert KEY not in page.content().replace(page.input_value("#key"), "", 1)
    assert lab.running() == {"bee"}
    closed(page)


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
    page.focus("#key")
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.act"))
    assert {"chatModel", "prompt", "start ant"} <= reached
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
