/* Flow control: who waits, who goes next, who is told to come back later.
 *
 *   submit -> placed at once, while an endpoint it may use has room
 *          -> queued -> dispatched   (room appeared: flow_run after every verb)
 *                    -> discarded    (over capacity, by somebody else's arrival)
 *                    -> timed out    (waited for its TTL)
 *                    -> cancelled    (its client left)
 *          -> refused at once        (over capacity; its deadline cannot be met; a retry that every endpoint has
 * failed)
 *
 * flow_run leaves nobody queued who could be placed. So a newcomer that can be placed overtakes nobody who could have
 * been served instead. */
#include "core/sched_int.h"
#include "base/hash.h"
#include <math.h>

#define DRAIN_HALF_LIFE_S 20.0
#define DRAIN_SAMPLES     5.0  /* dispatches, */
#define DRAIN_BUSY_S      0.5  /* and time with somebody waiting, before the rate says anything */
#define DRAIN_HOPELESS_S  5.0  /* a priority that waited so long and got nothing: that says enough */
#define OPTIMISM          1.25 /* a request is refused early only when even so much faster would be too late */
#define SWITCHED_OFF_RUN                                                                                               \
    256                /* requests sent on per verb when queueing was switched off: a few hundred microseconds         \
                        */
#define OUT_WEIGHT 2.0 /* an output token counts as so many input tokens (VTC) */

static struct sched_req *req_of(struct queue_item *it)
{
    return CONTAINER_OF(it, struct sched_req, q);
}

/* ---- measured rate ---- */

static void rate_pass(struct rate *r, uint64_t now_us, bool busy)
{
    double dt = now_us > r->at_us ? (double)(now_us - r->at_us) / SEC : 0;
    double keep = exp2(-dt / DRAIN_HALF_LIFE_S);
    r->n *= keep;
    r->busy_s = r->busy_s * keep + (busy ? dt : 0);
    r->at_us = MAX(r->at_us, now_us);
}

static double rate_of(const struct rate *r)
{
    return r->n >= DRAIN_SAMPLES && r->busy_s >= DRAIN_BUSY_S ? r->n / r->busy_s : 0;
}

static void rates_pass(struct sched *s) /* before the queue or the number in flight changes */
{
    if (s->drain.at_us >= s->now_us)
        return;
    bool wait = queue_n(s->queue) > s->n_on_hold; /* those held do not wait for room */
    rate_pass(&s->drain, s->now_us, wait);
    rate_pass(&s->done, s->now_us, s->inflight > 0);
    for (uint32_t i = 0; i < DRAIN_CLASSES && s->classes[i].used; i++)
        rate_pass(&s->classes[i].r, s->now_us, wait && queue_n_at(s->queue, s->classes[i].priority) > 0);
}

double flow_drain_rate(const struct sched *s)
{
    return rate_of(&s->drain);
}

static const struct drain_class *find_class(const struct sched *s, int priority)
{
    for (uint32_t i = 0; i < DRAIN_CLASSES && s->classes[i].used; i++)
        if (s->classes[i].priority == priority)
            return &s->classes[i];
    return NULL;
}

static struct drain_class *class_of(struct sched *s, int priority)
{
    struct drain_class *least = &s->classes[0];
    for (uint32_t i = 0; i < DRAIN_CLASSES; i++) {
        struct drain_class *c = &s->classes[i];
        if (c->used && c->priority == priority)
            return c;
        if (!c->used || c->r.busy_s < least->r.busy_s)
            least = c;
        if (!c->used)
            break;
    }
    *least = (struct drain_class){.priority = priority, .used = true, .r.at_us = s->now_us};
    return least;
}

/* Requests per second that reach this priority when those above it, who come first whenever they come, have been
 * served. */
static double rate_for(const struct sched *s, int priority)
{
    const struct drain_class *c = find_class(s, priority);
    if (c && (rate_of(&c->r) > 0 || c->r.busy_s >= DRAIN_HOPELESS_S))
        return (c->r.n + 1) / c->r.busy_s;
    return rate_of(&s->drain);
}

/* Seconds until those before a newcomer are served, at the measured rates; false: not known. before: how many those
 * are, of its priority and higher ones. */
static bool expected_wait(const struct sched *s, const struct sched_req *r, uint64_t before, double *wait_s)
{
    double all = rate_of(&s->drain);
    if (all <= 0)
        return false;
    uint64_t higher = r->priority < INT32_MAX ? queue_n_at_least(s->queue, r->priority + 1) : 0;
    *wait_s = (double)higher / all + (double)(before - higher) / rate_for(s, r->priority);
    return true;
}

