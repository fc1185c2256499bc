"""Each protocol's structured output fields to a grammar. The grammar compiler decides whether it is supported."""

import json
from collections.abc import Callable

from distilgpt2_api.core.errors import InvalidRequestError, UnsupportedParameterError
from distilgpt2_api.core.grammar import Grammar, GrammarKind

ANY_OBJECT = Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}')
MAX_CHOICES = 10_000
ALWAYS_ON = ("disable_any_whitespace", "disable_additional_properties", "disable_fallback")
"""vLLM's switches for behaviour that is always on here."""


def openai_grammar(**values: object) -> tuple[Grammar, str] | None:
    """The grammar and the name of the parameter that it comes from; None if no parameter requests one.

    `response_format` is OpenAI's, the others are vLLM's, old and new. Raises InvalidRequestError for malformed values
    and for two different grammars, UnsupportedParameterError for vLLM's features that are not supported.
    """
    readers: dict[str, Callable[[object, str], tuple[Grammar, str] | None]] = {
        "response_format": _response_format,
        "guided_json": _named(_schema),
        "guided_regex": _named(_regex),
        "guided_choice": _named(_choice),
        "guided_grammar": _named(_lark),
        "structured_outputs": _structured_outputs,
    }
    sent = [(values.get(name), name, reader) for name, reader in readers.items()]
    read = [found for value, name, reader in sent if value is not None and (found := reader(value, name))]
    for grammar, name in read[1:]:
        if grammar != read[0][0]:
            raise InvalidRequestError(
                f"{name} and {read[0][1]} request different grammars; send only one of them", param=name
            )
    return read[0] if read else None


def tgi_grammar(grammar: object) -> Grammar | None:
    """`parameters.grammar` of TGI. Raises like `openai_grammar`."""
    if grammar is None:
        return None
    param = "parameters.grammar"
    fields = _object(grammar, param, known={"type", "value"})
    if "value" not in fields:
        raise InvalidRequestError(f"{param}.value is required", param=f"{param}.value")
    return _typed_value(fields.get("type"), fields["value"], param)


def llama_grammar(json_schema: object, gbnf: str | None) -> tuple[Grammar, str] | None:
    """`json_schema` or `grammar` of llama.cpp, and its name; an empty schema means any object.

    Raises like `openai_grammar`.
    """
    if json_schema is None:
        return (Grammar(GrammarKind.GBNF, gbnf), "grammar") if gbnf else None
    if gbnf:
        raise InvalidRequestError("grammar cannot be used with json_schema", param="grammar")
    if not isinstance(json_schema, dict):
        raise InvalidRequestError("json_schema must be a JSON schema: an object", param="json_schema")
    return (_schema(json_schema, "json_schema") if json_schema else ANY_OBJECT), "json_schema"


def ollama_grammar(value: object) -> Grammar | None:
    """`format` of Ollama: "json", or a schema. Raises like `openai_grammar`."""
    if value is None or value == "":
        return None
    if value == "json":
        return ANY_OBJECT
    if not isinstance(value, dict):
        raise InvalidRequestError('format must be "json" or a JSON schema, an object', param="format")
    return _schema(value, "format")


def _typed_value(kind: object, value: object, param: str) -> Grammar:
    """TGI's form, `{"type": …, "value": …}`, which its chat also accepts in `response_format`."""
    match kind:
        case "json" | "json_object":
            return _schema(value, f"{param}.value")
        case "regex":
            return _regex(value, f"{param}.value")
        case "json_schema":
            return _named_schema(value, f"{param}.value", is_name_required=False)[0]
    raise InvalidRequestError(
        f"{param}.type must be 'json', 'json_object', 'json_schema' or 'regex' with {param}.value",
        param=f"{param}.type",
    )


def _response_format(value: object, param: str) -> tuple[Grammar, str] | None:
    """OpenAI's form, TGI's with a `value`, or llama.cpp's `json_object` with a `schema`."""
    fields = _object(value, param, known={"type", "json_schema", "value", "schema"})
    kind = fields.get("type")
    details = {name: value for name, value in fields.items() if name != "type" and value is not None}
    if len(details) > 1:
        raise InvalidRequestError(f"{param} must have at most one of {', '.join(details)}", param=param)
    if "value" in details:
        return _typed_value(kind, details["value"], param), f"{param}.value"
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequestError(f"{param}.type must be 'text', 'json_object' or 'json_schema'", param=f"{param}.type")
    if kind == "json_schema":
        return _named_schema(details.get("json_schema"), f"{param}.json_schema", is_name_required=True)
    if "json_schema" in details:
        raise InvalidRequestError(
            f"{param}.json_schema requires {param}.type 'json_schema'", param=f"{param}.json_schema"
        )
    if "schema" in details:
        if kind == "text":
            raise InvalidRequestError(f"{param}.schema requires {param}.type 'json_object'", param=f"{param}.schema")
        return _schema(details["schema"], f"{param}.schema"), f"{param}.schema"
    return (ANY_OBJECT, param) if kind == "json_object" else None


