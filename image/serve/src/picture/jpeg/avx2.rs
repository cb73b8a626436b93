//! The same as [`super::unit`], bit for bit, for x86-64 with AVX2: two blocks at once in lanes of 16 bits.
//!
//! One vector holds a row of two blocks, the left or blue one in its lower half; no step before the last crosses halves.

#![allow(unsafe_code, reason = "loads and stores of vectors take pointers")]

use std::arch::x86_64::*;

use super::unit::{Steps, TRANSPOSED, Unit};

/// Two blocks by row.
type Pair = [__m256i; 8];

/// A unit from pixels of RGB, 16 rows that lie `stride` bytes apart.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
pub(super) fn fill(pixels: &[u8], stride: usize, divisors: &Divisors, unit: &mut Unit) {
    let bias = _mm256_set1_epi64x(0x0000_0002_0000_0001);
    let middle = _mm256_set1_epi16(128);
    let ones = _mm256_set1_epi16(1);
    let mut luma = [[_mm256_setzero_si256(); 8]; 2];
    let mut chroma = [_mm256_setzero_si256(); 8];
    for y in 0..8 {
        let upper = colours(row(pixels, 2 * y, stride));
        let lower = colours(row(pixels, 2 * y + 1, stride));
        luma[y / 4][2 * y % 8] = _mm256_sub_epi16(upper[0], middle);
        luma[y / 4][2 * y % 8 + 1] = _mm256_sub_epi16(lower[0], middle);
        let [blue, red] = [1, 2].map(|plane| {
            let sums = _mm256_madd_epi16(_mm256_add_epi16(upper[plane], lower[plane]), ones);
            _mm256_srai_epi32::<2>(_mm256_add_epi32(sums, bias))
        });
        let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(blue, red));
        chroma[y] = _mm256_sub_epi16(both, middle);
    }
    let Divisors([luma_steps, chroma_steps]) = divisors;
    let pairs = [(luma[0], luma_steps), (luma[1], luma_steps), (chroma, chroma_steps)];
    let (blocks, masks) = (unit.blocks.as_chunks_mut().0, unit.nonzero.as_chunks_mut().0);
    for (((pair, divisor), blocks), masks) in pairs.into_iter().zip(blocks).zip(masks) {
        let quantized = divisor.divide(transform(pair));
        *masks = nonzero(&quantized);
        store(quantized, blocks);
    }
}

/// A row of 16 pixels.
#[target_feature(enable = "avx2")]
fn row(pixels: &[u8], y: usize, stride: usize) -> &[u8; 48] {
    &pixels[y * stride..].as_chunks().0[0]
}

/// Luma and chroma of 16 pixels, from 0 to 255, by the same sums as the portable path.
#[target_feature(enable = "avx2")]
fn colours(row: &[u8; 48]) -> [__m256i; 3] {
    // Four pixels in each half, so that packing leaves eight in order in each.
    let near = [load::<0>(row), load::<8>(row)];
    let far = [load::<24>(row), load::<32>(row)];
    let mut sums = [[_mm256_setzero_si256(); 3]; 2];
    for (part, sums) in sums.iter_mut().enumerate() {
        let four = _mm256_set_m128i(far[part], near[part]);
        let o = 4 * part as i8;
        let red_green = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            o,
            -1,
            o + 1,
            -1,
            o + 3,
            -1,
            o + 4,
            -1,
            o + 6,
            -1,
            o + 7,
            -1,
            o + 9,
            -1,
            o + 10,
            -1,
        ));
        let blue_green = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            o + 2,
            -1,
            o + 1,
            -1,
            o + 5,
            -1,
            o + 4,
            -1,
            o + 8,
            -1,
            o + 7,
            -1,
            o + 11,
            -1,
            o + 10,
            -1,
        ));
        let (rg, bg) = (_mm256_shuffle_epi8(four, red_green), _mm256_shuffle_epi8(four, blue_green));
        let pair = |low: i16, high: i16| _mm256_set1_epi32(i32::from(high) << 16 | i32::from(low) & 0xFFFF);
        // Times 32768, which no signed lane of 16 bits holds.
        let half = |value| _mm256_srli_epi32::<1>(_mm256_slli_epi32::<16>(value));
        let round =
            |a, b, half| _mm256_srai_epi32::<16>(_mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_set1_epi32(half)));
        // Green's 38470 is split in two.
        sums[0] =
            round(_mm256_madd_epi16(rg, pair(19_595, 19_235)), _mm256_madd_epi16(bg, pair(7_471, 19_235)), 32_768);
        sums[1] = round(_mm256_madd_epi16(rg, pair(-11_059, -21_709)), half(bg), (128 << 16) + 32_767);
        sums[2] = round(_mm256_madd_epi16(bg, pair(-5_329, -27_439)), half(rg), (128 << 16) + 32_767);
    }
    [0, 1, 2].map(|plane| _mm256_packs_epi32(sums[0][plane], sums[1][plane]))
}

