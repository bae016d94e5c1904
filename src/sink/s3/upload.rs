//! Objects into a bucket: `PutObject` for those that are whole, a multipart upload for those that come in parts.
//!
//! Parts of one object are uploaded one after the other, objects beside each other. Everything is sent until it is taken,
//! refused, or out of time, see [`crate::sink::retry`].
//!
//! # An answer that was lost
//!
//! An attempt without an answer may have succeeded, and so may any attempt of a process that was killed. Objects are written
//! with `If-None-Match: *`, so the next attempt then gets 412, and for a multipart upload perhaps 404 `NoSuchUpload`, since a
//! completed upload is gone. The object is asked for its metadata (`HeadObject`): if it bears our mark ([`MARK`]) it is this
//! very object, whole, and delivered. Bytes are not compared: another version may compress otherwise. Objects that come
//! back after a restart are looked for before anything is sent.
//!
//! Where looking is not permitted (it needs `s3:GetObject`), 412 and 404 mean delivered if an attempt before may have
//! succeeded: names hold the process's instance and the first record's place, and nobody but us ends our uploads. An object of
//! another's under our name is left alone, and ours is put under a further name; a multipart upload looks before it begins, and
//! is refused where another comes in between.
//!
//! A store without conditional writes (501 `NotImplemented`) gets unconditional ones, which is said once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ObjectCannedAcl, ServerSideEncryption, StorageClass};
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};

use crate::enrich::ecs::Metadata;
use crate::sink::Context;
use crate::sink::aws::{self, Failure, Kind};
use crate::sink::retry::{End, Retrier, Turn};
use crate::telemetry::account::Reason;

use super::Config;
use super::deliver::{Destination, Outcome, Pieces};
use super::multipart;
use super::notes::{LeftUpload, Notes};
use super::object::{Cut, Identity};

/// Metadata of an object: its mark, see [`Identity::mark`].
pub(super) const MARK: &str = "meshlens-mark";
/// Metadata of an object: the sequence number of its first block.
pub(super) const FIRST: &str = "meshlens-first";
/// Metadata of an object: the sequence number of its last block.
const LAST: &str = "meshlens-last";
/// Metadata of an object: its records.
const RECORDS: &str = "meshlens-records";

/// How often an object is given a further name because there is another's under its own.
const RENAMES_MAX: u32 = 8;

/// A bucket, and how to write to it.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    retrier: Retrier,
    metadata: watch::Receiver<Arc<Metadata>>,
    notes: Notes,
    client: OnceCell<Client>,
    conditional: AtomicBool,
    /// Whether looking at objects turned out not to be permitted.
    blind: AtomicBool,
}

/// What stands under an object's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This object, whole.
    Ours,
    /// What is not ours, or of another life of this journal.
    Another,
    /// Nothing.
    Nothing,
    /// We may not look.
    Hidden,
}

/// Where an object is to be stored.
pub(super) enum Way {
    /// It is there already.
    Stored,
    /// Under that one of its keys, see [`Identity::further_key`].
    Key(u32),
}

