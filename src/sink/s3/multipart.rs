//! Multipart uploads: an object that is stored while it grows.
//!
//! ```text
//! look under the key ─► CreateMultipartUpload ─► note upload/ID ─► parts, each until it is taken ─► note object/KEY
//!   └ ours: done          └ key fixed              └ aborted after a crash                            └ cut fixed
//!                                                                  ─► CompleteMultipartUpload ─► done, or looked for
//! ```
//!
//! A process that is killed between the first answer and the first note leaves an upload without parts, which costs nothing.
//! Uploads that were left are aborted after the start, in the background, and without a permission to list them.
//!
//! An upload may be ended by another, as by a lifecycle rule in an outage of a day. Before its first part is taken it begins
//! anew. Later the parts are gone, and with them the head of the compressed stream, without which the rest is of no use: the
//! object is lost, said and counted as refused.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::sink::aws::{Failure, Kind};
use crate::sink::retry::End;

use super::deliver::{Held, Pieces};
use super::notes::LeftUpload;
use super::object::{Cut, Identity};
use super::upload::{Bucket, FIRST, Found, MARK, Way, failure, mark, may_have_succeeded};

/// Attempts at aborting an upload; what is left is tried after the next start, or is for the bucket's lifecycle rule.
const ABORT_ATTEMPTS_MAX: u32 = 3;

/// Time limit of such an attempt.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit of the only one when the process ends.
const ABORT_TIMEOUT_AT_END: Duration = Duration::from_secs(1);

/// Rounds of attempts at aborting what an earlier process left, and the pause after the first; each is three times the one before.
const LEFT_ROUNDS: u32 = 6;
const LEFT_PAUSE: Duration = Duration::from_secs(2);

/// How often an upload that was ended by another begins anew.
const RESTARTS_MAX: u32 = 3;

/// Stores an object that comes in parts, of which `first` is the first.
pub(super) async fn store(
    bucket: &Bucket,
    client: &Client,
    object: &Identity,
    first: Held,
    pieces: &mut Pieces,
) -> Result<(), End> {
    let way = bucket.find(&mut bucket.turn().await, client, object).await?;
    let Way::Key(taken) = way else {
        drop(first);
        return if pieces.drain().await { Ok(()) } else { Err(End::Shutdown) };
    };
    let mut upload = Multipart::create(bucket, client, object, taken).await?;
    let outcome = upload.run(first, pieces).await;
    match outcome {
        Ok(Upload::Over) => bucket.notes().end_upload(&upload.upload_id),
        // Its parts are still there.
        Ok(Upload::Spare) => upload.abort(End::Refused).await,
        Err(end) => upload.abort(end).await,
    }
    outcome.map(drop)
}

/// What became of an upload whose object is stored.
#[derive(Clone, Copy)]
enum Upload {
    /// Nothing is left of it.
    Over,
    /// The object was there already, from another upload or put.
    Spare,
}

/// Aborts what an earlier process left.
pub(super) async fn abort_left(bucket: &Bucket, client: &Client, left: &[LeftUpload]) {
    let mut left: Vec<&LeftUpload> = left.iter().collect();
    let mut pause = LEFT_PAUSE;
    for _ in 0..LEFT_ROUNDS {
        let mut still = Vec::new();
        for upload in left {
            if abort(bucket, client, &upload.key, &upload.id, ABORT_TIMEOUT).await {
                bucket.notes().end_upload(&upload.id);
                tracing::info!("a multipart upload left by an earlier process is aborted");
            } else {
                still.push(upload);
            }
        }
        left = still;
        if left.is_empty() {
            return;
        }
        sleep(pause).await;
        pause *= 3;
    }
    tracing::warn!(uploads = left.len(), "multipart uploads left by an earlier process could not be aborted yet");
}

/// Makes one attempt at aborting an upload. Whether nothing is left of it.
async fn abort(bucket: &Bucket, client: &Client, key: &str, upload_id: &str, limit: Duration) -> bool {
    let request = client.abort_multipart_upload().bucket(&bucket.config().bucket).key(key).upload_id(upload_id);
    match timeout(limit, Box::pin(async { request.send().await.map_err(failure) })).await {
        Ok(Ok(_)) => true,
        Ok(Err(failure)) => failure.code() == "NoSuchUpload",
        Err(_) => false,
    }
}

/// Why a part was not taken.
enum Broken {
    /// Another ended the upload.
    Gone,
    /// No further attempt is made.
    End(End),
}

impl From<End> for Broken {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// An upload that has begun.
struct Multipart<'a> {
    bucket: &'a Bucket,
    client: &'a Client,
    object: &'a Identity,
    /// The number of its key, and the key, see [`Identity::further_key`].
    taken: u32,
    key: String,
    upload_id: String,
    checksum: Option<ChecksumAlgorithm>,
}

impl<'a> Multipart<'a> {
    async fn create(bucket: &'a Bucket, client: &'a Client, object: &'a Identity, taken: u32) -> Result<Self, End> {
        // The SDK adds a CRC-32 to each part, which an upload has to announce when it begins; unless it is told not to.
        let plain = client.config().request_checksum_calculation() == Some(&RequestChecksumCalculation::WhenRequired);
        let checksum = bucket.checksum().or((!plain).then_some(ChecksumAlgorithm::Crc32));
        let key = object.further_key(taken);
        let mut upload = Self { bucket, client, object, taken, key, upload_id: String::new(), checksum };
        upload.begin().await?;
        Ok(upload)
    }

