/* The heap against a search of all nodes. */
#include "unit.h"
#include "base/heap.h"
#include "base/rng.h"

#define N 300

static void check_shape(const struct heap *h)
{
    for (size_t i = 1; i <= h->n; i++) {
        assert_int_equal(h->v[i]->idx, i);
        if (i > 1)
            assert_true(h->v[i / 2]->key <= h->v[i]->key);
    }
}

static void check_min(const struct heap *h, const struct heap_node *nodes)
{
    size_t n = 0;
    uint64_t min = UINT64_MAX;
    for (size_t i = 0; i < N; i++) {
        if (nodes[i].idx == 0)
            continue;
        n++;
        min = MIN(min, nodes[i].key);
    }
    assert_int_equal(h->n, n);
    const struct heap_node *first = heap_min(h);
    assert_int_equal(first != NULL, n > 0);
    assert_true(!first || first->key == min);
}

static void test_like_search(void **state)
{
    (void)state;
    static struct heap_node nodes[N];
    struct heap h;
    struct rng r;
    heap_init(&h);
    rng_init(&r, 11);
    for (int i = 0; i < 30000; i++) {
        struct heap_node *node = &nodes[rng_below(&r, N)];
        uint64_t key = rng_below(&r, i % 2 ? 50 : UINT64_MAX);
        switch (rng_below(&r, 4)) {
        case 0:
            heap_update(&h, node, key);
            break;
        case 1:
            heap_remove(&h, node);
            assert_int_equal(node->idx, 0);
            break;
        case 2:
            if (h.n && i % 10000 > 5000)
                heap_remove(&h, h.v[1]);
            break;
        default:
            if (node->idx == 0)
                heap_push(&h, node, key);
        }
        check_min(&h, nodes);
        if (i % 64 == 0)
            check_shape(&h);
    }
    uint64_t last = 0;
    for (struct heap_node *node; (node = heap_min(&h));) {
        assert_true(node->key >= last);
        last = node->key;
        heap_remove(&h, node);
    }
    assert_int_equal(h.n, 0);
    heap_free(&h);
    assert_null(heap_min(&h));
}

static void test_ties(void **state)
{
    (void)state;
    static struct heap_node nodes[N];
    struct heap h;
    heap_init(&h);
    for (uint64_t i = 0; i < N; i++) { /* three keys, ties in no order */
        nodes[i].tie = i * 7 % N;
        heap_push(&h, &nodes[i], i % 3);
    }
    nodes[0].tie = N; /* now the last of its key */
    heap_update(&h, &nodes[0], 0);
    const struct heap_node *last = NULL;
    for (struct heap_node *node; (node = heap_min(&h)); last = node) {
        assert_true(!last || node->key > last->key || (node->key == last->key && node->tie > last->tie));
        heap_remove(&h, node);
    }
    heap_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_like_search), cmocka_unit_test(test_ties)};
    return RUN_TESTS(tests);
}
