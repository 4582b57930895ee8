"""Requests made from the service's own description, valid and not: no 5xx, and nothing that it does not describe."""

import pytest

N_EXAMPLES = 12


@pytest.fixture(scope="module")
def openapi_requests():
    """The module that draws requests; it takes seconds to import, and one worker of all needs it."""
    import openapi_requests

    return openapi_requests


@pytest.fixture(scope="module")
def schema(openapi_requests, live):
    return openapi_requests.read_schema(live)


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_answers_are_those_of_the_description(openapi_requests, schema, live, service, mode):
    known_ids = list(service.state.gallery.sides["music"].positions)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 18
    statuses = []
    for operation in operations:
        statuses += openapi_requests.check_operation(operation, mode, live, N_EXAMPLES, known_ids)
    assert len(statuses) > 30
    assert not [status for status in statuses if status >= 500 and status != 504]
    if mode == "positive":
        assert 200 in statuses
    else:
        assert {404, 422} & {*statuses}
    assert list(service.uploads.path.iterdir()) == []
