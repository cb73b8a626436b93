//! The coded data: which symbols a picture has, the codes made for them, and their writing.
//!
//! No symbol is kept: the picture is transformed a second time when its codes are known, which is cheaper than to write
//! and read them all. Of a large picture the first pass sees a sixteenth, spread evenly, or an eighth when that is too
//! little; the table in [`super::super::decode`] has what that costs in bytes. Pictures that compress well are counted in
//! full, because codes for what may be in the rest would be felt there.

use super::huffman::Code;
use super::unit::{TRANSPOSED, Unit};
use crate::buffers::Buffer;

/// Up to so many units are always counted in full.
const FEW_UNITS: usize = 512;
/// One group of units in so many is sampled, in each row others.
const SHARE: usize = 16;
/// Units side by side in a group.
const GROUP: usize = 8;
/// A sample of fewer bytes is no ground to go on.
const THIN: usize = 16 * 1024;
/// How much a sampled symbol weighs against one that is only possible.
const WEIGHT: u32 = 16;
/// Coefficients from minus a half of this on are small ones.
const SMALL: usize = 32;
/// More than a unit can take: 6 blocks of 64 symbols of 27 bits.
const UNIT_BYTES: usize = 1536;

/// Pixels in RGB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) samples: &'a [u8],
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Picture<'_> {
    /// Passes on the pixels of a unit with their stride; what lies outside repeats the last column and row.
    #[inline(always)]
    fn unit(&self, column: usize, row: usize, take: impl FnOnce(&[u8], usize)) {
        let (left, top, stride) = (16 * column, 16 * row, 3 * self.width);
        if left + 16 <= self.width && top + 16 <= self.height {
            return take(&self.samples[top * stride + 3 * left..], stride);
        }
        let mut pixels = [0; 768];
        for (at, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (x, y) = ((left + at % 16).min(self.width - 1), (top + at / 16).min(self.height - 1));
            pixel.copy_from_slice(&self.samples[y * stride + 3 * x..][..3]);
        }
        take(&pixels, 48);
    }
}

/// Codes a picture: what `head` makes of its codes, then its data.
#[inline(always)]
pub(super) fn code(
    picture: Picture<'_>,
    fill: impl Fn(&[u8], usize, &mut Unit),
    head: impl FnOnce(&[Code; 4]) -> Vec<u8>,
) -> Buffer {
    let (across, down) = (picture.width.div_ceil(16), picture.height.div_ceil(16));
    let mut unit = Unit::EMPTY;
    let mut count = |counts: &mut Counts, share: usize, which: usize| {
        let mut before = [0; 3];
        for row in 0..down {
            for column in (0..across).filter(|column| (column / GROUP + row) % share == which) {
                picture.unit(column, row, |pixels, stride| fill(pixels, stride, &mut unit));
                symbols(&unit, &mut before, counts);
            }
        }
    };
    let mut counts = Counts::NONE;
    let mut sampled = None;
    if across * down > FEW_UNITS {
        count(&mut counts, SHARE, 0);
        sampled = of_sample(&counts, SHARE).or_else(|| {
            count(&mut counts, SHARE, SHARE / 2);
            of_sample(&counts, SHARE / 2)
        });
    }
    let (codes, bytes) = sampled.unwrap_or_else(|| {
        counts = Counts::NONE;
        count(&mut counts, 1, 0);
        let codes = counts.codes();
        let bytes = counts.bytes(&codes);
        (codes, bytes)
    });
    let head = head(&codes);
    let mut out = Buffer::with_room(head.len() + bytes + bytes / 32 + 1024);
    out.extend_from_slice(&head);
    let mut writer = Writer::new(&codes);
    let mut before = [0; 3];
    for row in 0..down {
        for column in 0..across {
            picture.unit(column, row, |pixels, stride| fill(pixels, stride, &mut unit));
            symbols(&unit, &mut before, &mut writer);
            if writer.used > writer.raw.len() - UNIT_BYTES {
                stuff(&writer.raw[..writer.used], &mut out);
                writer.used = 0;
            }
        }
    }
    writer.finish(&mut out);
    out
}

/// Codes made from a sample, and how long the whole will be, in bytes; nothing when the sample is too small.
fn of_sample(sample: &Counts, share: usize) -> Option<([Code; 4], usize)> {
    let codes = sample.widened().codes();
    let bytes = sample.bytes(&codes);
    (bytes >= THIN).then_some((codes, bytes * share))
}

