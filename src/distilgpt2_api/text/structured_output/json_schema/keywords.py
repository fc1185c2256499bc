"""The keywords of JSON Schema that constrain a value, and which of them the grammar library supports.

Every other keyword is an annotation or an extension (`title`, `examples`, `readOnly`, `contentEncoding`, `deprecated`,
`discriminator`, `x-…`) and is ignored, as the standard requires.
"""

from typing import Any

JsonSchema = dict[str, Any]
BRANCHES = ("allOf", "anyOf", "oneOf")
MAPS_OF_SCHEMAS = ("properties", "patternProperties")
SCHEMAS = ("additionalProperties", "items", "prefixItems", "additionalItems")
"""Keywords with a schema, or a list of schemas, as their value."""
_SUPPORTED = (
    *BRANCHES,
    *MAPS_OF_SCHEMAS,
    *SCHEMAS,
    *("$ref", "const", "enum", "type", "minItems", "maxItems", "required", "minProperties", "maxProperties"),
    *("minLength", "maxLength", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
)
_UNSUPPORTED = (
    *("$dynamicRef", "$recursiveRef", "not", "if", "contains", "uniqueItems"),
    *("propertyNames", "dependentRequired", "dependentSchemas", "dependencies"),
    *("unevaluatedProperties", "unevaluatedItems"),
    *("extends", "disallow", "divisibleBy"),  # of draft 3
)
KEYWORDS = {**dict.fromkeys(_SUPPORTED, True), **dict.fromkeys(_UNSUPPORTED, False)}
"""Whether the library supports it. `then` and `else` belong to `if`; `minContains` and `maxContains` to `contains`."""
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"),
)


class SchemaError(ValueError):
    """Says which part of a schema can't be followed."""


def is_enforced_format(value: Any) -> bool:
    """Whether the library enforces this format. Any other is an annotation, as in the standard."""
    return not isinstance(value, str) or value in _FORMATS


def constrains(keyword: str, schema: JsonSchema) -> bool:
    """Whether an unsupported keyword has an effect; with a value that allows everything it has none.

    `unevaluatedProperties` and `unevaluatedItems` are supported if they are true or false: they open and close objects
    and lists.
    """
    value = schema[keyword]
    match keyword:
        case "uniqueItems" | "not":
            return value is not False
        case "if":
            return "then" in schema or "else" in schema
        case "unevaluatedProperties" | "unevaluatedItems":
            return not isinstance(value, bool)
        case "propertyNames":
            return value not in (True, {})
        case "dependentRequired" | "dependentSchemas" | "dependencies":
            return bool(value != {})
    return True


def implied_type(schema: JsonSchema) -> JsonSchema:
    """The `type` of a schema that names none: an object if it describes properties, a list if it describes items.

    The standard allows any other type as well, which no author means. Other servers' backends do the same.
    """
    if not {"type", "const", "enum"} & schema.keys():
        is_object = bool({"properties", "patternProperties", "additionalProperties"} & schema.keys())
        is_list = bool({"items", "prefixItems"} & schema.keys())
        if is_object != is_list:
            return {"type": "object" if is_object else "array"}
    return {}
