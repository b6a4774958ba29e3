"""The service as `uvicorn app:app` starts it, and a browser."""

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as ChromeDriver
from support.browser import ARGUMENTS, CHROMEDRIVER, CHROMIUM
from support.service import ROOT, Service, free_port


@pytest.fixture(scope="module")
def under_uvicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A development service under uvicorn's own command, with its own defaults."""
    command = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--port", "{port}")
    with Service(tmp_path_factory.mktemp("uvicorn"), command=command) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser that can reach this machine only."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, ChromeDriver(executable_path=CHROMEDRIVER, port=free_port()))
    try:
        yield driver
    finally:
        driver.quit()
