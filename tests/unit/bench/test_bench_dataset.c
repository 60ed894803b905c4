/* Data sets of the benchmark: lengths, common prefixes, order by the seed; files with good and bad lines. */
#include "../base/unit.h"
#include "base/json.h"
#include "bench/dataset.h"
#include "bench/words.h"
#include "sim/tokens.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("got %.9g, want %.9g", got, want);
}

static struct dataset_opts opts(enum dataset_kind kind, uint32_t n)
{
    struct dataset_opts o;
    dataset_opts_init(&o);
    o.kind = kind;
    o.num_prompts = n;
    o.path = "file";
    return o;
}

static void make(struct dataset *d, const struct dataset_opts *o, const char *text)
{
    struct errbuf err = {""};
    *d = (struct dataset){0};
    buf_init(&d->file, 1u << 20);
    if (text)
        buf_add_str(&d->file, str_c(text));
    if (!dataset_make(d, o, &err))
        fail_msg("%s", err.msg);
}

static void refuse(const struct dataset_opts *o, const char *text, const char *why)
{
    struct dataset d = {0};
    struct errbuf err = {""};
    buf_init(&d.file, 1u << 20);
    buf_add_str(&d.file, str_c(text));
    assert_false(dataset_make(&d, o, &err));
    assert_string_equal(err.msg, why);
    dataset_free(&d);
}

static struct str text_of(const struct dataset *d, uint32_t i, struct buf *b)
{
    buf_init(b, 64u << 20);
    dataset_text(d, i, b);
    return buf_str(b);
}

static uint32_t tokens_of(const struct dataset *d, uint32_t i)
{
    struct buf b;
    struct tokens t = {0};
    tokens_text(&t, text_of(d, i, &b));
    uint32_t n = t.n;
    tokens_free(&t);
    buf_free(&b);
    return n;
}

static uint32_t common(const struct dataset *d, uint32_t a, uint32_t b)
{
    struct buf x, y;
    struct str s = text_of(d, a, &x), t = text_of(d, b, &y);
    uint32_t n = 0;
    while (n < s.n && n < t.n && s.p[n] == t.p[n])
        n++;
    buf_free(&x);
    buf_free(&y);
    return n;
}

static uint32_t prefix_bytes(uint64_t key, uint32_t tokens)
{
    struct buf b;
    buf_init(&b, 1u << 20);
    words_add(&b, key, 0, tokens);
    uint32_t n = (uint32_t)b.n;
    buf_free(&b);
    return n;
}

/* ---- words ---- */

static void words_are_tokens(void **state)
{
    (void)state;
    struct buf b;
    struct tokens t = {0};
    buf_init(&b, 1u << 20);
    words_add(&b, 99, 0, 5000);
    tokens_text(&t, buf_str(&b));
    assert_int_equal(t.n, 5000);
    assert_int_equal(words_estimate(buf_str(&b)), 5000);
    struct buf tail;
    buf_init(&tail, 1u << 20);
    words_add(&tail, 99, 4990, 10);
    assert_true(str_ends(buf_str(&b), buf_str(&tail)));
    for (size_t i = 0; i < b.n; i++)
        assert_true(buf_str(&b).p[i] == ' ' || (buf_str(&b).p[i] >= 'a' && buf_str(&b).p[i] <= 'z'));
    buf_free(&b);
    buf_free(&tail);
    tokens_free(&t);
}

static void estimates(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t n;
    } cases[] = {
        {"", 0},     {"hello", 1}, {"hello world", 2},    {"hello, world!", 4},           {"internationalisation", 4},
        {"1984", 4}, {"a\\nb", 3}, {"\\u4f60\\u597d", 2}, {"\xe4\xbd\xa0\xe5\xa5\xbd", 2}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(words_estimate(str_c(cases[i].text)), cases[i].n);
}

/* ---- random ---- */

