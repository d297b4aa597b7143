"""What stands before every route: who asks, from where, for how much; and what every answer has, and the log says.

An ASGI application around the service's own, and no middleware of a framework, which would hide that a client left.
"""

import asyncio
import dataclasses
import ipaddress
import logging
import re
import uuid
from collections.abc import Mapping
from typing import TypeAlias

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from landmark_onnx.serving.access_log import ServiceLog
from landmark_onnx.serving.body import CLOSE, declared_length
from landmark_onnx.serving.exchange import Exchange
from landmark_onnx.serving.keys import ALL, Keys, Permission
from landmark_onnx.serving.lifecycle import Lifecycle
from landmark_onnx.serving.metrics import Metrics
from landmark_onnx.serving.problems import CLIENT_LEFT, ProblemError, problem_of
from landmark_onnx.serving.settings import Limits

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

OPEN = frozenset({"/", "/healthz", "/v2/health/live", "/v2/health/ready"})
"""What needs no key, beside `OPEN_FOLDER`: the page, which then asks for one, and probes."""
OPEN_FOLDER = "/assets/"
NEEDS: Mapping[str, Permission] = {"/metrics": "metrics"}
"""What a key must permit; everything else, the API's description too, is `read`."""

HEADER_BYTES = 16 << 10
"""Of a target and all header fields; h11 has the same limit, but not for what ends in the piece that passes it."""

