"""The playground: a page for browsers, made of our own files, that offers every parameter."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distilgpt2_api.core.params import PLAIN_PARAMETERS
from distilgpt2_api.server.protocols.openai.completions.schema import CompletionRequest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "src" / "distilgpt2_api" / "server" / "pages" / "static" / "playground"
FILES = sorted(FOLDER.iterdir())
CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"
MAX_BYTES = 120_000
"""Limit of the page and all its assets, as sent."""
NOT_OFFERED = {
    # Used by the page itself, or not useful in it.
    *("prompt", "model", "stream", "stream_options", "echo", "prompt_logprobs", "return_token_ids", "request_id"),
    *("return_tokens_as_token_ids", "truncate_prompt_tokens", "truncation_side", "priority", "timeout_s", "timings"),
    "user",
    # Aliases of parameters that it offers or uses, and `do_sample`, which its temperature covers.
    *CompletionRequest.aliases,
    "do_sample",
    "add_special_tokens",
    # Not available in a stream.
    *("best_of", "use_beam_search", "length_penalty", "early_stopping"),
    # One of the structured output parameters is enough.
    *("response_format", "structured_outputs", "guided_json", "guided_choice", "guided_grammar"),
}


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (CHROMIUM, True),
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        ("application/json;q=0.9, text/html", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("text/html, application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("text/html;q=0.2, application/json;q=0.3", False),
        ("text/*", False),
        (",;,=;q", False),
    ],
)
def test_the_root_is_a_page_to_browsers_and_data_to_programs(client: Any, accept: str, is_page: bool) -> None:
    """The `vary` header tells caches so."""
    answer = client.get("/", headers={"accept": accept})
    assert answer.headers["content-type"] == ("text/html; charset=utf-8" if is_page else "application/json")
    assert answer.headers["vary"] == "accept"
    assert (
        client.request("HEAD", "/", headers={"accept": accept}).headers["content-type"]
        == answer.headers["content-type"]
    )
    assert client.get("/ui", headers={"accept": accept}).text.startswith("<!doctype html>")


def test_posting_to_the_root_is_still_tgis(client: Any) -> None:
    answer = client.post("/", json={"inputs": "a"}, headers={"accept": CHROMIUM})
    assert answer.json()[0]["generated_text"].startswith(" hello")


def test_a_cached_page_is_not_sent_again(client: Any) -> None:
    """A 304 has the policy too, because the browser uses its headers."""
    for path in ("/ui", "/ui/assets/main.js", "/ui/assets/playground.css"):
        first = client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        for tag in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
            again = client.get(path, headers={"if-none-match": tag})
            assert (again.status_code, again.content) == (304, b"")
            for name in ("etag", "content-security-policy", "cache-control"):
                assert again.headers[name] == first.headers[name]
        assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_the_policy_allows_only_our_own_files(client: Any) -> None:
    [policy] = client.get("/ui").headers.get_list("content-security-policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")
    assert "unsafe" not in policy


def test_all_referenced_files_exist_and_none_is_external(client: Any) -> None:
    page = client.get("/ui").text
    scripts = [*(file.name for file in FILES if file.suffix == ".js"), "register.js"]
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", page)
    for name in re.findall(r'(?:src|href)="ui/assets/([^"]+)"', page):
        assert client.get(f"/ui/assets/{name}").status_code == 200
    for name in scripts:
        answer = client.get(f"/ui/assets/{name}")
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        for imported in re.findall(r'from "\./([^"]+)"', answer.text):
            assert imported in scripts, f"{name} imports {imported}"
    for file in FILES:
        hosts = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", file.read_text())
        assert set(hosts) <= {"http://www.w3.org", "https://html.spec.whatwg.org"}, file.name  # a name, and a source


def test_text_never_becomes_markup() -> None:
    sinks = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setHTML|createContextualFragment"
    )
    for file in FILES:
        assert not re.search(sinks, file.read_text()), file.name


def test_only_the_pages_own_files_are_served(client: Any) -> None:
    for name in ("index.html", "..%2Fdocs%2Fredoc.css", "%2e%2e/app.py", "", "main.js/", "MAIN.JS"):
        assert client.get(f"/ui/assets/{name}").status_code == 404
    for path in ("/ui/", "/ui/more"):
        assert client.get(path).status_code == 404
    assert not client.scene.runner.plans


def test_page_and_assets_are_small_and_modules_short(client: Any) -> None:
    assets = [f"/ui/assets/{file.name}" for file in FILES if file.suffix != ".html"]
    answers = [client.get(path) for path in ("/ui", "/ui/assets/register.js", *assets)]
    assert all(answer.status_code == 200 for answer in answers)
    assert sum(len(answer.content) for answer in answers) <= MAX_BYTES
    for file in FILES:
        assert len(file.read_text().splitlines()) <= 300, file.name


def test_only_comments_and_indentation_are_left_out_of_scripts(client: Any) -> None:
    """Line numbers stay, no line of code begins like a comment, and no text has lines with indentation."""
    for file in FILES:
        if file.suffix != ".js":
            continue
        lines = file.read_text().splitlines()
        is_within_text = False
        for line in lines:
            assert not (is_within_text and line.startswith(" ")), (file.name, line)
            is_within_text ^= re.sub(r'/[^/]*`[^/]*/|"`"', "", line).count("`") % 2 == 1
        assert not is_within_text
        for line, sent in zip(lines, client.get(f"/ui/assets/{file.name}").text.splitlines(), strict=True):
            assert sent == (
                "" if line.lstrip().startswith(("//", "/**", "* ", "*/")) or line.strip() == "*" else line.lstrip()
            )


def test_only_comments_and_spaces_that_separate_nothing_are_left_out_of_the_style_sheet(client: Any) -> None:
    source = (FOLDER / "playground.css").read_text()
    rules = re.sub(r"/\*.*\*/", "", source)
    sent = client.get("/ui/assets/playground.css").text
    assert re.sub(r"\s", "", sent) == re.sub(r"\s", "", rules)
    assert re.findall(r'"[^"]*"', sent) == re.findall(r'"[^"]*"', rules)
    assert all(line.endswith(("{", "}", ";", ",")) for line in rules.splitlines() if line.strip())
    for kept in ("calc(100vw - 2rem)", "@media (max-width:62rem){", ".answer :is(header,footer)", ".switch{"):
        assert kept in sent


def test_the_files_are_in_the_package() -> None:
    """Poetry packs the package's whole folder, and no setting excludes these files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["poetry"]
    assert project["packages"] == [{"include": "distilgpt2_api", "from": "src"}]
    assert "exclude" not in project
    assert {file.suffix for file in FILES} == {".html", ".css", ".js"}


def test_every_parameter_is_offered_or_left_out_on_purpose() -> None:
    table = (FOLDER / "parameters.js").read_text()
    offered = set(re.findall(r'(?:number\(|other\("[a-z]+", )"([a-z_]+)"', table)) | PLAIN_PARAMETERS.keys()
    assert offered == CompletionRequest.model_fields.keys() - NOT_OFFERED


def test_all_urls_are_relative_for_proxies_with_a_prefix(open_client: Callable[..., Any]) -> None:
    client = open_client(root_path="/base")
    for path in ("/base/", "/base/ui", "/ui"):
        page = client.get(path, headers={"accept": CHROMIUM})
        assert page.status_code == 200
        assert not re.search(r'(?:src|href)="/', page.text)
    assert client.get("/base/ui/assets/main.js").status_code == 200
