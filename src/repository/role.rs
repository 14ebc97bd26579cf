//! Roles: which keys somebody gets, and which kinds of entries everyone accepts from them.

use super::identity::PublicIdentity;
use crate::{
    error::{Error, Kind, Result},
    format::{
        entry::{EntryKind, Grant},
        key::Circle,
        names::SourceName,
    },
};

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub circle: Circle,
    pub kinds: Vec<EntryKind>,
    /// The sources that it writes snapshots of; none: all.
    pub sources: Vec<String>,
}

/// Adds backups, and can delete nothing; holds all keys, because a chunk must be looked up to be deduplicated.
const AGENT: (&str, Circle, &[EntryKind]) = ("agent", Circle::Tenant, EntryKind::BACKUP_ROLE);
/// Reads everything, and changes nothing.
const RESTORER: (&str, Circle, &[EntryKind]) = ("restorer", Circle::Tenant, &[EntryKind::Access]);
/// Keeps, checks and prunes, and reads no content.
const STEWARD: (&str, Circle, &[EntryKind]) = ("steward", Circle::Steward, EntryKind::STEWARD_ROLE);
/// Answers look-ups of chunks.
const INDEXER: (&str, Circle, &[EntryKind]) = ("indexer", Circle::Indexer, &[EntryKind::Access]);
/// May do whatever the tenant's owner may.
const ADMINISTRATOR: (&str, Circle, &[EntryKind]) = ("administrator", Circle::Tenant, EntryKind::OWNER_ROLE);
/// Reads the ledger, and what the steward sees; changes nothing.
const AUDITOR: (&str, Circle, &[EntryKind]) = ("auditor", Circle::Steward, &[EntryKind::Access]);
/// Looks after a tenant for the repository: what a steward may, and how much may be stored. An owner can grant it where
/// no operator is in.
const OPERATOR: (&str, Circle, &[EntryKind]) = ("operator", Circle::Steward, EntryKind::OPERATOR_ROLE);
const ROLES: [(&str, Circle, &[EntryKind]); 7] = [AGENT, RESTORER, STEWARD, INDEXER, ADMINISTRATOR, AUDITOR, OPERATOR];

impl Role {
    /// What a tenant's owner may.
    pub fn administrator() -> Self {
        let (name, circle, kinds) = ADMINISTRATOR;
        Self { name: name.into(), circle, kinds: kinds.to_vec(), sources: Vec::new() }
    }

    /// What the operator of another's tenant may.
    pub(super) fn operator() -> Self {
        let (name, circle, kinds) = OPERATOR;
        Self { name: name.into(), circle, kinds: kinds.to_vec(), sources: Vec::new() }
    }

    /// Returns the names of the roles that may write a kind.
    pub(super) fn that_may(kind: EntryKind) -> Vec<&'static str> {
        ROLES.iter().filter(|(_, _, kinds)| kinds.contains(&kind)).map(|(name, ..)| *name).collect()
    }

    /// Reads a role's name, or a list of kinds such as `SESSION,RETIRE` that go with the keys of a circle.
    pub fn parse(text: &str, circle: Option<Circle>) -> Result<Self> {
        let known = ROLES.iter().find(|(name, ..)| *name == text);
        if let (Some((name, circle, kinds)), None) = (known, circle) {
            return Ok(Self { name: (*name).into(), circle: *circle, kinds: kinds.to_vec(), sources: Vec::new() });
        }
        let kind = |name: &str| EntryKind::ALL.iter().copied().find(|kind| kind.name().eq_ignore_ascii_case(name));
        let kinds: Option<Vec<EntryKind>> = text.split(',').map(|name| kind(name.trim())).collect();
        match (circle, kinds) {
            (Some(circle), Some(kinds)) => Ok(Self { name: "custom".into(), circle, kinds, sources: Vec::new() }),
            _ => {
                let names: Vec<_> = ROLES.iter().map(|(name, ..)| *name).collect();
                let what = format!(
                    "`{text}` is no role: one of {}, or kinds of entries such as SESSION,RETIRE together with which keys it gets; nothing was granted",
                    names.join(", ")
                );
                Err(Error::new(Kind::Usage, what))
            }
        }
    }

    /// Narrows a role to snapshots of some sources; none: of all.
    ///
    /// # Errors
    /// If it makes no snapshots, or may do something that is about more than single sources.
    pub fn of_sources(self, sources: Vec<String>) -> Result<Self> {
        sources.iter().try_for_each(|source| source.parse::<SourceName>().map(drop))?;
        let is_wider = |kind: &&EntryKind| !EntryKind::OF_SOURCES.contains(kind);
        let wrong = match self.kinds.iter().find(is_wider) {
            _ if sources.is_empty() => None,
            Some(kind) => Some(format!("may write {}, which is not about single sources", kind.name())),
            None if !self.kinds.contains(&EntryKind::Session) => {
                Some("makes no snapshots, and what its key reads is not limited".to_owned())
            }
            None => None,
        };
        match wrong {
            Some(why) => {
                let name = &self.name;
                let what = format!("the role {name} cannot be limited to sources: it {why}; nothing was granted");
                Err(Error::new(Kind::Usage, what))
            }
            None => Ok(Self { sources, ..self }),
        }
    }

    /// Returns the names of the roles that have these keys and write just these kinds.
    pub fn names_of(circle: u8, kinds: &[u8]) -> Vec<&'static str> {
        let same =
            |role: &[EntryKind]| role.len() == kinds.len() && role.iter().all(|kind| kinds.contains(&(*kind as u8)));
        let is_it = |(_, of, role): &&(&str, Circle, &[EntryKind])| *of as u8 == circle && same(role);
        ROLES.iter().filter(is_it).map(|(name, ..)| *name).collect()
    }
}

/// Says what a role is granted as.
pub(super) fn grant(public: &PublicIdentity, role: &Role, name: &str, operator: bool) -> Grant {
    Grant {
        actor: public.actor,
        name: name.into(),
        kinds: role.kinds.iter().map(|kind| *kind as u8).collect(),
        recipient: Some(public.recipient.clone()),
        circle: role.circle as u8,
        operator,
        kept: None,
        sources: role.sources.clone(),
        unknown: Default::default(),
    }
}
