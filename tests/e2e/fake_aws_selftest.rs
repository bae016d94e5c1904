//! The fake against the AWS SDK: what a right client does is taken, what breaks a limit is refused by its right name.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_cloudwatchlogs::error::ProvideErrorMetadata;
use aws_sdk_cloudwatchlogs::types::InputLogEvent;
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::Record;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};

use crate::fake_aws::fault::{Fault, Rule, Service};
use crate::fake_aws::{FakeAws, Options};

struct Clients {
    logs: aws_sdk_cloudwatchlogs::Client,
    firehose: aws_sdk_firehose::Client,
    s3: aws_sdk_s3::Client,
}

async fn clients(fake: &FakeAws, secret: Option<&str>) -> Clients {
    let environment = fake.environment();
    let value =
        |name: &str| environment.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone()).unwrap();
    let secret = secret.map_or_else(|| value("AWS_SECRET_ACCESS_KEY"), str::to_owned);
    let token = Some(value("AWS_SESSION_TOKEN"));
    let credentials = aws_sdk_s3::config::Credentials::new(value("AWS_ACCESS_KEY_ID"), secret, token, None, "test");
    let config = aws_config::defaults(BehaviorVersion::latest())
        .credentials_provider(credentials)
        .region(Region::new(value("AWS_REGION")))
        .endpoint_url(fake.url())
        .retry_config(RetryConfig::disabled())
        .load()
        .await;
    Clients {
        logs: aws_sdk_cloudwatchlogs::Client::new(&config),
        firehose: aws_sdk_firehose::Client::new(&config),
        s3: aws_sdk_s3::Client::new(&config),
    }
}

fn run<F: Future<Output = ()>>(test: impl FnOnce(FakeAws) -> F) {
    let fake = FakeAws::start(Options { seed: 7, ..Options::default() });
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(fake));
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn event(time_ms: i64, message: &str) -> InputLogEvent {
    InputLogEvent::builder().timestamp(time_ms).message(message).build().unwrap()
}

fn code<T: std::fmt::Debug, E: ProvideErrorMetadata, R>(
    result: Result<T, aws_sdk_s3::error::SdkError<E, R>>,
) -> String {
    match result.unwrap_err() {
        aws_sdk_s3::error::SdkError::ServiceError(error) => error.err().code().unwrap_or("none").to_owned(),
        _ => "no answer".into(),
    }
}

async fn put(client: &Clients, group: &str, events: Vec<InputLogEvent>) -> Result<Option<Vec<Option<i32>>>, String> {
    let call = client.logs.put_log_events().log_group_name(group).log_stream_name("s").set_log_events(Some(events));
    match call.send().await {
        Ok(answer) => Ok(answer.rejected_log_events_info().map(|info| {
            vec![info.too_old_log_event_end_index, info.expired_log_event_end_index, info.too_new_log_event_start_index]
        })),
        Err(error) => Err(code::<(), _, _>(Err(error))),
    }
}

