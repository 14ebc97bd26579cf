//! Guards who joins by a code, what runs once, and where a ledger is written.

use crate::{fold::*, support::*, trust::grant_of};
use std::collections::BTreeSet;
use strongroom::{
    format::{Blob, decode, encode, entry::*, key::Key},
    id::{ActorId, ErasureId, PlaceId, ScopeId},
    ledger::{Refusal, Verdict},
    pipeline::sign::Signer,
};

const INVITER: ActorId = ActorId([3; 32]);
const CODE: ActorId = ActorId([4; 32]);
const CLERK: ActorId = ActorId([5; 32]);
const HOUR_NS: i64 = 3_600_000_000_000;

fn nothing() -> Annex {
    Annex::empty()
}

fn guest(seed: u8) -> Signer {
    Signer::new(&Key::from(&[seed; 32])).unwrap()
}

fn invite_of(code: ActorId, kinds: &[EntryKind], sources: &[&str], until_ns: i64) -> Vec<u8> {
    let grant: Grant = decode(&grant_of(code, kinds, 1, sources)).unwrap();
    let grant = Grant { recipient: Some("age1code".into()), ..grant };
    encode(&Invite { grant, until_ns, reason: String::new(), unknown: Default::default() })
}

fn join_of(signer: &Signer, code: ActorId) -> Vec<u8> {
    let recipient = "age1guest".to_owned();
    let signature = signer.sign(&Join::message(ScopeId([9; 16]), code, &recipient));
    encode(&Join { actor: signer.actor(), recipient, signature, unknown: Default::default() })
}

fn observed(ledger: &Ledger, now_ns: i64) -> Vec<u8> {
    let first = ledger.state.observed_next;
    let times_ns = (first..ledger.next()).map(|_| now_ns).collect();
    encode(&Observed { first, times_ns, unknown: Default::default() })
}

fn revoke_of(actor: ActorId) -> Vec<u8> {
    encode(&Revoke { actor, reason: String::new(), unknown: Default::default() })
}

fn is_refused(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Void(why) if why.refusal == Some(Refusal::Role))
}

/// A ledger with somebody who may invite to one source, and no more.
fn with_inviter() -> Ledger {
    let mut ledger = Ledger::new();
    let grant = grant_of(INVITER, &[EntryKind::Invite, EntryKind::Session, EntryKind::Commit], 1, &["hr"]);
    assert_eq!(ledger.apply(OWNER, EntryKind::Grant, grant, &nothing()), Verdict::Valid);
    ledger
}

const MAY: &[EntryKind] = &[EntryKind::Session, EntryKind::Commit];

#[test]
fn whoever_has_a_code_joins_once_and_with_a_key_that_agrees() {
    let mut ledger = with_inviter();
    assert_eq!(
        ledger.apply(INVITER, EntryKind::Invite, invite_of(CODE, MAY, &["hr"], HOUR_NS), &nothing()),
        Verdict::Valid
    );
    for kind in [EntryKind::Session, EntryKind::Access, EntryKind::Invite] {
        let verdict = ledger.apply(CODE, kind, session_body(), &nothing());
        assert!(matches!(verdict, Verdict::Junk(_)), "a code's key wrote {kind:?}: {verdict:?}");
    }
    let (one, other) = (guest(1), guest(2));
    let mut stolen: Join = decode(&join_of(&one, CODE)).unwrap();
    stolen.actor = other.actor();
    assert!(
        matches!(ledger.apply(CODE, EntryKind::Join, encode(&stolen), &nothing()), Verdict::Void(_)),
        "it never agreed"
    );
    let elsewhere = join_of(&one, ActorId([6; 32]));
    assert!(matches!(ledger.apply(CODE, EntryKind::Join, elsewhere, &nothing()), Verdict::Void(_)), "by another code");
    assert_eq!(ledger.apply(CODE, EntryKind::Join, join_of(&one, CODE), &nothing()), Verdict::Valid);
    let second = ledger.apply(CODE, EntryKind::Join, join_of(&other, CODE), &nothing());
    assert!(matches!(second, Verdict::Junk(_)), "the first one wins: {second:?}");
    let grant = &ledger.state.grants[&one.actor()];
    assert_eq!((grant.recipient.as_deref(), grant.sources.as_slice()), (Some("age1guest"), &["hr".to_owned()][..]));
    let session = crate::trust::session_of(Some("hr"));
    assert_eq!(ledger.apply(one.actor(), EntryKind::Session, session, &nothing()), Verdict::Valid);
}

