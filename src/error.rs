//! The public error: what kind it is (what the caller should do), and a message for a person.

use serde::ser::SerializeStruct;
use std::fmt;

/// What a caller can do about an error. Each kind is one documented exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It did not work; the message says why. Nothing was lost.
    Failed,
    /// The request makes no sense as it was put.
    Usage,
    /// Done in part: some source files could not be read, or some tenants could not be told. What is missing is named.
    Partial,
    /// No repository at that place.
    NoRepository,
    /// The key opens nothing here.
    WrongKey,
    /// No such tenant, or none that this key opens.
    TenantUnknown,
    /// Stored data is missing or not what was written.
    Damaged,
    /// A write may or may not have happened.
    Unknown,
    /// The store does not answer.
    Unreachable,
    /// Written by a newer program.
    NewerFormat,
    /// A hold, lock, quota or role forbids it, or somebody should look first.
    Refused,
    /// No key was given.
    NoKey,
    /// The store takes no writes: read-only, full or not permitted.
    NotWritable,
    /// The place that a restore or an export writes to refused; what is stored is unharmed.
    Target,
    /// The repository or the tenant is not the one that is known, or expected, there.
    AnotherPlace,
    /// What is to be made is there already.
    Exists,
    /// Stopped on request.
    Interrupted,
}

/// What somebody may do next about an error. The library does not know how that is asked for: whoever shows the
/// error to a person says it in words of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    MakeRepository,
    /// Bring back the place where a repository was.
    BringPlaceBack,
    /// Make a repository although another one was there before.
    MakeInstead,
    /// Make a repository although other things are there.
    MakeBesideOthers,
    MakeKey,
    MakeTenant,
    ListTenants,
    ListSnapshots,
    /// Take what is seen for all that there is.
    ReadDespiteDamage,
    /// Say that what is lost of a history is lost for ever.
    Repair,
    /// Look at what is lost of a history, and what that means.
    SeeWhatIsLost,
    ListForgotten,
    ListFiles,
    ListHolds,
    ListRoles,
    AddKey,
    AddOperator,
    /// Shut the repository's operator out, on purpose.
    ShutOutOperator,
    RotateKeys,
    ChangePolicy,
    RaiseQuota,
    Forget,
    /// Let rules go on for sources that are unlike themselves, once somebody has looked.
    AcceptSuspicious,
    /// Judge by the snapshots' own times, once they are known to be right.
    JudgeByOwnTimes,
    Prune,
    /// Check everything, and read all that is stored.
    ReadEverything,
    NameAnotherCache,
    NameTenant,
    /// Take what is there for the right one, after all.
    AcceptTenant,
    FindPublicHalf,
}

impl Kind {
    /// Returns the process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::NoRepository => 10,
            Self::WrongKey => 11,
            Self::TenantUnknown => 12,
            Self::Damaged => 13,
            Self::Unknown => 14,
            Self::Unreachable => 15,
            Self::NewerFormat => 16,
            Self::Refused => 17,
            Self::NoKey => 18,
            Self::NotWritable => 19,
            Self::Target => 20,
            Self::AnotherPlace => 21,
            Self::Exists => 22,
            Self::Interrupted => 130,
        }
    }
}

/// An error with its kind, a message that names the object, and its cause.
#[derive(Debug)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    /// What may be done about it.
    pub next: Option<Next>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything above the pure layers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), next: None, source: None }
    }
    /// Adds the cause.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
    /// Says what may be done about it.
    pub fn next(mut self, next: Next) -> Self {
        self.next = Some(next);
        self
    }
    /// Puts what was being done in front of the message.
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

/// Makes an error that says that the request failed without harm.
pub fn failed(message: impl Into<String>) -> Error {
    Error::new(Kind::Failed, message)
}
/// Makes an error that says that stored data is damaged.
pub fn damaged(message: impl Into<String>) -> Error {
    Error::new(Kind::Damaged, message)
}

/// As it is told to programs.
impl serde::Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Error", 3)?;
        fields.serialize_field("kind", &format_args!("{:?}", self.kind))?;
        fields.serialize_field("message", &self.to_string())?;
        fields.serialize_field("exit_code", &self.kind.exit_code())?;
        fields.end()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}
impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
