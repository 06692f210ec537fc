//! Random operations on the queue's real functions, compared after each with a plain reference in memory.
//!
//! `MACHINE_CASES` says how many sequences are tried, `MACHINE_SEED` which.

mod driver;
mod operation;
mod reference;
mod run;
mod seen;

use proptest::collection::vec;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use driver::Driver;
use operation::operations;

/// Operations of a sequence at most.
const LENGTH: usize = 100;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

#[test]
fn whatever_happens_the_queue_is_as_the_reference_says() {
    let seed = number("MACHINE_SEED", 1);
    let cases = u32::try_from(number("MACHINE_CASES", 25)).unwrap();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let outcome = runner.run(&vec(operations(), LENGTH / 2..=LENGTH), |sequence| {
        let done = runtime.block_on(async {
            let mut driver = Driver::new().await;
            for (i, operation) in sequence.iter().enumerate() {
                driver.step(operation).await.map_err(|e| format!("step {i}, {operation:?}: {e}"))?;
            }
            driver.finish().await
        });
        done.map_err(TestCaseError::fail)
    });
    println!("machine seed={seed} cases={cases}");
    if let Err(error) = outcome {
        panic!("seed {seed}: {error}");
    }
}
