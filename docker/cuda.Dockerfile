# Pin the base images by digest where you build.
#
#   docker build -f docker/cuda.Dockerfile -t landmark-onnx:cuda .
#   docker run --rm --gpus all -v "$PWD/bundle:/models:ro" -v "$PWD/photos:/photos:ro" landmark-onnx:cuda \
#       retrieval -m res152_arcmargin --provider cuda /photos/a.jpg /photos/b.jpg
#   docker run --rm --gpus all -p 127.0.0.1:8080:8080 -v "$PWD/bundle:/models:ro" -v "$PWD/places:/places:ro" \
#       landmark-onnx:cuda serve -i /places --provider cuda --host 0.0.0.0 --no-key
#
# CUDA 13, cuBLAS and cuDNN come from pip with onnxruntime-gpu, so the base needs none; the host brings NVIDIA's driver
# (r580 or newer) and its container runtime, which puts libcuda.so.1 here. Models come from a bundle at /models. Paddle
# is in neither stage: exporting is another machine's work.

FROM python:3.12-slim-bookworm AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Dependencies first: a change of the code leaves their layer alone.
COPY constraints/serve-gpu.txt constraints/serve-gpu.txt
RUN python -m venv /opt/landmark-onnx \
 && /opt/landmark-onnx/bin/python -m pip install --no-deps --only-binary :all: --require-hashes -r constraints/serve-gpu.txt
COPY pyproject.toml README.md LICENSE ./
COPY landmark_onnx/ landmark_onnx/
COPY export/ export/
COPY models/ models/
COPY benchmarks/landmark_onnx_bench/ benchmarks/landmark_onnx_bench/
RUN python -m pip wheel --no-deps --wheel-dir /wheels . \
 && /opt/landmark-onnx/bin/python -m pip install --no-deps --no-index --find-links /wheels landmark-onnx \
 && /opt/landmark-onnx/bin/python -m pip check

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="landmark-onnx" org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 landmark \
 && useradd --uid 10001 --gid 10001 --create-home --no-log-init --shell /usr/sbin/nologin landmark \
 && install --directory --owner 10001 --group 10001 /models /work
COPY --from=builder /opt/landmark-onnx /opt/landmark-onnx
ENV PATH="/opt/landmark-onnx/bin:$PATH" \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LANDMARK_ONNX_HOME=/models \
    LANDMARK_ONNX_OFFLINE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /work
VOLUME ["/models"]
EXPOSE 8080
# Of `serve`; the other commands end before it is asked.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=8)"]
ENTRYPOINT ["landmark-onnx"]
CMD ["--help"]
