/* bench/words.c - the words, and the estimate of tokens. */
#include "bench/words.h"

#include "base/hash.h"

static const char *const words[256] = {
    " about",     " across",   " air",    " all",     " another", " any",     " bear",   " because", " been",
    " before",    " begin",    " behind", " best",    " better",  " between", " bird",   " black",   " blue",
    " boat",      " body",     " book",   " both",    " box",     " boy",     " bring",  " brought", " built",
    " busy",      " came",     " care",   " carry",   " center",  " change",  " class",  " clear",   " color",
    " come",      " complete", " cook",   " count",   " country", " cover",   " cross",  " cut",     " day",
    " different", " does",     " done",   " door",    " draw",    " each",    " early",  " earth",   " east",
    " easy",      " eat",      " enough", " even",    " every",   " example", " fact",   " fall",    " few",
    " field",     " final",    " fine",   " first",   " fish",    " food",    " foot",   " force",   " form",
    " forward",   " found",    " free",   " friend",  " from",    " garden",  " get",    " girl",    " give",
    " glass",     " gold",     " good",   " ground",  " grow",    " had",     " hand",   " happy",   " hear",
    " heart",     " heavy",    " help",   " her",     " high",    " him",     " his",    " hold",    " home",
    " inch",      " island",   " just",   " keep",    " kind",    " king",    " know",   " land",    " last",
    " laugh",     " lead",     " learn",  " leave",   " letter",  " like",    " listen", " little",  " live",
    " long",      " look",     " lost",   " machine", " make",    " man",     " map",    " mark",    " mean",
    " measure",   " milk",     " mind",   " moon",    " more",    " most",    " move",   " much",    " name",
    " near",      " new",      " night",  " now",     " number",  " object",  " ocean",  " off",     " oil",
    " old",       " once",     " open",   " order",   " other",   " page",    " paint",  " pass",    " past",
    " people",    " picture",  " plan",   " plant",   " play",    " point",   " power",  " public",  " pull",
    " put",       " quick",    " quiet",  " rain",    " reach",   " read",    " ready",  " real",    " record",
    " red",       " rest",     " rich",   " ride",    " right",   " river",   " road",   " rock",    " room",
    " run",       " sail",     " salt",   " sand",    " say",     " school",  " sea",    " see",     " self",
    " sentence",  " set",      " seven",  " show",    " side",    " simple",  " since",  " sleep",   " slow",
    " small",     " snow",     " song",   " space",   " spring",  " state",   " step",   " still",   " stone",
    " story",     " strong",   " study",  " such",    " sun",     " surface", " table",  " take",    " talk",
    " tell",      " test",     " that",   " the",     " then",    " thing",   " think",  " though",  " three",
    " time",      " told",     " took",   " town",    " travel",  " tree",    " try",    " turn",    " two",
    " under",     " upon",     " very",   " voice",   " walk",    " wall",    " want",   " war",     " warm",
    " way",       " west",     " what",   " wheel",   " where",   " while",   " white",  " whole",   " wish",
    " with",      " work",     " world",  " yes"};
#define WORD_MAX 16 /* bytes; a copy of fixed size is faster than one of the word's length */

struct word {
    char text[WORD_MAX - 1];
    uint8_t n;
};

static void load(struct word table[256])
{
    for (size_t i = 0; i < 256; i++) {
        size_t n = strlen(words[i]);
        CHECK(n < WORD_MAX - 1);
        memcpy(table[i].text, words[i], n);
        table[i].n = (uint8_t)n;
    }
}

void words_add(struct buf *out, uint64_t key, uint32_t from, uint32_t n)
{
    struct word table[256];
    if (n == 0)
        return;
    char *p = buf_reserve(out, (size_t)n * WORD_MAX);
    if (!p)
        return;
    load(table);
    char *at = p;
    for (uint32_t i = 0; i < n; i++) {
        const struct word *w = &table[hash_mix(key, (uint64_t)from + i) >> 56];
        memcpy(at, w->text, sizeof(w->text));
        at += w->n;
    }
    buf_commit(out, (size_t)(at - p));
}

static bool is_letter(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Bytes of the character at p: an escape counts whole. */
static size_t character(const char *p, const char *end)
{
    size_t n = 1;
    if (*p == '\\' && end - p > 1)
        return p[1] == 'u' ? MIN((size_t)6, (size_t)(end - p)) : 2;
    while (p + n < end && n < 4 && ((unsigned char)p[n] & 0xc0) == 0x80)
        n++;
    return n;
}

uint32_t words_estimate(struct str raw)
{
    const char *p = raw.p, *end = raw.n ? raw.p + raw.n : raw.p;
    uint64_t tokens = 0;
    while (p < end) {
        if (is_letter((unsigned char)*p)) {
            size_t n = 1;
            while (p + n < end && is_letter((unsigned char)p[n]))
                n++;
            tokens += 1 + (n > 9 ? (n - 6) / 4 : 0); /* long words are cut */
            p += n;
        } else if (*p == ' ') { /* belongs to the word behind it */
            p++;
        } else {
            tokens++;
            p += character(p, end);
        }
    }
    return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}
