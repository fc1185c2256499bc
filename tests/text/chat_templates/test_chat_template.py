"""Chat templates: they render as in `transformers`, and an untrusted one can do nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from distilgpt2_api.core.errors import InvalidRequestError, ModelFormatError
from distilgpt2_api.text.chat_templates import chat_template, renderer
from distilgpt2_api.text.chat_templates.chat_template import MAX_TEMPLATE_CHARACTERS, ChatTemplate
from distilgpt2_api.text.limited_process import LimitedProcess

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
HELLO = [{"role": "user", "content": "hello"}]
NOW = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)


PROCESS = LimitedProcess(renderer.__name__)
"""Started once for all tests: a process for each would take most of their time."""


@pytest.fixture(scope="module", autouse=True)
def _closed_process() -> Iterator[None]:
    yield
    PROCESS.close()


def template_of(source: str, *, is_trusted: bool = False, **special_tokens: str) -> ChatTemplate:
    process = None if is_trusted else PROCESS
    return ChatTemplate(source, origin="here", special_tokens=special_tokens, now=lambda: NOW, process=process)


def render(
    source: str, messages: Sequence[Mapping[str, str]] = HELLO, *, max_characters: int = 1000, **options: Any
) -> str:
    return template_of(source).render(messages, max_characters=max_characters, **options)


COMPARED = [
    ("['a']", "[{0}, {0}]", "{{ ns.x == ns.y }}"),
    ("'a'", "({0}, {0})", "{{ {ns.x: 1} }}"),
    ("{}", "dict(a={0}, b={0})", "{{ ns.x == ns.y }}"),
    ("{}", "{{'a': {0}, 'b': {0}}}", "{{ ns.x == ns.y }}"),
    ("['a']", "['', ''] | map('d', {0}, true) | list", "{{ ns.x == ns.y }}"),
]
SEARCHED = [
    ("'a' * 9000000", "'b' in big"),
    ("'a' * 9000000", "'b' is in big"),
    ("'a' * 9000000", "big[1:]"),
    ("' ' * 9000000", "big.isspace()"),
    ("range(9000) | list", "-1 in big"),
    ("range(9000) | list", "big.count(1)"),
    ("range(9000) | list", "big | max"),
]


def doubling(start: str, step: str, end: str = "") -> str:
    """Sixty iterations of `step` on `ns.x`."""
    turns = f"{{% for i in range(60) %}}{{% set ns.x = {step} %}}{{% endfor %}}"
    return f"{{% set ns = namespace(x={start}) %}}{turns}{end}"


def comparing(start: str, step: str, end: str) -> str:
    """Sixty iterations of `step` on each of two equal values, `ns.x` and `ns.y`."""
    steps = "".join(f"{{% set {name} = {step.format(name)} %}}" for name in ("ns.x", "ns.y"))
    return f"{{% set ns = namespace(x={start}, y={start}) %}}{{% for i in range(60) %}}{steps}{{% endfor %}}{end}"


def searching(big: str, use: str) -> str:
    """Sixty thousand searches in a long value."""
    turns = f"{{% for i in range(60000) %}}{{% if {use} %}}{{% endif %}}{{% endfor %}}"
    return f"{{% set big = {big} %}}{turns}"


def test_messages_become_one_text_that_ends_where_the_assistant_begins() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]

    assert render(CHATML, messages) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(CHATML, has_generation_prompt=False) == "<|im_start|>user\nhello<|im_end|>\n"


def test_a_final_message_can_be_left_open() -> None:
    """The model continues the message: the text that the template puts after it is cut off."""
    messages = [*HELLO, {"role": "assistant", "content": " Well, "}]

    text = render(CHATML, messages, has_generation_prompt=False, is_continued=True)
    trimmed = render("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", messages, is_continued=True)

    assert text.endswith("<|im_start|>assistant\n Well, ")
    assert trimmed == "[hello][Well,"


def test_a_final_message_that_the_template_changes_cannot_be_left_open() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        render("{{ messages[-1].content | upper }}", is_continued=True)

    assert caught.value.param == "continue_final_message"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{{ pad_token }}|{{ tools }}|{{ documents is none }}", "|None|True"),
        ("{% for i in 'abcd' %}{% if i == 'b' %}{% continue %}{% endif %}{{ i }}{% endfor %}", "acd"),
        ("{% for i in 'abcd' %}{% if i == 'c' %}{% break %}{% endif %}{{ i }}{% endfor %}", "ab"),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        ("{{ {'b': 'é<', 'a': [1]} | tojson }}", '{"b": "é<", "a": [1]}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ strftime_now('%d %b %Y') }}", "23 Nov 2026"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "hello"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{% macro say(m) %}<{{ m.content }}>{% endmacro %}{{ say(messages[0]) }}", "<hello>"),
        ("{% macro w() %}({{ caller() }}){% endmacro %}{% call w() %}x{% endcall %}", "(x)"),
        ("{% for m in messages %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{% endfor %}", "1True1"),
        ("{% for m in messages if m.role == 'user' %}{{ m.role ~ ':' ~ 1 }}{% else %}none{% endfor %}", "user:1"),
        ("{{ messages | map(attribute='content') | join(', ') }}{{ ', '.join(['a', 'b']) }}", "helloa, b"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ 'a-b'.split('-')[1] }}{{ ' x '.strip() }}", "bx"),
        ("{{ 'aXb'.replace('X', '--') }}{{ 'ab' | replace('a', 'c') }}", "a--bcb"),
        ("{{ {'a': 1}.get('b', 2) }}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "2a1"),
        ("{{ 'a\nb' | indent(2) }}{{ 7 % 4 }}{{ 2 * 3 }}", "a\n  b36"),
        ("{{ '=' * 3 }}{{ '%s!' % 'x' }}{{ [1] + [2] }}", "===x![1, 2]"),
        ("{{ (messages[0]['role'] == 'user') != (0 % 2 == 0) }}{{ messages[0] == messages[-1] }}", "FalseTrue"),
        ("{% for m in messages[0:] + [{'role': 'x'}] %}{{ m.role not in ['x', 'y'] }}{% endfor %}", "TrueFalse"),
        ("{{ messages[1] is defined }}{{ messages[0]['name'] is defined }}", "FalseFalse"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}{{ 'abc'[::-1] }}{{ '1' | int + 1 }}", "A1cba2"),
        ("{{ messages | join(attribute='content') }}{{ messages[0, 1] }}", "hello"),
        ("{{ {'a': 1} | pprint }}{{ 'a b' | wordwrap(1) }}{{ '<b>x</b>' | striptags }}", "{'a': 1}a\nbx"),
        ("{% for x in [['a'], ['b']] recursive %}{{ x if x is string else loop(x) }}{% endfor %}", "ab"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_trusted", [True, False])
def test_templates_have_what_transformers_gives_them(source: str, text: str, is_trusted: bool) -> None:
    template = template_of(source, is_trusted=is_trusted, bos_token="<s>", eos_token="</s>")

    assert template.render(HELLO, max_characters=1000) == text


def test_an_error_that_a_template_raises_reaches_the_caller() -> None:
    with pytest.raises(InvalidRequestError, match=r"^messages: roles must\s+alternate$") as caught:
        render("{{ raise_exception('roles must\\n alternate') }}")

    assert caught.value.param == "messages"


@pytest.mark.parametrize("source", ["{{ {}[messages[0].content].x }}", "{{ messages[0].content + 1 }}"])
def test_errors_of_jinja_and_python_quote_no_messages(source: str) -> None:
    """Their own texts would repeat values."""
    with pytest.raises(InvalidRequestError, match=r"the chat template (fails|reads)") as caught:
        render(source, [{"role": "user", "content": "secret"}])

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ messages | nosuchfilter }}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{% from 'x' import y %}",
        "{% extends 'x' %}",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{% if true %}" * 150 + "{% endif %}" * 150,
        "x" * (MAX_TEMPLATE_CHARACTERS + 1),
    ],
)
def test_an_invalid_template_is_refused_in_one_line_when_it_is_loaded(source: str) -> None:
    with pytest.raises(ModelFormatError, match=r"^here: ") as caught:
        template_of(source)

    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['sys'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{{ ''['__class__']['__base__'] }}",
        "{{ '' | attr('__class__') | attr('__mro__') }}",
        "{{ ['__class__'] | map('attr') | list }}",
        "{{ messages | map(attribute='__class__') | join }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ (messages | map('string') | first).format() }}",
        "{{ cycler() }}{{ lipsum() }}",
        "{{ messages | map(attribute='content.__class__') | list }}",
    ],
)
def test_no_internals_are_reached(source: str) -> None:
    """The result is an error, or a text of only what the messages had."""
    try:
        text = render(source)
    except InvalidRequestError as error:
        text = str(error)

    assert not re.search(r"<(class|module|function|bound|built-in)|jinja2\.|object at", text), text


def test_messages_survive_a_template_that_changes_them() -> None:
    messages = [dict(HELLO[0])]

    render("{% set m = messages[0] %}{% set m = dict(m, role='x') %}{{ m.role }}", messages)

    assert messages == HELLO


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set x %}{% for i in range(90000) %}" + "x" * 50_000 + "{% endfor %}{% endset %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** (10 ** 10) }}",
        "{{ 2 ** 99999999 }}",
        doubling("'aa'", "ns.x + ns.x"),
        doubling("'aa'", "ns.x ~ ns.x"),
        doubling("'aa'", "ns.x.replace('a', ns.x)"),
        doubling("'aa'", "ns.x | replace('a', ns.x)"),
        doubling("'aa'", "ns.x.join([ns.x, ns.x])"),
        doubling("'aa'", "[ns.x, ns.x] | join(ns.x)"),
        doubling("['a']", "[ns.x, ns.x]", "{{ ns.x }}"),
        doubling("['a']", "[ns.x, ns.x]", "{{ ns.x | tojson }}"),
        doubling("['a']", "[ns.x, ns.x]", "{{ ns.x | string }}"),
        doubling("3", "ns.x * ns.x"),
        *(comparing(start, step, end) for start, step, end in COMPARED),
        *(searching(big, use) for big, use in SEARCHED),
        (
            "{% set ns = namespace(x='a') %}{% macro f() %}{% set ns.x = varargs %}{% endmacro %}"
            "{% for i in range(60) %}{{ f(ns.x, ns.x) }}{% endfor %}{{ {ns.x: 1} }}"
        ),
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 'a\nb' | indent(999999999) | tojson(indent=999999999) }}{{ raise_exception('no') }}",
        "{{ [0] * 999999999 }}",
        "{{ {'a': 1, 'b': 2} | tojson(separators=('x' * 999999999, ':')) }}",
        "{{ 'x' | center(10 ** 9) }}",
        "{% for m in messages recursive %}{{ loop(m) }}{% endfor %}",
        "{% set ns = namespace(x=1) %}{% for i in range(90000) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}",
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ 'x' | map('nosuch') | list }}",
    ],
)  # fmt: skip
def test_a_rendering_is_ended_soon_and_small_for_any_template(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "BASE_CPU_S", 0.01)  # Most of these use all of it.
    template = template_of(source)
    begin = time.monotonic()

    with pytest.raises(InvalidRequestError):
        template.render(HELLO, max_characters=1000)

    assert time.monotonic() - begin < 5


def test_long_chats_are_within_the_bounds() -> None:
    """A template that reads all earlier messages for each of 400 messages."""
    messages = [{"role": "user", "content": "a long and winding message"}] * 400
    source = "{% for m in messages %}{% for n in messages[:loop.index] %}{% endfor %}{{ m.content | trim }}{% endfor %}"

    assert len(render(source, messages, max_characters=100_000)) == 400 * 26


def test_only_variables_that_the_template_reads_can_be_given() -> None:
    template = template_of(
        "{{ bos_token }}{% if enable_thinking %}{{ messages }}{% endif %}{{ tools }}", bos_token="<s>"
    )

    template.check_variables(["enable_thinking"], param="chat_template_kwargs")
    for name in ("enable_thinkin", "messages", "bos_token", "tools", "raise_exception", "range"):
        with pytest.raises(InvalidRequestError, match=name) as caught:
            template.check_variables([name], param="chat_template_kwargs")
        assert caught.value.param == "chat_template_kwargs"
    assert template.render(HELLO, max_characters=100, variables={"enable_thinking": False}) == "<s>None"
