//! The Huffman codes of a block, as tables.

/// Bits that a word is looked up by.
pub(super) const BITS: u32 = 11;
/// Entries of a table.
pub(super) const SIZE: usize = 1 << BITS;
/// In [`Literals::lengths`]: no literal, or a word that is longer than the table's.
pub(super) const SPECIAL: u8 = 0x80;
/// The symbol of a word that is longer.
const LONG: u8 = 0xFF;
/// Bits that the word of a distance is looked up by.
const FAR_BITS: u32 = 9;
/// Bits of the longest word in the code of lengths.
const OWN_BITS: u32 = 7;

/// What the symbols from 257 on stand for (RFC 1951, section 3.2.5): least length, and bits that are added.
const COPIES: [(u16, u8); 29] = {
    let mut copies = [(0, 0); 29];
    let (mut at, mut least) = (0, 3);
    while at < 28 {
        let bits = if at < 8 { 0 } else { at as u8 / 4 - 1 };
        copies[at] = (least, bits);
        least += 1 << bits;
        at += 1;
    }
    copies[28] = (258, 0);
    copies
};
/// The same for distances.
const DISTANCES: [(u16, u8); 30] = {
    let mut distances = [(0, 0); 30];
    let (mut at, mut least) = (0, 1);
    while at < 30 {
        let bits = if at < 4 { 0 } else { at as u8 / 2 - 1 };
        distances[at] = (least, bits);
        least = (least as u32 + (1 << bits)) as u16;
        at += 1;
    }
    distances
};

/// What a word stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Literal(u8),
    /// Length and distance.
    Copy(u16, u16),
    /// Of the block.
    End,
}

/// The words of up to [`BITS`] bits: the length of each, and its literal. In two tables, because only the length is
/// waited for.
#[derive(Debug)]
pub(super) struct Literals {
    pub(super) lengths: [u8; SIZE],
    /// Of special entries the number of the symbol from 256 on.
    pub(super) symbols: [u8; SIZE],
}

impl Literals {
    pub(super) const EMPTY: Literals = Literals { lengths: [0; SIZE], symbols: [0; SIZE] };

    /// What these bits begin with.
    #[inline(always)]
    pub(super) fn next(&self, bits: u64) -> Next {
        let place = bits as usize % SIZE;
        let (symbol, length) = (self.symbols[place], self.lengths[place]);
        if length & SPECIAL == 0 {
            Next::Literal(symbol, length.into())
        } else {
            Next::Special(symbol, usize::from(length & !SPECIAL))
        }
    }
}

/// An entry of the tables, and the length of its word.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    Literal(u8, usize),
    Special(u8, usize),
}

/// One or two literals, with how many count and the length of their words; or a special entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pair {
    Literals([u8; 2], usize, usize),
    Special(u8, usize),
}

/// The codes of a block, but for the tables of literals.
#[derive(Debug)]
pub(super) struct Codes {
    near: Sorted,
    far: Sorted,
    /// Distances: symbol and length, the latter in four bits; 0 where the word is longer or there is none.
    table: [u16; 1 << FAR_BITS],
    /// By the same bits as [`Literals`], as far as made: two literals, how many they are, the length of their words; or
    /// a special entry's symbol in place of the first and its length as it is there.
    pairs: Box<[[u8; 4]; SIZE]>,
    /// In 65536ths: how often a word is a literal, if the code fits its block.
    pub(super) literals: u32,
    /// In 65536ths of a bit: the mean length of a word, without what follows it.
    pub(super) mean: u32,
}

impl Codes {
    pub(super) fn new() -> Codes {
        Codes {
            near: Sorted::EMPTY,
            far: Sorted::EMPTY,
            table: [0; _],
            pairs: Box::new([[0; 4]; _]),
            literals: 0,
            mean: 0,
        }
    }

    /// Those that blocks without codes of their own have.
    pub(super) fn fixed(&mut self, tables: &mut Literals) -> Option<()> {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        self.set(tables, &lengths, &[5; 32])
    }

