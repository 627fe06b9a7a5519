"""The page of a run as a browser shows it: on a desk, on a phone and on paper."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench import table1

EVIL = "<img src=x onerror=alert(1)>"

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.page,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="no chromium and chromedriver (Debian: chromium, chromium-driver)"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-quic", "no-first-run",
                     "disable-background-networking", "disable-component-update", "disable-sync",
                     f"user-data-dir={tmp_path_factory.mktemp('profile')}"):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The address of the page of a run whose dataset, method and classes have evil names; each with two m."""
    folder = tmp_path_factory.mktemp("run") / EVIL
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for index, name in enumerate((EVIL, "$x$", "b")):
            (folder / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(index, 100 + index, (32, 32, 3), np.uint8)  # hard to tell apart
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{number}.png")
    shutil.copy(Path(__file__).parents[2] / "examples" / "nearest_mean.py", folder)
    arguments = ["--datasets", f"folder:{folder / 'images'}", "--train-per-class", "3", "6", "--runs", "2", "--workers",
                 "1", "--methods", f"{folder / 'nearest_mean.py'}:NearestMean", "sklearn:OneClassSVM",
                 "sklearn:LocalOutlierFactor", "--out", str(folder.parent / "out")]  # fmt: skip
    assert table1.main(arguments) == 0
    return (folder.parent / "out" / "page" / "index.html").as_uri()


def show(browser: Any, page: str, width: int, media: str = "screen") -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get(page)


def test_the_page_in_a_browser(browser, page):
    for width, media in ((1400, "screen"), (400, "screen"), (794, "print")):
        show(browser, page, width, media)
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert len(browser.find_elements("css selector", "figure svg")) > 5
        # evil names are text: in a picture, in the table, and in the cells of a line once that is open
        assert browser.find_elements("css selector", "img") == []
        assert EVIL[:7] in browser.find_element("css selector", "#classes svg").get_attribute("textContent")
        assert EVIL in browser.find_element("css selector", "table.main .name").get_attribute("textContent")
        browser.execute_script("document.querySelector('table.main details').open = true")
        shown = browser.find_element("css selector", "table.main tr.more")
        assert shown.is_displayed()
        assert EVIL in shown.get_attribute("textContent")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width

    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"])
    assert printed.startswith(b"%PDF")

    show(browser, page, 1400)
    heads = browser.find_elements("css selector", "table.main > thead th")
    column = next(k for k, head in enumerate(heads) if head.text.startswith("AUC"))

    def aucs() -> list[float]:
        cells = browser.find_elements(
            "css selector", f"table.main > tbody > tr:first-child > td:nth-child({column + 1})"
        )
        return [float(cell.text.split()[0]) for cell in cells]

    before = aucs()
    assert len(set(before)) > 1
    for order in (sorted, lambda values: sorted(values, reverse=True)):
        heads[column].find_element("css selector", "button").click()
        assert aucs() == order(before)
    browser.find_element("css selector", "input.filter").send_keys("outlier images")
    lines = [b for b in browser.find_elements("css selector", "table.main > tbody") if b.is_displayed()]
    assert ["sklearn:LocalOutlierFactor" in line.text for line in lines] == [True, True]
    assert browser.get_log("browser") == []


def test_without_a_script_everything_is_there(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page, 1400)
        assert browser.find_elements("css selector", "th button") == []
        assert len(browser.find_elements("css selector", "table.main > tbody")) == 6
        line = browser.find_element("css selector", "table.main > tbody")
        line.find_element("css selector", "summary").click()
        assert line.find_element("css selector", "tr.more").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
