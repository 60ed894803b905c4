/* The table of states against the rules that the diagram in request.c draws. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/impl.h"

static void test_every_state_may_end(void **state)
{
    (void)state;
    for (int s = REQ_NEW; s < REQ_DONE; s++)
        assert_true(req_move_allowed((enum req_state)s, REQ_DONE));
    for (int s = REQ_NEW; s < REQ_N_STATES; s++)
        assert_false(req_move_allowed(REQ_DONE, (enum req_state)s));
}

static void test_only_before_the_first_byte_there_is_another_try(void **state)
{
    (void)state;
    assert_true(req_move_allowed(REQ_PREFILL, REQ_WAIT_PICK));
    assert_true(req_move_allowed(REQ_CONNECT, REQ_WAIT_PICK));
    assert_true(req_move_allowed(REQ_SEND, REQ_WAIT_PICK));
    assert_true(req_move_allowed(REQ_WAIT_HEAD, REQ_WAIT_PICK));
    for (int s = REQ_NEW; s < REQ_DONE; s++)
        assert_false(req_move_allowed(REQ_RELAY, (enum req_state)s));
}

static void test_nothing_is_relayed_that_was_not_sent(void **state)
{
    (void)state;
    for (int s = REQ_NEW; s < REQ_N_STATES; s++)
        assert_int_equal(req_move_allowed((enum req_state)s, REQ_RELAY), s == REQ_SEND || s == REQ_WAIT_HEAD);
    for (int s = REQ_NEW; s < REQ_N_STATES; s++)
        assert_int_equal(req_move_allowed((enum req_state)s, REQ_ROUTE), s == REQ_NEW || s == REQ_READ_BODY);
}

static void test_names(void **state)
{
    (void)state;
    for (int s = REQ_NEW; s < REQ_N_STATES; s++)
        assert_non_null(req_state_name((enum req_state)s));
    assert_string_equal(req_state_name(REQ_WAIT_HEAD), "wait_head");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_state_may_end),
                                       cmocka_unit_test(test_only_before_the_first_byte_there_is_another_try),
                                       cmocka_unit_test(test_nothing_is_relayed_that_was_not_sent),
                                       cmocka_unit_test(test_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
