"""The page in a headless Chromium, as a visitor sees it."""

import os
import shutil
import time
from pathlib import Path

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--window-size=1200,1000", "--mute-audio",
)  # fmt: skip


def start_browser(folder):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


class Visit:
    """The page as a visitor sees it."""

    def __init__(self, driver, address, wait=True):
        self.driver, self.address = driver, address.partition("#")[0].rstrip("/")
        driver.get(address)
        if wait:
            self.wait(lambda: self.all("#points path"))

    def wait(self, condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{self.one('#status').text!r} {self.one('#error').text!r}"
            time.sleep(0.02)
        return found

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def run(self, script):
        return self.driver.execute_script(script)

    def complaints(self):
        """Errors that the browser itself has logged: scripts that fail, what the content policy refuses."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def send(self, path):
        """Choose a file, and wait for its answers."""
        self.one("#file").send_keys(str(path))
        self.wait(lambda: self.all("#results li"))

    def names(self):
        return self.run("return [...document.querySelectorAll('#results .name')].map((name) => name.textContent)")

    def change(self, selector, value):
        """Give a field a value as typing does."""
        script = (
            "const [field, value] = arguments; field.value = value;"
            "field.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        self.driver.execute_script(script, self.one(selector), value)

    def resize(self, width, height, mobile=False):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def keep_picture(self, name):
        """For people to look at: VMNET_SCREENSHOTS=FOLDER."""
        if folder := os.environ.get("VMNET_SCREENSHOTS"):
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))