impl Bucket {
    /// The bucket of that sink. No request is made.
    pub fn new(config: Config, ctx: &Context) -> Self {
        let retrier = Retrier::new(ctx.name.clone(), config.retry.clone(), config.concurrency, ctx.deadline.clone());
        let metadata = ctx.metadata.clone();
        let notes = Notes::new(ctx.reader.settler());
        let (client, conditional, blind) = (OnceCell::new(), AtomicBool::new(true), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { config, retrier, metadata, notes, client, conditional, blind }) }
    }

    /// Builds the client and aborts the uploads that an earlier process left, both before anything needs it; and stays.
    pub async fn prepare(&self, left: &[LeftUpload]) -> Infallible {
        // An error is the end of the process, and seen by all that waits for the client.
        if let Ok(client) = self.client().await {
            multipart::abort_left(self, client, left).await;
        }
        std::future::pending().await
    }

    async fn client(&self) -> Result<&Client, End> {
        let Shared { config, retrier, metadata, client, .. } = &*self.shared;
        client.get_or_try_init(|| aws::s3(&config.aws, retrier, metadata)).await
    }

    async fn store_pieces(&self, object: &Identity, pieces: &mut Pieces) -> Result<(), End> {
        let first = pieces.next().await.ok_or(End::Shutdown)?;
        if first.bytes.is_none() {
            return Err(End::Exhausted);
        }
        let client = self.client().await?;
        match (&first.bytes, &first.last) {
            (Some(bytes), Some(cut)) => Put { bucket: self, client, object, cut }.run(bytes).await,
            _ => multipart::store(self, client, object, first, pieces).await,
        }
    }

    /// The settings.
    pub(super) fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Takes a turn.
    pub(super) async fn turn(&self) -> Turn {
        self.shared.retrier.turn().await
    }

    /// What is noted for after a restart.
    pub(super) fn notes(&self) -> &Notes {
        &self.shared.notes
    }

    /// Waits for a note, though not beyond the end of a shutdown: a journal in trouble must not hold it up.
    pub(super) async fn noted(&self, note: impl Future<Output = ()>) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.shared.retrier.shutdown_over() => Err(End::Shutdown),
            () = note => Ok(()),
        }
    }

    /// The condition of a request that makes an object visible.
    pub(super) fn if_none_match(&self) -> Option<String> {
        self.shared.conditional.load(Relaxed).then(|| "*".to_owned())
    }

    /// Whether the store does not know conditional writes; the next attempt is then made without.
    pub(super) fn turns_unconditional(&self, failure: &Failure) -> bool {
        let unknown = failure.code() == "NotImplemented" || failure.status == Some(501);
        let turns = unknown && self.shared.conditional.swap(false, Relaxed);
        if turns {
            let bucket = self.shared.config.bucket.as_str();
            tracing::warn!(bucket, "the store has no conditional writes (If-None-Match); written without from now on");
        }
        turns
    }

    /// See [`Config::server_side_encryption`].
    pub(super) fn encryption(&self) -> Option<ServerSideEncryption> {
        let Config { server_side_encryption, kms_key_id, .. } = &self.shared.config;
        let implied = kms_key_id.as_ref().map(|_| ServerSideEncryption::AwsKms);
        server_side_encryption.as_deref().map(ServerSideEncryption::from).or(implied)
    }

    /// See [`Config::content_type`].
    pub(super) fn content_type(&self, object: &Identity) -> String {
        let given = self.shared.config.content_type.as_deref();
        given.unwrap_or_else(|| object.compression.content_type()).to_owned()
    }

    /// See [`Config::canned_acl`].
    pub(super) fn canned_acl(&self) -> Option<ObjectCannedAcl> {
        self.shared.config.canned_acl.as_deref().map(ObjectCannedAcl::from)
    }

    /// See [`Config::storage_class`].
    pub(super) fn storage_class(&self) -> Option<StorageClass> {
        self.shared.config.storage_class.as_deref().map(StorageClass::from)
    }

    /// See [`Config::checksum`].
    pub(super) fn checksum(&self) -> Option<ChecksumAlgorithm> {
        self.shared.config.checksum.as_deref().map(ChecksumAlgorithm::from)
    }

    /// What stands under the key, and whether it is the object.
    pub(super) async fn look(
        &self,
        turn: &mut Turn,
        client: &Client,
        key: &str,
        object: &Identity,
    ) -> Result<Found, End> {
        let mark = mark(object);
        loop {
            let request = client.head_object().bucket(&self.shared.config.bucket).key(key);
            let head = Box::pin(async { request.send().await.map_err(failure) });
            let failure = match turn.attempt(head).await {
                Ok(head) => {
                    let found = head.metadata().and_then(|metadata| metadata.get(MARK));
                    return Ok(if found == Some(&mark) { Found::Ours } else { Found::Another });
                }
                Err(failure) => failure,
            };
            match (failure.kind, failure.status) {
                (Kind::NotFound, Some(404)) => return Ok(Found::Nothing),
                (Kind::Throttled | Kind::Transient, status) if status != Some(501) => turn.pause(&failure).await?,
                _ => {
                    self.shared.blind.store(true, Relaxed);
                    return Ok(Found::Hidden);
                }
            }
        }
    }

    /// Looks for the object under its keys, from the first that is not known to be taken.
    pub(super) async fn find(&self, turn: &mut Turn, client: &Client, object: &Identity) -> Result<Way, End> {
        let mut taken = object.taken;
        // Whoever comes back may be there already; for others it is a precaution, not worth requests that are refused.
        while object.is_returning || !self.shared.blind.load(Relaxed) {
            match self.look(turn, client, &object.further_key(taken), object).await? {
                Found::Ours => {
                    tracing::info!(object = object.name(), "the object is stored already");
                    return Ok(Way::Stored);
                }
                Found::Another => taken = rename(object, taken)?,
                Found::Nothing | Found::Hidden => break,
            }
        }
        Ok(Way::Key(taken))
    }
}

