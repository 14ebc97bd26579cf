//! Key files that a command wraps and unwraps: the way to every KMS and HSM.

use crate::{
    error::{Error, Kind, Result},
    repository::Wrapper,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::json;
use std::{
    io::Write,
    process::{Command, Stdio},
};
use zeroize::Zeroizing;

/// Runs a shell command for each request: one JSON object in, one out.
pub(super) struct KeyCommand(pub String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    /// Which key it used.
    #[serde(default)]
    reference: String,
    /// Base64.
    data: Option<String>,
    /// It is not for this command's keys.
    #[serde(default)]
    not_mine: bool,
}

impl KeyCommand {
    fn ask(&self, request: &Zeroizing<String>) -> Result<Answer> {
        let bad = |why: String| Error::new(Kind::WrongKey, format!("the key command `{}` {why}", self.0));
        let mut child = Command::new("sh")
            .args(["-c", &self.0])
            .env_remove("STRONGROOM_PASSPHRASE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| bad("does not start".into()).because(error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says so by its status.
            drop(stdin.write_all(request.as_bytes()));
        }
        let output = child.wait_with_output().map_err(|error| bad("does not end".into()).because(error))?;
        let said = Zeroizing::new(output.stdout);
        if !output.status.success() {
            return Err(bad(format!("failed ({})", output.status)));
        }
        // Never shows what it said: that may be a key.
        serde_json::from_slice(&said).map_err(|_| bad("did not answer with the JSON that the README describes".into()))
    }
}

impl Wrapper for KeyCommand {
    fn kind(&self) -> &'static str {
        "command"
    }
    fn wrap(&self, context: &str, plain: &[u8]) -> Result<(String, Vec<u8>)> {
        let data = Zeroizing::new(BASE64_STANDARD.encode(plain));
        // Written in place: a JSON value would keep a copy of the key that nobody wipes.
        let request = format!(r#"{{"operation":"wrap","context":"{context}","data":"{}"}}"#, data.as_str());
        let answer = self.ask(&Zeroizing::new(request))?;
        let wrapped = answer.data.and_then(|data| BASE64_STANDARD.decode(data).ok());
        let missing = || Error::new(Kind::WrongKey, format!("the key command `{}` wrapped nothing", self.0));
        Ok((answer.reference, wrapped.ok_or_else(missing)?))
    }
    fn unwrap(&self, context: &str, reference: &str, wrapped: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let data = BASE64_STANDARD.encode(wrapped);
        let request = json!({ "operation": "unwrap", "context": context, "reference": reference, "data": data });
        let answer = self.ask(&Zeroizing::new(request.to_string()))?;
        if answer.not_mine {
            return Ok(None);
        }
        let data = Zeroizing::new(answer.data.unwrap_or_default());
        Ok(BASE64_STANDARD.decode(data.as_bytes()).ok().map(Zeroizing::new))
    }
}
