//! An example of every command, shown below its help and on its page of the manual.

/// The words of a command, and an example of it.
const EXAMPLES: &[(&str, &str)] = &[
    ("key", "strongroom key add --name laptop --to laptop.pub\n  strongroom key list"),
    ("key generate", "strongroom key generate ~/strongroom.key"),
    ("key export", "strongroom key export --circle steward retention-job.key"),
    ("key list", "strongroom key list"),
    ("key add", "strongroom key add --name paper --new-passphrase-file passphrase.txt"),
    ("key remove", "strongroom key remove backup-host --reason 'the host is gone' --rotate"),
    ("key rotate", "strongroom key rotate --older-than 90d"),
    ("key check", "strongroom key check"),
    ("key sheet", "strongroom key sheet ~/strongroom.key > sheet.txt"),
    ("key split", "strongroom key split ~/strongroom.key --shares 5 --needed 3 --to shares"),
    ("key join", "strongroom key join ~/strongroom.key shares/share-1 shares/share-3 shares/share-5"),
    ("role", "strongroom role grant agent --to backup-host.pub --name backup-host\n  strongroom role list"),
    ("role grant", "strongroom role grant agent --to backup-host.pub --name backup-host"),
    ("role revoke", "strongroom role revoke backup-host --reason 'the host is gone'"),
    ("role list", "strongroom role list"),
    ("init", "strongroom --repo /srv/backups --key-file ~/strongroom.key init"),
    ("tenant", "strongroom tenant create shop --owner shop.pub\n  strongroom tenant list --custody"),
    ("operator", "strongroom operator add --to second.pub --name second\n  strongroom operator list"),
    ("operator add", "strongroom operator add --to second.pub --name second"),
    ("operator list", "strongroom operator list"),
    ("operator remove", "strongroom operator remove second --reason 'left the company'"),
    ("tenant create", "strongroom tenant create shop --owner shop.pub"),
    ("tenant list", "strongroom tenant list --custody"),
    ("tenant show", "strongroom tenant show shop"),
    (
        "tenant destroy",
        "strongroom tenant destroy request shop --reason 'contract ended'\n  strongroom tenant destroy execute shop --certificate shop-destroyed",
    ),
    ("tenant accept", "strongroom tenant accept shop --expect FINGERPRINT"),
    ("tenant destroy request", "strongroom tenant destroy request shop --reason 'contract ended' --after 72h"),
    ("tenant destroy approve", "strongroom tenant destroy approve shop --reason 'contract 2026-17'"),
    ("tenant destroy withdraw", "strongroom tenant destroy withdraw shop --reason 'contract goes on'"),
    ("tenant destroy status", "strongroom tenant destroy status shop"),
    ("tenant destroy execute", "strongroom tenant destroy execute shop --certificate shop-destroyed"),
    ("tenant export", "strongroom tenant export shop shop.export"),
    ("tenant import", "strongroom --repo s3://elsewhere/backups tenant import shop.export"),
    ("source", "strongroom source destroy request hr --reason 'erasure request 17'"),
    (
        "source destroy",
        "strongroom source destroy request hr --reason 'erasure request 17'\n  strongroom source destroy execute hr --certificate hr-destroyed",
    ),
    ("source destroy request", "strongroom source destroy request hr --reason 'erasure request 17'"),
    ("source destroy approve", "strongroom source destroy approve hr"),
    ("source destroy withdraw", "strongroom source destroy withdraw hr"),
    ("source destroy status", "strongroom source destroy status hr"),
    ("source destroy execute", "strongroom source destroy execute hr --certificate hr-destroyed"),
    ("policy", "strongroom policy set --keep-daily 30 --keep-monthly 12\n  strongroom policy show"),
    ("policy show", "strongroom policy show"),
    (
        "policy set",
        "strongroom policy set --keep-daily 30 --keep-weekly 12 --keep-monthly 12 --time-zone Europe/Berlin",
    ),
    ("policy simulate", "strongroom policy simulate --years 7 --keep-daily 30 --keep-yearly 7"),
    (
        "backup",
        "strongroom backup --source files /home /etc --exclude '*.tmp'\n  strongroom backup --source db --name shop.sql --command -- pg_dump -Fp shop",
    ),
    (
        "repair",
        "strongroom repair --dry-run\n  strongroom repair --yes --keep all --reason 'lost with disk 3, no copy has it'",
    ),
    ("snapshots", "strongroom snapshots --source files"),
    ("ls", "strongroom ls files@latest:/etc"),
    ("find", "strongroom find '*.conf' --source files"),
    ("diff", "strongroom diff files@latest~1 files@latest"),
    ("cat", "strongroom cat db@latest:shop.sql | psql shop"),
    ("restore", "strongroom restore files@latest:/etc --target /tmp/restored"),
    ("forget", "strongroom forget --policy --dry-run"),
    ("prune", "strongroom prune --dry-run"),
    ("undelete", "strongroom undelete 1f2e3d4c"),
    ("rewrite", "strongroom rewrite db@latest --exclude '*.pem' --reason 'private keys' --dry-run"),
    ("compact", "strongroom compact --dry-run"),
    ("hold", "strongroom hold place --source db --case 2026-17 --reason 'inquiry'\n  strongroom hold list"),
    ("hold place", "strongroom hold place --source db --case 2026-17 --reason 'inquiry'"),
    ("hold release", "strongroom hold release 2026-17 --reason 'inquiry is over'"),
    ("hold list", "strongroom hold list"),
    ("lock", "strongroom lock db@latest --until 2026-12-31"),
    ("check", "strongroom check --read-data=10"),
    ("stats", "strongroom stats"),
    ("usage", "strongroom usage --month 2026-11 --csv"),
    ("quota", "strongroom quota set --tenant shop --stored 500GiB\n  strongroom quota show --tenant shop"),
    ("quota show", "strongroom quota show --tenant shop"),
    ("quota set", "strongroom quota set --tenant shop --stored 500GiB --stored-soft 400GiB"),
    ("certificate", "strongroom certificate verify shop-destroyed.json"),
    ("certificate verify", "strongroom certificate verify shop-destroyed.json"),
    ("audit", "strongroom audit show --csv > audit.csv\n  strongroom audit verify"),
    ("audit show", "strongroom audit show --csv > audit.csv"),
    ("audit verify", "strongroom audit verify --signed-head head"),
    ("audit head", "strongroom audit head > head"),
    ("audit prove", "strongroom audit prove --entry 17 --json > proof.json"),
    ("audit check-proof", "strongroom audit check-proof proof.json --head head --actor ACTOR"),
    ("tour", "strongroom tour"),
    ("completions", "strongroom completions bash > /etc/bash_completion.d/strongroom"),
    ("man", "strongroom man restore | man -l -\n  strongroom man --to /usr/local/share/man/man1"),
];

/// Adds its example to each command.
pub(super) fn added_to(command: clap::Command, words: &str) -> clap::Command {
    let example = EXAMPLES.iter().find(|(known, _)| *known == words).map(|(_, example)| *example);
    let mut command = match example {
        Some(example) => command.after_help(format!("Example:\n  {example}")),
        None => command,
    };
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    for name in names {
        let below = if words.is_empty() { name.clone() } else { format!("{words} {name}") };
        command = command.mut_subcommand(name, |command| added_to(command, &below));
    }
    command
}
