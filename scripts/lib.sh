# Shared by the scripts: where things are, and how missing things are installed (always with a line that says so).
# shellcheck shell=bash
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

say() { printf '== %s\n' "$*"; }

BUILD_PACKAGES=(gcc meson ninja-build pkgconf libc6-dev libcmocka-dev libyaml-dev libpcre2-dev libxxhash-dev)
TEST_PACKAGES=(clang libclang-rt-14-dev binutils curl python3 python3-venv nodejs npm libjansson-dev libhttp-parser-dev)
BENCH_PACKAGES=(nginx-light haproxy wrk)

# need_packages NAME...: installs the Debian packages that are not there yet.
need_packages() {
    local missing=() p
    for p in "$@"; do
        # A tool that is there from elsewhere (a newer node, say) is as good as the package.
        case $p in
        nodejs) command -v node >/dev/null && continue ;;
        npm) command -v npm >/dev/null && continue ;;
        python3 | curl | gcc | clang) command -v "$p" >/dev/null && continue ;;
        libclang-rt-14-dev)
            # the run-time of whichever clang the system has
            command -v clang >/dev/null && p="libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev" ;;
        esac
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    say "installing Debian packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# build DIR CC [meson option...]: configures once and builds.
build() {
    local dir=$1 cc=$2
    shift 2
    if [ ! -f "$dir/build.ninja" ]; then
        say "configuring $dir ($cc $*)"
        CC=$cc meson setup "$dir" "$@" >"$dir.log" 2>&1 || { cat "$dir.log"; return 1; }
        mv "$dir.log" "$dir/configure.log"
    fi
    say "building $dir"
    if ! ninja -C "$dir" >"$dir/build.log" 2>&1; then
        grep -A 12 '^FAILED' "$dir/build.log" | head -n 60
        return 1
    fi
}

# The Python test tools live in a virtual environment of the project's own.
need_venv() {
    if [ ! -x .venv/bin/pytest ] || [ tests/requirements.txt -nt .venv/stamp ]; then
        say "installing Python test tools into .venv: $(tr '\n' ' ' <tests/requirements.txt)"
        python3 -m venv .venv
        .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
        touch .venv/stamp
    fi
}

need_node_sdk() {
    if [ ! -d tests/node/node_modules/openai ] || [ tests/node/package.json -nt tests/node/node_modules/stamp ]; then
        say "installing the OpenAI SDK for Node into tests/node/node_modules"
        (cd tests/node && npm install --no-audit --no-fund --no-package-lock --loglevel=error >/dev/null)
        touch tests/node/node_modules/stamp
    fi
}
