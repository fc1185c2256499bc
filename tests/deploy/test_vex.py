"""security/distilgpt2-api.openvex.json: which known vulnerabilities of the image's packages do not affect it, and why.

The schema has the rules of OpenVEX 0.2.0 for the fields that we use, and ours: a statement names packages and a reason.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

DOCUMENT: Any = json.loads(
    (Path(__file__).parents[2] / "security" / "distilgpt2-api.openvex.json").read_text(encoding="utf-8")
)
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}


def component(purl: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["@id", "identifiers", *more],
        "additionalProperties": False,
        "properties": {
            "@id": {"type": "string", "pattern": purl},
            "identifiers": {
                "type": "object",
                "required": ["purl"],
                "additionalProperties": False,
                "properties": {"purl": {"type": "string", "pattern": purl}},
            },
            **more,
        },
    }


PACKAGES = {
    "type": "array",
    "minItems": 1,
    "uniqueItems": True,
    "items": component(r"^pkg:(deb/debian|pypi)/[a-z0-9.+-]+$"),
}
STATEMENT = {
    "type": "object",
    "required": ["vulnerability", "products", "status", "status_notes"],
    "additionalProperties": False,
    "properties": {
        "vulnerability": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {"name": {"type": "string", "pattern": r"^(CVE-\d{4}-\d{4,}|GHSA(-[a-z0-9]{4}){3})$"}},
        },
        "timestamp": TIME,
        "products": {
            "type": "array",
            "minItems": 1,
            # Without a version or registry: every image of ours, wherever it is kept.
            "items": component(r"^pkg:oci/distilgpt2-api$", subcomponents=PACKAGES),
        },
        "status": {"enum": ["not_affected", "affected", "fixed", "under_investigation"]},
        "status_notes": {"type": "string", "minLength": 40},
        "justification": {
            "enum": [
                "component_not_present",
                "vulnerable_code_not_present",
                "vulnerable_code_not_in_execute_path",
                "vulnerable_code_cannot_be_controlled_by_adversary",
                "inline_mitigations_already_exist",
            ]
        },
        "action_statement": {"type": "string", "minLength": 20},
    },
    "allOf": [
        {"if": {"properties": {"status": {"const": "not_affected"}}}, "then": {"required": ["justification"]}},
        {"if": {"properties": {"status": {"const": "affected"}}}, "then": {"required": ["action_statement"]}},
    ],
}
SCHEMA = {
    "type": "object",
    "required": ["@context", "@id", "author", "timestamp", "version", "statements"],
    "additionalProperties": False,
    "properties": {
        "@context": {"const": "https://openvex.dev/ns/v0.2.0"},
        "@id": {"type": "string", "pattern": "^https://"},
        "author": {"type": "string", "minLength": 1},
        "role": {"type": "string"},
        "timestamp": TIME,
        "last_updated": TIME,
        "version": {"type": "integer", "minimum": 1},
        "statements": {"type": "array", "minItems": 1, "uniqueItems": True, "items": STATEMENT},
    },
}


def test_the_document_follows_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DOCUMENT, SCHEMA)


def test_an_identifier_is_its_package_url() -> None:
    for statement in DOCUMENT["statements"]:
        for product in statement["products"]:
            for part in (product, *product["subcomponents"]):
                assert part["@id"] == part["identifiers"]["purl"]


def test_a_vulnerability_has_one_statement() -> None:
    names = [statement["vulnerability"]["name"] for statement in DOCUMENT["statements"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("field", ["justification", "status_notes", "vulnerability"])
def test_a_statement_without_a_reason_is_refused(field: str) -> None:
    broken = json.loads(json.dumps(DOCUMENT))
    del broken["statements"][0][field]
    with pytest.raises(jsonschema.ValidationError, match=re.escape(field)):
        jsonschema.validate(broken, SCHEMA)
