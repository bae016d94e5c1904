//! S3 over kill -9, at its two narrow moments: an object is there and nobody knows, an upload is open and nobody ends it. Under
//! other settings after the restart each record is in one object, once, and no upload is left.

use crate::fake_aws::fault::{Fault, Rule, Service};
use crate::process::{Process, Run};
use crate::sender::Mode;
use crate::stage::{BUCKET, SOON, Stage};
use crate::traffic::Seen;

/// Forward in, S3 out, a journal that keeps every block.
fn run(stage: &Stage, to: &str, settings: &[&str]) -> Process {
    let to = format!("s3://{BUCKET}/{to}");
    let journal = format!("journal.dir={}", stage.directory.path().join("journal").display());
    let fixed = ["journal.persist=always", &journal, "sink.s3.object_age_max=1s"];
    let retry = r#"sink.s3.retry={ base = "20ms", cap = "200ms", request_timeout = "2s" }"#;
    let run = Run::new(["run", "--forward", &stage.address.to_string(), "--to", &to]);
    let settings = fixed.iter().chain(settings).chain([&retry]);
    let run = settings.fold(run, |run, setting| run.with(["--set", setting]));
    stage.start(run.environment(stage.fake.environment()))
}

/// Lets the process come to its end, and expects every record in one object.
fn finish(stage: &Stage, mut process: Process) -> String {
    process.wait_until("all stored", SOON, |_| {
        stage.witness.arrived(Seen::S3) == stage.count && stage.fake.s3().open_uploads() == 0
    });
    let exit = process.terminate(SOON);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    exit.account.assert_adds_up();
    stage.assert_whole(Seen::S3, 0);
    let part = exit.account.part("s3");
    assert_eq!(part.of("received"), part.of("delivered"), "{}", exit.stderr);
    stage.assert_no_mark(&exit.stderr);
    exit.stderr
}

fn requests(stage: &Stage, operation: &str) -> u64 {
    stage.fake.statistics(Service::S3, operation).requests
}

#[test]
fn an_object_that_nobody_knew_to_be_stored_is_found_and_not_stored_again() {
    let stage = Stage::new(3_000);
    // Stored without an answer, however often it tries.
    stage.fake.misbehave(vec![Rule::new(Fault::ResetAfter).on(Service::S3).operation("PutObject")]);
    let mut process = run(&stage, "first?compression=none", &[]);
    stage.sender(Mode::Packed).ack().send(&stage.traffic, 0..stage.count).unwrap();
    process.wait_until("trying again", SOON, |_| requests(&stage, "PutObject") > 2);
    let stored = stage.witness.arrived(Seen::S3);
    assert!(stored > 0);
    process.signal("KILL");
    drop(process);
    stage.fake.misbehave(vec![]);
    let puts = stage.fake.statistics(Service::S3, "PutObject").carried_out;
    let said = finish(&stage, run(&stage, "second", &["sink.s3.object_bytes_max=16KiB"]));
    assert!(said.contains("the object is stored already"), "{said}");
    if stored == stage.count {
        assert_eq!(stage.fake.statistics(Service::S3, "PutObject").carried_out, puts, "nothing was left to store");
    }
}

#[test]
fn an_upload_that_a_killed_process_left_is_aborted_and_its_object_stored_once() {
    for fault in [Fault::Hang, Fault::ResetAfter] {
        let stage = Stage::new(30_000);
        stage.fake.misbehave(vec![
            Rule::new(fault).on(Service::S3).operation("CompleteMultipartUpload"),
            Rule::new(Fault::Hang).on(Service::S3).operation("AbortMultipartUpload"),
        ]);
        // Small records as they are fill parts of 5 MiB.
        let mut process =
            run(&stage, "first?compression=none", &["sink.s3.object_age_max=30s", "sink.s3.object_bytes_max=8MiB"]);
        stage.sender(Mode::Packed).ack().send(&stage.traffic, 0..stage.count).unwrap();
        process.wait_until("completing", SOON, |_| requests(&stage, "CompleteMultipartUpload") > 0);
        let parts = requests(&stage, "UploadPart");
        assert!(parts >= 2, "{parts}");
        process.signal("KILL");
        drop(process);
        stage.fake.misbehave(vec![]);
        finish(&stage, run(&stage, "second?compression=zstd", &[]));
        assert!(requests(&stage, "AbortMultipartUpload") > 0);
    }
}
