"""Errors printed as one sentence."""

import errno

from kedro.validation.exceptions import ParameterValidationError

from vmnet_pipeline.errors import StorageError
from vmnet_pipeline.hooks import error_messages


def test_what_kedro_refuses_is_said_without_a_traceback(capsys):
    epochs = "- Parameter 'train': epochs\n  Input should be an integer"
    for error, expected in [
        (
            ParameterValidationError(f"{epochs}\n    For further information visit https://errors.pydantic.dev/2/v/x"),
            f"ParameterError: {epochs}\n(",
        ),
        (
            ValueError("Failed to find the pipeline named 'trian'. Did you mean one of these instead?\n    train"),
            "There is no pipeline trian. Did you mean train? `kedro registry list` lists all.",
        ),
    ]:
        error_messages._print_error(type(error), error, None)
        assert expected in capsys.readouterr().err
    error_messages._print_error(ValueError, ValueError("another"), None)
    assert "ValueError: another" in capsys.readouterr().err


def test_a_full_disk_is_an_error_of_the_project_wherever_it_is_met():
    try:
        raise RuntimeError("Failed while saving to a.json") from OSError(errno.ENOSPC, "No space left on device")
    except RuntimeError as error:
        own = error_messages.find_own_error(error)
    assert isinstance(own, StorageError)
    assert "a.json" in str(own)
    assert "Free some space" in str(own)
    assert error_messages.find_own_error(ValueError("something else")) is None
