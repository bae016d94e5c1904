//! S3, path-style: whole and multipart uploads with their preconditions and checksums.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::body::Bytes;
use hyper::http::request::Parts;

use super::digest::{ALGORITHMS, checksum, hex, md5, sha256_hex};
use super::fault::Fault;
use super::sigv4::{header, percent_decode, query_pairs};
use super::{Delivered, Outcome, Reply, Telling};

/// The least size of every part but the last, in bytes.
pub const PART_BYTES_MIN: usize = 5 << 20;
const PARTS_MAX: u32 = 10_000;
const KEY_BYTES_MAX: usize = 1_024;
const STORAGE_CLASSES: [&str; 9] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
];
const KMS: [&str; 2] = ["aws:kms", "aws:kms:dsse"];

/// A stored object.
#[derive(Clone, Debug)]
pub struct Object {
    pub body: Bytes,
    pub etag: String,
    /// `content-type`, `content-encoding`, `x-amz-meta-*`, `x-amz-storage-class`, … as the upload gave them.
    pub headers: BTreeMap<String, String>,
    /// Sizes of the parts; empty for PutObject.
    pub parts: Vec<usize>,
}

struct Upload {
    bucket: String,
    key: String,
    headers: BTreeMap<String, String>,
    algorithm: Option<String>,
    parts: BTreeMap<u32, (Bytes, String)>,
}

/// All buckets of the account.
#[derive(Default)]
pub struct S3 {
    pub buckets: BTreeMap<String, BTreeMap<String, Object>>,
    uploads: BTreeMap<String, Upload>,
    uploads_made: u64,
}

/// What a request line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    upload: String,
    prefix: String,
    part: Option<u32>,
}

impl Target {
    /// Reads method, path and query.
    pub fn of(head: &Parts) -> Self {
        let path = head.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let query = query_pairs(head.uri.query().unwrap_or_default());
        let value =
            |name: &str| query.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| text(value.clone()));
        let upload = value("uploadId");
        let operation = match (&head.method, key.is_empty(), upload.is_some()) {
            (&Method::HEAD, true, _) => "HeadBucket",
            (&Method::HEAD, false, _) => "HeadObject",
            (&Method::GET, true, _) if value("uploads").is_some() => "ListMultipartUploads",
            (&Method::GET, false, false) => "GetObject",
            (&Method::PUT, false, true) => "UploadPart",
            (&Method::PUT, false, false) => "PutObject",
            (&Method::POST, false, true) => "CompleteMultipartUpload",
            (&Method::POST, false, false) if value("uploads").is_some() => "CreateMultipartUpload",
            (&Method::DELETE, false, true) => "AbortMultipartUpload",
            _ => "NotImplemented",
        };
        Self {
            operation,
            bucket: text(percent_decode(bucket)),
            key: text(percent_decode(key)),
            upload: upload.unwrap_or_default(),
            prefix: value("prefix").unwrap_or_default(),
            part: value("partNumber").and_then(|number| number.parse().ok()),
        }
    }
}

fn refuse(status: u16, code: &'static str, message: &str) -> Outcome {
    Reply::xml_error(status, code, message).into()
}

