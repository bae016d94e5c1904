//! CloudWatch Logs: the five calls a log router makes, with the limits of the `PutLogEvents` reference.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Delivered, Outcome, Reply, Telling};

/// A batch, in bytes: UTF-8 of the messages and [`EVENT_OVERHEAD_BYTES`] for each.
pub const BATCH_BYTES_MAX: usize = 1_048_576;
/// Events in a batch.
pub const BATCH_EVENTS_MAX: usize = 10_000;
/// What an event costs beyond its message.
pub const EVENT_OVERHEAD_BYTES: usize = 26;
/// An event with its overhead.
pub const EVENT_BYTES_MAX: usize = 1_048_576;
const SPAN_MS_MAX: i64 = 24 * 3_600_000;
const AGE_MS_MAX: i64 = 14 * 24 * 3_600_000;
const FUTURE_MS_MAX: i64 = 2 * 3_600_000;
const DAY_MS: i64 = 24 * 3_600_000;
const RETENTIONS: [i64; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// An event as the fake keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub time_ms: i64,
    pub message: String,
}

/// A log group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub retention_days: Option<i64>,
    pub class: Option<String>,
    pub streams: BTreeMap<String, Vec<Event>>,
}

/// All groups of the account.
#[derive(Default)]
pub struct Logs {
    pub groups: BTreeMap<String, Group>,
    /// Whether events are kept, or only shown to the observer.
    pub keep: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PutLogEvents<'a> {
    #[serde(borrow)]
    log_group_name: Cow<'a, str>,
    #[serde(borrow)]
    log_stream_name: Cow<'a, str>,
    #[serde(borrow)]
    log_events: Vec<InputEvent<'a>>,
}

#[derive(Deserialize)]
struct InputEvent<'a> {
    timestamp: i64,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

fn refuse(code: &'static str, message: impl Into<String>) -> Outcome {
    Reply::json_error(400, code, &message.into()).into()
}

fn not_found(what: &str) -> Outcome {
    refuse("ResourceNotFoundException", format!("The specified log {what} does not exist."))
}

fn constraint(value: &str, at: &str, wanted: &str) -> Outcome {
    let text = format!("1 validation error detected: Value '{value}' at '{at}' failed to satisfy constraint: {wanted}");
    refuse("InvalidParameterException", text)
}