static void random_lengths_and_prefix(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_RANDOM, 3000);
    struct dataset d;
    o.random_prefix = 10;
    o.random_input = 1550;
    o.random_output = 1800;
    o.random_range = 0.2;
    make(&d, &o, NULL);
    assert_int_equal(d.n, 3000);
    assert_int_equal(d.n_conversations, 3000);
    double in = 0, out = 0;
    uint32_t low = UINT32_MAX, high = 0;
    for (uint32_t i = 0; i < d.n; i++) {
        assert_in_range(d.v[i].own_tokens, 1240, 1860);
        assert_in_range(d.v[i].output_tokens, 1440, 2160);
        assert_int_equal(d.v[i].input_tokens, d.v[i].own_tokens + 10);
        low = MIN(low, d.v[i].own_tokens);
        high = MAX(high, d.v[i].own_tokens);
        in += d.v[i].own_tokens;
        out += d.v[i].output_tokens;
    }
    assert_true(low < 1244 && high > 1856);
    assert_true(fabs(in / d.n - 1550) < 15 && fabs(out / d.n - 1800) < 15);
    for (uint32_t i = 0; i < 20; i++) {
        assert_int_equal(tokens_of(&d, i), d.v[i].input_tokens);
        uint32_t same = common(&d, i, i + 1), prefix = prefix_bytes(d.common_key, 10);
        assert_in_range(same, prefix, prefix + 40); /* a word or two may be equal by chance */
    }
    dataset_free(&d);
}

static void seed_decides(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_RANDOM, 50);
    struct dataset a, b, c;
    o.random_range = 0.5;
    make(&a, &o, NULL);
    make(&b, &o, NULL);
    o.seed = 1;
    make(&c, &o, NULL);
    unsigned differ = 0;
    for (uint32_t i = 0; i < 50; i++) {
        struct buf x, y, z;
        struct str s = text_of(&a, i, &x);
        assert_str(s, text_of(&b, i, &y), "same seed");
        assert_int_equal(a.v[i].output_tokens, b.v[i].output_tokens);
        differ += !str_eq(s, text_of(&c, i, &z));
        buf_free(&x);
        buf_free(&y);
        buf_free(&z);
    }
    assert_int_equal(differ, 50);
    dataset_free(&a);
    dataset_free(&b);
    dataset_free(&c);
}

static void limits(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_RANDOM, 5);
    o.random_range = 1;
    refuse(&o, "", "A range ratio is at least 0 and less than 1.");
    o = opts(DATA_RANDOM, 5);
    o.random_input = DATASET_MAX_TOKENS;
    refuse(&o, "", "The input length 16777216 is more than 4194304 tokens.");
    o = opts(DATA_PREFIX, 5);
    refuse(&o, "", "5 prompts cannot be shared out over 10 prefixes.");
    o = opts(DATA_MULTI_TURN, 0);
    o.path = NULL;
    o.turns.max_turns = 2;
    refuse(&o, "", "The turns of a conversation are from 6 to 2; wanted is 1 <= min <= max <= 10000.");
    struct dataset d = {0};
    struct errbuf err;
    o = opts(DATA_TRACE, 0);
    o.path = NULL;
    assert_false(dataset_load(&d, &o, &err));
    assert_string_equal(err.msg, "This data set is a file: name it with --dataset-path.");
    dataset_free(&d);
}

/* ---- prefix repetition ---- */

static void prefixes_repeat(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_PREFIX, 105);
    struct dataset d;
    unsigned each[10] = {0}, in_order = 0;
    uint64_t keys[10];
    unsigned n = 0;
    make(&d, &o, NULL);
    assert_int_equal(d.n, 100); /* whole shares only, as the engine's client */
    for (uint32_t i = 0; i < d.n; i++) {
        unsigned k = 0;
        while (k < n && keys[k] != d.v[i].prefix_key)
            k++;
        assert_true(k < 10);
        keys[k] = d.v[i].prefix_key;
        n = MAX(n, k + 1);
        each[k]++;
        in_order += i && d.v[i].prefix_key == d.v[i - 1].prefix_key;
        assert_int_equal(tokens_of(&d, i), 512);
        assert_int_equal(d.v[i].output_tokens, 128);
    }
    for (unsigned k = 0; k < 10; k++)
        assert_int_equal(each[k], 10);
    assert_true(in_order < 40); /* shuffled: by chance one in ten */
    dataset_free(&d);
}

/* ---- conversations ---- */

static void turns_follow_each_other(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_MULTI_TURN, 0);
    struct dataset d;
    o.path = NULL;
    o.turns.think_s = 2;
    o.turns.conversations = 200;
    make(&d, &o, NULL);
    assert_true(d.history);
    assert_int_equal(d.n_conversations, 200);
    double pause = 0;
    uint32_t later = 0, first[2], n = 0;
    for (uint32_t i = 0; i < d.n; i++) {
        if (d.v[i].turn == 0) {
            assert_true(i == 0 || (d.v[i - 1].turn >= 5 && d.v[i - 1].turn <= 8));
            assert_in_range(tokens_of(&d, i), 1500 + 119, 1500 + 161);
            assert_true(d.v[i].think_s <= 0);
            if (n < 2)
                first[n++] = i;
        } else {
            assert_int_equal(d.v[i].turn, d.v[i - 1].turn + 1);
            assert_in_range(tokens_of(&d, i), 119, 161);
            pause += (double)d.v[i].think_s;
            later++;
        }
        assert_in_range(d.v[i].output_tokens, 85, 115);
    }
    assert_true(fabs(pause / later - 2) < 0.2);
    uint32_t prefix = prefix_bytes(d.common_key, 500);
    assert_in_range(common(&d, first[0], first[1]), prefix, prefix + 30);
    dataset_free(&d);
}

