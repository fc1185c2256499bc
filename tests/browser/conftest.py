"""A headless Chromium and the page in it, before live servers of the bundled model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from tests.e2e.conftest import eventually, launch, model_folder

__all__ = ["launch", "model_folder"]

MODEL = Path(__file__).parents[2] / "src" / "distilgpt2_api" / "models" / "storyteller"
OPTIONS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
MOST_TOKENS = str(json.loads((MODEL / "config.json").read_bytes())["n_positions"] - 1)
"""The service's bound of a text's length. The page has another one until it knows the service."""
NEWEST = "#answers .run:first-child .answer:first-child"
"""The first answer of the newest run."""
REVEAL = """
    const [node] = arguments;
    for (const one of document.querySelectorAll("details")) one.open ||= one.contains(node);
    const panel = node.closest("#side [role=tabpanel]");
    if (panel?.hidden) document.getElementById(panel.getAttribute("aria-labelledby")).click();
    const side = node.closest("#side");
    if (side && !side.checkVisibility()) side.showPopover();
"""
"""Shows an element of the side panel: selects its tab, unfolds its group, and opens the sheet on narrow screens."""


def channels(colour: str) -> list[int]:
    """Red, green and blue of a colour as CSS computes it."""
    return [int(channel) for channel in re.findall(r"\d+", colour)[:3]]


@dataclass
class Page:
    """The playground as a user sees it."""

    driver: Any

    def open(self, server: Any, path: str = "/") -> None:
        self.driver.get(server.url + path)
        self.see(lambda: self.text("#model") == "storyteller" and self.text("#state") == "ready", "the page is ready")
        self.see(lambda: self.run("return document.querySelector('#set-max_tokens').max") == MOST_TOKENS, "its bounds")

    def see(self, is_so: Callable[[], Any], what: str) -> Any:
        """Wait until the page shows it. Elements that the page has just redrawn are looked up again."""

        def look() -> Any:
            try:
                return is_so()
            except (NoSuchElementException, StaleElementReferenceException, IndexError):
                return None

        return eventually(look, what)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)  # type: ignore[no-any-return]  # Selenium returns Any

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text  # type: ignore[no-any-return]  # Selenium returns Any

    def story(self, card: str = NEWEST) -> str:
        return self.joined(self.tokens(card))

    @staticmethod
    def joined(tokens: Sequence[str]) -> str:
        """The tokens' text, without the symbols for line ends."""
        return "".join(tokens).replace("↵", "")

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    @property
    def active(self) -> Any:
        """The focused element."""
        return self.driver.switch_to.active_element

    @property
    def background(self) -> list[int]:
        return channels(self.run("return getComputedStyle(document.body).backgroundColor"))

    def pixels(self, points: Sequence[tuple[float, float]]) -> list[list[int]]:
        """The colours on the screen at these points, as red, green and blue."""
        script = """
            const [png, points, done] = arguments;
            const image = new Image();
            image.onload = () => {
                const canvas = new OffscreenCanvas(image.width, image.height);
                const paint = canvas.getContext("2d", { willReadFrequently: true });
                paint.drawImage(image, 0, 0);
                done(points.map(([x, y]) => [...paint.getImageData(x, y, 1, 1).data].slice(0, 3)));
            };
            image.src = `data:image/png;base64,${png}`;
        """
        png = self.driver.get_screenshot_as_base64()
        return self.driver.execute_async_script(script, png, points)  # type: ignore[no-any-return]  # Selenium returns Any

    def click(self, selector: str) -> None:
        """Scroll to the element and click it."""
        node = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", node)
        node.click()

    def fill(self, selector: str, text: str) -> None:
        node = self.one(selector)
        self.run(REVEAL, node)
        node.clear()
        node.send_keys(text)

    def set(self, **values: object) -> None:
        for name, value in values.items():
            self.fill(f"#set-{name}", str(value))
        self.run("document.querySelector('#side').hidePopover()")

    def generate(self) -> None:
        """Click *Generate* and wait for the end of all completions."""
        self.click("#generate")
        self.see(self.is_done, "the answers are complete")

    def is_done(self) -> bool:
        return bool(self.all(".answer")) and not self.all(".answer.running")

    def show_panel(self, name: str) -> None:
        self.run(REVEAL, self.one(f"#{name}-panel *"))

    def visible(self, selector: str) -> list[Any]:
        return [node for node in self.all(selector) if node.is_displayed()]

    def tokens(self, card: str = NEWEST) -> list[str]:
        """The tokens' texts as shown."""
        script = "return [...document.querySelectorAll(arguments[0] + ' .token')].map((node) => node.textContent)"
        return self.run(script, card)  # type: ignore[no-any-return]  # Selenium returns Any

    def enter_key(self, server: Any, key: str) -> None:
        """Open a service that requires a key, and enter it."""
        self.driver.get(server.url)
        self.see(lambda: self.one("#key-dialog").is_displayed(), "the key's dialog")
        self.one("#key").send_keys(key, Keys.ENTER)
        self.see(lambda: self.text("#model") == "storyteller", "the model's name")

    def errors(self) -> list[str]:
        """The console's errors since the last call: policy violations, exceptions, failed loads."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def requested_urls(self) -> list[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent if not params["request"]["url"].startswith("data:")]

    def emulate(
        self, *, scheme: str = "light", width: int = 1280, height: int = 900, is_high_contrast: bool = False
    ) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        features += [{"name": "forced-colors", "value": "active"}] if is_high_contrast else []
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def slow_down(self) -> None:
        """Receive 50 kB per second until the test ends, so that a stream is still running when it is stopped."""
        rates = {"offline": False, "latency": 0, "downloadThroughput": 50_000, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", rates)

    def violations(self) -> Sequence[str]:
        """Violations of WCAG 2.2, levels A and AA, that axe-core finds: contrast, names, roles."""
        self.run((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
        script = """
            const done = arguments[arguments.length - 1];
            const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
            const tell = ({ html, failureSummary }) => `${html} ${failureSummary}`;
            axe.run({ runOnly: tags }).then(({ violations }) => done(violations.map(
                ({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(tell)}`)));
        """
        return self.driver.execute_async_script(script)  # type: ignore[no-any-return]  # Selenium returns Any


@pytest.fixture(scope="session")
def storyteller(launch: Callable[..., Any]) -> Any:
    return _ready(launch("serve", model=MODEL))


@pytest.fixture
def start_storyteller(launch: Callable[..., Any]) -> Callable[..., Any]:
    """Starts a server of the bundled model with settings, for one test."""
    return lambda **settings: _ready(launch("serve", model=MODEL, **settings))


@pytest.fixture(scope="session")
def chatty(launch: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with a chat template and a store of files and batches: the page has all its views."""
    folder = tmp_path_factory.mktemp("chatty")
    (folder / "plain.jinja").write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    return _ready(
        launch("serve", model=MODEL, chat_template=folder / "plain.jinja", batch_store=folder / "store", num_threads=2)
    )


def _ready(server: Any) -> Any:
    server.wait_listening()
    server.wait_ready()
    return server


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.binary_location = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    """The page in a browser without data of earlier tests. At the test's end the console must have no errors, except
    those that the test itself has read.
    """
    page = Page(browser)
    page.emulate()
    page.errors()
    page.requested_urls()
    yield page
    errors = page.errors()
    full = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", full)
    browser.execute_script("try { localStorage.clear(); sessionStorage.clear(); } catch {}")
    browser.get("about:blank")
    assert errors == []