    /// From the lengths of their words.
    pub(super) fn set(&mut self, tables: &mut Literals, near: &[u8], far: &[u8]) -> Option<()> {
        // Without a word for it no block ends.
        if near.get(256).is_none_or(|length| *length == 0) {
            return None;
        }
        self.near = Sorted::new(near).filter(Sorted::complete)?;
        self.far = Sorted::new(far).filter(|far| far.complete() || far.words() == far.counts[1].min(1))?;
        let Literals { lengths, symbols } = tables;
        (lengths[0], symbols[0]) = (SPECIAL | BITS as u8, LONG);
        self.near.fill(BITS, |step| match step {
            Step::Double(filled) => {
                lengths.copy_within(..filled, filled);
                symbols.copy_within(..filled, filled);
            }
            Step::Put(place, symbol, length) => {
                let special = if symbol < 256 { 0 } else { SPECIAL };
                (lengths[place], symbols[place]) = (length | special, symbol as u8);
            }
        });
        let table = &mut self.table;
        table[0] = 0;
        self.far.fill(FAR_BITS, |step| match step {
            Step::Double(filled) => table.copy_within(..filled, filled),
            Step::Put(place, symbol, length) => table[place] = symbol << 4 | u16::from(length),
        });
        (self.literals, self.mean) = (0, 0);
        for (symbol, &length) in near.iter().enumerate().filter(|(_, length)| **length > 0) {
            let share = 1 << (16 - length);
            self.literals += if symbol < 256 { share } else { 0 };
            self.mean += u32::from(length) * share;
        }
        Some(())
    }

    /// Makes [`Self::pair`] ready. Takes as long as finding some thousand words.
    pub(super) fn make_pairs(&mut self, tables: &Literals) {
        for (place, pair) in self.pairs.iter_mut().enumerate() {
            let (symbol, length) = (tables.symbols[place], tables.lengths[place]);
            *pair = [symbol, 0, 1, length];
            if length & SPECIAL == 0 {
                // The bits of the next word that are not known are zeros here: they decide nothing if it is shorter.
                let next = place >> length;
                let (second, more) = (tables.symbols[next], tables.lengths[next]);
                if u32::from(length) + u32::from(more) <= BITS {
                    *pair = [symbol, second, 2, length + more];
                }
            }
        }
    }

    /// What these bits begin with, once [`Self::make_pairs`] was called.
    #[inline(always)]
    pub(super) fn pair(&self, bits: u64) -> Pair {
        let [first, second, count, length] = self.pairs[bits as usize % SIZE];
        if length & SPECIAL == 0 {
            Pair::Literals([first, second], count.into(), length.into())
        } else {
            Pair::Special(first, usize::from(length & !SPECIAL))
        }
    }

    /// The word that begins with these bits, and its length with what follows it: 48 bits at most. None when there is
    /// none.
    pub(super) fn word(&self, tables: &Literals, bits: u64) -> (Option<Word>, usize) {
        match tables.next(bits) {
            Next::Literal(literal, length) => (Some(Word::Literal(literal)), length),
            Next::Special(symbol, length) => self.special(symbol, length, bits),
        }
    }

    /// The same, given what the tables say.
    #[inline(always)]
    pub(super) fn special(&self, symbol: u8, length: usize, bits: u64) -> (Option<Word>, usize) {
        let (symbol, length) = match symbol {
            LONG => match self.near.find(bits, BITS + 1) {
                Some((literal @ 0..256, length)) => return (Some(Word::Literal(literal as u8)), length),
                Some((symbol, length)) => (symbol - 256, length),
                None => return (None, 1),
            },
            symbol => (u16::from(symbol), length),
        };
        if symbol == 0 {
            return (Some(Word::End), length);
        }
        match self.copy(usize::from(symbol) - 1, bits >> length) {
            Some((copy, more)) => (Some(copy), length + more),
            None => (None, 1),
        }
    }

