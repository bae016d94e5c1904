//! Objects into a bucket: `PutObject` for those that are whole, a multipart upload for those that come in parts.
//!
//! Parts of one object are uploaded one after the other, objects beside each other. Everything is sent until it is taken,
//! refused, or out of time, see [`crate::sink::retry`].
//!
//! # An answer that was lost
//!
//! An attempt without an answer may have succeeded. Objects are written with `If-None-Match: *`, so the next attempt then gets
//! 412, and for a multipart upload perhaps 404 `NoSuchUpload`, since a completed upload is gone. The object is asked for its
//! metadata (`HeadObject`): ours means delivered. Where that is not permitted, 412 and 404 mean delivered if an attempt
//! before may have succeeded: names hold the process's instance, and nobody but us ends our uploads. An object of another's
//! under our name is left alone: a whole object is put under a further name, a multipart upload is refused.
//!
//! A store without conditional writes (501 `NotImplemented`) gets unconditional ones, which is said once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass,
};
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};
use tokio::time::timeout;

use crate::enrich::ecs::Metadata;
use crate::sink::Context;
use crate::sink::aws::{self, Failure, Kind};
use crate::sink::retry::{End, Retrier, Turn};
use crate::telemetry::account::Reason;

use super::Config;
use super::deliver::{Destination, Held, Outcome, Pieces};
use super::objects::{Extent, Identity};

/// Metadata of an object: the sequence number of its first block.
const FIRST: &str = "meshlens-first";
/// Metadata of an object: the sequence number of its last block.
const LAST: &str = "meshlens-last";
/// Metadata of an object: its records.
const RECORDS: &str = "meshlens-records";

/// How often an object is given a further name because there is another's under its own.
const RENAMES_MAX: u32 = 8;

/// Attempts at aborting a multipart upload; what is left is for the bucket's lifecycle rule.
const ABORT_ATTEMPTS_MAX: u32 = 3;

/// Time limit of such an attempt.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit of the only one when the process ends.
const ABORT_TIMEOUT_AT_END: Duration = Duration::from_secs(1);

/// A bucket, and how to write to it.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    retrier: Retrier,
    metadata: watch::Receiver<Arc<Metadata>>,
    client: OnceCell<Client>,
    conditional: AtomicBool,
}

/// What stands under an object's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Ours,
    Another,
    Nothing,
    /// We may not look.
    Hidden,
}

impl Bucket {
    /// The bucket of that sink. No request is made.
    pub fn new(config: Config, ctx: &Context) -> Self {
        let retrier = Retrier::new(ctx.name.clone(), config.retry.clone(), config.concurrency, ctx.deadline.clone());
        let metadata = ctx.metadata.clone();
        let (client, conditional) = (OnceCell::new(), AtomicBool::new(true));
        Self { shared: Arc::new(Shared { config, retrier, metadata, client, conditional }) }
    }

    /// Builds the client, and stays.
    pub async fn connect(&self) -> Infallible {
        // An error is the end of the process, and seen by all that waits for the client.
        let _told = self.client().await;
        std::future::pending().await
    }

    async fn client(&self) -> Result<&Client, End> {
        let Shared { config, retrier, metadata, client, .. } = &*self.shared;
        client.get_or_try_init(|| aws::s3(&config.aws, retrier, metadata)).await
    }

    async fn store_from(&self, object: &Identity, first: Held, pieces: Pieces) -> Result<(), End> {
        let client = self.client().await?;
        match first.last {
            Some(extent) => {
                let bytes = first.bytes.clone().unwrap_or_default();
                Put { bucket: self, client, object, extent }.run(bytes).await
            }
            None => {
                let upload = Multipart::create(self, client, object).await?;
                let outcome = upload.run(first, pieces).await;
                if let Err(end) = outcome {
                    upload.abort(end).await;
                }
                outcome
            }
        }
    }

    fn if_none_match(&self) -> Option<String> {
        self.shared.conditional.load(Relaxed).then(|| "*".to_owned())
    }

