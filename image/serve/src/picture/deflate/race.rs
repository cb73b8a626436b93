//! Several decoders at once in one block of literals.

use super::codes::{Codes, Literals, Next, SIZE, SPECIAL, Word};
use super::{INPUT, Input, LONGEST_COPY, Output, SLACK, load, write};

/// How many run at once. By measurement: four wait longer, and six are as many as stay in registers.
const RUNNERS: usize = 6;
/// Words that are found without new bits: each is at most 11 of 57.
pub(super) const GROUP: usize = 5;
/// Words of each runner in one race at most.
const MOST: usize = 4000;
/// How far one runs at most, in bytes; shorter ones meet too often, longer ones run beyond the end of the block.
const LONGEST: usize = 2048;
/// And how far at least.
const SHORTEST: usize = 384;
/// Bits of the longest word with what follows it.
pub(super) const LONGEST_WORD: usize = 48;
/// How many words a runner may be out of step. Of the codes that photos have, most runners need ten to twenty.
const PATIENCE: usize = 160;
/// Blocks without a race after one that was in vain: words that are nearly all equally long, as noise has them, stay out
/// of step for long.
const PAUSE: u32 = 16;
/// Of 65536 words so many must be literals: others are recorded one by one.
const MOSTLY: u32 = 64_500;

/// What all runners read and write, in one piece: then one register holds the address of all of it.
pub(super) struct Ahead {
    course: Box<Course>,
    marks: [Vec<Mark>; RUNNERS],
    /// Blocks to come that are not worth it, as one before was not.
    pause: u32,
}

struct Course {
    literals: Literals,
    input: [u8; INPUT + SLACK],
    found: [[u8; MOST]; RUNNERS],
}

/// A word that is no literal.
struct Mark {
    /// How many words were before it.
    at: usize,
    word: Option<Word>,
    /// Where it ends in the input, in bits.
    end: usize,
}

impl Ahead {
    pub(super) fn new() -> Ahead {
        let (input, found) = ([0; INPUT + SLACK], [[0; MOST]; RUNNERS]);
        Ahead {
            course: Box::new(Course { literals: Literals::EMPTY, input, found }),
            marks: Default::default(),
            pause: 0,
        }
    }

    /// Whether a block with these codes is worth it.
    pub(super) fn worth(&mut self, codes: &Codes) -> bool {
        let ready = self.pause == 0;
        self.pause = self.pause.saturating_sub(1);
        ready && codes.literals >= MOSTLY
    }

    pub(super) fn literals(&mut self) -> &mut Literals {
        &mut self.course.literals
    }

    pub(super) fn input(&mut self) -> &mut [u8; INPUT + SLACK] {
        &mut self.course.input
    }

    /// The table and the input.
    pub(super) fn parts(&self) -> (&Literals, &[u8]) {
        (&self.course.literals, &self.course.input)
    }
}

/// What came of a race.
pub(super) enum Outcome {
    /// The block ended.
    Ended,
    /// It goes on.
    Went,
    /// It goes on, but half of them did not fall into step: this code is not fit for races.
    Vain,
    /// Nothing was done.
    Not,
}