/// Sixteen bytes of a row.
#[target_feature(enable = "avx2")]
fn load<const AT: usize>(row: &[u8; 48]) -> __m128i {
    const { assert!(AT + 16 <= 48) };
    // SAFETY: the bytes lie within the row, as asserted, and the load needs no alignment.
    unsafe { _mm_loadu_si128(row.as_ptr().add(AT).cast()) }
}

/// The cosine transform, eight times too large and by column.
#[target_feature(enable = "avx2")]
fn transform(pair: Pair) -> Pair {
    pass::<true>(turned(pass::<false>(pair)))
}

/// Columns become rows.
#[target_feature(enable = "avx2")]
fn turned(pair: Pair) -> Pair {
    let low16 = |a: usize, b: usize| _mm256_unpacklo_epi16(pair[a], pair[b]);
    let high16 = |a: usize, b: usize| _mm256_unpackhi_epi16(pair[a], pair[b]);
    let (a, b, c, d) = (low16(0, 1), low16(2, 3), low16(4, 5), low16(6, 7));
    let (e, f, g, h) = (high16(0, 1), high16(2, 3), high16(4, 5), high16(6, 7));
    let quarter = |first, second, third, fourth| {
        let (a, b) = (_mm256_unpacklo_epi32(first, second), _mm256_unpackhi_epi32(first, second));
        let (c, d) = (_mm256_unpacklo_epi32(third, fourth), _mm256_unpackhi_epi32(third, fourth));
        [
            _mm256_unpacklo_epi64(a, c),
            _mm256_unpackhi_epi64(a, c),
            _mm256_unpacklo_epi64(b, d),
            _mm256_unpackhi_epi64(b, d),
        ]
    };
    let ([r0, r1, r2, r3], [r4, r5, r6, r7]) = (quarter(a, b, c, d), quarter(e, f, g, h));
    [r0, r1, r2, r3, r4, r5, r6, r7]
}

/// The portable pass with each sum of two products as one instruction; its factors are that pass's, added up.
#[target_feature(enable = "avx2")]
fn pass<const LAST: bool>(pair: Pair) -> Pair {
    let add = |a, b| _mm256_add_epi16(a, b);
    let subtract = |a, b| _mm256_sub_epi16(a, b);
    let whole = |value| {
        if LAST { _mm256_srai_epi16::<2>(add(value, _mm256_set1_epi16(2))) } else { _mm256_slli_epi16::<2>(value) }
    };
    let mix = |a: __m256i, b: __m256i, low: i16, high: i16| {
        let factors = _mm256_set1_epi32(i32::from(high) << 16 | i32::from(low) & 0xFFFF);
        let low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), factors);
        [low, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), factors)]
    };
    let cut = |[low, high]: [__m256i; 2]| {
        let round = |value| {
            if LAST {
                _mm256_srai_epi32::<15>(_mm256_add_epi32(value, _mm256_set1_epi32(1 << 14)))
            } else {
                _mm256_srai_epi32::<11>(_mm256_add_epi32(value, _mm256_set1_epi32(1 << 10)))
            }
        };
        _mm256_packs_epi32(round(low), round(high))
    };
    let both = |a: [__m256i; 2], b: [__m256i; 2]| [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])];

    let [r0, r1, r2, r3, r4, r5, r6, r7] = pair;
    let (sum0, sum1, sum2, sum3) = (add(r0, r7), add(r1, r6), add(r2, r5), add(r3, r4));
    let (d0, d1, d2, d3) = (subtract(r0, r7), subtract(r1, r6), subtract(r2, r5), subtract(r3, r4));
    let (outer, inner) = (add(sum0, sum3), add(sum1, sum2));
    let (outer_odd, inner_odd) = (subtract(sum0, sum3), subtract(sum1, sum2));
    let (c, d) = (add(d3, d1), add(d2, d0));
    let (c, d) = (mix(c, d, -6_436, 9_633), mix(c, d, 9_633, 6_437));
    [
        whole(add(outer, inner)),
        cut(both(mix(d0, d3, 4_926, -7_373), d)),
        cut(mix(outer_odd, inner_odd, 10_703, 4_433)),
        cut(both(mix(d1, d2, 4_177, -20_995), c)),
        whole(subtract(outer, inner)),
        cut(both(mix(d2, d1, -4_176, -20_995), d)),
        cut(mix(outer_odd, inner_odd, 4_433, -10_704)),
        cut(both(mix(d3, d0, -4_927, -7_373), c)),
    ]
}

