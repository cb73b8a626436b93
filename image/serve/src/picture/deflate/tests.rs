use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::*;

/// Compressed at a level, in blocks as zlib makes them.
fn compressed(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).expect("writes");
    encoder.finish().expect("ends")
}

/// Given in pieces, taken with leftovers.
fn inflated(data: &[u8], piece: usize, leave: usize) -> Option<Vec<u8>> {
    let (mut rest, mut out) = (data, Vec::new());
    inflate(
        |room| {
            let (some, after) = rest.split_at(rest.len().min(piece).min(room.len()));
            room[..some.len()].copy_from_slice(some);
            rest = after;
            Some(some.len())
        },
        leave,
        |bytes| {
            let take = bytes.len() - bytes.len() % leave;
            out.extend_from_slice(&bytes[..take]);
            Some(take)
        },
    )?;
    Some(out)
}

fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Bytes of some kind: 0 like the rows of a photo, 1 noise, 2 words that come again, 3 runs, 4 everything in turn.
fn content(kind: u8, length: usize, seed: u64) -> Vec<u8> {
    let mut number = numbers(seed);
    let mut out = Vec::with_capacity(length + 300);
    while out.len() < length {
        let kind = if kind == 4 { (out.len() / 20_000 % 4) as u8 } else { kind };
        match kind {
            0 => out.push((0..4).map(|part| number() >> (8 * part) & 31).sum::<u64>() as u8),
            1 => out.push(number() as u8),
            2 => {
                let from = (number() as usize).checked_rem(out.len()).unwrap_or(0);
                let to = out.len().min(from + number() as usize % 60);
                out.extend_from_within(from..to);
                out.push(number() as u8 % 9);
            }
            _ => out.extend(std::iter::repeat_n(number() as u8 % 5, 1 + number() as usize % 290)),
        }
    }
    out.truncate(length);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_compressed_comes_back(
        kind in 0u8..5,
        length in prop_oneof![0usize..300, 60_000usize..120_000],
        seed: u64,
        level in 0u32..10,
        piece in prop_oneof![1usize..50, 1000usize..100_000],
        leave in 1usize..4000,
    ) {
        let mut bytes = content(kind, length, seed);
        bytes.truncate(length / leave * leave);
        prop_assert!(inflated(&compressed(&bytes, level), piece, leave) == Some(bytes));
    }

    /// Whatever is taken is what zlib makes of it, to the last byte.
    #[test]
    fn damage_is_found(
        kind in 0u8..5,
        length in prop_oneof![0usize..300, 30_000usize..60_000],
        seed: u64,
        level in 0u32..10,
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let sound = compressed(&content(kind, length, seed), level);
        let mut data = sound.clone();
        for (place, value) in places {
            data[place.index(sound.len())] = value;
        }
        if let Some(out) = inflated(&data, 5000, 1) {
            let mut decoder = flate2::write::ZlibDecoder::new(Vec::new());
            prop_assert!(decoder.write_all(&data).is_ok() && decoder.total_in() == data.len() as u64);
            prop_assert!(decoder.finish().is_ok_and(|theirs| theirs == out));
        }
        prop_assert!(inflated(&sound[..cut.index(sound.len())], 5000, 1).is_none());
        prop_assert!(inflated(&[&sound[..], &[0]].concat(), 5000, 1).is_none());
    }
}

#[test]
fn no_part_of_a_stream_is_a_stream() {
    for (kind, level) in [(0, 4), (1, 0), (2, 9), (3, 4)] {
        let data = compressed(&content(kind, 2000, 7), level);
        assert!((0..data.len()).all(|length| inflated(&data[..length], 5000, 1).is_none()), "{kind}");
    }
}

/// Writes bits, the lowest first.
#[derive(Default)]
struct Written(Vec<u8>, usize);

impl Written {
    fn put(&mut self, bits: u32, count: usize) {
        for at in 0..count {
            if self.1.is_multiple_of(8) {
                self.0.push(0);
            }
            *self.0.last_mut().expect("a byte") |= ((bits >> at & 1) as u8) << (self.1 % 8);
            self.1 += 1;
        }
    }
}

/// A zlib stream of one block with the fixed codes, from words and their lengths, and the sum of what it should make.
fn fixed(words: &[(u32, usize)], out: &[u8]) -> Vec<u8> {
    let mut written = Written(vec![0x78, 0x01], 16);
    written.put(0b011, 3);
    for (word, count) in words {
        // Words begin with their highest bit.
        written.put(word.reverse_bits() >> (32 - count), *count);
    }
    written.put(0, 7);
    let mut data = written.0;
    let mut sum = simd_adler32::Adler32::new();
    sum.write(out);
    data.extend(sum.finish().to_be_bytes());
    data
}

