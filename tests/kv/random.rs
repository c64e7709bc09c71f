// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random numbers that can be had again.

/// Numbers that are as good as random, and the same for the same seed.
pub struct Random(u64);

impl Random {
    /// The numbers of this seed for one of several users.
    pub fn new(seed: u64, user: u64) -> Random {
        // Mixed as by splitmix64, so that seeds beside each other have nothing in common.
        let mut mixed = seed.wrapping_add((user + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Random((mixed ^ (mixed >> 31)) | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}
