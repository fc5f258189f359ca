  ;; A policy that takes the route's plan and changes what the marked lines say. The decision is at 0x800, so the plan
  ;; is at 0x804: key 0x804 and 0x80c (lists), lookup 0x814, collapse 0x815, scope 0x818 (text 0x81c), semantic 0x824
  ;; (source 0x828, threshold 0x834, candidates 0x838, vetoes 0x83c), ttl 0x844, stale 0x848 and 0x84c, shadow 0x850,
  ;; store 0x851, pool 0x854 (text 0x858), routing key 0x860, model 0x868 (text 0x86c), context 0x874, labels 0x87c.
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "base" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
    (import "host" "defaults" (func $defaults (param i32)))
    (import "host" "body" (func $body (param i32 i32 i32)))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (import "host" "now-ms" (func $now-ms (result f64)))
    (import "host" "count" (func $count (param i32 i32 i32)))
    (import "host" "add" (func $add (param i32 i32 f64 i32) (result f64)))
    (import "host" "similarity" (func $similarity (param i32 i32 i32 i32 i32)))
    (global $calls (mut i32) (i32.const 0))
    (data (i32.const 0xc00) "known text")
    (func $text (param $at i32) (param $from i32) (param $len i32)
      (i32.store (local.get $at) (local.get $from))
      (i32.store (i32.add (local.get $at) (i32.const 4)) (local.get $len)))
    (func (export "configure") (param $config i32) (param $config-len i32) (result i32)
      ;; @configure
      (i32.const 0x400))
    (func (export "on-request")
      (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (call $defaults (i32.const 0x804))
      ;; @on-request
      (i32.const 0x800))
    ;; The verdict at 0x900: accepts the first.
    (func (export "on-candidates") (param i32) (result i32)
      ;; @on-candidates
      (i32.const 0x900))
    ;; The outcome at 0xa00: keeps. The entry is at 0xa04: ttl 0xa04, stale 0xa08 and 0xa0c, narrow 0xa10 (scope 0xa14),
    ;; exact-only 0xa20, tags 0xa24, labels 0xa2c.
    (func (export "on-response") (param i32) (result i32)
      ;; @on-response
      (i32.const 0xa00)))
