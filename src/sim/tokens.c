/* sim/tokens.c - splits text into pieces: words with their leading blank, single digits, punctuation, blanks, wide
 * characters. */
#include "sim/tokens.h"

#include "base/hash.h"

#include <stdlib.h>

#define FIRST_LETTERS 9 /* of a word's first piece */
#define NEXT_LETTERS  4

enum cls { LETTER, DIGIT, BLANK, NEWLINE, PUNCT, LATIN_WIDE, WIDE };

static enum cls class_of(unsigned char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return LETTER;
    if (c >= '0' && c <= '9')
        return DIGIT;
    if (c == ' ' || c == '\t')
        return BLANK;
    if (c == '\n' || c == '\r')
        return NEWLINE;
    if (c < 0x80)
        return PUNCT;
    return c < 0xe0 ? LATIN_WIDE : WIDE;
}

/* Length of the run of bytes of a class at p, at most max. */
static size_t run(const char *p, const char *end, enum cls k, size_t max)
{
    size_t n = 0;
    while (p + n < end && n < max && class_of((unsigned char)p[n]) == k)
        n++;
    return n;
}

/* Length of the UTF-8 character at p; junk counts as one byte. */
static size_t character(const char *p, const char *end)
{
    size_t n = 1;
    while (p + n < end && n < 4 && ((unsigned char)p[n] & 0xc0) == 0x80)
        n++;
    return n;
}

/* Length of the piece at p. in_word: the piece before it ended in the middle of a word. */
static size_t piece(const char *p, const char *end, bool *in_word)
{
    enum cls k = class_of((unsigned char)*p);
    size_t n = 0;
    bool cont = *in_word;
    *in_word = false;
    if (k == BLANK && end - p > 1 && class_of((unsigned char)p[1]) == LETTER) {
        n = 1 + run(p + 1, end, LETTER, FIRST_LETTERS);
        *in_word = true;
        return n;
    }
    switch (k) {
    case LETTER:
        *in_word = true;
        return run(p, end, LETTER, cont ? NEXT_LETTERS : FIRST_LETTERS);
    case DIGIT:
        return 1;
    case BLANK: /* a run, without the blank that belongs to the word behind it */
        n = run(p, end, BLANK, 16);
        return n > 1 && p + n < end && class_of((unsigned char)p[n]) == LETTER ? n - 1 : n;
    case NEWLINE:
        return run(p, end, NEWLINE, 4);
    case PUNCT:
        while (p + n < end && n < 4 && p[n] == *p)
            n++;
        return n;
    case LATIN_WIDE:
        n = character(p, end);
        return p + n < end && class_of((unsigned char)p[n]) == LATIN_WIDE ? n + character(p + n, end) : n;
    case WIDE:
        break;
    }
    return character(p, end);
}

uint32_t tokens_one(struct str s)
{
    return (uint32_t)hash_bytes(s.p, s.n, 0x70656e) & 0x7fffffffu;
}

void tokens_add(struct tokens *t, uint32_t token)
{
    if (t->n == t->cap) {
        t->cap = MAX(t->cap * 2, 64u);
        t->v = xrealloc(t->v, t->cap * sizeof(*t->v));
    }
    t->v[t->n++] = token;
}

void tokens_text(struct tokens *t, struct str text)
{
    const char *p = text.p, *end = p + text.n;
    bool in_word = false;
    while (p < end) {
        size_t n = piece(p, end, &in_word);
        tokens_add(t, tokens_one((struct str){p, n}));
        p += n;
    }
}

void tokens_free(struct tokens *t)
{
    free(t->v);
    *t = (struct tokens){0};
}
