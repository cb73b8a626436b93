//! DEFLATE (RFC 1951) in its zlib wrapping (RFC 1950), for what is mostly literals: the rows of a photo.
//!
//! Every word of a Huffman code begins where the one before ends, so a decoder spends its time waiting for one lookup
//! after the other: seven cycles for each sample of a photo, whose grain leaves nothing to copy. But a decoder that
//! starts anywhere in a block falls into step with the right one after a few words. So [`race`] lets several run at once,
//! each a part further on, and takes over what they found from where they are in step; what they found before is thrown
//! away, so nothing depends on luck but time. The table in [`super::decode`] has what it brings.
//!
//! Strict: whatever is not plainly right is `None`, and the caller asks another decoder what to make of it.

mod codes;
mod race;

use codes::{Codes, Pair, Word};
use race::Ahead;

/// How far back a copy may reach, in bytes.
const HISTORY: usize = 32 * 1024;
/// Compressed bytes that are held at a time.
const INPUT: usize = 64 * 1024;
/// Decompressed bytes that are held at a time beside the history and one piece.
const OUTPUT: usize = 96 * 1024;
/// So many are passed on as soon as they are there, while they are in the nearest cache.
const PIECE: usize = 12 * 1024;
/// Bytes behind the end of both that may be touched.
const SLACK: usize = 16;
/// More than one word with a copy can make, in bytes.
const LONGEST_COPY: usize = 258;
/// More than the head of a block can take, in bytes.
const LONGEST_HEAD: usize = 512;
/// What one call of [`alone`] reads at most, in bytes.
const STRETCH: usize = 1024;
/// Pairs of literals that are found without new bits: each is at most 11 of 56.
const MOST_PAIRS: usize = 4;
/// What [`alone`] writes at most, but for the last word, in bytes.
const MOST_ALONE: usize = 4096;

/// Decompresses. `more` puts compressed bytes into the room that it is given and tells how many, 0 at their end. `take`
/// is given what is decompressed and tells how many bytes of it are done with; the rest comes again, with more. It must
/// be able to do something with `longest` bytes. Nothing may follow the end.
pub(super) fn inflate(
    more: impl FnMut(&mut [u8]) -> Option<usize>,
    longest: usize,
    take: impl FnMut(&[u8]) -> Option<usize>,
) -> Option<()> {
    let mut input = Input { more, ahead: Ahead::new(), filled: 0, ended: false, at: 0, dropped: 0 };
    let mut output = Output {
        take,
        bytes: vec![0; HISTORY + OUTPUT + longest + SLACK],
        filled: 0,
        taken: 0,
        summed: 0,
        sum: simd_adler32::Adler32::new(),
    };
    let mut codes = Codes::new();
    input.fetch(2)?;
    let (method, flags) = (input.bits(8), input.bits(8));
    // Deflate with a window of 32 KiB at most, the check bits, no dictionary.
    if method & 15 != 8 || method >> 4 > 7 || !(method << 8 | flags).is_multiple_of(31) || flags & 32 != 0 {
        return None;
    }
    // Blocks of one picture are of much the same length.
    let mut before = 0;
    loop {
        input.fetch(LONGEST_HEAD)?;
        let last = input.bits(1) == 1;
        match input.bits(2) {
            0 => stored(&mut input, &mut output)?,
            1 => {
                codes.fixed(input.ahead.literals())?;
                block(&mut input, &mut output, &mut codes, before)?;
            }
            2 => {
                head(&mut input, &mut codes)?;
                let begun = input.position();
                block(&mut input, &mut output, &mut codes, before)?;
                before = input.position() - begun;
            }
            _ => return None,
        }
        input.sound()?;
        if last {
            break;
        }
    }
    input.at = input.at.next_multiple_of(8);
    input.fetch(5)?;
    let sum = (0..4).fold(0, |sum, _| sum << 8 | input.bits(8));
    input.sound()?;
    output.pass_on()?;
    let whole = output.taken == output.filled && sum == output.sum.finish() && input.at == 8 * input.filled;
    whole.then_some(())
}

/// Compressed bytes.
struct Input<M> {
    more: M,
    /// Has them, beside what else the race needs.
    ahead: Ahead,
    filled: usize,
    ended: bool,
    /// The next bit.
    at: usize,
    /// Bits in front of those that are held.
    dropped: usize,
}

impl<M: FnMut(&mut [u8]) -> Option<usize>> Input<M> {
    /// Sees to it that so many bytes are there; false when fewer come, and there are zeros behind them then.
    fn fetch(&mut self, bytes: usize) -> Option<bool> {
        if self.at / 8 + bytes <= self.filled {
            return Some(true);
        }
        self.sound()?;
        let gone = self.at / 8;
        let buffer = self.ahead.input();
        buffer.copy_within(gone..self.filled, 0);
        self.filled -= gone;
        self.at -= 8 * gone;
        self.dropped += 8 * gone;
        while self.filled < INPUT && !self.ended {
            let more = (self.more)(&mut buffer[self.filled..INPUT])?;
            self.filled += more;
            self.ended = more == 0;
        }
        buffer[self.filled..self.filled + SLACK].fill(0);
        Some(bytes <= self.filled)
    }

