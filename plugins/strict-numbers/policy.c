// Serves a similar question's answer only if both questions say the same in numbers, dates, units and currencies, in the
// same order. Refrain's own evidence must agree too.

#include <stdlib.h>
#include <string.h>

#include "bindings/policy.h"
#include "facts.h"

enum {
  // Refrain cuts stored questions here, so of a longer one the end is unknown.
  SOURCE_BYTES_MAX = 2048,
  EVIDENCES = 3,
};

// By kind; the last one is for what can't be judged.
static const char *const REASONS[KINDS + 1] = {
    "number_differs", "date_differs", "unit_differs", "currency_differs", "not_readable",
};
static const char *const EVIDENCE[EVIDENCES] = {"number", "date", "unit"};

// A copy, which the generated code frees.
static policy_string_t copy(const char *text) {
  policy_string_t string;
  policy_string_dup(&string, text);
  return string;
}

// A name that stays ours.
static policy_string_t name(const char *text) {
  policy_string_t string;
  policy_string_set(&string, text);
  return string;
}

static policy_list_string_t copies(const char *const *texts, size_t len) {
  policy_list_string_t list = {malloc(len * sizeof(policy_string_t)), len};
  if (!list.ptr) abort();
  for (size_t i = 0; i < len; i++) list.ptr[i] = copy(texts[i]);
  return list;
}

static bool is_empty_object(const policy_string_t *json) {
  size_t braces = 0;
  for (size_t i = 0; i < json->len; i++) {
    uint8_t byte = json->ptr[i];
    if (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r') continue;
    if (braces > 1 || byte != "{}"[braces]) return false;
    braces++;
  }
  return braces == 2;
}

bool exports_refrain_policy_setup_configure(policy_string_t *config, exports_refrain_policy_setup_about_t *about,
                                            policy_string_t *error) {
  bool empty = is_empty_object(config);
  policy_string_free(config);
  if (!empty) {
    *error = copy("this policy takes no configuration");
    return false;
  }
  memset(about, 0, sizeof *about);
  about->name = copy("strict-numbers");
  about->version = copy("0.1.0");
  about->reasons = copies(REASONS, KINDS + 1);
  return true;
}

static bool has_veto(const policy_list_string_t *vetoes, const char *veto) {
  for (size_t i = 0; i < vetoes->len; i++) {
    if (vetoes->ptr[i].len == strlen(veto) && memcmp(vetoes->ptr[i].ptr, veto, strlen(veto)) == 0) return true;
  }
  return false;
}

static void add_vetoes(policy_list_string_t *vetoes) {
  // The pointer of an empty list is none of malloc's.
  policy_string_t *own = vetoes->len > 0 ? vetoes->ptr : NULL;
  policy_string_t *grown = realloc(own, (vetoes->len + EVIDENCES) * sizeof(policy_string_t));
  if (!grown) abort();
  vetoes->ptr = grown;
  for (size_t i = 0; i < EVIDENCES; i++) {
    if (!has_veto(vetoes, EVIDENCE[i])) vetoes->ptr[vetoes->len++] = copy(EVIDENCE[i]);
  }
}

void exports_refrain_policy_decide_on_request(exports_refrain_policy_decide_request_summary_t *req,
                                              exports_refrain_policy_decide_decision_t *decision) {
  decision->tag = REFRAIN_POLICY_VALUES_DECISION_CACHE;
  refrain_policy_values_plan_t *plan = &decision->val.cache;
  refrain_policy_route_defaults(plan);
  if (plan->semantic.is_some) add_vetoes(&plan->semantic.val.vetoes);
  exports_refrain_policy_decide_request_summary_free(req);
}

// KINDS + 1 if nothing differs, KINDS if that can't be said.
static size_t judge_evidence(uint32_t candidate) {
  for (size_t i = 0; i < EVIDENCES; i++) {
    policy_string_t measure = name(EVIDENCE[i]);
    float differs = 0;
    if (refrain_policy_candidates_evidence(candidate, &measure, &differs) && differs > 0) return i;
  }
  return KINDS + 1;
}

static size_t judge_texts(const struct facts *question, const policy_string_t *source) {
  static struct facts stored;
  if (question->incomplete || source->len == 0 || source->len >= SOURCE_BYTES_MAX) return KINDS;
  facts_read(source->ptr, source->len, &stored);
  if (stored.incomplete) return KINDS;
  enum kind kind = facts_differ(question, &stored);
  return kind == KINDS ? KINDS + 1 : kind;
}

static size_t judge(uint32_t index, const exports_refrain_policy_validate_candidate_t *candidate,
                    const struct facts *question) {
  if (candidate->exact) return KINDS + 1;
  size_t reason = judge_texts(question, &candidate->source_text);
  return reason > KINDS ? judge_evidence(index) : reason;
}

// The last message, which is what Refrain compares by default.
static void read_question(uint32_t message_count, struct facts *question) {
  policy_string_t text;
  question->incomplete = true;
  if (message_count == 0) return;
  if (!refrain_policy_request_message_text(message_count - 1, SOURCE_BYTES_MAX, &text)) return;
  facts_read(text.ptr, text.len, question);
  question->incomplete |= text.len + 3 >= SOURCE_BYTES_MAX;
  policy_string_free(&text);
}

void exports_refrain_policy_validate_on_candidates(exports_refrain_policy_validate_request_summary_t *req,
                                                   policy_string_t *context,
                                                   exports_refrain_policy_validate_list_candidate_t *candidates,
                                                   exports_refrain_policy_validate_verdict_t *verdict) {
  static struct facts question;
  // An exact answer stands alone, and needs no reading.
  if (candidates->len == 0 || !candidates->ptr[0].exact) read_question(req->message_count, &question);
  size_t best_reason = KINDS;
  verdict->tag = EXPORTS_REFRAIN_POLICY_VALIDATE_VERDICT_MISS;
  for (uint32_t i = 0; i < candidates->len; i++) {
    size_t reason = judge(i, &candidates->ptr[i], &question);
    if (reason > KINDS) {
      verdict->tag = EXPORTS_REFRAIN_POLICY_VALIDATE_VERDICT_ACCEPT;
      verdict->val.accept = i;
      break;
    }
    if (i == 0) best_reason = reason;
  }
  if (verdict->tag == EXPORTS_REFRAIN_POLICY_VALIDATE_VERDICT_MISS) verdict->val.miss = copy(REASONS[best_reason]);
  exports_refrain_policy_validate_request_summary_free(req);
  exports_refrain_policy_validate_list_candidate_free(candidates);
  policy_string_free(context);
}