/// Divides coefficients by eight steps each, halves away from zero: exactly, by multiplying twice.
///
/// With a size of less than 2^14 after dropping three bits, and a step of `b` + 1 bits, the whole part of the quotient
/// is that of size x ceil(2^(15+b) / step) / 2^(15+b): the error of the factor is too small to reach the next one.
struct Divisor {
    half: Pair,
    factor: Pair,
    shift: Pair,
}

/// For luma and chroma.
pub(super) struct Divisors([Divisor; 2]);

impl Divisors {
    #[target_feature(enable = "avx2")]
    pub(super) fn new(steps: &Steps) -> Divisors {
        Divisors([Divisor::new(&steps.0[0]), Divisor::new(&steps.0[1])])
    }
}

impl Divisor {
    #[target_feature(enable = "avx2")]
    fn new(steps: &[[u16; 8]; 8]) -> Divisor {
        let each = |to: fn(u32) -> u32| {
            steps.map(|row| {
                let [a, b, c, d, e, f, g, h] = row.map(|step| to(step.into()) as u16 as i16);
                _mm256_broadcastsi128_si256(_mm_setr_epi16(a, b, c, d, e, f, g, h))
            })
        };
        Divisor {
            half: each(|step| step * 4),
            factor: each(|step| (1u32 << (15 + step.ilog2())).div_ceil(step)),
            // The first product is cut by 13 bits, the second by the rest.
            shift: each(|step| 1 << (14 - step.ilog2())),
        }
    }

    #[target_feature(enable = "avx2")]
    fn divide(&self, pair: Pair) -> Pair {
        let mut out = pair;
        for (row, value) in out.iter_mut().enumerate() {
            let size = _mm256_add_epi16(_mm256_abs_epi16(*value), self.half[row]);
            let size = _mm256_and_si256(size, _mm256_set1_epi16(!7));
            let size = _mm256_mulhi_epu16(_mm256_mulhi_epu16(size, self.factor[row]), self.shift[row]);
            *value = _mm256_sign_epi16(size, *value);
        }
        out
    }
}

/// Stores the two blocks, each by column.
#[target_feature(enable = "avx2")]
fn store(pair: Pair, [left, right]: &mut [[i16; 64]; 2]) {
    let columns = left.as_chunks_mut::<8>().0.iter_mut().zip(right.as_chunks_mut::<8>().0);
    for (both, (left, right)) in pair.into_iter().zip(columns) {
        // SAFETY: sixteen bytes each are borrowed for writing, and the stores need no alignment.
        unsafe {
            _mm_storeu_si128(left.as_mut_ptr().cast(), _mm256_castsi256_si128(both));
            _mm_storeu_si128(right.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(both));
        }
    }
}

/// For each sixteen places of the zigzag and each two columns: where among those two each place is, or none (-1).
const SHUFFLES: [[[i8; 16]; 4]; 4] = {
    let mut shuffles = [[[-1; 16]; 4]; 4];
    let mut place = 0;
    while place < 64 {
        let from = TRANSPOSED[place];
        shuffles[place / 16][(from / 16) as usize][place % 16] = (from % 16) as i8;
        place += 1;
    }
    shuffles
};

/// For each of two blocks a bit for each coefficient that is not zero, in zigzag order.
#[target_feature(enable = "avx2")]
fn nonzero(pair: &Pair) -> [u64; 2] {
    let zero = _mm256_setzero_si256();
    // Two columns of each block as bytes: all ones where there is a zero, which packing keeps apart from the others.
    let zeros = [0, 2, 4, 6].map(|at| _mm256_cmpeq_epi8(_mm256_packs_epi16(pair[at], pair[at + 1]), zero));
    let mut masks = [0; 2];
    for (part, shuffles) in SHUFFLES.iter().enumerate() {
        let mut sixteen = zero;
        for (zeros, shuffle) in zeros.iter().zip(shuffles) {
            // SAFETY: sixteen bytes are borrowed, and the load needs no alignment.
            let shuffle = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(shuffle.as_ptr().cast()) });
            sixteen = _mm256_or_si256(sixteen, _mm256_shuffle_epi8(*zeros, shuffle));
        }
        let both = !_mm256_movemask_epi8(sixteen) as u32;
        masks[0] |= u64::from(both & 0xFFFF) << (16 * part);
        masks[1] |= u64::from(both >> 16) << (16 * part);
    }
    masks
}
