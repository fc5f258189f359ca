  ;; Hands over 60 MiB as its context.
  (core module $policy
    (import "base" "memory" (memory 1))
    (import "host" "defaults" (func $defaults (param i32)))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (drop (memory.grow (i32.const 980)))
      (call $defaults (i32.const 0x804))
      (i32.store (i32.const 0x874) (i32.const 0x10000))
      (i32.store (i32.const 0x878) (i32.const 0x3c00000))
      (i32.const 0x800)))
