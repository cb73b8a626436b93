//! The filters of a PNG's rows (its specification, section 9.2), undone.

/// Undoes a filter. `N` is the bytes of a pixel; the rows are of whole pixels and equally long, `above` is zeros for the
/// first. None when there is no such filter.
pub(super) fn row<const N: usize>(filter: u8, row: &[u8], above: &[u8], out: &mut [u8]) -> Option<()> {
    if row.len() != out.len() || above.len() != out.len() || !out.len().is_multiple_of(N) {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        #[allow(unsafe_code, reason = "a function for certain processors can be called no other way")]
        // SAFETY: the processor has what the function is built for.
        return unsafe { avx2::row::<N>(filter, row, above, out) };
    }
    anywhere::<N>(filter, row, above, out)
}

#[inline(always)]
fn anywhere<const N: usize>(filter: u8, row: &[u8], above: &[u8], out: &mut [u8]) -> Option<()> {
    match filter {
        0 => out.copy_from_slice(row),
        1 => sub::<N>(row, [0; N], out),
        2 => {
            out.iter_mut().zip(row.iter().zip(above)).for_each(|(out, (byte, above))| *out = byte.wrapping_add(*above))
        }
        3 => average::<N>(row, above, [0; N], out),
        4 => paeth::<N>(row, above, [0; N], [0; N], out),
        _ => return None,
    }
    Some(())
}

#[inline(always)]
fn sub<const N: usize>(row: &[u8], mut left: [u8; N], out: &mut [u8]) {
    for (out, pixel) in out.as_chunks_mut::<N>().0.iter_mut().zip(row.as_chunks::<N>().0) {
        left = std::array::from_fn(|at| pixel[at].wrapping_add(left[at]));
        *out = left;
    }
}

#[inline(always)]
fn average<const N: usize>(row: &[u8], above: &[u8], mut left: [u8; N], out: &mut [u8]) {
    let pixels = row.as_chunks::<N>().0.iter().zip(above.as_chunks::<N>().0);
    for (out, (pixel, above)) in out.as_chunks_mut::<N>().0.iter_mut().zip(pixels) {
        left = std::array::from_fn(|at| pixel[at].wrapping_add(left[at].midpoint(above[at])));
        *out = left;
    }
}

#[inline(always)]
fn paeth<const N: usize>(row: &[u8], above: &[u8], mut left: [u8; N], mut corner: [u8; N], out: &mut [u8]) {
    let pixels = row.as_chunks::<N>().0.iter().zip(above.as_chunks::<N>().0);
    for (out, (pixel, above)) in out.as_chunks_mut::<N>().0.iter_mut().zip(pixels) {
        left = std::array::from_fn(|at| pixel[at].wrapping_add(nearest(left[at], above[at], corner[at])));
        corner = *above;
        *out = left;
    }
}

