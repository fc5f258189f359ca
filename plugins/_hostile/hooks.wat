  ;; The optional hooks, for policies that have them.
  (type $candidate' (record
    (field "similarity" f32) (field "exact" bool) (field "age-s" u32) (field "stale" bool)
    (field "source-text" string) (field "model" string) (field "labels" $labels)))
  (export $candidate "candidate" (type $candidate'))
  (type $verdict' (variant (case "accept" u32) (case "miss" string)))
  (export $verdict "verdict" (type $verdict'))
  (type $candidates (list $candidate))
  (func $on-candidates
    (param "req" $request) (param "context" string) (param "candidates" $candidates) (result $verdict)
    (canon lift (core func $policy "on-candidates") (memory $memory) (realloc $realloc) (post-return $done)))
  (instance $validate
    (export "request-summary" (type $request)) (export "labels" (type $labels)) (export "candidate" (type $candidate))
    (export "verdict" (type $verdict)) (export "on-candidates" (func $on-candidates)))
  (export "refrain:policy/validate@0.1.0" (instance $validate))

  (type $narrow (option $scope))
  (type $entry' (record
    (field "fresh" $freshness) (field "narrow" $narrow) (field "exact-only" bool) (field "tags" $texts)
    (field "labels" $labels)))
  (export $entry "entry" (type $entry'))
  (type $outcome' (variant (case "keep" $entry) (case "skip" string)))
  (export $outcome "outcome" (type $outcome'))
  (func $on-response
    (param "req" $request) (param "context" string) (param "resp" $response) (result $outcome)
    (canon lift (core func $policy "on-response") (memory $memory) (realloc $realloc) (post-return $done)))
  (instance $store
    (export "request-summary" (type $request)) (export "response-summary" (type $response))
    (export "freshness" (type $freshness)) (export "scope" (type $scope)) (export "labels" (type $labels))
    (export "entry" (type $entry)) (export "outcome" (type $outcome))
    (export "on-response" (func $on-response)))
  (export "refrain:policy/store@0.1.0" (instance $store))
