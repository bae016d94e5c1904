//! The S3 sink: what is stored, and what happens when a request fails.

use std::time::Duration;

use meshlens::enrich::ecs::Metadata;
use meshlens::sink::s3::lines::{DateFormat, Lines};
use meshlens::sink::s3::{self, Compression, Config};
use meshlens::sink::template::Template;
use meshlens::sink::{Context, Error};
use meshlens::telemetry::account::{Fate, Reason};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::rig::{PATIENCE, Rig, decompress, has_credentials, until};
use crate::store::{Fault, Object, Op, Store};

const MIB: usize = 1 << 20;

fn config(store: &Store) -> Config {
    let mut config = Config::new("bucket", Template::parse("logs/{tag}/year=%Y/hour=%H/").unwrap());
    config.aws.endpoint_url = Some(store.url.clone());
    config.retry.base = Duration::from_millis(1);
    config.retry.cap = Duration::from_millis(5);
    config
}

/// Runs the test in a process with credentials.
fn test<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if has_credentials(&format!("s3::{name}")) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(body());
    }
}

fn start(config: Config, context: Context) -> JoinHandle<Result<(), Error>> {
    tokio::spawn(s3::run(config, context))
}

async fn finish(sink: JoinHandle<Result<(), Error>>) {
    timeout(PATIENCE, sink).await.expect("the sink ends in time").unwrap().unwrap();
}

/// Asserts that the objects of each tag hold its lines, in order of their names.
fn assert_stored(store: &Store, rig: &Rig) {
    for (tag, sent) in &rig.sent {
        let prefix = format!("logs/{tag}/year=2024/hour=03/");
        let objects = store.objects();
        let found = objects.iter().filter(|(key, _)| key.starts_with(&prefix));
        let lines: Vec<u8> = found.flat_map(|(key, object)| decompress(key, &object.bytes)).collect();
        assert!(lines == *sent, "{tag}: {} bytes of {}", lines.len(), sent.len());
    }
}

fn only(store: &Store) -> (String, Object) {
    let mut objects = store.objects();
    assert_eq!(objects.len(), 1, "{:?}", objects.keys());
    objects.pop_first().unwrap()
}

#[test]
fn small_objects_are_put_whole_with_their_extent() {
    test("small_objects_are_put_whole_with_their_extent", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        let mut config = config(&store);
        config.storage_class = Some("STANDARD_IA".to_owned());
        config.kms_key_id = Some("key-1".to_owned());
        let sink = start(config, context);
        rig.send(&[("a", 100), ("b", 100), ("a", 100)]).await;
        rig.send(&[("a", 100)]).await;
        rig.end();
        finish(sink).await;
        assert_stored(&store, &rig);
        rig.assert_all_delivered(2);
        let objects = store.objects();
        let keys: Vec<&str> = objects.keys().map(String::as_str).collect();
        // The first record's place makes the name.
        let names = [("a", ""), ("b", "-1")];
        let names = names.map(|(tag, nth)| format!("logs/{tag}/year=2024/hour=03/i-s-0000000000000000{nth}.ndjson.gz"));
        assert_eq!(keys, names);
        let headers = &objects[&names[0]].headers;
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("x-amz-meta-meshlens-first"), Some("0"));
        assert_eq!(header("x-amz-meta-meshlens-last"), Some("1"));
        assert_eq!(header("x-amz-meta-meshlens-records"), Some("3"));
        assert_eq!(header("content-type"), Some("application/gzip"));
        assert_eq!(header("content-encoding"), None, "nobody decompresses on the way");
        assert_eq!(header("x-amz-storage-class"), Some("STANDARD_IA"));
        assert_eq!(header("x-amz-server-side-encryption"), Some("aws:kms"));
        assert_eq!(header("x-amz-server-side-encryption-aws-kms-key-id"), Some("key-1"));
        assert_eq!(header("if-none-match"), Some("*"));
        assert!(header("x-amz-checksum-crc32").is_some());
    });
}

