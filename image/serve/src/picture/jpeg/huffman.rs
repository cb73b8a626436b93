//! The Huffman codes made for a picture.

/// A Huffman code as a JPEG has it: how many codes there are of 1 to 16 bits, and their symbols, shortest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) lengths: [u8; 16],
    pub(super) values: Vec<u8>,
}

impl Code {
    /// The code with the shortest result for symbols that occur this often, no word longer than 16 bits.
    ///
    /// By package-merge: of the coins 2^-1 to 2^-16 that each symbol has, the cheapest that add up. An invisible symbol
    /// rarer than all takes the word of all ones, which a JPEG must not use.
    pub(super) fn best(counts: &[u32; 256]) -> Code {
        const INVISIBLE: u16 = 256;
        let mut leaves = (0u16..).zip(counts).filter(|(_, count)| **count > 0).collect::<Vec<_>>();
        leaves.sort_by_key(|&(symbol, count)| (*count, symbol));
        // Cost, and how many of the cheapest leaves of each level it has: the leaves taken are always a prefix.
        let mut sorted = vec![(0u64, INVISIBLE)];
        sorted.extend(leaves.iter().map(|&(symbol, count)| (u64::from(*count), symbol)));
        if sorted.len() == 1 {
            // A code without words is not allowed.
            sorted.push((1, 0));
        }
        let items = sorted.len();
        let mut levels = Vec::<Vec<(u64, bool)>>::with_capacity(16);
        for _ in 0..16 {
            let packages = levels.last().map_or(&[][..], Vec::as_slice).as_chunks::<2>().0;
            let packages = packages.iter().map(|[(a, _), (b, _)]| (a + b, false));
            let mut level = sorted.iter().map(|(cost, _)| (*cost, true)).chain(packages).collect::<Vec<_>>();
            // Stable: a leaf before a package of the same cost.
            level.sort_by_key(|(cost, _)| *cost);
            levels.push(level);
        }
        // A leaf is one bit longer for each level on which it is taken.
        let mut bits = vec![0u8; items];
        let mut taken = 2 * (items - 1);
        for level in levels.iter().rev() {
            let leaves = level.iter().take(taken).filter(|(_, leaf)| *leaf).count();
            bits.iter_mut().take(leaves).for_each(|bits| *bits += 1);
            taken = 2 * (taken - leaves);
        }
        let mut lengths = [0; 16];
        let mut words = bits.iter().zip(&sorted).filter(|(_, (_, symbol))| *symbol != INVISIBLE).collect::<Vec<_>>();
        words.sort_by_key(|&(bits, (cost, symbol))| (*bits, std::cmp::Reverse(*cost), *symbol));
        for (bits, _) in &words {
            lengths[usize::from(**bits) - 1] += 1;
        }
        Code { lengths, values: words.iter().map(|(_, (_, symbol))| *symbol as u8).collect() }
    }

    /// Word, its length in bits, and symbol.
    pub(super) fn words(&self) -> impl Iterator<Item = (u16, u8, u8)> {
        let lengths = (1u8..).zip(self.lengths).flat_map(|(bits, count)| std::iter::repeat_n(bits, count.into()));
        let mut next = (0u32, 0u8);
        lengths.zip(&self.values).map(move |(bits, symbol)| {
            let word = next.0 << (bits - next.1);
            next = (word + 1, bits);
            (word as u16, bits, *symbol)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn codes_are_complete_but_for_the_word_of_ones(
            counts in prop::collection::vec(prop_oneof![3 => Just(0u32), 2 => 1u32..50, 1 => any::<u32>()], 256)
        ) {
            let counts = <[u32; 256]>::try_from(counts).expect("256");
            let code = Code::best(&counts);
            let words = code.words().collect::<Vec<_>>();
            let coded = (0..=255u8).filter(|symbol| counts[usize::from(*symbol)] > 0);
            let mut values = code.values.clone();
            values.sort_unstable();
            if values.len() > 1 {
                prop_assert!(values.iter().copied().eq(coded));
            }
            prop_assert_eq!(words.len(), code.values.len());
            let mut room = 1u64 << 16;
            for (word, bits, _) in &words {
                prop_assert!((1..=16).contains(bits));
                // The word fits its length and is not all ones.
                prop_assert!(u32::from(*word) + 1 < 1 << bits);
                room -= 1 << (16 - bits);
            }
            prop_assert!(room > 0);
            // No word begins another: canonical words of growing length that stay in the room.
            for pair in words.windows(2) {
                let [(word, bits, symbol), (next, longer, other)] = *pair else { unreachable!() };
                prop_assert!(bits <= longer && next >> (longer - bits) > word);
                if bits < longer {
                    prop_assert!(counts[usize::from(symbol)] >= counts[usize::from(other)]);
                }
            }
        }
    }

    #[test]
    fn a_skewed_code_is_cut_at_16_bits() {
        let mut counts = [0; 256];
        let (mut last, mut count) = (1, 1);
        for place in counts.iter_mut().take(40) {
            *place = count;
            (last, count) = (count, count + last);
        }
        let code = Code::best(&counts);
        assert_eq!(code.values.len(), 40);
        assert!(code.lengths[15] > 0 && code.lengths[..2] != [0, 0]);
    }
}
