//! Decoders and encoders side by side, on one photo-like picture. See `run`.

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::io::Cursor;
use std::path::Path;
use std::{env, fs};

use comfy_serve::picture::{Format, Options, convert};
use rustix::time::{ClockId, clock_gettime};

mod decoders;
mod encoders;
mod photo;

/// The sides of the picture, in pixels.
const SIDE: usize = 1024;
/// How often each is run; the median counts.
const REPETITIONS: usize = 31;

/// By how much a PSNR may differ for rounding alone, in dB.
const PSNR_TOLERANCE: f64 = 0.02;

type Failure = Box<dyn Error>;

/// A picture: width, height, RGB samples.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Rgb(pub(crate) usize, pub(crate) usize, pub(crate) Vec<u8>);

fn main() -> Result<(), Failure> {
    let arguments = env::args().collect::<Vec<_>>();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["make", directory] => {
            let mut ppm = format!("P6 {SIDE} {SIDE} 255\n").into_bytes();
            let header = ppm.len();
            let all = [("picture", photo::picture as photo::Make)].iter().chain(photo::OTHERS);
            for (name, make) in all {
                ppm.truncate(header);
                ppm.extend(make(SIDE));
                fs::write(Path::new(directory).join(name).with_extension("ppm"), &ppm)?;
            }
            Ok(())
        }
        ["measure", directory] => measure(Path::new(directory)),
        ["contents", directory] => contents(Path::new(directory)),
        ["peak", png] => {
            let jpeg = convert(&fs::read(png)?, Format::Jpeg, Options::default())?;
            let status = fs::read_to_string("/proc/self/status")?;
            let peak = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
            println!("{png} to {} bytes: {}", jpeg.len(), peak.split_whitespace().collect::<Vec<_>>().join(" "));
            Ok(())
        }
        _ => Err(
            "usage: comfy-bench-pictures make|measure|contents DIRECTORY, or peak PNG; or rather: benches/pictures/run"
                .into(),
        ),
    }
}

fn measure(directory: &Path) -> Result<(), Failure> {
    let png = fs::read(directory.join("picture.png"))?;
    let original = Rgb(SIDE, SIDE, photo::picture(SIDE));
    let mut rows = BTreeMap::<&str, Vec<Row>>::new();
    let pillow = fs::read_to_string(directory.join("pillow.tsv"))?;
    for line in pillow.lines() {
        let [what, name, milliseconds, file] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("not a row of Pillow's: {line}").into());
        };
        let what = ["decode", "jpeg", "webp", "whole"].into_iter().find(|known| *known == what).ok_or("unknown row")?;
        let result = if file == "-" { None } else { Some(fs::read(directory.join(file))?) };
        rows.entry(what).or_default().push(Row::new(name, milliseconds.parse()?, result, &original)?);
    }
    for (name, decode) in decoders::ALL {
        if decode(&png)? != original {
            return Err(format!("{name} decodes other pixels").into());
        }
        let milliseconds = time(|| drop(black_box(decode(black_box(&png)))));
        rows.entry("decode").or_default().push(Row::new(name, milliseconds, None, &original)?);
    }
    for (what, all) in [("jpeg", encoders::JPEG), ("webp", encoders::WEBP)] {
        for (name, encode) in all {
            let milliseconds = time(|| drop(black_box(encode(black_box(&original)))));
            rows.entry(what).or_default().push(Row::new(name, milliseconds, Some(encode(&original)?), &original)?);
        }
    }
    for (what, to) in [("whole", Format::Jpeg), ("webp", Format::Webp)] {
        let whole = || convert(&png, to, Options::default());
        let milliseconds = time(|| drop(black_box(whole())));
        let result = whole()?.to_vec();
        if to == Format::Jpeg {
            fs::write(directory.join("picture.ours.jpg"), &result)?;
        }
        rows.entry(what).or_default().push(Row::new("comfy-serve, PNG to it", milliseconds, Some(result), &original)?);
    }
    println!("{SIDE}x{SIDE}, PNG of {} bytes; medians of CPU time", png.len());
    println!("| what | with | ms | bytes | PSNR dB |\n| --- | --- | --- | --- | --- |");
    for (what, rows) in &rows {
        for Row { name, milliseconds, size, psnr } in rows {
            let size = size.map_or(String::new(), |size| size.to_string());
            let psnr = psnr.map_or(String::new(), |psnr| format!("{psnr:.2}"));
            println!("| {what} | {name} | {milliseconds:.2} | {size} | {psnr} |");
        }
    }
    Ok(())
}

