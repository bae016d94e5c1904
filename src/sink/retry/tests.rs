use super::*;

fn retrier(config: Config, concurrency: usize) -> (Retrier, watch::Sender<Option<Instant>>) {
    let (deadline, seen) = watch::channel(None);
    (Retrier::new("test".into(), config, concurrency, seen), deadline)
}

fn config(base_ms: u64, cap_ms: u64) -> Config {
    Config { base: Duration::from_millis(base_ms), cap: Duration::from_millis(cap_ms), ..Config::default() }
}

fn failure(kind: Kind) -> Failure {
    Failure::new(kind, "test")
}

#[test]
fn the_bound_doubles_up_to_the_cap() {
    let config = config(200, 20_000);
    let bounds: Vec<u128> = (1..=9).map(|failures| backoff_bound(&config, failures).as_millis()).collect();
    assert_eq!(bounds, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000]);
    assert_eq!(backoff_bound(&config, u32::MAX).as_millis(), 20_000);
    let vast = Config { base: Duration::MAX, cap: Duration::MAX, ..config };
    assert_eq!(backoff_bound(&vast, 5), Duration::MAX);
}

#[tokio::test]
async fn a_wait_is_within_its_bound_and_not_below_what_is_asked_for() {
    let (retrier, _deadline) = retrier(config(100, 1_000), 1);
    let mut turn = retrier.turn().await;
    turn.failures = 3;
    let mut waits = Vec::new();
    for _ in 0..200 {
        let wait = turn.wait(&failure(Kind::Transient));
        assert!(wait <= Duration::from_millis(400), "{wait:?}");
        waits.push(wait);
    }
    // Full jitter: near nothing and near the bound both occur.
    assert!(
        waits.iter().min() < Some(&Duration::from_millis(100))
            && waits.iter().max() > Some(&Duration::from_millis(300))
    );
    let asked = Failure { retry_after: Some(Duration::from_secs(7)), ..failure(Kind::Throttled) };
    let wait = turn.wait(&asked);
    assert!((Duration::from_secs(7)..=Duration::from_millis(7_100)).contains(&wait), "{wait:?}");
    let absurd = Failure { retry_after: Some(Duration::from_secs(1 << 40)), ..failure(Kind::Throttled) };
    assert!(turn.wait(&absurd) <= RETRY_AFTER_MAX + Duration::from_millis(100));
}

#[tokio::test]
async fn what_can_never_succeed_is_not_tried_again() {
    let (retrier, _deadline) = retrier(Config::default(), 1);
    let mut turn = retrier.turn().await;
    for kind in [Kind::Refused, Kind::TooLarge, Kind::Exists, Kind::AlreadyAccepted] {
        assert_eq!(turn.pause(&failure(kind)).await, Err(End::Refused));
    }
}

#[tokio::test]
async fn a_budget_ends_the_attempts_but_not_those_of_a_free_turn() {
    let budget = Config { give_up_after: Some(Duration::from_millis(20)), ..config(1, 2) };
    let (retrier, _deadline) = retrier(budget, 1);
    let begun = Instant::now();
    let mut turn = retrier.turn().await;
    let end = loop {
        if let Err(end) = turn.pause(&failure(Kind::Transient)).await {
            break end;
        }
    };
    assert_eq!(end, End::Exhausted);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    let mut free = retrier.free_turn();
    free.begun = begun;
    assert_eq!(free.pause(&failure(Kind::Transient)).await, Ok(()));
    turn.restart();
    assert_eq!(turn.pause(&failure(Kind::Transient)).await, Ok(()));
}

#[tokio::test]
async fn an_attempt_has_a_time_limit() {
    let limit = Config { request_timeout: Duration::from_millis(5), ..config(1, 1) };
    let (retrier, _deadline) = retrier(limit, 1);
    let mut turn = retrier.turn().await;
    let outcome = turn.attempt(std::future::pending::<Result<(), Failure>>()).await;
    assert_eq!(outcome.map_err(|failure| failure.kind), Err(Kind::Transient));
}

#[tokio::test]
async fn a_shutdown_cuts_a_long_sleep_and_then_ends_it() {
    let (retrier, deadline) = retrier(config(600_000, 600_000), 1);
    let mut turn = retrier.turn().await;
    let begun = std::time::Instant::now();
    let sleeping = tokio::spawn(async move { (turn.pause(&failure(Kind::Transient)).await, turn) });
    tokio::task::yield_now().await;
    deadline.send(Some(Instant::now() + Duration::from_secs(60))).unwrap();
    let (cut, mut turn) = sleeping.await.unwrap();
    assert_eq!(cut, Ok(()));
    // One more attempt at the end of that second, not at the end of ten minutes; generous for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(30));
    deadline.send(Some(Instant::now() + Duration::from_millis(10))).unwrap();
    assert_eq!(turn.pause(&failure(Kind::Transient)).await, Err(End::Shutdown));
    let attempt = turn.attempt(std::future::pending::<Result<(), Failure>>()).await;
    assert!(attempt.is_err());
}