static void conversations_of_files(void **state)
{
    (void)state;
    static const char array[] =
        " [{\"id\":1,\"conversations\":[{\"from\":\"human\",\"value\":\"one two\"},{\"from\":\"gpt\",\"value\":\"a b "
        "c\"},"
        "{\"from\":\"human\",\"value\":\"three\"}]},{\"messages\":[{\"role\":\"system\",\"content\":\"x\"},"
        "{\"role\":\"user\",\"content\":\"say \\\"hi\\\"\"},{\"role\":\"user\",\"content\":[1]}],\"n\":{}}]";
    struct dataset_opts o = opts(DATA_MULTI_TURN, 0);
    struct dataset d;
    struct buf b;
    make(&d, &o, array);
    assert_int_equal(d.n, 3);
    assert_int_equal(d.n_conversations, 2);
    assert_str(text_of(&d, 0, &b), STR("one two"), "first");
    buf_free(&b);
    assert_int_equal(d.v[0].output_tokens, 3);
    assert_int_equal(d.v[1].turn, 1);
    assert_int_equal(d.v[1].output_tokens, 100);
    assert_str(text_of(&d, 2, &b), STR("say \\\"hi\\\""), "stays escaped");
    buf_free(&b);
    dataset_free(&d);
}

/* ---- sharegpt, custom ---- */

#define ENTRY(prompt, answer)                                                                                          \
    "{\"conversations\":[{\"from\":\"human\",\"value\":\"" prompt "\"},{\"from\":\"gpt\",\"value\":\"" answer "\"}]}"  \
    "\n"

static void sharegpt_filters(void **state)
{
    (void)state;
    static const char lines[] =
        ENTRY("too short", "but long enough an answer") ENTRY("this is long enough", "with an answer of six words")
            ENTRY("this one has no answer worth it",
                  "yes") "\n" ENTRY("and this is the second one", "that has its five words") "{\"conversations\":[]}\n";
    struct dataset_opts o = opts(DATA_SHAREGPT, 2);
    struct dataset d;
    make(&d, &o, lines);
    assert_int_equal(d.n, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_true((d.v[i].input_tokens == 4 && d.v[i].output_tokens == 6) ||
                    (d.v[i].input_tokens == 6 && d.v[i].output_tokens == 5));
    dataset_free(&d);
    o.num_prompts = 7; /* repeated until there are enough */
    make(&d, &o, lines);
    assert_int_equal(d.n, 7);
    dataset_free(&d);
    o.oversample = false;
    o.sharegpt_output = 1; /* a length that is asked for is no reason to leave out a short answer */
    make(&d, &o, lines);
    assert_int_equal(d.n, 3);
    assert_int_equal(d.v[0].output_tokens, 1);
    dataset_free(&d);
}

static void sharegpt_errors(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_SHAREGPT, 2);
    refuse(&o, ENTRY("this is long enough", "with an answer of six words") "\n{\"conversations\":[",
           "file:3:19: text ends where a value was expected.");
    refuse(&o, "[1]", "file:1:3: not an object.");
    refuse(&o, "", "file holds no request that can be used.");
}

static void custom_prompts(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_CUSTOM, 0);
    struct dataset d;
    struct buf b;
    o.shuffle = o.oversample = false;
    make(&d, &o, "{\"prompt\":\"a b\\u00e9\",\"output_tokens\":7}\r\n\n{\"x\":[{}],\"prompt\":\"c\"}\n");
    assert_int_equal(d.n, 2);
    assert_int_equal(d.v[0].output_tokens, 256);
    assert_str(text_of(&d, 0, &b), STR("a b\\u00e9"), "raw");
    buf_free(&b);
    dataset_free(&d);
    o.custom_output = -1;
    make(&d, &o, "{\"prompt\":\"a b\",\"output_tokens\":7}");
    assert_int_equal(d.v[0].output_tokens, 7);
    dataset_free(&d);
    refuse(&o, "{\"prompt\":\"a\",\"output_tokens\":7}\n{\"prompt\":\"c\"}\n",
           "file:2: no \"output_tokens\" from 1 on, which --custom-output-len -1 asks for.");
    refuse(&o, "{\"prompt\":5}", "file:1: \"prompt\" is not a string.");
    refuse(&o, "{\"output_tokens\":5}", "file:1: no \"prompt\".");
    refuse(&o, "{\"prompt\":\"a\",\"output_tokens\":7} x", "file:1: text behind the end of the value.");
}

