/* The loop: timers in order, time scale, messages from other threads, stopping. */
#include "net_test.h"
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct tick {
    struct timer t;
    struct loop *l;
    uint64_t at_us, fired_us;
    int *order, rank;
    bool last;
};

static void on_tick(struct timer *t)
{
    struct tick *k = CONTAINER_OF(t, struct tick, t);
    k->fired_us = loop_now_us(k->l);
    k->rank = (*k->order)++;
    if (k->last)
        loop_stop(k->l);
}

static void test_timers_fire_in_order_and_never_early(void **state UNUSED)
{
    struct loop *l = loop_new(1.0);
    enum { N = 200 };
    static struct tick k[N];
    int order = 0;
    uint64_t t0 = loop_clock_us(l);
    for (int i = 0; i < N; i++) {
        k[i] = (struct tick){.t.fn = on_tick, .l = l, .order = &order, .at_us = t0 + (uint64_t)((i * 7919) % N) * 300};
        timer_set(l, &k[i].t, k[i].at_us);
        assert_true(timer_armed(&k[i].t));
        k[i].last = (i * 7919) % N == N - 1;
    }
    run_within(l, 5000000);
    for (int i = 0; i < N; i++) {
        assert_true(k[i].fired_us >= k[i].at_us);
        assert_false(timer_armed(&k[i].t));
        assert_int_equal(k[i].rank, (i * 7919) % N);
    }
    loop_free(l);
}

struct busy {
    struct timer t;
    struct loop *l;
    unsigned left;
    uint64_t work_us, pause_us;
};

static void on_busy(struct timer *t)
{
    struct busy *b = CONTAINER_OF(t, struct busy, t);
    usleep((useconds_t)b->work_us); /* a callback that takes its time, on the CPU or not */
    if (--b->left)
        timer_set(b->l, t, loop_clock_us(b->l) + b->pause_us);
    else
        loop_stop(b->l);
}

static struct loop_load load_of(unsigned turns, uint64_t work_us, uint64_t pause_us)
{
    struct loop *l = loop_new(1.0);
    struct loop_load ld;
    struct busy b = {.t.fn = on_busy, .l = l, .left = turns, .work_us = work_us, .pause_us = pause_us};
    timer_set(l, &b.t, loop_clock_us(l));
    run_within(l, 10000000);
    assert_false(loop_take_load(l, 1000, &ld));
    assert_true(loop_take_load(l, 0.1, &ld));
    struct loop_load rest;
    assert_false(loop_take_load(l, 0, &rest)); /* taken */
    loop_free(l);
    return ld;
}

/* A loop with work all the time; one with the same rounds and pauses between them. The last round is under way when it
 * is looked at. */
static void test_load(void **state UNUSED)
{
    struct loop_load all = load_of(11, 20000, 0), some = load_of(11, 20000, 100000), little = load_of(101, 100, 5000);
    assert_true(all.busy_s >= 0.2 && all.busy_s > 9 * all.idle_s);
    assert_true(all.lag_s >= 0.018); /* whoever comes waits for a round */
    assert_true(some.busy_s >= 0.2 && some.idle_s >= 0.9);
    assert_true(some.lag_s < all.lag_s && some.lag_s >= 20e-3 * 0.2 / (some.busy_s + some.idle_s) * 0.9);
    assert_true(little.idle_s >= 0.4 && little.busy_s < little.idle_s && little.lag_s < all.lag_s / 2);
}

static void test_timer_stop_and_move(void **state UNUSED)
{
    struct loop *l = loop_new(1.0);
    int order = 0;
    uint64_t t0 = loop_clock_us(l);
    struct tick gone = {.t.fn = on_tick, .l = l, .order = &order}, moved = gone, end = gone;
    end.last = true;
    timer_set(l, &gone.t, t0 + 1000);
    timer_set(l, &moved.t, t0 + 1000);
    timer_set(l, &end.t, t0 + 20000);
    timer_stop(l, &gone.t);
    timer_stop(l, &gone.t);
    timer_set(l, &moved.t, t0 + 10000);
    run_within(l, 5000000);
    assert_int_equal(gone.fired_us, 0);
    assert_true(moved.fired_us >= t0 + 10000);
    loop_free(l);
}

/* A timer that always re-arms itself for the past must not starve messages. */
static void on_greedy(struct timer *t)
{
    struct tick *k = CONTAINER_OF(t, struct tick, t);
    timer_set(k->l, &k->t, loop_now_us(k->l));
}

struct stop_mail {
    struct mail m;
    struct loop *l;
};

