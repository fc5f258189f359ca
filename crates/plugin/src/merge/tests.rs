//! Whatever policies answer, the result is within the operator's bounds.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::{option, sample};
use refrain_core::settings::Grant;
use refrain_core::{
    Directives, Edit, EditOp, EmbedSource, Freshness, KeyPart, Plan, PoolId, Scope, SemanticPlan, Veto,
};

use super::*;
use crate::answer::Answer;
use crate::bounds::{Rights, check_answer};

const FLOOR: f32 = 0.8;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-c/]{0,6}",
        1 => (0..3_usize).prop_map(|n| "x".repeat([255, 257, 20_000][n])),
    ]
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::User),
        Just(Scope::Tenant),
        text().prop_map(Scope::Claim),
        text().prop_map(Scope::UserPart),
        text().prop_map(Scope::Shared),
    ]
}

fn own_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![scope(), "[a-c]{1,2}".prop_map(Scope::WithinUser)]
}

fn part() -> impl Strategy<Value = KeyPart> {
    prop_oneof![
        text().prop_map(KeyPart::Text),
        text().prop_map(KeyPart::Json),
        any::<u32>().prop_map(KeyPart::Message),
        Just(KeyPart::Model),
    ]
}

fn source() -> impl Strategy<Value = EmbedSource> {
    prop_oneof![
        Just(EmbedSource::LastUserMessage),
        any::<(u32, u32)>().prop_map(|(start, len)| EmbedSource::Span { start, len }),
        Just(EmbedSource::AllUserMessages),
        any::<u32>().prop_map(EmbedSource::LastMessages),
        text().prop_map(EmbedSource::Text),
    ]
}

/// Every float: NaN, the infinities, and those that config allows more often than chance would.
fn threshold() -> impl Strategy<Value = f32> {
    prop_oneof![4 => 0.0..=1.0_f32, 1 => any::<f32>(), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)]
}

fn semantic() -> impl Strategy<Value = SemanticWanted> {
    let candidates = prop_oneof![4 => 1..=64_u32, 1 => any::<u32>()];
    (source(), threshold(), candidates, vec(sample::select(&Veto::ALL[..]), 0..10)).prop_map(
        |(source, threshold, candidates, vetoes)| SemanticWanted { source, threshold, candidates, vetoes },
    )
}

