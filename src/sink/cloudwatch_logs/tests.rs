use super::*;
use crate::sink::driver::testing::Rig;

fn config() -> Config {
    Config::new(Template::parse("group").unwrap(), Template::parse("stream").unwrap())
}

fn rejected(too_old: Option<i32>, expired: Option<i32>, too_new: Option<i32>) -> RejectedLogEventsInfo {
    RejectedLogEventsInfo::builder()
        .set_too_old_log_event_end_index(too_old)
        .set_expired_log_event_end_index(expired)
        .set_too_new_log_event_start_index(too_new)
        .build()
}

#[test]
fn every_rejected_event_counts_once() {
    for ((too_old, expired, too_new), (old, gone, new, delivered)) in [
        ((None, None, None), (0, 0, 0, 10)),
        ((Some(0), Some(0), Some(10)), (0, 0, 0, 10)),
        ((Some(3), None, None), (3, 0, 0, 7)),
        ((None, Some(3), None), (0, 3, 0, 7)),
        ((None, None, Some(8)), (0, 0, 2, 8)),
        ((None, None, Some(0)), (0, 0, 10, 0)),
        ((Some(2), Some(5), Some(9)), (2, 3, 1, 4)),
        ((Some(5), Some(2), Some(9)), (5, 0, 1, 4)),
        ((Some(10), Some(10), None), (10, 0, 0, 0)),
        // What makes no sense must not count an event twice, or one that is not there.
        ((Some(4), None, Some(2)), (4, 0, 6, 0)),
        ((Some(99), Some(-1), Some(99)), (10, 0, 0, 0)),
        ((Some(-5), None, Some(-1)), (0, 0, 10, 0)),
    ] {
        let verdict = Verdict::new(10, Some(&rejected(too_old, expired, too_new)));
        let lost = verdict.rejected.clone().map(|(_, events)| events.len());
        assert_eq!((lost, verdict.taken.len()), ([old, gone, new], delivered), "{too_old:?} {expired:?} {too_new:?}");
        // They are parts of one range, in order.
        let [(_, old), (_, gone), (_, new)] = verdict.rejected;
        let borders = [0, old.end, gone.end, verdict.taken.end, 10];
        assert_eq!(borders, [old.start, gone.start, verdict.taken.start, new.start, new.end]);
    }
    assert_eq!(Verdict::new(10, None).taken, 0..10);
}

#[tokio::test]
async fn names_wait_for_metadata_no_longer_than_needed() {
    let (rig, ctx) = Rig::new();
    let never = Instant::now() + Duration::from_secs(3_600);
    let wait = |until| wait_for_names(Arc::new(config()), ctx.metadata.clone(), ctx.deadline.clone(), until);
    // Nothing is named that could be waited for.
    wait(never).await;
    rig.deadline.send(Some(never)).unwrap();
    wait(never).await;
    drop(rig);
    wait(never).await;
}
