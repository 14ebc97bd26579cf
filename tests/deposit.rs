//! Guards the keys of sessions: whoever deposits makes them, and opens none.

use crate::support::Random;
use strongroom::{
    format::key::{Key, SessionKey},
    id::{ActorId, Nonce, ScopeId},
    pipeline::{
        deposit::{ENCAPSULATION, PUBLIC, Purpose, decapsulate, encapsulate, make, open, public},
        digest::hash,
    },
};

/// What another implementation wrapped must open here in seven years, and the other way round.
#[test]
fn x_wing_is_as_its_specification_says() {
    let vectors = include_str!("../format-spec/vectors/xwing.txt").lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in vectors {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| hex::decode(word).unwrap()).collect();
        let seed = Key::from(<&[u8; 32]>::try_from(&words[0][..]).unwrap());
        let half = public(&seed);
        assert_eq!((half.len(), hash(&half).0.to_vec()), (PUBLIC, words[2].clone()));
        let (encapsulation, secret) = encapsulate(&half, words[1][..].try_into().unwrap()).unwrap();
        assert_eq!((encapsulation.len(), hash(&encapsulation).0.to_vec()), (ENCAPSULATION, words[3].clone()));
        assert_eq!(secret.bytes().to_vec(), words[4]);
        assert_eq!(decapsulate(&seed, &encapsulation).unwrap(), secret);
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn a_session_key_opens_for_the_deposit_key_and_for_what_it_was_made_for_alone() {
    let mut random = Random(1);
    let seed = |random: &mut Random| Key::filled(|key| key.copy_from_slice(&random.bytes(32)));
    let (own, other) = (seed(&mut random), seed(&mut random));
    let (actor, nonce) = (ActorId([2; 32]), Nonce([3; 8]));
    let purpose = Purpose { owner: ScopeId([1; 16]), source: 4, epoch: 5, actor, nonce, number: 0 };
    let (wrapped, key) = make(&public(&own), &random.bytes(64).try_into().unwrap(), purpose).unwrap();
    assert_eq!(open(&own, &wrapped, purpose), Some(key));
    assert_eq!(open(&other, &wrapped, purpose), None);
    let others = [
        Purpose { owner: ScopeId([9; 16]), ..purpose },
        Purpose { source: 9, ..purpose },
        Purpose { epoch: 9, ..purpose },
        Purpose { actor: ActorId([9; 32]), ..purpose },
        Purpose { nonce: Nonce([9; 8]), ..purpose },
        Purpose { number: 9, ..purpose },
    ];
    for other in others {
        assert_eq!(open(&own, &wrapped, other), None, "{other:?}");
    }
    for at in [0, 500, 1087, 1088, 1118] {
        let mut changed: SessionKey = wrapped.clone();
        changed.encapsulation.0[at] ^= 1;
        assert_eq!(open(&own, &changed, purpose), None, "byte {at}");
    }
    for length in [0, 32, PUBLIC - 1, PUBLIC + 1] {
        assert!(make(&random.bytes(length), &[0; 64], purpose).is_none(), "{length}");
        assert!(decapsulate(&own, &random.bytes(length)).is_none(), "{length}");
    }
}
