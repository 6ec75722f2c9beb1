#!/usr/bin/env bash
# Build the worker's image from the checkout: release/build_image.sh MODEL. Needs dist/*.whl (make dist).
# Without a container engine that runs, the steps of the Dockerfile are tried in a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."
for engine in docker podman; do
  if "$engine" info >/dev/null 2>&1; then
    exec "$engine" build --build-arg MODEL="$1" --build-arg TORCH_INDEX="${TORCH_INDEX:-}" -t export-model-worker .
  fi
done
echo "no container engine runs here (docker, podman): the Dockerfile's steps are tried in a temporary folder"
exec "${PYTHON:-python3}" release/try_image.py "$1"
