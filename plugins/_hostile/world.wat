;; A policy by hand: what every fixture of this folder is put into. `tests/fixture` of crates/plugin replaces the two
;; marked lines: the core module of the policy, and the optional hooks.
;;
;; Memory and allocator are a module of their own, so that the host's functions can be lowered before the policy exists.
;; The allocator only counts up; after each call it starts anew.
(component
  (import "refrain:policy/types@0.1.0" (instance $types
    (type $role' (enum "system" "developer" "user" "assistant" "tool" "other"))
    (export "role" (type (eq $role')))
    (type $api' (enum "chat" "responses" "messages" "completion" "embeddings" "other"))
    (export "api" (type $api (eq $api')))
    (type $temperature (option f32))
    (type $request' (record
      (field "route" string) (field "tenant" string) (field "api" $api) (field "model" string)
      (field "streaming" bool) (field "temperature" $temperature) (field "has-tools" bool)
      (field "has-media" bool) (field "message-count" u32) (field "body-size" u32)))
    (export "request-summary" (type (eq $request')))
    (type $tokens (option u32))
    (type $response' (record
      (field "status" u16) (field "finish-reason" string) (field "complete" bool) (field "has-tool-calls" bool)
      (field "input-tokens" $tokens) (field "output-tokens" $tokens) (field "upstream" string)
      (field "latency-ms" u32) (field "text-size" u32)))
    (export "response-summary" (type (eq $response')))))
  (alias export $types "request-summary" (type $request))
  (alias export $types "response-summary" (type $response))

  (import "refrain:policy/values@0.1.0" (instance $values
    (type $part' (variant
      (case "text" string) (case "header" string) (case "claim" string) (case "message" u32) (case "json" string)
      (case "model") (case "sampling") (case "system-prompt") (case "tools") (case "messages") (case "history")))
    (export "key-part" (type $part (eq $part')))
    (type $steps (list u32))
    (type $op' (variant (case "remove") (case "drop-lines-starting" string) (case "round-up" $steps)))
    (export "edit-op" (type $op (eq $op')))
    (type $edit' (record (field "pointer" string) (field "op" $op) (field "send-upstream" bool)))
    (export "edit" (type $edit (eq $edit')))
    (type $parts (list $part))
    (type $edits (list $edit))
    (type $key' (record (field "add" $parts) (field "edits" $edits)))
    (export "key-change" (type $key (eq $key')))
    (type $lookup' (enum "normal" "skip" "only"))
    (export "lookup" (type $lookup (eq $lookup')))
    (type $scope' (variant
      (case "within-user" string) (case "user") (case "claim" string) (case "tenant") (case "shared" string)))
    (export "scope" (type $scope (eq $scope')))
    (type $span (tuple u32 u32))
    (type $source' (variant
      (case "last-user-message") (case "span" $span) (case "all-user-messages") (case "last-messages" u32)
      (case "text" string)))
    (export "embed-source" (type $source (eq $source')))
    (type $names (list string))
    (type $semantic' (record
      (field "source" $source) (field "threshold" f32) (field "candidates" u32) (field "vetoes" $names)))
    (export "semantic" (type $semantic (eq $semantic')))
    (type $freshness' (record
      (field "ttl-s" u32) (field "stale-revalidate-s" u32) (field "stale-error-s" u32)))
    (export "freshness" (type $freshness (eq $freshness')))
    (type $name (option string))
    (type $upstream' (record (field "pool" $name) (field "routing-key" $parts) (field "model" $name)))
    (export "upstream" (type $upstream (eq $upstream')))
    (type $label (tuple string string))
    (type $labels' (list $label))
    (export "labels" (type $labels (eq $labels')))
    (type $maybe-semantic (option $semantic))
    (type $plan' (record
      (field "key" $key) (field "lookup" $lookup) (field "collapse" bool) (field "scope" $scope)
      (field "semantic" $maybe-semantic) (field "fresh" $freshness) (field "shadow" bool) (field "store" bool)
      (field "upstream" $upstream) (field "context" string) (field "labels" $labels)))
    (export "plan" (type $plan (eq $plan')))
    (type $bypass' (record (field "reason" string) (field "upstream" $upstream) (field "labels" $labels)))
    (export "bypass" (type $bypass (eq $bypass')))
    (type $seconds (option u32))
    (type $refusal' (record (field "status" u16) (field "message" string) (field "retry-after-s" $seconds)))
    (export "refusal" (type $refusal (eq $refusal')))
    (type $decision' (variant (case "cache" $plan) (case "bypass" $bypass) (case "refuse" $refusal)))
    (export "decision" (type (eq $decision')))))
  (alias export $values "plan" (type $plan))
  (alias export $values "decision" (type $decision))
  (alias export $values "freshness" (type $freshness))
  (alias export $values "scope" (type $scope))
  (alias export $values "labels" (type $labels))

  (import "refrain:policy/route@0.1.0" (instance $route
    (alias outer 1 $plan (type $plan'))
    (export "plan" (type $plan (eq $plan')))
    (export "defaults" (func (result $plan)))))
  (import "refrain:policy/request@0.1.0" (instance $req
    (type $bytes (list u8))
    (export "body" (func (param "offset" u32) (param "len" u32) (result $bytes)))))
  (import "refrain:policy/host@0.1.0" (instance $host
    (type $level' (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level')))
    (export "log" (func (param "level" $level) (param "message" string)))
    (export "now-ms" (func (result f64)))
    (export "count" (func (param "name" string) (param "by" u32)))))
  (import "refrain:policy/state@0.1.0" (instance $state
    (export "add" (func (param "key" string) (param "delta" f64) (param "ttl-s" u32) (result f64)))))
  (import "refrain:policy/embed@0.1.0" (instance $embed
    (type $error' (variant (case "denied") (case "timeout") (case "too-long") (case "unavailable" string)))
    (export "error" (type $error (eq $error')))
    (type $similarity (result f32 (error $error)))
    (export "similarity" (func (param "a" string) (param "b" string) (result $similarity)))))

  (core module $base
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 0x8000))
    (func (export "realloc") (param $old i32) (param $old-len i32) (param $align i32) (param $len i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $len)))
      (block $enough (loop $more
        (br_if $enough (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 0x10000))))
        (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))
        (br $more)))
      (local.get $at))
    (func (export "done") (param i32) (global.set $next (i32.const 0x8000)))
    ;; 0x400: `ok` of what a policy says of itself.
    (data (i32.const 0x400) "\00\00\00\00\00\05\00\00\03\00\00\00\03\05\00\00\01\00\00\00\00\00\00\00\00\00\00\00"
                            "\80\04\00\00\01\00\00\00\88\04\00\00\01\00\00\00\90\04\00\00\01\00\00\00")
    (data (i32.const 0x480) "\04\05\00\00\05\00\00\00")
    (data (i32.const 0x488) "\09\05\00\00\08\00\00\00")
    (data (i32.const 0x490) "\11\05\00\00\04\00\00\00\a0\04\00\00\01\00\00\00")
    (data (i32.const 0x4a0) "\15\05\00\00\04\00\00\00")
    (data (i32.const 0x500) "wat1knowndeclaredtiergold"))
  (core instance $base (instantiate $base))
  (alias core export $base "memory" (core memory $memory))
  (alias core export $base "realloc" (core func $realloc))
  (alias core export $base "done" (core func $done))

  (core func $defaults (canon lower (func $route "defaults") (memory $memory) (realloc $realloc)))
  (core func $body (canon lower (func $req "body") (memory $memory) (realloc $realloc)))
  (core func $log (canon lower (func $host "log") (memory $memory)))
  (core func $now-ms (canon lower (func $host "now-ms")))
  (core func $count (canon lower (func $host "count") (memory $memory)))
  (core func $add (canon lower (func $state "add") (memory $memory)))
  (core func $similarity (canon lower (func $embed "similarity") (memory $memory) (realloc $realloc)))
  (core instance $functions
    (export "defaults" (func $defaults)) (export "body" (func $body)) (export "log" (func $log))
    (export "now-ms" (func $now-ms)) (export "count" (func $count)) (export "add" (func $add))
    (export "similarity" (func $similarity)))

  ;; @policy
  (core instance $policy (instantiate $policy (with "base" (instance $base)) (with "host" (instance $functions))))

  (type $grant' (enum "shared-scope" "refuse" "key-edit" "rewrite" "pool" "state" "embed"))
  (export $grant "grant" (type $grant'))
  (type $texts (list string))
  (type $metric-label' (record (field "name" string) (field "values" $texts)))
  (export $metric-label "metric-label" (type $metric-label'))
  (type $grants (list $grant))
  (type $metric-labels (list $metric-label))
  (type $about' (record
    (field "name" string) (field "version" string) (field "needs" $grants) (field "metrics" $texts)
    (field "reasons" $texts) (field "labels" $metric-labels)))
  (export $about "about" (type $about'))
  (type $configured (result $about (error string)))
  (func $configure (param "config" string) (result $configured)
    (canon lift (core func $policy "configure") (memory $memory) (realloc $realloc) (post-return $done)))
  (instance $setup
    (export "grant" (type $grant)) (export "metric-label" (type $metric-label)) (export "about" (type $about))
    (export "configure" (func $configure)))
  (export "refrain:policy/setup@0.1.0" (instance $setup))

  (func $on-request (param "req" $request) (result $decision)
    (canon lift (core func $policy "on-request") (memory $memory) (realloc $realloc) (post-return $done)))
  (instance $decide
    (export "request-summary" (type $request)) (export "decision" (type $decision))
    (export "on-request" (func $on-request)))
  (export "refrain:policy/decide@0.1.0" (instance $decide))
  ;; @hooks
)
