"""Lines that the service writes."""

FORGED = "x\n2026-01-01 00:00:00 ERROR forged \x1b[31m line\r\t\x00\x7f\u2028"


def test_lines_of_the_operator_are_one_line():
    from vmnet_pipeline.serving.errors import write_line

    line = write_line(FORGED)
    assert line.isprintable()
    assert "forged" in line
    assert len(write_line("a" * 10_000)) < 1100