    /// A copy by the number of its symbol and what follows that.
    #[inline(always)]
    fn copy(&self, number: usize, bits: u64) -> Option<(Word, usize)> {
        let (least, more) = *COPIES.get(number)?;
        let length = least + (bits as u16 & ((1 << more) - 1));
        let (bits, used) = (bits >> more, usize::from(more));
        let (number, skip) = match self.table[bits as usize % (1 << FAR_BITS)] {
            0 => self.far.find(bits, FAR_BITS + 1)?,
            entry => (entry >> 4, usize::from(entry & 15)),
        };
        let (least, more) = *DISTANCES.get(usize::from(number))?;
        let distance = least + ((bits >> skip) as u16 & ((1 << more) - 1));
        Some((Word::Copy(length, distance), used + skip + usize::from(more)))
    }
}

/// The code in which the lengths of words are written.
pub(super) struct Lengths([(u8, u8); 1 << OWN_BITS]);

impl Lengths {
    pub(super) fn new(lengths: &[u8; 19]) -> Option<Lengths> {
        let code = Sorted::new(lengths).filter(Sorted::complete)?;
        let mut table = [(0, 0); 1 << OWN_BITS];
        code.fill(OWN_BITS, |step| match step {
            Step::Double(filled) => table.copy_within(..filled, filled),
            Step::Put(place, symbol, length) => table[place] = (symbol as u8, length),
        });
        Some(Lengths(table))
    }

    /// Symbol and length of the word that begins with these bits.
    pub(super) fn find(&self, bits: u64) -> Option<(u8, u32)> {
        let (symbol, length) = self.0[bits as usize % (1 << OWN_BITS)];
        (length > 0).then(|| (symbol, length.into()))
    }
}

/// A code by its lengths: how many words there are of each, and the symbols in the order of their words.
#[derive(Debug)]
struct Sorted {
    counts: [u16; 16],
    symbols: [u16; 288],
    /// By length: the first word, and the place of its symbol.
    firsts: [(u16, u16); 16],
}

/// How a table is filled.
enum Step {
    /// What is filled is repeated behind it.
    Double(usize),
    /// Place, symbol, length.
    Put(usize, u16, u8),
}

impl Sorted {
    const EMPTY: Sorted = Sorted { counts: [0; 16], symbols: [0; 288], firsts: [(0, 0); 16] };

    /// None when there are more words than fit.
    fn new(lengths: &[u8]) -> Option<Sorted> {
        let mut sorted = Sorted::EMPTY;
        for &length in lengths {
            sorted.counts[usize::from(length & 15)] += 1;
        }
        sorted.counts[0] = 0;
        if sorted.used() > 1 << 15 {
            return None;
        }
        for length in 1..16 {
            let ((word, place), count) = (sorted.firsts[length - 1], sorted.counts[length - 1]);
            sorted.firsts[length] = ((word + count) << 1, place + count);
        }
        let mut places = sorted.firsts.map(|(_, place)| place);
        for (symbol, &length) in (0..).zip(lengths).filter(|(_, length)| **length > 0) {
            let place = &mut places[usize::from(length & 15)];
            sorted.symbols[usize::from(*place)] = symbol;
            *place += 1;
        }
        Some(sorted)
    }

    /// Of the 2^15 words of 15 bits, those that begin with a word.
    fn used(&self) -> u32 {
        (1..16).map(|length| u32::from(self.counts[length]) << (15 - length)).sum()
    }

    /// Whatever the bits, they begin with a word.
    fn complete(&self) -> bool {
        self.used() == 1 << 15
    }

    fn words(&self) -> u16 {
        self.counts.iter().sum()
    }

    /// Symbol and length of the word that begins with these bits: for words of `least` bits or more, which tables do
    /// not have.
    #[cold]
    fn find(&self, bits: u64, least: u32) -> Option<(u16, usize)> {
        (least..16).find_map(|length| {
            let word = bits.reverse_bits() >> (64 - length);
            let (first, place) = self.firsts[length as usize];
            let nth = word.checked_sub(first.into()).filter(|nth| *nth < self.counts[length as usize].into())?;
            Some((self.symbols[usize::from(place) + nth as usize], length as usize))
        })
    }

