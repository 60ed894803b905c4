/* conf/load.c - files and directories into the store, and the stamp that tells when to read them again. */
#include "conf/store.h"
#include "base/hash.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 8
#define MAX_FILES 10000
#define FILES     "files" /* the source of conf_store_load */

typedef void (*visit_fn)(void *ctx, const char *path, const struct stat *st, int error); /* error: errno, st void */

static bool is_manifest(const char *name)
{
    struct str s = str_c(name);
    return str_ends(s, STR(".yaml")) || str_ends(s, STR(".yml")) || str_ends(s, STR(".json"));
}

static int visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

static void walk(const char *path, unsigned depth, visit_fn fn, void *ctx);

static void walk_dir(const char *path, unsigned depth, visit_fn fn, void *ctx)
{
    struct dirent **v;
    int n = scandir(path, &v, visible, alphasort);
    if (n < 0) {
        fn(ctx, path, NULL, errno);
        return;
    }
    for (int i = 0; i < n; i++) {
        char child[4096];
        struct stat st;
        int len =
            snprintf(child, sizeof child, "%s%s%s", path, str_ends(str_c(path), STR("/")) ? "" : "/", v[i]->d_name);
        if (len > 0 && (size_t)len < sizeof child &&
            (is_manifest(child) || (stat(child, &st) == 0 && S_ISDIR(st.st_mode))))
            walk(child, depth + 1, fn, ctx);
        free(v[i]);
    }
    free(v);
}

/* Every manifest file under a path, in the order of names; a path given directly is taken whatever its name. */
static void walk(const char *path, unsigned depth, visit_fn fn, void *ctx)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        fn(ctx, path, NULL, errno);
        return;
    }
    fn(ctx, path, &st, 0);
    if (S_ISDIR(st.st_mode) && depth < MAX_DEPTH)
        walk_dir(path, depth, fn, ctx);
}

/* Whole regular file; 0, or an errno (EFBIG above the bound, EINVAL when it is no file). */
static int read_file(const char *path, struct buf *out)
{
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        rc = EINVAL;
    while (rc == 0) {
        char chunk[16384];
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n == 0)
            break;
        if (n < 0)
            rc = errno;
        else if (!buf_add(out, chunk, (size_t)n))
            rc = EFBIG;
    }
    close(fd);
    return rc;
}

static void load_one(void *ctx, const char *path, const struct stat *st, int error)
{
    struct loader *l = ctx;
    struct buf text;
    if (st && S_ISDIR(st->st_mode))
        return;
    if (!error && ++l->n_files > MAX_FILES)
        error = EMFILE;
    buf_init(&text, DOC_MAX_TEXT);
    if (!error)
        error = read_file(path, &text);
    if (error) {
        loader_note(l, CONF_ERROR, str_c(path), 0, 0, "cannot be read: %s",
                    error == EINVAL  ? "not a regular file"
                    : error == EFBIG ? "longer than 32 MiB"
                                     : strerror(error));
        loader_damaged(l, str_c(path));
    } else {
        loader_text(l, str_c(path), buf_str(&text));
    }
    buf_free(&text);
}

static bool readable(const char *path, struct conf_report *rep)
{
    if (access(path, R_OK) == 0)
        return true;
    char text[160];
    snprintf(text, sizeof text, "cannot be read: %s", strerror(errno));
    conf_report_add(rep, &(struct conf_note){.severity = CONF_ERROR, .file = str_c(path), .text = str_c(text)});
    return false;
}

int conf_store_load(struct conf_store *s, const char *const *paths, size_t n, struct conf_report *rep)
{
    struct loader l;
    bool ok = true;
    for (size_t i = 0; i < n; i++)
        ok &= readable(paths[i], rep);
    if (!ok)
        return -1;
    loader_begin(&l, s, FILES, rep);
    for (size_t i = 0; i < n; i++)
        walk(paths[i], 0, load_one, &l);
    loader_finish(&l);
    return 0;
}

static void stamp_one(void *ctx, const char *path, const struct stat *st, int error)
{
    uint64_t *h = ctx;
    *h = hash_bytes(path, strlen(path), *h);
    *h = hash_mix(*h, (uint64_t)error);
    if (!st)
        return;
    *h = hash_mix(*h, (uint64_t)st->st_ino ^ (uint64_t)st->st_dev << 48);
    *h = hash_mix(*h, (uint64_t)st->st_size);
    *h = hash_mix(*h, (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec);
}

uint64_t conf_paths_stamp(const char *const *paths, size_t n)
{
    uint64_t h = 0;
    for (size_t i = 0; i < n; i++)
        walk(paths[i], 0, stamp_one, &h);
    return h;
}
