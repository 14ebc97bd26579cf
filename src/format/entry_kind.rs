//! The kinds of ledger entries, and which of them a role may write. Chapter: `format-spec/ledger.md`.

macro_rules! kinds {
    ($($name:ident = $number:literal $text:literal,)*) => {
        /// The kinds of entries.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EntryKind { $($name = $number,)* }
        impl EntryKind {
            /// Every kind of this version.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// Returns the kind's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    Create = 1 "CREATE",
    Grant = 2 "GRANT",
    Revoke = 3 "REVOKE",
    Session = 4 "SESSION",
    Publish = 5 "PUBLISH",
    Commit = 6 "COMMIT",
    Renew = 7 "RENEW",
    Abort = 8 "ABORT",
    Retire = 9 "RETIRE",
    Undelete = 10 "UNDELETE",
    Hold = 11 "HOLD",
    Release = 12 "RELEASE",
    Lock = 13 "LOCK",
    Condemn = 14 "CONDEMN",
    Rescue = 15 "RESCUE",
    Dead = 16 "DEAD",
    Repack = 17 "REPACK",
    Drop = 18 "DROP",
    Rewrite = 19 "REWRITE",
    Damaged = 20 "DAMAGED",
    Heal = 21 "HEAL",
    Move = 22 "MOVE",
    Epoch = 23 "EPOCH",
    Policy = 24 "POLICY",
    Fence = 25 "FENCE",
    Observed = 26 "OBSERVED",
    Shred = 27 "SHRED",
    Generation = 28 "GENERATION",
    Access = 29 "ACCESS",
    Tenant = 30 "TENANT",
    Quota = 31 "QUOTA",
    Destroy = 32 "DESTROY",
    Approve = 33 "APPROVE",
    Withdraw = 34 "WITHDRAW",
    Destroyed = 35 "DESTROYED",
    Attest = 36 "ATTEST",
    Reseal = 37 "RESEAL",
    Closed = 38 "CLOSED",
    Repair = 39 "REPAIR",
    Feature = 40 "FEATURE",
    Invite = 41 "INVITE",
    Join = 42 "JOIN",
    Job = 43 "JOB",
    Erased = 44 "ERASED",
}

impl EntryKind {
    /// Says in everyday words what whoever writes it does.
    pub fn deed(self) -> &'static str {
        match self {
            Self::Session | Self::Publish | Self::Commit | Self::Renew | Self::Abort => "make backups",
            Self::Retire | Self::Condemn | Self::Rescue | Self::Dead | Self::Drop | Self::Fence => "forget or prune",
            Self::Undelete => "bring snapshots back",
            Self::Hold | Self::Release => "place or release holds",
            Self::Lock => "lock snapshots",
            Self::Repack | Self::Move | Self::Generation => "move stored data",
            Self::Rewrite => "take files out of snapshots",
            Self::Damaged | Self::Heal => "note what is damaged or whole again",
            Self::Grant | Self::Revoke => "say who may do what",
            Self::Epoch | Self::Attest | Self::Reseal => "make new keys",
            Self::Policy | Self::Feature => "change the policy",
            Self::Observed => "tell the time",
            Self::Access => "put on record that something is read",
            Self::Create | Self::Tenant => "make tenants",
            Self::Quota => "limit what is stored",
            Self::Destroy | Self::Approve | Self::Withdraw | Self::Shred | Self::Destroyed => {
                "ask for a destruction, or decide on it"
            }
            Self::Repair => "repair the history",
            Self::Closed | Self::Invite | Self::Join | Self::Job | Self::Erased => "change the tenant",
        }
    }
    /// Reads the number of a kind.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u8 == number)
    }
    /// What a backup agent's key may write: it can add, and nothing else.
    pub const BACKUP_ROLE: &[Self] =
        &[Self::Session, Self::Publish, Self::Commit, Self::Renew, Self::Abort, Self::Access, Self::Job];
    /// What an invitation may give: nobody who joins by a code lets others in, makes keys, deletes or decides.
    pub const BY_INVITATION: &[Self] =
        &[Self::Session, Self::Publish, Self::Commit, Self::Renew, Self::Abort, Self::Rewrite, Self::Access, Self::Job];
    /// What a key may write whose grant names sources: each of these is about one source, or about nobody else.
    pub const OF_SOURCES: &[Self] = &[
        Self::Grant,
        Self::Session,
        Self::Publish,
        Self::Commit,
        Self::Renew,
        Self::Abort,
        Self::Rewrite,
        Self::Access,
        Self::Invite,
        Self::Job,
    ];
    /// What the key of a tenant's owner may write: all but how much may be stored.
    pub const OWNER_ROLE: &[Self] = &[
        Self::Create,
        Self::Grant,
        Self::Revoke,
        Self::Session,
        Self::Publish,
        Self::Commit,
        Self::Renew,
        Self::Abort,
        Self::Retire,
        Self::Undelete,
        Self::Hold,
        Self::Release,
        Self::Lock,
        Self::Condemn,
        Self::Rescue,
        Self::Dead,
        Self::Repack,
        Self::Drop,
        Self::Rewrite,
        Self::Damaged,
        Self::Heal,
        Self::Move,
        Self::Epoch,
        Self::Policy,
        Self::Fence,
        Self::Observed,
        Self::Shred,
        Self::Generation,
        Self::Access,
        Self::Tenant,
        Self::Destroy,
        Self::Approve,
        Self::Withdraw,
        Self::Destroyed,
        Self::Attest,
        Self::Reseal,
        Self::Repair,
        Self::Feature,
        Self::Closed,
        Self::Invite,
        Self::Job,
        Self::Erased,
    ];
    /// What a steward's key may write.
    pub const STEWARD_ROLE: &[Self] = Self::OPERATOR_ROLE.split_at(Self::OPERATOR_ROLE.len() - 2).0;
    /// What the key of a repository's operator may write in another's tenant: also how much may be stored, and that it
    /// agrees to a destruction.
    pub const OPERATOR_ROLE: &[Self] = &[
        Self::Session,
        Self::Renew,
        Self::Abort,
        Self::Retire,
        Self::Undelete,
        Self::Condemn,
        Self::Rescue,
        Self::Dead,
        Self::Repack,
        Self::Drop,
        Self::Damaged,
        Self::Move,
        Self::Fence,
        Self::Observed,
        Self::Access,
        Self::Job,
        Self::Quota,
        Self::Approve,
    ];
}
