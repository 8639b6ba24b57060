"""The token: who may read the API, and how a browser brings it."""

from __future__ import annotations

import re

import pytest

from namedtasks.status import StatusPage
from tests.status.asgi import Answer, ask

TOKEN = "correct-horse"
COOKIE = re.compile(
    r"(namedtasks-status-[0-9a-f]{8}=[0-9a-f]{64}); HttpOnly; SameSite=Strict(; Secure)?"
)

PROTECTED = ("/api/", "/api/names", "/api/events", "/api/snapshot", "/api/stream")


def ask_with(target: str, *, token: str | None = TOKEN, **headers: str) -> Answer:
    return ask(StatusPage(token=token), target, headers=headers)


@pytest.mark.parametrize("target", PROTECTED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xe9\xff"},
        {"Cookie": f"namedtasks-status={TOKEN}"},
        {"Cookie": f"token={TOKEN}"},
    ],
)
def test_without_the_token_nothing_is_told(target: str, headers: dict[str, str]) -> None:
    answer = ask_with(target, **headers)
    assert 401 == answer.status
    assert 'Bearer realm="namedtasks"' == answer.headers["www-authenticate"]
    assert {"detail": "this page has a token: send it as 'Authorization: Bearer …'"} == answer.json


def test_a_token_in_the_address_is_not_read() -> None:
    """Addresses are logged and kept in histories."""
    assert 401 == ask_with(f"/api/?token={TOKEN}").status


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_token_all_is_told(scheme: str) -> None:
    assert 200 == ask_with("/api/", Authorization=f"{scheme} {TOKEN}").status


@pytest.mark.parametrize(
    "target", ["/", "/page.js", "/page.css", "/icon.svg", "/healthz", "/readyz"]
)
def test_probes_and_the_empty_page_need_no_token(target: str) -> None:
    """A probe sends none; the page asks for it."""
    assert 200 == ask_with(target).status


def test_without_a_token_all_is_told() -> None:
    assert 200 == ask_with("/api/", token=None).status
    assert 200 == ask_with("/api/", token=None, Authorization="Bearer x").status
    answer = ask(StatusPage(), "/api/session", method="POST")
    assert 204 == answer.status
    assert "set-cookie" not in answer.headers


def sign_in(token: str = TOKEN, scheme: str = "http") -> str:
    headers = {"Authorization": f"Bearer {token}"}
    answer = ask(
        StatusPage(token=token),
        "/api/session",
        method="POST",
        headers=headers,
        added={"scheme": scheme},
    )
    assert (204, b"") == (answer.status, answer.body)
    return answer.headers["set-cookie"]


def test_the_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use() -> None:
    """Without a path it is for the folder of the API, whatever a proxy calls it."""
    cookie = COOKIE.fullmatch(sign_in())
    assert cookie is not None
    assert cookie[2] is None
    assert TOKEN not in cookie[1]
    assert 200 == ask_with("/api/", Cookie=cookie[1]).status
    assert 401 == ask_with("/api/", Cookie=f"{cookie[1]}0").status
    assert 401 == ask_with("/api/", Cookie=cookie[1], Authorization="Bearer x").status


def test_the_cookie_is_for_https_only_where_it_was_set_by_https() -> None:
    cookie = COOKIE.fullmatch(sign_in(scheme="https"))
    assert cookie is not None
    assert "; Secure" == cookie[2]


def test_two_pages_on_one_host_have_cookies_of_their_own() -> None:
    """Browsers send the cookies of a host to all its ports."""
    one, other = (sign_in(token).partition("=")[0] for token in ("first-token", "second-token"))
    assert one != other
    assert one == sign_in("first-token").partition("=")[0]


def test_signing_in_needs_the_token() -> None:
    answer = ask(StatusPage(token=TOKEN), "/api/session", method="POST")
    assert 401 == answer.status
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("token", ["", "a b", "a\n", "caf\xe9", "\x7f"])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=r"^token must be printable ASCII without spaces$"):
        StatusPage(token=token)


def test_a_token_is_a_text() -> None:
    with pytest.raises(TypeError, match=r"^token must be a text or None, not bytes$"):
        StatusPage(token=b"secret")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_the_token_is_in_no_repr() -> None:
    page = StatusPage(token=TOKEN)
    assert TOKEN not in repr(page)