#[test]
fn logs_takes_what_is_right_and_names_what_is_not() {
    run(|fake| async move {
        let client = clients(&fake, None).await;
        let now = now_ms();
        let refused = |name: &str| Err(name.to_owned());
        assert_eq!(put(&client, "g", vec![event(now, "a")]).await, refused("ResourceNotFoundException"));
        client.logs.create_log_group().log_group_name("g").send().await.unwrap();
        assert_eq!(put(&client, "g", vec![event(now, "a")]).await, refused("ResourceNotFoundException"));
        client.logs.create_log_stream().log_group_name("g").log_stream_name("s").send().await.unwrap();
        let again = client.logs.create_log_stream().log_group_name("g").log_stream_name("s").send().await;
        assert_eq!(code(again), "ResourceAlreadyExistsException");

        assert_eq!(put(&client, "g", vec![event(now, "a"), event(now, "é")]).await, Ok(None));
        assert_eq!(put(&client, "g", vec![]).await, refused("InvalidParameterException"));
        assert_eq!(put(&client, "g", vec![event(now, "")]).await, refused("InvalidParameterException"));
        assert_eq!(
            put(&client, "g", vec![event(now, "b"), event(now - 1, "a")]).await,
            refused("InvalidParameterException")
        );
        let day = 24 * 3_600_000;
        assert_eq!(put(&client, "g", vec![event(now - day, "a"), event(now, "b")]).await, Ok(None));
        let span = vec![event(now - day - 1, "a"), event(now, "b")];
        assert_eq!(put(&client, "g", span).await, refused("InvalidParameterException"));

        // Exactly the limit in bytes, then one more; then the same for events and for one event.
        let at_limit = |more: usize| {
            vec![event(now, &"x".repeat(262_144)), event(now, &"é".repeat(262_131)), event(now, &"y".repeat(1 + more))]
        };
        let sum: usize = at_limit(0).iter().map(|event| event.message.len() + 26).sum();
        let fill = 1_048_576 - sum;
        assert_eq!(put(&client, "g", at_limit(fill)).await, Ok(None));
        assert_eq!(put(&client, "g", at_limit(fill + 1)).await, refused("InvalidParameterException"));
        assert_eq!(put(&client, "g", vec![event(now, "z"); 10_000]).await, Ok(None));
        assert_eq!(put(&client, "g", vec![event(now, "z"); 10_001]).await, refused("InvalidParameterException"));
        assert_eq!(put(&client, "g", vec![event(now, &"x".repeat(1_048_550))]).await, Ok(None));
        assert_eq!(
            put(&client, "g", vec![event(now, &"x".repeat(1_048_551))]).await,
            refused("InvalidParameterException")
        );

        let old = now - 15 * day;
        assert_eq!(
            put(&client, "g", vec![event(old, "a"), event(old, "b")]).await,
            Ok(Some(vec![Some(2), None, None]))
        );
        let edge = now - 14 * day;
        let events = vec![event(edge - 60_000, "a"), event(edge + 60_000, "b")];
        assert_eq!(put(&client, "g", events).await, Ok(Some(vec![Some(1), None, None])));
        let events = vec![event(now, "a"), event(now + 7_260_000, "b"), event(now + 7_260_000, "c")];
        assert_eq!(put(&client, "g", events).await, Ok(Some(vec![None, None, Some(1)])));
        client.logs.put_retention_policy().log_group_name("g").retention_in_days(1).send().await.unwrap();
        let events = vec![event(now - day - 60_000, "a"), event(now - 60_001, "b")];
        assert_eq!(put(&client, "g", events).await, Ok(Some(vec![None, Some(1), None])));
        let bad = client.logs.put_retention_policy().log_group_name("g").retention_in_days(2).send().await;
        assert_eq!(code(bad), "InvalidParameterException");
        let bad = client.logs.create_log_stream().log_group_name("g").log_stream_name("a:b").send().await;
        assert_eq!(code(bad), "InvalidParameterException");
        let bad = client.logs.create_log_group().log_group_name("a b").send().await;
        assert_eq!(code(bad), "InvalidParameterException");

        let kept = fake.logs().groups["g"].streams["s"].len();
        assert_eq!(kept as u64, fake.statistics(Service::Logs, "PutLogEvents").records);
        assert_eq!(kept, 2 + 2 + 3 + 10_000 + 1 + 1 + 1 + 1);
    });
}

