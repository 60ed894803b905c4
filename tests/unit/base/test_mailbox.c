/* The mailbox: posting order, wake-ups, and four producers against one consumer. */
#include "unit.h"
#include "base/mailbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#define N_PRODUCERS 4
#define N_EACH      20000

struct letter {
    struct mail mail;
    unsigned from, seq;
};

static void count_wake(void *ctx)
{
    atomic_fetch_add((_Atomic unsigned *)ctx, 1);
}

static void test_order(void **state)
{
    (void)state;
    _Atomic unsigned wakes = 0;
    struct mailbox b;
    struct letter v[3] = {{.seq = 0}, {.seq = 1}, {.seq = 2}};
    mailbox_init(&b, count_wake, &wakes);
    assert_null(mailbox_take_all(&b));
    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < 3; i++)
            mailbox_post(&b, &v[i].mail);
        assert_int_equal(wakes, round); /* only when it was empty */
        struct mail *m = mailbox_take_all(&b);
        for (unsigned i = 0; i < 3; i++, m = m->next)
            assert_int_equal(((struct letter *)m)->seq, i);
        assert_null(m);
    }
    mailbox_init(&b, NULL, NULL);
    mailbox_post(&b, &v[0].mail);
    assert_ptr_equal(mailbox_take_all(&b), &v[0].mail);
}

static struct mailbox box;
static _Atomic unsigned box_wakes, next_producer;

static void *produce(void *arg)
{
    (void)arg;
    unsigned from = atomic_fetch_add(&next_producer, 1);
    for (unsigned i = 0; i < N_EACH; i++) {
        struct letter *l = xcalloc(1, sizeof(*l));
        l->from = from;
        l->seq = i;
        mailbox_post(&box, &l->mail);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[N_PRODUCERS];
    unsigned seen[N_PRODUCERS] = {0}, total = 0, batches = 0;
    mailbox_init(&box, count_wake, &box_wakes);
    for (int i = 0; i < N_PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, produce, NULL), 0);
    while (total < N_PRODUCERS * N_EACH) {
        struct mail *m = mailbox_take_all(&box);
        batches += m != NULL;
        if (!m)
            sched_yield();
        while (m) {
            struct letter *l = CONTAINER_OF(m, struct letter, mail);
            m = m->next;
            assert_int_equal(l->seq, seen[l->from]++);
            total++;
            free(l);
        }
    }
    for (int i = 0; i < N_PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    assert_null(mailbox_take_all(&box));
    assert_int_equal(box_wakes, batches); /* exactly one wake-up for each time the box was filled */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_threads)};
    return RUN_TESTS(tests);
}
