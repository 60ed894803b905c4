#!/usr/bin/env python3
"""Purity of the pure libraries: the undefined symbols of libcore, libhttp and libapi (and of the engine in libsim) must be other pure code of ours
or stand on the allow-list: memory, strings, mathematics. A stray clock, system call, random source or printf fails the build.

usage: purity.py BUILD_DIR"""
import pathlib
import re
import subprocess
import sys

ALLOWED = re.compile(r"""^(
    mem(cpy|move|set|cmp|chr|rchr|mem) | str(len|n?cmp|n?casecmp|chr|rchr|nlen|tod|str) | malloc | calloc | realloc | free | aligned_alloc |
    posix_memalign | abort | bcmp | # as clang writes a memcmp of which only equality counts
    (fabs|floor|ceil|sqrt|exp|exp2|expm1|log|log2|log10|log1p|pow|fmin|fmax|round|lround|llround|hypot|ldexp|frexp|fmod|trunc|nextafter|isfinite)f? |
    qsort | bsearch | v?snprintf |
    __(stack_chk_fail|memcpy_chk|memset_chk|memmove_chk|snprintf_chk|vsnprintf_chk|strcat_chk|strcpy_chk|strncpy_chk) |
    __asan_.* | __ubsan_.* | __tsan_.* | __sanitizer_.* | _GLOBAL_OFFSET_TABLE_ | __isoc99_.* | __cpu_model | __cpu_indicator_init |
    __assert_fail | __popcountdi2 | __udivti3
)$""", re.X)
PURE = ["core", "http", "api"]


def symbols(lib, kind):
    out = subprocess.run(["nm", "-P", kind, lib], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in out.splitlines() if line and not line.endswith(":") and len(line.split()) >= 2}


def main():
    build = pathlib.Path(sys.argv[1])
    libs = {name: build / "src" / name / f"lib{name}.a" for name in PURE + ["base"]}
    ours = set()
    for lib in libs.values():
        ours |= symbols(lib, "--defined-only")
    bad = 0
    for name in PURE:
        for sym in sorted(symbols(libs[name], "-u")):
            plain = sym.split("@")[0]
            if plain not in ours and not ALLOWED.match(plain):
                print(f"purity: lib{name} refers to {plain}")
                bad += 1
    # base is pure too, except its two doors: check_failed writes to stderr, locks and logging use threads.
    print("purity: core, http and api are pure" if not bad else f"purity: {bad} impure references")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
