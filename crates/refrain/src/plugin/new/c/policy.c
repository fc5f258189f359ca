// What this policy is for.

#include <stdlib.h>
#include <string.h>

#include "bindings/policy.h"

enum { TTL_S_MAX = 600, QUESTION_BYTES_MAX = 2048 };

// Every reason that a decision may give is declared in `about`.
static const char TIME_SENSITIVE[] = "time_sensitive";

// A copy, which the generated code frees.
static policy_string_t copy(const char *text) {
  policy_string_t string;
  policy_string_dup(&string, text);
  return string;
}

// Called for each new instance. False, with an error, refuses the configuration.
bool exports_refrain_policy_setup_configure(policy_string_t *config, exports_refrain_policy_setup_about_t *about,
                                            policy_string_t *error) {
  bool empty = config->len == 2;
  policy_string_free(config);
  if (!empty) {
    *error = copy("this policy takes no configuration");
    return false;
  }
  memset(about, 0, sizeof *about);
  about->name = copy("{{name}}");
  about->version = copy("0.1.0");
  about->reasons.ptr = malloc(sizeof(policy_string_t));
  if (!about->reasons.ptr) abort();
  about->reasons.len = 1;
  about->reasons.ptr[0] = copy(TIME_SENSITIVE);
  return true;
}

static bool contains(const policy_string_t *text, const char *word) {
  size_t len = strlen(word);
  for (size_t at = 0; at + len <= text->len; at++) {
    size_t same = 0;
    // Lower case of ASCII letters.
    while (same < len && (text->ptr[at + same] | 0x20) == (uint8_t)word[same]) same++;
    if (same == len) return true;
  }
  return false;
}

// Whether the last message is about today.
static bool is_time_sensitive(uint32_t message_count) {
  policy_string_t text;
  if (message_count == 0) return false;
  if (!refrain_policy_request_message_text(message_count - 1, QUESTION_BYTES_MAX, &text)) return false;
  bool found = contains(&text, "today");
  policy_string_free(&text);
  return found;
}

// Named, not copied: Refrain reads the header itself.
static void add_header(refrain_policy_values_list_key_part_t *parts, const char *name) {
  // The pointer of an empty list is none of malloc's.
  parts->ptr = realloc(parts->len > 0 ? parts->ptr : NULL, (parts->len + 1) * sizeof *parts->ptr);
  if (!parts->ptr) abort();
  refrain_policy_values_key_part_t *part = &parts->ptr[parts->len++];
  part->tag = REFRAIN_POLICY_VALUES_KEY_PART_HEADER;
  part->val.header = copy(name);
}

// Called once a request. The route's own plan is the start: take it, and change what the policy is about.
void exports_refrain_policy_decide_on_request(exports_refrain_policy_decide_request_summary_t *req,
                                              exports_refrain_policy_decide_decision_t *decision) {
  if (is_time_sensitive(req->message_count)) {
    memset(decision, 0, sizeof *decision);
    decision->tag = REFRAIN_POLICY_VALUES_DECISION_BYPASS;
    decision->val.bypass.reason = copy(TIME_SENSITIVE);
  } else {
    decision->tag = REFRAIN_POLICY_VALUES_DECISION_CACHE;
    refrain_policy_values_plan_t *plan = &decision->val.cache;
    refrain_policy_route_defaults(plan);
    add_header(&plan->key.add, "x-project");
    if (plan->fresh.ttl_s > TTL_S_MAX) plan->fresh.ttl_s = TTL_S_MAX;
  }
  exports_refrain_policy_decide_request_summary_free(req);
}
