//! Key files that AWS KMS wraps: directly, since a key file is shorter than the 4 KiB that it takes.

use crate::{
    error::{Error, Kind, Result},
    repository::Wrapper,
};
use aws_sdk_kms::{Client, error::SdkError, primitives::Blob};
use zeroize::Zeroizing;

/// The key, by id, ARN or alias. Credentials and region are those of the AWS CLI.
pub(super) struct AwsKms(pub String);

/// What the context of a key file is called in KMS: its policies and its log can name it.
const CONTEXT: &str = "strongroom";

impl AwsKms {
    fn run<T>(&self, call: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
        let broken = |error: std::io::Error| Error::new(Kind::Failed, "no runtime for AWS KMS").because(error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        runtime.block_on(async {
            let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
            call(Client::new(&config)).await
        })
    }

    fn refused<E: std::error::Error + Send + Sync + 'static, R: std::fmt::Debug + Send + Sync + 'static>(
        &self,
        error: SdkError<E, R>,
    ) -> Error {
        let kind = if matches!(error, SdkError::ServiceError(_)) { Kind::WrongKey } else { Kind::Unreachable };
        let why = aws_sdk_kms::error::DisplayErrorContext(&error).to_string();
        Error::new(kind, format!("AWS KMS, key {}: {why}", self.0))
    }
}

impl Wrapper for AwsKms {
    fn kind(&self) -> &'static str {
        "aws-kms"
    }
    fn wrap(&self, context: &str, plain: &[u8]) -> Result<(String, Vec<u8>)> {
        self.run(async |client| {
            let request = client.encrypt().key_id(&self.0).encryption_context(CONTEXT, context);
            let answer = request.plaintext(Blob::new(plain)).send().await.map_err(|error| self.refused(error))?;
            let wrapped = answer.ciphertext_blob.map(Blob::into_inner);
            let missing = || Error::new(Kind::WrongKey, format!("AWS KMS, key {}: wrapped nothing", self.0));
            Ok((answer.key_id.unwrap_or_default(), wrapped.ok_or_else(missing)?))
        })
    }
    fn unwrap(&self, context: &str, reference: &str, wrapped: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>> {
        // An alias is KMS's to resolve; an id or ARN is compared here.
        if !self.0.contains("alias/") && !reference.ends_with(&self.0) {
            return Ok(None);
        }
        self.run(async |client| {
            let request = client.decrypt().key_id(&self.0).encryption_context(CONTEXT, context);
            match request.ciphertext_blob(Blob::new(wrapped)).send().await {
                Ok(answer) => Ok(answer.plaintext.map(|plain| Zeroizing::new(plain.into_inner()))),
                // One that these credentials may not use, or that is no more: perhaps another one opens.
                Err(SdkError::ServiceError(_)) => Ok(None),
                Err(error) => Err(self.refused(error)),
            }
        })
    }
}
