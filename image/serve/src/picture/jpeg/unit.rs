//! Units of 16x16 pixels to quantized coefficients: colours, cosine transform, quantization. For any processor.

use std::ops::{Add, Mul, Sub};

use super::ZIGZAG;

/// A block of 8x8 samples or coefficients, by row.
type Block = [[i32; 8]; 8];

/// What is coded together: four blocks of luma by row, then blue and red chroma at half the resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// By column, as the transform leaves them.
    pub(super) blocks: [[i16; 64]; 6],
    /// For each block a bit for each coefficient that is not zero, in zigzag order, the first lowest.
    pub(super) nonzero: [u64; 6],
}

impl Unit {
    pub(super) const EMPTY: Unit = Unit { blocks: [[0; 64]; 6], nonzero: [0; 6] };
}

/// The steps of luma and chroma, by column as the transform leaves its coefficients.
pub(super) struct Steps(pub(super) [[[u16; 8]; 8]; 2]);

impl Steps {
    pub(super) fn new(tables: &[[u8; 64]; 2]) -> Steps {
        Steps(
            tables
                .each_ref()
                .map(|table| std::array::from_fn(|row| std::array::from_fn(|column| table[8 * column + row].into()))),
        )
    }
}

/// A unit from pixels of RGB, 16 rows that lie `stride` bytes apart.
pub(super) fn fill(pixels: &[u8], stride: usize, steps: &Steps, unit: &mut Unit) {
    let mut luma = [[0; 16]; 16];
    let mut fine = [[[0; 16]; 16]; 2];
    for y in 0..16 {
        for (x, pixel) in pixels[y * stride..][..48].as_chunks::<3>().0.iter().enumerate() {
            let [r, g, b] = pixel.map(i32::from);
            // JFIF's factors in 65536ths, those of each line adding up to 65536 or 0.
            luma[y][x] = ((19_595 * r + 38_470 * g + 7_471 * b + 32_768) >> 16) - 128;
            fine[0][y][x] = (-11_059 * r - 21_709 * g + 32_768 * b + (128 << 16) + 32_767) >> 16;
            fine[1][y][x] = (32_768 * r - 27_439 * g - 5_329 * b + (128 << 16) + 32_767) >> 16;
        }
    }
    for (at, out) in unit.blocks.iter_mut().enumerate() {
        let block: Block = std::array::from_fn(|y| {
            std::array::from_fn(|x| {
                if at < 4 {
                    return luma[at / 2 * 8 + y][at % 2 * 8 + x];
                }
                let [upper, lower] = [fine[at - 4][2 * y], fine[at - 4][2 * y + 1]];
                let sum = upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1];
                // Halves are rounded down and up in turn, so that the mean stays.
                ((sum + 1 + (x as i32 & 1)) >> 2) - 128
            })
        });
        let (coefficients, steps) = (transform(block), &steps.0[at / 4]);
        unit.nonzero[at] = 0;
        for (place, from) in TRANSPOSED.into_iter().map(usize::from).enumerate() {
            let (value, step) = (coefficients[from / 8][from % 8], i32::from(steps[from / 8][from % 8]));
            // The transform's results are eight times too large; halves are rounded away from zero.
            let size = (value.abs() + 4 * step) / (8 * step);
            out[from] = (size * value.signum()) as i16;
            unit.nonzero[at] |= u64::from(out[from] != 0) << place;
        }
    }
}

/// The zigzag's places in a block that lies by column.
pub(super) const TRANSPOSED: [u8; 64] = {
    let mut places = [0; 64];
    let mut at = 0;
    while at < 64 {
        let place = ZIGZAG[at];
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