fn freshness() -> impl Strategy<Value = Freshness> {
    any::<(u32, u32, u32)>().prop_map(|(ttl, revalidate, error)| Freshness {
        ttl: Duration::from_secs(ttl.into()),
        stale_while_revalidate: Duration::from_secs(revalidate.into()),
        stale_if_error: Duration::from_secs(error.into()),
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let op = prop_oneof![
        Just(EditOp::Remove),
        text().prop_map(EditOp::DropLinesStarting),
        vec(any::<u32>(), 0..3).prop_map(EditOp::RoundUp),
    ];
    (text(), op, any::<bool>()).prop_map(|(pointer, op, send_upstream)| Edit { pointer, op, send_upstream })
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let pool = option::weighted(0.1, prop_oneof![Just("main"), Just("other")].prop_map(PoolId::from));
    (pool, vec(part(), 0..2), option::weighted(0.2, text())).prop_map(|(pool, routing_key, model)| Upstream {
        pool,
        routing_key,
        model,
    })
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let lookup = sample::select(&[Lookup::Normal, Lookup::Skip, Lookup::Only][..]);
    let key = (vec(part(), 0..3), prop_oneof![4 => vec(edit(), 0..1), 1 => vec(edit(), 0..40)]);
    let told = (upstream(), text(), vec((text(), text()), 0..2));
    let flags = any::<(bool, bool, bool)>();
    (key, lookup, flags, scope(), option::of(semantic()), freshness(), told).prop_map(
        |((key_add, edits), lookup, (collapse, shadow, store), scope, semantic, freshness, told)| {
            let (upstream, context, labels) = told;
            Wanted {
                key_add,
                edits,
                lookup,
                collapse,
                scope,
                semantic,
                freshness,
                shadow,
                store,
                upstream,
                context,
                labels,
            }
        },
    )
}

fn grants() -> impl Strategy<Value = BTreeSet<Grant>> {
    btree_set(sample::select(&Grant::ALL[..]), 0..=Grant::ALL.len())
}

fn own_plan() -> impl Strategy<Value = Plan> {
    (own_scope(), any::<bool>(), any::<[bool; 5]>()).prop_map(|(scope, semantic, flags)| {
        let [collapse, shadow, store, no_cache, only_if_cached] = flags;
        Plan {
            scope,
            semantic: semantic.then(|| SemanticPlan {
                source: EmbedSource::default(),
                threshold: 0.9,
                candidates: 8,
                vetoes: vec![Veto::Number],
                shadow,
            }),
            freshness: Freshness::of_ttl(Duration::from_secs(60)),
            collapse,
            shadow,
            store,
            store_tool_offers: false,
            entry_bytes_max: 1,
            directives: Directives { no_cache, only_if_cached, ..Directives::default() },
        }
    })
}

fn bounds() -> Bounds {
    Bounds {
        freshness_max: Freshness {
            ttl: Duration::from_secs(3600),
            stale_while_revalidate: Duration::from_secs(30),
            stale_if_error: Duration::ZERO,
        },
        threshold_floor: FLOOR,
    }
}

/// What all of these answers make of a plan, unless one is none or two contradict each other.
fn merged(own: &Plan, policies: Vec<(Wanted, BTreeSet<Grant>)>) -> Option<Planned> {
    let mut merge = Merge::default();
    for (wanted, grants) in policies {
        let answer = Answer::Cache(Box::new(wanted));
        let pool = PoolId::from("main");
        let rights = Rights { grants: &grants, pool: &pool, semantic: own.semantic.as_ref() };
        check_answer(&answer, rights).ok()?;
        let Answer::Cache(mut wanted) = answer else { return None };
        bounds().clamp(&mut wanted, own, &grants);
        merge.plan(*wanted, own).ok()?;
    }
    Some(merge.into_planned(own, Contexts::from(vec![])))
}

/// Strict comparisons on purpose: a NaN fails them.
fn is_within_bounds(planned: &Planned, own: &Plan, all_grants: &BTreeSet<Grant>) {
    let Planned { plan, key_add: _, edits, upstream, labels: _, contexts: _ } = planned;
    let may = |grant| all_grants.contains(&grant);
    assert!(may(Grant::SharedScope) || plan.scope == own.scope || !plan.scope.is_wider_than(&own.scope));
    assert_eq!(plan.freshness, plan.freshness.min(bounds().freshness_max));
    assert!(own.collapse || !plan.collapse);
    assert!(own.store || !plan.store);
    assert!(!own.shadow || plan.shadow);
    assert!(!own.directives.no_cache || plan.directives.no_cache);
    assert!(!own.directives.only_if_cached || plan.directives.only_if_cached);
    match (&own.semantic, &plan.semantic) {
        (_, None) => {}
        (None, Some(_)) => panic!("a semantic tier where the route has none"),
        (Some(own), Some(semantic)) => {
            assert!((FLOOR..=1.0).contains(&semantic.threshold));
            assert!((1..=64).contains(&semantic.candidates));
            assert!(own.vetoes.iter().all(|veto| semantic.vetoes.contains(veto)));
            assert!(!own.shadow || semantic.shadow);
            let is_free = matches!(semantic.source, EmbedSource::LastUserMessage | EmbedSource::Span { .. });
            assert!(is_free || may(Grant::KeyEdit));
        }
    }
    assert!(edits.is_empty() || may(Grant::KeyEdit));
    assert!(edits.iter().all(|edit| !edit.send_upstream) || may(Grant::Rewrite));
    assert!(upstream.pool.as_ref().is_none_or(|pool| pool.as_str() == "main") || may(Grant::Pool));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn no_answers_widen_a_plan_beyond_its_bounds(
        own in own_plan(),
        policies in vec((wanted(), grants()), 1..4),
    ) {
        let all_grants = policies.iter().flat_map(|(_, grants)| grants.clone()).collect();
        if let Some(planned) = merged(&own, policies) {
            is_within_bounds(&planned, &own, &all_grants);
        }
    }

    #[test]
    fn no_answer_keeps_an_entry_longer_or_wider_than_its_plan(
        own in own_plan(),
        entries in vec((freshness(), option::of(scope())), 1..4),
    ) {
        let mut merge = KeepMerge::new(&own);
        let kept = entries.into_iter().try_for_each(|(freshness, narrow)| {
            merge.keep(KeepWanted { freshness, narrow, exact_only: false, tags: vec![], labels: vec![] })
        });
        if kept.is_ok() {
            let keep = merge.into_keep();
            prop_assert_eq!(keep.freshness, keep.freshness.min(own.freshness));
            prop_assert!(keep.narrow.is_none_or(|scope| !scope.is_wider_than(&own.scope)));
        }
    }

    #[test]
    fn what_a_scope_would_have_parted_stays_parted(
        own in own_plan(),
        name in "[a-c]{1,2}",
        other in "[d-f]{1,2}",
    ) {
        let shared = |name: &str| {
            let mut wanted = lowered(&own);
            wanted.scope = Scope::Shared(name.into());
            merged(&own, vec![(wanted, BTreeSet::new())]).map(|planned| (planned.plan.scope, planned.key_add))
        };
        prop_assert_ne!(shared(&name), shared(&other));
    }
}

/// The answer of a policy that changes nothing.
fn lowered(own: &Plan) -> Wanted {
    Wanted {
        key_add: vec![],
        edits: vec![],
        lookup: own_lookup(own),
        collapse: own.collapse,
        scope: match own.scope.clone() {
            Scope::WithinUser(name) => Scope::UserPart(name),
            scope => scope,
        },
        semantic: own.semantic.clone().map(|own| SemanticWanted {
            source: own.source,
            threshold: own.threshold,
            candidates: 8,
            vetoes: own.vetoes,
        }),
        freshness: own.freshness,
        shadow: own.shadow,
        store: own.store,
        upstream: Upstream::default(),
        context: String::new(),
        labels: vec![],
    }
}

#[test]
fn policies_that_change_nothing_change_nothing() {
    let own = Plan { scope: Scope::WithinUser("project".into()), ..plan() };
    let policies = vec![(lowered(&own), BTreeSet::new()), (lowered(&own), BTreeSet::new())];
    assert_eq!(merged(&own, policies).map(|planned| planned.plan), Some(own));
}

#[test]
fn several_policies_are_merged_to_the_strictest() {
    let own = Plan { scope: Scope::Tenant, ..plan() };
    let mut first = lowered(&own);
    first.freshness.ttl = Duration::from_secs(3000);
    first.scope = Scope::Claim("group".into());
    first.lookup = Lookup::Skip;
    let mut second = lowered(&own);
    second.freshness.ttl = Duration::from_secs(90);
    second.store = false;
    if let Some(semantic) = &mut second.semantic {
        semantic.threshold = 0.97;
        semantic.vetoes = vec![Veto::Date];
    }
    let merged = merged(&own, vec![(first, BTreeSet::new()), (second, BTreeSet::new())]).unwrap().plan;
    assert_eq!(merged.scope, Scope::Claim("group".into()));
    assert_eq!(merged.freshness.ttl, Duration::from_secs(90));
    assert!(merged.directives.no_cache && !merged.store);
    let semantic = merged.semantic.unwrap();
    assert_eq!((semantic.threshold, semantic.vetoes), (0.97, vec![Veto::Number, Veto::Date]));
}

#[test]
fn contradictions_are_told() {
    let own = plan();
    let scoped = |name: &str| {
        let scope = Scope::Shared(name.into());
        (Wanted { scope, ..lowered(&own) }, BTreeSet::from([Grant::SharedScope]))
    };
    assert!(merged(&own, vec![scoped("a"), scoped("a")]).is_some());
    assert!(merged(&own, vec![scoped("a"), scoped("b")]).is_none());
    let looking = |lookup| (Wanted { lookup, ..lowered(&own) }, BTreeSet::new());
    assert!(merged(&own, vec![looking(Lookup::Only), looking(Lookup::Normal)]).is_some());
    assert!(merged(&own, vec![looking(Lookup::Only), looking(Lookup::Skip)]).is_none());
}

fn plan() -> Plan {
    Plan {
        scope: Scope::User,
        semantic: Some(SemanticPlan {
            source: EmbedSource::default(),
            threshold: 0.9,
            candidates: 8,
            vetoes: vec![Veto::Number],
            shadow: false,
        }),
        freshness: Freshness::of_ttl(Duration::from_secs(60)),
        collapse: true,
        shadow: false,
        store: true,
        store_tool_offers: false,
        entry_bytes_max: 1,
        directives: Directives::default(),
    }
}
