"""The names and labels in an expression of PromQL, as far as our own files need it.

`promtool` checks that an expression can be read; it does not know which metrics and labels exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"[^"]*")
    | (?P<number>\d[\w.]*)
    | (?P<word>\$?[a-zA-Z_:][\w:]*)
    | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^(){}\[\],<>=])
    )\s*""",
    re.VERBOSE,
)
_LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset"}
_AGGREGATIONS = {"by", "without"}


@attrs.frozen
class Use:
    """A metric in an expression, or a list of labels over metrics."""

    metric: str
    """The metric; empty for a list of labels."""
    labels: tuple[str, ...]
    """Labels that are matched, or the list."""
    over: tuple[str, ...] = ()
    """The metrics to which the list applies."""


def uses(expression: str) -> list[Use]:
    """Return the metrics in *expression* with the labels matched, and the lists of labels.

    Raises:
        ValueError: it is not in the form that our files have.
    """
    tokens = list(_tokens(expression))
    found: list[Use] = []
    lists: list[tuple[str, tuple[str, ...], int]] = []
    places: list[tuple[int, str]] = []
    at = 0
    while at < len(tokens):
        kind, token = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if token == "[":
            at = _index(tokens, "]", at)
        elif token == "{":
            raise ValueError(f"a selector without a metric: {expression}")
        elif kind == "word" and token in _LABEL_LISTS:
            end = _index(tokens, ")", at)
            lists.append((token, tuple(t for k, t in tokens[at + 2 : end] if k == "word"), end + 1))
            at = end
        elif kind == "word" and token not in _WORDS and following not in ("(", "by", "without"):
            end = _index(tokens, "}", at) if following == "{" else at
            matched = tuple(
                t
                for (k, t), (_, after) in zip(tokens[at:end], tokens[at + 1 : end + 1], strict=True)
                if k == "word" and after in ("=", "!=", "=~", "!~")
            )
            found.append(Use(token, matched))
            places.append((at, token))
            at = end
        at += 1
    for word, labels, begin in lists:
        end = _closing(tokens, begin) if word in _AGGREGATIONS else len(tokens)
        begin = begin if word in _AGGREGATIONS else 0
        over = tuple(metric for place, metric in places if begin <= place < end)
        found.append(Use("", labels, over))
    return found


def faults(expression: str, known: Mapping[str, set[str]]) -> list[str]:
    """Return what is used in *expression* and not in *known*, the labels of each metric."""
    found: list[str] = []
    for use in uses(expression):
        if use.metric and use.metric not in known:
            found.append(f"no metric {use.metric}")
            continue
        over = (use.metric,) if use.metric else use.over
        labels = {label for metric in over for label in known.get(metric, ())}
        found += [f"no label {one} of {', '.join(over)}" for one in use.labels if one not in labels]
    return found


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        token = _TOKEN.match(expression, at)
        if token is None:
            raise ValueError(f"cannot read {expression[at:]!r}")
        assert token.lastgroup is not None
        yield token.lastgroup, token[token.lastgroup]
        at = token.end()


def _index(tokens: list[tuple[str, str]], sign: str, begin: int) -> int:
    """Return the place of the first *sign* from *begin* on."""
    return tokens.index(("sign", sign), begin)


def _closing(tokens: list[tuple[str, str]], begin: int) -> int:
    """Return the place of the parenthesis that closes the one at *begin*."""
    if tokens[begin : begin + 1] != [("sign", "(")]:
        raise ValueError("write a list of labels before the argument: sum by (map) (...)")
    depth = 0
    for place in range(begin, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[place][1], 0)
        if not depth:
            return place
    raise ValueError("a parenthesis is not closed")
