/* Writes the inputs of the vectors as fuzzing corpora: h1_corpus VECTORS_FILE DIRECTORY. */
#include <stdio.h>
#include "vectors.h"

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    struct vectors vs = vectors_load(argv[1]);
    const char *base = strrchr(argv[1], '/') ? strrchr(argv[1], '/') + 1 : argv[1];
    for (size_t i = 0; i < vs.n; i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%.*s_%03zu", argv[2], (int)strcspn(base, "."), base, i);
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(vs.v[i].in, 1, vs.v[i].in_n, f) != vs.v[i].in_n || fclose(f) != 0) {
            perror(path);
            return 1;
        }
    }
    vectors_free(&vs);
    return 0;
}
