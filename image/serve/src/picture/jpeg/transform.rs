//! Pixels to symbols: colours, cosine transform, quantization.
//!
//! Plain loops over arrays that the compiler makes vectors of; built twice, for any processor and for those with AVX2.

use std::ops::{Add, Mul, Sub};

use super::ZIGZAG;
use super::huffman::Symbols;

/// A block of 8x8 samples or coefficients, by row.
type Block = [[i32; 8]; 8];

/// The symbols of a picture of RGB samples that fill it.
pub(super) fn symbols(samples: &[u8], width: usize, height: usize, tables: &[[u8; 64]; 2]) -> Symbols {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("lzcnt") && is_x86_feature_detected!("bmi2") {
        #[allow(unsafe_code, reason = "a function for certain processors can be called no other way")]
        // SAFETY: the processor has what the function is built for.
        return unsafe { with_avx2(samples, width, height, tables) };
    }
    with_any(samples, width, height, tables)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,lzcnt,bmi2")]
fn with_avx2(samples: &[u8], width: usize, height: usize, tables: &[[u8; 64]; 2]) -> Symbols {
    with_any(samples, width, height, tables)
}

#[inline(always)]
fn with_any(samples: &[u8], width: usize, height: usize, tables: &[[u8; 64]; 2]) -> Symbols {
    let [luma, chroma] = tables.each_ref().map(Quantizer::new);
    // As many as a photo has at quality 90.
    let mut symbols = Symbols::with_capacity(width * height * 5 / 8);
    let mut band = Band::new(width);
    let mut before = [0i32; 3];
    for top in (0..height).step_by(16) {
        band.fill(samples, width, height, top);
        for left in (0..band.stride).step_by(16) {
            for (x, y) in [(0, 0), (8, 0), (0, 8), (8, 8)] {
                let block = block(&band.luma, band.stride, left + x, y);
                luma.push(&mut symbols, block, &mut before[0], false);
            }
            for (plane, before) in band.chroma.iter().zip(&mut before[1..]) {
                let block = block(plane, band.stride / 2, left / 2, 0);
                chroma.push(&mut symbols, block, before, true);
            }
        }
    }
    symbols
}

#[inline(always)]
fn block(plane: &[i16], stride: usize, left: usize, top: usize) -> Block {
    let mut block = [[0; 8]; 8];
    for (row, y) in block.iter_mut().zip(top..) {
        for (sample, from) in row.iter_mut().zip(&plane[y * stride + left..][..8]) {
            *sample = (*from).into();
        }
    }
    block
}

/// Sixteen rows in luma, and eight in chroma, from -128 to 127.
struct Band {
    /// A multiple of 16.
    stride: usize,
    luma: Vec<i16>,
    chroma: [Vec<i16>; 2],
    /// Two rows of chroma at full resolution, from 0 to 255.
    fine: [Vec<i16>; 2],
    /// One row of pixels, filled up to the stride.
    row: Vec<[u8; 3]>,
}

impl Band {
    fn new(width: usize) -> Band {
        let stride = width.next_multiple_of(16);
        let plane = |rows: usize| vec![0; stride * rows];
        Band {
            stride,
            luma: plane(16),
            chroma: [plane(4), plane(4)],
            fine: [plane(2), plane(2)],
            row: vec![[0; 3]; stride],
        }
    }

    /// Fills it from a row of the picture on; what lies outside repeats the last column and row.
    #[inline(always)]
    fn fill(&mut self, samples: &[u8], width: usize, height: usize, top: usize) {
        let stride = self.stride;
        for y in 0..16 {
            let from = &samples[(top + y).min(height - 1) * width * 3..][..width * 3];
            self.row[..width].copy_from_slice(from.as_chunks().0);
            let last = self.row[width - 1];
            self.row[width..].fill(last);
            let half = y % 2 * stride;
            let luma = &mut self.luma[y * stride..][..stride];
            let [blue, red] = &mut self.fine;
            let fine = blue[half..][..stride].iter_mut().zip(&mut red[half..][..stride]);
            for ((luma, (blue, red)), pixel) in luma.iter_mut().zip(fine).zip(&self.row) {
                let [r, g, b] = pixel.map(i32::from);
                // JFIF's factors in 65536ths, those of each line adding up to 65536 or 0.
                *luma = ((19_595 * r + 38_470 * g + 7_471 * b + 32_768) >> 16) as i16 - 128;
                *blue = ((-11_059 * r - 21_709 * g + 32_768 * b + (128 << 16) + 32_767) >> 16) as i16;
                *red = ((32_768 * r - 27_439 * g - 5_329 * b + (128 << 16) + 32_767) >> 16) as i16;
            }
            if y % 2 == 1 {
                for (plane, fine) in self.chroma.iter_mut().zip(&self.fine) {
                    let (upper, lower) = fine.split_at(stride);
                    let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                    let out = plane[y / 2 * stride / 2..][..stride / 2].iter_mut();
                    for (x, (out, ([a, b], [c, d]))) in out.zip(pairs).enumerate() {
                        // Halves are rounded down and up in turn, so that the mean stays.
                        *out = ((a + b + c + d + 1 + (x & 1) as i16) >> 2) - 128;
                    }
                }
            }
        }
    }
}

/// From here on an `f32` has no fraction.
const WHOLE: f32 = 8_388_608.0;

/// Divides by the steps of a table.
struct Quantizer {
    /// By column, as the transform leaves its coefficients: half of eight steps, and one over eight steps.
    half: [[f32; 8]; 8],
    inverse: [[f32; 8]; 8],
}

impl Quantizer {
    fn new(table: &[u8; 64]) -> Quantizer {
        // The transform's results are eight times too large.
        let steps = |row: usize, column: usize| u16::from(table[8 * column + row]) * 8;
        let map = |to: fn(u16) -> f32| std::array::from_fn(|row| std::array::from_fn(|column| to(steps(row, column))));
        // The half more keeps the product with the inverse, which is not exact, above the whole number that is meant.
        Quantizer { half: map(|step| f32::from(step / 2) + 0.5), inverse: map(|step| 1.0 / f32::from(step)) }
    }

    #[inline(always)]
    fn push(&self, symbols: &mut Symbols, block: Block, before: &mut i32, chroma: bool) {
        let coefficients = transform(block);
        let mut quantized = [0i16; 64];
        for (row, out) in quantized.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                let value = coefficients[row][column];
                let size = (value.abs() as f32 + self.half[row][column]) * self.inverse[row][column];
                // Rounds down, and leaves the number in the low bits: a conversion would check its range each time.
                let size = ((size - 0.5 + WHOLE).to_bits() & 0xFFFF) as i32;
                let sign = value >> 31;
                *out = ((size ^ sign) - sign) as i16;
            }
        }
        let mut nonzero = [(0u8, 0i16); 64];
        let mut count = 0;
        for place in 1..64u8 {
            let value = quantized[TRANSPOSED[usize::from(place)]];
            nonzero[count & 63] = (place, value);
            count += usize::from(value != 0);
        }
        let first = i32::from(quantized[0]);
        symbols.push(first - *before, &nonzero[..count], chroma);
        *before = first;
    }
}