    /// Whether the store does not know conditional writes; the next attempt is then made without.
    fn turns_unconditional(&self, failure: &Failure) -> bool {
        let unknown = failure.code() == "NotImplemented" || failure.status == Some(501);
        let turns = unknown && self.shared.conditional.swap(false, Relaxed);
        if turns {
            let bucket = self.shared.config.bucket.as_str();
            tracing::warn!(bucket, "the store has no conditional writes (If-None-Match); written without from now on");
        }
        turns
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        let Config { server_side_encryption, kms_key_id, .. } = &self.shared.config;
        let implied = kms_key_id.as_ref().map(|_| ServerSideEncryption::AwsKms);
        server_side_encryption.as_deref().map(ServerSideEncryption::from).or(implied)
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.shared.config.storage_class.as_deref().map(StorageClass::from)
    }

    fn checksum(&self) -> Option<ChecksumAlgorithm> {
        self.shared.config.checksum.as_deref().map(ChecksumAlgorithm::from)
    }

    /// What stands under the key, and whether it is the object with that metadata.
    async fn look(
        &self,
        turn: &mut Turn,
        client: &Client,
        key: &str,
        metadata: &HashMap<String, String>,
    ) -> Result<Found, End> {
        loop {
            let request = client.head_object().bucket(&self.shared.config.bucket).key(key);
            let head = Box::pin(async { request.send().await.map_err(failure) });
            let failure = match turn.attempt(head).await {
                Ok(head) => {
                    let ours = |(name, value)| head.metadata().and_then(|found| found.get(name)) == Some(value);
                    return Ok(if metadata.iter().all(ours) { Found::Ours } else { Found::Another });
                }
                Err(failure) => failure,
            };
            match (failure.kind, failure.status) {
                (Kind::NotFound, Some(404)) => return Ok(Found::Nothing),
                (Kind::Throttled | Kind::Transient, status) if status != Some(501) => turn.pause(&failure).await?,
                _ => return Ok(Found::Hidden),
            }
        }
    }
}

impl Destination for Bucket {
    async fn store(self, object: Arc<Identity>, mut pieces: Pieces) -> Outcome {
        let Some(first) = pieces.next().await else { return Outcome::Pending };
        if first.bytes.is_none() {
            return Outcome::Lost(Reason::RetriesExhausted);
        }
        match self.store_from(&object, first, pieces).await {
            Ok(()) => Outcome::Delivered,
            Err(End::Refused) => Outcome::Lost(Reason::Refused),
            Err(End::Exhausted) => Outcome::Lost(Reason::RetriesExhausted),
            Err(End::Shutdown) => Outcome::Pending,
        }
    }
}

/// An object that is put whole.
struct Put<'a> {
    bucket: &'a Bucket,
    client: &'a Client,
    object: &'a Identity,
    extent: Extent,
}

impl Put<'_> {
    async fn run(&self, bytes: Bytes) -> Result<(), End> {
        let metadata = HashMap::from([
            (FIRST.to_owned(), self.extent.first.to_string()),
            (LAST.to_owned(), self.extent.last.to_string()),
            (RECORDS.to_owned(), self.extent.records.to_string()),
        ]);
        let mut turn = self.bucket.shared.retrier.turn().await;
        let mut key = self.object.key.clone();
        let mut renames = 0;
        // An attempt before this one may have succeeded.
        let mut doubtful = false;
        loop {
            let failure = match turn.attempt(Box::pin(self.attempt(&key, &bytes, &metadata))).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if failure.kind == Kind::Exists {
                match self.bucket.look(&mut turn, self.client, &key, &metadata).await? {
                    Found::Ours => return Ok(()),
                    Found::Hidden if doubtful => return Ok(()),
                    Found::Nothing => turn.pause(&again(failure)).await?,
                    Found::Another | Found::Hidden => {
                        renames += 1;
                        if renames > RENAMES_MAX {
                            return Err(End::Refused);
                        }
                        let object = self.object.name();
                        tracing::warn!(object, "there is another object of that name, a further name is used");
                        key = self.object.further_key(renames);
                        doubtful = false;
                    }
                }
            } else if !self.bucket.turns_unconditional(&failure) {
                doubtful |= may_have_succeeded(&failure);
                turn.pause(&failure).await?;
            }
        }
    }

    async fn attempt(&self, key: &str, bytes: &Bytes, metadata: &HashMap<String, String>) -> Result<(), Failure> {
        let config = &self.bucket.shared.config;
        let request = self
            .client
            .put_object()
            .bucket(&config.bucket)
            .key(key)
            .body(ByteStream::from(bytes.clone()))
            .content_type(config.compression.content_type())
            .set_metadata(Some(metadata.clone()))
            .set_if_none_match(self.bucket.if_none_match())
            .set_storage_class(self.bucket.storage_class())
            .set_server_side_encryption(self.bucket.encryption())
            .set_ssekms_key_id(config.kms_key_id.clone())
            .set_checksum_algorithm(self.bucket.checksum());
        request.send().await.map(drop).map_err(failure)
    }
}