    /// Makes a table by the next `bits` bits, the first lowest, of which entry 0 is set for words that are longer.
    #[inline(always)]
    fn fill(&self, bits: u32, mut step: impl FnMut(Step)) {
        let (mut word, mut filled) = (0, 1);
        let mut symbols = self.symbols.iter();
        for length in 1..=bits {
            step(Step::Double(filled));
            filled *= 2;
            for &symbol in symbols.by_ref().take(self.counts[length as usize].into()) {
                step(Step::Put(word, symbol, length as u8));
                // The next word: words are written from their highest bit on, so that one counts from the top.
                let mut bit = filled / 2;
                while word & bit != 0 {
                    word ^= bit;
                    bit /= 2;
                }
                word |= bit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_symbols_stand_for() {
        assert_eq!(
            [COPIES[0], COPIES[7], COPIES[8], COPIES[27], COPIES[28]],
            [(3, 0), (10, 0), (11, 1), (227, 5), (258, 0)]
        );
        assert_eq!([DISTANCES[0], DISTANCES[3], DISTANCES[4], DISTANCES[29]], [(1, 0), (4, 0), (5, 1), (24_577, 13)]);
    }

    #[test]
    fn words_are_found_in_tables_and_bit_by_bit() {
        // Of 1 to 15 bits, the last two of 15: of equally long ones the lower symbol first.
        let mut lengths = [0; 286];
        for (at, symbol) in [0, 7, 65, 97, 255, 257, 264, 265, 284, 285, 3, 4, 5, 6, 256, 1].into_iter().enumerate() {
            lengths[symbol] = (at + 1).min(15) as u8;
        }
        let (mut codes, mut tables) = (Codes::new(), Literals::EMPTY);
        codes.set(&mut tables, &lengths, &[1, 1]).expect("codes");
        let word = |ones: u32| codes.word(&tables, (1 << ones) - 1);
        assert_eq!(word(0), (Some(Word::Literal(0)), 1));
        assert_eq!(word(4), (Some(Word::Literal(255)), 5));
        // A length of 3, with the distances 1 and 2.
        assert_eq!(word(5), (Some(Word::Copy(3, 1)), 7));
        assert_eq!(codes.word(&tables, 0b101_1111), (Some(Word::Copy(3, 2)), 7));
        // 11 or 12, by the bit that follows.
        assert_eq!(codes.word(&tables, 0b1_0111_1111), (Some(Word::Copy(12, 1)), 10));
        assert_eq!(word(12), (Some(Word::Literal(5)), 13));
        assert_eq!(word(14), (Some(Word::Literal(1)), 15));
        assert_eq!(word(15), (Some(Word::End), 15));
        assert_eq!((codes.literals, codes.mean), (63_550, 131_068));
    }

    #[test]
    fn codes_that_are_none() {
        let set = |near: &[u8], far: &[u8]| {
            let mut tables = Literals::EMPTY;
            Codes::new().set(&mut tables, near, far)
        };
        let near = |value: u8| {
            let mut near = [0; 257];
            (near[0], near[256]) = (1, value);
            near
        };
        assert!(set(&near(1), &[1, 1]).is_some());
        // One distance alone, or none.
        assert!(set(&near(1), &[1, 0]).is_some() && set(&near(1), &[0]).is_some());
        assert!(set(&near(1), &[2, 0]).is_none() && set(&near(1), &[1, 1, 1]).is_none());
        // Incomplete, without an end, too many.
        assert!(set(&near(2), &[1, 1]).is_none() && set(&near(0), &[1, 1]).is_none());
        assert!(set(&[1; 257], &[1, 1]).is_none() && set(&[8; 256], &[1, 1]).is_none());
        assert!(Lengths::new(&[1; 19]).is_none() && Lengths::new(&[0; 19]).is_none());
    }
}