/// That of left, above and corner which is nearest to left + above - corner; of equals the first. One of the outer two
/// is when the corner is not well between them, as stb_image found: two comparisons instead of three differences.
#[inline(always)]
fn nearest(left: u8, above: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, above, corner].map(i16::from);
    let (low, high, bound) = (a.min(b), a.max(b), 3 * c - a - b);
    let inner = if high <= bound { low } else { c };
    (if bound <= low { high } else { inner }) as u8
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2")]
    pub(super) fn row<const N: usize>(filter: u8, row: &[u8], above: &[u8], out: &mut [u8]) -> Option<()> {
        match (filter, N) {
            (1, 3) => sub(row, out),
            (3, 3 | 4) => average::<N>(row, above, out),
            (4, 3 | 4) => paeth::<N>(row, above, out),
            _ => return super::anywhere::<N>(filter, row, above, out),
        }
        Some(())
    }

    /// Five pixels of three bytes at a time: each is added to the next, to the next two, to the next four.
    #[target_feature(enable = "avx2")]
    fn sub(row: &[u8], out: &mut [u8]) {
        let spread = _mm_setr_epi8(12, 13, 14, 12, 13, 14, 12, 13, 14, 12, 13, 14, 12, 13, 14, 12);
        let mut left = _mm_setzero_si128();
        let mut done = 0;
        // The sixteenth byte belongs to the next five.
        while let (Some(from), Some(to)) = (row[done..].first_chunk(), out[done..].first_chunk_mut()) {
            let mut pixels = load(from);
            pixels = _mm_add_epi8(pixels, _mm_slli_si128::<3>(pixels));
            pixels = _mm_add_epi8(pixels, _mm_slli_si128::<6>(pixels));
            pixels = _mm_add_epi8(pixels, _mm_slli_si128::<12>(pixels));
            pixels = _mm_add_epi8(pixels, left);
            store(pixels, to);
            left = _mm_shuffle_epi8(pixels, spread);
            done += 15;
        }
        let before = last(out, done);
        super::sub::<3>(&row[done..], before, &mut out[done..]);
    }

    /// A pixel at a time. The instruction's mean is rounded up, so it is given all bits inverted, and what comes of
    /// it stays so: then two instructions are all that a pixel waits for.
    #[target_feature(enable = "avx2")]
    fn average<const N: usize>(row: &[u8], above: &[u8], out: &mut [u8]) {
        let ones = _mm_set1_epi8(-1);
        let mut inverted = ones;
        let mut done = 0;
        while let (Some(from), Some(up), Some(to)) =
            (row[done..].first_chunk(), above[done..].first_chunk(), out[done..].first_chunk_mut::<16>())
        {
            let (mut pixels, mut ups) = (load(from), _mm_xor_si128(load(up), ones));
            for at in 0..16 / N {
                inverted = _mm_sub_epi8(_mm_avg_epu8(inverted, ups), pixels);
                put(to, at * N, !_mm_cvtsi128_si32(inverted));
                (pixels, ups) = (next::<N>(pixels), next::<N>(ups));
            }
            done += 16 / N * N;
        }
        let left = last(out, done);
        super::average::<N>(&row[done..], &above[done..], left, &mut out[done..]);
    }

    /// A pixel at a time, its samples side by side.
    #[target_feature(enable = "avx2")]
    fn paeth<const N: usize>(row: &[u8], above: &[u8], out: &mut [u8]) {
        let (mut left, mut corner) = (_mm_setzero_si128(), _mm_setzero_si128());
        let mut done = 0;
        while let (Some(from), Some(up), Some(to)) =
            (row[done..].first_chunk(), above[done..].first_chunk(), out[done..].first_chunk_mut::<16>())
        {
            let (mut pixels, mut ups) = (load(from), load(up));
            for at in 0..16 / N {
                let (pixel, up) = (_mm_cvtepu8_epi16(pixels), _mm_cvtepu8_epi16(ups));
                let thrice = _mm_add_epi16(_mm_add_epi16(corner, corner), corner);
                let bound = _mm_sub_epi16(_mm_sub_epi16(thrice, up), left);
                let (low, high) = (_mm_min_epi16(left, up), _mm_max_epi16(left, up));
                // The sums first: then only comparisons and choices are waited for.
                let [low_sum, high_sum, corner_sum] = [low, high, corner].map(|value| _mm_add_epi8(pixel, value));
                let inner = _mm_blendv_epi8(low_sum, corner_sum, _mm_cmpgt_epi16(high, bound));
                left = _mm_blendv_epi8(high_sum, inner, _mm_cmpgt_epi16(bound, low));
                corner = up;
                put(to, at * N, _mm_cvtsi128_si32(_mm_packus_epi16(left, left)));
                (pixels, ups) = (next::<N>(pixels), next::<N>(ups));
            }
            done += 16 / N * N;
        }
        let (left, corner) = (last(out, done), last(above, done));
        super::paeth::<N>(&row[done..], &above[done..], left, corner, &mut out[done..]);
    }

    /// The pixel in front of a place.
    fn last<const N: usize>(of: &[u8], end: usize) -> [u8; N] {
        end.checked_sub(N).and_then(|at| of[at..].first_chunk()).copied().unwrap_or([0; N])
    }

    /// Puts four bytes, the last of which may belong to the next pixel.
    #[inline(always)]
    fn put(to: &mut [u8; 16], at: usize, bytes: i32) {
        to[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
    }

    /// Without the first pixel.
    #[target_feature(enable = "avx2")]
    fn next<const N: usize>(pixels: __m128i) -> __m128i {
        if N == 3 { _mm_srli_si128::<3>(pixels) } else { _mm_srli_si128::<4>(pixels) }
    }

    #[target_feature(enable = "avx2")]
    fn load(from: &[u8; 16]) -> __m128i {
        let (low, high) = (u128::from_le_bytes(*from) as i64, (u128::from_le_bytes(*from) >> 64) as i64);
        _mm_set_epi64x(high, low)
    }

    #[target_feature(enable = "avx2")]
    fn store(value: __m128i, to: &mut [u8; 16]) {
        let (low, high) = (_mm_cvtsi128_si64(value), _mm_extract_epi64::<1>(value));
        *to = (u128::from(high as u64) << 64 | u128::from(low as u64)).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Both = ([u8; 12], [u8; 12]);

    /// As the specification says it, byte by byte.
    fn plainly(filter: u8, n: usize, row: &[u8], above: &[u8]) -> Vec<u8> {
        let mut out = vec![0; row.len()];
        for at in 0..row.len() {
            let before = |of: &[u8]| if at < n { 0 } else { i32::from(of[at - n]) };
            let (a, b, c) = (before(&out), i32::from(above[at]), before(above));
            let p = a + b - c;
            let distance = |value: i32| (p - value).abs();
            let predicted = match filter {
                0 => 0,
                1 => a,
                2 => b,
                3 => (a + b) / 2,
                _ if distance(a) <= distance(b) && distance(a) <= distance(c) => a,
                _ if distance(b) <= distance(c) => b,
                _ => c,
            };
            out[at] = (i32::from(row[at]) + predicted) as u8;
        }
        out
    }

    #[test]
    fn the_nearest_is_as_specified() {
        for (a, b, c) in (0..=255u8).flat_map(|a| (0..=255).flat_map(move |b| (0..=255).map(move |c| (a, b, c)))) {
            let p = i32::from(a) + i32::from(b) - i32::from(c);
            let plain = [a, b, c].into_iter().min_by_key(|value| (p - i32::from(*value)).abs());
            assert_eq!(Some(nearest(a, b, c)), plain, "{a} {b} {c}");
        }
    }

    proptest! {
        #[test]
        fn rows_are_as_specified_on_any_processor(
            filter in 0u8..5,
            pixels in prop::collection::vec(any::<([u8; 12], [u8; 12])>(), 0..30),
            cut in 0usize..3,
            soft: bool,
        ) {
            // Paeth has most to choose where neighbours are alike.
            let all = |of: fn(&Both) -> &[u8; 12]| {
                pixels.iter().flat_map(of).map(|byte| if soft { byte % 4 } else { *byte }).collect::<Vec<_>>()
            };
            let (row, above) = (all(|pair| &pair.0), all(|pair| &pair.1));
            for n in [3, 4] {
                let length = row.len().saturating_sub(n * cut);
                let (row, above) = (&row[..length], &above[..length]);
                let (mut out, mut portable) = (vec![7; length], vec![9; length]);
                let done = match n {
                    3 => super::row::<3>(filter, row, above, &mut out).and(anywhere::<3>(filter, row, above, &mut portable)),
                    _ => super::row::<4>(filter, row, above, &mut out).and(anywhere::<4>(filter, row, above, &mut portable)),
                };
                prop_assert_eq!(done, Some(()));
                let plain = plainly(filter, n, row, above);
                prop_assert_eq!(&out, &plain, "{} {}", filter, n);
                prop_assert_eq!(&portable, &plain, "portable {} {}", filter, n);
            }
        }
    }

    #[test]
    fn what_is_no_filter_or_no_row() {
        assert_eq!(row::<3>(5, &[1, 2, 3], &[0; 3], &mut [0; 3]), None);
        assert_eq!(row::<3>(0, &[1, 2, 3], &[0; 3], &mut [0; 6]), None);
        assert_eq!(row::<3>(0, &[1, 2, 3], &[0; 2], &mut [0; 3]), None);
        assert_eq!(row::<3>(0, &[1, 2, 3, 4], &[0; 4], &mut [0; 4]), None);
    }
}
