//! Which entries a purge is about.

use std::fmt;

use refrain_core::{RouteId, TenantId, UserId};

use crate::entry::EntryMeta;
use crate::fields::{Fields, FieldsMut};
use crate::key::CacheKey;

/// Longest name in a condition, in bytes.
pub const SELECT_NAME_BYTES_MAX: usize = 1024;

/// Which entries: those that meet every condition. Without any it is all of them, and that must be meant: see
/// [`Select::everything`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select(Conditions);

/// Conditions that an entry must meet; `None` is met by all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// It stands under this key.
    pub key: Option<[u8; 32]>,
    /// A policy gave it this tag.
    pub tag: Option<String>,
    /// This route stored it.
    pub route: Option<RouteId>,
    /// This model answered.
    pub model: Option<String>,
    /// A caller of this tenant asked first.
    pub tenant: Option<TenantId>,
    /// This user asked first, of whatever tenant unless one is named.
    pub user: Option<UserId>,
    /// It was stored before this moment, in ms since the Unix epoch.
    pub stored_before_ms: Option<u64>,
}

/// Why conditions select nothing that could be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// There is none.
    #[error(
        "nothing is selected; name a tag, route, model, tenant, user, key or age, or say that it is everything"
    )]
    Empty,
    /// No entry has such a name.
    #[error("{0} is longer than {SELECT_NAME_BYTES_MAX} bytes: nothing has such a name")]
    TooLong(&'static str),
}

impl Select {
    /// All entries.
    pub fn everything() -> Self {
        Self(Conditions::default())
    }

    /// The entries that meet every condition.
    ///
    /// # Errors
    /// See [`SelectError`].
    pub fn of(conditions: Conditions) -> Result<Self, SelectError> {
        if conditions == Conditions::default() {
            return Err(SelectError::Empty);
        }
        let too_long = conditions.names().into_iter().find(|(_, name)| name.is_some_and(is_too_long));
        match too_long.map(|(field, _)| field) {
            Some(field) => Err(SelectError::TooLong(field)),
            None => Ok(Self(conditions)),
        }
    }

    /// What must be met; all `None`: nothing.
    pub fn conditions(&self) -> &Conditions {
        &self.0
    }

    /// Whether all entries are meant.
    pub fn is_everything(&self) -> bool {
        self.0 == Conditions::default()
    }

    /// Whether an entry is meant.
    pub fn matches(&self, key: &CacheKey, meta: &EntryMeta) -> bool {
        let Conditions { key: exact, tag, route, model, tenant, user, stored_before_ms } = &self.0;
        exact.is_none_or(|exact| exact == key.key)
            && stored_before_ms.is_none_or(|before_ms| meta.stored_at_ms < before_ms)
            && tag.as_ref().is_none_or(|tag| meta.tags.contains(tag))
            && route.as_ref().is_none_or(|route| *route == meta.route)
            && model.as_ref().is_none_or(|model| *model == meta.model)
            && tenant.as_ref().is_none_or(|tenant| *tenant == meta.tenant)
            && user.as_ref().is_none_or(|user| meta.user.as_ref() == Some(user))
    }

    pub(super) fn write(&self, fields: &mut FieldsMut) {
        fields.number(u64::from(self.is_everything()));
        fields.number(u64::from(self.0.key.is_some()));
        if let Some(key) = &self.0.key {
            fields.array(key);
        }
        self.0.names().iter().for_each(|(_, name)| fields.optional(*name));
        fields.number(u64::from(self.0.stored_before_ms.is_some()));
        if let Some(before_ms) = self.0.stored_before_ms {
            fields.number(before_ms);
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let everything = fields.flag()?;
        let conditions = Conditions {
            key: if fields.flag()? { Some(fields.array()?) } else { None },
            tag: fields.optional()?.map(str::to_owned),
            route: fields.optional()?.map(RouteId::new),
            model: fields.optional()?.map(str::to_owned),
            tenant: fields.optional()?.map(TenantId::new),
            user: fields.optional()?.map(UserId::new),
            stored_before_ms: if fields.flag()? { Some(fields.number()?) } else { None },
        };
        match (everything, Self::of(conditions)) {
            (true, Err(SelectError::Empty)) => Some(Self::everything()),
            (false, Ok(select)) => Some(select),
            _ => None,
        }
    }
}

/// For logs: names in quotes, the start of the key.
impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("everything");
        }
        let names =
            self.0.names().into_iter().filter_map(|(field, name)| Some(format!("{field} {:?}", name?)));
        let key = self.0.key.map(|[a, b, c, d, ..]| format!("key {a:02x}{b:02x}{c:02x}{d:02x}.."));
        let age = self.0.stored_before_ms.map(|before_ms| format!("stored before {before_ms} ms"));
        f.write_str(&key.into_iter().chain(names).chain(age).collect::<Vec<_>>().join(", "))
    }
}

impl Conditions {
    /// The names among the conditions, in the order of the encoding.
    fn names(&self) -> [(&'static str, Option<&str>); 5] {
        let Self { key: _, tag, route, model, tenant, user, stored_before_ms: _ } = self;
        [
            ("tag", tag.as_deref()),
            ("route", route.as_ref().map(RouteId::as_str)),
            ("model", model.as_deref()),
            ("tenant", tenant.as_ref().map(TenantId::as_str)),
            ("user", user.as_ref().map(UserId::as_str)),
        ]
    }
}

fn is_too_long(name: &str) -> bool {
    name.len() > SELECT_NAME_BYTES_MAX
}
