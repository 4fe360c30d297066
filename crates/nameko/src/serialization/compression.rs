//! Compressed bodies, named in the header `compression` as kombu does.

use std::fmt;

use super::Error;

/// The message header that names the compression of the body.
pub(crate) const COMPRESSION_HEADER: &str = "compression";
/// Config key of the limit of a decompressed body, in bytes.
pub(super) const MAX_DECOMPRESSED_KEY: &str = "max_decompressed_size";

/// A compression of message bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// `application/x-gzip`. A zlib stream, as in kombu, despite the name.
    Gzip,
    /// `application/x-bz2`. Smaller and slower than gzip.
    Bzip2,
}

impl Compression {
    /// Looks up a compression by kombu's names: `gzip`, `zlib`, `bzip2`, `bzip`, or the MIME type.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "gzip" | "zlib" | "application/x-gzip" => Some(Self::Gzip),
            "bzip2" | "bzip" | "application/x-bz2" => Some(Self::Bzip2),
            _ => None,
        }
    }

    /// Returns the MIME type, the value of the header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/x-gzip",
            Self::Bzip2 => "application/x-bz2",
        }
    }

    #[cfg(feature = "compression")]
    pub(super) fn compress(self, body: &[u8]) -> Result<Vec<u8>, Error> {
        algorithms::compress(self, body).map_err(Error::write)
    }

    /// Decompresses a body to at most `limit` bytes.
    #[cfg(feature = "compression")]
    pub(super) fn decompress(self, body: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
        match algorithms::decompress(self, body, limit) {
            Ok(Some(plain)) => Ok(plain),
            Ok(None) => Err(Error::read(format_args!(
                "its {} bytes are more than {limit} when decompressed; the config key `{}` allows more",
                body.len(),
                MAX_DECOMPRESSED_KEY,
            ))),
            Err(error) => Err(Error::read(format_args!(
                "its body is not valid {self}: {error}"
            ))),
        }
    }

    #[cfg(not(feature = "compression"))]
    pub(super) fn compress(self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Err(Error::write(self.unsupported()))
    }

    #[cfg(not(feature = "compression"))]
    pub(super) fn decompress(self, _: &[u8], _: usize) -> Result<Vec<u8>, Error> {
        Err(Error::read(self.unsupported()))
    }

    #[cfg(not(feature = "compression"))]
    fn unsupported(self) -> String {
        format!("the compression {self} needs the feature `compression` of the crate nameko")
    }
}

#[cfg(feature = "compression")]
mod algorithms {
    use std::io::{Read, Result, Write as _};

    use bzip2::{read::MultiBzDecoder, write::BzEncoder};
    use flate2::{read::MultiGzDecoder, read::ZlibDecoder, write::ZlibEncoder};

    use super::Compression;

    pub(super) fn compress(compression: Compression, body: &[u8]) -> Result<Vec<u8>> {
        match compression {
            Compression::Gzip => {
                let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Compression::Bzip2 => {
                let mut encoder = BzEncoder::new(Vec::new(), bzip2::Compression::best());
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }

    /// Returns `None` if the decompressed body is longer than `limit` bytes.
    pub(super) fn decompress(
        compression: Compression,
        body: &[u8],
        limit: usize,
    ) -> Result<Option<Vec<u8>>> {
        // Other clients send gzip files; no zlib stream begins with the gzip magic number.
        match compression {
            Compression::Gzip if body.starts_with(&[0x1f, 0x8b]) => {
                read_all(MultiGzDecoder::new(body), limit)
            }
            Compression::Gzip => read_all(ZlibDecoder::new(body), limit),
            Compression::Bzip2 => read_all(MultiBzDecoder::new(body), limit),
        }
    }

    fn read_all(decoder: impl Read, limit: usize) -> Result<Option<Vec<u8>>> {
        let mut plain = Vec::new();
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        decoder.take(bound).read_to_end(&mut plain)?;
        Ok(Some(plain).filter(|plain| plain.len() <= limit))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.content_type())
    }
}