#[test]
fn nobody_invites_others_to_what_they_may_not_do() {
    let refused = |kinds: &[EntryKind], circle: u8, sources: &[&str]| {
        let mut invite: Invite = decode(&invite_of(CODE, kinds, sources, HOUR_NS)).unwrap();
        invite.grant.circle = circle;
        is_refused(&with_inviter().apply(INVITER, EntryKind::Invite, encode(&invite), &nothing()))
    };
    assert!(!refused(MAY, 1, &["hr"]));
    assert!(refused(&[EntryKind::Publish], 1, &["hr"]), "a kind that the inviter may not write");
    assert!(refused(MAY, 3, &["hr"]) && refused(MAY, 1, &["pay"]) && refused(MAY, 1, &[]));
    // Not even an owner gives away by a code what decides over others.
    let mut ledger = with_inviter();
    for kind in [EntryKind::Grant, EntryKind::Invite, EntryKind::Epoch, EntryKind::Approve, EntryKind::Observed] {
        let invite = invite_of(CODE, &[kind], &[], HOUR_NS);
        assert!(is_refused(&ledger.apply(OWNER, EntryKind::Invite, invite, &nothing())), "{kind:?}");
    }
    // What the inviter has lost meanwhile is not given any more.
    assert_eq!(
        ledger.apply(INVITER, EntryKind::Invite, invite_of(CODE, MAY, &["hr"], HOUR_NS), &nothing()),
        Verdict::Valid
    );
    ledger.state.grants.get_mut(&INVITER).unwrap().kinds.retain(|kind| *kind != EntryKind::Commit as u8);
    assert!(is_refused(&ledger.apply(CODE, EntryKind::Join, join_of(&guest(1), CODE), &nothing())));
}

#[test]
fn a_revoked_inviter_or_code_lets_nobody_in() {
    for gone in [INVITER, CODE] {
        let mut ledger = with_inviter();
        let others = ActorId([7; 32]);
        ledger.apply(INVITER, EntryKind::Invite, invite_of(CODE, MAY, &["hr"], HOUR_NS), &nothing());
        ledger.apply(OWNER, EntryKind::Invite, invite_of(others, MAY, &["hr"], HOUR_NS), &nothing());
        assert_eq!(ledger.apply(OWNER, EntryKind::Revoke, revoke_of(gone), &nothing()), Verdict::Valid);
        let verdict = ledger.apply(CODE, EntryKind::Join, join_of(&guest(1), CODE), &nothing());
        assert!(matches!(verdict, Verdict::Junk(_)), "{verdict:?}");
        assert_eq!(ledger.apply(others, EntryKind::Join, join_of(&guest(2), others), &nothing()), Verdict::Valid);
    }
}

#[test]
fn whoever_joins_too_late_is_out_once_that_is_told() {
    for (joined_ns, stays) in [(HOUR_NS, true), (HOUR_NS + 1, false)] {
        let mut ledger = with_inviter();
        ledger.apply(INVITER, EntryKind::Invite, invite_of(CODE, MAY, &["hr"], HOUR_NS), &nothing());
        assert_eq!(ledger.apply(CODE, EntryKind::Join, join_of(&guest(1), CODE), &nothing()), Verdict::Valid);
        assert!(ledger.state.grants.contains_key(&guest(1).actor()));
        let told = observed(&ledger, joined_ns);
        assert_eq!(ledger.apply(OWNER, EntryKind::Observed, told, &nothing()), Verdict::Valid);
        assert_eq!(ledger.state.grants.contains_key(&guest(1).actor()), stays);
        assert!(ledger.state.invitations.is_empty(), "it is settled");
    }
    let mut ledger = with_inviter();
    ledger.apply(INVITER, EntryKind::Invite, invite_of(CODE, MAY, &["hr"], HOUR_NS), &nothing());
    let told = observed(&ledger, HOUR_NS + 1);
    ledger.apply(OWNER, EntryKind::Observed, told, &nothing());
    let verdict = ledger.apply(CODE, EntryKind::Join, join_of(&guest(1), CODE), &nothing());
    assert!(matches!(verdict, Verdict::Junk(_)), "{verdict:?}");
}