/* Seconds until capacity for one more of this priority and flow can be expected; 0 = not known. */
double flow_retry_after(const struct sched *s, const struct sched_req *r)
{
    double wait_s, done = rate_of(&s->done);
    uint64_t before = queue_n_before(s->queue, r->priority, r->flow);
    if (s->newest_first)
        before = queue_n_at_least(s->queue, r->priority); /* not at once: it would be the newest */
    if (expected_wait(s, r, before, &wait_s))
        return wait_s + 1 / rate_for(s, r->priority);
    return done > 0 ? 1 / done : 0;
}

/* ---- placing ---- */

/* Requests with the same lane can use the same endpoints. What is no endpoint is marked by numbers that no endpoint
 * has. */
enum lane_mark { LANE_HELD = 3, LANE_WAITS = 4, LANE_SPLIT = 5 };

static uint64_t marked(uint64_t h, enum lane_mark mark)
{
    return hash_mix(h, (uint64_t)NO_SLOT << 32 | mark);
}

static uint64_t lane_of(const struct sched_req *r)
{
    uint64_t h = hash_mix(r->model, 1);
    if (r->pinned.gen)
        h = hash_mix(h, (uint64_t)r->pinned.slot << 32 | r->pinned.gen);
    for (uint32_t i = 0; i < r->n_tried && i < SCHED_MAX_TRIED; i++)
        h ^= hash_mix((uint64_t)r->tried[i].slot << 32 | r->tried[i].gen, 2); /* in any order */
    if (r->wait_for.gen) /* not the lane of those pinned there: it may cease to wait, and then competes again */
        h = hash_mix(marked(h, LANE_WAITS), (uint64_t)r->wait_for.slot << 32 | r->wait_for.gen);
    if (r->on_hold)
        h = marked(h, LANE_HELD);
    if (r->leg && r->must_split) {
        h = marked(h, LANE_SPLIT);
        for (uint32_t i = 0; i < r->leg->n_tried && i < SCHED_MAX_TRIED; i++)
            h ^= hash_mix((uint64_t)r->leg->tried[i].slot << 32 | r->leg->tried[i].gen, 6);
    }
    return h;
}

static uint64_t waited_us(const struct sched *s, const struct sched_req *r)
{
    return r->waited_us + (s->now_us > r->pushed_us ? s->now_us - r->pushed_us : 0);
}

static double charge_of(const struct sched_req *r)
{
    return r->tokens + OUT_WEIGHT * r->out_tokens;
}

/* The full endpoint that the request had better wait for, as it holds its prefix: only once, and for at most
 * prefix_wait_us. */
static bool starts_waiting_for(struct sched *s, struct sched_req *r)
{
    uint32_t slot;
    if (!s->p.prefix_wait_us || r->wait_until_us || pair_of(s, r) || !pick_full_holder(s, r, &slot))
        return false;
    r->wait_for = ep_ref_of(s, slot);
    r->wait_until_us = s->now_us + s->p.prefix_wait_us;
    return true;
}

/* No more reason to wait for the endpoint of its choice: it has room, or is gone, or the time is over. */
static bool stops_waiting_for(struct sched *s, struct sched_req *r)
{
    if (!r->wait_for.gen)
        return false;
    struct ep *e = ep_of(s, r->wait_for);
    if (e && ep_usable(e) && s->p.prefix_wait_us && s->now_us < r->wait_until_us && s->scan.full[r->wait_for.slot] > 0)
        return false;
    r->wait_for = (struct ep_ref){0};
    return true;
}

/* ---- out of the queue ---- */

static void decided(struct sched *s, struct sched_req *r)
{
    list_push_back(&s->decided, &r->late);
}

static void leave(struct sched *s, struct sched_req *r)
{
    rates_pass(s);
    r->waited_us = waited_us(s, r);
    queue_remove(s->queue, &r->q);
    hold_set(s, r, false);
}

static void turn_away(struct sched *s, struct sched_req *r, enum sched_reject why)
{
    leave(s, r);
    flow_reject(s, r, why);
    r->d.queued_us = MAX(r->waited_us, 1u);
    decided(s, r);
}

