//! The Merkle tree over a ledger's entries (RFC 6962 section 2.1, SHA-256). A leaf is the BLAKE3 hash of
//! an entry as stored, or of the junk in its slot; so a head that somebody signed says what the whole
//! history was, and a few hashes prove that an entry is in it, or that a later history only adds to it.

use crate::id::Hash;
use aws_lc_rs::digest::{Context, SHA256};

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = Hash::default();
    hash.0.copy_from_slice(context.finish().as_ref());
    hash
}

/// Returns the hash of a leaf.
pub fn leaf(entry: Hash) -> Hash {
    sha256(&[&[0], &entry.0])
}

fn node(left: Hash, right: Hash) -> Hash {
    sha256(&[&[1], &left.0, &right.0])
}

/// Adds a leaf to the roots of the full parts of a tree of `size` leaves, the largest part first.
pub fn push(parts: &mut Vec<Hash>, size: u64, entry: Hash) {
    let mut hash = leaf(entry);
    for _ in 0..size.trailing_ones() {
        if let Some(left) = parts.pop() {
            hash = node(left, hash);
        }
    }
    parts.push(hash);
}

/// Returns the root of a tree, given the roots of its full parts.
pub fn root(parts: &[Hash]) -> Hash {
    let mut parts = parts.iter().rev();
    match parts.next() {
        Some(last) => parts.fold(*last, |right, left| node(*left, right)),
        None => sha256(&[]),
    }
}

/// Returns the root of a tree of leaves.
pub fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(root_of(left), root_of(right))
        }
    }
}

/// The largest power of two below `size`, which is at least 2.
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

/// Returns the hashes that prove that leaf `at` is in a tree (RFC 6962 section 2.1.1); empty if it is not.
pub fn inclusion(leaves: &[Hash], at: usize) -> Vec<Hash> {
    if leaves.len() < 2 || at >= leaves.len() {
        return Vec::new();
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut proof, sibling) = match at < middle {
        true => (inclusion(left, at), root_of(right)),
        false => (inclusion(right, at - middle), root_of(left)),
    };
    proof.push(sibling);
    proof
}

/// Says whether a proof shows that `leaf` is leaf `at` of a tree of `size` leaves with that root
/// (RFC 9162 section 2.1.3.2).
pub fn is_included(leaf: Hash, at: u64, size: u64, proof: &[Hash], root: Hash) -> bool {
    if at >= size {
        return false;
    }
    let (mut number, mut last, mut hash) = (at, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if number % 2 == 1 || number == last {
            hash = node(*sibling, hash);
            while number.is_multiple_of(2) && number != 0 {
                (number, last) = (number / 2, last / 2);
            }
        } else {
            hash = node(hash, *sibling);
        }
        (number, last) = (number / 2, last / 2);
    }
    last == 0 && hash == root
}

/// Returns the hashes that prove that a tree begins with its first `size` leaves (RFC 6962 section 2.1.2).
pub fn consistency(leaves: &[Hash], size: usize) -> Vec<Hash> {
    fn subproof(leaves: &[Hash], size: usize, is_whole: bool) -> Vec<Hash> {
        if size == leaves.len() {
            return if is_whole { Vec::new() } else { vec![root_of(leaves)] };
        }
        let middle = split(leaves.len());
        let (left, right) = leaves.split_at(middle);
        let (mut proof, sibling) = match size <= middle {
            true => (subproof(left, size, is_whole), root_of(right)),
            false => (subproof(right, size - middle, false), root_of(left)),
        };
        proof.push(sibling);
        proof
    }
    if size == 0 || size > leaves.len() { Vec::new() } else { subproof(leaves, size, true) }
}

/// Says whether a proof shows that the tree of `size` leaves with root `new` begins with the one of
/// `old_size` leaves with root `old` (RFC 9162 section 2.1.4.2).
pub fn is_consistent((old_size, old): (u64, Hash), (size, new): (u64, Hash), proof: &[Hash]) -> bool {
    if old_size == size {
        return proof.is_empty() && old == new;
    }
    if old_size == 0 || old_size > size {
        return false;
    }
    let mut proof = proof.to_vec();
    if old_size.is_power_of_two() {
        proof.insert(0, old);
    }
    let Some((first, rest)) = proof.split_first() else { return false };
    let (mut number, mut last) = (old_size - 1, size - 1);
    while number % 2 == 1 {
        (number, last) = (number / 2, last / 2);
    }
    let (mut from_old, mut from_new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if number % 2 == 1 || number == last {
            from_old = node(*sibling, from_old);
            from_new = node(*sibling, from_new);
            while number.is_multiple_of(2) && number != 0 {
                (number, last) = (number / 2, last / 2);
            }
        } else {
            from_new = node(from_new, *sibling);
        }
        (number, last) = (number / 2, last / 2);
    }
    last == 0 && from_old == old && from_new == new
}
