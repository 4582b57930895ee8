from vmnet_pipeline.params import IngestParams


def test_a_url_stays_one_in_the_parameters(tmp_path):
    assert IngestParams(media_dir="s3://bucket/media").media_dir == "s3://bucket/media"
    assert IngestParams(media_dir=tmp_path).media_dir == str(tmp_path)