    /// The next bits, 25 at most; zeros behind the end.
    fn bits(&mut self, count: u32) -> u32 {
        let bits = load(self.ahead.input(), self.at) as u32 & ((1 << count) - 1);
        self.at += count as usize;
        bits
    }

    /// None when more was read than there is.
    fn sound(&self) -> Option<()> {
        (self.at <= 8 * self.filled).then_some(())
    }

    /// In bits from the beginning.
    fn position(&self) -> usize {
        self.dropped + self.at
    }
}

/// 57 bits or more from a place on; zeros where nothing is.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at / 8..).and_then(<[u8]>::first_chunk);
    eight.map_or(0, |eight| u64::from_le_bytes(*eight) >> (at & 7))
}

/// Decompressed bytes: those that copies may reach back to, and those that are not done with.
struct Output<T> {
    take: T,
    bytes: Vec<u8>,
    filled: usize,
    taken: usize,
    /// Included in the check sum.
    summed: usize,
    sum: simd_adler32::Adler32,
}

impl<T: FnMut(&[u8]) -> Option<usize>> Output<T> {
    /// Makes room for so many bytes, and a few to spare.
    fn room(&mut self, bytes: usize) -> Option<()> {
        if self.filled - self.summed >= PIECE {
            self.pass_on()?;
        }
        if self.filled + bytes + SLACK <= self.bytes.len() {
            return Some(());
        }
        self.pass_on()?;
        let gone = self.taken.min(self.filled.saturating_sub(HISTORY));
        self.bytes.copy_within(gone..self.filled, 0);
        self.filled -= gone;
        self.taken -= gone;
        self.summed -= gone;
        (self.filled + bytes + SLACK <= self.bytes.len()).then_some(())
    }

    fn pass_on(&mut self) -> Option<()> {
        self.sum.write(&self.bytes[self.summed..self.filled]);
        self.summed = self.filled;
        self.taken += (self.take)(&self.bytes[self.taken..self.filled])?;
        Some(())
    }

    fn push(&mut self, literal: u8) {
        self.bytes[self.filled] = literal;
        self.filled += 1;
    }

    fn append(&mut self, literals: &[u8]) {
        self.bytes[self.filled..][..literals.len()].copy_from_slice(literals);
        self.filled += literals.len();
    }
}

/// A block without a code.
fn stored<M, T>(input: &mut Input<M>, output: &mut Output<T>) -> Option<()>
where
    M: FnMut(&mut [u8]) -> Option<usize>,
    T: FnMut(&[u8]) -> Option<usize>,
{
    input.at = input.at.next_multiple_of(8);
    let (length, inverse) = (input.bits(16), input.bits(16));
    if length ^ inverse != 0xFFFF {
        return None;
    }
    let mut left = length as usize;
    while left > 0 {
        input.fetch(left.min(PIECE))?;
        let at = input.at / 8;
        let there = left.min(PIECE).min(input.filled.checked_sub(at)?);
        if there == 0 {
            return None;
        }
        output.room(there)?;
        output.append(&input.ahead.input()[at..][..there]);
        input.at += 8 * there;
        left -= there;
    }
    Some(())
}

/// Reads the codes of a block, which are written in a code themselves.
fn head<M: FnMut(&mut [u8]) -> Option<usize>>(input: &mut Input<M>, codes: &mut Codes) -> Option<()> {
    /// In which the lengths of that code's words are written.
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (near, far) = (input.bits(5) as usize + 257, input.bits(5) as usize + 1);
    let own = input.bits(4) as usize + 4;
    if near > 286 || far > 30 {
        return None;
    }
    let mut lengths = [0; 19];
    for &place in &ORDER[..own] {
        lengths[place] = input.bits(3) as u8;
    }
    let code = codes::Lengths::new(&lengths)?;
    let mut lengths = [0; 286 + 30];
    let mut at = 0;
    while at < near + far {
        let (symbol, length) = code.find(load(input.ahead.input(), input.at))?;
        input.at += length as usize;
        let (value, times) = match symbol {
            0..=15 => (symbol, 1),
            16 => (lengths[at.checked_sub(1)?], 3 + input.bits(2)),
            17 => (0, 3 + input.bits(3)),
            _ => (0, 11 + input.bits(7)),
        };
        let end = at + times as usize;
        if end > near + far {
            return None;
        }
        lengths[at..end].fill(value);
        at = end;
    }
    input.sound()?;
    codes.set(input.ahead.literals(), &lengths[..near], &lengths[near..near + far])
}