#[test]
fn copies_reach_back_as_far_as_there_is_something() {
    // The letter a is 0x30 + 97 in eight bits; length 3 is 1 in seven; distances are five bits.
    let a = (0x30 + 97, 8);
    let all = |data: &[u8]| inflated(data, 100, 1);
    assert_eq!(all(&fixed(&[a, (1, 7), (0, 5)], b"aaaa")).as_deref(), Some(&b"aaaa"[..]));
    assert_eq!(all(&fixed(&[a, a, (1, 7), (1, 5)], b"aaaaa")).as_deref(), Some(&b"aaaaa"[..]));
    // One too far; with nothing there at all; symbols that stand for nothing, near and far.
    assert_eq!(all(&fixed(&[a, (1, 7), (1, 5)], b"aaaa")), None);
    assert_eq!(all(&fixed(&[(1, 7), (0, 5)], b"")), None);
    assert_eq!(all(&fixed(&[a, (0b1100_0110, 8), (0, 5)], b"a")), None);
    assert_eq!(all(&fixed(&[a, (1, 7), (30, 5)], b"aaaa")), None);
    // The sum is compared.
    assert_eq!(all(&fixed(&[a, a], b"ab")), None);
}

#[test]
fn heads_that_are_none() {
    let sound = compressed(b"abc", 6);
    let with = |head: [u8; 2]| inflated(&[&head, &sound[2..]].concat(), 100, 1).is_some();
    assert!(with([0x78, 0x01]) && with([0x78, 0xDA]) && with([0x18, 0x19]));
    // Other check bits, another method, a window too large, a dictionary.
    assert!(!with([0x78, 0x02]) && !with([0x79, 0x00]) && !with([0x88, 0x1C]) && !with([0x78, 0x20]));
    // A block of a kind that is none, and one without code whose length is not confirmed.
    assert!(inflated(&[0x78, 0x01, 0b111, 0, 0, 0, 0, 1], 100, 1).is_none());
    assert!(inflated(&[0x78, 0x01, 1, 1, 0, 0xFE, 0xFE, 7, 0, 8, 0, 8], 100, 1).is_none());
    assert_eq!(inflated(&[0x78, 0x01, 1, 1, 0, 0xFE, 0xFF, 7, 0, 8, 0, 8], 100, 1), Some(vec![7]));
}

/// An input in its first block behind its head, and a place for what comes of it.
#[allow(clippy::type_complexity, reason = "closures have no name that could be given")]
fn begun<'a>(
    data: &'a [u8],
) -> (Input<impl FnMut(&mut [u8]) -> Option<usize> + 'a>, Output<impl FnMut(&[u8]) -> Option<usize>>, Codes) {
    let mut rest = data;
    let more = move |room: &mut [u8]| {
        let (some, after) = rest.split_at(rest.len().min(room.len()));
        room[..some.len()].copy_from_slice(some);
        rest = after;
        Some(some.len())
    };
    let mut input = Input { more, ahead: Ahead::new(), filled: 0, ended: false, at: 0, dropped: 0 };
    let (take, sum) = (|_: &[u8]| Some(0), simd_adler32::Adler32::new());
    let output = Output { take, bytes: vec![0; 400_000], filled: 0, taken: 0, summed: 0, sum };
    let mut codes = Codes::new();
    input.fetch(LONGEST_HEAD).expect("there");
    assert_eq!((input.bits(16) & 0xFF, input.bits(1), input.bits(2)), (0x78, 0, 2));
    head(&mut input, &mut codes).expect("codes");
    (input, output, codes)
}

#[test]
fn a_race_finds_the_same_as_one_alone() {
    let bytes = content(0, 100_000, 3);
    let data = compressed(&bytes, 4);
    let (mut input, mut output, codes) = begun(&data);
    assert!(input.ahead.worth(&codes));
    let mut races = 0;
    loop {
        match race::run(&mut input, &mut output, &codes, 0).expect("sound") {
            race::Outcome::Went => races += 1,
            race::Outcome::Ended => break,
            race::Outcome::Vain | race::Outcome::Not => panic!("not after {races}"),
        }
        assert!(output.bytes[..output.filled] == bytes[..output.filled], "after {races}");
    }
    // Of a block that zlib ends after some 16,000 or 32,000 words.
    assert!(output.filled > 16_000 && bytes.starts_with(&output.bytes[..output.filled]));
    assert!(races > 0 && output.filled / (races + 1) > 6_000, "{races}");
}

#[test]
fn words_of_equal_length_are_not_raced_for_long() {
    // 128 values, of which no word is shorter than another; the end of the block makes one longer.
    let mut number = numbers(9);
    let bytes = (0..100_000).map(|_| 2 * (number() % 128) as u8).collect::<Vec<_>>();
    let data = compressed(&bytes, 4);
    let (mut input, mut output, codes) = begun(&data);
    assert!(input.ahead.worth(&codes));
    assert!(matches!(race::run(&mut input, &mut output, &codes, 0), Some(race::Outcome::Vain | race::Outcome::Went)));
    assert!(inflated(&data, 10_000, 1) == Some(bytes));
}

#[test]
fn races_are_the_same_on_any_processor() {
    for seed in 0..5 {
        let data = compressed(&content(0, 60_000, seed), 6);
        let (mut input, _, codes) = begun(&data);
        race::compare(&mut input.ahead, &codes, input.at, 7_001 + 13 * seed as usize);
    }
}
