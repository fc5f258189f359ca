  ;; Calls itself for ever.
  (core module $policy
    (import "base" "memory" (memory 1))
    (func $deeper (param i32) (result i32)
      (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (call $deeper (i32.const 0))))