enum sched_answer flow_reject(struct sched *s, struct sched_req *r, enum sched_reject why)
{
    r->state = REQ_IDLE;
    hold_set(s, r, false);
    r->split = false;
    r->d = (struct sched_decision){.reject = why, .retry_after_s = flow_retry_after(s, r)};
    r->d.no_prefill = why == REJECT_NO_ENDPOINT && pair_lacks_prefill(s, r);
    s->rejects[why]++;
    return SCHED_REJECTED;
}

static void dispatched(struct sched *s, struct sched_req *r, bool held)
{
    r->waited_us = waited_us(s, r);
    r->d.queued_us = MAX(r->waited_us, 1u);
    rates_pass(s);
    if (!held) {
        s->drain.n++;
        class_of(s, r->priority)->r.n++;
    }
    s->n_dispatched++;
    queue_take(s->queue, &r->q, charge_of(r));
    decided(s, r);
}

static void move_lane(struct sched *s, struct sched_req *r);

static void run_room(struct sched *s)
{
    struct queue_item *it;
    while (s->n_room && (it = queue_next(s->queue))) {
        struct sched_req *r = req_of(it);
        bool held = r->on_hold;
        if (stops_waiting_for(s, r) || (!r->wait_for.gen && starts_waiting_for(s, r)))
            move_lane(s, r); /* and competes again by its own order */
        else if (!r->wait_for.gen && pick_place(s, r, true))
            dispatched(s, r, held);
        else if (r->on_hold != held)
            move_lane(s, r);
        else
            queue_block(s->queue, it);
    }
}

/* Queueing was switched off: all are sent on in their order, room or not. */
static void run_switched_off(struct sched *s)
{
    struct queue_item *it;
    for (int i = 0; i < SWITCHED_OFF_RUN && (it = queue_next(s->queue)); i++) {
        struct sched_req *r = req_of(it);
        r->wait_for = (struct ep_ref){0};
        if (!pick_place(s, r, false)) {
            queue_block(s->queue, it);
            continue;
        }
        r->d.reason = REASON_DRAINED;
        dispatched(s, r, false);
    }
}

/* ---- order ---- */

/* One that is held waits for something else, and is no sign of overload. */
static bool waits_too_long(const struct sched *s)
{
    struct queue_item *it = queue_earliest(s->queue);
    return it && !req_of(it)->on_hold && waited_us(s, req_of(it)) - req_of(it)->untimed_us > s->p.queue_late_us;
}

static void set_direction(struct sched *s, bool newest_first)
{
    if (s->newest_first == newest_first)
        return;
    s->newest_first = newest_first;
    s->reversed_us = s->now_us;
    queue_set_order(s->queue, newest_first ? QUEUE_NEWEST_FIRST : QUEUE_OLDEST_FIRST);
}

/* ORDER_ADAPTIVE: the direction for the room there is now. Each change costs O(n), so those that wait see few. */
static void adapt_order(struct sched *s)
{
    if (s->p.queue_order != ORDER_ADAPTIVE)
        return;
    if (!queue_n(s->queue))
        set_direction(s, false);
    else if (!s->reversed_us || s->now_us - s->reversed_us >= s->p.queue_late_us / 2)
        set_direction(s, waits_too_long(s));
}

static void run(struct sched *s)
{
    adapt_order(s);
    if (!queue_n(s->queue)) {
        s->room_gained = false;
        return;
    }
    rates_pass(s);
    if (s->room_gained)
        queue_unblock_all(s->queue);
    s->room_gained = false;
    if (s->p.queueing)
        run_room(s);
    else
        run_switched_off(s);
    if (!queue_n(s->queue))
        set_direction(s, false);
}

/* P/D: what changed in either role may have made room for those that wait, all with the one that decodes. */
void flow_run(struct sched *s)
{
    struct sched *decode = s->owner ? s->owner : s, *prefill = decode->peer;
    if (prefill) {
        bool gained = decode->room_gained || prefill->room_gained;
        pair_clock(decode);
        decode->room_gained = prefill->room_gained = gained;
        run(prefill);
    }
    run(decode);
}

/* ---- into the queue ---- */

static uint64_t deadline_of(const struct sched *s, const struct sched_req *r)
{
    uint64_t ttl = r->ttl_us ? r->ttl_us : s->p.queue_ttl_us + r->untimed_us;
    uint64_t left = ttl > r->waited_us ? ttl - r->waited_us : 0;
    return left > UINT64_MAX / 2 ? UINT64_MAX : r->pushed_us + left;
}