#[test]
fn whole_keys_are_kept_and_what_is_taken_is_not_written_over() {
    test("whole_keys_are_kept_and_what_is_taken_is_not_written_over", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        let mut config = config(&store);
        config.key = Template::parse("logs/{tag}/%Y/%H.gz").unwrap();
        (config.is_whole_key, config.is_static_path) = (true, true);
        config.lines = Lines::dated("date", DateFormat::Iso8601);
        config.content_encoding = Some("gzip".to_owned());
        config.content_type = Some("text/plain".to_owned());
        config.canned_acl = Some("bucket-owner-full-control".to_owned());
        config.object_bytes_max = 1;
        let sink = start(config, context);
        for _ in 0..4 {
            rig.send(&[("a", 100)]).await;
        }
        rig.end();
        finish(sink).await;
        rig.assert_all_delivered(4);
        let objects = store.objects();
        let keys: Vec<&str> = objects.keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(keys.contains(&"logs/a/2024/03.gz") && keys.contains(&"logs/a/2024/03-r1.gz"), "{keys:?}");
        assert!(keys.iter().all(|key| key.starts_with("logs/a/2024/03") && key.ends_with(".gz")), "{keys:?}");
        let mut lines: Vec<String> = objects
            .iter()
            .flat_map(|(key, object)| {
                String::from_utf8(decompress(key, &object.bytes))
                    .unwrap()
                    .lines()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        assert!(lines.iter().all(|line| line.starts_with("{\"date\":\"2024-02-29T03:04:05.")), "{lines:?}");
        let undated: Vec<u8> = lines.iter().flat_map(|line| format!("{{{}\n", &line[38..]).into_bytes()).collect();
        assert_eq!(String::from_utf8(undated).unwrap(), String::from_utf8(rig.sent["a"].clone()).unwrap());
        let headers = &objects["logs/a/2024/03.gz"].headers;
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((header("content-type"), header("content-encoding")), (Some("text/plain"), Some("gzip")));
        assert_eq!(header("x-amz-acl"), Some("bucket-owner-full-control"));
    });
}

#[test]
fn large_objects_are_uploaded_in_parts() {
    test("large_objects_are_uploaded_in_parts", || async {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let store = Store::start().await;
            let (mut rig, context) = Rig::new(64 * MIB);
            let sink = start(Config { compression, object_bytes_max: 11 << 20, ..config(&store) }, context);
            for _ in 0..24 {
                rig.send(&[("a", MIB)]).await;
            }
            rig.end();
            finish(sink).await;
            assert_stored(&store, &rig);
            rig.assert_all_delivered(24);
            assert_eq!(store.open_uploads(), 0);
            let objects = store.objects();
            assert!(objects.len() >= 2, "{:?}", objects.keys());
            let (_, first) = objects.first_key_value().unwrap();
            assert!(first.parts.len() >= 2, "{:?}", first.parts);
            assert!(first.bytes.len() >= 11 * MIB && first.bytes.len() < 13 * MIB, "{}", first.bytes.len());
        }
    });
}

#[test]
fn what_passes_is_tried_again() {
    test("what_passes_is_tried_again", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        let sink = start(config(&store), context);
        let passing = [
            Fault::Refuse(503, "SlowDown"),
            Fault::Refuse(404, "NoSuchBucket"),
            Fault::Refuse(403, "AccessDenied"),
            Fault::Refuse(409, "ConditionalRequestConflict"),
            Fault::Refuse(400, "RequestTimeout"),
            Fault::Refuse(400, "KMS.NotFoundException"),
        ];
        passing.iter().for_each(|fault| store.fail(Op::Put, *fault));
        store.fail(Op::Create, Fault::Refuse(500, "InternalError"));
        store.fail(Op::Part, Fault::Refuse(503, "SlowDown"));
        store.fail(Op::Part, Fault::DoneButFailed);
        rig.send(&[("small", 10), ("large", 9 * MIB)]).await;
        rig.end();
        finish(sink).await;
        assert_stored(&store, &rig);
        rig.assert_all_delivered(1);
        assert_eq!(store.count(Op::Put), passing.len() + 1);
        assert_eq!((store.count(Op::Create), store.count(Op::Complete), store.open_uploads()), (2, 1, 0));
    });
}