#[test]
fn firehose_takes_what_is_right_and_names_what_is_not() {
    run(|fake| async move {
        let client = clients(&fake, None).await;
        fake.seed_firehose("f");
        let put = async |stream: &str, sizes: &[usize]| {
            let records =
                sizes.iter().map(|size| Record::builder().data(Blob::new(vec![b'x'; *size])).build().unwrap());
            let call = client.firehose.put_record_batch().delivery_stream_name(stream);
            match call.set_records(Some(records.collect())).send().await {
                Ok(answer) => Ok(answer.failed_put_count()),
                Err(error) => Err(code::<(), _, _>(Err(error))),
            }
        };
        assert_eq!(put("f", &[1; 500]).await, Ok(0));
        assert_eq!(put("f", &[1; 501]).await, Err("ValidationException".into()));
        assert_eq!(put("f", &[]).await, Err("ValidationException".into()));
        assert_eq!(put("none", &[1]).await, Err("ResourceNotFoundException".into()));
        assert_eq!(put("f", &[1_024_000]).await, Ok(0));
        assert_eq!(put("f", &[1_024_001]).await, Err("ValidationException".into()));
        assert_eq!(put("f", &[1_000_000, 1_000_000, 1_000_000, 1_000_000, 194_304]).await, Ok(0));
        assert_eq!(
            put("f", &[1_000_000, 1_000_000, 1_000_000, 1_000_000, 194_305]).await,
            Err("InvalidArgumentException".into())
        );
        let before = fake.firehose().streams["f"].len();
        fake.misbehave(vec![Rule::new(Fault::PartialFailure(50.0))]);
        let failed = put("f", &[1; 200]).await.unwrap();
        assert!((60..140).contains(&failed), "{failed} of 200");
        assert_eq!(fake.firehose().streams["f"].len() - before, 200 - failed as usize);
    });
}

#[test]
fn s3_takes_what_is_right_and_names_what_is_not() {
    run(|fake| async move {
        let client = clients(&fake, None).await;
        fake.seed_bucket("b");
        let key = "p/year=2026/a b+ü.gz";
        let object = |bucket: &str| client.s3.put_object().bucket(bucket).key(key).if_none_match("*");
        assert_eq!(code(object("no").send().await), "NoSuchBucket");
        object("b").body(ByteStream::from_static(b"one")).metadata("first", "1").send().await.unwrap();
        assert_eq!(code(object("b").send().await), "PreconditionFailed");
        assert_eq!(fake.s3().buckets["b"][key].body, "one");
        assert_eq!(fake.s3().buckets["b"][key].headers["x-amz-meta-first"], "1");
        for algorithm in [
            ChecksumAlgorithm::Crc32C,
            ChecksumAlgorithm::Crc64Nvme,
            ChecksumAlgorithm::Sha1,
            ChecksumAlgorithm::Sha256,
        ] {
            let call = client.s3.put_object().bucket("b").key("sum").checksum_algorithm(algorithm);
            call.body(ByteStream::from_static(b"checked")).send().await.unwrap();
        }
        let wrong = || client.s3.put_object().bucket("b").key("wrong").body(ByteStream::from_static(b"x"));
        assert_eq!(code(wrong().checksum_crc32("AAAAAA==").send().await), "BadDigest");
        assert_eq!(code(wrong().content_md5("AAAAAAAAAAAAAAAAAAAAAA==").send().await), "BadDigest");
        assert!(!fake.s3().buckets["b"].contains_key("wrong"));

        let head = client.s3.head_object().bucket("b").key(key).send().await.unwrap();
        assert_eq!(head.content_length(), Some(3));
        assert!(
            client
                .s3
                .head_object()
                .bucket("b")
                .key("none")
                .send()
                .await
                .unwrap_err()
                .into_service_error()
                .is_not_found()
        );

        assert_eq!(multipart(&client, "small", &[5_242_879, 1]).await, Err("EntityTooSmall".into()));
        assert_eq!(fake.s3().open_uploads(), 1);
        assert_eq!(multipart(&client, "large", &[5_242_880, 5_242_880, 1]).await, Ok(()));
        assert_eq!(fake.s3().buckets["b"]["large"].parts, [5_242_880, 5_242_880, 1]);
        assert_eq!(multipart(&client, "large", &[1]).await, Err("PreconditionFailed".into()));
        fake.misbehave(vec![Rule::new(Fault::ErrorInBody)]);
        assert_eq!(multipart(&client, "in-body", &[1]).await, Err("InternalError".into()));
        assert!(!fake.s3().buckets["b"].contains_key("in-body"));
    });
}

