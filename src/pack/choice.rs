//! How each file is kept, chosen from its bytes and the config alone: the same tree and setting give the same archive
//! everywhere.
//!
//! Measured on 2026-11-28 with zlib-rs 0.6.8, pieces of 1 MiB, 32 MB of numbers as in trained layers (made by
//! tests/figures/models) and of JSON; MB/s of one core of a busy machine, of use beside each other only:
//!
//! | level | fp16      | bf16       | JSON       |
//! |-------|-----------|------------|------------|
//! | 1     | -5.8%, 38 | -4.9%, 41  | 56.7%, 112 |
//! | 2     |  7.4%, 20 | 21.8%, 22  | 69.3%, 63  |
//! | 6     |  7.4%, 16 | 21.8%, 19  | 70.9%, 26  |
//! | 9     |  7.1%, 13 | 19.6%, 6   | 71.2%, 14  |
//!
//! Level 1 knows only the fixed codes of deflate, with which weights grow: 2 is the quickest one here. And 9 trades codes
//! for matches that weights do not have, so it is for text.

use serde::{Deserialize, Serialize};

use crate::config::Compression;

/// Of a larger file `auto` stores the bytes: it holds weights. Without this limit no file could be sent that was not
/// seen before.
const TEXT_MAX: u64 = 32 << 20;

/// Percent that text shrinks by, at least. Weights do not: 8 and 22 are the best of the table.
const TEXT_GAIN: u8 = 50;

/// Percent that are worth the time to compress and to extract. Pictures and quantised weights gain less.
const GAIN: u8 = 3;

/// How the bytes of a file are kept in an archive. The names are in manifests, and the bytes of an archive depend on the
/// level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// As they are, in stored deflate blocks.
    #[serde(rename = "stored")]
    Stored,
    /// Deflated at level 2.
    #[serde(rename = "deflate-2")]
    Deflate2,
    /// Deflated at level 6.
    #[serde(rename = "deflate-6")]
    Deflate6,
    /// Deflated at level 9.
    #[serde(rename = "deflate-9")]
    Deflate9,
}

impl Codec {
    /// The level of deflate; `None` if the bytes are stored.
    pub fn level(self) -> Option<u32> {
        match self {
            Codec::Stored => None,
            Codec::Deflate2 => Some(2),
            Codec::Deflate6 => Some(6),
            Codec::Deflate9 => Some(9),
        }
    }

    /// As manifests have it.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Stored => "stored",
            Codec::Deflate2 => "deflate-2",
            Codec::Deflate6 => "deflate-6",
            Codec::Deflate9 => "deflate-9",
        }
    }
}

/// What a manifest says of a file's codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Choice {
    /// Decided when the archive is sent, by what is fastest then.
    #[serde(rename = "adaptive")]
    Adaptive,
    /// Decided.
    #[serde(untagged)]
    Is(Codec),
}

impl Choice {
    /// What was decided.
    pub fn codec(self) -> Option<Codec> {
        match self {
            Choice::Adaptive => None,
            Choice::Is(codec) => Some(codec),
        }
    }

    /// As manifests have it.
    pub fn name(self) -> &'static str {
        self.codec().map_or("adaptive", Codec::name)
    }
}

/// How a file of `size` bytes is kept whose samples shrink by `gain` percent.
pub fn of(compression: Compression, size: u64, gain: u8) -> Choice {
    let text = gain >= TEXT_GAIN;
    Choice::Is(match compression {
        Compression::Adaptive => return Choice::Adaptive,
        Compression::Auto if text && size <= TEXT_MAX => Codec::Deflate6,
        Compression::Fast if gain >= GAIN => Codec::Deflate2,
        Compression::Best if text => Codec::Deflate9,
        Compression::Best if gain >= GAIN => Codec::Deflate6,
        _ => Codec::Stored,
    })
}

/// Whether compressing is worth a thought.
pub fn shrinks(gain: u8) -> bool {
    gain >= GAIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_settings() {
        let choices = |compression| {
            [(1, 0), (1, 3), (1, 50), (TEXT_MAX, 50), (TEXT_MAX + 1, 50)]
                .map(|(size, gain)| of(compression, size, gain).name())
        };
        assert_eq!(choices(Compression::None), ["stored"; 5]);
        assert_eq!(choices(Compression::Auto), ["stored", "stored", "deflate-6", "deflate-6", "stored"]);
        assert_eq!(choices(Compression::Fast), ["stored", "deflate-2", "deflate-2", "deflate-2", "deflate-2"]);
        assert_eq!(choices(Compression::Best), ["stored", "deflate-6", "deflate-9", "deflate-9", "deflate-9"]);
        assert_eq!(choices(Compression::Adaptive), ["adaptive"; 5]);
    }

    #[test]
    fn names_are_what_is_written_and_read() {
        for choice in [Codec::Stored, Codec::Deflate2, Codec::Deflate6, Codec::Deflate9].map(Choice::Is) {
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.name());
            assert_eq!(serde_json::from_value::<Choice>(choice.name().into()).unwrap(), choice);
            assert_eq!(
                choice.name().strip_prefix("deflate-").map(|l| l.parse().unwrap()),
                choice.codec().unwrap().level()
            );
        }
        assert_eq!(serde_json::from_str::<Choice>("\"adaptive\"").unwrap(), Choice::Adaptive);
        assert_eq!(serde_json::to_string(&Choice::Adaptive).unwrap(), "\"adaptive\"");
        assert!(serde_json::from_str::<Codec>("\"adaptive\"").is_err(), "an archive has one codec for each file");
    }

    /// What is streamed was never seen.
    #[test]
    fn a_large_file_needs_no_look_where_it_may_be_streamed() {
        use Compression::{Adaptive, Auto, Best, Fast, None};
        for compression in [Adaptive, Auto, Best, Fast, None] {
            let size = crate::fetch::STREAM_LEAST + 1;
            let known = of(compression, size, 0) == of(compression, size, 100);
            assert_eq!(known, !compression.looks_at_every_file(), "{compression:?}");
        }
    }
}
