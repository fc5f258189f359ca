  ;; Takes memory, and touches it, until it gets no more.
  (core module $policy
    (import "base" "memory" (memory 1))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0x400))
    (func (export "on-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 f32 i32 i32 i32 i32) (result i32)
      (local $page i32)
      (loop $more
        (local.set $page (memory.grow (i32.const 16)))
        (if (i32.eq (local.get $page) (i32.const -1)) (then (unreachable)))
        (memory.fill (i32.mul (local.get $page) (i32.const 0x10000)) (i32.const 1) (i32.const 0x100000))
        (br $more))
      (unreachable)))