/// What is done with symbols.
trait Sink {
    /// Takes a symbol of one of the four codes (luma first, of each the first coefficient's before the others'), and
    /// the bits that follow it.
    fn symbol(&mut self, class: usize, symbol: u32, follow: u32);

    /// Takes the symbol of a coefficient that is not zero, after so many zeros, 15 at most.
    #[inline(always)]
    fn coefficient(&mut self, class: usize, run: u32, value: i32) {
        let (bits, follow) = split(value);
        self.symbol(class, run << 4 | bits, follow);
    }

    /// Called after at most two symbols.
    fn flush(&mut self);
}

/// The symbols of a unit, in order.
#[inline(always)]
fn symbols(unit: &Unit, before: &mut [i32; 3], sink: &mut impl Sink) {
    for (at, (block, nonzero)) in unit.blocks.iter().zip(unit.nonzero).enumerate() {
        let class = if at < 4 { 0 } else { 2 };
        let before = &mut before[at.saturating_sub(3)];
        let (bits, follow) = split(i32::from(block[0]) - *before);
        *before = block[0].into();
        sink.symbol(class, bits, follow);
        sink.flush();
        let (mut rest, mut last) = (nonzero & !1, 0);
        let mut next = |rest: &mut u64, sink: &mut _| coefficient(block, class + 1, rest, &mut last, sink);
        while rest != 0 {
            next(&mut rest, sink);
            if rest != 0 {
                next(&mut rest, sink);
            }
            sink.flush();
        }
        if last != 63 {
            sink.symbol(class + 1, 0, 0);
            sink.flush();
        }
    }
}

/// The next coefficient that is not zero, with the zeros before it.
#[inline(always)]
fn coefficient(block: &[i16; 64], class: usize, rest: &mut u64, last: &mut u32, sink: &mut impl Sink) {
    let place = rest.trailing_zeros();
    *rest &= *rest - 1;
    let mut run = place - *last - 1;
    *last = place;
    while run > 15 {
        sink.flush();
        sink.symbol(class, 0xF0, 0);
        sink.flush();
        run -= 16;
    }
    // Both are below 64; said so, the compiler checks neither.
    let from = TRANSPOSED[(place & 63) as usize] & 63;
    sink.coefficient(class, run, block[usize::from(from)].into());
}

/// A value's length in bits, and they.
#[inline(always)]
fn split(value: i32) -> (u32, u32) {
    let bits = 32 - value.unsigned_abs().leading_zeros();
    // A negative value is written one lower, so that it begins with a zero.
    (bits, (value + (value >> 31)) as u32 & ((1 << bits) - 1))
}

/// How often each symbol occurs.
struct Counts([[u32; 256]; 4]);

impl Sink for Counts {
    #[inline(always)]
    fn symbol(&mut self, class: usize, symbol: u32, _: u32) {
        self.0[class & 3][(symbol & 255) as usize] += 1;
    }

    #[inline(always)]
    fn flush(&mut self) {}
}

impl Counts {
    const NONE: Counts = Counts([[0; 256]; 4]);

    fn codes(&self) -> [Code; 4] {
        self.0.each_ref().map(Code::best)
    }

    /// The length of the coded data, but for stuffed bytes.
    fn bytes(&self, codes: &[Code; 4]) -> usize {
        let length = |(counts, code): (&[u32; 256], &Code)| -> u64 {
            let bits = |(_, bits, symbol): (u16, u8, u8)| {
                u64::from(counts[usize::from(symbol)]) * u64::from(bits + (symbol & 15))
            };
            code.words().map(bits).sum()
        };
        let bits = self.0.iter().zip(codes).map(length).sum::<u64>();
        usize::try_from(bits / 8).unwrap_or(0)
    }

    /// With a little room for every symbol that there can be.
    fn widened(&self) -> Counts {
        let mut widened = self.0;
        for (class, counts) in widened.iter_mut().enumerate() {
            for (symbol, count) in counts.iter_mut().enumerate() {
                let (run, bits) = (symbol >> 4, symbol & 15);
                // Quantized coefficients have at most 10 bits and 1024, differences of the first at most 12.
                let possible = if class % 2 == 0 {
                    run == 0 && bits <= 12
                } else {
                    (1..=11).contains(&bits) || symbol == 0 || symbol == 0xF0
                };
                *count = *count * WEIGHT + u32::from(possible);
            }
        }
        Counts(widened)
    }
}

