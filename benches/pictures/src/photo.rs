//! Pictures made by rule: one that compresses as a photo does, and others of other content.

/// RGB samples of a square picture.
pub(crate) type Make = fn(usize) -> Vec<u8>;

/// By name, without the photo.
pub(crate) const OTHERS: &[(&str, Make)] = &[
    ("little grain", |side| shapes(side, GRAIN / 6.0)),
    ("no grain", |side| shapes(side, 0.0)),
    ("gradient", |side| each(side, |x, y| [x * 255 / side, y * 255 / side, (x + y) * 127 / side].map(|v| v as u8))),
    ("flat", |side| each(side, |_, _| [30, 90, 160])),
    ("text", |side| each(side, |x, y| if ink(x, y) { [20; 3] } else { [250; 3] })),
    ("noise", |side| each(side, |x, y| [0, 1, 2].map(|channel| (noise(x, y, channel) * 64.0 + 128.0) as u8))),
    ("half text", |side| {
        let photo = picture(side);
        each(side, |x, y| match y < side / 2 {
            true => {
                if ink(x, y) {
                    [20; 3]
                } else {
                    [250; 3]
                }
            }
            false => [0, 1, 2].map(|channel| photo[3 * (y * side + x) + channel]),
        })
    }),
];

fn each(side: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Vec<u8> {
    (0..side * side).flat_map(|at| pixel(at % side, at / side)).collect()
}

/// Strokes in cells of 12x20 pixels, in lines with gaps, as text has them.
fn ink(x: usize, y: usize) -> bool {
    let (column, line) = (x / 12, y / 20);
    let glyph = noise(column, line, 3);
    let (x, y) = (x % 12, y % 20);
    glyph > -0.7
        && (2..10).contains(&x)
        && (3..16).contains(&y)
        && (noise(x / 2, y / 2, (glyph * 30.0) as i32 as u32) > 0.2 || x < 4 && glyph > 0.0)
}

/// A photo: soft shapes of all sizes, edges, and the grain of a sensor.
pub(crate) fn picture(side: usize) -> Vec<u8> {
    shapes(side, GRAIN)
}

fn shapes(side: usize, strength: f64) -> Vec<u8> {
    let mut samples = Vec::with_capacity(side * side * 3);
    for y in 0..side {
        for x in 0..side {
            let (u, v) = (x as f64 / side as f64, y as f64 / side as f64);
            let soft = (0..6).map(|octave| wave(u, v, octave) / f64::from(1 << octave)).sum::<f64>();
            // Stripes with sharp edges in a corner.
            let edge = if u + v < 0.6 && (u * 40.0 + wave(u, v, 1)).sin() > 0.3 { 40.0 } else { 0.0 };
            let grain = noise(x, y, 9) * strength;
            for channel in 0..3 {
                let tint = wave(v, u, channel + 1) * 25.0 + noise(x, y, channel) * strength / 2.0;
                samples.push((120.0 + soft * 55.0 + edge + tint + grain).clamp(0.0, 255.0) as u8);
            }
        }
    }
    samples
}

/// How strong the grain is, in steps of a sample: so that PNG and JPEG are as large as a photo's.
const GRAIN: f64 = 22.0;

/// From -1 to 1, finer by the octave.
fn wave(u: f64, v: f64, octave: u32) -> f64 {
    let frequency = f64::from(1 << octave) * 2.3;
    let turn = f64::from(octave) * 1.7;
    ((u * frequency + turn).sin() * (v * frequency * 1.3 - turn).cos() + (u * v * frequency * 2.0).sin()) / 2.0
}

/// Bell-shaped from -2 to 2, another for each pixel and layer.
fn noise(x: usize, y: usize, layer: u32) -> f64 {
    let mut state = (x as u64) << 40 ^ (y as u64) << 16 ^ u64::from(layer);
    // The finaliser of splitmix64.
    state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    state = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ state >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^= state >> 31;
    let quarters = (0..4).map(|part| f64::from((state >> (part * 16)) as u16) / 65_535.0 - 0.5);
    quarters.sum()
}
