#!/usr/bin/env python3
"""Checks that every #include "layer/file.h" under src/ points to the same layer or one below it, and that the libraries of others stay
in the files that may use them. Prints each offence as file:line and exits 1 when there is one."""
import pathlib
import re
import sys

ORDER = ["base", "core", "http", "api", "net", "conf", "sched", "proxy", "admin", "sim", "sandbox", "bench", "replay", "cli"]
# A layer may include itself and the layers listed here (a subset of what stands to its left).
ALLOWED = {
    "base": [],
    "core": ["base"],
    "http": ["base"],
    "api": ["base", "core", "http"],
    "net": ["base", "http"],
    "conf": ["base", "core", "http"],
    "sched": ["base", "core", "http", "api", "net", "conf"],
    "proxy": ["base", "core", "http", "api", "net", "conf", "sched"],
    "admin": ["base", "core", "http", "api", "net", "conf", "sched", "proxy"],
    "sim": ["base", "http", "api", "net"],
    "sandbox": ["base", "core", "http", "api", "net", "conf", "sched", "proxy", "admin", "sim"],
    "bench": ["base", "core", "http", "api", "net"],
    "replay": ["base", "core", "sim", "bench"],
    "cli": ORDER,
}
# Headers of other projects -> the files (prefix of the path under src/) that may include them.
FOREIGN = {
    "yaml.h": ["conf/yaml.c"],
    "pcre2.h": ["conf/regex.c"],
    "xxhash.h": ["base/hash"],
    "openssl/": ["net/tls"],
    "nghttp2/": ["http/h2"],
    "curl/": ["kube/http.c"],
    "sys/epoll.h": ["net/"],
    "sys/socket.h": ["net/"],
    "pthread.h": ["base/", "net/", "sched/", "proxy/", "admin/", "sim/", "sandbox/", "cli/"],
}


def main():
    root = pathlib.Path(__file__).resolve().parent.parent / "src"
    bad = []
    for path in sorted(root.rglob("*.[ch]")):
        rel = path.relative_to(root)
        layer = rel.parts[0] if len(rel.parts) > 1 else "cli"
        if layer not in ALLOWED:
            bad.append(f"src/{rel}: layer '{layer}' is not known to tools/layers.py")
            continue
        for no, line in enumerate(path.read_text().splitlines(), 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not m:
                continue
            name = m.group(2)
            if m.group(1) == '"':
                target = name.split("/")[0]
                if "/" in name and target != layer and target not in ALLOWED[layer]:
                    bad.append(f'src/{rel}:{no}: layer {layer} may not include "{name}"')
            for foreign, where in FOREIGN.items():
                if name.startswith(foreign) and not any(str(rel).startswith(w) for w in where):
                    bad.append(f"src/{rel}:{no}: <{name}> is only for {', '.join(where)}")
    print("\n".join(bad) if bad else "layers: every include points down")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
