"""Requests and responses: their items, one after the other (docs/packed.md sections 4 and 5)."""

import urllib.parse
from dataclasses import dataclass, field

from aliases import QUERY
from errors import DecodeError
from roles import ALIAS, BASE, BODY, ROUTE, VALUE
from roles import QUERY as QUERY_NAME
from roles import ROUTES as ROUTE_NAMES
from strings import Strings, known
from tables import METHODS, ROUTES
from values import Clock, Values

# The characters that stand for themselves in a segment of a path, and in a token that goes into a query.
SEGMENT_SAFE = "!$&'()*,=:@-._~"
TOKEN_SAFE = "!$'()*,:@/?-._~"


@dataclass
class Mark:
    """What both ends know with a token: its number, the last time, the next recent number (section 10)."""

    number: int = 0
    time: int = 0
    recent: int = 0


@dataclass
class Request:
    """A request, and what the answer to it is read with."""

    route: int
    method: str
    target: str
    body: object
    transaction: int | None = None
    mark: Mark = field(default_factory=Mark)


@dataclass
class Response:
    """A response or a notification; a status that the code says is None."""

    status: int | None
    body: object
    position: int | None = None


def read_request_items(head, items, sender, receiver, asked):
    """The items of a request, and what it gives."""
    items.at(BASE, ROUTE_NAMES)
    gift = sender.gift(items.varint(BASE) if head.has_base else None)
    strings = Strings(items, gift, receiver, asked)
    items.at(ROUTE, 0)
    route = items.varint(ROUTE)
    if route > len(ROUTES):
        raise DecodeError("UnknownRoute", f"{route}")
    items.at(VALUE, ROUTE_NAMES + route)
    method, path = _read_path(items, strings, route)
    items.at(VALUE, QUERY_NAME)
    query = _read_query(items, strings)
    items.at(VALUE, BODY)
    body = Values(items, strings, Clock(0)).body()
    target = path if query is None else f"{path}?{query}"
    return Request(route, method, target, body), gift


def read_response_items(head, items, sender, receiver, answered):
    """The body of a response or a notification from its base on, what it gives, and its last time."""
    name, mark = items.name, answered.mark
    items.at(BASE, name)
    gift = sender.gift(mark.recent + items.zigzag(BASE) if head.has_base else None)
    items.at(VALUE, name)
    clock = Clock(mark.time)
    body = Values(items, Strings(items, gift, receiver, answered), clock).body()
    return body, gift, clock.last


def _read_path(items, strings, number):
    if number:
        route = ROUTES[number - 1]
        method = route.method
        segments = [strings.read() if s.startswith("{") else s for s in route.segments]
    else:
        method = items.code()
        if method >= len(METHODS):
            raise DecodeError("Code", f"method {method}")
        method, segments = METHODS[method], []
        while (first := items.code()) != 0x7F:
            segments.append(strings.read(first))
    if not segments or "." in segments or ".." in segments:
        raise DecodeError("Path")
    return method, "".join("/" + urllib.parse.quote(s, safe=SEGMENT_SAFE) for s in segments)


def _read_query(items, strings):
    """The query, with its tokens where they were; None for none."""
    first = items.code()
    if first == 0x2B:
        return None
    if first == 0x7B:
        query = known(strings.gift, QUERY, items.varint(ALIAS))
    elif first == 0x60:
        number = items.varint(ALIAS)
        if items.code() != 0x50:
            raise DecodeError("Code", "a query that is no text")
        query = items.text()
        strings.gift.give(QUERY, number, query)
    else:
        query = strings.read(first)
    first, *parts = query.split("\x01")
    query = first + "".join(_fill(items, strings) + part for part in parts)
    if any(character in "#\x7f" or character <= " " for character in query):
        raise DecodeError("Path", "no query has this in it")
    return query


def _fill(items, strings):
    """A token in a query, as it stands there."""
    first = items.code()
    string = strings.read(first)
    return urllib.parse.quote(string, safe=TOKEN_SAFE) if first in (0x6C, 0x6D) else string
