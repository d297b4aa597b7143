"""A server in a process of its own, for what signals do: `python serving_child.py '{"drain_timeout": 1}' READY_FD`."""

import json
import signal
import sys

from fastapi import FastAPI, Request
from starlette.responses import Response

from landmark_onnx.cli.signals import interruptible
from landmark_onnx.serving.access_log import ServiceLog
from landmark_onnx.serving.guard import AccessRules, Guard
from landmark_onnx.serving.lifecycle import Lifecycle
from landmark_onnx.serving.metrics import Metrics
from landmark_onnx.serving.problems import install
from landmark_onnx.serving.server import Binding, serve
from landmark_onnx.serving.settings import Limits


def app(lifecycle: Lifecycle) -> FastAPI:
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    install(made)

    @made.get("/ready")
    async def ready() -> Response:
        return Response(status_code=503 if lifecycle.draining else 200)

    @made.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    return made


def main() -> int:
    interruptible()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    lifecycle = Lifecycle()
    log = ServiceLog()
    lifecycle.on_hangup += [lambda: 1 // 0, lambda: log.event("info", "hung up")]
    rules = AccessRules(limits=Limits(**json.loads(sys.argv[1])))
    ready_fd = int(sys.argv[2])
    code = serve(Guard(app(lifecycle), rules, lifecycle, log, Metrics(lifecycle)), Binding("127.0.0.1", 0, ready_fd))
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    sys.stderr.write(json.dumps({"event": "handlers restored"}) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
