  ;; Wants a gigabyte before it has done anything.
  (core module $policy
    (import "base" "memory" (memory 1))
    (memory $much 16384)
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (unreachable)))
