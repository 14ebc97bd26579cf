//! What to type next: the library's errors name no commands, so they are named here.

use crate::error::{Error, Next};

/// Returns what follows an error's text: how to do what may help.
pub(super) fn after(error: &Error) -> String {
    error.next.map_or(String::new(), |next| format!("\n  {}", hint(next)))
}

fn hint(next: Next) -> &'static str {
    match next {
        Next::MakeRepository => "`strongroom init` makes a repository there",
        Next::BringPlaceBack => {
            "is the disk mounted, and is --repo (or STRONGROOM_REPO) the right one? If the repository is lost, bring it back from a copy"
        }
        Next::MakeInstead => {
            "is the disk mounted, and is --repo (or STRONGROOM_REPO) the right one? If what was there is gone for good, `strongroom init --instead` makes another one"
        }
        Next::MakeBesideOthers => {
            "name an empty folder or prefix, or say `strongroom init --not-empty` to put a repository beside what is there"
        }
        Next::MakeKey => "`strongroom key generate FILE` makes a key file",
        Next::MakeTenant => "`strongroom tenant create NAME` makes a tenant",
        Next::ListTenants => "`strongroom tenant list` shows the tenants that this key opens",
        Next::ReadDespiteDamage => {
            "`strongroom snapshots` lists the snapshots that are seen; --despite-damage takes their newest for the newest there is"
        }
        Next::Repair => {
            "`strongroom repair --yes --keep all` (or `--keep seen`, which ends the grants named above) says that it is lost for ever"
        }
        Next::SeeWhatIsLost => {
            "`strongroom repair --dry-run` says what is lost, and which snapshots that may hit; `strongroom snapshots` lists those that are seen"
        }
        Next::ListSnapshots => "`strongroom snapshots` lists the snapshots",
        Next::ListForgotten => "`strongroom snapshots --forgotten` lists snapshots that can still come back",
        Next::ListFiles => "`strongroom ls SNAPSHOT` shows what is in a snapshot",
        Next::ListHolds => "`strongroom hold list` and `strongroom snapshots` show what is held or locked, and why",
        Next::ListRoles => {
            "`strongroom role list` shows who may do what, `strongroom key list` whose keys open the tenant"
        }
        Next::AddOperator => "`strongroom operator add` makes another operator",
        Next::ShutOutOperator => "--shut-out-operator does it all the same",
        Next::AddKey => "`strongroom key add` adds another key",
        Next::RotateKeys => "`strongroom key rotate` makes new keys, while this one still opens the old ones",
        Next::ChangePolicy => "`strongroom policy set` changes the policy, `strongroom policy show` shows it",
        Next::RaiseQuota => {
            "the operator can raise the quota with `strongroom quota set`; `strongroom forget` and then `strongroom prune` free space"
        }
        Next::Forget => "`strongroom forget` lets whole snapshots go",
        Next::JudgeByOwnTimes => {
            "`strongroom forget --own-times` judges by the times that the snapshots themselves tell; a dry run shows what would go"
        }
        Next::AcceptSuspicious => {
            "`strongroom forget --policy --dry-run` says how they are unlike themselves; `strongroom forget SNAP` lets bad ones go, and `strongroom forget --policy --accept-suspicious SOURCE` says, on record, that all is right there up to now"
        }
        Next::Prune => "`strongroom prune` deletes what no snapshot needs",
        Next::ReadEverything => {
            "`strongroom check --read-data` reads everything, and names what is damaged and the snapshots that it hits"
        }
        Next::FindPublicHalf => "`strongroom key generate FILE` writes the public half to FILE.pub",
        Next::NameTenant => "--tenant NAME names it; `strongroom tenant list` shows them",
        Next::AcceptTenant => {
            "if this is on purpose: compare the fingerprint with the one that `strongroom tenant show` prints on a machine that knows it, and then `strongroom tenant accept NAME --expect FINGERPRINT` makes this machine take it from now on"
        }
        Next::NameAnotherCache => "--cache-dir DIR names another place for the cache",
    }
}