EXPOSED = b"ETag, Failed-Images, Retry-After, X-Request-Id"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#A-Z\s]+")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Who may ask. hosts: names of this server beside those of the loopback and the address that was connected to.

    proxies: whose X-Forwarded-For is believed. cors: origins whose pages may ask; "*" is any. keys: None asks for none.
    Raises: ValueError for "*" together with keys, and for what no browser calls an origin.
    """

    hosts: frozenset[str] = frozenset()
    proxies: tuple[Network, ...] = ()
    cors: frozenset[str] = frozenset()
    keys: Keys | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        if "*" in self.cors and self.keys is not None:
            raise ValueError("any origin ('*') may not ask where keys are needed: name the origins")
        for origin in self.cors - {"*"}:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: wanted one as https://example.org, in small letters")


class Guard:
    """The application with all that is around it; each of its answers has an X-Request-Id."""

    def __init__(
        self, app: ASGIApp, rules: AccessRules, lifecycle: Lifecycle, log: ServiceLog, metrics: Metrics
    ) -> None:
        self.rules, self.lifecycle, self.log = rules, lifecycle, log
        self._app, self._metrics = app, metrics
        self._hosts = frozenset(name.lower() for name in rules.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.lifecycle.accepted += 1
        exchange = Exchange(scope, receive, send, self.lifecycle)
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(headers)
        state["client"] = address = self._address(scope, headers)
        state["may"], state["log"] = frozenset(), {}
        exchange.headers = [
            (b"x-request-id", state["request_id"].encode()),
            *self._cors(headers),
        ]
        try:
            await self._answer(scope, exchange)
        except Exception as error:
            await self._failed(scope, exchange, error)
        except asyncio.CancelledError:
            problem = ProblemError("draining", "the server ends, and this took too long", retry_after=1)
            await self._refuse(scope, exchange, problem)
        finally:
            self._ended(scope, exchange, address)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        try:
            early = self._admit(scope)
        except ProblemError as problem:
            scope["state"]["log"]["stage"] = "admission"
            await self._refuse(scope, exchange, problem)
            return
        await (early or self._app)(scope, exchange.receive, exchange.send)

    def _admit(self, scope: Scope) -> Response | None:
        """The answer to a browser that asks whether its page may ask. Raises: ProblemError."""
        headers = Headers(scope=scope)
        _check_form(scope, headers)
        self._check_host(scope, headers)
        self._check_site(scope["method"], headers)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers and self._cors(headers):
            return _preflight()
        self._check_key(scope, headers)
        declared_length(headers, self.rules.limits)
        return None

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        found = _HOST.fullmatch(headers.get("host", ""))
        name = found[1].lower().rstrip(".") if found else ""
        here = scope.get("server") or ("", 0)
        if not (name == "localhost" or name in self._hosts or _is_address(name, here[0])):
            raise ProblemError("foreign-host", "the Host is no name of this server: see --allow-host")

    def _check_site(self, method: str, headers: Headers) -> None:
        """A page of another site may show what it cannot read, but not make the server work."""
        origin = headers.get("origin")
        if method in _READING or (origin is not None and self._allows(origin)):
            return
        own = origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()
        if headers.get("sec-fetch-site") == "cross-site" or not own:
            raise ProblemError("foreign-site", "a page of another site asks: see --cors")

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        state, keys, path = scope["state"], self.rules.keys, scope["path"]
        if keys is None:
            state["may"] = ALL
            return
        if path in OPEN or path.startswith(OPEN_FOLDER):
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        found = keys.find(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            challenge = {"WWW-Authenticate": 'Bearer realm="landmark-onnx"'}
            raise ProblemError(
                "unauthorized", "wanted Authorization: Bearer KEY, with a key of this server", headers=challenge
            )
        state["client"], state["may"] = found
        if (needed := NEEDS.get(path, "read")) not in state["may"]:
            raise ProblemError("forbidden", f"this key does not permit {needed!r}")

    def _allows(self, origin: str) -> bool:
        return "*" in self.rules.cors or origin in self.rules.cors

    def _cors(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        origin = headers.get("origin")
        if origin is None or not self._allows(origin):
            return [(b"vary", b"Origin")] if self.rules.cors else []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED),
            (b"vary", b"Origin"),
        ]

    def _address(self, scope: Scope, headers: Headers) -> str:
        """The client's network: what a proxy that is believed says, from its end, else who is connected."""
        known = (scope.get("client") or ("", 0))[0]
        forwarded = ",".join(headers.getlist("x-forwarded-for")).split(",")
        while forwarded and (address := _parsed(known)) and any(address in each for each in self.rules.proxies):
            said = forwarded.pop().strip()
            if not _parsed(said):
                break
            known = said
        return _cut(known)

    async def _refuse(self, scope: Scope, exchange: Exchange, problem: ProblemError) -> None:
        state = scope["state"]
        if exchange.status is None:
            state["log"]["problem"] = problem.kind
            await problem.response(state["request_id"])(scope, exchange.receive, exchange.send)

    async def _failed(self, scope: Scope, exchange: Exchange, error: Exception) -> None:
        """What the application's own handlers did not answer, or not alone."""
        if exchange.status is None or not exchange.complete:
            logger.error("request %s failed", scope["state"]["request_id"], exc_info=error)
        await self._refuse(scope, exchange, problem_of(error))

    def _ended(self, scope: Scope, exchange: Exchange, address: str) -> None:
        state = scope["state"]
        if exchange.complete and not exchange.gone:
            self.lifecycle.answered += 1
        else:
            self.lifecycle.abandoned += 1
        status = CLIENT_LEFT if exchange.gone or exchange.status is None else exchange.status
        route = getattr(scope.get("route"), "path", None)
        seconds = exchange.seconds or exchange.elapsed()
        record = {
            "request_id": state["request_id"],
            "client": state["client"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "bytes_in": exchange.bytes_in,
            "bytes_out": exchange.bytes_out,
            "seconds": round(seconds, 6),
            **state["log"],
        }
        self.log.access(record)
        self._metrics.answered(scope["method"], route, status, seconds, exchange.bytes_in)
        if problem := state["log"].get("problem"):
            self._metrics.rejected(problem)

    def refused(self, problem: ProblemError, client: str) -> str:
        """A connection whose bytes are no request: log it. Returns: the id for its answer."""
        request_id = str(uuid.uuid4())
        self.log.access(
            {
                "request_id": request_id,
                "client": _cut(client),
                "status": problem.status,
                "problem": problem.kind,
                "stage": "connection",
            }
        )
        self._metrics.rejected(problem.kind)
        return request_id


def _check_form(scope: Scope, headers: Headers) -> None:
    """Raises: ProblemError for what h11 lets pass: other versions, long headers, two ways to say where a body ends."""
    size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(each) for pair in headers.raw for each in pair)
    if scope["http_version"] not in ("1.0", "1.1"):
        raise ProblemError("bad-request", "wanted HTTP/1.1", headers=CLOSE)
    if size > HEADER_BYTES:
        detail = f"a request's header has at most {HEADER_BYTES:,} bytes"
        raise ProblemError("bad-request", detail, limit=HEADER_BYTES, got=size, headers=CLOSE)
    if "transfer-encoding" in headers and "content-length" in headers:
        # A proxy before us may have believed the other one (RFC 9112, 6.3).
        raise ProblemError("bad-request", "Content-Length together with Transfer-Encoding", headers=CLOSE)


def _request_id(headers: Headers) -> str:
    given = headers.getlist("x-request-id")
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else str(uuid.uuid4())


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_address(name: str, here: str) -> bool:
    """Whether a Host is an address of the loopback, or the one that was connected to, which no foreign name is."""
    address = _parsed(name.strip("[]"))
    return address is not None and (address.is_loopback or address == _parsed(here))


def _cut(text: str) -> str:
    """An address without what names one person's device: /24, or /56.

    >>> _cut("192.0.2.77"), _cut("2001:db8:1:2ff::1")
    ('192.0.2.0/24', '2001:db8:1:200::/56')
    """
    address = _parsed(text)
    if address is None:
        return "local"
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 56), strict=False))


def _preflight() -> Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, X-Request-Id",
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=headers)
