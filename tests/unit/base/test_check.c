/* The always-on check aborts and names the place; errors are written and cut. */
#include "unit.h"
#include "base/err.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_check_aborts(void **state)
{
    (void)state;
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(fd[1], 2);
        CHECK(1 + 1 == 3);
        _exit(0);
    }
    close(fd[1]);
    char text[512] = {0};
    size_t n = 0;
    for (ssize_t got; n < sizeof(text) - 1 && (got = read(fd[0], text + n, sizeof(text) - 1 - n)) > 0;)
        n += (size_t)got;
    close(fd[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "1 + 1 == 3"));
    assert_non_null(strstr(text, "test_check.c"));
    CHECK(n > 0);
}

static void test_alloc(void **state)
{
    (void)state;
    char *p = xmalloc(0);
    assert_non_null(p);
    p = xrealloc(p, 100);
    memset(p, 1, 100);
    free(p);
    int *v = xcalloc(10, sizeof(*v));
    assert_int_equal(v[9], 0);
    free(v);
    free(xcalloc(0, 8));
}

static void test_err(void **state)
{
    (void)state;
    struct errbuf e = {{0}};
    assert_int_equal(err_set(&e, "line %d: field %s is unknown", 3, "x"), -1);
    assert_string_equal(e.msg, "line 3: field x is unknown");
    assert_int_equal(err_set(NULL, "nobody asks"), -1);
    assert_int_equal(err_set(&e, "%*d", 2000, 1), -1);
    assert_int_equal(strlen(e.msg), sizeof(e.msg) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_check_aborts), cmocka_unit_test(test_alloc),
                                       cmocka_unit_test(test_err)};
    return RUN_TESTS(tests);
}
