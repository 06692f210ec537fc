from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator, ValidationError

from runlane_worker.errors import RETRYABLE
from support import probe, schemas, validate


@pytest.mark.parametrize("name", sorted(schemas))
def test_a_schema_is_valid_and_its_examples_fit(name: str) -> None:
    Draft202012Validator.check_schema(schemas[name])
    for example in schemas[name].get("examples", []):
        validate(name.removesuffix(".json"), example)


def test_the_schema_knows_exactly_the_workers_error_codes() -> None:
    assert set(schemas["common.json"]["$defs"]["errorCode"]["enum"]) == set(RETRYABLE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("job-probe", {**probe(), "attempt": 0}),
        ("job-probe", {**probe(), "model": {"id": "noslash"}}),
        ("result", {"v": 1, "type": "result", "jobId": "j"}),
        ("result", {"v": 2, "type": "result", "jobId": "j", "analysis": {"coverage": {}, "warnings": []}}),
        ("error", {"v": 1, "type": "error", "jobId": "j", "error": {"code": "nope"}, "usage": None}),
        ("hello", {"v": 1, "type": "hello", "pid": 1}),
        ("cancel", {"v": 1, "type": "cancel"}),
    ],
)
def test_a_schema_refuses_what_is_wrong(name: str, message: object) -> None:
    with pytest.raises(ValidationError):
        validate(name, message)  # type: ignore[arg-type] # wrong on purpose
