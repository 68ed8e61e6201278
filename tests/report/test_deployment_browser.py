"""The section on deployment in a real browser: its slider by keyboard, its figures, its looks."""

import json
import re
import subprocess
import sys
from functools import partial

import pytest
from browser_pages import RELATIVE_LUMINANCE, check_fits, colour_scheme, open_page, pytestmark  # noqa: F401
from exit_replay import replay
from quick_runs import quick
from safetensors.torch import load_file

from spikedistill.training import train

pytest.importorskip("selenium")
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(quick("digits-twsd", epochs=6, out=tmp_path_factory.mktemp("trained") / "run"))


@pytest.fixture(scope="module")
def found(trained):
    return json.loads((trained / "results.json").read_text())["deployment"]


@pytest.fixture
def opened(browser, trained):
    """`opened(width, scheme)` opens the report of a trained run, which must not complain until the test is over."""
    browser.get_log("browser")
    yield partial(open_page, browser, trained / "report.html")
    assert browser.get_log("browser") == []


def shown(driver):
    """What the section says now: raw figures, what is read, what leaves when, where the plots mark the point."""
    return driver.execute_script(
        """
        const box = document.getElementById("chooser");
        const of = name => box.querySelector(`[data-figure=${name}]`);
        const marked = name => document.getElementById("plot-deployment_" + name).data.at(-1);
        return {
          raw: ["accuracy", "mean_exit", "energy_pj"].map(name => Number(of(name).dataset.value)),
          text: ["accuracy", "mean_exit", "energy_pj"].map(name => of(name).textContent),
          leaving: [...box.querySelectorAll("[data-metric=leaving]")].map(e => Number(e.dataset.value)),
          bars: [...box.querySelectorAll(".bar")].map(e => e.getBoundingClientRect().width / e.parentElement.clientWidth),
          exits: Object.fromEntries([...box.querySelectorAll("img")].map(
            e => [e.alt.match(/sample (\\d+)/)[1], Number(e.closest("tr").dataset.row)])),
          said: document.getElementById("chooser-said").textContent,
          valuetext: document.getElementById("chooser-threshold").getAttribute("aria-valuetext"),
          index: Number(document.getElementById("chooser-threshold").value),
          code: document.getElementById("chooser-code").textContent,
          latency: [marked("latency").x[0], marked("latency").y[0]],
          energy: [marked("energy").x[0], marked("energy").y[0]],
        };
        """
    )


def check(now, policy, point, saved, energies):
    """What is shown is the point of results.json, and what the logits alone give."""
    times, accuracy, mean_exit, leaving = replay(
        saved["logits"].numpy(), saved["targets"].numpy(), policy, point["threshold"]
    )
    spent = sum(sum(energies[:t]) for t in times) / len(times)
    assert now["raw"] == [point["accuracy"], point["mean_exit"], point["energy_pj"]]
    assert now["raw"] == pytest.approx([accuracy, mean_exit, spent], rel=1e-9)
    assert now["leaving"] == point["leaving"] == pytest.approx(leaving, abs=1e-12)
    assert len(now["exits"]) == 12
    assert now["exits"] == {index: times[int(index)] for index in now["exits"]}
    # a reader's figures: percent, timesteps, nanojoules
    assert [float(re.sub(r" %$", "", text)) for text in now["text"]] == pytest.approx(
        [100 * accuracy, mean_exit, spent / 1000], abs=0.051
    )
    assert now["latency"] == pytest.approx([mean_exit, 100 * accuracy])
    assert now["energy"] == pytest.approx([spent / 1000, 100 * accuracy])
    threshold = "inf" if point["threshold"] is None else f"{point['threshold']:g}"
    assert now["valuetext"] == threshold
    assert now["said"].startswith(f"{policy}, threshold {threshold}: {100 * point['accuracy']:.2f} % right after ")
    assert f'"{policy}", threshold={"float(" if threshold == "inf" else threshold}' in now["code"]


