#!/usr/bin/env bash
# From a bare machine to the result table in one command:   bash scripts/quickstart.sh
# Creates .venv, installs the project, and runs every stage of recipes/tiny on the shipped data and models. Only the installation
# needs the network. A second start skips what is done.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment ""
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec a2r run recipes/tiny
