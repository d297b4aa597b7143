"""A server of the tests' own under the page: it answers as the service does, and as badly as a test wants."""

import contextlib
import dataclasses
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
from python_multipart.multipart import parse_options_header

from landmark_onnx.serving.page_files import PAGE_HEADERS, page_files
from landmark_onnx.serving.payload import crop_of
from landmark_onnx.serving.problems import ProblemError

Json = dict[str, Any]
INFO: Json = {
    "version": "0.1.0",
    "models": [
        {"name": "embedder", "task": "retrieval"},
        {"name": "namer", "task": "cls"},
        {"name": "boxer", "task": "det"},
    ],
    "indexes": [
        {
            "name": "places",
            "rows": 60,
            "dim": 8,
            "generation": 7,
            "models": ["embedder"],
            "approximate": "hnsw",
            "labels": "folders",
        },
        {
            "name": "others",
            "rows": 3,
            "dim": 8,
            "generation": 1,
            "models": ["embedder"],
            "approximate": None,
            "labels": None,
        },
    ],
    "recognize": True,
    "detector": "boxer",
    "rules": ["person"],
    "limits": {"image_bytes": 32 << 20, "pixels": 50_000_000, "formats": ["JPEG", "PNG", "WebP"]},
    "steps": [
        {
            "name": "alpha-qe",
            "parameters": [
                {"name": "k", "default": 10, "min": 0, "max": 1000, "kind": "int"},
                {"name": "alpha", "default": 3.0, "min": 0, "max": None, "kind": "float"},
            ],
        },
        {
            "name": "k-reciprocal",
            "parameters": [
                {"name": "k1", "default": 20, "min": 1, "max": 1000, "kind": "int"},
                {"name": "k2", "default": 6, "min": 1, "max": 1000, "kind": "int"},
                {"name": "lambda", "default": 0.3, "min": 0, "max": 1, "kind": "float"},
                {"name": "candidates", "default": 1000, "min": 1, "max": 1000, "kind": "int"},
            ],
        },
        {
            "name": "diffusion",
            "parameters": [
                {"name": "k", "default": 50, "min": 2, "max": 1000, "kind": "int"},
                {
                    "name": "graph",
                    "default": "candidates",
                    "min": None,
                    "max": None,
                    "kind": "choice",
                    "choices": ["candidates"],
                },
            ],
        },
    ],
    "may": ["read"],
    "key_required": False,
    "queue": {"images": 0, "seconds": 0},
}
TOOK = {"queue": 0.004, "decode": 0.031, "preprocess": 0.006, "inference": 0.402, "postprocess": 0.0001}


@dataclasses.dataclass
class Ask:
    """A request as it came. image: the bytes of its picture, if it had one."""

    method: str
    path: str
    query: dict[str, list[str]]
    options: Json = dataclasses.field(default_factory=dict)
    image: bytes | None = None
    name: str = ""
    id: str | None = None
    index: str = ""
    key: str = ""
    body: bytes = b""


class Answer(Exception):  # noqa: N818
    """An answer that is none of the usual."""

    def __init__(self, status: int, body: Json | bytes, media_type: str = "application/json", **headers: str) -> None:
        self.status, self.media_type, self.headers = status, media_type, headers
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


def problem(status: int, kind: str, title: str, detail: str, **members: Any) -> Answer:
    said = {"type": f"urn:x-landmark-onnx:{kind}", "title": title, "status": status, "detail": detail}
    said["instance"] = f"urn:uuid:{uuid.UUID(int=status)}"
    headers = {"Retry-After": str(members["retry_after"])} if "retry_after" in members else {}
    return Answer(status, said | members, "application/problem+json", **headers)


