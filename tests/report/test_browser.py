"""The page in a real browser: its figures, its looks on a phone and in the dark, its keyboard."""

import json
from functools import partial

import pytest
import torch
from browser_pages import RELATIVE_LUMINANCE, check_fits, colour_scheme, open_page, pytestmark  # noqa: F401
from torch import nn

from spikedistill import LIF, temporal
from spikedistill.evaluation import record
from spikedistill.report import write_recording

pytest.importorskip("selenium")
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait


@pytest.fixture
def opened(browser, full_run):
    """`opened(width, scheme)` opens the report of a full run."""
    return partial(open_page, browser, full_run / "report.html")


def values(driver, table):
    """A table as the browser holds it: {row: {column: number}}."""
    return driver.execute_script(
        """
        const rows = {};
        for (const row of document.querySelectorAll(`table[data-table="${arguments[0]}"] tr[data-row]`)) {
          rows[row.dataset.row] = {};
          const names = [...row.closest("table").tHead.rows[0].cells].map(cell => cell.dataset.metric);
          for (const cell of [...row.cells].slice(1)) {
            const text = cell.dataset.value ?? cell.textContent;
            rows[row.dataset.row][names[cell.cellIndex]] = text === "–" ? null : Number(text);
          }
        }
        return rows;
        """,
        table,
    )


def plotted(driver, name):
    """The traces that plotly has drawn."""
    return driver.execute_script(
        "return document.getElementById('plot-' + arguments[0]).data.map(t => ({x: t.x, y: t.y, z: t.z, name: t.name}))",
        name,
    )


def test_the_figures_in_the_browser_are_those_of_the_results(opened, results):
    driver = opened()
    last = results["last"]
    record = values(driver, "record")
    for entry in last["ensemble"]:
        row = record[str(entry["k"])]
        assert {name: row[name] for name in entry if name != "k"} == {
            name: v for name, v in entry.items() if name != "k"
        }
    *_, together, alone, beyond = plotted(driver, "accuracy")
    assert together["y"] == [100 * entry["accuracy"] for entry in last["ensemble"]]
    assert alone["y"] == [100 * entry["accuracy"] for entry in last["single"]]
    assert beyond["y"][1:] == [100 * entry["accuracy"] for entry in last["beyond"]]
    assert plotted(driver, "firing")[0]["z"] == [layer["rates"] for layer in last["firing_rates"]]
    for k in (1, 2, 4):
        filled = [entry for entry in last["reliability"][str(k)] if entry["count"]]
        assert plotted(driver, f"reliability_{k}")[1]["y"] == pytest.approx(
            [100 * entry["accuracy"] for entry in filled]
        )
    # what a reader sees, rounded
    cell = driver.find_element("css selector", "table[data-table=record] tr[data-row='4'] td")  # the first column
    assert cell.text == f"{100 * last['ensemble'][-1]['accuracy']:.2f}"


def test_every_plot_is_drawn_and_nothing_is_complained_about_or_fetched(opened, browser, full_run):
    browser.get_log("browser")
    browser.get_log("performance")
    driver = opened()
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('svg.main-svg').length)"
    )
    assert len(drawn) == 10
    assert min(drawn) > 0
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requested if not url.startswith("data:")] == [(full_run / "report.html").as_uri()]


def test_the_page_of_a_recording_is_drawn_and_nothing_is_complained_about(browser, tmp_path):
    network = nn.Sequential(LIF(), nn.Flatten(), nn.Linear(64, 12), LIF(threshold=0.3))
    with record(model := temporal(network)) as recording:
        model(2 * torch.rand(3, 1, 8, 8), timesteps=5)
    page = write_recording(recording, tmp_path / "recording.html", sample=2)
    browser.get_log("browser")
    open_page(browser, page)
    assert browser.get_log("browser") == []
    fired = recording.spikes["3"][:, 2]
    (dots,) = plotted(browser, "raster_2")
    assert sorted(zip(dots["x"], map(int, dots["y"]), strict=True)) == [(t + 1, i) for t, i in fired.nonzero().tolist()]
    level, *traces = plotted(browser, "membranes_2")
    assert level["y"] == [0.3, 0.3]
    assert len(traces) == 4
    drawn = browser.execute_script(
        """
        const count = (plot, of) => document.querySelectorAll(`#plot-${plot} .scatterlayer ${of}`).length;
        return [count("raster_2", ".point"), count("membranes_2", ".js-line"), count("membranes_2", ".point")];
        """
    )
    assert drawn == [int(fired.sum()), 1 + 4, 4 * 5]


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_the_page_never_scrolls_sideways(opened, width):
    driver = opened(width)
    check_fits(driver, width)
    widths = driver.execute_script(
        "return [...document.querySelectorAll('.main-svg')].map(s => s.getBoundingClientRect().width)"
    )
    assert max(widths) <= width - 32