/* ---- traces ---- */

#define LINE(t, in, out, ids)                                                                                          \
    "{\"timestamp\": " t ", \"input_length\": " in ", \"output_length\": " out ", \"hash_ids\": " ids "}\n"

static void trace_shares_blocks(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_TRACE, 0);
    struct dataset d;
    o.trace_speed = 2;
    make(&d, &o,
         LINE("1000", "1300", "20", "[7, 8, 9]") LINE("2000", "600", "0", "[7, 12]")
             LINE("3000", "1500", "5", "[7, 8]"));
    assert_int_equal(d.n, 3);
    static const uint32_t lens[] = {1300, 600, 1500};
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(tokens_of(&d, i), lens[i]);
    assert_int_equal(d.v[1].output_tokens, 1); /* none recorded */
    struct buf a;
    struct tokens t = {0};
    struct str s = text_of(&d, 0, &a);
    tokens_text(&t, str_first(s, common(&d, 0, 1)));
    assert_in_range(t.n, 512, 515);
    t.n = 0;
    tokens_text(&t, str_first(s, common(&d, 0, 2)));
    assert_in_range(t.n, 1024, 1027);
    tokens_free(&t);
    buf_free(&a);
    assert_near(d.at_s[0], 0, 1e-9);
    assert_near(d.at_s[1], 0.5, 1e-9);
    assert_near(d.at_s[2], 1, 1e-9);
    dataset_free(&d);
}

static void trace_spreads_equal_stamps(void **state)
{
    (void)state;
    static const char lines[] = LINE("0", "10", "1", "[1]") LINE("0", "10", "1", "[1]") LINE("0", "10", "1", "[1]")
        LINE("3000", "10", "1", "[1]") LINE("3000", "10", "1", "[1]") LINE("60000", "10", "1", "[1]")
            LINE("60000", "10", "1", "[1]");
    static const double spread[] = {0, 1, 2, 3, 4.5, 60, 61.5}, as_recorded[] = {0, 0, 0, 3, 3, 60, 60};
    struct dataset_opts o = opts(DATA_TRACE, 0);
    struct dataset d;
    make(&d, &o, lines);
    for (uint32_t i = 0; i < 7; i++)
        assert_near(d.at_s[i], spread[i], 1e-9);
    dataset_free(&d);
    o.trace_as_recorded = true;
    o.num_prompts = 6;
    make(&d, &o, lines);
    assert_int_equal(d.n, 6);
    for (uint32_t i = 0; i < 6; i++)
        assert_near(d.at_s[i], as_recorded[i], 1e-9);
    dataset_free(&d);
}

#define TURN(s, n, delay)                                                                                              \
    "{\"timestamp\":0,\"input_length\":600,\"output_length\":3,\"hash_ids\":[1,2],\"session_id\":\"" s                 \
    "\",\"turn\":" n ",\"delay\":" delay "}\n"

static void trace_sessions(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_TRACE, 0);
    struct dataset d;
    o.trace_speed = 10;
    make(&d, &o, TURN("a", "0", "0") TURN("a", "1", "5000") TURN("b", "0", "0") TURN("b", "1", "900000"));
    assert_int_equal(d.n_conversations, 2);
    assert_false(d.history); /* what was answered is in the recorded prompts */
    assert_null(d.at_s);
    assert_int_equal(d.v[1].turn, 1);
    assert_near((double)d.v[1].think_s, 0.5, 1e-6);
    assert_int_equal(d.v[2].turn, 0);
    assert_near((double)d.v[3].think_s, 6, 1e-6); /* 60 s at most, ten times as fast */
    dataset_free(&d);
    refuse(&o, TURN("a", "0", "0") TURN("b", "0", "0") TURN("a", "1", "0"),
           "file:3: a line of a session that ended before: lines of one session stand together.");
    refuse(&o, TURN("a", "0", "0") LINE("1", "1", "1", "[]"),
           "file:2: some lines have a \"session_id\" and some have not.");
}

