"""GBNF grammars: the texts that they allow, and errors that name the line."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import time
from collections.abc import Iterator, Mapping
from functools import reduce
from itertools import accumulate

import pytest
from tests.server.conftest import byte_tokenizer

from distilgpt2_api.core.errors import InvalidRequestError
from distilgpt2_api.core.grammar import Grammar, GrammarKind
from distilgpt2_api.text.structured_output.gbnf import MAX_RULES, to_lark
from distilgpt2_api.text.structured_output.gbnf_parser import (
    CharacterClass,
    Choice,
    GbnfParser,
    Literal,
    Node,
    Reference,
    Repetition,
    Sequence,
)
from distilgpt2_api.text.structured_output.grammars import GrammarCompiler
from distilgpt2_api.text.tokenization.tokenizer import Tokenizer

END = 256
MAX_LENGTH = 4
"""Grammars with recursion are tried on texts up to this length."""
TEXTS = ["".join(text) for length in range(1, MAX_LENGTH + 1) for text in itertools.product("abc", repeat=length)]

JSON = r"""
# As in llama.cpp's `grammars/json.gbnf`.
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::= "[" ws ( value ("," ws value)* )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
ARITHMETIC = r"""root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"""


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    compiler = GrammarCompiler(Tokenizer(byte_tokenizer()), vocab_size=257, eos_token_ids=(END,))
    yield compiler
    compiler.close()


