//! What a restore of the newest snapshot takes after many days of deltas, beside one of a full backup.
//! `ROWS=600000` makes the table four times as large.

use criterion::{Criterion, criterion_group, criterion_main};
#[path = "../tests/support/mod.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods, clippy::panic, reason = "shared with the tests")]
mod support;
use support::*;

fn year(c: &mut Criterion) {
    let rows = std::env::var("ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(150_000);
    let mut group = c.benchmark_group("restore of the newest");
    let (fixture, mut database) = (Fixture::in_memory(1), Database::new(rows));
    let mut tenant = fixture.tenant();
    for day in 1..=120 {
        let dump = database.dump();
        store_stream(&mut tenant, &dump, true);
        if day % 15 == 0 {
            let full = Fixture::in_memory(2);
            store_stream(&mut full.tenant(), &dump, false);
            for (name, fixture) in [("deltas", &fixture), ("full backup", &full)] {
                let tenant = fixture.tenant();
                group.bench_function(format!("day {day}, {name}"), |b| {
                    b.iter(|| read_bytes(&tenant, "latest").map(|bytes| bytes.len()).ok());
                });
            }
        }
        database.next_day(day);
    }
}

criterion_group!(benches, year);
criterion_main!(benches);
