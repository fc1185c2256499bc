from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distilgpt2_api.text.detokenization.stop_matcher import StopAutomaton, StopMatcher

# Two letters, so that stop sequences begin, overlap and contain each other all the time.
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


def cut(text: str, stop: list[str]) -> tuple[str, str | None]:
    """The reference: the text before the match that ends first; among those, the one that begins first."""
    matches = [(text.find(one) + len(one), text.find(one), one) for one in stop if one in text]
    if not matches:
        return text, None
    _, begin, matched = min(matches)
    return text[:begin], matched


@settings(max_examples=400, deadline=None, derandomize=True)
@given(pieces=st.lists(st.text("abc", max_size=6), max_size=12), stop=STOPS, is_included=st.booleans())
@example(pieces=["aab", "aac"], stop=["aabaab", "baac"], is_included=False)
def test_the_result_does_not_depend_on_how_the_text_is_cut(
    pieces: list[str], stop: list[str], is_included: bool
) -> None:
    """Each push returns all text that can no longer belong to a stop sequence, and nothing else."""
    matcher = StopMatcher(StopAutomaton(stop), is_included=is_included)
    seen = shown = ""
    matched = None
    for piece in pieces:
        text, matched = matcher.push(piece)
        seen += piece
        shown += text
        expected, expected_match = cut(seen, stop)
        assert matched == expected_match
        if matched is not None:
            assert shown == expected + (matched if is_included else "")
            break
        num_held = max((n for one in stop for n in range(len(one)) if seen.endswith(one[:n])), default=0)
        assert shown == seen[: len(seen) - num_held]
    else:
        assert shown + matcher.flush() == "".join(pieces)
    assert matcher.flush() == ""


def test_without_stop_sequences_all_text_is_shown_at_once() -> None:
    matcher = StopMatcher(StopAutomaton([]), is_included=False)
    assert matcher.push("any text") == ("any text", None)
    assert matcher.flush() == ""


def test_a_stop_sequence_over_several_pieces_never_leaks() -> None:
    matcher = StopMatcher(StopAutomaton(["\n\nUser:"]), is_included=False)
    assert [matcher.push(piece) for piece in ("Hello", ".\n", "\n", "Us")] == [
        ("Hello", None),
        (".", None),
        ("", None),
        ("", None),
    ]
    assert matcher.push("er: and more") == ("", "\n\nUser:")


def test_held_back_text_without_a_match_is_shown() -> None:
    matcher = StopMatcher(StopAutomaton(["\n\nUser:"]), is_included=False)
    assert matcher.push("a\n\nUse") == ("a", None)
    assert matcher.push("less") == ("\n\nUseless", None)


def test_held_back_text_is_shown_at_the_end() -> None:
    matcher = StopMatcher(StopAutomaton(["END"]), is_included=False)
    assert matcher.push("the EN") == ("the ", None)
    assert matcher.flush() == "EN"


@pytest.mark.parametrize(
    ("stop", "text", "shown", "matched"),
    [
        (["abcd", "bc"], "xabcd", "xa", "bc"),  # complete first
        (["bc", "abc"], "xabc", "x", "abc"),  # complete together: the longest
        (["b", "a"], "xab", "x", "a"),
        (["aa"], "aaa", "", "aa"),
    ],
)
def test_the_stop_sequence_that_is_complete_first_wins(stop: list[str], text: str, shown: str, matched: str) -> None:
    for pieces in ([text], list(text)):
        matcher = StopMatcher(StopAutomaton(stop), is_included=False)
        results = []
        for piece in pieces:
            results.append(matcher.push(piece))
            if results[-1][1] is not None:
                break
        assert "".join(text for text, _ in results) == shown
        assert results[-1][1] == matched


def test_an_included_stop_sequence_ends_the_text_shown() -> None:
    matcher = StopMatcher(StopAutomaton(["END"]), is_included=True)
    assert matcher.push("the E") == ("the ", None)
    assert matcher.push("ND of it") == ("END", "END")


def test_a_long_text_against_a_long_stop_sequence_takes_linear_time() -> None:
    """Half a million characters that nearly match, in a fraction of a second. Comparing at each would take hours."""
    matcher = StopMatcher(StopAutomaton(["a" * 10_000 + "b"]), is_included=False)
    num_shown = sum(len(matcher.push("a" * 5_000)[0]) for _ in range(100))
    assert num_shown == 500_000 - 10_000


def test_matchers_of_one_automaton_are_independent() -> None:
    """All sequences of a request share it."""
    automaton = StopAutomaton(["abc", "bd"])
    first, second = (StopMatcher(automaton, is_included=False) for _ in range(2))
    assert first.push("xab") == ("x", None)
    assert second.push("c") == ("c", None)
    assert first.push("d") == ("a", "bd")
    assert second.push("abc") == ("", "abc")


@pytest.mark.reported("an attack with a thousand prompts that share sixteen long stop sequences")
def test_an_automaton_is_a_few_times_as_large_as_its_stop_sequences() -> None:
    """Each waiting request may have one."""
    stop = [f"{index:02}" + "ab" * 250 for index in range(16)]
    tracemalloc.start()
    try:
        automaton = StopAutomaton(stop)
        num_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert StopMatcher(automaton, is_included=False).push("x" + stop[7]) == ("x", stop[7])
    assert num_bytes < 24 * sum(map(len, stop))
