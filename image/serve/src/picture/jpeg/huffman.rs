//! Symbols of the coded data, and the Huffman codes made for them.

/// Which code a symbol is written in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Class {
    LumaDc = 0,
    LumaAc = 1,
    ChromaDc = 2,
    ChromaAc = 3,
}

/// The coded data before their codes are known: in order, each symbol with the bits that follow it.
#[derive(Debug)]
pub(super) struct Symbols {
    /// The bits that follow (16), the symbol (8), the class (2).
    all: Vec<u32>,
    counts: [[u32; 256]; 4],
}

/// A Huffman code as a JPEG has it: how many codes there are of 1 to 16 bits, and their symbols, shortest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) lengths: [u8; 16],
    pub(super) values: Vec<u8>,
}

impl Symbols {
    /// With room for a number of symbols.
    pub(super) fn with_capacity(symbols: usize) -> Self {
        Symbols { all: Vec::with_capacity(symbols), counts: [[0; 256]; 4] }
    }

    /// Adds a block: its coefficients without the zeros, as place in the zigzag and value, and the difference of the
    /// first to that of the block before. Values have at most 11 bits, the difference 12.
    #[inline(always)]
    pub(super) fn push(&mut self, difference: i32, coefficients: &[(u8, i16)], chroma: bool) {
        let (dc, ac) = if chroma { (Class::ChromaDc, Class::ChromaAc) } else { (Class::LumaDc, Class::LumaAc) };
        // At most 64 symbols and three runs of 16 zeros, collected here so that the vector grows once a block.
        let (mut found, mut count) = ([0u32; 128], 0);
        let mut add = |class: Class, run: u8, value: i32| {
            let symbol = self.count(class, run, value);
            found[count & 127] = symbol;
            count += 1;
        };
        add(dc, 0, difference);
        let mut before = 0u8;
        for &(place, value) in coefficients {
            let mut run = place.wrapping_sub(before).wrapping_sub(1);
            while run > 15 {
                add(ac, 15, 0);
                run -= 16;
            }
            add(ac, run, value.into());
            before = place;
        }
        if before != 63 {
            add(ac, 0, 0);
        }
        self.all.extend_from_slice(&found[..count]);
    }

    /// Counts a symbol and packs it.
    #[inline(always)]
    fn count(&mut self, class: Class, run: u8, value: i32) -> u32 {
        let bits = 32 - value.unsigned_abs().leading_zeros();
        // A negative value is written one lower, so that it begins with a zero.
        let follow = (value + (value >> 31)) as u32 & ((1 << bits) - 1);
        let symbol = u32::from(run) << 4 | bits;
        self.counts[class as usize][(symbol & 255) as usize] += 1;
        (class as u32) << 24 | symbol << 16 | follow
    }

    /// The best codes.
    pub(super) fn codes(&self) -> [Code; 4] {
        self.counts.each_ref().map(Code::best)
    }

    /// The length of the coded data in bytes, but for stuffed ones.
    pub(super) fn size(&self, codes: &[Code; 4]) -> usize {
        let bits = |(counts, code): (&[u32; 256], &Code)| -> u64 {
            let length = |(_, length, symbol): (u16, u8, u8)| {
                u64::from(counts[usize::from(symbol)]) * u64::from(length + (symbol & 15))
            };
            code.words().map(length).sum()
        };
        let bits = self.counts.iter().zip(codes).map(bits).sum::<u64>();
        usize::try_from(bits / 8).unwrap_or(0) + 1
    }

    /// Writes the coded data.
    pub(super) fn write(&self, codes: &[Code; 4], out: &mut Vec<u8>) {
        // By class and symbol: the word, shifted by the bits that follow, and the length of both.
        let mut words = [(0u32, 0u32); 1024];
        for (class, code) in codes.iter().enumerate() {
            for (word, length, symbol) in code.words() {
                let follow = u32::from(symbol & 15);
                words[class << 8 | usize::from(symbol)] = (u32::from(word) << follow, u32::from(length) + follow);
            }
        }
        // The last `filled` bits are yet to be written; fewer than 32 before each symbol, which has at most 28.
        let (mut bits, mut filled) = (0u64, 0u32);
        for symbol in &self.all {
            let (word, length) = words[(symbol >> 16 & 1023) as usize];
            bits = bits << length | u64::from(word | symbol & 0xFFFF);
            filled += length;
            if filled >= 32 {
                filled -= 32;
                put(out, (bits >> filled) as u32);
            }
        }
        // The rest is filled up with ones.
        let missing = filled.wrapping_neg() % 8;
        bits = bits << missing | ((1 << missing) - 1);
        filled += missing;
        while filled > 0 {
            filled -= 8;
            stuffed(out, (bits >> filled) as u8);
        }
    }
}

#[inline(always)]
fn put(out: &mut Vec<u8>, word: u32) {
    // Whether a byte is 0xFF: only there the complement is zero, and a byte of zero is found by what is borrowed.
    let complement = !word;
    if complement.wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0 {
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        word.to_be_bytes().into_iter().for_each(|byte| stuffed(out, byte));
    }
}

/// A byte of 0xFF is followed by a zero, lest it look like a marker.
fn stuffed(out: &mut Vec<u8>, byte: u8) {
    out.push(byte);
    if byte == 0xFF {
        out.push(0);
    }
}

impl Code {
    /// The code with the shortest result for symbols that occur this often, no word longer than 16 bits.
    ///
    /// By package-merge: of the coins 2^-1 to 2^-16 that each symbol has, the cheapest that add up. An invisible symbol
    /// rarer than all takes the word of all ones, which a JPEG must not use.
    fn best(counts: &[u32; 256]) -> Code {
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
    fn words(&self) -> impl Iterator<Item = (u16, u8, u8)> {
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

    #[test]
    fn bytes_of_ones_are_stuffed() {
        for word in [0xFFFF_FFFFu32, 0x00FF_0000, 0xFF00_00FE, 0x0102_03FF, 0x7F80_FE01, 0] {
            let mut out = Vec::new();
            put(&mut out, word);
            let expected = word.to_be_bytes().into_iter().flat_map(|b| if b == 0xFF { vec![b, 0] } else { vec![b] });
            assert!(out.iter().copied().eq(expected), "{word:x}");
        }
    }
}
