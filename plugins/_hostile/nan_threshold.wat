  ;; Wants a threshold of NaN, which no similarity is below.
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "host" "defaults" (func $defaults (param i32)))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (call $defaults (i32.const 0x804))
      (f32.store (i32.const 0x834) (f32.const nan))
      (i32.const 0x800)))
