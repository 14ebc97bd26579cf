//! Strongroom: a multi-tenant, content-addressed, deduplicating, encrypted backup repository, as a library.
//!
//! # The API
//!
//! Everything that the command line does is a function of [`operation`]; a server, an agent or a program that embeds
//! the library calls nothing else. It needs a few things from below: [`store::Place`] says where a repository is,
//! [`repository`] has the opened [`Repository`](repository::Repository) and [`Tenant`](repository::Tenant) and the
//! keys that open them, [`source`] says what to back up and how to restore, [`error`] says what went wrong and what a
//! caller can do, [`environment`] has the clock and the randomness, [`id`] the names of things. What operations
//! report derives `serde::Serialize`, and is what the command line prints with `--json`. They print nothing; a
//! [`Monitor`](operation::Monitor) is told how far they are, and can stop them.
//!
//! Whoever writes to a place can put another repository or tenant there. [`Connection`](operation::open::Connection)
//! remembers what was met, as SSH remembers hosts: as long as it lives, in a file
//! ([`KnownPlaces`](operation::known_places::KnownPlaces)), or where a program keeps it ([`Pins`](repository::Pins)).
//!
//! [`format`], [`pipeline`], [`ledger`], [`policy`] and [`index`] are the engine. They are public for the tests and
//! for tools that look into a repository, and may change with every version. [`cli`] is the program.
//!
//! ```
//! use strongroom::{
//!     environment::System,
//!     error::Result,
//!     operation::{Unwatched, access, backup, open::Connection, restore, tenants},
//!     repository::Identity,
//!     store::Place,
//! };
//!
//! # fn main() -> Result<()> {
//! // A repository, here in memory; `"s3://bucket/prefix".parse()?` is a place, too.
//! let repository = Connection::at(Place::Memory).make(Identity::generate(&System))?;
//! repository.create_tenant(&tenants::usual("shop"))?;
//! let mut tenant = repository.tenant("shop")?;
//!
//! // A stream goes in ...
//! let dump = b"insert into goods values (1, 'apples');".repeat(1000);
//! let labels = backup::Labels { source: "db".parse()?, kind: "full".into(), tags: Default::default(), host: "here".into() };
//! let options = backup::Options { rescan: false, verify: true, compare: None, dry_run: false };
//! let input =
//!     backup::Input { name: "shop.sql", from: &mut dump.as_slice(), ended: &mut || Ok(()), command: Vec::new() };
//! backup::stream(&mut tenant, input, labels, &options, &Unwatched)?;
//!
//! // ... and comes out as it was.
//! let permit = access::read(&mut tenant, "cat", (None, b"db@latest:shop.sql"), "to show it")?;
//! let mut restored = Vec::new();
//! restore::cat(&tenant, &permit, &mut restored)?;
//! assert_eq!(restored, dump);
//! # Ok(())
//! # }
//! ```
//!
//! # The story of a byte
//!
//! ```text
//! source ── chunk ── digest ── look up ── segment ── seal ── pack ── store
//!                                 │                            │
//!                               index                 ledger: PUBLISH, COMMIT
//! ```
//!
//! [`operation`] walks a [`source`] and hands the bytes of each file to a session of the [`repository`]. The
//! [`pipeline`] cuts them into chunks where their content says so and names each chunk by a keyed hash. The [`index`]
//! knows the chunks that are stored; of these only the place is noted. New ones fill a segment, which is compressed
//! (as a difference from what stood there before, if that is at hand), sealed, opened again and compared. Segments
//! fill packs, which go to the [`store`]. An entry of the [`ledger`] makes them usable by everybody (PUBLISH), another
//! one makes the snapshot (COMMIT). What a file needs to come back stands in its recipe, and the recipes in the
//! snapshot's catalogue, which is stored like any other stream. A restore reads the catalogue, opens the segments that
//! the recipes name, checks every chunk against its name and every file against its digest, and writes it.
//!
//! # The layers
//!
//! Imports point down only; a test checks it.
//!
//! | layer | what it is |
//! |---|---|
//! | [`cli`] | arguments, output, exit codes; the only one that prints |
//! | [`operation`] | what people and jobs do with a tenant: the API |
//! | [`repository`] | one repository and one tenant of it, opened: keys, ledger, index, sessions, segments |
//! | [`source`], [`store`], [`index`] | files in and out; objects; what is known of the ledger on this machine |
//! | [`policy`] | pure: which snapshots stay, and why |
//! | [`pipeline`], [`ledger`] | pure: bytes to segments and back; entries to state |
//! | [`format`] | pure: every stored byte, one file for each chapter of `format-spec/` |
//! | [`environment`], [`error`], [`id`] | clock and randomness; what went wrong; names |
//!
//! Pure layers have no effects: no files, network, clock, randomness or threads. Above them, these come from the
//! [`Environment`](environment::Environment), so that everything can run in a seeded simulation.
//!
//! # The invariants
//!
//! 1. An object that can be seen is complete, durable and verified.
//! 2. Order of writing: packs and what entries name, then the entry, then the index. Order of deleting: the entry
//!    that says so, the index, the object.
//! 3. The ledger has no holes, each entry holds the hash of the one before, and none is ever changed. Names are never
//!    used again.
//! 4. No snapshot that is there, or is held, needs a segment that is dead, directly or through a base.
//! 5. An object is deleted only after an entry that covers it.
//! 6. A listing never proves that something is not there. An error is never "empty", and never damage.
//! 7. The index is what the ledger folds to; where it might not be, it is thrown away.
//! 8. What is held or locked cannot go, for anybody.
//! 9. Done, not done and unknown are three outcomes, and each is told as what it is.
//! 10. Memory is bounded by settings, not by how much there is of anything.
//! 11. Nothing of one tenant is ever used for another.
//! 12. Nothing that was read is trusted before it is authenticated and its bounds are checked.
//!
//! # What may run beside what
//!
//! Any number of processes and machines, with any operations, on one tenant; there is no lock file. Every change is
//! an entry in the ledger, whoever comes second folds what the first one wrote and decides anew, and an entry that
//! breaks a rule counts for nobody.
//!
//! | beside | backup | restore, list, check | forget, hold, lock | prune, compact | new keys | destroy |
//! |---|---|---|---|---|---|---|
//! | backup | both store; the same new data perhaps twice | yes: a snapshot is seen when it is whole | yes | what an open session may need stays until it ends | it changes over at its next PUBLISH | its COMMIT does not count once the keys are gone |
//! | restore, list, check | | yes | the snapshot may go; it restores while its data is there | a pack that moved is found again after a fresh fold | old keys open what they sealed | ends with an error |
//! | forget, hold, lock | | | the second decides by what the first did | nothing goes that is held when its entry is folded | yes | held data cannot be destroyed |
//! | prune, compact | | | | each checks its plan against the newest ledger; the second finds less to do | yes | yes |
//! | new keys | | | | | the second starts from the first one's keys | yes |
//!
//! Why that needs no clocks: what a COMMIT relies on is checked by everybody against all entries before it, and what
//! is to be deleted is checked against every COMMIT and every open session before that. Time only decides when a
//! session that has gone silent, or lasts too long, counts as dead, and when what nobody names is swept up.
//!
//! # The words
//!
//! Words that the code uses in a sense of its own.
//!
//! | word | meaning |
//! |---|---|
//! | actor | an ed25519 key that signs ledger entries; a grant names it |
//! | annex | the part of an entry that can be large (segment rows, reach); an object of its own if it is |
//! | base | a segment that another one is stored as a difference from |
//! | beside | of new data without an earlier version: next to stored chunks, where those were first met |
//! | catalogue | the list of a snapshot's entries with their recipes, sorted by path |
//! | cheap | of a difference: so much smaller than its plain bytes that it may be stored once more; else it is dear |
//! | chunk | a piece of a stream, cut where its content says so |
//! | circle | a set of keys that a role needs: storage (none), steward, indexer, tenant (all) |
//! | condemned | of a segment that no snapshot needs: it will be dead unless somebody comes to need it |
//! | custody | who can read a tenant: `managed`, its operator too; `customer-held`, its owner alone |
//! | damaged | proven to be missing, or not to be what was written; never merely unreadable |
//! | dead | of a segment: nobody may ever rely on it again, and its pack may go |
//! | dear | of a difference: not cheap; of a restore: it has to open too many segments |
//! | depth | how many bases lie below a segment, one on the other |
//! | epoch | the number of a set of keys; new keys begin a new one, old ones still open what they sealed |
//! | evidence | what proves damage: not found, or wrong bytes, twice, the second time after a fresh fold |
//! | fold | to compute the state from the entries of the ledger, one after the other; everybody gets the same |
//! | head | the number and the hash of the newest entry |
//! | held | kept by a legal hold |
//! | lane | what a session fills with the segments and packs of one kind |
//! | kind | of segments and packs: content of streams (data), or catalogues and long recipes (meta), so that metadata can stay hot |
//! | junk | what stands in an entry's place and is none: no actor with a grant signed it, sealed with the keys in force, as what comes next |
//! | layered | of a difference: made after those that serve as bases, so what is compared with it is compared with its bases |
//! | live | of a snapshot: not forgotten |
//! | neighbour | a stored chunk beside which new data without an earlier version lies |
//! | near | of a segment: readable without asking a store that is far away, so from this machine |
//! | open (a session) | not yet ended by COMMIT, ABORT or FENCE: what it wrote may still come to be needed |
//! | reach | the set of segments that a snapshot needs, with their bases |
//! | recipe | how a stream is made of chunks of segments and of zeros |
//! | ring | the object that holds a tenant's keys, wrapped with its root |
//! | root | the key that wraps a tenant's other keys; slots wrap it |
//! | run | chunks that follow each other in one segment |
//! | scope | whose a ledger is: a tenant, or the repository itself |
//! | seal | to encrypt and authenticate, bound to what the thing is called |
//! | session | what one backup writes, from its first entry to its last |
//! | slot | the object that gives one identity the root, or the keys of its circle |
//! | stale | of a stored chunk: in a difference that a snapshot had better not need, since a restore would open one more; it is stored again |
//! | steward | whoever keeps, checks and prunes without reading content |
//! | void | of an entry: it breaks a rule, so it counts for nobody |
//! | whole | of a chunk or segment: stored without a base; else it is a difference (delta) |

#![warn(unreachable_pub)]

#[doc(hidden)]
pub mod cli;
pub mod environment;
pub mod error;
pub mod format;
pub mod id;
pub mod index;
pub mod ledger;
pub mod operation;
pub mod pipeline;
pub mod policy;
pub mod repository;
pub mod source;
pub mod store;