static void stop_by_mail(struct mail *m)
{
    loop_stop(CONTAINER_OF(m, struct stop_mail, m)->l);
}

static void test_greedy_timer_leaves_room(void **state UNUSED)
{
    struct loop *l = loop_new(1.0);
    struct tick k = {.t.fn = on_greedy, .l = l};
    timer_set(l, &k.t, loop_clock_us(l));
    struct stop_mail s = {.m.run = stop_by_mail, .l = l};
    loop_post(l, &s.m);
    loop_run(l);
    loop_free(l);
}

static void test_sub_millisecond_precision(void **state UNUSED)
{
    struct loop *l = loop_new(1.0);
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < 20; i++) {
        uint64_t t0 = loop_clock_us(l);
        run_for(l, 200);
        uint64_t took = loop_clock_us(l) - t0;
        assert_true(took >= 200);
        best = MIN(best, took);
    }
    assert_true(best < 900); /* a millisecond clock would give 1000 or more each time */
    loop_free(l);
}

static void test_time_scale(void **state UNUSED)
{
    struct loop *l = loop_new(50.0);
    uint64_t real0 = clock_us(1.0), t0 = loop_clock_us(l);
    run_for(l, 1000000); /* a second of the loop */
    uint64_t real = clock_us(1.0) - real0, scaled = loop_clock_us(l) - t0;
    assert_true(real >= 19000 && real < 500000);
    assert_true(scaled >= 1000000);
    assert_true(clock_us(50.0) >= loop_now_us(l)); /* one origin in the process */
    loop_free(l);
}

static void test_idle_loop_uses_no_cpu(void **state UNUSED)
{
    struct loop *l = loop_new(1.0);
    struct rusage a, b;
    getrusage(RUSAGE_SELF, &a);
    run_for(l, 300000);
    getrusage(RUSAGE_SELF, &b);
    int64_t us = (b.ru_utime.tv_sec - a.ru_utime.tv_sec + b.ru_stime.tv_sec - a.ru_stime.tv_sec) * 1000000 +
                 b.ru_utime.tv_usec - a.ru_utime.tv_usec + b.ru_stime.tv_usec - a.ru_stime.tv_usec;
    assert_true(us < 100000);
    loop_free(l);
}

/* ---- messages ---- */

enum { POSTERS = 4, POSTS = 20000 };
struct letter {
    struct mail m;
    int poster, seq;
};
static int next_seq[POSTERS];
static int received;
static struct loop *box;

static void on_letter(struct mail *m)
{
    struct letter *t = CONTAINER_OF(m, struct letter, m);
    assert_int_equal(t->seq, next_seq[t->poster]);
    next_seq[t->poster]++;
    free(t);
    if (++received == POSTERS * POSTS)
        loop_stop(box);
}

static void *poster(void *arg)
{
    int id = (int)(intptr_t)arg;
    for (int i = 0; i < POSTS; i++) {
        struct letter *t = xmalloc(sizeof(*t));
        *t = (struct letter){.m.run = on_letter, .poster = id, .seq = i};
        loop_post(box, &t->m);
    }
    return NULL;
}

static void test_posts_from_threads_keep_order(void **state UNUSED)
{
    pthread_t th[POSTERS];
    box = loop_new(1.0);
    received = 0;
    memset(next_seq, 0, sizeof(next_seq));
    for (int i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&th[i], NULL, poster, (void *)(intptr_t)i), 0);
    run_within(box, 60000000);
    for (int i = 0; i < POSTERS; i++)
        pthread_join(th[i], NULL);
    assert_int_equal(received, POSTERS * POSTS);
    loop_free(box);
}

static void *loop_thread(void *arg)
{
    loop_run(arg);
    return NULL;
}

static void test_stop_from_another_thread(void **state UNUSED)
{
    for (int i = 0; i < 200; i++) {
        struct loop *l = loop_new(1.0);
        pthread_t th;
        assert_int_equal(pthread_create(&th, NULL, loop_thread, l), 0);
        loop_stop(l); /* before or after it runs */
        pthread_join(th, NULL);
        loop_free(l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_fire_in_order_and_never_early),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_timer_stop_and_move),
        cmocka_unit_test(test_greedy_timer_leaves_room),
        cmocka_unit_test(test_sub_millisecond_precision),
        cmocka_unit_test(test_time_scale),
        cmocka_unit_test(test_idle_loop_uses_no_cpu),
        cmocka_unit_test(test_posts_from_threads_keep_order),
        cmocka_unit_test(test_stop_from_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