/// A multipart upload that has begun.
struct Multipart<'a> {
    bucket: &'a Bucket,
    client: &'a Client,
    object: &'a Identity,
    upload_id: String,
    checksum: Option<ChecksumAlgorithm>,
    metadata: HashMap<String, String>,
}

impl<'a> Multipart<'a> {
    async fn create(bucket: &'a Bucket, client: &'a Client, object: &'a Identity) -> Result<Self, End> {
        let config = &bucket.shared.config;
        // The SDK adds a CRC-32 to each part, which an upload has to announce when it begins; unless it is told not to.
        let plain = client.config().request_checksum_calculation() == Some(&RequestChecksumCalculation::WhenRequired);
        let checksum = bucket.checksum().or((!plain).then_some(ChecksumAlgorithm::Crc32));
        let metadata = HashMap::from([(FIRST.to_owned(), object.first.to_string())]);
        let mut turn = bucket.shared.retrier.turn().await;
        loop {
            let request = client
                .create_multipart_upload()
                .bucket(&config.bucket)
                .key(&object.key)
                .content_type(config.compression.content_type())
                .set_metadata(Some(metadata.clone()))
                .set_storage_class(bucket.storage_class())
                .set_server_side_encryption(bucket.encryption())
                .set_ssekms_key_id(config.kms_key_id.clone())
                .set_checksum_algorithm(checksum.clone());
            let created = turn.attempt(Box::pin(async { request.send().await.map_err(failure) })).await;
            let failure = match created.map(|created| created.upload_id) {
                Ok(Some(upload_id)) => return Ok(Self { bucket, client, object, upload_id, checksum, metadata }),
                Ok(None) => Failure::new(Kind::Transient, "an upload without an id"),
                Err(failure) => failure,
            };
            turn.pause(&failure).await?;
        }
    }

    /// Uploads the pieces as they come, and completes the object with the last.
    async fn run(&self, first: Held, mut pieces: Pieces) -> Result<(), End> {
        let mut parts = Vec::new();
        let mut piece = first;
        loop {
            let Some(bytes) = piece.bytes.clone() else { return Err(End::Exhausted) };
            // What is not compressed may end with a part.
            if !bytes.is_empty() {
                let number = i32::try_from(parts.len() + 1).unwrap_or(i32::MAX);
                parts.push(self.part(number, bytes).await?);
            }
            if piece.last.is_some() {
                return self.complete(parts).await;
            }
            // Its memory is free before the next comes, which may take long.
            drop(piece);
            piece = pieces.next().await.ok_or(End::Shutdown)?;
        }
    }