@pytest.mark.parametrize("policy", ["entropy", "margin"])
def test_ten_positions_by_keyboard_show_the_figures_of_the_results_and_of_the_logits(opened, found, trained, policy):
    driver, saved = opened(), load_file(trained / "logits.safetensors")
    energies, points = found["energy"]["total_pj"], found["policies"][policy]
    select = driver.find_element("id", "chooser-policy")
    driver.execute_script("arguments[0].focus()", select)
    select.send_keys(policy[0])  # a letter chooses the option that begins with it
    assert Select(select).first_selected_option.text == policy
    select.send_keys(Keys.TAB)
    slider = driver.switch_to.active_element
    assert slider.get_attribute("id") == "chooser-threshold"
    assert slider.accessible_name == "Threshold"
    steps = [
        Keys.HOME,
        *[Keys.ARROW_RIGHT] * 4,
        Keys.PAGE_UP,
        Keys.ARROW_UP,
        Keys.ARROW_LEFT,
        Keys.END,
        Keys.ARROW_LEFT,
    ]
    seen = []
    for key in steps:
        slider.send_keys(key)
        now = shown(driver)
        check(now, policy, points[now["index"]], saved, energies)
        seen.append(now["index"])
    assert seen[:5] == [0, 1, 2, 3, 4]
    assert seen[6] == seen[5] + 1 == seen[7] + 1
    assert seen[8:] == [len(points) - 1, len(points) - 2]


def test_another_policy_goes_on_at_the_latency_that_was_looked_at(opened, found):
    driver = opened()
    slider, select = (driver.find_element("id", f"chooser-{name}") for name in ("threshold", "policy"))
    driver.execute_script("arguments[0].focus()", slider)
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 20)
    latency = shown(driver)["raw"][1]
    for policy in ("stability", "margin"):  # stability has few points and must not change what is looked for
        Select(select).select_by_visible_text(policy)
        index = shown(driver)["index"]
        away = [abs(point["mean_exit"] - latency) for point in found["policies"][policy]]
        assert index == away.index(min(away))
        assert slider.get_attribute("max") == str(len(away) - 1)


def test_the_bars_are_as_long_as_the_shares_and_changes_are_announced(opened):
    driver = opened()
    now = shown(driver)
    assert now["bars"] == pytest.approx(
        [share * now["bars"][0] / now["leaving"][0] for share in now["leaving"]], abs=0.01
    )
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {
        node["role"]["value"]: node
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in ("slider", "status")
    }
    assert roles["slider"]["name"]["value"] == "Threshold"
    live = {entry["name"]: entry["value"]["value"] for entry in roles["status"]["properties"]}
    assert live["live"] == "polite"


def test_the_lines_of_python_do_what_the_page_says(opened, trained):
    driver = opened()
    slider = driver.find_element("id", "chooser-threshold")
    driver.execute_script("arguments[0].focus()", slider)
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 25)
    now = shown(driver)
    done = subprocess.run([sys.executable, "-c", now["code"]], cwd=trained, capture_output=True, text=True, check=True)
    _, accuracy, _, timesteps = done.stdout.split()
    samples = len(load_file(trained / "logits.safetensors")["targets"])
    # a score next to the threshold may fall to the other side in smaller batches
    assert [float(accuracy), float(timesteps)] == pytest.approx(now["raw"][:2], abs=2.5 / samples)


@pytest.mark.parametrize("width", [360, 768])
def test_the_page_never_scrolls_sideways(opened, width):
    driver = opened(width)
    check_fits(driver, width, within="#deployment")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_controls_text_and_bars_stand_out_in_both_colour_schemes(opened, scheme):
    driver = opened(scheme=scheme)
    background, select, text, bars = driver.execute_script(
        RELATIVE_LUMINANCE
        + """
        const style = query => [...document.querySelectorAll("#chooser " + query)].map(e => getComputedStyle(e));
        return [
          luminance(page),
          contrast(style("select")[0].color, style("select")[0].backgroundColor),
          Math.min(...style("label, output, dt, dd, td, th, caption, figcaption, code").map(s => contrast(s.color, page))),
          Math.min(...style(".bar").map(s => contrast(s.backgroundColor, page))),
        ];
        """
    )
    assert background < 0.05 if scheme == "dark" else background > 0.8
    assert min(select, text) >= 4.5
    assert bars >= 3


def test_the_plots_keep_the_mark_when_the_colours_change(opened):
    driver = opened(scheme="light")
    slider = driver.find_element("id", "chooser-threshold")
    driver.execute_script("arguments[0].focus()", slider)
    slider.send_keys(Keys.HOME)
    before = shown(driver)
    colour_scheme(driver, "dark")
    driver.execute_async_script(
        "requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(arguments[0], 300)))"
    )
    now = shown(driver)
    assert (now["latency"], now["energy"]) == (before["latency"], before["energy"])
    assert now["latency"][0] == 1.0
