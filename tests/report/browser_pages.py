"""Pages in a real browser: the browser, how a page is opened in it, what is read in more than one test file."""

import shutil

import pytest

WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and chromedriver"),
]

RELATIVE_LUMINANCE = """
const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const luminance = text => {
  const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [x, y] = [luminance(a), luminance(b)];
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
};
const page = getComputedStyle(document.body).backgroundColor;
"""


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that keeps what it complains about and fetches."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def colour_scheme(driver, name):
    features = [{"name": "prefers-color-scheme", "value": name}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def open_page(driver, page, width=1200, scheme="light"):
    """The driver, at a page on a screen of that width; below 600 that of a phone."""
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    colour_scheme(driver, scheme)
    driver.get(page.as_uri())
    wait_for_plots(driver)
    return driver


def wait_for_plots(driver):
    """Plots are unpacked while the page can be read already."""
    WebDriverWait(driver, 20, poll_frequency=0.02).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.drawn")
    )


def check_fits(driver, width, within="body"):
    """With everything unfolded, no part of the page is wider than the screen but what scrolls within itself."""
    for details in driver.find_elements("tag name", "details"):
        driver.execute_script("arguments[0].open = true", details)
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    beyond = driver.execute_script(
        """
        return [...document.querySelectorAll(arguments[0] + " *")]
          .filter(e => !e.parentElement.closest(".scroll, pre, .plot") && !e.closest(".skip"))
          .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120));
        """,
        within,
    )
    assert beyond == []