/// Runs one race from the next word on. `end` is where the block is thought to end.
pub(super) fn run<M, T>(input: &mut Input<M>, output: &mut Output<T>, codes: &Codes, end: usize) -> Option<Outcome>
where
    M: FnMut(&mut [u8]) -> Option<usize>,
    T: FnMut(&[u8]) -> Option<usize>,
{
    // All races of a block of equal length, if its end is known and they do not become too short.
    let left = end.saturating_sub(input.position()) / 8;
    let even = left / RUNNERS / left.div_ceil(RUNNERS * LONGEST).max(1);
    let bytes = if even < SHORTEST { LONGEST } else { even + 16 };
    let words = (8 * bytes * 65_536 / codes.mean as usize).min(MOST) / GROUP * GROUP;
    let lane = words * codes.mean as usize / 65_536;
    // Where words are longer than the mean more is read.
    if !input.fetch(lane * RUNNERS / 8 * 9 / 8 + 64)? {
        return Some(Outcome::Not);
    }
    let known = 8 * input.filled;
    let starts: [usize; RUNNERS] = std::array::from_fn(|runner| input.at + runner * lane);
    let ends = race(&mut input.ahead, codes, starts, words);
    let mut lost = 0;
    for runner in 0..RUNNERS {
        let from = match runner {
            0 => Some(0),
            _ => match meet(input, output, codes, starts[runner], words.min(PATIENCE))? {
                Met::Ended => return Some(Outcome::Ended),
                Met::After(from) => Some(from),
                Met::Never => None,
            },
        };
        let Some(from) = from else {
            lost += 1;
            continue;
        };
        // It has read what is not there yet.
        if ends[runner] + 64 > known {
            return Some(if runner == 0 { Outcome::Not } else { Outcome::Went });
        }
        let mut next = from;
        for mark in input.ahead.marks[runner].iter().filter(|mark| mark.at >= from) {
            output.room(mark.at - next + LONGEST_COPY)?;
            output.append(&input.ahead.course.found[runner][next..mark.at]);
            next = mark.at + 1;
            if write(mark.word?, output)? {
                input.at = mark.end;
                return Some(Outcome::Ended);
            }
        }
        output.room(words - next)?;
        output.append(&input.ahead.course.found[runner][next..words]);
        input.at = ends[runner];
    }
    if 2 * lost < RUNNERS {
        return Some(Outcome::Went);
    }
    input.ahead.pause = PAUSE;
    Some(Outcome::Vain)
}

/// How the right one and a runner meet.
enum Met {
    /// The block ended before.
    Ended,
    /// They are in step after so many of the runner's words.
    After(usize),
    Never,
}

/// Lets the right one, wherever it is, and a runner go on from its start, whoever is behind, until both are at the same
/// word.
fn meet<M, T>(input: &mut Input<M>, output: &mut Output<T>, codes: &Codes, start: usize, most: usize) -> Option<Met>
where
    M: FnMut(&mut [u8]) -> Option<usize>,
    T: FnMut(&[u8]) -> Option<usize>,
{
    let (mut other, mut steps) = (start, 0);
    output.room(LONGEST_COPY)?;
    while input.at != other {
        let (literals, bytes) = input.ahead.parts();
        if input.at < other {
            match literals.next(load(bytes, input.at)) {
                Next::Literal(literal, length) => {
                    output.push(literal);
                    input.at += length;
                }
                Next::Special(symbol, length) => {
                    let (word, length) = codes.special(symbol, length, load(bytes, input.at));
                    input.at += length;
                    if write(word?, output)? {
                        return input.sound().map(|()| Met::Ended);
                    }
                }
            }
            output.room(LONGEST_COPY)?;
            input.sound()?;
        } else if steps < most {
            let bits = load(bytes, other);
            other += match literals.next(bits) {
                Next::Literal(_, length) => length,
                Next::Special(symbol, length) => codes.special(symbol, length, bits).1,
            };
            steps += 1;
        } else {
            return Some(Met::Never);
        }
    }
    Some(Met::After(steps))
}

/// Finds so many words from each start on; where each runner is then. A multiple of [`GROUP`].
fn race(ahead: &mut Ahead, codes: &Codes, starts: [usize; RUNNERS], words: usize) -> [usize; RUNNERS] {
    ahead.marks.iter_mut().for_each(Vec::clear);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2") && is_x86_feature_detected!("lzcnt") {
        #[allow(unsafe_code, reason = "a function for certain processors can be called no other way")]
        // SAFETY: the processor has what the function is built for.
        return unsafe { race_with_bmi2(ahead, codes, starts, words) };
    }
    race_anywhere(ahead, codes, starts, words)
}

/// With shifts that need no certain register, and a count of zeros that is one instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2,lzcnt")]
fn race_with_bmi2(ahead: &mut Ahead, codes: &Codes, starts: [usize; RUNNERS], words: usize) -> [usize; RUNNERS] {
    race_anywhere(ahead, codes, starts, words)
}

