/* The intrusive list. */
#include "unit.h"
#include "base/list.h"

struct item {
    int v;
    struct list link;
};

static void assert_items(struct list *head, const char *want)
{
    size_t i = 0;
    LIST_EACH(it, head)
    assert_int_equal(CONTAINER_OF(it, struct item, link)->v, want[i++]);
    assert_int_equal(want[i], '\0');
}

static void test_list(void **state)
{
    (void)state;
    struct list head, other;
    struct item v[4] = {{.v = 'a'}, {.v = 'b'}, {.v = 'c'}, {.v = 'd'}};
    list_init(&head);
    list_init(&other);
    for (int i = 0; i < 4; i++)
        list_init(&v[i].link);
    assert_null(list_pop_front(&head));
    list_push_back(&head, &v[0].link);
    list_push_back(&head, &v[1].link);
    list_push_front(&head, &v[2].link);
    list_push_back(&head, &v[3].link);
    assert_items(&head, "cabd");
    list_remove(&v[1].link);
    list_remove(&v[1].link);
    assert_false(list_linked(&v[1].link));
    assert_items(&head, "cad");
    list_move(&other, &head);
    assert_true(list_empty(&head));
    assert_items(&other, "cad");
    LIST_EACH_SAFE(it, next, &other)
    list_remove(it);
    assert_true(list_empty(&other));
    list_move(&head, &other);
    assert_true(list_empty(&head));
    list_push_back(&head, &v[0].link);
    assert_ptr_equal(list_pop_front(&head), &v[0].link);
    assert_true(list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_list)};
    return RUN_TESTS(tests);
}
