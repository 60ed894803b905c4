/* sim/score.c - answers of /rerank and /score: a number for each document, drawn from a hash of query and document. */
#include "sim/answer_priv.h"

bool api_pools(enum sim_api api)
{
    return api == SIM_EMBEDDINGS || api == SIM_RERANK || api == SIM_SCORE;
}

static double score(const struct choice *c)
{
    return answer_draw(c, 0x5c0e);
}

struct find { /* the i-th value of a list */
    uint32_t i;
    struct str value;
};

static bool look(void *ctx, struct str value)
{
    struct find *f = ctx;
    f->value = value;
    return f->i-- > 0;
}

static void document(struct jsonw *w, const struct job *j, uint32_t i)
{
    struct find f = {.i = i, .value = j->documents};
    if (!body_is_string(j->documents))
        (void)body_each(j->documents, look, &f);
    jsonw_raw(w, f.value);
}

static void result(struct jsonw *w, const struct job *j, uint32_t i)
{
    bool sglang = j->s->opt->dialect == SIM_SGLANG;
    jsonw_obj(w);
    member_u64(w, "index", i);
    jsonw_key(w, "document");
    if (!sglang) {
        jsonw_obj(w);
        jsonw_key(w, "text");
    }
    document(w, j, i);
    if (!sglang)
        jsonw_obj_end(w);
    jsonw_key(w, sglang ? "score" : "relevance_score");
    jsonw_f(w, score(&j->choice[i]));
    jsonw_obj_end(w);
}

/* Is a ahead of b: the better one, of equals the first. */
static bool ahead(const struct job *j, uint32_t a, uint32_t b)
{
    double va = score(&j->choice[a]), vb = score(&j->choice[b]);
    return va > vb || (va == vb && a < b);
}

/* The best first. Lists are short: at most BODY_MAX_PROMPTS. */
static void results(struct jsonw *w, const struct job *j)
{
    uint32_t n = j->n_choices, last = UINT32_MAX;
    uint64_t want = j->top_n ? MIN(j->top_n, (uint64_t)n) : n;
    jsonw_arr(w);
    for (uint64_t k = 0; k < want; k++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++)
            if ((last == UINT32_MAX || ahead(j, last, i)) && (best == UINT32_MAX || ahead(j, i, best)))
                best = i;
        result(w, j, best);
        last = best;
    }
    jsonw_arr_end(w);
}

static void total_tokens(struct jsonw *w, const struct job *j)
{
    jsonw_key(w, "usage");
    jsonw_obj(w);
    member_u64(w, "prompt_tokens", j->prompt_tokens);
    member_u64(w, "total_tokens", j->prompt_tokens);
    jsonw_obj_end(w);
}

void whole_rerank(struct jsonw *w, const struct job *j)
{
    if (j->s->opt->dialect == SIM_SGLANG) {
        results(w, j);
        return;
    }
    jsonw_obj(w);
    member(w, "id", j->id);
    jsonw_key(w, "model");
    jsonw_str(w, j->model);
    total_tokens(w, j);
    jsonw_key(w, "results");
    results(w, j);
    jsonw_obj_end(w);
}

void whole_scores(struct jsonw *w, const struct job *j)
{
    answer_opening(w, j, "list");
    jsonw_key(w, "data");
    jsonw_arr(w);
    for (uint32_t i = 0; i < j->n_choices; i++) {
        jsonw_obj(w);
        member_u64(w, "index", i);
        member(w, "object", "score");
        jsonw_key(w, "score");
        jsonw_f(w, score(&j->choice[i]));
        jsonw_obj_end(w);
    }
    jsonw_arr_end(w);
    total_tokens(w, j);
    jsonw_obj_end(w);
}
