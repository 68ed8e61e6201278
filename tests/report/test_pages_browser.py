"""Every kind of page in a real browser, on a desktop and on a phone, light and dark: nothing cut, nothing complained about."""

import json

import numpy as np
import pytest
import torch
from browser_pages import RELATIVE_LUMINANCE, check_fits, open_page, pytestmark  # noqa: F401
from conftest import CONFIG, logits_of, write_run
from torch import nn

from spikedistill import LIF, temporal
from spikedistill.config import Config
from spikedistill.evaluation import Comparison, record
from spikedistill.evaluation.comparison.records import RunRecord
from spikedistill.recipe_name import RecipeName
from spikedistill.report import write_comparison, write_recording, write_report

LARGEST_PAGE = 2_000_000  # bytes
METHODS = 18


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind, by its kind."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        "run": write_report(write_run(folder / "run", T=8, N=60)),
        "logits": _logits(folder),
        "comparison": _comparison(folder / "comparison"),
        "recording": _recording(folder),
    }


def _logits(folder):
    logits, target = logits_of(6, 80, 12)
    return write_report(logits.numpy(), np.asarray(target), out=folder / "logits.html", title="Of another library")


def _comparison(folder):
    """Many methods of three seeds, whose records are copies of three runs under other names."""
    runs = {}
    config = Config(**CONFIG | {"recipe": "tiny-sce", "data": {"name": "digits"}, "objective": {"name": "sce"}})
    records = [
        RunRecord.of(write_run(folder / f"seed{seed}", N=80, config=config.written(), first_seed=seed))
        for seed in range(3)
    ]
    for place in range(METHODS):
        runs[RecipeName("tiny", f"method-{place}-with-a-long-name", [] if place % 2 else ["timesteps=4"])] = records
    return write_comparison(folder, Comparison.of(runs), command="spikedistill compare")


def _recording(folder):
    network = nn.Sequential(
        LIF(), nn.Conv2d(3, 16, 3), LIF(threshold=0.3), nn.Flatten(), nn.Linear(16 * 36, 200), LIF()
    )
    with record(model := temporal(network)) as recording, torch.no_grad():
        model(2 * torch.rand(1, 3, 8, 8), timesteps=20)
    return write_recording(recording, folder / "recording.html")


@pytest.mark.parametrize("kind", ["run", "logits", "comparison", "recording"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_a_page_is_whole(browser, pages, kind, width, scheme):
    assert pages[kind].stat().st_size < LARGEST_PAGE
    browser.get_log("browser")
    browser.get_log("performance")
    driver = open_page(browser, pages[kind], width, scheme)
    check_fits(driver, width)
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.plot')].map(p => [p.querySelectorAll('svg.main-svg').length, p._fullLayout.width])"
    )
    assert drawn
    assert all(count and wide <= width - 32 for count, wide in drawn)
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requested if not url.startswith("data:")] == [pages[kind].as_uri()]
    background, text = driver.execute_script(
        RELATIVE_LUMINANCE
        + """
        const found = [...document.querySelectorAll("h1, h2, p, dd, dt, td, th, a, summary, caption, .note")];
        return [luminance(page), Math.min(...found.map(e => contrast(getComputedStyle(e).color, page)))];
        """
    )
    assert background < 0.05 if scheme == "dark" else background > 0.8
    assert text >= 4.5
    if width < 600:
        sizes = driver.execute_script(
            """
            const found = [...document.querySelectorAll("p, dd, dt, td, th, a, summary, figcaption")];
            const of = list => Math.min(...list.map(e => parseFloat(getComputedStyle(e).fontSize)));
            return [of(found), of([...document.querySelectorAll("p:not([class]), dd:not([class]), dt")])];
            """
        )
        assert sizes[0] >= 15
        assert sizes[1] >= 16
        assert cut_tables(driver) == []


def cut_tables(driver):
    """Tables beyond the screen that lie in no box that scrolls; all of the page is unfolded."""
    return driver.execute_script(
        """
        return [...document.querySelectorAll("table")].filter(table => {
          const box = table.closest(".scroll");
          if (!box) return table.getBoundingClientRect().right > innerWidth;
          const wide = table.scrollWidth > box.clientWidth + 1;
          return box.getBoundingClientRect().right > innerWidth || (wide && getComputedStyle(box).overflowX !== "auto");
        }).map(table => table.outerHTML.slice(0, 100));
        """
    )


def test_text_and_tables_are_there_without_a_script(browser, pages):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(pages["run"].as_uri())
        table = browser.find_element("css selector", "table[data-table=record]")
        assert table.is_displayed()
        assert "Plots need JavaScript" in browser.find_element("id", "main").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_browser_that_cannot_unpack_the_plots_says_so(browser, pages):
    """One without DecompressionStream: the line says what is missing, and nothing is complained about."""
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    try:
        browser.get_log("browser")
        browser.get(pages["run"].as_uri())
        line = browser.find_element("id", "no-plots")
        assert line.is_displayed()
        assert line.text.startswith("The plots are not shown, because this browser has no DecompressionStream")
        assert browser.find_element("css selector", "table[data-table=record]").is_displayed()
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    open_page(browser, pages["run"])
    assert not browser.find_element("id", "no-plots").is_displayed()