def allows(compiler: GrammarCompiler, source: str, text: str) -> bool:
    """Whether the grammar allows the text, byte by byte, and then its end."""
    guide = compiler.open(compiler.check(Grammar(GrammarKind.GBNF, source), param="grammar"))
    for token_id in (*text.encode(), END):
        mask = guide.compute_mask()
        if not mask[token_id // 8] >> token_id % 8 & 1:
            return False
        if token_id != END:
            guide.accept(token_id)
    return True


@pytest.mark.parametrize(
    ("source", "allowed", "refused"),
    [
        (
            JSON,
            ['{"a": 1}', "{}", '{"a": [1, 2.5e+3, {"b": null}], "c": "x\\n\\u00e9 \u00e9"}', '{"a": true } '],
            ["{a: 1}", '{"a": 1', "[1]", '{"a": 01}'],
        ),
        (ARITHMETIC, ["a=1\n", "a +(b*2) = 3\n", "a=1\nb=2\n"], ["a=", "a=1", "=1\n"]),
        ('root ::= "yes" | "no"', ["yes", "no"], ["maybe", "ye", ""]),
        ('root ::= [a-c]{2,3} "!"', ["ab!", "abc!"], ["a!", "abca!", "abd!"]),
        ('root ::= "a"{2}', ["aa"], ["a", "aaa"]),
        ('root ::= "a"{2,}', ["aa", "aaaa"], ["a"]),
        ('root ::= ("a" | "ab") "bc"', ["abc", "abbc"], ["ab", "abbbc"]),
        ('root ::= [a-z]* ("x" | "")', ["", "abc", "abcx"], ["1"]),
        ('root ::= "a" root "b" | "c"', ["c", "aacbb"], ["aacb", "ab"]),
        ('root ::= item+\nitem ::= "- " [^\\r\\n]+ "\\n"', ["- \u00e9\u65e5\n", "- a\n- b\n"], ["- \n", "a\n"]),
        ("root ::= .{3}", ["a\u00e9\n"], ["ab", "abcd"]),
        (
            r'root ::= "\x41\u00e9\U0001f917\"\\\[" [\]\\^-]',
            ['A\u00e9\U0001f917"\\[]', 'A\u00e9\U0001f917"\\[-'],
            ["A"],
        ),
        ('root ::= # a comment\n  "a" # another\n\nother-rule ::= "b"', ["a"], ["b"]),
        ('root ::= a |\n  b\na ::= "1"\nb ::= "2" (\n"3"\n)?', ["1", "2", "23"], ["3"]),
        (
            'root ::= a b\na ::= [a-z]+ ws\nb ::= "x"? root_2\nroot_2 ::= "(" root_2 ")" | "y"\nws ::= " "*',
            ["ab x((y))"],
            ["x"],
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_grammar_allows_its_texts_and_no_others(
    compiler: GrammarCompiler, source: str, allowed: list[str], refused: list[str]
) -> None:
    assert [text for text in allowed if not allows(compiler, source, text)] == []
    assert [text for text in refused if allows(compiler, source, text)] == []


def test_regular_grammars_allow_what_the_regular_expression_matches(compiler: GrammarCompiler) -> None:
    rng = random.Random(0)

    def make(depth: int) -> str:
        kind = rng.randrange(5) if depth else 0
        if kind == 0:
            return rng.choice(['"a"', '"b"', '"ab"', "[ab]", "[^a]"])
        if kind == 1:
            return f"({make(depth - 1)} {make(depth - 1)})"
        if kind == 2:
            return f"({make(depth - 1)} | {make(depth - 1)})"
        return f"({make(depth - 1)}){rng.choice(['*', '+', '?', '{1,2}'])}"

    for _ in range(60):
        source = make(3)
        pattern = re.compile(re.sub(r'[" ]', "", source))
        for _ in range(6):
            text = "".join(rng.choice("abc") for _ in range(rng.randrange(1, 5)))
            expected = pattern.fullmatch(text) is not None
            assert allows(compiler, f'root ::= "(" {source} ")"', f"({text})") is expected, (source, text)


def join(begun: set[str], others: set[str]) -> set[str]:
    return {one + other for one in begun for other in others if len(one + other) <= MAX_LENGTH}


def repeat(one: set[str], least: int, most: int | None) -> set[str]:
    steps = [*accumulate([one] * (MAX_LENGTH + least if most is None else most), join, initial={""})]
    return set().union(*steps[least:])


def language(rules: Mapping[str, Node]) -> dict[str, set[str]]:
    """By brute force: the texts of a, b and c of each rule, up to a length."""
    texts: dict[str, set[str]] = {name: set() for name in rules}

    def find(node: Node) -> set[str]:
        match node:
            case Literal(text):
                return {text}
            case CharacterClass(ranges, is_negated):
                return {one for one in "abc" if any(low <= ord(one) <= high for low, high in ranges) is not is_negated}
            case Reference(name):
                return texts[name]
            case Choice(options):
                return set().union(*map(find, options))
            case Sequence(parts):
                return reduce(join, map(find, parts), {""})
            case Repetition(part, least, most):
                return repeat(find(part), least, most)

    while (found := {name: find(node) for name, node in rules.items()}) != texts:
        texts = found
    return texts


def test_grammars_with_recursion_allow_none_but_their_own_texts(compiler: GrammarCompiler) -> None:
    """The lexer takes the longest match, so it may miss some of them."""
    rng = random.Random(1)

    def make(depth: int) -> str:
        kind = rng.randrange(7) if depth else rng.randrange(2)
        if kind == 0:
            return rng.choice(['"a"', '"b"', '"ab"', "[ab]", "[^a]", '"c"'])
        if kind == 1:
            return rng.choice(["root", "x"])
        if kind < 6:
            return f"({make(depth - 1)} {'|' if kind > 3 else ''} {make(depth - 1)})"
        return f"({make(depth - 1)}){rng.choice(['*', '+', '?', '{1,2}'])}"

    num_allowed = num_grammars = 0
    while num_grammars < 40:
        source = f"root ::= {make(3)}\nx ::= {make(3)}"
        with contextlib.suppress(InvalidRequestError):  # a rule that never ends
            compiler.check(Grammar(GrammarKind.GBNF, source), param="grammar")
            num_grammars += 1
            own = language(GbnfParser(source).parse())["root"]
            allowed = {text for text in TEXTS if allows(compiler, source, text)}
            assert allowed <= own, source
            num_allowed += len(allowed)
    assert num_allowed > 500


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("root := a", "line 1: '::=' is missing"),
        ('root ::= "a\n"', "line 1: '\"' is missing"),
        ("root ::= [a", "line 1: ']' is missing"),
        ("root ::= []", "line 1: a class needs at least one character"),
        ("root ::= [b-a]", "line 1: the range of characters is empty"),
        ('root ::= "a"\n\nroot ::= "b"', "line 3: the rule 'root' is defined twice"),
        ('root ::= ("a"', "line 1: ')' is missing"),
        ('root ::= "a")', "line 1: ')' is not expected"),
        (r'root ::= "\q"', "line 1: unknown escape: '\\\\q'"),
        (r'root ::= "\ud800"', "is no character"),
        ('root ::= "a"{3,2}', "the repetition {3,2} is empty"),
        ('root ::= "a"{99999}', "the repetition {99999} is over 10000"),
        ('root ::= "a"{x}', "a repetition must be {m}, {m,} or {m,n}"),
        ('root ::= *"a"', "line 1: '*' is not expected"),
        ("root ::= <think>", "line 1: '<' is not expected"),
        ('root ::= "a"\n::= "b"', "line 2: a rule must begin with its name"),
        ('a ::= "b"', "it has no rule named 'root'"),
        ("root ::= missing", "the rule 'missing' is not defined"),
        ("root ::= root", "never ends"),
        ("root ::= " + "(" * 3000 + '"a"' + ")" * 3000, "nested too deeply"),
        ("\n".join(f'r{i} ::= "a"' for i in range(MAX_RULES)) + "\nroot ::= r1", "at most 512 are translated"),
        ("", "no rule named"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_error_says_what_is_wrong(compiler: GrammarCompiler, source: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(message)) as error:
        compiler.check(Grammar(GrammarKind.GBNF, source), param="grammar")
    assert "grammar is not a GBNF grammar that can be followed" in str(error.value)


def test_large_grammars_are_translated_in_time() -> None:
    chain = "\n".join(f'r{i} ::= r{i + 1} | ""' for i in range(MAX_RULES - 2))
    sources = [
        f"root ::= r0\n{chain}\nr{MAX_RULES - 2} ::= root",
        "root ::= " + ' "a"' * 15_000,
        "root ::= " + " r0" * 15_000 + '\nr0 ::= "a"?',
    ]
    for source in sources:
        begun_s = time.process_time()
        to_lark(source)
        assert time.process_time() - begun_s < 2