static void trace_errors(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_TRACE, 0);
    refuse(&o, LINE("5", "1", "1", "[]") LINE("4", "1", "1", "[]"), "file:2: arrives before the line before it.");
    refuse(&o, LINE("-1", "1", "1", "[]"), "file:1: a time or length is not a number from 0 on.");
    refuse(&o, LINE("1", "99999999", "1", "[]"), "file:1: a length is more than 16777216 tokens.");
    refuse(&o, LINE("1", "1", "1", "[0.5]"), "file:1: an id of \"hash_ids\" is not a whole number.");
    refuse(&o, LINE("1", "1", "1", "[null]"), "file:1: an id of \"hash_ids\" is not a number.");
    refuse(&o, LINE("1", "1", "1", "7"), "file:1: \"hash_ids\" is not an array.");
    refuse(&o, "{\"timestamp\":1}", "file:1: \"timestamp\", \"input_length\" and \"output_length\" are needed.");
    refuse(&o, "[]", "file:1: not an object.");
}

/* ---- tables ---- */

static void azure_tables(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_TRACE, 0);
    struct dataset d;
    make(&d, &o,
         "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"
         "2023-11-16 18:15:50.9951690,396,109\r\n2023-11-17 00:00:00,7,0");
    assert_int_equal(d.n, 3);
    assert_int_equal(d.block_tokens, 512);
    assert_int_equal(d.v[0].input_tokens, 374);
    assert_int_equal(d.v[0].n_ids, 0);
    assert_int_equal(tokens_of(&d, 1), 396); /* text of its own */
    assert_int_equal(common(&d, 0, 1) < 20, 1);
    assert_int_equal(d.v[1].output_tokens, 109);
    assert_int_equal(d.v[2].output_tokens,
                     1); /* recorded as 0: it failed there or was cut off at once; here it is asked */
    assert_near(d.at_s[0], 0, 0);
    assert_near(d.at_s[1], 4.314579, 1e-6);
    assert_near(d.at_s[2], 5 * 3600 + 44 * 60 + 13.31941, 1e-6);
    dataset_free(&d);
    /* the form of 2024: offsets, no fraction when it is 0; over a leap day */
    o.trace_speed = 2;
    make(&d, &o,
         "\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28 23:59:59.500000+00:00,1,2\n"
         "2024-02-29 00:00:00+00:00,1,2\n2024-03-01T01:00:00.25+01:00,3,4\n2024-03-01T00:00:01Z,3,4\n"
         "2024-02-29 19:00:02-0500,3,4\n");
    static const double at[] = {0, 0.25, 43200.375, 43200.75, 43201.25};
    assert_int_equal(d.n, 5);
    for (uint32_t i = 0; i < 5; i++)
        assert_near(d.at_s[i], at[i], 1e-6);
    dataset_free(&d);
}

#define BURST "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"

static void burst_tables(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_TRACE, 0);
    struct dataset d;
    static const char text[] = BURST "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n"
                                     "118,\"GPT-4, turbo\",417,276,693,Conversation log\n118,GPT-4,12.0,3,15,API log\n"
                                     "120,GPT-4,1,1,2,API log\n";
    make(&d, &o, text);
    assert_int_equal(d.n, 4);
    assert_int_equal(d.left_out, 1);
    static const uint32_t in[] = {472, 417, 12, 1}, out[] = {18, 276, 3, 1};
    static const double at[] = {0, 113, 114, 115}, as_recorded[] = {0, 113, 113, 115};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(d.v[i].input_tokens, in[i]);
        assert_int_equal(d.v[i].output_tokens, out[i]);
        assert_near(d.at_s[i], at[i], 1e-9);
    }
    dataset_free(&d);
    o.trace_as_recorded = true;
    make(&d, &o, text);
    for (uint32_t i = 0; i < 4; i++)
        assert_near(d.at_s[i], as_recorded[i], 1e-9);
    dataset_free(&d);
    o.num_prompts = 2;
    make(&d, &o, text);
    assert_int_equal(d.n, 2);
    dataset_free(&d);
    /* other columns between them, in another order */
    o.num_prompts = 0;
    make(&d, &o, "Session ID,Timestamp,Elapsed time,Response tokens,Model,Request tokens\n7,0.5,1.5,9,x,8\n");
    assert_int_equal(d.v[0].input_tokens, 8);
    assert_int_equal(d.v[0].output_tokens, 9);
    dataset_free(&d);
}