#[test]
fn a_lost_answer_to_a_put_makes_no_second_object() {
    test("a_lost_answer_to_a_put_makes_no_second_object", || async {
        for look in [None, Some(Fault::Refuse(403, ""))] {
            let store = Store::start().await;
            let (mut rig, context) = Rig::new(64 * MIB);
            store.fail(Op::Put, Fault::DoneButFailed);
            if let Some(fault) = look {
                store.fail_always(Op::Head, fault);
            }
            let sink = start(config(&store), context);
            rig.send(&[("a", 10)]).await;
            rig.end();
            finish(sink).await;
            only(&store);
            assert_stored(&store, &rig);
            rig.assert_all_delivered(1);
            assert_eq!((store.count(Op::Put), store.count(Op::Head)), (2, 1));
        }
    });
}

#[test]
fn a_lost_answer_to_a_complete_makes_no_second_object() {
    test("a_lost_answer_to_a_complete_makes_no_second_object", || async {
        for look in [None, Some(Fault::Refuse(403, ""))] {
            // What S3 says to the second attempt: the upload is gone, or the object is there.
            for second in [None, Some(Fault::Refuse(412, "PreconditionFailed"))] {
                let store = Store::start().await;
                let (mut rig, context) = Rig::new(64 * MIB);
                store.fail(Op::Complete, Fault::DoneButFailed);
                if let Some(fault) = second {
                    store.fail(Op::Complete, fault);
                }
                if let Some(fault) = look {
                    store.fail_always(Op::Head, fault);
                }
                let sink = start(Config { compression: Compression::None, ..config(&store) }, context);
                rig.send(&[("a", MIB); 9]).await;
                rig.end();
                finish(sink).await;
                assert_eq!(only(&store).1.parts.len(), 2);
                assert_stored(&store, &rig);
                rig.assert_all_delivered(1);
                // Where the object is there, the upload may be another; to abort one that is over changes nothing.
                let aborts = usize::from(second.is_some());
                assert_eq!((store.count(Op::Complete), store.count(Op::Abort), store.open_uploads()), (2, aborts, 0));
            }
        }
    });
}

#[test]
fn anothers_object_is_left_alone() {
    test("anothers_object_is_left_alone", || async {
        let store = Store::start().await;
        let key = |tag: &str, nth: &str| format!("logs/{tag}/year=2024/hour=03/i-s-0000000000000000{nth}.ndjson.gz");
        let keys = [key("small", ""), key("large", "-1")];
        keys.iter().for_each(|key| store.plant(key));
        let (mut rig, context) = Rig::new(64 * MIB);
        let sink = start(config(&store), context);
        rig.send(&[("small", 10), ("large", 9 * MIB)]).await;
        rig.end();
        finish(sink).await;
        rig.assert_all_delivered(1);
        let objects = store.objects();
        for (key, tag) in keys.iter().zip(["small", "large"]) {
            assert_eq!(objects[key].bytes, b"another's");
            let further = key.replace(".ndjson", "-r1.ndjson");
            assert!(decompress(&further, &objects[&further].bytes) == rig.sent[tag], "{tag}");
        }
        assert_eq!((objects.len(), store.open_uploads()), (4, 0));
    });
}

