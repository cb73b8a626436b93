//! Everything at once: requests while ComfyUI's sockets are cut and it is frozen, killed and restarted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::{Comfyui, Server, abandon, color, flat, number, slow};

const REQUESTS: u32 = 500;
const AT_ONCE: u32 = 8;
const DEADLINE: Duration = Duration::from_secs(4);

/// A generator that is the same every time (Numerical Recipes' constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_in_time_and_the_server_works_after() {
    let comfyui = Comfyui::start().await;
    if comfyui.stand_in().is_none() {
        // A real one takes ten seconds to start; the same faults are in the other tests.
        return;
    }
    let deadline = DEADLINE.as_secs().to_string();
    let server = Server::ready(&comfyui, &["--invocation-timeout", &deadline]).await;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let faults = async {
        let mut dice = Dice(7);
        let stand_in = comfyui.stand_in().expect("a stand-in");
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(100 + dice.below(300))).await;
            match dice.below(8) {
                0 => {
                    comfyui.freeze();
                    tokio::time::sleep(Duration::from_millis(dice.below(800))).await;
                    comfyui.thaw();
                }
                1 => {
                    comfyui.kill();
                    tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
                    comfyui.restart().await;
                }
                _ => stand_in.cut_sockets(),
            }
        }
    };
    let requests = async {
        let workers = (0..AT_ONCE).map(|worker| {
            let (server, mut dice) = (&server, Dice(u64::from(worker) + 100));
            async move {
                let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
                for round in 0..REQUESTS / AT_ONCE + 1 {
                    let rgb = [(worker * 30) as u8, (round * 4) as u8, dice.below(250) as u8];
                    let workflow = match dice.below(3) {
                        0 => flat(number(rgb)),
                        1 => slow(number(rgb), 0.02),
                        _ => slow(number(rgb), 0.1),
                    };
                    if dice.below(10) == 0 {
                        // While ComfyUI is down it may be answered before.
                        let _ =
                            abandon(server, &slow(number(rgb), 30.0), Duration::from_millis(dice.below(200) + 1)).await;
                        *outcomes.entry("abandoned".into()).or_default() += 1;
                        continue;
                    }
                    let begun = Instant::now();
                    let answer = server.invoke(None, &workflow).await;
                    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(3), "{:?}", begun.elapsed());
                    let outcome = match answer.status.as_u16() {
                        200 => {
                            assert_eq!(color(&answer.picture()), rgb, "somebody else's picture");
                            "ok".to_owned()
                        }
                        status => {
                            let (_, code) = answer.failure();
                            assert!(matches!(status, 503 | 504), "{status} {code}: {}", answer.error());
                            code
                        }
                    };
                    *outcomes.entry(outcome).or_default() += 1;
                }
                outcomes
            }
        });
        let outcomes = futures::future::join_all(workers).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcomes
    };
    let (outcomes, ()) = tokio::join!(requests, faults);
    let mut total: BTreeMap<String, u32> = BTreeMap::new();
    for (outcome, count) in outcomes.into_iter().flatten() {
        *total.entry(outcome).or_default() += count;
    }
    assert!(total.values().sum::<u32>() >= REQUESTS, "{total:?}");
    // The faults leave most requests alone.
    assert!(total["ok"] > REQUESTS / 3, "{total:?}");
    assert!(total.contains_key("job_lost"), "no fault hit a job: {total:?}");

    assert_eq!(server.invoke(None, &flat(number([1, 2, 3]))).await.status, 200);
    assert!(crate::harness::soon(async || server.ping().await == 200).await);
    assert!(crate::harness::soon(async || comfyui.remaining().await == 0).await, "a cancelled job is still there");
    assert!(crate::harness::soon(async || comfyui.history().await == 0).await, "entries stayed");
}
