//! Each stage of the pipeline alone, on one thread, and a whole backup and restore in memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use strongroom::{
    format::sealed::{KeyName, KeyScope, Suite},
    id::{Nonce, ScopeId, SegmentId, SegmentName},
    pipeline::{
        chunk::{ChunkSize, Chunker},
        digest::ChunkHasher,
        seal::Key,
        segment::{Sealer, SegmentBuilder, unseal, verify},
    },
};

/// A made-up table: compresses about as a database dump does.
fn table(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 128);
    let mut row = 0u64;
    while text.len() < bytes {
        let hash = blake3::hash(&row.to_le_bytes()).to_hex();
        text.extend_from_slice(
            format!("{row}\t{}\tcustomer-{}@example.org\tpaid\n", &hash[..16], row % 5000).as_bytes(),
        );
        row += 1;
    }
    text.truncate(bytes);
    text
}

fn stages(c: &mut Criterion) {
    const BYTES: usize = 8 << 20;
    let data = table(BYTES);
    let hasher = ChunkHasher::new(&[1; 32]);
    let mut group = c.benchmark_group("stage");
    group.throughput(Throughput::Bytes(BYTES as u64));
    for average in [4 << 10, 8 << 10, 1 << 20] {
        let chunker = Chunker::new(&[2; 32], ChunkSize::Average(average));
        group.bench_function(format!("chunk, average {average}"), |b| {
            b.iter(|| {
                let mut rest = &data[..];
                while !rest.is_empty() {
                    rest = &rest[black_box(chunker.cut(rest))..];
                }
            })
        });
    }
    group.bench_function("digest, 8 KiB chunks", |b| {
        b.iter(|| {
            data.chunks(8 << 10).for_each(|chunk| {
                black_box(hasher.id(chunk));
            })
        })
    });
    for suite in [Suite::Xaes256Gcm, Suite::XChaCha20Poly1305] {
        for segment_bytes in [512 << 10, 1 << 20, 2 << 20] {
            let sealer = Sealer {
                suite,
                owner: ScopeId::default(),
                name: KeyName::of(KeyScope::Content, 0, 0),
                key: Key::from(&[3; 32]),
            };
            let segments: Vec<SegmentBuilder> = data
                .chunks(segment_bytes)
                .map(|part| {
                    let mut builder = SegmentBuilder::default();
                    part.chunks(8 << 10).for_each(|chunk| {
                        builder.push(hasher.id(chunk), chunk);
                    });
                    builder
                })
                .collect();
            let id = SegmentName { id: SegmentId::default(), nonce: Nonce::default() };
            let name = format!("{suite:?}, {} KiB", segment_bytes >> 10);
            let sealed: Vec<Vec<u8>> =
                segments.iter().map(|segment| sealer.seal(id, segment, &[], [0; 24]).bytes).collect();
            let stored: usize = sealed.iter().map(Vec::len).sum();
            println!("{name}: {BYTES} bytes become {stored}");
            group.bench_function(format!("compress and seal, {name}"), |b| {
                b.iter(|| segments.iter().for_each(|segment| drop(black_box(sealer.seal(id, segment, &[], [0; 24])))))
            });
            group.bench_function(format!("open, {name}"), |b| {
                b.iter(|| {
                    sealed.iter().for_each(|bytes| {
                        let opened = unseal(bytes, sealer.owner, id, |_| Some(sealer.key.clone()))
                            .and_then(|off| off.finish(&[]).and_then(|open| open.check_all(&hasher)));
                        drop(black_box(opened));
                    })
                })
            });
            group.bench_function(format!("verify before upload, {name}"), |b| {
                b.iter(|| {
                    segments
                        .iter()
                        .zip(&sealed)
                        .for_each(|(segment, bytes)| drop(black_box(verify(bytes, &sealer, id, (segment, &[])))))
                })
            });
        }
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