#[test]
fn another_that_comes_in_between_is_left_alone_and_counted() {
    test("another_that_comes_in_between_is_left_alone_and_counted", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        // It looks as if nothing were there before the upload, and there is something when it is to be completed.
        store.plant("logs/a/year=2024/hour=03/i-s-0000000000000000.ndjson.gz");
        store.fail(Op::Head, Fault::Refuse(404, "NotFound"));
        let sink = start(config(&store), context);
        rig.send(&[("a", 9 * MIB)]).await;
        rig.end();
        finish(sink).await;
        let tally = rig.tally();
        assert_eq!((tally.lost[Reason::Refused as usize], tally.pending()), (1, 0), "{tally}");
        assert_eq!(only(&store).1.bytes, b"another's");
        assert_eq!(store.open_uploads(), 0, "aborted");
    });
}

#[test]
fn an_upload_that_another_ended_begins_anew_while_nothing_is_lost() {
    test("an_upload_that_another_ended_begins_anew_while_nothing_is_lost", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        store.fail(Op::Part, Fault::EndUpload);
        let sink = start(Config { compression: Compression::None, ..config(&store) }, context);
        for _ in 0..12 {
            rig.send(&[("a", MIB)]).await;
        }
        until("two parts are stored", || store.count(Op::Part) == 3).await;
        assert_eq!(store.count(Op::Create), 2);
        // The next one takes parts along that are held nowhere else.
        store.fail(Op::Part, Fault::EndUpload);
        rig.end();
        finish(sink).await;
        let tally = rig.tally();
        assert_eq!((tally.lost[Reason::Refused as usize], tally.delivered, tally.pending()), (12, 0, 0), "{tally}");
        assert_eq!((store.objects().len(), store.open_uploads()), (0, 0));
        assert_eq!(rig.settler.watermark(), 12);
    });
}

#[test]
fn a_store_without_conditional_writes_is_written_to_without() {
    test("a_store_without_conditional_writes_is_written_to_without", || async {
        let store = Store::start().await;
        store.fail(Op::Put, Fault::Refuse(501, "NotImplemented"));
        let (mut rig, context) = Rig::new(64 * MIB);
        let sink = start(config(&store), context);
        rig.send(&[("a", 10)]).await;
        rig.end();
        finish(sink).await;
        assert_stored(&store, &rig);
        rig.assert_all_delivered(1);
        assert!(!only(&store).1.headers.contains_key("if-none-match"));
    });
}

#[test]
fn what_is_refused_for_ever_is_counted_and_aborted() {
    test("what_is_refused_for_ever_is_counted_and_aborted", || async {
        let store = Store::start().await;
        store.fail(Op::Put, Fault::Refuse(400, "InvalidRequest"));
        store.fail(Op::Complete, Fault::Refuse(400, "InvalidPart"));
        let (mut rig, context) = Rig::new(64 * MIB);
        let sink = start(config(&store), context);
        rig.send(&[("small", 10), ("large", 9 * MIB)]).await;
        rig.end();
        finish(sink).await;
        let tally = rig.tally();
        assert_eq!((tally.of(Fate::Rejected), tally.pending()), (2, 0), "{tally}");
        assert_eq!(rig.settler.watermark(), 1);
        assert_eq!((store.objects().len(), store.open_uploads(), store.count(Op::Abort)), (0, 0, 1));
    });
}

#[test]
fn giving_up_counts_aborts_and_opens_a_new_object() {
    test("giving_up_counts_aborts_and_opens_a_new_object", || async {
        let store = Store::start().await;
        store.fail_always(Op::Part, Fault::Refuse(503, "SlowDown"));
        let mut config = config(&store);
        config.retry.give_up_after = Some(Duration::from_millis(50));
        let (mut rig, context) = Rig::new(64 * MIB);
        let ledger = rig.ledger.clone();
        let sink = start(config, context);
        // Its first part cannot be stored while the object is still open.
        rig.send(&[("a", 9 * MIB)]).await;
        until("the object is given up", || ledger.tally().of(Fate::Dropped) == 1).await;
        assert_eq!(rig.settler.watermark(), 1);
        store.heal();
        rig.sent.clear();
        rig.send(&[("a", 10)]).await;
        rig.end();
        finish(sink).await;
        assert_stored(&store, &rig);
        let tally = rig.tally();
        assert_eq!((tally.delivered, tally.lost[Reason::RetriesExhausted as usize]), (1, 1), "{tally}");
        assert_eq!((store.open_uploads(), rig.settler.watermark()), (0, 2));
    });
}