async fn multipart(client: &Clients, key: &str, sizes: &[usize]) -> Result<(), String> {
    let upload = client.s3.create_multipart_upload().bucket("b").key(key).checksum_algorithm(ChecksumAlgorithm::Crc32);
    let upload = upload.send().await.unwrap();
    let id = upload.upload_id().unwrap();
    let mut parts = Vec::new();
    for (place, size) in sizes.iter().enumerate() {
        let number = place as i32 + 1;
        let call = client.s3.upload_part().bucket("b").key(key).upload_id(id).part_number(number);
        let call = call.checksum_algorithm(ChecksumAlgorithm::Crc32).body(ByteStream::from(vec![b'x'; *size]));
        let part = call.send().await.unwrap();
        parts.push(CompletedPart::builder().part_number(number).e_tag(part.e_tag().unwrap()).build());
    }
    let list = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let call = client.s3.complete_multipart_upload().bucket("b").key(key).upload_id(id).if_none_match("*");
    match call.multipart_upload(list).send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(code::<(), _, _>(Err(error))),
    }
}

#[test]
fn a_wrong_secret_is_refused_by_each_service() {
    run(|fake| async move {
        let client = clients(&fake, Some("wrong")).await;
        fake.seed_bucket("b");
        fake.seed_firehose("f");
        assert_eq!(code(client.logs.create_log_group().log_group_name("g").send().await), "InvalidSignatureException");
        let record = Record::builder().data(Blob::new("x")).build().unwrap();
        let put = client.firehose.put_record_batch().delivery_stream_name("f").records(record);
        assert_eq!(code(put.send().await), "InvalidSignatureException");
        assert_eq!(code(client.s3.put_object().bucket("b").key("k").send().await), "SignatureDoesNotMatch");
        assert!(fake.s3().buckets["b"].is_empty());
    });
}

#[test]
fn faults_are_what_they_are_called() {
    run(|mut fake| async move {
        let client = clients(&fake, None).await;
        let call = async || client.logs.create_log_group().log_group_name("g").send().await;
        fake.misbehave(vec![Rule::new(Fault::Throttle).on(Service::Logs)]);
        assert_eq!(code(call().await), "ThrottlingException");
        fake.misbehave(vec![Rule::new(Fault::ExpiredToken).times(1)]);
        assert_eq!(code(call().await), "ExpiredTokenException");
        fake.misbehave(vec![Rule::new(Fault::ResetBefore)]);
        assert_eq!(code(call().await), "no answer");
        assert!(fake.logs().groups.is_empty());
        fake.misbehave(vec![Rule::new(Fault::Hang)]);
        tokio::time::timeout(Duration::from_millis(200), call()).await.unwrap_err();
        assert!(fake.logs().groups.is_empty());
        fake.misbehave(vec![Rule::new(Fault::ResetAfter).operation("CreateLogGroup")]);
        assert_eq!(code(call().await), "no answer");
        assert!(fake.logs().groups.contains_key("g"));
        fake.misbehave(vec![]);
        assert_eq!(code(call().await), "ResourceAlreadyExistsException");
        std::thread::scope(|scope| scope.spawn(|| fake.close()).join().unwrap());
        assert_eq!(code(call().await), "no answer");
        std::thread::scope(|scope| scope.spawn(|| fake.reopen()).join().unwrap());
        assert_eq!(code(call().await), "ResourceAlreadyExistsException");
    });
}

#[test]
fn an_answer_that_was_not_read_is_known() {
    run(|fake| async move {
        let client = clients(&fake, None).await;
        fake.logs().seed("g", &["s"]);
        fake.misbehave(vec![Rule::new(Fault::HangAfter).times(1)]);
        let events = || vec![event(now_ms(), "a")];
        tokio::time::timeout(Duration::from_millis(300), put(&client, "g", events())).await.unwrap_err();
        assert_eq!(fake.logs().groups["g"].streams["s"].len(), 1);
        assert_eq!(fake.answered(0), None);
        assert_eq!(fake.statistics(Service::Logs, "PutLogEvents").unanswered_records, 1);
        // Given up while the fake takes its time: nothing is done, or what is done is known as unanswered.
        fake.misbehave(vec![Rule::new(Fault::Delay(Duration::from_millis(400)))]);
        tokio::time::timeout(Duration::from_millis(100), put(&client, "g", events())).await.unwrap_err();
        fake.misbehave(vec![]);
        put(&client, "g", events()).await.unwrap();
        assert!(fake.answered(2).is_some());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(fake.answered(1), None);
    });
}