impl Logs {
    /// Carries out one call.
    pub fn call(&mut self, operation: &str, body: &[u8], now_ms: i64, observer: Option<&Telling<'_>>) -> Outcome {
        if operation == "PutLogEvents" {
            return match serde_json::from_slice::<PutLogEvents<'_>>(body) {
                Ok(request) => self.put_log_events(&request, now_ms, observer),
                Err(error) => refuse("SerializationException", error.to_string()),
            };
        }
        let Ok(request) = serde_json::from_slice::<Value>(body) else {
            return refuse("SerializationException", "not JSON");
        };
        match operation {
            "CreateLogGroup" => self.create_group(&request),
            "CreateLogStream" => self.create_stream(&request),
            "PutRetentionPolicy" => self.put_retention(&request),
            "DescribeLogGroups" => self.describe_groups(&request),
            "DescribeLogStreams" => self.describe_streams(&request),
            _ => refuse("UnknownOperationException", ""),
        }
    }

    /// Makes a group, with streams, without a call.
    pub fn seed(&mut self, group: &str, streams: &[&str]) -> &mut Group {
        let group = self.groups.entry(group.to_owned()).or_default();
        for stream in streams {
            group.streams.entry((*stream).to_owned()).or_default();
        }
        group
    }

    fn create_group(&mut self, request: &Value) -> Outcome {
        let name = match group_name(request) {
            Ok(name) => name,
            Err(refusal) => return refusal,
        };
        let class = request["logGroupClass"].as_str().map(str::to_owned);
        if let Some(class) = &class
            && !["STANDARD", "INFREQUENT_ACCESS", "DELIVERY"].contains(&class.as_str())
        {
            return constraint(class, "logGroupClass", "Member must satisfy enum value set");
        }
        if self.groups.contains_key(name) {
            return refuse("ResourceAlreadyExistsException", "The specified log group already exists");
        }
        self.groups.insert(name.to_owned(), Group { class, ..Group::default() });
        Reply::empty(200).into()
    }

    fn create_stream(&mut self, request: &Value) -> Outcome {
        let group = match group_name(request) {
            Ok(name) => name,
            Err(refusal) => return refusal,
        };
        let Some(stream) = request["logStreamName"].as_str() else {
            return refuse("SerializationException", "logStreamName");
        };
        if let Err(refusal) = check_stream_name(stream) {
            return refusal;
        }
        let Some(group) = self.groups.get_mut(group) else { return not_found("group") };
        if group.streams.contains_key(stream) {
            return refuse("ResourceAlreadyExistsException", "The specified log stream already exists");
        }
        group.streams.insert(stream.to_owned(), Vec::new());
        Reply::empty(200).into()
    }

    fn put_retention(&mut self, request: &Value) -> Outcome {
        let name = match group_name(request) {
            Ok(name) => name,
            Err(refusal) => return refusal,
        };
        let days = request["retentionInDays"].as_i64().unwrap_or_default();
        if !RETENTIONS.contains(&days) {
            return constraint(&days.to_string(), "retentionInDays", "Member must be one of the valid values");
        }
        let Some(group) = self.groups.get_mut(name) else { return not_found("group") };
        group.retention_days = Some(days);
        Reply::empty(200).into()
    }

    fn describe_groups(&self, request: &Value) -> Outcome {
        let prefix = request["logGroupNamePrefix"].as_str().unwrap_or_default();
        let groups: Vec<Value> = self
            .groups
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .take(50)
            .map(|(name, group)| {
                let mut entry = json!({"logGroupName": name, "creationTime": 1, "storedBytes": 0});
                if let Some(days) = group.retention_days {
                    entry["retentionInDays"] = days.into();
                }
                entry
            })
            .collect();
        Reply::json(200, &json!({ "logGroups": groups })).into()
    }

    fn describe_streams(&self, request: &Value) -> Outcome {
        let name = request["logGroupName"].as_str().unwrap_or_default();
        let Some(group) = self.groups.get(name) else { return not_found("group") };
        let prefix = request["logStreamNamePrefix"].as_str().unwrap_or_default();
        let streams: Vec<Value> = group
            .streams
            .keys()
            .filter(|stream| stream.starts_with(prefix))
            .take(50)
            .map(|stream| json!({"logStreamName": stream, "creationTime": 1}))
            .collect();
        Reply::json(200, &json!({ "logStreams": streams })).into()
    }

    fn put_log_events(&mut self, request: &PutLogEvents<'_>, now_ms: i64, observer: Option<&Telling<'_>>) -> Outcome {
        if let Err(refusal) = check_group_name(&request.log_group_name) {
            return refusal;
        }
        if let Err(refusal) = check_stream_name(&request.log_stream_name) {
            return refusal;
        }
        if let Err(refusal) = check_batch(&request.log_events) {
            return refusal;
        }
        let Some(group) = self.groups.get_mut(request.log_group_name.as_ref()) else { return not_found("group") };
        let retention_ms = group.retention_days.map_or(i64::MAX, |days| days * DAY_MS);
        let Some(stream) = group.streams.get_mut(request.log_stream_name.as_ref()) else { return not_found("stream") };

        // The batch is in time order, so what is refused is a head and a tail of it.
        let events = &request.log_events;
        let old_end = events.partition_point(|event| now_ms.saturating_sub(event.timestamp) > AGE_MS_MAX);
        let expired_end = events.partition_point(|event| now_ms.saturating_sub(event.timestamp) > retention_ms);
        let new_start = events.partition_point(|event| event.timestamp.saturating_sub(now_ms) <= FUTURE_MS_MAX);
        let mut rejected = serde_json::Map::new();
        if old_end > 0 {
            rejected.insert("tooOldLogEventEndIndex".into(), old_end.into());
        }
        if expired_end > 0 {
            rejected.insert("expiredLogEventEndIndex".into(), expired_end.into());
        }
        if new_start < events.len() {
            rejected.insert("tooNewLogEventStartIndex".into(), new_start.into());
        }
        let accepted = &events[old_end.max(expired_end).min(new_start)..new_start];
        for event in accepted {
            if let Some(observer) = observer {
                observer(&Delivered::Event {
                    group: &request.log_group_name,
                    stream: &request.log_stream_name,
                    time_ms: event.timestamp,
                    message: &event.message,
                });
            }
            if self.keep {
                stream.push(Event { time_ms: event.timestamp, message: event.message.clone().into_owned() });
            }
        }
        let mut answer = json!({ "nextSequenceToken": "49590302938271" });
        if !rejected.is_empty() {
            answer["rejectedLogEventsInfo"] = Value::Object(rejected);
        }
        let bytes = events.iter().map(|event| event.message.len() + EVENT_OVERHEAD_BYTES).sum();
        Outcome::accepted(Reply::json(200, &answer), accepted.len(), events.len(), bytes)
    }
}