#[test]
fn memory_is_released_before_records_are_settled() {
    test("memory_is_released_before_records_are_settled", || async {
        let store = Store::start().await;
        // Room for two blocks: the third waits unless the first is released.
        let (mut rig, context) = Rig::new(100 << 10);
        let sink = start(config(&store), context);
        for _ in 0..50 {
            rig.send(&[("a", 40 << 10)]).await;
        }
        assert_eq!(rig.settler.watermark(), 0, "no object is stored yet");
        assert_eq!(rig.tally().delivered, 0);
        rig.end();
        finish(sink).await;
        assert_stored(&store, &rig);
        rig.assert_all_delivered(50);
    });
}

#[test]
fn an_object_is_stored_at_its_age() {
    test("an_object_is_stored_at_its_age", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        let sink = start(Config { object_age_max: Duration::from_millis(50), ..config(&store) }, context);
        rig.send(&[("a", 10)]).await;
        until("the object is stored", || rig.ledger.tally().delivered == 1).await;
        assert_eq!(rig.settler.watermark(), 1);
        rig.end();
        finish(sink).await;
        assert_stored(&store, &rig);
    });
}

#[test]
fn a_dead_store_stops_the_reading_and_a_shutdown_ends_it() {
    test("a_dead_store_stops_the_reading_and_a_shutdown_ends_it", || async {
        let store = Store::start().await;
        store.fail_always(Op::Put, Fault::Hang);
        store.fail_always(Op::Part, Fault::Hang);
        let (mut rig, context) = Rig::new(8 * MIB);
        let sink = start(Config { compression: Compression::None, ..config(&store) }, context);
        let sent = rig.fill("a", MIB).await;
        // What the sink may hold, what the journal may hold, and the block between them.
        assert!((16..=16 + 8 + 2).contains(&sent), "{sent} MiB");
        assert_eq!(store.count(Op::Part), 1);
        rig.deadline.send_replace(Some(Instant::now() + Duration::from_millis(300)));
        finish(sink).await;
        let tally = rig.tally();
        assert_eq!((tally.delivered, tally.pending()), (0, sent), "{tally}: what is not known stays pending");
        assert_eq!(rig.settler.watermark(), 0);
        assert_eq!((store.objects().len(), store.open_uploads()), (0, 0));
    });
}

#[test]
fn names_wait_for_metadata_that_may_come() {
    test("names_wait_for_metadata_that_may_come", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        rig.metadata.send_replace(Default::default());
        let key = Template::parse("{ecs_cluster_name}/").unwrap();
        let sink = start(Config { key, ..config(&store) }, context);
        rig.send(&[("a", 10)]).await;
        let values = [("ecs_cluster_name".to_owned(), "prod".to_owned())].into();
        rig.metadata.send_replace(Metadata { values, ..Metadata::default() }.into());
        rig.end();
        finish(sink).await;
        assert_eq!(only(&store).0, "prod/i-s-0000000000000000.ndjson.gz");
        rig.assert_all_delivered(1);
    });
}

#[test]
fn a_shutdown_stores_what_is_open_though_the_input_goes_on() {
    test("a_shutdown_stores_what_is_open_though_the_input_goes_on", || async {
        let store = Store::start().await;
        let (mut rig, context) = Rig::new(64 * MIB);
        let sink = start(config(&store), context);
        rig.send(&[("a", 10)]).await;
        rig.deadline.send_replace(Some(Instant::now() + Duration::from_secs(3)));
        finish(sink).await;
        assert_stored(&store, &rig);
        rig.assert_all_delivered(1);
    });
}
