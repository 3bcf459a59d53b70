#!/usr/bin/env bash
# Set up where needed, then lint, types and tests:   bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment dev,gguf
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
ruff check .
ruff format --check .
mypy
pytest -q "$@"
