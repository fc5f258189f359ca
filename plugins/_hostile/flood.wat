  ;; Writes ten thousand log lines of 16 KiB, and counts under thousands of names that it never declared.
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "host" "defaults" (func $defaults (param i32)))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (import "host" "count" (func $count (param i32 i32 i32)))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (local $n i32)
      (loop $again
        (call $log (i32.const 3) (i32.const 0x1000) (i32.const 0x4000))
        (i32.store (i32.const 0x600) (i32.or (i32.const 0x4040) (i32.and (local.get $n) (i32.const 0x3f3f))))
        (call $count (i32.const 0x600) (i32.const 2) (i32.const 1))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $n) (i32.const 10000))))
      (call $defaults (i32.const 0x804))
      (i32.const 0x800)))