static void table_errors(void **state)
{
    (void)state;
    struct dataset_opts o = opts(DATA_TRACE, 0);
    static const char tokens[] = "file:2: a number of tokens is not a number from 0 to 16777216.";
    static const char time[] = "file:2: the time is not like 2023-11-16 18:15:46.68059.";
    static const char *const times[] = {"2023-13-01 00:00:00",
                                        "2023-00-01 00:00:00",
                                        "2023-01-01 24:00:00",
                                        "2023-01-01",
                                        "2023-01-01 00:00:00.",
                                        "2023-01-01 00:00:00+1",
                                        "2023-01-01 00:00:00 x",
                                        "12",
                                        ""};
    refuse(&o, BURST "5,m,1,1\n4,m,1,1\n", "file:3: arrives before the row before it.");
    refuse(&o, BURST "x,m,1,1\n", "file:2: the time is not a number of seconds from 0 on.");
    refuse(&o, BURST "NaN,m,1,1\n", "file:2: the time is not a number of seconds from 0 on.");
    refuse(&o, BURST "1,m,-1,1\n", tokens);
    refuse(&o, BURST "1,m,1,99999999\n", tokens);
    refuse(&o, BURST "1,m,1,NaN\n", tokens);
    refuse(&o, BURST "\n1,m,1\n", "file:3: fewer columns than the first line.");
    refuse(&o, BURST "1,m,1,0\n", "file holds no request that can be used.");
    refuse(&o, BURST, "file holds no request that can be used.");
    for (size_t i = 0; i < ARRAY_LEN(times); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "TIMESTAMP,ContextTokens,GeneratedTokens\n%s,1,1\n", times[i]);
        refuse(&o, text, time);
    }
    refuse(
        &o, "a,b,c\n1,2,3\n",
        "file:1: a table without the columns TIMESTAMP, ContextTokens, GeneratedTokens or Timestamp, Request tokens, "
        "Response tokens.");
}

/* ---- generated by name ---- */

static struct dataset synth(const char *name, uint64_t seed)
{
    struct dataset d = {0};
    struct errbuf err = {""};
    if (!dataset_synth(&d, str_c(name), seed, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(d.block_tokens, 512);
    assert_int_equal(d.n_conversations, d.n);
    for (uint32_t i = 0; i < d.n; i++) {
        assert_true(d.v[i].n_ids == (d.v[i].input_tokens + 511) / 512 && d.v[i].ids_from + d.v[i].n_ids <= d.n_ids);
        assert_int_equal(d.v[i].own_tokens, 0);
        assert_true(d.at_s[i] > (i ? d.at_s[i - 1] : 0));
    }
    assert_near(d.at_s[d.n - 1] / d.n, 1, 0.1);
    return d;
}

/* What an endless cache of whole blocks finds, as a share of the prompt tokens. An id has one parent. */
static double reuse(const struct dataset *d, uint64_t max_id)
{
    uint64_t *parent = calloc(max_id + 1, sizeof(*parent)), hit = 0, all = 0;
    assert_non_null(parent);
    for (uint32_t i = 0; i < d->n; i++) {
        bool found = true;
        all += d->v[i].input_tokens;
        for (uint32_t k = 0; k < d->v[i].input_tokens / 512; k++) {
            const uint64_t *id = &d->ids[d->v[i].ids_from + k], before = k ? id[-1] + 2 : 1;
            assert_true(*id <= max_id);
            found = found && parent[*id];
            assert_true(parent[*id] == 0 || parent[*id] == before);
            parent[*id] = before;
            hit += found ? 512 : 0;
        }
    }
    free(parent);
    return (double)hit / (double)all;
}

static void shared_prefixes_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double reuse; /* (sent again + found at the first time) of 14 whole blocks of 7200 tokens */
    } cases[] = {{"shared_prefix", (2250 * 14 + 600 * 11) * 512 / (3000 * 7200.0)},
                 {"shared_prefix_low", (2250 * 14 + 600 * 2) * 512 / (3000 * 7200.0)}};
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        struct dataset d = synth(cases[c].name, 3), again = synth(cases[c].name, 3), other = synth(cases[c].name, 4);
        assert_int_equal(d.n, 3000);
        for (uint32_t i = 0; i < d.n; i++) {
            assert_int_equal(d.v[i].input_tokens, 7200);
            assert_int_equal(d.v[i].output_tokens, 1000);
        }
        assert_near(reuse(&d, 20000), cases[c].reuse, 1e-9);
        for (uint32_t part = 0; part < 4; part++) { /* each quarter holds every question once */
            uint8_t seen[750] = {0};
            for (uint32_t i = 0; i < 750; i++)
                assert_int_equal(seen[d.v[part * 750 + i].ids_from / 15]++, 0);
        }
        assert_memory_equal(d.v, again.v, d.n * sizeof(*d.v));
        assert_memory_equal(d.at_s, again.at_s, d.n * sizeof(*d.at_s));
        assert_true(memcmp(d.v, other.v, d.n * sizeof(*d.v)) != 0 && d.at_s[0] < other.at_s[0] + 100);
        dataset_free(&d);
        dataset_free(&again);
        dataset_free(&other);
    }
}