/// The zigzag's places in a block that lies by column.
const TRANSPOSED: [usize; 64] = {
    let mut places = [0; 64];
    let mut at = 0;
    while at < 64 {
        let place = ZIGZAG[at] as usize;
        places[at] = place % 8 * 8 + place / 8;
        at += 1;
    }
    places
};

/// The cosine transform, eight times too large and by column, in whole numbers (Loeffler, Ligtenberg and Moschytz, 1989).
#[inline(always)]
fn transform(block: Block) -> Block {
    let columns = pass::<false>(block.map(Lanes));
    let mut turned = [[0; 8]; 8];
    for (y, row) in turned.iter_mut().enumerate() {
        for (x, out) in row.iter_mut().enumerate() {
            *out = columns[x].0[y];
        }
    }
    pass::<true>(turned.map(Lanes)).map(|lanes| lanes.0)
}

/// Eight transforms of eight values side by side.
#[inline(always)]
fn pass<const LAST: bool>(rows: [Lanes; 8]) -> [Lanes; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    // Cosines are in 8192ths; two bits more are kept between the passes.
    let cut = |value: Lanes| if LAST { value.rounded::<15>() } else { value.rounded::<11>() };
    let whole = |value: Lanes| if LAST { value.rounded::<2>() } else { value * 4 };

    let (sum0, sum1, sum2, sum3) = (r0 + r7, r1 + r6, r2 + r5, r3 + r4);
    let (difference0, difference1, difference2, difference3) = (r0 - r7, r1 - r6, r2 - r5, r3 - r4);

    // Even: a butterfly, and a turn by 6/16 of pi.
    let (outer, inner) = (sum0 + sum3, sum1 + sum2);
    let (outer_odd, inner_odd) = (sum0 - sum3, sum1 - sum2);
    let turn = (outer_odd + inner_odd) * 4_433;

    // Odd: twelve products.
    let (a, b) = ((difference3 + difference0) * -7_373, (difference2 + difference1) * -20_995);
    let (c, d) = (difference3 + difference1, difference2 + difference0);
    let common = (c + d) * 9_633;
    let (c, d) = (c * -16_069 + common, d * -3_196 + common);
    [
        whole(outer + inner),
        cut(difference0 * 12_299 + a + d),
        cut(turn + outer_odd * 6_270),
        cut(difference1 * 25_172 + b + c),
        whole(outer - inner),
        cut(difference2 * 16_819 + b + d),
        cut(turn - inner_odd * 15_137),
        cut(difference3 * 2_446 + a + c),
    ]
}

/// Eight numbers that the compiler keeps in one or two registers.
#[derive(Clone, Copy)]
struct Lanes([i32; 8]);

impl Lanes {
    /// Divided by a power of two, halves up.
    #[inline(always)]
    fn rounded<const BITS: u32>(self) -> Lanes {
        Lanes(self.0.map(|lane| (lane + (1 << (BITS - 1))) >> BITS))
    }
}

impl Add for Lanes {
    type Output = Lanes;

    #[inline(always)]
    fn add(self, other: Lanes) -> Lanes {
        Lanes(std::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
}

impl Sub for Lanes {
    type Output = Lanes;

    #[inline(always)]
    fn sub(self, other: Lanes) -> Lanes {
        Lanes(std::array::from_fn(|lane| self.0[lane] - other.0[lane]))
    }
}

impl Mul<i32> for Lanes {
    type Output = Lanes;

    #[inline(always)]
    fn mul(self, factor: i32) -> Lanes {
        Lanes(self.0.map(|lane| lane * factor))
    }
}
