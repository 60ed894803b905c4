/* api/text.h - decodes one JSON string into a buffer while checking it: quotes, control characters, escapes, UTF-8.
 * Internal to api.
 *
 * This is where a request body spends its time, so there are three versions of one function; text_copy_best picks by
 * CPU. All give the same bytes and the same verdict (not always the same position of an error inside a broken UTF-8
 * sequence). */
#ifndef API_TEXT_H
#define API_TEXT_H

#include "base/str.h"

enum text_end {
    TEXT_OK,        /* p is at the closing quote */
    TEXT_OPEN,      /* the input ended inside the string; p == end */
    TEXT_CONTROL,   /* p is at a byte below 0x20 */
    TEXT_ESCAPE,    /* p is at the backslash of an unknown or cut-off escape */
    TEXT_SURROGATE, /* p is at the backslash of an unpaired \uD800..\uDFFF */
    TEXT_UTF8       /* p is at or shortly before the bad sequence */
};

/* p: in, the first byte after the opening quote, with at least one byte of text before that quote. end: of the input.
 * out: needs room for end - p bytes (bytes behind the decoded text are written too), and must not overlap the input. */
struct text_cur {
    const unsigned char *p, *end;
    unsigned char *out;
};
typedef enum text_end (*text_copy_fn)(struct text_cur *c);

enum text_end text_copy_portable(struct text_cur *c);
#if defined(__x86_64__)
enum text_end text_copy_sse2(struct text_cur *c);
enum text_end text_copy_avx2(struct text_cur *c); /* only where the CPU has AVX2 */
#endif
text_copy_fn text_copy_best(void);

#endif
