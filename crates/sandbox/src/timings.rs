//! Where the time of a run goes, stage by stage (`run --timings`).

use std::time::{Duration, Instant};

use serde::Serialize;

/// Marks on one time line, in order.
#[derive(Debug, Clone)]
pub struct Timings {
    start: Instant,
    stages: Vec<Stage>,
}

/// One finished stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// What was done.
    pub name: &'static str,
    /// When it was done, microseconds since the start of the run.
    pub at_us: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
}

impl Timings {
    /// A time line that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), stages: Vec::new() }
    }

    /// The stage of this name ended now; it began where the one before it ended.
    pub fn mark(&mut self, name: &'static str) {
        let at = self.start.elapsed();
        let before = self.stages.last().map_or(0, |stage| stage.at_us);
        let at_us = micros(at);
        self.stages.push(Stage { name, at_us, took_us: at_us - before });
    }

    /// The stages so far.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_without_gaps() {
        let mut timings = Timings::start();
        timings.mark("one");
        std::thread::sleep(Duration::from_millis(2));
        timings.mark("two");
        let [one, two] = timings.stages() else { panic!("two stages") };
        assert_eq!(two.at_us, one.at_us + two.took_us);
        assert!(two.took_us >= 2000);
    }
}