def test_on_a_phone_the_text_is_large_enough_and_a_wide_table_scrolls_within_itself(opened):
    driver = opened(360)
    smallest = driver.execute_script(
        """
        const found = [...document.querySelectorAll("p, dd, dt, td, a, summary")];
        return Math.min(...found.map(e => parseFloat(getComputedStyle(e).fontSize)));
        """
    )
    assert smallest >= 12
    record = driver.find_element("css selector", ".scroll:has(table[data-table=record])")
    assert driver.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", record)
    driver.execute_script("arguments[0].focus()", record)
    record.send_keys(Keys.ARROW_RIGHT * 3)
    assert (
        driver.execute_script(
            "return new Promise(done => setTimeout(() => done(arguments[0].scrollLeft), 300))", record
        )
        > 0
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lines_stand_out_in_both_colour_schemes(opened, scheme):
    driver = opened(scheme=scheme)
    background = driver.execute_script(RELATIVE_LUMINANCE + "return luminance(page)")
    assert background < 0.05 if scheme == "dark" else background > 0.8
    text = driver.execute_script(
        RELATIVE_LUMINANCE
        + """
        const found = [...document.querySelectorAll("h1, h2, p, dd, dt, td, th, a, summary, caption, .note, .unit, code")];
        return Math.min(...found.map(e => contrast(getComputedStyle(e).color, page)));
        """
    )
    assert text >= 4.5
    labels = driver.execute_script(
        RELATIVE_LUMINANCE
        + """
        const found = [...document.querySelectorAll(".plot .xtick text, .plot .ytick text, .plot .legendtext, .plot .xtitle")];
        return Math.min(...found.map(e => contrast(getComputedStyle(e).fill, page)));
        """
    )
    assert labels >= 4.5
    lines = driver.execute_script(
        RELATIVE_LUMINANCE
        + """
        const found = [...document.querySelectorAll("#plot-accuracy .scatterlayer .js-line")];
        return found.map(e => contrast(getComputedStyle(e).stroke, page));
        """
    )
    assert len(lines) == 3 + 3  # with the edges of bands
    assert min(lines) >= 3


def test_plots_follow_a_change_of_the_colour_scheme(opened):
    driver = opened(scheme="light")
    soon = WebDriverWait(driver, 10, poll_frequency=0.05)

    def colours(driver):
        return driver.execute_script(
            """
            const line = document.querySelector("#plot-accuracy .js-line");
            const label = document.querySelector("#plot-firing .xtick text");
            return [getComputedStyle(line).stroke, getComputedStyle(label).fill];
            """
        )

    light = colours(driver)
    colour_scheme(driver, "dark")
    soon.until(lambda driver: all(now != then for now, then in zip(colours(driver), light, strict=True)))
    colour_scheme(driver, "light")
    soon.until(lambda driver: colours(driver) == light)


def test_the_keyboard_walks_the_page_in_its_order(opened):
    driver = opened()
    expected = driver.execute_script(
        """
        const found = [...document.querySelectorAll("a, summary, section > .scroll, pre")];
        return found.map(e => e.outerHTML.slice(0, 90));
        """
    )
    walked = []
    for _ in expected:
        driver.switch_to.active_element.send_keys(Keys.TAB)
        walked.append(driver.execute_script("return document.activeElement.outerHTML.slice(0, 90)"))
        outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", walked[-1]
    assert walked == expected
    assert 'class="skip"' in walked[0]


def test_the_skip_link_and_the_numbers_work_by_keyboard(opened):
    driver = opened()
    driver.switch_to.active_element.send_keys(Keys.TAB)
    skip = driver.switch_to.active_element
    assert driver.execute_script("return arguments[0].getBoundingClientRect().top >= 0", skip)
    skip.send_keys(Keys.ENTER)
    assert driver.switch_to.active_element.get_attribute("id") == "main"
    driver.switch_to.active_element.send_keys(Keys.TAB)
    summary = driver.switch_to.active_element
    assert summary.tag_name == "summary"
    table = driver.find_element("css selector", "table[data-table=accuracy]")
    assert not table.is_displayed()
    summary.send_keys(Keys.ENTER)
    assert table.is_displayed()


def test_assistive_technology_finds_names_and_headings(opened):
    driver = opened()
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and "role" in node
    ]
    assert [name for role, name in found if role == "heading"] == [
        "tiny-twsd",
        "Accuracy over timesteps",
        "Accuracy and loss over epochs",
        "Calibration",
        "Firing rates",
        "Which classes are confused",
        "Samples and their predictions",
        "Cost of training",
        "Configuration",
    ]
    images = [name for role, name in found if role == "image"]
    assert len(images) == 10 + 12
    assert all(images)
    tables = [name for role, name in found if role == "table"]
    assert len(tables) == 2 + 12  # the folded ones are not there until they are opened
    assert all(tables)
    assert ("navigation", "Sections") in found
    assert any(role == "main" for role, _ in found)
