/* Requests a minute that a world (replay/world.h) plays on one core: chat traffic on 8 servers at a moderate load, by
 * policy; with the reference's scrapes every 50 ms, with four gateways that tell each other, and with an oracle. CPU
 * time of one thread, the making of the load left out. Fixed seed; one line per case. */
#include "replay/world.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct world_server servers[8];

static void measure(const struct dataset *d, const char *what, const char *policy, uint32_t gateways)
{
    struct world_params p;
    struct world_result r;
    world_init(&p);
    p.data = d;
    p.block_tokens = d->block_tokens;
    p.policy = policy_find(str_c(policy));
    p.servers = servers;
    p.n_servers = ARRAY_LEN(servers);
    p.n_gateways = gateways;
    p.sync = gateways > 1;
    p.sync_us = 1000000;
    p.rate = 8;
    if (p.policy->scrape_us)
        p.scrape_us = p.policy->scrape_us;
    double from = cpu_s();
    world_run(&p, &r);
    double s = cpu_s() - from, cached = 0, input = 0;
    for (uint32_t i = 0; i < r.n; i++) {
        cached += r.v[i].cached;
        input += r.v[i].input;
    }
    printf("%-38s %6.2f M requests/min  %5.2f us each  (%.0f s in %.2f s; %.0f %% cached)\n", what, r.n / s * 60 / 1e6,
           s / r.n * 1e6, r.end_s, s, 100 * cached / input);
    world_result_free(&r);
}

int main(void)
{
    struct errbuf err = {0};
    struct dataset d = {0};
    struct profile profile;
    if (!dataset_synth(&d, STR("chat:50000"), 1, &err) ||
        profile_find(&(struct profile_query){.name = STR("h100-qwen3-32b")}, &profile, &err) < 0) {
        puts(err.msg);
        return 1;
    }
    for (uint32_t k = 0; k < ARRAY_LEN(servers); k++)
        servers[k].profile = profile;
    measure(&d, "prefix-cache", "prefix-cache", 1);
    measure(&d, "round robin", "round-robin", 1);
    measure(&d, "gie-prefix, scrapes every 50 ms", "gie-prefix", 1);
    measure(&d, "oracle", "oracle", 1);
    measure(&d, "prefix-cache, 4 gateways in sync", "prefix-cache", 4);
    dataset_free(&d);
    return 0;
}
