#!/usr/bin/env python3
"""Makes one_server.txt: what the simulator of the routing anchors makes of a seeded load on one server.

  make.py DIRECTORY_OF_ROUTESIM > one_server.txt

A line is a request: at_us input output family shared hit first_us end_us. Block i of its prompt is block i of its family
for i < shared, and its own otherwise. hit: tokens found in the cache. The profile is h100-qwen3-32b with 120 blocks."""
import random
import sys

sys.path.insert(0, sys.argv[1])
import routesim  # noqa: E402

P = dict(routesim.PROFILES['h100-qwen3-32b'], kv=120 * routesim.BLK)
rng = random.Random(11)
rows, reqs, t = [], [], 0
for i in range(250):
    t += int(rng.expovariate(1 / 1.0e6))
    inp, out = 1 + int(rng.expovariate(1 / 6000)) % 30000, 1 + int(rng.expovariate(1 / 300)) % 3000
    family, shared = rng.randrange(6), rng.randrange(20)
    ids = [1000 * family + k if k < shared else 1000000 * (i + 1) + k for k in range(inp // routesim.BLK)]
    rows.append((t, inp, out, family, shared))
    reqs.append(routesim.Req(i, t / 1e6, inp, out, ids))
routesim.Sim(reqs, P, 1, 'round_robin').run()
for row, r in zip(rows, reqs):
    print(*row, r.hit, round(r.t1 * 1e6), round(r.te * 1e6))
