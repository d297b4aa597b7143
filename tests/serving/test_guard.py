"""Who may ask, from where, for how much; and what every answer and every line of the log has."""

import asyncio
import hashlib
import ipaddress
import json
import threading

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from landmark_onnx.errors import SessionError
from landmark_onnx.serving.guard import AccessRules, Guard
from landmark_onnx.serving.keys import Keys
from landmark_onnx.serving.problems import ProblemError, install
from landmark_onnx.serving.settings import Limits
from serving_client import request, running, until

KEY = "a-key-that-is-long-enough"
READER, SCRAPER = "r" * 20, "m" * 20
PATHS = ("/", "/assets/a.js", "/healthz", "/v2/health/live", "/v2/health/ready", "/metrics", "/openapi", "/v1/who")


def app() -> FastAPI:
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    install(made)
    routes = APIRouter(prefix="/v1")

    @routes.get("/who")
    @routes.post("/who")
    async def who(request: Request) -> dict[str, object]:
        state = request.scope["state"]
        state["log"].update(images=2, model="m", queue_seconds=0.5)
        return {"client": state["client"], "may": sorted(state["may"]), "id": state["request_id"]}

    @routes.get("/things/{name}")
    async def thing(name: str) -> Response:
        return Response(name, headers={"Cache-Control": "max-age=60"})

    @routes.get("/fail")
    async def fail() -> None:
        raise SessionError("/secret/path")

    @routes.get("/crash")
    async def crash() -> None:
        raise RuntimeError("/secret/path")

    @routes.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    for path in PATHS[:-1]:
        made.get(path)(who)
    made.include_router(routes)
    return made


@pytest.fixture(scope="module")
def server():
    with running(app(), AccessRules(limits=Limits(request_bytes=100))) as served:
        yield served


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    lines = [
        f'{name} = {{ sha256 = "{hashlib.sha256(key.encode()).hexdigest()}", may = ["{may}"] }}'
        for name, key, may in (("reader", READER, "read"), ("scraper", SCRAPER, "metrics"))
    ]
    file.write_text("\n".join(lines))
    with running(app(), AccessRules(keys=Keys(file, KEY))) as served:
        yield served


@pytest.fixture(scope="module")
def proxied():
    rules = AccessRules(
        hosts=frozenset({"PHOTOS.example"}),
        proxies=(ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8")),
        cors=frozenset({"https://page.example"}),
    )
    with running(app(), rules) as served:
        yield served


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9", 200),
        ("localhost.", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:80", 200),
        ("[::1]:80", 200),
        ("[::ffff:127.0.0.1]", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("photos.example", 403),
        ("192.0.2.1", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost:99999999", 403),
        ("local host", 403),
        ("localhost/x", 403),
        ("user@localhost", 403),
        ("[::1", 403),
        ("0", 403),
        ("a" * 5000, 403),
    ],
)
def test_a_host_is_a_name_of_this_server(server, host, status):
    answer = server.ask("GET", "/v1/who", host=host)
    assert answer.status == status
    assert status == 200 or answer.kind == "foreign-host"


def test_more_names_may_be_given(proxied):
    for host in ("photos.example", "Photos.Example:443", "localhost"):
        assert proxied.ask("GET", "/v1/who", host=host).status == 200


def test_http_1_0_without_a_host_is_refused(server):
    with server.wire("GET /v1/who HTTP/1.0\r\n\r\n") as wire:
        assert wire.answer().kind == "foreign-host"
        assert wire.closed


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"origin": "http://localhost"}, 200),
        ({"origin": "https://LOCALHOST"}, 200),
        ({"origin": "http://localhost:3000", "sec_fetch_site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "localhost"}, 403),
        ({"origin": "https://page.example"}, 403),
    ],
)
def test_a_page_of_another_site_does_not_post(server, headers, status):
    answer = server.ask("POST", "/v1/who", **headers)
    assert answer.status == status
    assert status == 200 or answer.kind == "foreign-site"
    assert server.ask("GET", "/v1/who", **headers).status == 200


def test_other_origins_are_off(server):
    headers = server.ask("GET", "/v1/who", origin="https://page.example").headers
    assert not [name for name in headers if name.startswith("access-control")]
    answer = server.ask("OPTIONS", "/v1/who", origin="https://page.example", access_control_request_method="POST")
    assert answer.kind == "method-not-allowed"


