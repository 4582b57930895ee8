"""Searching on the page: state in the address, the library, one upload for all questions, reasons."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from page_visit import CHROMIUM, DRIVER, Visit

from cover_files import draw, write_track
from vmnet_pipeline.demo import make_clip
from vmnet_pipeline.search.vector_index import VectorIndex
from vmnet_pipeline.serving import app
from vmnet_pipeline.serving.worker import Answer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here"),
]


@pytest.fixture
def many_tracks(service):
    """40 tracks of 20 songs."""
    before, rng = service.state, np.random.default_rng(0)
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"t{place:02d}" for place in range(40)]
    songs = [f"song{place % 20}" for place in range(40)]
    items = pd.DataFrame({"id": ids, "title": ids, "group": songs, "bpm": np.linspace(60.0, 180.0, 40)})
    old = before.gallery.sides["music"]
    index = VectorIndex.build(vectors, items, about=old.index.about)
    places = {item_id: place for place, item_id in enumerate(ids)}
    side = dataclasses.replace(old, index=index, vectors=vectors, rows=places, positions=places)
    gallery = dataclasses.replace(before.gallery, sides={**before.gallery.sides, "music": side})
    service.state = before._replace(gallery=gallery)
    yield items.set_index("id")["group"]
    service.state = before


def test_one_answer_of_each_group_and_ten_more(many_tracks, page):
    page.change("#library-side", "video")
    page.run("document.getElementById('library-side').dispatchEvent(new Event('change'))")
    page.wait(lambda: page.one("#library-count").text.startswith("6 of 6 videos"))
    page.all("#library-items .entry")[0].click()
    page.wait(lambda: len(page.all("#results li")) == 10)
    first = page.names()
    assert many_tracks[first].is_unique
    page.one("#ten").click()
    page.wait(lambda: len(page.all("#results li")) == 20)
    assert page.names()[:10] == first and many_tracks[page.names()].is_unique
    page.one("#ten").click()
    page.wait(lambda: not page.one("#ten").is_displayed())
    page.one("#one").click()
    page.wait(lambda: page.one("#ten").is_displayed())
    assert not many_tracks[page.names()].is_unique
    page.change("#filters [name='bpm>=']", "150")
    page.wait(lambda: len(page.all("#results li")) == 10 and all(name >= "t30" for name in page.names()))


def test_variety_changes_the_order_as_the_service_has_it(many_tracks, page, client):
    page.driver.get(f"{page.address}/#item=0001&query=video&all=1")
    page.wait(lambda: len(page.all("#results li")) == 10)
    plain = page.names()
    page.change("#variety", "0.9")
    expected = client.post("/v1/recommendations", json={"id": "0001", "variety": 0.9}).json()["results"]
    page.wait(lambda: page.names() == [item["id"] for item in expected])
    assert page.names() != plain


def count_uploads(page):
    return page.run(
        "return performance.getEntriesByType('resource').filter(({name}) => name.endsWith('v1/uploads')).length"
    )


def test_the_other_direction_uses_the_upload_that_is_there(page, sounding):
    page.send(sounding)
    title = page.one("#stage-title").text
    page.one("input[value=music]").click()
    page.wait(lambda: page.one("#answers-title").text == "The videos that fit best")
    page.wait(lambda: page.run("return [...document.querySelectorAll('.thumbnail')].some((frame) => frame.videoWidth)"))
    assert count_uploads(page) == 1
    page.one("input[value=video]").click()
    page.wait(lambda: page.one("#answers-title").text == "The music that fits best")
    assert count_uploads(page) == 1 and page.one("#stage-title").text == title


def test_a_direction_that_the_upload_does_not_have_leaves_what_was_there(page, tmp_path):
    page.send(make_clip(tmp_path / "silent.mp4", duration_s=1.0, with_audio=False))
    names = page.names()
    page.one("input[value=music]").click()
    page.wait(lambda: page.one("#error").text == "This has no audio.")
    assert page.one("input[value=video]").is_selected()
    assert page.names() == names and page.one("#answers-title").text == "The music that fits best"


def test_an_item_is_asked_in_the_other_direction_too(page):
    page.driver.get(f"{page.address}/#item=0002&query=video")
    page.wait(lambda: page.one("#answers-title").text == "The music that fits best")
    page.one("input[value=music]").click()
    page.wait(lambda: page.one("#answers-title").text == "The videos that fit best")
    assert "item=0002&query=music" in page.driver.current_url


def test_sending_tells_its_size_and_can_be_cancelled(page, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(bytes(3 << 20))
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    try:
        page.one("#file").send_keys(str(tmp_path / "clip.mp4"))
        page.wait(lambda: "of 3.1 MB" in page.one("#status").text and 0 < page.run("return progress.value") < 1)
        page.one("#cancel").click()
        page.wait(lambda: not page.one("#work").is_displayed())
        assert page.one("#status").text == "" and not page.one("#error").is_displayed()
        assert not page.one("#answers").is_displayed()
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})


def test_reload_and_back_restore_what_was_there(with_results):
    page = with_results
    page.all("#results .answer")[2].click()
    page.change("#filters [name='tags=']", "rock")
    page.wait(lambda: len(page.all("#results li")) == 3)
    names = page.names()
    page.driver.refresh()
    page.wait(lambda: len(page.all("#results li")) == 3)
    assert page.names() == names and page.one("#stage-title").text.startswith("0001.")
    assert page.one("#filters [name='tags=']").get_attribute("value") == "rock"
    page.all("#results .like")[0].click()
    page.wait(lambda: page.one("#answers-title").text == f"More like {names[0]}")
    page.one("#back").click()
    page.wait(lambda: page.one("#answers-title").text == "The music that fits best")
    page.wait(lambda: page.names() == names)


def test_a_link_to_an_item_is_shared(page, browser):
    page.driver.get(f"{page.address}/#item=0002&query=music&pick=0004&all=1")
    page.wait(lambda: page.all("#results li"))
    link, names = page.driver.current_url, page.names()
    browser.get("about:blank")
    other = Visit(browser, link)
    other.wait(lambda: other.names() == names)
    assert other.one("#answers-title").text == "The videos that fit best"
    picked = other.all("#results .answer[aria-pressed=true] .name")
    assert [name.text for name in picked] == ["Clip 0004"]
    browser.get("about:blank")
    gone = Visit(browser, f"{page.address}/#item=nobody&query=video")
    gone.wait(lambda: gone.one("#error").text == "No item has this id.")
    browser.get("about:blank")
    old = Visit(browser, f"{page.address}/#upload=nothing&query=video")
    old.wait(lambda: "send the file again" in old.one("#error").text)


def test_the_library_is_searched_by_words_and_filters_with_the_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.wait(lambda: len(page.all("#library-items li")) == 6)
    page.run("document.getElementById('library-text').focus()")
    page.driver.switch_to.active_element.send_keys("CLIP 0003")
    page.wait(lambda: page.one("#library-count").text.startswith("1 of 1 tracks"))
    for _ in range(2):  # the summary of the filters is in between
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: page.one("#stage-title").text == "Clip 0003" and page.all("#results li"))
    page.run("document.querySelector('.answer').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait(lambda: page.run("return !picture.paused && sound.currentTime > 0"))
    page.change("#library-text", "")
    page.change("#library-filters [name='tags=']", "ambient")
    page.wait(lambda: page.one("#library-count").text.startswith("3 of 3 tracks"))


def test_tracks_show_the_covers_in_their_files(page, service, places):
    path = write_track(places.media_roots[0] / "shown.mp3", draw("PNG"), "png")
    files = service.state.gallery.files["music"]
    before, files["0002"] = files["0002"], path
    try:
        page.driver.refresh()
        page.wait(lambda: page.all("#library-items .cover.there"))
        (row,) = [row for row in page.all("#library-items li") if row.find_elements("css selector", ".there")]
        assert row.find_element("css selector", ".name").text == "Clip 0002"
        assert page.complaints() == []
    finally:
        files["0002"] = before


def test_reasons_come_after_the_answers(page, manifest, monkeypatch):
    ask = app._embed

    async def explain(task, params, state):
        if task.explains and task.ids:
            return Answer(reasons=tuple(f"both slow {item_id}" if item_id != "0001" else "" for item_id in task.ids))
        return await ask(task, params, state)

    monkeypatch.setattr(app, "_embed", explain)
    page.send(manifest.loc["0001", "video_path"])
    page.wait(lambda: any(text.is_displayed() for text in page.all("#results .reasons")))
    for row in page.all("#results li"):
        reasons, name = row.find_element("css selector", ".reasons"), row.find_element("css selector", ".name").text
        assert reasons.text == ("" if name == "Clip 0001" else f"Why: both slow {name.removeprefix('Clip ')}")