/// Where two tell the time, one of them alone neither lets in nor shuts out.
#[test]
fn one_observer_alone_ends_no_invitation() {
    let mut ledger = with_inviter();
    let clerk = grant_of(CLERK, &[EntryKind::Observed], 1, &[]);
    assert_eq!(ledger.apply(OWNER, EntryKind::Grant, clerk, &nothing()), Verdict::Valid);
    ledger.apply(INVITER, EntryKind::Invite, invite_of(CODE, MAY, &["hr"], HOUR_NS), &nothing());
    let told = observed(&ledger, HOUR_NS * 1000);
    assert_eq!(ledger.apply(CLERK, EntryKind::Observed, told, &nothing()), Verdict::Valid);
    assert_eq!(ledger.apply(CODE, EntryKind::Join, join_of(&guest(1), CODE), &nothing()), Verdict::Valid);
    for (teller, stays) in [(CLERK, true), (OWNER, false)] {
        let told = observed(&ledger, HOUR_NS * 1000);
        assert_eq!(ledger.apply(teller, EntryKind::Observed, told, &nothing()), Verdict::Valid);
        assert_eq!(ledger.state.grants.contains_key(&guest(1).actor()), stays, "{teller}");
    }
}

fn claim_of(job: &str, due_ns: i64, source: Option<&str>) -> Vec<u8> {
    let job = Some(Claim { job: job.into(), due_ns, unknown: Default::default() });
    encode(&Session { job, source: source.map(str::to_owned), ..decode(&session_body()).unwrap() })
}

fn job_of(session: u64, outcome: Outcome) -> Vec<u8> {
    let (report, unknown) = (None, Default::default());
    let (outcome, message) = (outcome as u8, "it ran".to_owned());
    encode(&Job { session, began_ns: 1, ended_ns: 2, bytes: 3, outcome, message, report, unknown })
}

#[test]
fn a_job_is_run_by_one_at_a_time_and_done_once() {
    let mut ledger = Ledger::new();
    let claim = |ledger: &mut Ledger, due_ns| {
        let number = ledger.next();
        (number, ledger.apply(OWNER, EntryKind::Session, claim_of("forget", due_ns, None), &nothing()))
    };
    let (first, verdict) = claim(&mut ledger, 5);
    assert_eq!(verdict, Verdict::Valid);
    assert!(matches!(claim(&mut ledger, 5).1, Verdict::Void(_)), "beside another");
    assert_eq!(ledger.apply(OWNER, EntryKind::Fence, about(first, first), &nothing()), Verdict::Valid);
    let (second, verdict) = claim(&mut ledger, 5);
    assert_eq!(verdict, Verdict::Valid, "taken over");
    let paused = ledger.apply(OWNER, EntryKind::Job, job_of(first, Outcome::Done), &nothing());
    assert!(matches!(paused, Verdict::Void(_)), "{paused:?}");
    let failed = ledger.apply(OWNER, EntryKind::Job, job_of(second, Outcome::NotDone), &nothing());
    assert_eq!((failed, ledger.state.sessions.len()), (Verdict::Valid, 0));
    let (third, verdict) = claim(&mut ledger, 5);
    assert_eq!(verdict, Verdict::Valid, "it failed, and is tried again");
    assert_eq!(ledger.apply(OWNER, EntryKind::Job, job_of(third, Outcome::Done), &nothing()), Verdict::Valid);
    assert!(matches!(claim(&mut ledger, 5).1, Verdict::Void(_)), "it was done");
    let (fourth, verdict) = claim(&mut ledger, 6);
    assert_eq!(verdict, Verdict::Valid);
    let of_no_job = ledger.next();
    ledger.apply(OWNER, EntryKind::Session, session_body(), &nothing());
    assert!(matches!(
        ledger.apply(OWNER, EntryKind::Job, job_of(of_no_job, Outcome::Done), &nothing()),
        Verdict::Void(_)
    ));
    for wrong in [
        Job { outcome: 3, ..decode(&job_of(fourth, Outcome::Done)).unwrap() },
        Job { began_ns: 9, ..decode(&job_of(fourth, Outcome::Done)).unwrap() },
    ] {
        assert!(
            matches!(ledger.apply(OWNER, EntryKind::Job, encode(&wrong), &nothing()), Verdict::Void(_)),
            "{wrong:?}"
        );
    }
    assert_eq!(ledger.state.jobs.len(), 1);
}

/// Else whoever stole one machine keeps the tenant from ever forgetting or pruning.
#[test]
fn an_agent_claims_no_job_but_its_sources() {
    let mut ledger = Ledger::new();
    let forget = ledger.apply(AGENT, EntryKind::Session, claim_of("forget", 5, None), &nothing());
    assert!(is_refused(&forget), "{forget:?}");
    assert_eq!(ledger.apply(AGENT, EntryKind::Session, claim_of("forget", 5, Some("hr")), &nothing()), Verdict::Valid);
    assert_eq!(ledger.apply(OWNER, EntryKind::Session, claim_of("forget", 5, None), &nothing()), Verdict::Valid);
}

