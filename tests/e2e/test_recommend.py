"""From the demo run to recommendations, as a person types it."""

import json

import pytest

pytestmark = pytest.mark.slow


def test_a_video_finds_music_and_music_finds_videos(demo_project):
    demo_project.kedro("run", "--pipelines=embed,index")
    media = demo_project.folder / "data/01_raw/demo"
    video, music = sorted((media / "video").iterdir())[0], sorted((media / "audio").iterdir())[0]
    table = demo_project.kedro("recommend", str(video), "--top-k", "5")
    lines = [line for line in table.splitlines() if line[:1].isdigit()]
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "5"]
    output = demo_project.kedro("recommend", "--music", str(music), "--json", "--filter", "duration<100")
    answer = json.loads(output[output.index("{") :])
    assert len(answer["results"]) == 10
    assert all(item["metadata"]["duration_s"] < 100 and item["metadata"]["tags"] for item in answer["results"])
