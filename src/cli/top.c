/* cli/top.c - penstock top: a live table of pools and pods from the admin server of a running gateway. */
#include "cli/cli.h"

#include "base/json.h"
#include "base/list.h"
#include "net/httpc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TOP_MAX_PAGE (64u << 20)
#define TOP_MAX_ROWS 20000
#define TOP_NAME 64

enum row_kind { ROW_POOL, ROW_ROLE, ROW_POD };
struct row { /* a pool, a role of it or a pod as the page of the admin server tells it; NAN = not told */
    enum row_kind kind;
    char name[TOP_NAME], ns[TOP_NAME], type[TOP_NAME], address[TOP_NAME], state[TOP_NAME], role[TOP_NAME];
    double picks, inflight, unanswered, queued, queued_bytes, queue_bytes_max, queue_ttl_s, drain_per_s, ready, shed, index_blocks, failures, speed;
    double waiting, running, kv, saturation, without_role;
    bool saturated, queueing, full, newest_first;
};
struct view {
    struct row *v;
    size_t n;
    double at_s;
};

struct field {
    const char *key;
    enum { F_TEXT, F_NUM, F_BOOL } type;
    size_t off;
};
#define TEXT(k, m) {k, F_TEXT, offsetof(struct row, m)}
#define NUM(k, m) {k, F_NUM, offsetof(struct row, m)}
static const struct field fields[] = {
    TEXT("name", name), TEXT("pod", name), TEXT("namespace", ns), TEXT("kind", type), TEXT("address", address), TEXT("state", state), TEXT("role", role),
    NUM("picks", picks), NUM("inflight", inflight), NUM("unanswered", unanswered), NUM("queued", queued), NUM("ready", ready),
    NUM("queued_bytes", queued_bytes), NUM("queue_bytes_max", queue_bytes_max), NUM("queue_ttl_s", queue_ttl_s), NUM("queue_drain_per_s", drain_per_s),
    {"queue_newest_first", F_BOOL, offsetof(struct row, newest_first)}, {"queueing", F_BOOL, offsetof(struct row, queueing)}, {"full", F_BOOL, offsetof(struct row, full)},
    NUM("rejects_shed", shed), NUM("index_blocks", index_blocks), NUM("index_memberships", index_blocks), NUM("failures", failures),
    NUM("speed", speed), NUM("waiting", waiting), NUM("running", running), NUM("kv_frac", kv), {"saturated", F_BOOL, offsetof(struct row, saturated)},
    NUM("saturation", saturation), NUM("pods_without_role", without_role),
};

static void row_set(struct row *r, struct str key, const struct json *j, enum json_type t)
{
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (!str_eq_c(key, fields[i].key))
            continue;
        char *at = (char *)r + fields[i].off;
        if (fields[i].type == F_TEXT && t == JSON_STRING) {
            size_t n = MIN(j->tok.n, (size_t)TOP_NAME - 1);
            memcpy(at, j->tok.p, n);
            at[n] = '\0';
        } else if (fields[i].type == F_NUM && t == JSON_NUMBER) {
            double d;
            if (str_to_double(j->tok, &d))
                *(double *)(void *)at = d;
        } else if (fields[i].type == F_BOOL) {
            *(bool *)at = t == JSON_TRUE;
        }
        return;
    }
}

/* Page -> rows: each pool, followed by its roles and its pods. Depth tells what an object is: 2 pool, 3 role or pod, 4 the pod's load (merged into
 * the pod). */
static bool view_parse(struct str page, struct view *out)
{
    struct json j;
    json_init(&j, page);
    struct str key = STR_NULL;
    unsigned objects = 0;
    bool roles = false; /* in that array */
    struct row *pool = NULL, *row = NULL; /* a pool's own members may come behind its roles */
    for (;;) {
        enum json_type t = json_next(&j);
        switch (t) {
        case JSON_ERROR:
            return false;
        case JSON_END:
            return true;
        case JSON_OBJ:
            objects++;
            if (objects == 2 || objects == 3) { /* pool, pod */
                if (out->n == TOP_MAX_ROWS)
                    return true;
                row = &out->v[out->n++];
                memset(row, 0, sizeof *row);
                pool = objects == 2 ? row : pool;
                row->kind = objects == 2 ? ROW_POOL : roles ? ROW_ROLE : ROW_POD;
                row->waiting = row->running = row->kv = (double)NAN;
            }
            break;
        case JSON_OBJ_END:
            objects--;
            break;
        case JSON_ARR:
            roles = objects == 2 ? str_eq(key, STR("roles")) : roles;
            break;
        case JSON_KEY:
            key = j.tok;
            break;
        default:
            if (row && objects >= 2)
                row_set(objects == 2 ? pool : row, key, &j, t);
        }
    }
}

static const struct row *row_before(const struct view *old, const struct row *r)
{
    for (size_t i = 0; i < old->n; i++)
        if (old->v[i].kind == r->kind && !strcmp(old->v[i].name, r->name) && !strcmp(old->v[i].address, r->address) &&
            !strcmp(old->v[i].ns, r->ns))
            return &old->v[i];
    return NULL;
}

static void put_num(double v, int width, int decimals)
{
    if (isnan(v))
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, v);
}

static void put_queue(const struct row *r)
{
    printf("\n  queue: %.0f waiting, %.1f of %.1f MB, at most %.4g s", r->queued, r->queued_bytes / 1e6, r->queue_bytes_max / 1e6, r->queue_ttl_s);
    if (r->drain_per_s > 0)
        printf(", %.1f leave per second", r->drain_per_s);
    if (r->newest_first)
        printf(", newest first");
}

static void put_role(const struct row *r)
{
    printf("  %-7s  ready %.0f  in flight %.0f  saturation %.2f%s\n", r->role, r->ready, r->inflight, r->saturation,
           r->saturated ? "  SATURATED" : "");
}

