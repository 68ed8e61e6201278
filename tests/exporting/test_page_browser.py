"""The exported page in headless Chromium, opened from disk: the product's own answers, the keyboard, files, and the threshold."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from spikedistill import export, load
from spikedistill.data import load_dataset
from spikedistill.evaluation import AnytimeClassifier
from spikedistill.exporting import Options
from spikedistill.exporting.web import PACKAGE, VERSION

WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER, NPM = shutil.which("chromedriver"), shutil.which("npm")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER and NPM), reason="needs Chromium, chromedriver and npm"),
]
THRESHOLD = 0.8


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    done = subprocess.run([NPM, "pack", f"{PACKAGE}@{VERSION}"], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"npm cannot get {PACKAGE}")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder)
    export(run, "web", folder / "shown", Options(threshold=THRESHOLD, runtime=folder / "package"))
    return folder / "shown" / "index.html"


@pytest.fixture(scope="module")
def browser(page: Path):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get(page.as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.body.dataset.ready") == "yes")
    yield driver
    driver.quit()


def images(count: int) -> torch.Tensor:
    return load_dataset("digits").test.inputs(torch.arange(count)) / 255


def text_of(browser, name: str) -> str:
    return browser.execute_script(f"return document.getElementById('{name}').textContent")


def test_fifty_images_get_the_answers_and_exits_of_the_classifier(browser, run: Path):
    x = images(50)
    expected = AnytimeClassifier(load(run), "confidence", THRESHOLD, 3)(x)
    ask = "const [pixels, limit, done] = arguments; window.network.classify(pixels, limit).then(done)"
    for n in range(50):
        steps = browser.execute_async_script(ask, x[n].flatten().tolist(), THRESHOLD)
        assert (steps[-1]["answer"], steps[-1]["t"]) == (int(expected.predictions[n]), int(expected.exit_times[n])), n
    assert len(set(expected.exit_times.tolist())) > 1
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_slider_moves_the_stop(browser, run: Path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    examples = browser.find_elements(By.CSS_SELECTOR, "#examples button")
    assert len(examples) == 12
    slider = browser.find_element(By.ID, "threshold")
    logits = AnytimeClassifier(load(run), "confidence", math.inf, 3)(images(12)).predictions
    for n, example in enumerate(examples[:4]):
        example.send_keys(Keys.ENTER)  # by the keyboard
        answer = str(int(logits[n]))
        slider.send_keys(Keys.END)
        WebDriverWait(browser, 10).until(
            lambda d, answer=answer: (
                text_of(d, "answer").startswith(f"{answer},") and "after 3 of 3" in text_of(d, "answer")
            )
        )
        slider.send_keys(Keys.HOME)
        assert "after 1 of 3 timesteps" in text_of(browser, "answer")
        assert len(browser.find_elements(By.CSS_SELECTOR, "#steps li.spared")) == 2
        shown = [float(cell.text) for cell in browser.find_elements(By.CSS_SELECTOR, "#bars td:nth-child(2)")]
        assert shown == sorted(shown, reverse=True)
        assert sum(shown) == pytest.approx(100, abs=1)
    for name in ("role", "aria-live"):
        assert browser.find_element(By.ID, "answer").get_attribute(name)
    assert all(button.get_attribute("aria-label") for button in examples)


def test_an_image_file_and_a_drawing_are_classified(browser, run: Path, tmp_path: Path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    whole = load_dataset("digits").test.inputs(torch.arange(20))
    at = 3
    Image.fromarray(whole[at, 0].numpy()).save(tmp_path / "digit.png")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "digit.png"))
    expected = load(run).predict(tmp_path / "digit.png").classes[0]
    WebDriverWait(browser, 10).until(lambda d: text_of(d, "answer").startswith(f"{expected},"))
    (tmp_path / "words.png").write_text("no image")
    browser.find_element(By.ID, "file").send_keys(str(tmp_path / "words.png"))
    WebDriverWait(browser, 10).until(lambda d: "words.png is no image" in text_of(d, "problem"))
    browser.find_element(By.ID, "clear").click()
    assert text_of(browser, "answer") == ""
    canvas = browser.find_element(By.ID, "input")
    ActionChains(browser).move_to_element_with_offset(canvas, 0, -90).click_and_hold().move_by_offset(
        0, 180
    ).release().perform()
    WebDriverWait(browser, 10).until(lambda d: "confidence" in text_of(d, "answer"))


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(browser, width: int):
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
