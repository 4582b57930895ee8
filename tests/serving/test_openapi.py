"""Requests made from the service's own description, valid and not: no 5xx, and nothing that it does not describe."""

import contextlib

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
N_EXAMPLES = 12


def check_operation(operation, mode, base_url, n_examples, known_ids=()):
    """Ask one operation in drawn ways; the statuses of the answers."""
    statuses = []

    @hypothesis.settings(
        max_examples=n_examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), place=hypothesis.strategies.integers(0, 10**6))
    def check(case, place):
        if known_ids and place % 2 and "item_id" in (case.path_parameters or {}):
            case.path_parameters["item_id"] = known_ids[place % len(known_ids)]
        response = case.call(base_url=base_url)
        statuses.append(response.status_code)
        case.validate_response(response, checks=list(CHECKS))

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong where nothing can be said
        check()
    return statuses


@pytest.fixture(scope="module")
def schema(live):
    return schemathesis.openapi.from_url(f"{live}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_answers_are_those_of_the_description(schema, live, service, mode):
    known_ids = list(service.state.gallery.sides["music"].positions)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 5
    statuses = []
    for operation in operations:
        statuses += check_operation(operation, mode, live, N_EXAMPLES, known_ids)
    assert len(statuses) > 30
    assert not [status for status in statuses if status >= 500 and status != 504]
    if mode is GenerationMode.POSITIVE:
        assert 200 in statuses
    else:
        assert {404, 422} & {*statuses}
    assert list(service.uploads.path.iterdir()) == []
