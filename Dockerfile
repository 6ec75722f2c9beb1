# A worker that answers JSON lines on port 8000 (examples/python/worker.py, docs/container.md).
#
#   make image MODEL=model.pt
#
# Build arguments: MODEL, the artifact, in build/ or beside this file; TORCH_INDEX, the address of PyTorch's CPU index.
# Empty, torch comes from pip's default index, whose Linux build brings several gigabytes of CUDA.

FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
RUN python -m venv /opt/worker
RUN /opt/worker/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.8.0
COPY dist/*.whl /opt/wheel/
RUN wheel=$(echo /opt/wheel/*.whl) && /opt/worker/bin/pip install --no-cache-dir "$wheel[text]"

FROM python:3.11-slim
ARG MODEL=model.pt
RUN useradd --system --no-create-home --uid 10001 worker
COPY --from=build /opt/worker /opt/worker
COPY examples/python/worker.py /srv/worker.py
COPY ${MODEL} /srv/model.pt
USER worker
EXPOSE 8000
# An empty request is refused in a line: the worker reads and answers. Loading a large model takes a while.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["/opt/worker/bin/python", "-c", \
  "import socket as s; c = s.create_connection(('127.0.0.1', 8000), 4); c.sendall(b'{}\\n'); c.recv(1) or exit(1)"]
CMD ["/opt/worker/bin/python", "/srv/worker.py", "/srv/model.pt", "--host", "0.0.0.0", "--port", "8000"]
