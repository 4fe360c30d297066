//! Compressed bodies: the header `compression` says how, in kombu's words.

use std::fmt;
use std::io::{self, Read, Write as _};

use bzip2::{read::MultiBzDecoder, write::BzEncoder};
use flate2::{read::MultiGzDecoder, read::ZlibDecoder, write::ZlibEncoder};

use super::Error;

/// How the body of a message is made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// `application/x-gzip`. As in kombu, what bears this name is a zlib stream.
    Gzip,
    /// `application/x-bz2`: smaller, and slower.
    Bzip2,
}

impl Compression {
    /// From one of kombu's names for it: `gzip`, `zlib`, `bzip2`, `bzip`, or the MIME type.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "gzip" | "zlib" | "application/x-gzip" => Some(Self::Gzip),
            "bzip2" | "bzip" | "application/x-bz2" => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// The MIME type that stands in the header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/x-gzip",
            Self::Bzip2 => "application/x-bz2",
        }
    }

    pub(super) fn compress(self, body: &[u8]) -> Result<Vec<u8>, Error> {
        let compressed = match self {
            Self::Gzip => {
                let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Bzip2 => {
                let mut encoder = BzEncoder::new(Vec::new(), bzip2::Compression::best());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        compressed.map_err(Error::write)
    }

    /// The body as it was, if that is not longer than `limit` bytes.
    pub(super) fn decompress(self, body: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
        // gzip files have a magic number that no zlib stream begins with; other clients send those.
        let plain = match self {
            Self::Gzip if body.starts_with(&[0x1f, 0x8b]) => {
                read_all(MultiGzDecoder::new(body), limit)
            }
            Self::Gzip => read_all(ZlibDecoder::new(body), limit),
            Self::Bzip2 => read_all(MultiBzDecoder::new(body), limit),
        };
        match plain {
            Ok(Some(plain)) => Ok(plain),
            Ok(None) => Err(Error::read(format_args!(
                "its {} bytes are more than {limit} when decompressed; the config key `{}` allows more",
                body.len(),
                super::codec::LIMIT_KEY,
            ))),
            Err(error) => Err(Error::read(format_args!("its body is no {self}: {error}"))),
        }
    }
}

fn read_all(decoder: impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut plain = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(bound).read_to_end(&mut plain)?;
    Ok(Some(plain).filter(|it| it.len() <= limit))
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.content_type())
    }
}
