//! Amazon Data Firehose: `PutRecordBatch`, with the limits of its reference.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fault::{Fault, Faults};
use super::{Delivered, Outcome, Reply, Telling};

/// Records in a batch.
pub const BATCH_RECORDS_MAX: usize = 500;
/// A batch, in bytes, before base64.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// A record, in bytes, before base64.
pub const RECORD_BYTES_MAX: usize = 1_024_000;

/// All delivery streams of the account, with their records when these are kept.
#[derive(Default)]
pub struct Firehose {
    pub streams: BTreeMap<String, Vec<Vec<u8>>>,
    /// Whether records are kept, or only shown to the observer.
    pub keep: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecordBatch<'a> {
    #[serde(borrow)]
    delivery_stream_name: Cow<'a, str>,
    #[serde(borrow)]
    records: Vec<InputRecord<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InputRecord<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
}

fn refuse(code: &'static str, message: impl Into<String>) -> Outcome {
    Reply::json_error(400, code, &message.into()).into()
}

fn constraint(at: &str, wanted: &str) -> Outcome {
    let text = format!("1 validation error detected: Value at '{at}' failed to satisfy constraint: {wanted}");
    refuse("ValidationException", text)
}

/// The data of each record of a request body, for a look at what would have been delivered.
pub fn decoded(body: &[u8]) -> Vec<Vec<u8>> {
    serde_json::from_slice::<PutRecordBatch<'_>>(body)
        .map(|request| request.records.iter().filter_map(|record| STANDARD.decode(record.data.as_ref()).ok()).collect())
        .unwrap_or_default()
}

impl Firehose {
    /// Carries out one call.
    pub fn call(
        &mut self,
        operation: &str,
        body: &[u8],
        fault: Option<Fault>,
        faults: &Faults,
        observer: Option<&Telling<'_>>,
    ) -> Outcome {
        if operation != "PutRecordBatch" {
            return refuse("UnknownOperationException", "");
        }
        let request = match serde_json::from_slice::<PutRecordBatch<'_>>(body) {
            Ok(request) => request,
            Err(error) => return refuse("SerializationException", error.to_string()),
        };
        let records = match check(&request) {
            Ok(records) => records,
            Err(refusal) => return refusal,
        };
        let name = request.delivery_stream_name.as_ref();
        let Some(stream) = self.streams.get_mut(name) else {
            let text = format!("Firehose {name} under account 123456789012 not found.");
            return refuse("ResourceNotFoundException", text);
        };
        let partial = if let Some(Fault::PartialFailure(percent)) = fault { percent } else { 0.0 };
        let bytes = records.iter().map(Vec::len).sum();
        let offered = records.len();
        let (mut failed, mut accepted, mut responses) = (0, 0, Vec::with_capacity(offered));
        for data in records {
            if partial > 0.0 && faults.roll(partial) {
                failed += 1;
                responses.push(json!({"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "Slow down."}));
                continue;
            }
            // Counted in lines: these are the records that the router joined.
            accepted += memchr::memchr_iter(b'\n', &data).count().max(1);
            responses.push(json!({"RecordId": format!("{accepted:056}")}));
            if let Some(observer) = observer {
                observer(&Delivered::FirehoseRecord { stream: name, data: &data });
            }
            if self.keep {
                stream.push(data);
            }
        }
        let answer = json!({"FailedPutCount": failed, "Encrypted": false, "RequestResponses": Value::Array(responses)});
        Outcome::accepted(Reply::json(200, &answer), accepted, offered, bytes)
    }
}

fn check(request: &PutRecordBatch<'_>) -> Result<Vec<Vec<u8>>, Outcome> {
    let name = request.delivery_stream_name.as_ref();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) {
        return Err(constraint("deliveryStreamName", "Member must satisfy pattern [a-zA-Z0-9_.-]+, length 1 to 64"));
    }
    if request.records.is_empty() {
        return Err(constraint("records", "Member must have length greater than or equal to 1"));
    }
    if request.records.len() > BATCH_RECORDS_MAX {
        return Err(constraint("records", "Member must have length less than or equal to 500"));
    }
    let mut records = Vec::with_capacity(request.records.len());
    let mut bytes = 0;
    for (place, record) in request.records.iter().enumerate() {
        let Ok(data) = STANDARD.decode(record.data.as_ref()) else {
            return Err(refuse("SerializationException", format!("records.{}.data is not base64", place + 1)));
        };
        if data.len() > RECORD_BYTES_MAX {
            let at = format!("records.{}.member.data", place + 1);
            return Err(constraint(&at, "Member must have length less than or equal to 1024000"));
        }
        bytes += data.len();
        records.push(data);
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(refuse("InvalidArgumentException", "Records size exceeds 4 MB limit"));
    }
    Ok(records)
}
