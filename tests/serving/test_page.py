"""The page in a headless Chromium: what a person does with it, at desktop and phone size.

For the check of accessibility, `.peers/axe-core/axe.min.js` is needed (docs/serving.md says how to get it).
"""

from pathlib import Path

import numpy as np
import pytest
from page_visit import CHROMIUM, DRIVER, Visit

from vmnet_pipeline.evaluation.calibration import LEVELS, Calibration

AXE = Path(__file__).parents[2] / ".peers" / "axe-core" / "axe.min.js"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here"),
]


def test_a_video_is_dropped_and_its_music_plays_under_it(with_results):
    page = with_results
    assert page.one("#stage-title").text.startswith("0001.")
    assert len(page.all("#results li")) == 6
    page.all("#results button[aria-pressed]")[2].click()
    page.wait(lambda: page.run("return sound.currentTime > 0.3 && !sound.paused && !picture.paused"))
    pressed = [button.get_attribute("aria-pressed") for button in page.all("#results button[aria-pressed]")]
    assert pressed == ["false"] * 2 + ["true"] + ["false"] * 3
    page.one("#play").click()
    assert page.run("return sound.paused && picture.paused")
    assert page.complaints() == []


def test_a_track_finds_videos(page, manifest):
    page.one("input[value=music]").click()
    page.send(manifest.loc["0002", "audio_path"])
    assert page.one("#answers-title").text == "The videos that fit best"
    page.all("#results button")[0].click()
    page.wait(lambda: page.run("return picture.videoWidth > 0 && sound.currentTime > 0.1"))


def test_the_page_tells_how_likely_an_answer_is_and_that_nothing_fits(page, service, manifest, monkeypatch):
    threshold = {"video_to_music": [{"pool_size": 1, "score": 1.5}]}
    curve = {"slope": 0.0, "tail": 0.0, "intercept": 0.0, "quantiles": [-1.0] * len(LEVELS), "thresholds": threshold}
    figures = {"n_pairs": 30, "mrr": 0.3, "mrr_low": 0.2, "mrr_high": 0.4, "mrr_chance": 0.15}
    about = service.state.gallery.sides["music"].index.about
    monkeypatch.setitem(about, "calibration", Calibration(**figures, curve=curve).model_dump())
    page.send(manifest.loc["0001", "video_path"])
    n_items = len(service.state.gallery.sides["music"].index)
    first = page.all("#results li")[0]
    assert f"fit {100 / n_items:.0f} %" in first.text and "better than 100 %" in first.text
    bar, full = (page.run(f"return document.querySelector('#results .score {name}').offsetWidth") for name in "bi")
    assert bar == pytest.approx(full / n_items, abs=1)  # not the share of the best score
    assert page.one("#explained").is_displayed()
    assert page.one("#remark").text.startswith("Nothing in this library fits")
    page.all("#results .like")[0].click()
    page.wait(lambda: page.one("#answers-title").text.startswith("More like") and page.all("#results li"))
    first = page.all("#results li")[0]
    assert "fit " not in first.text and "similarity " in first.text
    assert not page.all("#results .score i")
    assert not page.one("#explained").is_displayed() and not page.one("#remark").is_displayed()


def test_more_like_an_answer_with_the_same_picture(with_results, service):
    page = with_results
    picture = page.run("return picture.src")
    like = page.all("#results .like")[3].get_attribute("aria-label").removeprefix("more like this: ")
    page.all("#results .like")[3].click()
    page.wait(lambda: page.one("#answers-title").text == f"More like {like}")
    page.wait(lambda: len(page.all("#results li")) == 5)
    names = [name.text for name in page.all("#results .name")]
    music = service.state.gallery.sides["music"]
    ids = list(music.rows)
    scores = music.vectors @ music.vectors[music.rows[like.removeprefix("Clip ")]]
    assert names == [f"Clip {ids[place]}" for place in np.argsort(-scores)[1:]]
    page.all("#results button[aria-pressed]")[0].click()
    page.wait(lambda: page.run("return sound.currentTime > 0.1 && !picture.paused"))
    assert page.run("return picture.src") == picture
    assert page.complaints() == []


def write(page, text):
    field = page.one("#text")
    field.clear()
    field.send_keys(text + "\n")


def test_words_find_music_alone_and_with_a_video(page, manifest):
    ids = sorted(manifest.index)

    def list_names():
        names = page.run("return [...document.querySelectorAll('#results li .name')].map((name) => name.textContent)")
        return [name.removeprefix("Clip ") for name in names]

    page.run("document.getElementById('one').checked = false")
    write(page, "rock, no piano")
    page.wait(lambda: page.all("#results li"))
    page.driver.refresh()  # the address keeps the words
    page.wait(lambda: page.all("#results li"))
    assert page.one("#text").get_attribute("value") == "rock, no piano"
    assert page.one("#answers-title").text == "The music that fits best" and list_names() == ids[::-1]
    page.all("#results button")[0].click()
    page.wait(lambda: page.run("return sound.currentTime > 0.1"))
    assert page.one("#error").text == ""
    write(page, "database schema")
    page.wait(lambda: "not understood" in page.one("#error").text)
    page.one("#file").send_keys(manifest.loc["0001", "video_path"])
    page.wait(lambda: "not understood" in page.one("#error").text and page.one("#stage-title").text.startswith("0001."))
    write(page, "")
    page.wait(lambda: page.one("#error").text == "" and len(page.all("#results li")) == len(ids))
    alone = list_names()
    write(page, "not rock, piano")
    page.wait(lambda: list_names() != alone)
    assert [message for message in page.complaints() if "422" not in message] == []