#[test]
fn a_ledger_that_was_closed_goes_on_in_one_place_alone() {
    let (old, new) = (PlaceId([1; 16]), PlaceId([2; 16]));
    let closed =
        |place, goes_on| encode(&Closed { place, goes_on, reason: String::new(), unknown: Default::default() });
    let next = |place| encode(&Generation { generation: 1, reason: String::new(), place, unknown: Default::default() });
    let mut ledger = Ledger::new();
    assert!(is_refused(&ledger.apply(AGENT, EntryKind::Closed, closed(old, Some(new)), &nothing())));
    assert_eq!(ledger.apply(OWNER, EntryKind::Closed, closed(old, Some(new)), &nothing()), Verdict::Valid);
    for (kind, body) in [(EntryKind::Session, session_body()), (EntryKind::Closed, closed(old, None))] {
        assert!(matches!(ledger.apply(OWNER, kind, body, &nothing()), Verdict::Void(_)), "{kind:?}");
    }
    assert!(matches!(ledger.apply(OWNER, EntryKind::Generation, next(None), &nothing()), Verdict::Void(_)), "where?");
    assert_eq!(ledger.apply(OWNER, EntryKind::Generation, next(Some(new)), &nothing()), Verdict::Valid);
    assert_eq!((ledger.state.place, ledger.state.closed), (Some(new), None));
    assert_eq!(ledger.apply(OWNER, EntryKind::Session, session_body(), &nothing()), Verdict::Valid);
    assert!(matches!(ledger.apply(OWNER, EntryKind::Closed, closed(old, None), &nothing()), Verdict::Void(_)));
}

/// Both copies of a ledger would go on, and each be right.
#[test]
fn nothing_is_written_in_a_place_that_a_ledger_has_left() {
    let fixture = Fixture::in_memory(1);
    let mut tenant = fixture.tenant();
    back_up_bytes(&mut tenant, "s", b"before").unwrap();
    let (here, there) = (tenant.place, PlaceId([7; 16]));
    assert_ne!(here, PlaceId::default());
    let write = |tenant: &mut strongroom::repository::Tenant, place| {
        let (reason, generation) = (String::new(), tenant.state.generation + 1);
        let body = encode(&Generation { generation, reason, place: Some(place), unknown: Default::default() });
        tenant.append("x", |_, _| Ok((EntryKind::Generation, body.clone(), nothing()))).unwrap();
    };
    write(&mut tenant, here);
    back_up_bytes(&mut tenant, "s", b"still here").unwrap();
    write(&mut tenant, there);
    let error = back_up_bytes(&mut fixture.tenant(), "s", b"behind").unwrap_err();
    assert!(error.message.contains("another place"), "{error}");
    assert_eq!(read_bytes(&fixture.tenant(), "s@latest").unwrap(), b"still here");
}

#[test]
fn what_was_erased_is_on_record_once() {
    let mut ledger = Ledger::new();
    let erased = |id: u8, content: &[u8]| {
        let (source, reason) = (None, "asked".to_owned());
        encode(&Erased {
            id: ErasureId([id; 16]),
            source,
            content: Blob(content.to_vec()),
            reason,
            unknown: Default::default(),
        })
    };
    let number = ledger.next();
    assert_eq!(ledger.apply(OWNER, EntryKind::Erased, erased(1, b"sealed"), &nothing()), Verdict::Valid);
    assert!(matches!(ledger.apply(OWNER, EntryKind::Erased, erased(1, b"other"), &nothing()), Verdict::Void(_)));
    assert!(matches!(ledger.apply(OWNER, EntryKind::Erased, erased(2, b""), &nothing()), Verdict::Void(_)));
    assert!(is_refused(&ledger.apply(AGENT, EntryKind::Erased, erased(3, b"sealed"), &nothing())));
    assert_eq!(ledger.state.erased.get(&ErasureId([1; 16])), Some(&number));
}