@dataclasses.dataclass
class World:
    """What the server has and does. A test sets what it wants to see.

    hits: of any search, (id, score, landmark). pictures: id -> JPEG of any size; an id that is not in it has lost it.
    before: called with each request of the API; may raise Answer, or wait. waiting: paths
    of those that wait until their client leaves. gone: paths whose client left before the answer.
    """

    info: Json = dataclasses.field(default_factory=lambda: json.loads(json.dumps(INFO)))
    hits: Callable[[Ask], Sequence[tuple[str, float, str | None]]] = lambda ask: HITS
    recognition: Json | None = None
    labels: Sequence[Json] = ({"index": 3, "score": 0.75, "name": "tower"}, {"index": 4, "score": 0.125, "name": None})
    detections: Sequence[Json] = ()
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    before: Callable[[Ask, "Handler"], None] = lambda ask, handler: None
    asked: list[Ask] = dataclasses.field(default_factory=list)
    waiting: queue.SimpleQueue[str] = dataclasses.field(default_factory=queue.SimpleQueue)
    gone: queue.SimpleQueue[str] = dataclasses.field(default_factory=queue.SimpleQueue)
    over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def of(self, path: str) -> list[Ask]:
        return [ask for ask in self.asked if ask.path == path]

    def row(self, name: str) -> Json:
        return next(each for each in self.info["indexes"] if each["name"] == name)

    def answer(self, ask: Ask) -> Json:
        if ask.path == "/v1/info":
            return self.info
        parts = ask.path.split("/")
        if parts[2] == "indexes" and parts[4] == "image":
            raise self._picture(ask.query["id"][0], int(ask.query["side"][0]))
        if parts[2] == "indexes":
            return self._found(ask, parts[3])
        if "crop" in ask.options:
            try:
                crop_of(ask.options["crop"], "options", "crop")
            except ProblemError as error:
                raise problem(422, "invalid", "A value is not as it must be", str(error)) from error
        result: Json = {"position": 0, "image": ask.name, "size": self._size(ask)}
        if parts[2] == "search":
            return self._found(ask, ask.options["index"])
        kinds = {
            "recognize": lambda: self.recognition or recognition_of(self.hits(ask)),
            "classify": lambda: {"labels": list(self.labels)},
            "detect": lambda: {"detections": list(self.detections)},
        }
        return {"results": [result | kinds[parts[2]]()], "took": TOOK}

    def _found(self, ask: Ask, index: str) -> Json:
        top = int(ask.options.get("top") or ask.query["top"][0])
        hits = list(self.hits(ask))[:top]
        neighbours = [
            {"rank": rank, "id": name, "score": score, **({"landmark": landmark} if landmark else {})}
            for rank, (name, score, landmark) in enumerate(hits, 1)
        ]
        result = {"position": 0, "image": ask.name, "neighbours": neighbours}
        facts = {key: self.row(index)[key] for key in ("name", "generation", "rows")}
        return {"index": facts, "models": [], "results": [result], "took": TOOK | {"search": 0.005}}

    def _picture(self, name: str, side: int) -> Answer:
        if name not in self.pictures:
            return problem(404, "not-found", "There is no such", "gone")
        image = cv2.imdecode(np.frombuffer(self.pictures[name], np.uint8), cv2.IMREAD_COLOR)
        scale = side / max(image.shape)
        made = jpeg(cv2.resize(image, None, fx=scale, fy=scale)) if scale < 1 else self.pictures[name]
        return Answer(200, made, "image/jpeg")

    def _size(self, ask: Ask) -> list[int]:
        data = ask.image if ask.image is not None else self.pictures[str(ask.id)]
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise problem(422, "bad-image", "The image cannot be read", f"{ask.name}: cut off after {len(data)} bytes")
        return [image.shape[1], image.shape[0]]


HITS: Sequence[tuple[str, float, str | None]] = [
    (f"photos/{number:02d}.jpg", round(0.9 - number / 100, 4), ("tower", "bridge")[number % 2]) for number in range(60)
]


def recognition_of(hits: Sequence[tuple[str, float, str | None]]) -> Json:
    """As the product sums them: twice the cosine less one, of the nearest three."""
    near = [
        {"id": name, "landmark": landmark, "cosine": score, "vote": 2 * score - 1} for name, score, landmark in hits[:3]
    ]
    sums: dict[str, float] = {}
    for vote in near:
        if vote["landmark"]:
            sums[vote["landmark"]] = sums.get(vote["landmark"], 0) + vote["vote"]
    best = sorted(sums.items(), key=lambda pair: -pair[1])
    candidates = [{"landmark": name, "score": value, "neighbours": value, "classifiers": 0.0} for name, value in best]
    landmark, score = best[0] if best else (None, None)
    return {
        "landmark": landmark,
        "score": score,
        "labels": "folders",
        "candidates": candidates,
        "neighbours": near,
        "classes": [],
        "no_landmark": [],
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "PageServer"

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if (file := page_files().get(path)) is not None:
            self.send(Answer(200, file.data, file.media_type, **dict(PAGE_HEADERS)))
            return
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        world, ask = self.server.world, self.read(body)
        world.asked.append(ask)
        try:
            world.before(ask, self)
            self.send(Answer(200, world.answer(ask)))
        except Answer as answer:
            self.send(answer)
        except OSError:
            world.gone.put(ask.path)
            self.close_connection = True

    def read(self, body: bytes) -> Ask:
        parts = urlsplit(self.path)
        key = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        ask = Ask(self.command, parts.path, parse_qs(parts.query), key=key, body=body)
        kind, facts = parse_options_header(self.headers["Content-Type"] or "")
        if kind == b"multipart/form-data":
            _multipart(ask, body, facts[b"boundary"])
        elif kind == b"application/json":
            said = json.loads(body)
            ask.options, ask.id = said["options"], said["images"][0]["id"]
            ask.index = said["images"][0]["index"]
        return ask

    def send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Type": answer.media_type}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def left(self) -> bool:
        """Whether the client has closed its connection; it sends nothing while it waits."""
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.setblocking(True)

    def wait_until_left(self, ask: Ask, seconds: float = 60) -> None:
        """Until the client leaves, which is an OSError here as it would be at the next write."""
        self.server.world.waiting.put(ask.path)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.server.world.over.wait(0.02):
            if self.left():
                raise ConnectionResetError
        raise problem(504, "timeout", "Too late", "the test ended")

    def log_message(self, *_: Any) -> None:
        """Silence."""


def _multipart(ask: Ask, body: bytes, boundary: bytes) -> None:
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, data = part[2:-2].partition(b"\r\n\r\n")
        if b'name="image"' in head:
            ask.image = data
            ask.name = head.decode().partition('filename="')[2].partition('"')[0]
        else:
            ask.options = json.loads(data)


class PageServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, world: World) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.world = world
        self.address = f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_: Any) -> None:
        """A browser that leaves early is what some tests are about."""


@contextlib.contextmanager
def page_server(world: World) -> Iterator[PageServer]:
    server = PageServer(world)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        world.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """(H, W, 3) BGR uint8 -> a JPEG."""
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
