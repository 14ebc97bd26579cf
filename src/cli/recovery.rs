//! Keys on paper, and in shares (Shamir, Communications of the ACM 1979, over GF(256), byte by byte).

use crate::{
    error::{Error, Kind, Result, failed},
    repository::Identity,
};
use qrcode::{QrCode, render::unicode::Dense1x2};
use vsss_rs::Gf256;
use zeroize::Zeroizing;

const SHARE_PREFIX: &str = "STRONGROOM-KEY-SHARE-1";

/// The lines of a key file that matter.
fn secret_lines(identity: &Identity) -> Result<Zeroizing<String>> {
    let text = identity.to_key_file()?;
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    Ok(Zeroizing::new(lines.join("\n")))
}

/// A sheet for a safe: what to do with it, the key as text, and as a QR code.
pub(super) fn sheet(identity: &Identity) -> Result<Zeroizing<String>> {
    let lines = secret_lines(identity)?;
    let code = QrCode::new(lines.as_bytes()).map_err(|error| failed(format!("no QR code: {error}")))?;
    let picture = Zeroizing::new(code.render::<Dense1x2>().quiet_zone(true).build());
    Ok(Zeroizing::new(format!(
        "STRONGROOM RECOVERY SHEET\n\nWhoever has this sheet reads every backup that this key opens. Keep it in a safe, where\nthe backups are not. To use it, type the two lines below into a file (or scan them), and say\n    strongroom --key-file FILE ...\n\nPublic half:\n{}\n\nThe key:\n{}\n\n{}\n",
        identity.public()?.to_text(),
        lines.as_str(),
        picture.as_str()
    )))
}

/// Splits a key file into shares.
pub(super) fn split(identity: &Identity, shares: u8, needed: u8) -> Result<Vec<Zeroizing<String>>> {
    if needed < 2 || shares < needed {
        return Err(Error::new(Kind::Usage, "at least 2 shares must be needed, and as many made; nothing was written"));
    }
    let public = identity.public()?.to_text();
    let secret = secret_lines(identity)?;
    let rng = rand_core::UnwrapErr(getrandom::SysRng);
    let parts = Gf256::split_bytes(usize::from(needed), usize::from(shares), secret.as_bytes(), rng)
        .map_err(|error| failed(format!("the key cannot be split: {error}")))?;
    let text = |(number, part): (usize, Vec<u8>)| {
        let part = Zeroizing::new(part);
        Zeroizing::new(format!(
            "# strongroom key share {} of {shares}: any {needed} of them make the key again (`strongroom key join`)\n# public: {public}\n{SHARE_PREFIX} {needed} {}\n",
            number + 1,
            Zeroizing::new(hex::encode(part.as_slice())).as_str()
        ))
    };
    Ok(parts.into_iter().enumerate().map(text).collect())
}

/// Makes a key of shares: each with what it is called, and its text.
pub(super) fn join(shares: &[(String, Zeroizing<String>)]) -> Result<Identity> {
    let bad = |why: &str| Error::new(Kind::WrongKey, format!("{why}; nothing was written"));
    let (mut parts, mut publics, mut needed) = (Vec::new(), Vec::new(), 0);
    for (name, share) in shares {
        publics.extend(share.lines().find_map(|line| line.strip_prefix("# public: ")));
        let no_share = || Error::new(Kind::Usage, format!("{name} is no share of a key; nothing was written"));
        let line = share.lines().find_map(|line| line.strip_prefix(SHARE_PREFIX)).ok_or_else(no_share)?;
        let not_whole = || bad(&format!("the share {name} is not whole"));
        let (number, part) = line.trim().split_once(' ').ok_or_else(not_whole)?;
        needed = needed.max(number.parse().map_err(|_| not_whole())?);
        parts.push(hex::decode(part.trim()).map_err(|_| not_whole())?);
    }
    parts.sort();
    parts.dedup();
    publics.dedup();
    if parts.len() < needed {
        return Err(bad(&format!("{needed} different shares are needed, and {} are here", parts.len())));
    }
    if publics.len() > 1 {
        return Err(bad("these are shares of different keys"));
    }
    let secret = Zeroizing::new(Gf256::combine_bytes(&parts).map_err(|_| bad("the shares do not fit together"))?);
    parts.iter_mut().for_each(zeroize::Zeroize::zeroize);
    let text = std::str::from_utf8(&secret).map_err(|_| bad("the shares do not fit together"))?;
    let identity = Identity::from_key_file(text).map_err(|_| bad("the shares do not fit together"))?;
    match publics.first().is_none_or(|public| identity.public().is_ok_and(|own| own.to_text() == **public)) {
        true => Ok(identity),
        false => Err(bad("the shares make another key than they say")),
    }
}
