"""The player of the page: the video is the timeline."""

import pytest
from page_visit import CHROMIUM, DRIVER

from vmnet_pipeline.demo import make_clip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its driver here"),
]
LENGTHS = "return [picture.duration, sound.duration]"


def pick(page, longer):
    """Play the music that is longer, or shorter, than the video; their lengths."""
    for button in page.all("#results .answer"):
        button.click()
        page.wait(lambda: page.run("return picture.duration && sound.duration && !picture.paused"))
        film, track = page.run(LENGTHS)
        if (track > film) is longer and abs(track - film) > 0.15:
            return film, track
    raise AssertionError("no such track")


@pytest.fixture
def all_answers(page, manifest):
    """Music for the shortest video."""
    return show_all(page, manifest, 0)


def show_all(page, manifest, place):
    page.send(manifest.sort_values("video_duration_s")["video_path"].iloc[place])
    page.one("#one").click()
    page.wait(lambda: len(page.all("#results li")) == len(manifest))
    return page


def test_longer_music_ends_with_the_video_which_is_not_repeated(all_answers):
    page = all_answers
    film, _ = pick(page, longer=True)
    page.run("window.jumps = 0; picture.addEventListener('seeking', () => jumps++)")
    page.wait(lambda: page.run("return picture.ended && sound.paused"))
    assert page.run("return jumps") == 0
    assert page.run("return sound.currentTime") == pytest.approx(film, abs=0.4)
    assert float(page.one("#seek").get_attribute("max")) == pytest.approx(film, abs=0.01)
    assert page.one("#clock").text.endswith(f"/ 0:0{int(film)}")
    assert page.one("#play").text == "Play"


def test_shorter_music_repeats_until_the_end_of_the_video(page, manifest):
    show_all(page, manifest, -1)
    film, track = pick(page, longer=False)
    page.change("#seek", str((film + track) / 2))
    page.wait(lambda: not page.run("return sound.seeking || picture.seeking"))
    assert page.run("return sound.currentTime") < 0.6  # it has begun again
    assert page.run("return picture.currentTime") > track
    page.change("#seek", str(track - 0.1))
    page.wait(lambda: page.run("return picture.ended"))
    assert page.run("return picture.currentTime") == pytest.approx(film, abs=0.1)


def test_own_sound_and_music_change_at_the_same_place(page, sounding):
    page.send(sounding)
    page.all("#results .answer")[1].click()
    page.wait(lambda: page.run("return sound.currentTime > 0.1"))
    page.one("#own").click()
    own = "document.getElementById('own-sound')"
    page.wait(lambda: page.run(f"return {own}.currentTime > 0.1 && !{own}.paused && sound.paused && !picture.paused"))
    assert page.run(f"return Math.abs({own}.currentTime - picture.currentTime)") < 0.4
    assert page.run(f"return {own}.src.startsWith('blob:')")
    page.one("#own").click()
    page.wait(lambda: page.run(f"return {own}.paused && !sound.paused"))
    assert page.complaints() == []


def test_own_sound_is_offered_only_where_there_is_one(page, tmp_path, sounding):
    page.send(make_clip(tmp_path / "silent.mp4", duration_s=1.0, with_audio=False))
    assert not page.one("#ab").is_displayed()
    page.send(sounding)
    page.wait(lambda: page.one("#ab").is_displayed())
    page.one("input[value=music]").click()  # that of each video found
    page.wait(lambda: page.one("#answers-title").text == "The videos that fit best" and page.one("#ab").is_displayed())


def test_volume_and_mute_hold_for_both_sounds(page, sounding):
    page.send(sounding)
    page.change("#volume", "0.3")
    assert page.run("return sound.volume") == pytest.approx(0.3)
    page.one("#mute").click()
    page.one("#own").click()
    assert page.run("return sound.muted && document.getElementById('own-sound').muted")
    page.change("#volume", "0.5")
    assert not page.run("return sound.muted")


def test_full_screen_has_the_controls(all_answers):
    page = all_answers
    page.one("#full").click()
    page.wait(lambda: page.run("return document.fullscreenElement === stage"))
    assert page.one("#play").is_displayed()
    page.wait(lambda: page.one("#full").text == "Leave full screen")
    page.one("#full").click()
    page.wait(lambda: not page.run("return document.fullscreenElement"))


def test_on_a_phone_the_player_becomes_a_bar(all_answers):
    page = all_answers
    page.resize(390, 844, mobile=True)
    page.run("results.lastElementChild.scrollIntoView()")
    page.wait(lambda: page.run("return stage.classList.contains('mini')"))
    box = page.run("const {top, bottom, height} = stage.getBoundingClientRect(); return [top, bottom, height]")
    assert box[1] == pytest.approx(844, abs=1) and box[2] < 140
    page.keep_picture("phone-bar")
    page.one("#play").click()
    page.wait(lambda: page.run("return !picture.paused"))
    assert page.run("return document.documentElement.scrollWidth") <= 390
    page.run("scrollTo(0, 0)")
    page.wait(lambda: not page.run("return stage.classList.contains('mini')"))


@pytest.mark.parametrize("n_results", [1, 6])
def test_at_a_low_height_the_player_covers_nothing(all_answers, n_results):
    page = all_answers
    page.resize(1280, 757)
    if n_results == 1:
        page.change("#filters [name='tags=']", "rock")
        page.one("#one").click()
        page.change("#filters [name='group=']", "song0")
        page.wait(lambda: len(page.all("#results li")) == 1)
    for name in ("library-title", "map-title"):
        page.run(f"document.getElementById('{name}').scrollIntoView({{block: 'center'}})")
        script = (
            f"const box = document.getElementById('{name}').getBoundingClientRect();"
            "return document.elementFromPoint(box.left + 5, box.top + 5).id"
        )
        assert page.run(script) == name
    page.keep_picture(f"desktop-low-{n_results}")
