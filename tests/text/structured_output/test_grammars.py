"""Grammars: refusals, the tokens that guides allow, and that no grammar hangs or ends the process."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from distilgpt2_api.core.errors import GenerationError, InvalidRequestError, OverloadedError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.text.structured_output.grammars import MAX_WAITING, GrammarCompiler, Guide
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

END_OF_TEXT = 0


def schema(value: object) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, value if isinstance(value, str) else json.dumps(value))


def regex(source: str) -> Grammar:
    return Grammar(GrammarKind.REGEX, source)


def lark(source: str) -> Grammar:
    return Grammar(GrammarKind.LARK, source)


@pytest.fixture(scope="module")
def compiler(json_folder: Any) -> Iterator[GrammarCompiler]:
    """For a model with a padded vocabulary."""
    tokenizer = Tokenizer.from_folder(json_folder)
    compiler = GrammarCompiler(tokenizer, vocab_size=tokenizer.vocab_size + 20, eos_token_ids=(END_OF_TEXT,))
    yield compiler
    compiler.close()


@pytest.mark.reported("chat models that end their turns with a token of their own beside the end of text")
@pytest.mark.parametrize("end", [END_OF_TEXT, 5])
def test_each_of_several_end_tokens_may_end_a_complete_text(json_folder: Any, end: int) -> None:
    """No end token is allowed before."""
    tokenizer = Tokenizer.from_folder(json_folder)
    compiler = GrammarCompiler(tokenizer, vocab_size=tokenizer.vocab_size, eos_token_ids=(END_OF_TEXT, 5))
    guide = compiler.open(regex("k+"))
    [letter] = allowed_by(guide)
    guide.accept(letter)
    assert allowed_by(guide) == sorted((END_OF_TEXT, 5, letter))
    guide.accept(end)
    assert guide.is_finished
    compiler.close()


def allowed_by(guide: Guide) -> list[int]:
    mask = int.from_bytes(guide.compute_mask(), "little")
    return [token_id for token_id in range(mask.bit_length()) if mask >> token_id & 1]


def walk(compiler: GrammarCompiler, grammar: Grammar, tokenizer: Tokenizer, *, seed: int) -> str:
    """A text sampled at random, token by token, until the grammar is complete or the end of text is sampled."""
    draw = random.Random(seed)
    guide = compiler.open(grammar)
    token_ids: list[int] = []
    while not guide.is_finished:
        allowed = allowed_by(guide)
        # Whatever can end ends soon.
        closing = [token_id for token_id in allowed if tokenizer.token_bytes[token_id] in (b'"', b"}", b"]")]
        hurry = len(token_ids) > 30
        token_id = END_OF_TEXT if END_OF_TEXT in allowed and hurry else draw.choice((hurry and closing) or allowed)
        guide.accept(token_id)
        if token_id == END_OF_TEXT:
            break
        token_ids.append(token_id)
        assert len(token_ids) < 500
    return tokenizer.decode(token_ids)


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object"},
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["red", "green", None, 3]}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"type": "boolean"}, {"$ref": "#/$defs/word"}], "$defs": {"word": {"type": "string", "maxLength": 5}}},
    {"type": "string", "format": "date"},
    {"const": "<|endoftext|> isn't the end, é"},
]


@pytest.mark.parametrize("value", SCHEMAS, ids=lambda value: json.dumps(value)[:40])
def test_every_path_through_a_schema_is_json_that_validates(
    compiler: GrammarCompiler, tokenizer: Tokenizer, value: dict[str, Any]
) -> None:
    for seed in range(8):
        text = walk(compiler, schema(value), tokenizer, seed=seed)

        jsonschema.validate(json.loads(text), value)


def test_json_is_written_as_python_writes_it(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    """One space after commas and colons, none elsewhere; otherwise a small model would write only white space."""
    value = {"properties": {"a": {"const": 1}, "b": {"const": [2, 3]}}, "required": ["a", "b"]}

    text = walk(compiler, schema({"type": "object", "additionalProperties": False, **value}), tokenizer, seed=0)

    assert text == json.dumps({"a": 1, "b": [2, 3]})


def test_a_complete_grammar_is_finished_without_an_end_of_text(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    guide = compiler.open(regex("[0-9]{3}"))
    for digit in tokenizer.encode("1") + tokenizer.encode("8") + tokenizer.encode("1"):
        assert not guide.is_finished
        guide.accept(digit)

    assert guide.is_finished


def test_the_end_of_text_is_allowed_where_the_text_may_end_and_not_before(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    guide = compiler.open(regex("a+"))
    assert END_OF_TEXT not in allowed_by(guide)
    guide.accept(tokenizer.encode("a")[0])
    assert END_OF_TEXT in allowed_by(guide)


def test_a_model_without_an_end_of_text_can_follow_grammars(tokenizer: Tokenizer) -> None:
    """Its masks have no bits beyond the vocabulary."""
    vocab_size = tokenizer.vocab_size + -tokenizer.vocab_size % 32
    compiler = GrammarCompiler(tokenizer, vocab_size=vocab_size, eos_token_ids=())
    try:
        guide = compiler.open(regex("a*"))
        assert len(guide.compute_mask()) == vocab_size // 8
        assert END_OF_TEXT not in allowed_by(guide)
    finally:
        compiler.close()


def test_special_tokens_are_not_text(compiler: GrammarCompiler) -> None:
    guide = compiler.open(regex("<.*"))

    assert END_OF_TEXT not in allowed_by(guide)


def test_guides_of_one_grammar_have_separate_positions(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    first, second = compiler.open(lark('start: "ab" | "cd"')), compiler.open(lark('start: "ab" | "cd"'))
    first.accept(tokenizer.encode("a")[0])

    assert allowed_by(first) != allowed_by(second)


def test_a_token_that_the_grammar_forbids_fails_the_guide(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    guide = compiler.open(regex("[0-9]+"))

    with pytest.raises(GenerationError, match="can't follow its grammar"):
        guide.accept(tokenizer.encode("x")[0])
    with pytest.raises(GenerationError):
        guide.compute_mask()


def test_an_invalid_grammar_that_was_not_checked_fails_its_guide(compiler: GrammarCompiler) -> None:
    with pytest.raises(GenerationError, match="unclosed group"):
        compiler.open(regex("(never checked")).compute_mask()


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (schema('{"type":'), "not valid JSON"),
        (schema("true"), "object"),
        (schema({"type": "strin"}), "Invalid type"),
        (schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (schema({"not": {"type": "string"}}), "'not' is not supported"),
        (schema({"properties": {"a": False}, "required": ["a"], "type": "object"}), "Unsatisfiable"),
        (schema({"$ref": "https://example.com/schema.json"}), "not within the schema"),
        (schema({"$ref": "file:///etc/passwd"}), "not within the schema"),
        (schema({"$ref": "#"}), "never ends: it requires itself"),
        (schema('{"type": "object", "x": "\ud800"}'), "surrogate"),
        (regex("(a"), "unclosed group"),
        (regex("(?=a)b"), "look-around"),
        (regex("(a)\\1"), "backreferences"),
        (regex("x" * 70_000), "70000 bytes"),
        (lark("start: missing"), "unknown name"),
        (lark('start: ""'), "allows no text"),
        (lark('start: %json {"$ref": "https://example.com/"}'), "not within the schema"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_an_unsupported_grammar_is_refused_with_the_reason(
    compiler: GrammarCompiler, grammar: Grammar, reason: str
) -> None:
    """In one line of bounded length that names the parameter; the second time as the first."""
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match=reason) as refused:
            compiler.check(grammar, param="guided_something")

        assert refused.value.param == "guided_something"
        assert str(refused.value).startswith("guided_something is not a ")
        assert len(str(refused.value)) < 320
        assert str(refused.value).isprintable()


@pytest.mark.reported("vLLM's and llama.cpp's own tests of grammars: the answer was the library's name for a dead end")
@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (regex("[^\\s\\S]"), "matches nothing"),
        (regex("abc[^\\s\\S]d"), "matches nothing"),
        (regex("a{3,1}"), "invalid repetition count range"),
        (regex("()"), "only the empty one"),
        (regex("\\bfoo"), "lookarounds not supported"),
        (lark("start: start"), "never ends: it needs itself"),
        (lark("start: x\nx: y\ny: x"), "never ends: it needs itself"),
        (lark('start: "a" start | "b" start'), "never ends: it needs itself"),
        (lark('start: "(" x{1,3} ")"  // never ends\nx: ("[" [x] start "]")+ | y\n\ny: x /[0-9]/'), "never ends"),
        (lark('start: x*\nx: "(" x ")"'), "'x' never ends"),
        (lark('start: (x | "b") "c"\nx: "(" x ")"'), "'x' never ends"),
        (lark('%import common.INT\nstart: INT "," start'), "never ends: it needs itself"),
        (lark('start: "a" /[^\\s\\S]/'), "matches nothing"),
        (lark("start: A\nA: /a/ & /b/"), "matches nothing"),
        (lark('start: "a" start'), "never ends: it needs itself"),
        (lark('start: %json {"$ref":"#"}'), "matches nothing"),
        (lark('start: A\nA: A "b"'), "circular reference"),
        (lark('start: "a'), "line 1, column 10: lexer error"),
        (lark("start: <|nothing|>"), "unknown special token"),
        (lark('other: "a"'), "no start rule"),
        (lark("\n"), "Empty grammar|start rule"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.source,
)
def test_a_grammar_that_matches_nothing_or_never_ends_is_refused_in_plain_words(
    compiler: GrammarCompiler, grammar: Grammar, reason: str
) -> None:
    with pytest.raises(InvalidRequestError, match=reason) as refused:
        compiler.check(grammar, param="guided_grammar")

    assert not re.search(r"NoExtension|InternalError|parser error|verbose|limit \d|f64|Some\(", str(refused.value))


@pytest.mark.parametrize(
    "source",
    [
        'start: "a" start | "b"',
        'start: "a" start?',
        'start: x*\nx: "(" x? ")"',
        'start: x{0,3} "."\nx: "(" x* ")"',
        'start: "b"\nunused: unused',
        '?start: sum\n?sum: product | sum "+" product\nproduct: atom | product "*" atom\natom: /[0-9]/ | "(" sum ")"',
        'start: "start: start" // start\n',
        'start[capture]: "a" start | "b"',
        'start: <[0]> | "a"',
    ],
)
def test_recursion_that_may_end_is_followed(compiler: GrammarCompiler, source: str) -> None:
    compiler.check(lark(source), param="guided_grammar")

    assert allowed_by(compiler.open(lark(source)))


def lark_chain(depth: int) -> str:
    return "\n".join(["start: r0", *(f'r{index}: r{index + 1} "x"' for index in range(depth)), f'r{depth}: "a"'])


def nested_schema(depth: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {f"d{index}": {"items": {"$ref": f"#/$defs/d{index + 1}"}} for index in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{depth}": {"type": "string"}}}


HOSTILE = {
    "counted repetition of counted repetition": regex("(a{1000}){1000}"),
    "a square of stars": regex(".*" * 20_000),
    "parentheses": regex("(" * 20_000 + "a" + ")" * 20_000),
    "arrays in arrays": schema('{"items":' * 5_000 + "{}" + "}" * 5_000),
    "references to references": schema(nested_schema(1_500)),
    "an object that needs itself": schema(
        {"type": "object", "properties": {"c": {"$ref": "#"}}, "required": ["c"], "additionalProperties": False}
    ),
    "rules of rules": lark(lark_chain(3_500)),
    "doubled thirty times": lark(
        "\n".join(["start: R30", *(f"R{index}: R{index - 1} R{index - 1}" for index in range(1, 31)), 'R0: "a"'])
    ),
    "an intersection of many": lark(
        "start: A\nA: " + " & ".join(f"/(.|\\n)*w{index}(.|\\n)*/" for index in range(100))
    ),
    "the same in a schema's allOf": schema(
        {"allOf": [{"type": "string", "pattern": f".*k{index}.*"} for index in range(100)]}
    ),
    "ten thousand entries": schema({"enum": [f"value {index}" for index in range(10_000)]}),
    "too many optional properties": schema(
        {"type": "object", "properties": {f"k{index}": {} for index in range(1_500)}}
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_in_bounded_time(compiler: GrammarCompiler, name: str) -> None:
    """Some would hang for hours, fill the memory or overflow the stack: the grammar sandbox ends them."""
    with pytest.raises(InvalidRequestError) as refused:
        compiler.check(HOSTILE[name], param="grammar")

    assert len(str(refused.value)) < 320


def test_after_a_hostile_grammar_others_are_compiled_as_before(compiler: GrammarCompiler) -> None:
    with pytest.raises(InvalidRequestError, match="too much time or memory"):
        compiler.check(lark(lark_chain(3_600)), param="grammar")

    compiler.check(regex("yes|no"), param="grammar")


@pytest.mark.parametrize(
    "grammar",
    [
        schema({"enum": [f"v{index}" for index in range(4_000)]}),
        schema({"type": "object", "properties": {f"k{index}": {"type": "string"} for index in range(100)}}),
        schema({"type": "string", "minLength": 10, "maxLength": 1000}),
        regex(r"[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{2,10}){1,3}"),
        lark("start: CHOICE\nCHOICE: " + " | ".join(f'"choice {index}"' for index in range(1_000))),
    ],
    ids=["enum", "optional properties", "long string", "e-mail", "choices"],
)
def test_large_realistic_grammars_are_accepted(compiler: GrammarCompiler, grammar: Grammar) -> None:
    compiler.check(grammar, param="grammar")

    assert allowed_by(compiler.open(grammar))


def test_an_evicted_grammar_is_compiled_again(compiler: GrammarCompiler) -> None:
    """Unless it was checked. An open guide has its own copy."""
    compiler.check(regex("abc"), param="grammar")
    early, unchecked = compiler.open(regex("abc")), compiler.open(regex("abd"))
    for number in range(40):
        compiler.check(regex(f"{number}"), param="grammar")

    expected = allowed_by(early)
    assert expected
    assert allowed_by(compiler.open(regex("abc"))) == expected == allowed_by(unchecked)


def test_a_checked_grammar_never_waits_for_others_to_compile(compiler: GrammarCompiler) -> None:
    """Even if its sequence waits long between the check and the first token."""
    checked = compiler.check(regex("abc"), param="grammar")
    for number in range(40):
        compiler.check(regex(f"{number}"), param="grammar")
    with compiler._compiling:
        assert allowed_by(compiler.open(checked))
    assert checked == regex("abc")


def test_too_many_grammars_at_once_are_refused_and_known_ones_do_not_wait(json_folder: Any) -> None:
    """A hostile grammar takes seconds. Meanwhile other requests get an answer or a refusal at once."""
    compiler = GrammarCompiler(Tokenizer.from_folder(json_folder), vocab_size=3092, eos_token_ids=(END_OF_TEXT,))
    compiler.check(regex("known"), param="guided_regex")

    async def play() -> None:
        grammars = [regex(f"a{index}") for index in range(MAX_WAITING)]
        waiting = [asyncio.ensure_future(compiler.check_soon(one, param="guided_regex")) for one in grammars]
        await asyncio.sleep(0)  # all of them have begun, and none can end before the loop is here again
        with pytest.raises(OverloadedError, match="too many grammars"):
            await compiler.check_soon(regex("one more"), param="guided_regex")
        await compiler.check_soon(regex("known"), param="guided_regex")
        assert not all(one.done() for one in waiting)
        await asyncio.gather(*waiting)
        await compiler.check_soon(regex("one more"), param="guided_regex")
        with pytest.raises(InvalidRequestError, match="guided_regex is not a regular expression"):
            await compiler.check_soon(regex("("), param="guided_regex")

    asyncio.run(play())
    compiler.close()


@pytest.mark.reported("a batch of 2000 lines with one guided_regex: 1984 of them failed")
def test_any_number_of_requests_may_wait_for_one_grammar(json_folder: Any) -> None:
    compiler = GrammarCompiler(Tokenizer.from_folder(json_folder), vocab_size=3092, eos_token_ids=(END_OF_TEXT,))

    async def play() -> None:
        await asyncio.gather(*[compiler.check_soon(regex("[ab]+"), param="guided_regex") for _ in range(500)])
        bad = [compiler.check_soon(regex("("), param="guided_regex") for _ in range(20)]
        ends = await asyncio.gather(*bad, return_exceptions=True)
        assert [type(end) for end in ends] == [InvalidRequestError] * 20

    asyncio.run(play())
    compiler.close()