/// Writes symbols in their codes. Holds no array itself and is lent to nothing that is not inlined, so that its numbers
/// stay in registers.
struct Writer {
    /// By class and symbol: the word, shifted by the bits that follow, and the length of both.
    words: Box<[[(u32, u32); 256]; 4]>,
    /// By plane (luma, chroma), run of zeros and coefficient, as far as those are small: the word with what follows it,
    /// and the length of both. Most coefficients are, and so they are coded by one look.
    small: Box<[[(u32, u32); 16 * SMALL]; 2]>,
    /// The last `filled`, fewer than 8, are yet to be written.
    bits: u64,
    filled: u32,
    /// Bytes before they are stuffed, and how many they are.
    raw: Box<[u8; 4 * UNIT_BYTES]>,
    used: usize,
}

impl Sink for Writer {
    #[inline(always)]
    fn symbol(&mut self, class: usize, symbol: u32, follow: u32) {
        let (word, length) = self.words[class & 3][(symbol & 255) as usize];
        self.bits = self.bits << length | u64::from(word | follow);
        self.filled += length;
    }

    #[inline(always)]
    fn coefficient(&mut self, class: usize, run: u32, value: i32) {
        let column = (value + SMALL as i32 / 2) as usize;
        let (word, length) = if column < SMALL {
            self.small[class >> 1 & 1][(run as usize * SMALL + column) % (16 * SMALL)]
        } else {
            let (bits, follow) = split(value);
            let (word, length) = self.words[class & 3][((run << 4 | bits) & 255) as usize];
            (word | follow, length)
        };
        self.bits = self.bits << length | u64::from(word);
        self.filled += length;
    }

    #[inline(always)]
    fn flush(&mut self) {
        // Whole bytes count as written, the others are written again next time; no branch depends on data.
        let ahead = (self.bits << ((64 - self.filled) & 63)).to_be_bytes();
        self.raw[self.used..self.used + 8].copy_from_slice(&ahead);
        self.used += (self.filled / 8) as usize;
        self.filled %= 8;
    }
}

impl Writer {
    fn new(codes: &[Code; 4]) -> Writer {
        let mut words = Box::new([[(0u32, 0u32); 256]; 4]);
        for (words, code) in words.iter_mut().zip(codes) {
            for (word, length, symbol) in code.words() {
                let follow = u32::from(symbol & 15);
                words[usize::from(symbol)] = (u32::from(word) << follow, u32::from(length) + follow);
            }
        }
        let mut small = Box::new([[(0, 0); 16 * SMALL]; 2]);
        for (small, words) in small.iter_mut().zip(words.as_chunks::<2>().0) {
            for (at, small) in small.iter_mut().enumerate() {
                let (bits, follow) = split((at % SMALL) as i32 - SMALL as i32 / 2);
                let (word, length) = words[1][16 * (at / SMALL) + bits as usize];
                *small = (word | follow, length);
            }
        }
        Writer { words, small, bits: 0, filled: 0, raw: Box::new([0; _]), used: 0 }
    }

    /// Writes what is left, filled up with ones.
    #[inline(always)]
    fn finish(mut self, out: &mut Buffer) {
        let last = (self.bits << (8 - self.filled)) as u8 | 0xFF >> self.filled;
        if self.filled > 0 {
            self.raw[self.used] = last;
            self.used += 1;
        }
        stuff(&self.raw[..self.used], out);
    }
}

/// A byte of 0xFF is followed by a zero, lest it look like a marker.
#[inline(never)]
fn stuff(mut rest: &[u8], out: &mut Buffer) {
    while let Some(at) = memchr::memchr(0xFF, rest) {
        out.extend_from_slice(&rest[..=at]);
        out.push(0);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_ones_are_stuffed() {
        let words = Code { lengths: [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], values: vec![8] };
        let codes = [(); 4].map(|()| words.clone());
        let mut writer = Writer::new(&codes);
        for follow in [0xFF, 0xFE, 0xFF] {
            writer.symbol(0, 8, follow);
            writer.flush();
        }
        let mut out = Buffer::default();
        writer.finish(&mut out);
        assert_eq!(out[..], [0, 0xFF, 0, 0, 0xFE, 0, 0xFF, 0]);
    }
}