/// Every step draws an actor, a kind of the new ones and a body that is nearly right, or nothing but bytes.
#[test]
fn whatever_is_written_nobody_ends_with_more_than_whoever_let_them_in() {
    let cases = std::env::var("STRONGROOM_TEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let (mut joined, mut ran) = (0, 0);
    for seed in 0..cases {
        let mut random = Random(seed);
        let mut ledger = with_inviter();
        let codes = [CODE, ActorId([6; 32])];
        for step in 0..40 {
            let what = format!("seed {seed}, step {step}");
            let one_of = |random: &mut Random, all: &[ActorId]| all[random.below(all.len() as u64) as usize];
            let guests: Vec<Signer> = (1..4).map(guest).collect();
            let actors =
                [OWNER, AGENT, INVITER, codes[0], codes[1], guests[0].actor(), guests[1].actor(), guests[2].actor()];
            let actor = one_of(&mut random, &actors);
            let open = ledger.state.sessions.keys().next_back().copied();
            let number = open.filter(|_| random.below(3) > 0).unwrap_or_else(|| ledger.next() - 1);
            let kinds: Vec<EntryKind> = (0..random.below(4))
                .map(|_| EntryKind::ALL[random.below(EntryKind::ALL.len() as u64) as usize])
                .collect();
            let kinds = if random.below(2) == 0 { MAY.to_vec() } else { kinds };
            let sources: &[&str] = [&[][..], &["hr"], &["pay"], &["hr", "pay"]][random.below(4) as usize];
            let place = PlaceId([random.below(2) as u8; 16]);
            let (kind, body) = match random.below(13) {
                0 | 1 => {
                    let until_ns = random.below(3) as i64 * HOUR_NS;
                    let mut invite: Invite =
                        decode(&invite_of(one_of(&mut random, &actors), &kinds, sources, until_ns)).unwrap();
                    invite.grant.circle = random.below(5) as u8;
                    (EntryKind::Invite, encode(&invite))
                }
                2..=4 => (EntryKind::Join, join_of(&guests[random.below(3) as usize], actor)),
                5 => (EntryKind::Revoke, revoke_of(one_of(&mut random, &actors[2..]))),
                6 => (EntryKind::Observed, observed(&ledger, random.below(4) as i64 * HOUR_NS)),
                7 => (EntryKind::Session, claim_of("forget", random.below(2) as i64, sources.first().copied())),
                8 | 12 => (EntryKind::Job, job_of(number, Outcome::from_number(random.below(3) as u8).unwrap())),
                9 if random.below(8) == 0 => {
                    let (goes_on, reason) = (None, String::new());
                    (EntryKind::Closed, encode(&Closed { place, goes_on, reason, unknown: Default::default() }))
                }
                9 => {
                    let generation = ledger.state.generation + 1;
                    let reason = String::new();
                    (
                        EntryKind::Generation,
                        encode(&Generation { generation, reason, place: Some(place), unknown: Default::default() }),
                    )
                }
                10 => {
                    (EntryKind::Grant, grant_of(one_of(&mut random, &actors), &kinds, random.below(4) as u8, sources))
                }
                _ => {
                    let news =
                        [EntryKind::Invite, EntryKind::Join, EntryKind::Job, EntryKind::Closed, EntryKind::Erased];
                    let length = random.below(40) as usize;
                    (news[random.below(5) as usize], random.bytes(length))
                }
            };
            let before = ledger.state.grants.clone();
            let inviter = ledger.state.invitations.get(&actor).map(|invitation| invitation.inviter);
            let verdict = ledger.apply(actor, kind, body, &nothing());
            ran += u64::from(kind == EntryKind::Job && verdict == Verdict::Valid);
            for (newcomer, grant) in ledger.state.grants.iter().filter(|(actor, _)| !before.contains_key(actor)) {
                let from = if kind == EntryKind::Join { inviter.unwrap() } else { actor };
                joined += u64::from(kind == EntryKind::Join);
                let own = &before[&from];
                assert!(grant.kinds.iter().all(|kind| own.kinds.contains(kind)), "{what}: {newcomer}");
                let within = own.sources.is_empty()
                    || !grant.sources.is_empty() && grant.sources.iter().all(|source| own.sources.contains(source));
                assert!(within && grant.circle <= own.circle, "{what}: {newcomer}");
            }
            for invitation in ledger.state.invitations.values().filter(|one| one.joined.is_none()) {
                assert!(ledger.state.grants.contains_key(&invitation.inviter), "{what}");
            }
            let open = ledger
                .state
                .sessions
                .values()
                .filter_map(|open| Some((open.source.clone(), encode(open.job.as_ref()?))));
            let claims: Vec<_> = open.collect();
            let apart: BTreeSet<_> = claims.iter().collect();
            assert_eq!(apart.len(), claims.len(), "{what}: a job is run twice");
        }
    }
    assert!(joined * 20 > cases && ran * 20 > cases, "{joined} joined and {ran} ran in {cases}");
}