#[tokio::test]
async fn throttling_halves_what_is_in_flight_and_success_brings_it_back() {
    let (retrier, _deadline) = retrier(config(0, 0), 8);
    let mut turns = Vec::new();
    for _ in 0..8 {
        let mut turn = retrier.turn().await;
        assert!(turn.attempt(async { Err::<(), _>(failure(Kind::Throttled)) }).await.is_err());
        turns.push(turn);
    }
    // Eight requests under way together are throttled together: that is one halving.
    for turn in &mut turns {
        turn.pause(&failure(Kind::Throttled)).await.unwrap();
    }
    assert_eq!(retrier.allowed(), 4);
    let mut turn = turns.pop().unwrap();
    for expected in [2, 1, 1] {
        assert!(turn.attempt(async { Err::<(), _>(failure(Kind::Throttled)) }).await.is_err());
        turn.pause(&failure(Kind::Throttled)).await.unwrap();
        assert_eq!(retrier.allowed(), expected);
    }
    drop((turn, turns));
    // One place: a second turn waits for the first.
    let mut first = retrier.turn().await;
    let second = retrier.turn();
    tokio::pin!(second);
    assert!(futures_now(second.as_mut()).await.is_none());
    let mut successes = 0;
    while retrier.allowed() < 8 {
        first.attempt(async { Ok(()) }).await.unwrap();
        successes += 1;
        assert!(successes < 100);
    }
    // About one more each round of `allowed` successes: 1 + 2 + … + 7.
    assert!((20..=36).contains(&successes), "{successes}");
    second.await;
}

/// What a future is ready with now, if anything.
async fn futures_now<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn never_more_than_its_width_pass_the_gate_and_all_pass_in_the_end() {
    let (retrier, _deadline) = retrier(config(0, 0), 3);
    let inside = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let (retrier, inside) = (retrier.clone(), inside.clone());
        tasks.spawn(async move {
            let _turn = retrier.turn().await;
            let now = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            now
        });
    }
    let most = tasks.join_all().await.into_iter().max();
    assert_eq!(most, Some(3));
}

#[tokio::test]
async fn a_place_is_kept_through_the_sleep() {
    let (retrier, _deadline) = retrier(config(600_000, 600_000), 1);
    let mut turn = retrier.turn().await;
    let sleeping = tokio::spawn(async move { turn.pause(&failure(Kind::Transient)).await });
    tokio::task::yield_now().await;
    let second = retrier.turn();
    tokio::pin!(second);
    for _ in 0..100 {
        assert!(futures_now(second.as_mut()).await.is_none(), "the only place is taken by one that sleeps");
        tokio::task::yield_now().await;
    }
    sleeping.abort();
    second.await;
}

#[tokio::test]
async fn a_long_sleep_ends_soon_after_others_succeed() {
    let (retrier, _deadline) = retrier(config(600_000, 600_000), 3);
    let mut asleep = retrier.turn().await;
    let mut denied = retrier.turn().await;
    let begun = std::time::Instant::now();
    let sleeping = tokio::spawn(async move { asleep.pause(&failure(Kind::Transient)).await });
    let waiting = tokio::spawn(async move { denied.pause(&failure(Kind::Credentials)).await });
    let mut other = retrier.turn().await;
    while !sleeping.is_finished() {
        other.attempt(async { Ok(()) }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(sleeping.await.unwrap(), Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(60));
    // What is denied to one target is not allowed by another's success.
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn a_denied_target_lends_a_turn_while_it_sleeps() {
    let (retrier, deadline) = retrier(config(600_000, 600_000), 2);
    let mut lanes = Lanes::default();
    let mut sleeping = Vec::new();
    let mut turns = vec![retrier.turn().await, retrier.turn().await];
    turns.iter_mut().for_each(|turn| turn.enter(lanes.get(7)));
    while let Some(mut turn) = turns.pop() {
        sleeping.push(tokio::spawn(async move { (turn.pause(&failure(Kind::Credentials)).await, turn) }));
        tokio::task::yield_now().await;
    }
    // Both are denied and asleep; one of the two places is free, for others.
    let mut other = retrier.turn().await;
    assert!(!lanes.may_begin(7, retrier.allowed()) && lanes.may_begin(8, retrier.allowed()));
    let third = retrier.turn();
    tokio::pin!(third);
    assert!(futures_now(third.as_mut()).await.is_none(), "only one is lent");
    other.enter(lanes.get(8));
    other.attempt(async { Ok(()) }).await.unwrap();
    drop(other);
    // The shutdown wakes them: each has its place again.
    deadline.send(Some(Instant::now() + Duration::from_secs(600))).unwrap();
    for sleeping in sleeping {
        let (slept, mut turn) = sleeping.await.unwrap();
        assert_eq!(slept, Ok(()));
        assert!(turn.permit.is_some());
        turn.attempt(async { Ok(()) }).await.unwrap();
    }
    assert!(lanes.may_begin(7, retrier.allowed()), "what takes requests again has all turns");
}