    async fn part(&self, number: i32, bytes: Bytes) -> Result<CompletedPart, End> {
        let mut turn = self.bucket.shared.retrier.turn().await;
        loop {
            let request = self
                .client
                .upload_part()
                .bucket(&self.bucket.shared.config.bucket)
                .key(&self.object.key)
                .upload_id(&self.upload_id)
                .part_number(number)
                .body(ByteStream::from(bytes.clone()))
                .set_checksum_algorithm(self.checksum.clone());
            let failure = match turn.attempt(Box::pin(async { request.send().await.map_err(failure) })).await {
                Ok(part) => return Ok(completed(number, part)),
                Err(failure) => failure,
            };
            if failure.code() == "NoSuchUpload" {
                tracing::error!(object = self.object.name(), "the upload was ended by another");
                return Err(End::Refused);
            }
            turn.pause(&failure).await?;
        }
    }

    async fn complete(&self, parts: Vec<CompletedPart>) -> Result<(), End> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let mut turn = self.bucket.shared.retrier.turn().await;
        let mut doubtful = false;
        loop {
            let request = self
                .client
                .complete_multipart_upload()
                .bucket(&self.bucket.shared.config.bucket)
                .key(&self.object.key)
                .upload_id(&self.upload_id)
                .multipart_upload(parts.clone())
                .set_if_none_match(self.bucket.if_none_match());
            let failure = match turn.attempt(Box::pin(async { request.send().await.map_err(failure) })).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            let gone = failure.code() == "NoSuchUpload";
            if gone || failure.kind == Kind::Exists {
                return match self.bucket.look(&mut turn, self.client, &self.object.key, &self.metadata).await? {
                    Found::Ours => Ok(()),
                    Found::Hidden if doubtful => Ok(()),
                    _ => Err(End::Refused),
                };
            }
            if !self.bucket.turns_unconditional(&failure) {
                doubtful |= may_have_succeeded(&failure);
                turn.pause(&failure).await?;
            }
        }
    }

    /// Frees what the parts take in the bucket.
    async fn abort(&self, end: End) {
        let at_end = end == End::Shutdown;
        let (attempts, limit) = if at_end { (1, ABORT_TIMEOUT_AT_END) } else { (ABORT_ATTEMPTS_MAX, ABORT_TIMEOUT) };
        for _ in 0..attempts {
            let bucket = &self.bucket.shared.config.bucket;
            let request = self.client.abort_multipart_upload().bucket(bucket).key(&self.object.key);
            let request = request.upload_id(&self.upload_id);
            match timeout(limit, Box::pin(async { request.send().await.map_err(failure) })).await {
                Ok(Ok(_)) => return,
                Ok(Err(failure)) if failure.code() == "NoSuchUpload" => return,
                Ok(Err(_)) | Err(_) => {}
            }
        }
        tracing::warn!(
            object = self.object.name(),
            "a multipart upload could not be aborted; its parts stay in the bucket"
        );
    }
}

fn completed(number: i32, part: UploadPartOutput) -> CompletedPart {
    CompletedPart::builder()
        .part_number(number)
        .set_checksum_crc32(part.checksum_crc32)
        .set_checksum_crc32_c(part.checksum_crc32_c)
        .set_checksum_crc64_nvme(part.checksum_crc64_nvme)
        .set_checksum_sha1(part.checksum_sha1)
        .set_checksum_sha256(part.checksum_sha256)
        .set_e_tag(part.e_tag)
        .build()
}

/// The failure, with what only S3 knows: codes about the way or the key, not about the object.
fn failure(error: impl Into<Failure>) -> Failure {
    let mut failure = error.into();
    failure.kind = match failure.code() {
        "BadDigest" | "IncompleteBody" | "XAmzContentChecksumMismatch" => Kind::Transient,
        "PermanentRedirect" | "AccountProblem" | "AllAccessDisabled" => Kind::Credentials,
        code if code.starts_with("KMS.") => Kind::Credentials,
        _ => failure.kind,
    };
    failure
}

/// There was something in the way that has gone.
fn again(failure: Failure) -> Failure {
    Failure { kind: Kind::Transient, ..failure }
}

/// Whether the request may have been carried out in spite of that.
fn may_have_succeeded(failure: &Failure) -> bool {
    match failure.kind {
        Kind::Transient => true,
        // Without a code it is a proxy that speaks.
        Kind::Throttled => failure.code.is_none(),
        _ => false,
    }
}
