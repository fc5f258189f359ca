  ;; Hands over a million labels whose names and values are all the same megabyte: a terabyte, if anybody copied it.
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "host" "defaults" (func $defaults (param i32)))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (local $at i32)
      (drop (memory.grow (i32.const 300)))
      (call $defaults (i32.const 0x804))
      (local.set $at (i32.const 0x200000))
      (loop $next
        (i32.store (local.get $at) (i32.const 0x10000))
        (i32.store (i32.add (local.get $at) (i32.const 4)) (i32.const 0x100000))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $at) (i32.const 0x280000))))
      (i32.store (i32.const 0x87c) (i32.const 0x200000))
      (i32.store (i32.const 0x880) (i32.const 0x100000))
      (i32.const 0x800)))
