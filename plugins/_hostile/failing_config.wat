  ;; Refuses every configuration, in its own words.
  (core module $policy
    (import "base" "memory" (memory 1))
    (data (i32.const 0x700) "\01\00\00\00\10\07\00\00\12\00\00\00")
    (data (i32.const 0x710) "no such colour: 42")
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x700))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (unreachable)))