def test_an_origin_that_is_named_may_ask(proxied):
    origin = "https://page.example"
    asked = proxied.ask("OPTIONS", "/v1/who", origin=origin, access_control_request_method="POST")
    assert (asked.status, asked.body) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == origin
    assert asked.headers["access-control-allow-methods"] == "GET, POST"
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    answer = proxied.ask("POST", "/v1/who", origin=origin, sec_fetch_site="cross-site")
    assert (answer.status, answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (
        200,
        origin,
        "Origin",
    )
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    for other in (f"{origin}:443", f"{origin}.evil.example", "http://page.example"):
        assert proxied.ask("POST", "/v1/who", origin=other).kind == "foreign-site"
        assert "access-control-allow-origin" not in proxied.ask("GET", "/v1/who", origin=other).headers


@pytest.mark.parametrize("text", ["https://a.example/", "a.example", "https://A.example", "https://", "https://a b"])
def test_an_origin_that_no_browser_sends_is_told_at_the_start(text):
    with pytest.raises(ValueError, match="is no origin: wanted one as https"):
        AccessRules(cors=frozenset({text}))
    AccessRules(cors=frozenset({"https://a.example:8443", "http://[::1]:80", "chrome-extension://abc"}))


def test_any_origin_may_not_ask_where_keys_are_needed():
    AccessRules(cors=frozenset({"*"}))
    with pytest.raises(ValueError, match="name the origins"):
        AccessRules(cors=frozenset({"*"}), keys=Keys(environment=KEY))


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        "Bearer \xff",
        "Bearer " + "a" * 9000,
    ],
)
def test_without_a_key_of_this_server_there_is_nothing_to_see(locked, authorization):
    wanted = None
    for path in ("/v1/who", "/metrics", "/openapi", "/nothing", "/assetsx", "/healthz/x"):
        answer = locked.ask("GET", path, authorization=authorization)
        assert (answer.status, answer.kind) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == 'Bearer realm="landmark-onnx"'
        said = {**answer.json, "instance": ""}
        assert said == (wanted or said)
        wanted = said


def test_the_page_and_probes_need_no_key(locked):
    for path in PATHS[:5]:
        assert locked.ask("GET", path).json["may"] == []


@pytest.mark.parametrize(
    ("key", "name", "path", "may"),
    [
        (KEY, "environment", "/v1/who", ["metrics", "read"]),
        (KEY, "environment", "/metrics", ["metrics", "read"]),
        (READER, "reader", "/v1/who", ["read"]),
        (SCRAPER, "scraper", "/metrics", ["metrics"]),
    ],
)
def test_a_key_names_the_client_and_what_it_may(locked, key, name, path, may):
    for scheme in ("Bearer", "bearer"):
        said = locked.ask("GET", path, authorization=f"{scheme} {key}").json
        assert (said["client"], said["may"]) == (name, may)


def test_what_a_key_does_not_permit(locked):
    for key, path in ((READER, "/metrics"), (SCRAPER, "/v1/who"), (SCRAPER, "/nothing")):
        assert locked.ask("GET", path, authorization=f"Bearer {key}").kind == "forbidden"


def test_without_keys_everything_may_be_asked(server):
    said = server.ask("GET", "/v1/who").json
    assert (said["client"], said["may"]) == ("127.0.0.0/24", ["metrics", "read"])


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("", "127.0.0.0/24"),
        ("203.0.113.77", "203.0.113.0/24"),
        ("203.0.113.77, 10.1.1.1", "203.0.113.0/24"),
        ("198.51.100.1, 203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2ff::1", "2001:db8:1:200::/56"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        ("unknown", "127.0.0.0/24"),
        ("203.0.113.77, unknown", "127.0.0.0/24"),
        ("10.1.1.1", "10.1.1.0/24"),
        ("203.0.113.77:80", "127.0.0.0/24"),
    ],
)
def test_a_proxy_that_is_believed_names_the_client(proxied, server, forwarded, client):
    assert proxied.ask("GET", "/v1/who", x_forwarded_for=forwarded).json["client"] == client
    assert server.ask("GET", "/v1/who", x_forwarded_for=forwarded).json["client"] == "127.0.0.0/24"


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 64])
def test_a_request_may_bring_its_id(server, given):
    answer = server.ask("GET", "/v1/who", x_request_id=given)
    assert answer.headers["x-request-id"] == answer.json["id"] == given
    assert server.ask("GET", "/nothing", x_request_id=given).json["instance"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "\xe4", "a\x7f"[:1] + ";"])
def test_another_id_is_made(server, given):
    answer = server.ask("GET", "/v1/who", x_request_id=given)
    assert len(answer.json["id"]) == 36
    assert answer.headers["x-request-id"] == answer.json["id"]


def test_an_error_of_ours_says_its_id_alone(server):
    for path in ("/v1/fail", "/v1/crash"):
        answer = server.ask("GET", path)
        assert (answer.status, answer.kind) == (500, "internal")
        assert b"secret" not in answer.body
        request_id = answer.headers["x-request-id"]
        assert answer.json["instance"] == f"urn:uuid:{request_id}"
        until(lambda wanted=request_id: [each for each in server.records if each.get("request_id") == wanted])
        traces = [each["traceback"] for each in server.records if request_id in each.get("event", "")]
        assert len(traces) == 1
        assert "/secret/path" in traces[0]


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server):
    with server.wire(request("POST", "/v1/body", content_length="101", expect="100-continue")) as wire:
        answer = wire.answer()
        assert (answer.kind, answer.json["limit"], answer.json["got"]) == ("body-too-large", 100, 101)
        assert answer.headers["connection"] == "close"
        assert wire.closed