/// Ours beside Pillow's with optimized codes, content by content; an error when one is larger by more than 3 % or worse.
fn contents(directory: &Path) -> Result<(), Failure> {
    println!("{SIDE}x{SIDE}, PNG to JPEG q90 by content; Pillow optimized | ours");
    println!("| content | ms | ms | bytes | bytes | PSNR dB | PSNR dB |\n| --- | --- | --- | --- | --- | --- | --- |");
    let mut wrong = Vec::new();
    for line in fs::read_to_string(directory.join("contents.tsv"))?.lines() {
        let [name, milliseconds] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("not a row of Pillow's: {line}").into());
        };
        let make = photo::OTHERS.iter().find(|(known, _)| *known == name).ok_or("unknown content")?.1;
        let original = Rgb(SIDE, SIDE, make(SIDE));
        let file = |ending| directory.join(format!("{name}{ending}"));
        let (png, theirs) = (fs::read(file(".png"))?, fs::read(file(".pillow.jpg"))?);
        let ours = convert(&png, Format::Jpeg, Options::default())?;
        fs::write(file(".ours.jpg"), &ours)?;
        let time = time(|| drop(black_box(convert(black_box(&png), Format::Jpeg, Options::default()))));
        let (sizes, quality) = ([theirs.len(), ours.len()], [psnr(&theirs, &original)?, psnr(&ours, &original)?]);
        println!(
            "| {name} | {milliseconds} | {time:.2} | {} | {} | {:.2} | {:.2} |",
            sizes[0], sizes[1], quality[0], quality[1]
        );
        if sizes[1] as f64 > sizes[0] as f64 * 1.03 || quality[1] < quality[0] - PSNR_TOLERANCE {
            wrong.push(name.to_owned());
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("larger by more than 3 % or worse: {}", wrong.join(", ")).into())
    }
}

struct Row {
    name: String,
    milliseconds: f64,
    size: Option<usize>,
    psnr: Option<f64>,
}

impl Row {
    fn new(name: &str, milliseconds: f64, result: Option<Vec<u8>>, original: &Rgb) -> Result<Self, Failure> {
        let size = result.as_ref().map(Vec::len);
        let psnr = result.map(|bytes| psnr(&bytes, original)).transpose()?;
        Ok(Row { name: name.to_owned(), milliseconds, size, psnr })
    }
}

/// Over the samples of all channels, as decoded by one decoder for all; infinite for a lossless one.
fn psnr(encoded: &[u8], original: &Rgb) -> Result<f64, Failure> {
    let decoded = image::ImageReader::new(Cursor::new(encoded)).with_guessed_format()?.decode()?.to_rgb8().into_raw();
    if decoded.len() != original.2.len() {
        return Err("an encoder made a picture of another size".into());
    }
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let error = decoded.iter().zip(&original.2).map(square).sum::<f64>() / decoded.len() as f64;
    Ok(10.0 * (255.0 * 255.0 / error).log10())
}

/// Median CPU time of the process, in milliseconds.
fn time(mut work: impl FnMut()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1000.0 + time.tv_nsec as f64 / 1e6
    };
    let mut times = (0..REPETITIONS)
        .map(|_| {
            let begun = now();
            work();
            now() - begun
        })
        .collect::<Vec<_>>();
    times.sort_by(f64::total_cmp);
    times[REPETITIONS / 2]
}