/// The payload without its `aws-chunked` framing, every checksum in headers and trailers verified.
pub fn payload(head: &Parts, body: &Bytes) -> Result<Bytes, Outcome> {
    let mut trailers = Vec::new();
    let content = match header(head, "x-amz-content-sha256") {
        Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => {
            let (content, found) = dechunk(body).ok_or_else(|| refuse(400, "IncompleteBody", "aws-chunked framing"))?;
            let promised = header(head, "x-amz-decoded-content-length").and_then(|length| length.parse().ok());
            if promised != Some(content.len()) {
                return Err(refuse(400, "IncompleteBody", "x-amz-decoded-content-length"));
            }
            let announced = header(head, "x-amz-trailer").unwrap_or_default();
            if !announced.is_empty() && !found.iter().any(|(name, _)| name == announced) {
                return Err(refuse(400, "MalformedTrailerError", announced));
            }
            trailers = found;
            content
        }
        Some("UNSIGNED-PAYLOAD") => body.clone(),
        Some(hash) if hash.len() == 64 => {
            if sha256_hex(body) != hash {
                return Err(refuse(400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' is wrong"));
            }
            body.clone()
        }
        _ => return Err(refuse(400, "InvalidRequest", "Missing or unknown x-amz-content-sha256")),
    };
    if let Some(sent) = header(head, "content-md5")
        && sent != STANDARD.encode(md5(&content))
    {
        return Err(refuse(400, "BadDigest", "The Content-MD5 you specified did not match what we received."));
    }
    for algorithm in ALGORITHMS {
        let name = format!("x-amz-checksum-{algorithm}");
        let in_trailer = trailers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str());
        if let Some(sent) = in_trailer.or(header(head, &name))
            && checksum(algorithm, &content).as_deref() != Some(sent)
        {
            return Err(refuse(400, "BadDigest", &format!("The {algorithm} you specified did not match.")));
        }
    }
    Ok(content)
}

type Trailers = Vec<(String, String)>;

fn dechunk(mut rest: &[u8]) -> Option<(Bytes, Trailers)> {
    let mut content = Vec::with_capacity(rest.len());
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    let trailers = std::str::from_utf8(rest).ok()?;
    let trailers = trailers
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    Some((content.into(), trailers))
}

impl S3 {
    /// Carries out one call. `content` is the verified payload.
    pub fn call(
        &mut self,
        target: &Target,
        head: &Parts,
        content: Bytes,
        fault: Option<Fault>,
        observer: Option<&Telling<'_>>,
    ) -> Outcome {
        if !self.buckets.contains_key(&target.bucket) {
            return refuse(404, "NoSuchBucket", "The specified bucket does not exist");
        }
        if target.key.len() > KEY_BYTES_MAX {
            return refuse(400, "KeyTooLongError", "Your key is too long");
        }
        match target.operation {
            "HeadBucket" => Reply::empty(200).into(),
            "HeadObject" | "GetObject" => self.read(target),
            "PutObject" => self.put(target, head, content, observer),
            "ListMultipartUploads" => self.list(target),
            "CreateMultipartUpload" => self.create(target, head),
            "UploadPart" => self.part(target, head, content),
            "CompleteMultipartUpload" => self.complete(target, head, &content, fault, observer),
            "AbortMultipartUpload" => match self.uploads.remove(&target.upload) {
                Some(_) => Reply::empty(204).into(),
                None => no_such_upload(),
            },
            _ => refuse(501, "NotImplemented", "A header or query you provided implies functionality not implemented"),
        }
    }

    /// Multipart uploads begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.uploads.len()
    }

    fn read(&self, target: &Target) -> Outcome {
        let Some(object) = self.buckets[&target.bucket].get(&target.key) else {
            return refuse(404, "NoSuchKey", "The specified key does not exist.");
        };
        let mut reply = Reply::empty(200);
        reply.headers = object.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        reply.headers.push(("etag".into(), object.etag.clone()));
        if target.operation == "HeadObject" {
            reply.headers.push(("content-length".into(), object.body.len().to_string()));
        } else {
            reply.body = object.body.to_vec();
        }
        reply.into()
    }

    fn exists_against_wish(&self, target: &Target, head: &Parts) -> Option<Outcome> {
        let exists = self.buckets[&target.bucket].contains_key(&target.key);
        match header(head, "if-none-match") {
            Some("*") if exists => {
                Some(refuse(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"))
            }
            Some("*") | None => None,
            Some(_) => Some(refuse(501, "NotImplemented", "If-None-Match other than *")),
        }
    }

    fn put(&mut self, target: &Target, head: &Parts, content: Bytes, observer: Option<&Telling<'_>>) -> Outcome {
        let headers = match object_headers(head) {
            Ok(headers) => headers,
            Err(refusal) => return refusal,
        };
        if let Some(refusal) = self.exists_against_wish(target, head) {
            return refusal;
        }
        let etag = format!("\"{}\"", hex(&md5(&content)));
        let object = Object { body: content, etag: etag.clone(), headers, parts: Vec::new() };
        self.store(target, object, observer, Reply::empty(200).with("etag", &etag))
    }

    fn store(&mut self, target: &Target, object: Object, observer: Option<&Telling<'_>>, reply: Reply) -> Outcome {
        if let Some(observer) = observer {
            observer(&Delivered::Object { bucket: &target.bucket, key: &target.key, object: &object });
        }
        let bytes = object.body.len();
        if let Some(bucket) = self.buckets.get_mut(&target.bucket) {
            bucket.insert(target.key.clone(), object);
        }
        Outcome::accepted(reply, 1, 1, bytes)
    }

    fn create(&mut self, target: &Target, head: &Parts) -> Outcome {
        let headers = match object_headers(head) {
            Ok(headers) => headers,
            Err(refusal) => return refusal,
        };
        self.uploads_made += 1;
        let id = format!("upload-{:08}", self.uploads_made);
        let algorithm = header(head, "x-amz-checksum-algorithm").map(str::to_lowercase);
        let (bucket, key) = (target.bucket.clone(), target.key.clone());
        self.uploads.insert(id.clone(), Upload { bucket, key, headers, algorithm, parts: BTreeMap::new() });
        let document = format!(
            "<InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>",
            target.bucket,
            super::escape_xml(&target.key)
        );
        Reply::xml(200, &document).into()
    }

    /// All at once: the fake's buckets are small.
    fn list(&self, target: &Target) -> Outcome {
        let of_bucket = |upload: &&Upload| upload.bucket == target.bucket && upload.key.starts_with(&target.prefix);
        let mut uploads: Vec<(&String, &Upload)> = self.uploads.iter().filter(|(_, each)| of_bucket(each)).collect();
        uploads.sort_by_key(|(id, upload)| (upload.key.clone(), (*id).clone()));
        let entry = |(id, upload): &(&String, &Upload)| {
            let key = super::escape_xml(&upload.key);
            format!(
                "<Upload><Key>{key}</Key><UploadId>{id}</UploadId><StorageClass>STANDARD</StorageClass>\
                 <Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
            )
        };
        let entries: String = uploads.iter().map(entry).collect();
        let document = format!(
            "<ListMultipartUploadsResult><Bucket>{}</Bucket><MaxUploads>1000</MaxUploads>\
             <IsTruncated>false</IsTruncated>{entries}</ListMultipartUploadsResult>",
            target.bucket
        );
        Reply::xml(200, &document).into()
    }

    fn part(&mut self, target: &Target, head: &Parts, content: Bytes) -> Outcome {
        let Some(upload) = self.uploads.get_mut(&target.upload) else { return no_such_upload() };
        if (&upload.bucket, &upload.key) != (&target.bucket, &target.key) {
            return no_such_upload();
        }
        let Some(number) = target.part.filter(|number| (1..=PARTS_MAX).contains(number)) else {
            return refuse(400, "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive");
        };
        let sent = ALGORITHMS.iter().any(|algorithm| {
            header(head, &format!("x-amz-checksum-{algorithm}")).is_some()
                || header(head, "x-amz-trailer").is_some_and(|name| name.ends_with(algorithm))
        });
        if upload.algorithm.is_some() && !sent {
            return refuse(
                400,
                "InvalidRequest",
                "The upload was created with a checksum algorithm; the part has none",
            );
        }
        let etag = format!("\"{}\"", hex(&md5(&content)));
        let bytes = content.len();
        upload.parts.insert(number, (content, etag.clone()));
        Outcome::accepted(Reply::empty(200).with("etag", &etag), 0, 0, bytes)
    }

    fn complete(
        &mut self,
        target: &Target,
        head: &Parts,
        document: &[u8],
        fault: Option<Fault>,
        observer: Option<&Telling<'_>>,
    ) -> Outcome {
        let Some(upload) = self.uploads.get(&target.upload) else { return no_such_upload() };
        if (&upload.bucket, &upload.key) != (&target.bucket, &target.key) {
            return no_such_upload();
        }
        let Some(listed) = listed_parts(&String::from_utf8_lossy(document)) else {
            return refuse(400, "MalformedXML", "The XML you provided was not well-formed");
        };
        if !listed.is_sorted_by(|a, b| a.0 < b.0) {
            return refuse(400, "InvalidPartOrder", "The list of parts was not in ascending order.");
        }
        let (mut body, mut sizes, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        for (place, (number, etag)) in listed.iter().enumerate() {
            let Some((content, stored)) = upload.parts.get(number) else { return invalid_part() };
            if stored.trim_matches('"') != etag.trim_matches('"') {
                return invalid_part();
            }
            if place + 1 < listed.len() && content.len() < PART_BYTES_MIN {
                return refuse(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size");
            }
            body.extend_from_slice(content);
            sizes.push(content.len());
            digests.extend_from_slice(&md5(content));
        }
        if let Some(refusal) = self.exists_against_wish(target, head) {
            return refusal;
        }
        if fault == Some(Fault::ErrorInBody) {
            let text = "We encountered an internal error. Please try again.";
            return Reply { status: 200, ..Reply::xml_error(500, "InternalError", text) }.into();
        }
        let Some(upload) = self.uploads.remove(&target.upload) else { return no_such_upload() };
        let etag = format!("\"{}-{}\"", hex(&md5(&digests)), sizes.len());
        let answer = format!(
            "<CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag></CompleteMultipartUploadResult>",
            target.bucket,
            super::escape_xml(&target.key),
            super::escape_xml(&etag)
        );
        let object = Object { body: body.into(), etag, headers: upload.headers, parts: sizes };
        self.store(target, object, observer, Reply::xml(200, &answer))
    }
}

fn no_such_upload() -> Outcome {
    refuse(404, "NoSuchUpload", "The specified upload does not exist. It may have been aborted or completed.")
}

fn invalid_part() -> Outcome {
    refuse(400, "InvalidPart", "One or more of the specified parts could not be found or the entity tag is wrong.")
}

/// Part numbers and ETags of a `CompleteMultipartUpload` document, in its order; none if it is not one.
fn listed_parts(document: &str) -> Option<Vec<(u32, String)>> {
    fn text<'a>(part: &'a str, name: &str) -> Option<&'a str> {
        let start = part.find(&format!("<{name}>"))? + name.len() + 2;
        let end = part[start..].find(&format!("</{name}>"))? + start;
        Some(&part[start..end])
    }
    let parts: Vec<(u32, String)> = document
        .split("<Part>")
        .skip(1)
        .map(|part| {
            let etag = text(part, "ETag")?.replace("&quot;", "\"").replace("&#34;", "\"");
            Some((text(part, "PartNumber")?.trim().parse().ok()?, etag))
        })
        .collect::<Option<_>>()?;
    if parts.is_empty() { None } else { Some(parts) }
}

fn object_headers(head: &Parts) -> Result<BTreeMap<String, String>, Outcome> {
    if let Some(class) = header(head, "x-amz-storage-class")
        && !STORAGE_CLASSES.contains(&class)
    {
        return Err(refuse(400, "InvalidStorageClass", "The storage class you specified is not valid"));
    }
    let encryption = header(head, "x-amz-server-side-encryption");
    if encryption.is_some_and(|kind| kind != "AES256" && !KMS.contains(&kind)) {
        return Err(refuse(400, "InvalidArgument", "The encryption method specified is not supported"));
    }
    let key_given = head.headers.contains_key("x-amz-server-side-encryption-aws-kms-key-id");
    if key_given && !encryption.is_some_and(|kind| KMS.contains(&kind)) {
        return Err(refuse(400, "InvalidArgument", "A KMS key needs x-amz-server-side-encryption aws:kms"));
    }
    let kept = |name: &str| {
        ["content-type", "content-encoding", "x-amz-storage-class"].contains(&name)
            || name.starts_with("x-amz-meta-")
            || name.starts_with("x-amz-server-side-encryption")
    };
    let headers = head.headers.iter().filter(|(name, _)| kept(name.as_str()));
    let mut headers: BTreeMap<String, String> = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    // `aws-chunked` is framing of the transfer; it is not stored.
    if let Some(encoding) = headers.remove("content-encoding") {
        let encodings: Vec<&str> = encoding.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
        if !encodings.is_empty() {
            headers.insert("content-encoding".into(), encodings.join(","));
        }
    }
    Ok(headers)
}
