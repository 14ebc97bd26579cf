//! What rules would keep, drawn.

use super::{
    print,
    retention::{rules_from, rules_text},
};
use crate::{
    cli::{
        args::{Global, SimulateArgs},
        ready,
    },
    error::Result,
    operation::{forget, simulate},
};

/// How many characters a span of simulated backups is drawn with: one for each column of time.
const COLUMNS: i128 = 78;

pub(super) fn simulate(global: &Global, args: SimulateArgs) -> Result<()> {
    let SimulateArgs { source, years, every_hours, keep } = args;
    let rules = match rules_from(&keep)? {
        Some(rules) => rules,
        None => {
            let tenant = ready::tenant(global)?;
            forget::rules_of(&tenant.state, source.as_deref()).0
        }
    };
    let simulated = simulate::simulate(&rules, &forget::zone(&rules)?, years, every_hours)?;
    print(global, &simulated, || {
        let mut text = format!(
            "keep {}\n{} backups in {years} years, one every {every_hours} hours: {} snapshots are left, at most {} at a time\n",
            rules_text(&simulated.keep),
            simulated.backups,
            simulated.snapshots.len(),
            simulated.most_snapshots
        );
        let spans = [
            ("all", i64::from(years) * simulate::HOURS_A_YEAR),
            ("the last year", simulate::HOURS_A_YEAR),
            ("the last month", 730),
        ];
        for (name, hours) in spans {
            text += &format!("{}  {name}\n", drawn(&simulated, hours));
        }
        text += "year  snapshots at its end\n";
        let years = simulated.snapshots_after_each_year.iter().zip(1..);
        years.for_each(|(count, year)| text += &format!("{year:>4}  {count:>9}\n"));
        text
    });
    Ok(())
}

/// Draws which snapshots are left of the last so many hours.
fn drawn(simulated: &simulate::Simulation, hours: i64) -> String {
    let span_ns = i128::from(hours.max(1)) * 3_600_000_000_000;
    let mut columns = [0u32; COLUMNS as usize];
    for left in &simulated.snapshots {
        let age_ns = i128::from(simulated.end_ns) - i128::from(left.time_ns);
        let from_end = age_ns * (COLUMNS - 1) / span_ns;
        let column = usize::try_from(COLUMNS - 1 - from_end).ok().and_then(|column| columns.get_mut(column));
        // What is older than the span is not drawn.
        column.into_iter().for_each(|column| *column += 1);
    }
    let drawn = columns.iter().map(|count| match count {
        0 => '.',
        1 => '|',
        2..=9 => char::from_digit(*count, 10).unwrap_or('#'),
        _ => '#',
    });
    drawn.collect()
}