static void repetition_by_name(void **state)
{
    (void)state;
    struct dataset d = synth("prefix_repetition:7,1100,500,20,100", 1);
    assert_int_equal(d.n, 105); /* 15 to each of 7 */
    assert_int_equal(d.v[0].input_tokens, 1600);
    assert_int_equal(d.v[0].output_tokens, 20);
    assert_near(reuse(&d, 1000), 98 * 2 * 512 / (105 * 1600.0), 1e-9); /* two whole blocks of 1100 tokens */
    assert_int_equal(tokens_of(&d, 3), 1600);
    dataset_free(&d);
    d = synth("prefix_repetition", 1);
    assert_int_equal(d.n, 3000);
    dataset_free(&d);
}

static void chat_by_name(void **state)
{
    (void)state;
    struct dataset d = synth("chat", 5), few = synth("chat:300", 5);
    assert_int_equal(d.n, 20000);
    assert_int_equal(few.n, 300);
    double in = 0, out = 0, tenth[10] = {0};
    uint64_t most = 0;
    for (uint32_t i = 0; i < d.n; i++) {
        in += d.v[i].input_tokens;
        out += d.v[i].output_tokens;
        tenth[i / 2000] += d.v[i].input_tokens / 2000.0;
        assert_true(d.v[i].input_tokens <= 32768);
        for (uint32_t k = 0; k < d.v[i].n_ids; k++)
            most = MAX(most, d.ids[d.v[i].ids_from + k]);
    }
    in /= d.n;
    out /= d.n;
    assert_near(out, 250 * exp(0.8 * 0.8 / 2), 10); /* mean of the log-normal */
    assert_in_range((uint64_t)in, 2000, 4500);
    for (int i = 0; i < 10; i++) /* in balance from the start on */
        assert_near(tenth[i] / in, 1, 0.12);
    double share = reuse(&d, most);
    assert_true(share > 0.5 && share < 0.85);
    dataset_free(&d);
    dataset_free(&few);
}

static void names_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *why;
    } cases[] = {{"shared", "'shared' is no generated load; there are shared_prefix, shared_prefix_low, "
                            "prefix_repetition[:N,P,S,O,R] and chat[:N]."},
                 {"shared_prefix:3", "shared_prefix takes 0 numbers at most."},
                 {"chat:0", "chat: '0' is not a number that can stand there."},
                 {"chat:", "chat: '' is not a number that can stand there."},
                 {"chat:5,5", "chat takes 1 numbers at most."},
                 {"chat:9000000", "chat: 9000000 requests are more than 5000000."},
                 {"prefix_repetition:1,-1", "prefix_repetition: '-1' is not a number that can stand there."},
                 {"prefix_repetition:1,0,0",
                  "prefix_repetition: a prompt has tokens, and all together are at most 134217728 blocks of 512."},
                 {"prefix_repetition:1,8000000,1,1,1000000",
                  "prefix_repetition: a prompt has tokens, and all together are at most 134217728 blocks of 512."}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct dataset d = {0};
        struct errbuf err = {""};
        assert_false(dataset_synth(&d, str_c(cases[i].name), 1, &err));
        assert_string_equal(err.msg, cases[i].why);
        dataset_free(&d);
    }
    assert_true(dataset_synth_is(STR("chat:9")) && dataset_synth_is(STR("shared_prefix")));
    assert_false(dataset_synth_is(STR("chat.jsonl")) || dataset_synth_is(STR_NULL));
}