def _named_schema(value: object, param: str, *, is_name_required: bool) -> tuple[Grammar, str]:
    """OpenAI's `json_schema`. The schema is enforced, `strict` or not; name and description have no effect."""
    fields = _object(value, param, known={"name", "description", "schema", "strict"})
    name = fields.get("name")
    if not (isinstance(name, str) and name) and (is_name_required or name is not None):
        raise InvalidRequestError(f"{param}.name must be a string that is not empty", param=f"{param}.name")
    for key, kind, word in (("description", str, "a string"), ("strict", bool, "true or false")):
        if fields.get(key) is not None and not isinstance(fields[key], kind):
            raise InvalidRequestError(f"{param}.{key} must be {word}", param=f"{param}.{key}")
    schema = fields.get("schema")
    if not isinstance(schema, dict):
        raise InvalidRequestError(f"{param}.schema must be a JSON schema, an object", param=f"{param}.schema")
    return _schema(schema, f"{param}.schema"), f"{param}.schema"


def _structured_outputs(value: object, param: str) -> tuple[Grammar, str] | None:
    readers: dict[str, Callable[[object, str], Grammar]] = {
        "json": _schema,
        "regex": _regex,
        "choice": _choice,
        "grammar": _lark,
        "json_object": _any_object,
    }
    unsupported = {"structural_tag", "whitespace_pattern"}
    fields = _object(value, param, known={*readers, *ALWAYS_ON} | unsupported)
    for name in fields:
        if name in unsupported and fields[name] is not None:
            raise UnsupportedParameterError(f"{param}.{name} is not supported; remove it", param=f"{param}.{name}")
        if name in ALWAYS_ON and not isinstance(fields[name], bool | None):
            raise InvalidRequestError(f"{param}.{name} must be true or false", param=f"{param}.{name}")
    given = [name for name in readers if fields.get(name) is not None and fields[name] is not False]
    if len(given) != 1:
        raise InvalidRequestError(
            f"{param} must have exactly one of {', '.join(readers)}; it has {', '.join(given) or 'none'}", param=param
        )
    name = f"{param}.{given[0]}"
    return readers[given[0]](fields[given[0]], name), name


def _any_object(value: object, param: str) -> Grammar:
    if value is not True:
        raise InvalidRequestError(f"{param} must be true or false", param=param)
    return ANY_OBJECT


def _schema(value: object, param: str) -> Grammar:
    """A schema as an object, or as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRequestError(f"{param} is a string that is not valid JSON", param=param) from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{param} must be a JSON schema: an object, or an object as JSON text", param=param)
    try:
        # Keys keep their order: the completion writes properties in it.
        return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"{param} is nested too deeply, or contains NaN or Infinity", param=param) from None


def _regex(value: object, param: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, _text(value, param, "a regular expression"))


def _lark(value: object, param: str) -> Grammar:
    source = _text(value, param, "a grammar in llguidance's dialect of Lark, or in GBNF")
    return Grammar(GrammarKind.GBNF if "::=" in source else GrammarKind.LARK, source)


def _choice(value: object, param: str) -> Grammar:
    if not isinstance(value, list) or not value or not all(isinstance(choice, str) and choice for choice in value):
        raise InvalidRequestError(f"{param} must be a list of strings that are not empty", param=param)
    if len(value) > MAX_CHOICES:
        raise InvalidRequestError(f"{param} has {len(value)} choices; at most {MAX_CHOICES} are allowed", param=param)
    # Lark escapes strings as JSON does. One terminal: as rules, each choice would be parsed separately.
    choices = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in dict.fromkeys(value))
    return Grammar(GrammarKind.LARK, f"start: CHOICE\nCHOICE: {choices}")


def _text(value: object, param: str, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"{param} must be {what}", param=param)
    return value


def _named(reader: Callable[[object, str], Grammar]) -> Callable[[object, str], tuple[Grammar, str]]:
    return lambda value, param: (reader(value, param), param)


def _object(value: object, param: str, *, known: set[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{param} must be an object", param=param)
    for name in value:
        if name not in known:
            unknown = f"{param}.{str(name)[:100]}"
            raise InvalidRequestError(f"{unknown} is unknown; known are {', '.join(sorted(known))}", param=unknown)
    return value
