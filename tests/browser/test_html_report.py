"""The HTML report in a real browser, headless Chromium: it fetches nothing, fits every width, and can be read aloud."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checks import CAUSES, CHECKS
from diagnose.engine import diagnose
from diagnose.recording import decode
from diagnose.render.html import render_html

webdriver = pytest.importorskip("selenium.webdriver", reason="pip install '.[test]'")

pytestmark = [pytest.mark.browser]

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINES = REPOSITORY / "fixtures" / "machines"
AXE = Path(sys.prefix) / "node" / "node_modules" / "axe-core" / "axe.min.js"
"""Where `make browser` puts it."""
WIDTHS = {"a phone": (390, 844), "a desktop": (1280, 900)}
STORIES = (
    "a-ban-in-a-set-of-fail2ban-is-named-by-its-jail",
    "a-ban-in-a-set-of-fail2ban-is-named-by-its-jail-as-an-ordinary-user",
)
CODES = {cause.code: cause for cause in CAUSES}


def some_causes() -> list[str]:
    """Recorded machines with causes of all sorts: every sixth of one for each verdict and root cause."""
    found: dict[tuple[str, str], str] = {}
    for folder in sorted(MACHINES.iterdir()):
        expected = json.loads((folder / "expected.json").read_text())
        cause = expected["root_cause"]
        found.setdefault((expected["verdict"], str(cause)), folder.name)
    return sorted(found.values())[::6]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, without anything that it would do on its own."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += [] if AXE.exists() else ["axe-core"]
    if missing:
        reason = f"not installed: {', '.join(missing)} (make browser installs them)"
        if os.environ.get("NETDIAG_LAB") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(180)  # axe takes its time where other processes are busy
    try:
        yield driver
    finally:
        driver.quit()


def page_of(machines: list[str], folder: Path) -> Path:
    """The report of these recorded machines as a file."""
    snapshots = [one for name in machines for one in decode((MACHINES / name / "snapshot.json").read_bytes())]
    page = folder / "report.html"
    page.write_text(render_html([diagnose(snapshot, CHECKS) for snapshot in snapshots], CODES), encoding="utf-8")
    return page


def show(browser: Any, page: Path, width: int, height: int, scheme: str = "light") -> None:
    browser.get_log("performance")  # what was fetched before is another page's
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get(page.as_uri())


def fetched(browser: Any) -> list[str]:
    """The addresses that the page has asked for."""
    entries = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_fits_fetches_nothing_and_has_no_violation(
    browser: Any, tmp_path: Path, device: str, scheme: str
) -> None:
    page = page_of(some_causes(), tmp_path)
    show(browser, page, *WIDTHS[device], scheme)
    assert fetched(browser) == [page.as_uri()]
    overflow = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, f"{overflow} pixels are beyond the edge of {device}"
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then(done, e => done({violations: [String(e)]}))"
    )
    assert not found["violations"], json.dumps(found["violations"], indent=1)[:4000]


def test_every_command_and_detail_is_reached_by_the_keyboard(browser: Any, tmp_path: Path) -> None:
    show(browser, page_of([STORIES[0]], tmp_path), *WIDTHS["a desktop"])
    keys = webdriver.Keys
    reached: list[str] = []
    for _ in range(20):
        webdriver.ActionChains(browser).send_keys(keys.TAB).perform()
        reached.append(browser.execute_script("return document.activeElement.tagName"))
        if reached[-1] == "SUMMARY":
            webdriver.ActionChains(browser).send_keys(keys.ENTER).perform()
            break
    assert "PRE" in reached
    assert reached[-1] == "SUMMARY"
    assert browser.execute_script("return document.querySelector('details').open")


def test_the_picture_marks_the_broken_link_and_says_the_same_in_words(browser: Any, tmp_path: Path) -> None:
    show(browser, page_of([STORIES[0]], tmp_path), *WIDTHS["a desktop"])
    spoken = browser.execute_script("return document.querySelector('svg desc').textContent")
    assert "firewall rules of this machine: broken" in spoken
    assert "listening socket" in spoken
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].filter(t => t.textContent.includes('broken')).length"
    )
    assert drawn == 1


def test_the_page_prints(browser: Any, tmp_path: Path) -> None:
    show(browser, page_of(list(STORIES), tmp_path), *WIDTHS["a desktop"])
    printed = browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert len(printed) > 2_000