#[test]
fn an_answer_left_in_the_socket_is_taken_back() {
    use std::io::Read as _;
    let fake = FakeAws::start(Options::default());
    let address = fake.url().trim_start_matches("http://").to_owned();
    let until = |is_so: &dyn Fn() -> bool| {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(std::time::Instant::now() < end, "it did not come to that");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for (request, is_read) in [(0, true), (1, false)] {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET /bucket/key HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        until(&|| fake.answered(request).is_some());
        let mut answer = [0; 4096];
        if is_read {
            assert!(stream.read(&mut answer).unwrap() > 0);
        } else {
            // It is here; it is only not read.
            assert!(stream.peek(&mut answer).unwrap() > 0);
        }
        drop(stream);
        until(&|| fake.connections() == 0);
        assert_eq!(fake.answered(request).is_some(), is_read);
    }
}

#[test]
fn credentials_of_a_task_expire_and_are_renewed() {
    run(|fake| async move {
        let old = clients(&fake, None).await;
        fake.logs().seed("g", &["s"]);
        let events = || vec![event(now_ms(), "a")];
        assert_eq!(put(&old, "g", events()).await, Ok(None));
        fake.expire_credentials();
        assert_eq!(put(&old, "g", events()).await, Err("ExpiredTokenException".into()));
        assert_eq!(put(&clients(&fake, None).await, "g", events()).await, Err("ExpiredTokenException".into()));
        fake.renew_credentials();
        assert_eq!(put(&old, "g", events()).await, Err("ExpiredTokenException".into()));
        assert_eq!(put(&clients(&fake, None).await, "g", events()).await, Ok(None));
        let environment = fake.environment_of_task();
        let (_, uri) = environment.iter().find(|(name, _)| name == "AWS_CONTAINER_CREDENTIALS_FULL_URI").unwrap();
        assert!(uri.starts_with(&fake.url()));
        assert!(!environment.iter().any(|(name, _)| name.contains("KEY")), "{environment:?}");
    });
}

#[test]
fn open_uploads_are_listed() {
    run(|fake| async move {
        let client = clients(&fake, None).await;
        fake.seed_bucket("b");
        for key in ["logs/a&b", "logs/c", "other/d"] {
            client.s3.create_multipart_upload().bucket("b").key(key).send().await.unwrap();
        }
        let listed = client.s3.list_multipart_uploads().bucket("b").prefix("logs/").send().await.unwrap();
        let keys: Vec<&str> = listed.uploads().iter().filter_map(|upload| upload.key()).collect();
        assert_eq!(keys, ["logs/a&b", "logs/c"]);
        for upload in listed.uploads() {
            let abort = client.s3.abort_multipart_upload().bucket("b").set_key(upload.key.clone());
            abort.set_upload_id(upload.upload_id.clone()).send().await.unwrap();
        }
        assert_eq!(fake.s3().open_uploads(), 1);
    });
}

#[test]
fn marks_are_found_wherever_they_hide() {
    let fake = FakeAws::start(Options { marks: vec!["SECRETMARK".into()], ..Options::default() });
    fake.seed_firehose("f");
    fake.seed_bucket("b");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = clients(&fake, None).await;
        client.s3.put_object().bucket("b").key("clean").send().await.unwrap();
        assert!(fake.leaks().is_empty());
        let record = Record::builder().data(Blob::new("aSECRETMARKb")).build().unwrap();
        client.firehose.put_record_batch().delivery_stream_name("f").records(record).send().await.unwrap();
        assert_eq!(fake.leaks(), ["SECRETMARK in PutRecordBatch"]);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(b"..SECRETMARK..").unwrap();
        let packed = packed.finish().unwrap();
        client.s3.put_object().bucket("b").key("packed").body(packed.into()).send().await.unwrap();
        assert_eq!(fake.leaks().len(), 2);
        client.s3.put_object().bucket("b").key("SECRETMARK").send().await.unwrap();
        assert_eq!(fake.leaks().len(), 3);
    });
}