def test_a_client_that_asks_first_is_told_to_go_on(server):
    with server.wire(request("POST", "/v1/body", content_length="3", expect="100-continue")) as wire:
        assert wire.socket.recv(100).startswith(b"HTTP/1.1 100 ")
        assert wire.send("abc").answer().json == 3


def test_a_refused_client_reads_its_answer_though_it_goes_on_sending():
    with running(app(), AccessRules(limits=Limits(request_bytes=100))) as server:
        size = 8 << 20
        with server.wire(request("POST", "/v1/body", content_length=str(size)), b"a" * size) as wire:
            assert wire.answer().kind == "body-too-large"
            assert wire.closed


def test_a_cache_control_of_a_routes_own_stays(server):
    assert server.ask("GET", "/v1/things/a").headers["cache-control"] == "max-age=60"


def test_the_log_has_a_line_for_each_request_and_no_query():
    with running(app(), AccessRules(limits=Limits(request_bytes=100))) as server:
        server.ask("POST", "/v1/who?secret=1", x_request_id="a")
        server.ask("GET", "/v1/things/a%2fsecret", x_request_id="b")
        server.ask("POST", "/v1/who", host="evil.example", x_request_id="c")
        server.ask("POST", "/v1/body", b"abc", x_request_id="d")
        lines = server.access(4)
    assert "secret" not in server.log.getvalue()
    for line in lines:
        assert (line.pop("level"), line.pop("client")) == ("info", "127.0.0.0/24")
        assert line.pop("ts").endswith("Z")
        assert 0 <= line.pop("seconds") < 60
    who, thing, foreign, body = lines
    assert who == {
        "request_id": "a",
        "method": "POST",
        "route": "/v1/who",
        "status": 200,
        "bytes_in": 0,
        "bytes_out": who["bytes_out"],
        "images": 2,
        "model": "m",
        "queue_seconds": 0.5,
    }
    assert (thing["status"], thing.get("route")) == (404, None)
    assert {key: foreign[key] for key in ("status", "problem", "stage")} == {
        "status": 403,
        "problem": "foreign-host",
        "stage": "admission",
    }
    assert (body["bytes_in"], body["bytes_out"], body["route"]) == (3, 1, "/v1/body")


def test_the_log_may_be_text_or_none():
    with running(app(), form="text") as server:
        server.ask("GET", "/v1/things/a", x_request_id="a")
        until(lambda: "request_id" in server.log.getvalue())
    line = server.log.getvalue().splitlines()[0]
    assert " info request_id=a client=127.0.0.0/24 method=GET route=/v1/things/{name} status=200 bytes_in=0 " in line
    with running(app(), form="off") as server:
        server.ask("GET", "/v1/crash")
    assert "status=" not in server.log.getvalue()
    assert "RuntimeError" in server.log.getvalue()
    assert "stopped accepted=1 answered=1 abandoned=0" in server.log.getvalue()


def test_a_client_that_leaves_is_abandoned():
    waiting = threading.Event()

    async def slow(scope, receive, send):
        waiting.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    with running(slow) as server:
        with server.wire(request("GET", "/")):
            assert waiting.wait(20)
        [line] = server.access()
    assert line["status"] == 499
    assert (server.lifecycle.accepted, server.lifecycle.answered, server.lifecycle.abandoned) == (1, 0, 1)


def test_the_guard_answers_what_the_application_raises():
    async def raising(scope, receive, send):
        if scope["path"] == "/problem":
            raise ProblemError("timeout", "too long")
        if scope["path"] == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise RuntimeError("secret")

    with running(raising) as server:
        assert server.ask("GET", "/problem").kind == "timeout"
        assert server.ask("GET", "/crash").kind == "internal"
        with server.wire(request("GET", "/half")) as wire:
            received = b""
            while piece := wire.socket.recv(1000):
                received += piece
        assert received.endswith(b"\r\n\r\na")


def test_requests_are_counted(server):
    server.ask("GET", "/v1/things/counted")
    server.ask("PROPFIND", "/v1/things/counted")
    until(lambda: b'method="other"' in server.metrics.render())
    text = server.metrics.render().decode()
    assert 'landmark_onnx_http_requests_total{method="GET",route="/v1/things/{name}",status="200"}' in text
    assert 'landmark_onnx_http_requests_total{method="other",route="/v1/things/{name}",status="405"} 1.0' in text
    assert 'landmark_onnx_rejected_total{reason="method-not-allowed"}' in text
    assert "counted" not in text


def test_what_is_no_request_goes_through():
    """uvicorn's start and end, which an application may listen to."""
    seen = []

    async def inner(scope, receive, send):
        seen.append(scope["type"])

    guard = Guard(inner, AccessRules(), None, None, None)
    asyncio.run(guard({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
    assert json.dumps(seen)