fn check_batch(events: &[InputEvent<'_>]) -> Result<(), Outcome> {
    if events.is_empty() {
        return Err(constraint("[]", "logEvents", "Member must have length greater than or equal to 1"));
    }
    if events.len() > BATCH_EVENTS_MAX {
        return Err(constraint("[...]", "logEvents", "Member must have length less than or equal to 10000"));
    }
    let mut bytes = 0;
    for (place, event) in events.iter().enumerate() {
        if event.message.is_empty() {
            let at = format!("logEvents.{}.member.message", place + 1);
            return Err(constraint("", &at, "Member must have length greater than or equal to 1"));
        }
        if event.timestamp < 0 {
            let at = format!("logEvents.{}.member.timestamp", place + 1);
            return Err(constraint("-", &at, "Member must have value greater than or equal to 0"));
        }
        let size = event.message.len() + EVENT_OVERHEAD_BYTES;
        if size > EVENT_BYTES_MAX {
            let text = format!("Log event too large: {size} bytes exceeds limit of {EVENT_BYTES_MAX}");
            return Err(refuse("InvalidParameterException", text));
        }
        bytes += size;
    }
    if bytes > BATCH_BYTES_MAX {
        let text = format!("Upload too large: {bytes} bytes exceeds limit of {BATCH_BYTES_MAX}");
        return Err(refuse("InvalidParameterException", text));
    }
    if !events.is_sorted_by_key(|event| event.timestamp) {
        let text = "Log events in a single PutLogEvents request must be in chronological order.";
        return Err(refuse("InvalidParameterException", text));
    }
    if events[events.len() - 1].timestamp - events[0].timestamp > SPAN_MS_MAX {
        let text = "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.";
        return Err(refuse("InvalidParameterException", text));
    }
    Ok(())
}

fn group_name(request: &Value) -> Result<&str, Outcome> {
    let name = request["logGroupName"].as_str().ok_or_else(|| refuse("SerializationException", "logGroupName"))?;
    check_group_name(name).map(|()| name)
}

fn check_group_name(name: &str) -> Result<(), Outcome> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/#".contains(&byte);
    if (1..=512).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    let wanted = "Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+ and have length 1 to 512";
    Err(constraint(name, "logGroupName", wanted))
}

fn check_stream_name(name: &str) -> Result<(), Outcome> {
    if (1..=512).contains(&name.chars().count()) && !name.contains([':', '*']) {
        return Ok(());
    }
    let wanted = "Member must satisfy regular expression pattern: [^:*]* and have length 1 to 512";
    Err(constraint(name, "logStreamName", wanted))
}
