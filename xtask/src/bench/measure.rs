//! Taking turns, and medians.

use std::time::Duration;

use anyhow::Result;

/// One way to do something; gives how long it took.
pub(crate) type Way<'a> = &'a mut dyn FnMut() -> Result<Duration>;

/// The medians of two ways to do the same.
#[derive(Debug, Clone, Copy)]
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
    let [ours, theirs] = medians(rounds, [&mut ours, &mut theirs])?;
    Ok(Pair { ours, theirs, rounds })
}

/// Measures all ways in turns, after a first turn that only fills the host's caches; their medians.
pub(crate) fn medians<const N: usize>(rounds: usize, mut ways: [Way<'_>; N]) -> Result<[Duration; N]> {
    let mut times = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for (way, times) in ways.iter_mut().zip(&mut times) {
            let time = way()?;
            if round > 0 {
                times.push(time);
            }
        }
    }
    Ok(times.map(median))
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
