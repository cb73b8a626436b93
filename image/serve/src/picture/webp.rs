//! Pixels to lossy WebP.
//!
//! By libwebp itself (BSD licence, version 1.6 from C by gcc alone, also statically): there is no lossy encoder in Rust
//! under a licence that fits, and a lossless WebP of a photo is nearly as large as its PNG (the table in `decode`).
//! Called directly, because the safe wrapper is bound to a version of 2023.

use super::{Format, PictureError, Pixels};

/// The longest side that the format can express, in pixels.
const LONGEST_SIDE: u32 = 16_383;

/// Encodes pixels; alpha is kept, without loss.
#[allow(unsafe_code, reason = "libwebp is C")]
pub(super) fn encode(pixels: &Pixels, quality: u8) -> Result<Vec<u8>, PictureError> {
    let Pixels { width, height, alpha, ref samples } = *pixels;
    if width.max(height) > LONGEST_SIDE {
        return Err(PictureError::TooLarge { width, height, limit: format!("WebP's {LONGEST_SIDE}x{LONGEST_SIDE}") });
    }
    let failed = |why: &str| PictureError::Encoder { to: Format::Webp, why: why.to_owned() };
    let stride = width as usize * if alpha { 4 } else { 3 };
    if samples.len() != stride * height as usize {
        return Err(failed("the pixels do not fill the picture"));
    }
    // At most 4 x 16383, and both sides at most 16383.
    let (columns, rows, stride) = (width as i32, height as i32, stride as i32);
    let quality = f32::from(quality.min(100));
    let mut webp = std::ptr::null_mut::<u8>();
    // SAFETY: the input is `rows` rows of `stride` bytes, checked above, and only read. The output is written to the
    // pointer, and is null or an allocation of libwebp's of the length that is returned.
    let length = unsafe {
        let encode = if alpha { libwebp_sys::WebPEncodeRGBA } else { libwebp_sys::WebPEncodeRGB };
        encode(samples.as_ptr(), columns, rows, stride, quality, &mut webp)
    };
    if length == 0 || webp.is_null() {
        return Err(failed("out of memory, or the picture is empty"));
    }
    // SAFETY: as above; nothing else holds the allocation, which is freed once, after the copy.
    let bytes = unsafe { std::slice::from_raw_parts(webp, length) }.to_vec();
    // SAFETY: as above.
    unsafe { libwebp_sys::WebPFree(webp.cast()) };
    Ok(bytes)
}
