//! One conformance suite for every store and every decorator, and the faults that a backup survives.

use crate::support::*;
use std::sync::{Arc, Barrier};
use strongroom::{
    operation::{Unwatched, check},
    store::*,
};

/// What every store must do.
fn conforms(objects: SharedObjects) {
    let name = |text: &str| format!("suite/{text}");
    assert!(objects.get(&name("absent"), None).unwrap_err().is_not_found());
    assert!(objects.list(&name("nothing")).unwrap().is_empty());
    objects.delete(&name("absent")).unwrap();
    assert_eq!(objects.put_if_absent(&name("a"), vec!["hello ".into(), "world".into()]).unwrap(), Put::Created);
    assert_eq!(objects.put_if_absent(&name("a"), vec!["other".into()]).unwrap(), Put::Exists);
    assert_eq!(objects.get(&name("a"), None).unwrap(), "hello world");
    assert_eq!(objects.get(&name("a"), Some(6..11)).unwrap(), "world");
    assert_eq!(objects.get(&name("a"), Some(3..3)).unwrap_or_default(), "");
    assert!(objects.get(&name("a"), Some(6..12)).is_err(), "a range past the end is an error, not fewer bytes");
    assert_eq!(objects.put_if_absent(&name("empty"), vec![]).unwrap(), Put::Created);
    assert_eq!(objects.get(&name("empty"), None).unwrap(), "");
    for number in 0..1100 {
        objects.put_if_absent(&name(&format!("many/{number:04}")), vec!["x".into()]).unwrap();
    }
    let mut listed = objects.list(&name("many")).unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(listed.len(), 1100, "more than one page");
    assert_eq!(listed[7], Listed { name: name("many/0007"), size_bytes: 1 });
    assert!(objects.list(&name("man")).unwrap().is_empty(), "a prefix is a whole folder's name");
    objects.delete(&name("a")).unwrap();
    assert!(objects.get(&name("a"), None).unwrap_err().is_not_found());
    for round in 0..5 {
        let barrier = Arc::new(Barrier::new(16));
        let racers: Vec<_> = (0..16u8)
            .map(|racer| {
                let (objects, barrier, name) = (objects.clone(), barrier.clone(), name(&format!("race/{round}")));
                std::thread::spawn(move || {
                    barrier.wait();
                    (racer, objects.put_if_absent(&name, vec![vec![racer; 1000].into()]).unwrap())
                })
            })
            .collect();
        let results: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
        let winners: Vec<_> = results.iter().filter(|(_, put)| *put == Put::Created).collect();
        assert_eq!(winners.len(), 1, "round {round}: one winner");
        assert_eq!(objects.get(&name(&format!("race/{round}")), None).unwrap(), vec![winners[0].0; 1000]);
    }
}

#[test]
fn memory_conforms() {
    conforms(open(&Place::Memory, true).unwrap());
}

#[test]
fn a_local_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(open(&Place::Folder(folder.path().into()), true).unwrap());
}

#[test]
fn decorators_conform() {
    let environment = Seeded::new(1);
    let mut objects = open(&Place::Memory, true).unwrap();
    objects = Arc::new(Recorded::new(objects));
    objects = Arc::new(Metered { inner: objects, traffic: Arc::default() });
    objects = Arc::new(Limited::new(objects, environment.clone(), Some(1 << 40), Some(1 << 40)));
    objects = Arc::new(Retried { inner: objects, environment, attempts: 3 });
    objects = Arc::new(Faulty::new(objects, |_, _, _| None));
    conforms(objects);
}

/// Stores named in the environment: CI starts the servers and names them.
#[test]
fn stores_by_url_conform() {
    for url in std::env::var("STRONGROOM_TEST_STORES").unwrap_or_default().split_whitespace() {
        println!("{url}");
        let place: Place = url.parse().unwrap();
        conforms(open(&place, true).unwrap());
        let fixture = Fixture::on(open(&format!("{url}/repository").parse().unwrap(), true).unwrap(), 1);
        let mut tenant = fixture.tenant();
        let bytes = Random(2).text(3 << 20);
        back_up_bytes(&mut tenant, "s", &bytes).unwrap();
        assert_eq!(read_bytes(&fixture.tenant(), "latest").unwrap(), bytes);
        assert!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems.is_empty());
    }
}

#[test]
fn a_backup_survives_one_fault_at_any_call() {
    let bytes = Random(3).text(2 << 20);
    for fault in [Fault::Refused, Fault::LostAnswer, Fault::Conflict, Fault::Full, Fault::Crash, Fault::FlippedBit] {
        let mut number = 0;
        loop {
            let fixture = Fixture::in_memory(7);
            back_up_bytes(&mut fixture.tenant(), "s", b"before").unwrap();
            let faulty =
                Arc::new(Faulty::new(fixture.objects.clone(), move |call, _, _| (call == number).then_some(fault)));
            let recorded = Arc::new(Recorded::new(faulty));
            let retried: SharedObjects =
                Arc::new(Retried { inner: recorded.clone(), environment: fixture.environment.clone(), attempts: 3 });
            let done = fixture
                .repository_on(retried)
                .and_then(|repository| repository.tenant("t"))
                .and_then(|mut tenant| back_up_bytes(&mut tenant, "s", &bytes));
            // What was there is there; what was said to succeed did; nothing needs repair.
            let mut tenant = fixture.tenant();
            assert_eq!(
                read_bytes(&tenant, "s@latest~0").unwrap(),
                if tenant.state.live().len() == 2 { &bytes[..] } else { b"before" },
                "{fault:?} at call {number}"
            );
            if done.is_ok() {
                assert_eq!(tenant.state.live().len(), 2, "{fault:?} at call {number}");
            }
            if matches!(fault, Fault::Refused | Fault::LostAnswer | Fault::Conflict) {
                assert!(done.is_ok(), "{fault:?} at call {number}: {:?}", done.err());
            }
            back_up_bytes(&mut tenant, "s", &bytes).unwrap();
            assert!(check::check(&mut tenant, Some(100), &Unwatched).unwrap().problems.is_empty());
            if number > recorded.calls.lock().unwrap().len() as u64 {
                break;
            }
            number += 1;
        }
        assert!(number > 8, "the backup made {number} calls");
    }
}

#[test]
fn an_unchanged_backup_costs_few_requests() {
    let fixture = Fixture::in_memory(1);
    let recorded = Arc::new(Recorded::new(fixture.objects.clone()));
    let mut tenant = fixture.repository_on(recorded.clone()).unwrap().tenant("t").unwrap();
    back_up_bytes(&mut tenant, "s", &Random(1).text(5 << 20)).unwrap();
    recorded.calls.lock().unwrap().clear();
    back_up_bytes(&mut tenant, "s", &Random(1).text(5 << 20)).unwrap();
    let calls = recorded.calls.lock().unwrap().clone();
    // SESSION, a pack for the new times in the catalogue, COMMIT.
    assert!(calls.len() <= 5, "{calls:?}");
}