/// The coded data of a block. `before` is how long those of the one before were, in bits.
fn block<M, T>(input: &mut Input<M>, output: &mut Output<T>, codes: &mut Codes, before: usize) -> Option<()>
where
    M: FnMut(&mut [u8]) -> Option<usize>,
    T: FnMut(&[u8]) -> Option<usize>,
{
    let end = input.position() + before;
    let (mut worth, mut paired) = (input.ahead.worth(codes), false);
    loop {
        if worth {
            match race::run(input, output, codes, end)? {
                race::Outcome::Ended => return Some(()),
                race::Outcome::Went => continue,
                race::Outcome::Vain => worth = false,
                // Too near the end of everything.
                race::Outcome::Not => {}
            }
        }
        if !std::mem::replace(&mut paired, true) {
            codes.make_pairs(input.ahead.literals());
        }
        let whole = input.fetch(STRETCH)?;
        // All was read, and the block has not ended.
        if input.at >= 8 * input.filled {
            return None;
        }
        output.room(MOST_ALONE + LONGEST_COPY)?;
        let stop = if whole { input.at + 8 * STRETCH - race::LONGEST_WORD } else { 8 * input.filled };
        if alone(input, output, codes, stop)? {
            return Some(());
        }
        input.sound()?;
    }
}

/// One word after the other, until the end of the block (true), a place in the input, or enough.
fn alone<M, T>(input: &mut Input<M>, output: &mut Output<T>, codes: &Codes, stop: usize) -> Option<bool>
where
    M: FnMut(&mut [u8]) -> Option<usize>,
    T: FnMut(&[u8]) -> Option<usize>,
{
    let (_, bytes) = input.ahead.parts();
    let (out, mut filled) = (&mut output.bytes[..], output.filled);
    let enough = filled + MOST_ALONE;
    let mut bits = Bits { bits: 0, count: 0, next: input.at / 8 };
    bits.fill(bytes);
    bits.skip(input.at % 8);
    let mut ended = false;
    'next: while bits.at() < stop && filled < enough {
        bits.fill(bytes);
        let mut left = MOST_PAIRS;
        let (symbol, length) = loop {
            match codes.pair(bits.bits) {
                Pair::Literals(both, count, length) => {
                    *out.get_mut(filled..)?.first_chunk_mut()? = both;
                    filled += count;
                    bits.skip(length);
                }
                Pair::Special(symbol, length) => break (symbol, length),
            }
            left -= 1;
            if left == 0 {
                continue 'next;
            }
        };
        bits.fill(bytes);
        let (word, length) = codes.special(symbol, length, bits.bits);
        bits.skip(length);
        match word? {
            Word::Literal(literal) => {
                *out.get_mut(filled)? = literal;
                filled += 1;
            }
            Word::Copy(length, distance) => {
                copy(out, filled, length.into(), distance.into())?;
                filled += usize::from(length);
            }
            Word::End => {
                ended = true;
                break;
            }
        }
    }
    output.filled = filled;
    input.at = bits.at();
    Some(ended)
}

/// The next bits, read ahead so that more are at hand before they are asked for.
#[derive(Clone, Copy)]
struct Bits {
    bits: u64,
    /// How many of them count.
    count: usize,
    /// The byte that those behind them are from.
    next: usize,
}

impl Bits {
    /// To 56 or more; zeros where nothing is.
    #[inline(always)]
    fn fill(&mut self, bytes: &[u8]) {
        let eight = bytes.get(self.next..).and_then(<[u8]>::first_chunk);
        self.bits |= eight.map_or(0, |eight| u64::from_le_bytes(*eight)) << self.count;
        self.next += (63 - self.count) / 8;
        self.count |= 56;
    }

    #[inline(always)]
    fn skip(&mut self, count: usize) {
        self.bits >>= count & 63;
        self.count -= count;
    }

    #[inline(always)]
    fn at(&self) -> usize {
        8 * self.next - self.count
    }
}

/// Repeats, at the end of what is filled, what is so far back. Up to fifteen bytes more are touched.
#[inline(always)]
fn copy(bytes: &mut [u8], filled: usize, length: usize, distance: usize) -> Option<()> {
    let from = filled.checked_sub(distance)?;
    let room = bytes.get_mut(from..filled + length + SLACK)?;
    match distance {
        0 => return None,
        1 => {
            let byte = room[0];
            room[1..=length].fill(byte);
        }
        2..16 => (0..length).for_each(|at| room[distance + at] = room[at]),
        // Sixteen at a time: what is too much is overwritten by what comes. Most are no longer.
        _ => {
            let piece = *room.first_chunk::<16>()?;
            *room[distance..].first_chunk_mut()? = piece;
            if length > 16 && distance >= length {
                room.copy_within(16..length, distance + 16);
            } else {
                for at in (16..length).step_by(16) {
                    let piece = *room[at..].first_chunk::<16>()?;
                    *room[distance + at..].first_chunk_mut()? = piece;
                }
            }
        }
    }
    Some(())
}

/// Writes what a word stands for, for which there is room; true for the end of the block.
fn write<T: FnMut(&[u8]) -> Option<usize>>(word: Word, output: &mut Output<T>) -> Option<bool> {
    match word {
        Word::Literal(literal) => output.push(literal),
        Word::Copy(length, distance) => {
            copy(&mut output.bytes, output.filled, length.into(), distance.into())?;
            output.filled += usize::from(length);
        }
        Word::End => return Some(true),
    }
    Some(false)
}

#[cfg(test)]
mod tests;