def test_filters_leave_some(with_results):
    page = with_results
    page.change("#filters [name='tags=']", "rock")
    page.wait(lambda: len(page.all("#results li")) == 3)
    page.change("#filters [name='duration_s<=']", "1")
    page.wait(lambda: page.one("#nothing").is_displayed())
    page.change("#filters [name='duration_s<=']", "")
    page.change("#filters [name='group=']", "song0")
    page.wait(lambda: len(page.all("#results li")) == 1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"words, not a film " * 99, "Not a readable video or audio file"),
        (b"", "empty"),
        (b"x" * (5 << 20), "--set max_upload_mb=5, or use kedro recommend FILE"),
    ],
)
def test_a_bad_file_is_told_in_words(page, tmp_path, content, sentence):
    (tmp_path / "clip.mp4").write_bytes(content)
    page.one("#file").send_keys(str(tmp_path / "clip.mp4"))
    page.wait(lambda: sentence in page.one("#error").text)
    assert not page.one("#work").is_displayed()


def test_a_file_may_be_dropped(page):
    page.run(
        "const data = new DataTransfer(); data.items.add(new File(['words'.repeat(99)], 'a.mp4', {type: 'video/mp4'}));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))"
    )
    page.wait(lambda: "Not a readable video or audio file" in page.one("#error").text)


def test_a_key_is_asked_for_once(browser, places):
    from serving_collection import run_live

    from vmnet_pipeline.serving.config import ServeParams
    from vmnet_pipeline.serving.state import Service

    with run_live(Service(places, ServeParams()), key="open sesame") as address:
        page = Visit(browser, address, wait=False)
        for key in ("wrong", "open sesame"):
            page.wait(lambda: page.one("#door").get_attribute("open"))
            page.wait(lambda: page.one("#key").is_displayed())
            page.run("key.value = ''")
            page.one("#key").send_keys(key)
            page.one("#door button").click()
        page.wait(lambda: page.all("#points path"))
        Visit(browser, address)


def test_the_map_is_used_with_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.run("points.focus()")
    points = page.one("#points")
    points.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.one("#hint").is_displayed()
    active = page.one(f"#{points.get_attribute('aria-activedescendant')}").get_attribute("aria-label")
    points.send_keys(Keys.ENTER)
    page.wait(lambda: page.all("#results li"))
    assert page.one("#stage-title").text in active


def test_a_phone_needs_no_sideways_scrolling(with_results):
    page = with_results
    page.resize(360, 740, mobile=True)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= 360
        page.keep_picture("phone")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.keep_picture("desktop")


def find_faults(page):
    """What axe finds."""
    page.run(AXE.read_text(encoding="utf-8"))
    script = "const done = arguments[arguments.length - 1]; axe.run().then((result) => done(result.violations))"
    violations = page.driver.execute_async_script(script)
    return [(v["id"], [node["html"] for node in v["nodes"]][:3]) for v in violations]


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_axe_finds_nothing_serious(with_results, scheme, width):
    page = with_results
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.resize(width, 757, mobile=width < 500)
    page.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.keep_picture(f"{scheme}-{width}")
    assert find_faults(page) == []


@pytest.mark.parametrize("key", [None, "another key"])
def test_the_page_below_the_path_of_a_proxy(browser, service, live, manifest, key):
    """Everything that it loads, asks and plays is below the path; the proxy does not say that there is one."""
    from live_server import run_with
    from test_proxies import run_silent_proxy

    with run_with(service, key) as port, run_silent_proxy(port) as own:
        browser.get_log("browser")
        page = Visit(browser, f"http://127.0.0.1:{own}/music/", wait=key is None)
        if key:
            page.wait(lambda: page.one("#door").is_displayed())
            page.one("#key").send_keys(key)
            page.one("#door button").click()
            page.wait(lambda: page.all("#points path"))
        page.send(manifest.loc["0001", "video_path"])
        page.all("#results button[aria-pressed]")[1].click()
        page.wait(lambda: page.run("return sound.currentTime > 0.2 && !sound.paused"))
        assert "/music/v1/items/" in page.run("return sound.src")
        page.all("#results .like")[0].click()
        page.wait(lambda: page.one("#answers-title").text.startswith("More like"))
        page.one("#points").send_keys("\ue014\ue007")  # an arrow key and Enter: an item of the map
        page.wait(
            lambda: page.run(
                "return picture.src.includes('/music/v1/items/') || sound.src.includes('/music/v1/items/')"
            )
        )
        loaded = page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert [name for name in loaded if not name.startswith(("blob:", f"http://127.0.0.1:{own}/music/"))] == []
        if key is None:
            assert page.complaints() == []