static uint64_t wake_of(const struct sched *s, const struct sched_req *r)
{
    uint64_t at = deadline_of(s, r);
    if (r->on_hold)
        return r->ttl_us ? MIN(at, hold_until(s, r)) : hold_until(s, r);
    return r->wait_for.gen ? MIN(at, r->wait_until_us) : at;
}

static void push(struct sched *s, struct sched_req *r)
{
    r->q.lane = lane_of(r);
    r->q.deadline_us = wake_of(s, r);
    queue_push(s->queue, &r->q);
}

/* Keeps its place: the order of arrival decides inside the new lane, too. */
static void move_lane(struct sched *s, struct sched_req *r)
{
    queue_remove(s->queue, &r->q);
    push(s, r);
}

static bool over(const struct sched *s, uint64_t n, uint64_t bytes)
{
    return n > s->p.queue_requests || bytes > s->p.queue_bytes;
}

static struct queue_item *victim(struct sched *s)
{
    return s->p.queue_discard == DISCARD_EARLIEST ? queue_earliest(s->queue) : queue_earliest_lowest(s->queue);
}

/* Whether the request can be let in by discarding such as may go for it. */
static bool may_enter(const struct sched *s, const struct sched_req *r)
{
    if (s->p.queue_discard == DISCARD_EARLIEST)
        return !over(s, 1, r->q.bytes);
    uint64_t above = r->priority < INT32_MAX ? queue_n_at_least(s->queue, r->priority + 1) : 0;
    return !over(s, above + 1, queue_bytes_above(s->queue, r->priority) + r->q.bytes);
}

static bool too_late(const struct sched *s, const struct sched_req *r)
{
    double wait_s;
    bool asked = s->p.early_refusal == EARLY_ALL || (s->p.early_refusal == EARLY_OWN && r->ttl_us);
    uint64_t before = asked ? queue_n_before(s->queue, r->priority, r->flow) : 0;
    if (!asked || s->n_on_hold || r->waited_us || r->n_tried || !expected_wait(s, r, before, &wait_s))
        return false;
    return wait_s / OPTIMISM * SEC > (double)(deadline_of(s, r) - s->now_us);
}

/* Every endpoint it could use has failed it: what it would wait for does not come with time. */
static bool failed_by_all_of(struct sched *s, const struct sched_req *r)
{
    const struct model_column *c = r->n_tried ? model_column(s, r->model) : NULL;
    for (uint32_t i = 0; r->n_tried && i < s->n_slots; i++) {
        const struct ep *e = &s->eps[i];
        if (e->used && !e->draining && !pick_tried(r, ep_ref_of(s, i)) && (!c || c->penalty[i] < INFINITY))
            return false;
    }
    return r->n_tried && s->n_used;
}

static bool failed_by_all(struct sched *s, const struct sched_req *r)
{
    return failed_by_all_of(s, r) || (pair_of(s, r) && r->must_split && failed_by_all_of(s->peer, r->leg));
}

static enum sched_answer enqueue(struct sched *s, struct sched_req *r)
{
    r->pushed_us = s->now_us;
    rates_pass(s);
    if (failed_by_all(s, r))
        return flow_reject(s, r, REJECT_NO_ENDPOINT);
    if (!may_enter(s, r))
        return flow_reject(s, r, REJECT_QUEUE_FULL);
    if (too_late(s, r))
        return flow_reject(s, r, REJECT_DEADLINE);
    while (over(s, queue_n(s->queue) + 1, queue_bytes(s->queue) + r->q.bytes))
        turn_away(s, req_of(victim(s)), REJECT_QUEUE_FULL);
    r->state = REQ_QUEUED;
    (void)class_of(s, r->priority); /* from now on it counts that this priority waits */
    push(s, r);
    return SCHED_QUEUED;
}

enum sched_answer flow_submit(struct sched *s, struct sched_req *r)
{
    flow_run(s); /* time alone may have made room since the last verb */
    r->q.priority = r->priority;
    r->q.flow = r->flow;
    r->q.bytes = r->prompt_bytes + 4 * r->prompt_token_ids;
    if (s->n_room && !starts_waiting_for(s, r) && pick_place(s, r, true)) {
        r->d.queued_us = r->waited_us;
        queue_charge(s->queue, &r->q, charge_of(r));
        return SCHED_PICKED;
    }
    (void)model_column(s, r->model); /* the model is asked for, whether somebody wants an explanation or not */
    if (r->explain)
        pick_explain_refused(s, r);
    return enqueue(s, r);
}

