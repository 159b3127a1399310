//! Taking turns, and medians.

use std::time::Duration;

use anyhow::Result;

/// The medians of two ways to do the same.
pub(crate) struct Pair {
    pub(crate) ours: Duration,
    pub(crate) theirs: Duration,
    /// Measurements of each.
    pub(crate) rounds: usize,
}

impl Pair {
    /// Ours as a multiple of theirs.
    pub(crate) fn ratio(&self) -> f64 {
        self.ours.as_secs_f64() / self.theirs.as_secs_f64()
    }
}

/// Measures both in turns, after a first turn that only fills the host's caches.
pub(crate) fn in_turns(
    rounds: usize,
    mut ours: impl FnMut() -> Result<Duration>,
    mut theirs: impl FnMut() -> Result<Duration>,
) -> Result<Pair> {
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (our_time, their_time) = (ours()?, theirs()?);
        if round > 0 {
            our_times.push(our_time);
            their_times.push(their_time);
        }
    }
    Ok(Pair { ours: median(our_times), theirs: median(their_times), rounds })
}

/// The middle one; of an even number, the upper of the two in the middle.
pub(crate) fn median<T: Ord>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    let middle = values.len() / 2;
    values.swap_remove(middle)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn turns_alternate_and_the_first_is_not_counted() {
        let order = RefCell::new(String::new());
        let mut times = [90, 1, 3, 2].into_iter().map(Duration::from_secs);
        let ours = || {
            order.borrow_mut().push('A');
            Ok(times.next().unwrap())
        };
        let theirs = || {
            order.borrow_mut().push('B');
            Ok(Duration::from_secs(4))
        };
        let pair = in_turns(3, ours, theirs).unwrap();
        assert_eq!(order.into_inner(), "ABABABAB");
        assert_eq!((pair.ours, pair.theirs), (Duration::from_secs(2), Duration::from_secs(4)));
        assert!((pair.ratio() - 0.5).abs() < f64::EPSILON);
    }
}
