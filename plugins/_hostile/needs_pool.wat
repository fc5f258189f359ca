  ;; Says that it can't do without the grant "pool".
  (core module $policy
    (import "base" "memory" (memory 1))
    (data (i32.const 0x700) "\04")
    (func (export "configure") (param i32 i32) (result i32)
      (i32.store (i32.const 0x414) (i32.const 0x700))
      (i32.store (i32.const 0x418) (i32.const 1))
      (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (unreachable)))