    /// Begins the upload, or begins it anew.
    async fn begin(&mut self) -> Result<(), End> {
        let Self { bucket, client, object, .. } = *self;
        let config = bucket.config();
        let metadata = HashMap::from([(MARK.to_owned(), mark(object)), (FIRST.to_owned(), object.first.to_string())]);
        let mut turn = bucket.turn().await;
        self.upload_id = loop {
            let request = client
                .create_multipart_upload()
                .bucket(&config.bucket)
                .key(&self.key)
                .content_type(bucket.content_type(object))
                .set_content_encoding(config.content_encoding.clone())
                .set_acl(bucket.canned_acl())
                .set_metadata(Some(metadata.clone()))
                .set_storage_class(bucket.storage_class())
                .set_server_side_encryption(bucket.encryption())
                .set_ssekms_key_id(config.kms_key_id.clone())
                .set_checksum_algorithm(self.checksum.clone());
            let created = turn.attempt(Box::pin(async { request.send().await.map_err(failure) })).await;
            let failure = match created.map(|created| created.upload_id) {
                Ok(Some(upload_id)) => break upload_id,
                Ok(None) => Failure::new(Kind::Transient, "an upload without an id"),
                Err(failure) => failure,
            };
            turn.pause(&failure).await?;
        };
        bucket.noted(bucket.notes().begin_upload(&self.upload_id, &self.key)).await
    }

    /// Uploads the pieces as they come, and completes the object with the last.
    async fn run(&mut self, first: Held, pieces: &mut Pieces) -> Result<Upload, End> {
        let mut parts = Vec::new();
        let mut restarts = 0;
        let mut piece = first;
        loop {
            let Some(bytes) = piece.bytes.clone() else { return Err(End::Exhausted) };
            // What is not compressed may end with a part.
            if !bytes.is_empty() {
                let number = i32::try_from(parts.len() + 1).unwrap_or(i32::MAX);
                match self.part(number, &bytes).await {
                    Ok(part) => parts.push(part),
                    Err(Broken::End(end)) => return Err(end),
                    Err(Broken::Gone) if parts.is_empty() && restarts < RESTARTS_MAX => {
                        restarts += 1;
                        self.bucket.notes().end_upload(&self.upload_id);
                        self.begin().await?;
                        continue;
                    }
                    Err(Broken::Gone) => {
                        tracing::error!(object = self.object.name(), "the upload was ended by another");
                        return Err(End::Refused);
                    }
                }
            }
            if let Some(cut) = &piece.last {
                return self.complete(parts, cut).await;
            }
            // Its memory is free before the next comes, which may take long.
            drop(piece);
            piece = pieces.next().await.ok_or(End::Shutdown)?;
        }
    }

    async fn part(&self, number: i32, bytes: &Bytes) -> Result<CompletedPart, Broken> {
        let mut turn = self.bucket.turn().await;
        loop {
            let request = self
                .client
                .upload_part()
                .bucket(&self.bucket.config().bucket)
                .key(&self.key)
                .upload_id(&self.upload_id)
                .part_number(number)
                .body(ByteStream::from(bytes.clone()))
                .set_checksum_algorithm(self.checksum.clone());
            let failure = match turn.attempt(Box::pin(async { request.send().await.map_err(failure) })).await {
                Ok(part) => return Ok(completed(number, part)),
                Err(failure) => failure,
            };
            if failure.code() == "NoSuchUpload" {
                return Err(Broken::Gone);
            }
            turn.pause(&failure).await?;
        }
    }

    async fn complete(&self, parts: Vec<CompletedPart>, cut: &Cut) -> Result<Upload, End> {
        let Self { bucket, client, object, .. } = *self;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let mut turn = bucket.turn().await;
        bucket.noted(bucket.notes().fix(object, cut, self.taken)).await?;
        // An attempt before this one may have succeeded.
        let mut doubtful = false;
        loop {
            let request = client
                .complete_multipart_upload()
                .bucket(&bucket.config().bucket)
                .key(&self.key)
                .upload_id(&self.upload_id)
                .multipart_upload(parts.clone())
                .set_if_none_match(bucket.if_none_match());
            let failure = match turn.attempt(Box::pin(async { request.send().await.map_err(failure) })).await {
                Ok(_) => return Ok(Upload::Over),
                Err(failure) => failure,
            };
            let gone = failure.code() == "NoSuchUpload";
            if gone || failure.kind == Kind::Exists {
                // What is there may also be what an earlier process completed; what is gone was this process's.
                let stored = if gone { Upload::Over } else { Upload::Spare };
                let may_be_ours = doubtful || (!gone && object.is_returning);
                return match bucket.look(&mut turn, client, &self.key, object).await? {
                    Found::Ours => Ok(stored),
                    Found::Hidden if may_be_ours => Ok(stored),
                    _ => Err(End::Refused),
                };
            }
            if !bucket.turns_unconditional(&failure) {
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
            if abort(self.bucket, self.client, &self.key, &self.upload_id, limit).await {
                self.bucket.notes().end_upload(&self.upload_id);
                return;
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
