"""The part of a track on the page, and the finished video."""

import httpx
import pytest
from page_visit import CHROMIUM, DRIVER
from test_page import AXE, find_faults

from vmnet_pipeline.demo import Mood, make_clip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here"),
]


@pytest.fixture(scope="module")
def long_tracks(service, places):
    """All tracks of the gallery are 16 s of one song with clear beats."""
    path = make_clip(places.media_roots[0] / "beats.mp3", mood=Mood(energy=0.95), duration_s=16.0)
    files = service.state.gallery.files["music"]
    before = dict(files)
    files.update(dict.fromkeys(files, path))
    yield path
    files.update(before)


@pytest.fixture
def with_part(page, sounding, long_tracks):
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})  # of the tracks of other tests
    page.send(sounding)
    page.wait(lambda: page.one("#passage").is_displayed(), 120)
    yield page
    page.driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": False})


def read_start(page):
    return float(page.one("#slider").get_attribute("aria-valuenow"))


def test_the_part_is_drawn_and_plays_from_its_beginning_in_sync(with_part):
    from selenium.webdriver.common.keys import Keys

    page = with_part
    words = page.one("#passage-words").text
    assert words.startswith("Chosen part, ") and "of 0:16: " in words and "BPM" in words
    assert page.run("return wave.querySelector('path').getBoundingClientRect().width") > 100
    assert page.run("return document.querySelectorAll('#lines path').length") == 2
    slider = page.one("#slider")
    slider.send_keys(Keys.END)
    last = read_start(page)
    film = page.run("return picture.duration")
    assert last == pytest.approx(16 - film, abs=0.4)
    page.one("#play").click()
    page.wait(lambda: page.run("return picture.currentTime > 0.4 && !sound.seeking"))
    music, picture = page.run("return [sound.currentTime, picture.currentTime]")
    assert music - picture == pytest.approx(last, abs=0.4)
    slider.send_keys(Keys.HOME)
    assert read_start(page) == 0
    page.wait(lambda: page.run("return sound.currentTime < 5"))


def test_the_part_is_moved_by_bars_and_dragged(with_part):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page = with_part
    slider = page.one("#slider")
    slider.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    first = read_start(page)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert first > 0 and read_start(page) > first
    assert "on a bar line" in page.one("#passage-words").text or "section" in page.one("#passage-words").text
    assert page.one("#passage-words").text.startswith(("Your part", "Chosen part"))
    page.run("slider.scrollIntoView({block: 'center'})")
    before, width = read_start(page), page.run("return slider.offsetWidth")
    box = "const part = document.getElementById('window').getBoundingClientRect();"
    x, y = page.run(f"{box} return [part.left + part.width / 2, part.top + part.height / 2]")
    actions = ActionChains(page.driver)
    actions.w3c_actions.pointer_action.move_to_location(int(x), int(y)).pointer_down().move_to_location(
        int(x + width / 4), int(y)
    ).pointer_up()
    actions.perform()
    assert read_start(page) == pytest.approx(before + 4.0, abs=0.5)


def test_louder_tracks_are_turned_down(with_part):
    page = with_part
    gain = page.run("return sound.volume")
    assert 0 < gain < 1
    page.change("#volume", "0.5")
    assert page.run("return sound.volume") == pytest.approx(gain / 2, abs=0.01)


def test_the_video_is_made_and_can_be_taken_away(with_part, live):
    from selenium.webdriver.common.keys import Keys

    page = with_part
    page.one("#slider").send_keys(Keys.END)
    start = read_start(page)
    page.run("document.getElementById('own-mode').value = 'mute'")
    page.one("#render").send_keys(Keys.ENTER)
    page.wait(lambda: "Making the video" in page.one("#render-status").text or page.all("#render-files a"))
    page.wait(lambda: page.all("#render-files a"), 120)
    assert page.one("#render-status").text.startswith("Done: ")
    links = [link.get_attribute("href") for link in page.all("#render-files a")]
    video, timeline, credits = (httpx.get(link) for link in links)
    assert video.status_code == 200 and len(video.content) > 1000
    music = next(track for track in timeline.json()["tracks"]["children"] if track["name"] == "A2")
    ranges = [clip["source_range"]["start_time"] for clip in music["children"] if "source_range" in clip]
    assert ranges[0]["value"] / ranges[0]["rate"] == pytest.approx(start, abs=0.1)
    assert credits.text.startswith('Music: "Clip ')
    page.all("#results .answer")[1].click()  # another choice: what was made for the first one is gone
    page.wait(lambda: not page.all("#render-files a"))
    assert page.complaints() == []


def test_making_is_cancelled(with_part, service, monkeypatch):
    page = with_part
    page.one("#render").click()
    page.wait(lambda: page.one("#render-work button").is_displayed())
    page.wait(lambda: "Making" in page.one("#render-status").text or "Waiting" in page.one("#render-status").text)
    page.one("#render-work button").click()
    assert page.one("#render-status").text == "Cancelled."
    page.wait(lambda: not any(job.is_open for job in service.renders._jobs.values()))
    assert "cancelled" in {job.state for job in service.renders._jobs.values()}
    assert page.one("#render").is_enabled()


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here")
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_about_the_part(with_part, width):
    page = with_part
    page.resize(width, 757, mobile=width < 500)
    assert find_faults(page) == []


def test_no_sideways_scrolling_on_a_phone(with_part):
    page = with_part
    page.resize(390, 844, mobile=True)
    page.run("document.getElementById('passage').scrollIntoView()")
    assert page.run("return document.documentElement.scrollWidth") <= 390
    page.keep_picture("phone-part")