static void put_heads(bool split)
{
    printf("  %-36s %-22s %-10s", "POD", "ADDRESS", "STATE");
    if (split)
        printf(" %-7s", "ROLE");
    printf(" %7s %8s %6s %7s %7s %5s %5s %7s %5s\n", "REQ/S", "INFLIGHT", "NOTOK", "WAITING", "RUNNING", "KV%", "SPEED", "INDEX", "FAIL");
}

/* roles: those of the pool, behind it. */
static void put_pool(const struct row *r, const struct row *roles, size_t n_roles, double rate)
{
    printf("\n%s %s/%s  ready %.0f  in flight %.0f  queued %.0f  shed %.0f  index %.0f%s", r->type, r->ns, r->name, r->ready, r->inflight,
           r->queued, r->shed, r->index_blocks, r->saturated ? "  SATURATED" : "");
    if (r->without_role > 0)
        printf("  %.0f without a role", r->without_role);
    if (!isnan(rate))
        printf("  %.1f req/s", rate);
    if (r->queueing || r->queued > 0)
        put_queue(r);
    putchar('\n');
    for (size_t i = 0; i < n_roles; i++)
        put_role(&roles[i]);
    put_heads(n_roles > 0);
}

static void put_pod(const struct row *r, bool split, double rate)
{
    printf("  %-36.36s %-22s %-10s", r->name, r->address, r->full && !strcmp(r->state, "ready") ? "full" : r->state);
    if (split)
        printf(" %-7s", r->role);
    put_num(rate, 7, 1);
    put_num(r->inflight, 8, 0);
    put_num(r->unanswered, 6, 0);
    put_num(r->waiting, 7, 0);
    put_num(r->running, 7, 0);
    put_num(r->kv * 100, 5, 1);
    put_num(r->speed, 5, 2);
    put_num(r->index_blocks, 7, 0);
    put_num(r->failures, 5, 0);
    putchar('\n');
}

static double rate_of(const struct row *r, const struct view *old, double dt)
{
    const struct row *b = row_before(old, r);
    return b && dt > 0 ? (r->picks - b->picks) / dt : (double)NAN;
}

static void put_rows(const struct view *v, const struct view *old, double dt)
{
    bool split = false; /* the pool that the pods belong to */
    for (size_t i = 0; i < v->n; i++) {
        const struct row *r = &v->v[i];
        size_t n = 0;
        if (r->kind == ROW_POD) {
            put_pod(r, split, rate_of(r, old, dt));
        } else if (r->kind == ROW_POOL) {
            while (i + 1 + n < v->n && r[1 + n].kind == ROW_ROLE)
                n++;
            split = n > 0;
            put_pool(r, r + 1, n, rate_of(r, old, dt));
        }
    }
}

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static bool view_fetch(const struct addr *admin, struct view *v, struct errbuf *err)
{
    struct buf page;
    buf_init(&page, TOP_MAX_PAGE);
    unsigned status = httpc_get(admin, STR_NULL, STR("/debug/endpoints"), STR("Connection: close\r\n"), 2000000, &page, err);
    v->n = 0;
    v->at_s = now_s();
    bool ok = status == 200 && view_parse(buf_str(&page), v);
    if (status && !ok)
        err_set(err, "the admin server answered %u, not the endpoints page: is this a penstock gateway?", status);
    buf_free(&page);
    return ok;
}

static void view_show(const struct view *v, const struct view *old, const char *from, bool screen)
{
    if (screen)
        fputs("\033[H\033[2J", stdout);
    size_t pools = 0, pods = 0;
    for (size_t i = 0; i < v->n; i++) {
        pools += v->v[i].kind == ROW_POOL;
        pods += v->v[i].kind == ROW_POD;
    }
    printf("penstock top  %s  %zu pools, %zu pods%s\n", from, pools, pods, screen ? "  (ctrl-c ends)" : "");
    put_rows(v, old, old->n ? v->at_s - old->at_s : 0);
    fflush(stdout);
}

int cli_top(int argc, char **argv)
{
    const char *admin = "127.0.0.1:9090";
    uint64_t interval_us = 1000000;
    bool once = false;
    const struct cli_opt opts[] = {
        {"admin", 0, "ADDR:PORT", "admin address of the gateway (127.0.0.1:9090)", CLI_STR, &admin},
        {"interval", 0, "DURATION", "time between two looks (1s)", CLI_DURATION, &interval_us},
        {"once", 0, NULL, "print one table and end", CLI_FLAG, &once},
        {0},
    };
    const struct cli_command cmd = {"top [--admin ADDR:PORT]", "Live view of the pools and pods of a running gateway or sandbox.", opts};
    int go = cli_parse(&cmd, argc, argv, NULL);
    if (go != CLI_GO)
        return go;
    struct addr at;
    if (!addr_parse_hostport(str_c(admin), 9090, &at))
        return cli_usage_error(&cmd, "'%s' is no ADDR:PORT", admin);

    struct view a = {xcalloc(TOP_MAX_ROWS, sizeof *a.v), 0, 0}, b = {xcalloc(TOP_MAX_ROWS, sizeof *b.v), 0, 0};
    struct view *now = &a, *old = &b;
    struct errbuf err = {""};
    bool screen = isatty(1) && !once;
    int code = 0;
    for (;;) {
        if (!view_fetch(&at, now, &err)) {
            fprintf(stderr, "penstock top: %s: %s\n", admin, err.msg);
            code = 1;
            break;
        }
        view_show(now, old, admin, screen);
        if (once)
            break;
        struct view *t = now;
        now = old;
        old = t;
        usleep((useconds_t)interval_us);
    }
    free(a.v);
    free(b.v);
    return code;
}