static void packed_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/penstock-bench-XXXXXX", path[64], cmd[256];
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/t.jsonl.gz", dir);
    (void)snprintf(cmd, sizeof(cmd),
                   "printf '%%s\\n' '{\"timestamp\":0,\"input_length\":5,\"output_length\":2}' | gzip >%s", path);
    assert_int_equal(system(cmd), 0);
    struct dataset_opts o = opts(DATA_TRACE, 0);
    struct dataset d = {0};
    struct errbuf err = {""};
    o.path = path;
    if (!dataset_load(&d, &o, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(d.n, 1);
    assert_int_equal(tokens_of(&d, 0), 5); /* without blocks: text of its own */
    dataset_free(&d);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fputs("no gzip", f);
    fclose(f);
    assert_false(dataset_load(&d, &o, &err));
    assert_non_null(strstr(err.msg, "cannot be unpacked"));
    dataset_free(&d);
    assert_int_equal(unlink(path), 0);
    assert_false(dataset_load(&d, &o, &err));
    assert_non_null(strstr(err.msg, "cannot be opened: No such file"));
    dataset_free(&d);
    assert_int_equal(rmdir(dir), 0);
}

/* ---- arrivals ---- */

static void gaps(const double *at, uint32_t n, double *mean, double *cv)
{
    double sum = 0, square = 0;
    for (uint32_t i = 1; i < n; i++) {
        double g = at[i] - at[i - 1];
        assert_true(g >= 0);
        sum += g;
        square += g * g;
    }
    *mean = sum / (n - 1);
    *cv = sqrt(square / (n - 1) - *mean * *mean) / *mean;
}

static void arrivals_have_their_distribution(void **state)
{
    (void)state;
    static const struct {
        double burstiness, cv;
    } cases[] = {{1, 1}, {0.25, 2}, {4, 0.5}, {(double)INFINITY, 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arrival_opts o = {.rate = 20, .burstiness = cases[i].burstiness, .seed = 3};
        double mean, cv, *at = arrivals_make(&o, 40000), *again = arrivals_make(&o, 40000);
        assert_memory_equal(at, again, 40000 * sizeof(*at));
        gaps(at, 40000, &mean, &cv);
        assert_near(mean, 0.05, 0.0002);
        assert_true(fabs(cv - cases[i].cv) < 0.05 * cases[i].cv + 1e-6);
        assert_near(at[39999], 40000 / 20.0, 1e-6); /* stretched to n / rate */
        free(at);
        free(again);
    }
}

static void arrivals_at_once_and_ramps(void **state)
{
    (void)state;
    struct arrival_opts o = {.rate = (double)INFINITY, .burstiness = 1};
    double *at = arrivals_make(&o, 100);
    for (int i = 0; i < 100; i++)
        assert_near(at[i], 0, 0);
    free(at);
    o.ramp = RAMP_LINEAR;
    o.ramp_start = 10;
    o.ramp_end = 100;
    o.burstiness = (double)INFINITY;
    at = arrivals_make(&o, 91);
    assert_near(at[0], 0.1, 1e-9);
    assert_near(at[90] - at[89], 0.01, 1e-9);
    assert_near(at[45] - at[44], 1 / 55.0, 1e-9);
    free(at);
    o.ramp = RAMP_EXPONENTIAL;
    at = arrivals_make(&o, 3);
    assert_near(at[1] - at[0], 1 / sqrt(1000), 1e-9);
    free(at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(words_are_tokens),
                                       cmocka_unit_test(estimates),
                                       cmocka_unit_test(random_lengths_and_prefix),
                                       cmocka_unit_test(seed_decides),
                                       cmocka_unit_test(limits),
                                       cmocka_unit_test(prefixes_repeat),
                                       cmocka_unit_test(turns_follow_each_other),
                                       cmocka_unit_test(conversations_of_files),
                                       cmocka_unit_test(sharegpt_filters),
                                       cmocka_unit_test(sharegpt_errors),
                                       cmocka_unit_test(custom_prompts),
                                       cmocka_unit_test(trace_shares_blocks),
                                       cmocka_unit_test(trace_spreads_equal_stamps),
                                       cmocka_unit_test(trace_sessions),
                                       cmocka_unit_test(trace_errors),
                                       cmocka_unit_test(azure_tables),
                                       cmocka_unit_test(burst_tables),
                                       cmocka_unit_test(table_errors),
                                       cmocka_unit_test(shared_prefixes_by_name),
                                       cmocka_unit_test(repetition_by_name),
                                       cmocka_unit_test(chat_by_name),
                                       cmocka_unit_test(names_refused),
                                       cmocka_unit_test(packed_files),
                                       cmocka_unit_test(arrivals_have_their_distribution),
                                       cmocka_unit_test(arrivals_at_once_and_ramps)};
    return RUN_TESTS(tests);
}
