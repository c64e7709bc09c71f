// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A cap on bytes per second. Pure.

use std::time::Duration;
use std::time::Instant;

/// What may be sent at once after a pause, as a share of a second.
const BURST: f64 = 0.1;

/// Says how long to wait so that no more than so many bytes a second are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    bytes_per_s: f64,
    /// Bytes that were sent and not yet paid for by time.
    owed: f64,
    at: Instant,
}

impl Throttle {
    pub(super) fn new(bytes_per_s: u64, now: Instant) -> Throttle {
        Throttle {
            bytes_per_s: bytes_per_s.max(1) as f64,
            owed: 0.0,
            at: now,
        }
    }

    /// Bytes are being sent; how long to wait before the next.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.owed = (self.owed - passed * self.bytes_per_s).max(0.0) + bytes as f64;
        let beyond = self.owed - BURST * self.bytes_per_s;
        Duration::from_secs_f64(beyond.max(0.0) / self.bytes_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_any_time_no_more_is_sent_than_the_cap_and_a_tenth_of_a_second() {
        let begun = Instant::now();
        for piece in [1usize, 100, 4096, 262_144] {
            let mut throttle = Throttle::new(1_000_000, begun);
            let (mut now, mut sent) = (begun, 0usize);
            while now < begun + Duration::from_secs(10) {
                let passed = (now - begun).as_secs_f64();
                assert!(sent as f64 <= 1_000_000.0 * (passed + BURST) + piece as f64);
                let wait = throttle.sent(piece, now);
                sent += piece;
                now += wait + Duration::from_micros(1);
            }
            assert!(sent as f64 > 9_500_000.0, "{sent} of pieces of {piece}");
        }
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(1000, begun);
        throttle.sent(1000, begun);
        let later = begun + Duration::from_secs(3600);
        assert_eq!(throttle.sent(100, later), Duration::ZERO);
        assert!(throttle.sent(1000, later) >= Duration::from_millis(999));
    }
}
