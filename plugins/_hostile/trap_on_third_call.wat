  ;; Works twice, then traps.
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "host" "defaults" (func $defaults (param i32)))
    (global $calls (mut i32) (i32.const 0))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
      (if (i32.eq (global.get $calls) (i32.const 3)) (then (unreachable)))
      (call $defaults (i32.const 0x804))
      (i32.const 0x800)))
