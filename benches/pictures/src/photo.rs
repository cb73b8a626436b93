//! A picture that compresses as a photo does, made by rule.

/// RGB samples of a square picture: soft shapes of all sizes, edges, and the grain of a sensor.
pub(crate) fn picture(side: usize) -> Vec<u8> {
    let mut samples = Vec::with_capacity(side * side * 3);
    for y in 0..side {
        for x in 0..side {
            let (u, v) = (x as f64 / side as f64, y as f64 / side as f64);
            let soft = (0..6).map(|octave| wave(u, v, octave) / f64::from(1 << octave)).sum::<f64>();
            // Stripes with sharp edges in a corner.
            let edge = if u + v < 0.6 && (u * 40.0 + wave(u, v, 1)).sin() > 0.3 { 40.0 } else { 0.0 };
            let grain = noise(x, y, 9) * GRAIN;
            for channel in 0..3 {
                let tint = wave(v, u, channel + 1) * 25.0 + noise(x, y, channel) * GRAIN / 2.0;
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
