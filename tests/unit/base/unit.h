/* tests/unit/base/unit.h - cmocka with what it wants included before it, and comparison of spans. */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/str.h"
#include <stdio.h>

static inline void assert_str(struct str got, struct str want, const char *what)
{
    if (!str_eq(got, want))
        fail_msg("%s: got '" STR_FMT "', want '" STR_FMT "'", what, STR_ARG(got), STR_ARG(want));
}

#define RUN_TESTS(tests) cmocka_run_group_tests(tests, NULL, NULL)

#endif