/* ---- ends ---- */

void flow_cancel(struct sched *s, struct sched_req *r)
{
    if (r->state != REQ_QUEUED || !queue_waiting(&r->q))
        return;
    leave(s, r);
    r->state = REQ_IDLE;
}

/* What the request really took, for the account of its flow. */
void flow_settle(struct sched *s, struct sched_req *r, enum sched_outcome how, const struct sched_usage *u)
{
    double tokens = -1;
    rates_pass(s);
    s->done.n += how == OUT_OK;
    if (u && u->prompt_tokens)
        tokens = (double)u->prompt_tokens + OUT_WEIGHT * (double)u->completion_tokens;
    else if (how != OUT_OK && !r->first_us)
        tokens = 0; /* it got nothing, or nothing that counts: a retry is charged again */
    queue_settle(s->queue, &r->q, tokens);
}

/* Not held any more: competes for room like any other, and its time in the queue begins. */
static void let_go(struct sched *s, struct sched_req *r)
{
    rates_pass(s);
    hold_set(s, r, false);
    r->hold_over = true;
    r->untimed_us = waited_us(s, r);
    move_lane(s, r);
    s->room_gained = true;
}

static void expired(struct sched *s, struct sched_req *r)
{
    if (r->on_hold && s->now_us >= hold_until(s, r)) {
        let_go(s, r);
        return;
    }
    if (r->wait_for.gen && s->now_us < deadline_of(s, r)) { /* waited long enough for the endpoint of its choice */
        r->wait_for = (struct ep_ref){0};
        move_lane(s, r);
        s->room_gained = true;
        return;
    }
    bool none = s->n_ready <= s->n_ejected;
    if (pair_of(s, r) && r->must_split)
        none = none || s->peer->n_ready <= s->peer->n_ejected;
    turn_away(s, r, none ? REJECT_NO_ENDPOINT : REJECT_QUEUE_TIMEOUT);
}

uint64_t flow_tick(struct sched *s)
{
    struct queue_item *it;
    s->room_gained |= s->hold != NULL; /* with time, caches become idle */
    flow_run(s);                       /* who can be placed at this moment is not too late */
    while ((it = queue_expired(s->queue, s->now_us)))
        expired(s, req_of(it));
    flow_run(s);
    rates_pass(s);
    if (queue_n(s->queue) && !s->p.queueing)
        return s->now_us + 1000;
    return queue_next_expiry(s->queue);
}

/* ---- settings ---- */

static void new_deadline(void *ctx, struct queue_item *it)
{
    struct sched *s = ctx;
    queue_set_deadline(s->queue, it, wake_of(s, req_of(it)));
}

static void let_go_if_held(void *ctx, struct queue_item *it)
{
    if (req_of(it)->on_hold)
        let_go(ctx, req_of(it));
}

void flow_params(struct sched *s, bool new_ttl)
{
    uint64_t flows[SCHED_MAX_FLOW_WEIGHTS];
    double weights[SCHED_MAX_FLOW_WEIGHTS];
    uint32_t n = MIN(s->p.n_flow_weights, (uint32_t)SCHED_MAX_FLOW_WEIGHTS);
    for (uint32_t i = 0; i < n; i++) {
        flows[i] = s->p.flow_weights[i].flow;
        weights[i] = s->p.flow_weights[i].weight;
    }
    queue_set_weights(s->queue, flows, weights, n);
    s->p.flow_weights = NULL; /* the queue has its copy */
    if (s->p.queue_order != ORDER_ADAPTIVE) {
        s->newest_first = false;
        s->reversed_us = 0;
    }
    queue_set_order(s->queue, s->p.queue_order == ORDER_DEADLINE ? QUEUE_BY_DEADLINE
                              : s->newest_first                  ? QUEUE_NEWEST_FIRST
                                                                 : QUEUE_OLDEST_FIRST);
    if (s->n_on_hold && !s->hold)
        queue_each(s->queue, let_go_if_held, s);
    if (new_ttl) /* with many that wait it takes its time */
        queue_each(s->queue, new_deadline, s);
    while (over(s, queue_n(s->queue), queue_bytes(s->queue)))
        turn_away(s, req_of(victim(s)), REJECT_QUEUE_FULL);
    s->room_gained = true;
}