/// The number of the next further key.
fn rename(object: &Identity, taken: u32) -> Result<u32, End> {
    if taken >= RENAMES_MAX {
        return Err(End::Refused);
    }
    tracing::warn!(object = object.name(), "there is another object of that name, a further name is used");
    Ok(taken + 1)
}

/// The object's mark, as it stands in its metadata.
pub(super) fn mark(object: &Identity) -> String {
    format!("{:016x}", object.mark)
}

impl Destination for Bucket {
    async fn store(self, object: Arc<Identity>, mut pieces: Pieces) -> Outcome {
        match self.store_pieces(&object, &mut pieces).await {
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
    cut: &'a Cut,
}

impl Put<'_> {
    async fn run(&self, bytes: &Bytes) -> Result<(), End> {
        let Self { bucket, client, object, cut } = *self;
        let metadata = HashMap::from([
            (MARK.to_owned(), mark(object)),
            (FIRST.to_owned(), cut.first.to_string()),
            (LAST.to_owned(), cut.last.to_string()),
            (RECORDS.to_owned(), cut.records.to_string()),
        ]);
        // Its place first: so many objects at most are noted, and may have to come back after a restart.
        let mut turn = bucket.turn().await;
        let mut taken = object.taken;
        if object.is_returning {
            match bucket.find(&mut turn, client, object).await? {
                Way::Stored => return Ok(()),
                Way::Key(key) => taken = key,
            }
        }
        bucket.noted(bucket.notes().fix(object, cut, taken)).await?;
        // An attempt before this one may have succeeded.
        let mut doubtful = object.is_returning;
        loop {
            let key = object.further_key(taken);
            let failure = match turn.attempt(Box::pin(self.attempt(&key, bytes, &metadata))).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if failure.kind == Kind::Exists {
                match bucket.look(&mut turn, client, &key, object).await? {
                    Found::Ours => return Ok(()),
                    Found::Hidden if doubtful => return Ok(()),
                    Found::Nothing => turn.pause(&again(failure)).await?,
                    Found::Another | Found::Hidden => {
                        taken = rename(object, taken)?;
                        bucket.noted(bucket.notes().fix(object, cut, taken)).await?;
                        doubtful = false;
                    }
                }
            } else if !bucket.turns_unconditional(&failure) {
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
            .content_type(self.bucket.content_type(self.object))
            .set_content_encoding(config.content_encoding.clone())
            .set_acl(self.bucket.canned_acl())
            .set_metadata(Some(metadata.clone()))
            .set_if_none_match(self.bucket.if_none_match())
            .set_storage_class(self.bucket.storage_class())
            .set_server_side_encryption(self.bucket.encryption())
            .set_ssekms_key_id(config.kms_key_id.clone())
            .set_checksum_algorithm(self.bucket.checksum());
        request.send().await.map(drop).map_err(failure)
    }
}

/// The failure, with what only S3 knows: codes about the way or the key, not about the object.
pub(super) fn failure(error: impl Into<Failure>) -> Failure {
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
pub(super) fn may_have_succeeded(failure: &Failure) -> bool {
    match failure.kind {
        Kind::Transient => true,
        // Without a code it is a proxy that speaks.
        Kind::Throttled => failure.code.is_none(),
        _ => false,
    }
}
