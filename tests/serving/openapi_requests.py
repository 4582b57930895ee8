"""Requests drawn from the service's own description by schemathesis."""

import contextlib

import hypothesis
import schemathesis
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


def read_schema(base_url):
    return schemathesis.openapi.from_url(f"{base_url}/openapi.json")


def check_operation(operation, mode, base_url, n_examples, known_ids=()):
    """Ask one operation in drawn ways; the statuses of the answers."""
    strategy = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))
    statuses = []

    @hypothesis.settings(
        max_examples=n_examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=strategy, place=hypothesis.strategies.integers(0, 10**6))
    def check(case, place):
        if known_ids and place % 2 and "item_id" in (case.path_parameters or {}):
            case.path_parameters["item_id"] = known_ids[place % len(known_ids)]
        response = case.call(base_url=base_url)
        statuses.append(response.status_code)
        case.validate_response(response, checks=list(CHECKS))

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong where nothing can be said
        check()
    return statuses