/// Where one is. For each word one number changes and not two, so that those of all runners stay in registers.
#[derive(Clone, Copy)]
struct Runner {
    /// The bits to come, and above them a one: how far that has moved down says how many are gone.
    bits: u64,
    /// Where they are from.
    from: usize,
}

impl Runner {
    /// Above all bits that [`load`] vouches for.
    const MARK: u64 = 1 << 63;

    #[inline(always)]
    fn at(&self) -> usize {
        self.from + self.bits.leading_zeros() as usize
    }

    /// With new bits, from where it is.
    #[inline(always)]
    fn filled(from: usize, bits: u64) -> Runner {
        Runner { bits: bits | Runner::MARK, from }
    }
}

#[inline(always)]
fn race_anywhere(ahead: &mut Ahead, codes: &Codes, starts: [usize; RUNNERS], words: usize) -> [usize; RUNNERS] {
    let Ahead { course, marks, .. } = ahead;
    let course = &mut **course;
    let mut runners = starts.map(|from| Runner::filled(from, 0));
    let mut step = 0;
    // The second limit spares a check of each step.
    while step < words && step + GROUP <= MOST {
        for runner in &mut runners {
            let at = runner.at();
            // Where nothing is yet anything will do: what comes of it is not used.
            let eight = course.input[at / 8 % INPUT..].first_chunk();
            *runner = Runner::filled(at, eight.map_or(0, |eight| u64::from_le_bytes(*eight)) >> (at & 7));
        }
        // One after the other without a counter, which would need a register.
        words_at::<0>(course, codes, &mut runners, step, marks);
        words_at::<1>(course, codes, &mut runners, step, marks);
        words_at::<2>(course, codes, &mut runners, step, marks);
        words_at::<3>(course, codes, &mut runners, step, marks);
        words_at::<4>(course, codes, &mut runners, step, marks);
        step += GROUP;
    }
    runners.map(|runner| runner.at())
}

/// The next word of each runner, which is so many behind `step`.
#[inline(always)]
fn words_at<const PART: usize>(
    course: &mut Course,
    codes: &Codes,
    runners: &mut [Runner; RUNNERS],
    step: usize,
    marks: &mut [Vec<Mark>; RUNNERS],
) {
    const { assert!(PART < GROUP) };
    for (number, runner) in runners.iter_mut().enumerate() {
        let place = runner.bits as usize % SIZE;
        let length = course.literals.lengths[place];
        let mut literal = course.literals.symbols[place];
        if length & SPECIAL == 0 {
            runner.bits >>= length & 63;
        } else {
            let (literals, input) = (&course.literals, &course.input);
            let after;
            (literal, after) = special(literals, input, codes, runner.at(), step + PART, &mut marks[number]);
            *runner = Runner::filled(after, load(input, after));
        }
        course.found[number][step + PART] = literal;
    }
}

/// Reads a word that may be anything; its literal, if it is one, and where it ends. Otherwise it is marked.
#[cold]
#[inline(never)]
fn special(
    literals: &Literals,
    input: &[u8],
    codes: &Codes,
    at: usize,
    step: usize,
    marks: &mut Vec<Mark>,
) -> (u8, usize) {
    let (word, length) = codes.word(literals, load(input, at));
    if let Some(Word::Literal(literal)) = word {
        return (literal, at + length);
    }
    marks.push(Mark { at: step, word, end: at + length });
    (0, at + length)
}

#[cfg(test)]
pub(super) fn compare(ahead: &mut Ahead, codes: &Codes, at: usize, lane: usize) {
    let starts = std::array::from_fn(|runner| at + runner * lane);
    let mut each = [race, race_anywhere].map(|race| {
        ahead.course.found = [[0; MOST]; RUNNERS];
        let ends = race(ahead, codes, starts, 1000);
        let marks = ahead
            .marks
            .each_mut()
            .map(std::mem::take)
            .map(|marks| marks.into_iter().map(|mark| (mark.at, mark.word, mark.end)).collect::<Vec<_>>());
        (ends, ahead.course.found, marks)
    });
    assert!(each[0].0.iter().zip(starts).all(|(end, start)| *end > start + 1000));
    assert!(each[0] == each[1]);
    each[1].0 = starts;
}
