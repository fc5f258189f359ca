//! What a caller may have: models and pools, by the lists of its tenant and of its own credential.

use refrain_core::PoolId;
use refrain_core::settings::Tenant;

/// Two lists of each kind, both of which must allow. Not their common part: one may name a model by its alias, the other
/// by what the alias stands for, and an empty list is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entitlements {
    tenant: Tenant,
    own: Tenant,
}

impl Entitlements {
    /// `own`: what the credential itself may have.
    pub(crate) fn new(tenant: Option<&Tenant>, models: &[String], pools: &[PoolId]) -> Self {
        let own = Tenant { models: models.to_vec(), pools: pools.to_vec() };
        Self { tenant: tenant.cloned().unwrap_or_default(), own }
    }

    /// The models of its own list, or else of its tenant's, for people to read; empty: all.
    pub(crate) fn models(&self) -> &[String] {
        if self.own.models.is_empty() { &self.tenant.models } else { &self.own.models }
    }

    /// The same of pools.
    pub(crate) fn pools(&self) -> &[PoolId] {
        if self.own.pools.is_empty() { &self.tenant.pools } else { &self.own.pools }
    }

    /// Whether there are models that it may not ask for.
    pub(crate) fn limit_models(&self) -> bool {
        !self.tenant.models.is_empty() || !self.own.models.is_empty()
    }

    /// Whether it may ask for a model that goes by any of these names.
    pub(crate) fn allow_model(&self, names: &[&str]) -> bool {
        let allows =
            |list: &[String]| list.is_empty() || list.iter().any(|model| names.contains(&model.as_str()));
        allows(&self.tenant.models) && allows(&self.own.models)
    }

    /// Whether a pool may answer it that is not its route's own.
    pub(crate) fn allow_pool(&self, pool: &PoolId) -> bool {
        self.allow_own_pool(pool) && (self.own.pools.is_empty() || self.own.pools.contains(pool))
    }

    /// Whether its route's pool may answer it.
    pub(crate) fn allow_own_pool(&self, pool: &PoolId) -> bool {
        self.tenant.pools.is_empty() || self.tenant.pools.contains(pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_must_be_on_both_lists_under_any_of_its_names() {
        let tenant = Tenant { models: vec!["fast".into(), "big".into()], pools: Vec::new() };
        let both = Entitlements::new(Some(&tenant), &["llama".into()], &[]);
        assert!(both.allow_model(&["fast", "llama"]));
        assert!(!both.allow_model(&["big"]) && !both.allow_model(&["llama"]) && both.limit_models());
        assert!(Entitlements::default().allow_model(&["any"]) && !Entitlements::default().limit_models());
    }

    #[test]
    fn a_tenants_pools_bind_its_routes_too_and_a_keys_only_other_pools() {
        let tenant = Tenant { models: Vec::new(), pools: vec!["a".into(), "b".into()] };
        let both = Entitlements::new(Some(&tenant), &[], &["b".into(), "c".into()]);
        assert!(both.allow_own_pool(&"a".into()) && !both.allow_pool(&"a".into()));
        assert!(both.allow_pool(&"b".into()) && !both.allow_pool(&"c".into()));
    }
}
