//! The compressors behind one face: bytes in, bytes out, in memory of a fixed bound; knows no fields and no
//! responses.

use bytes::Bytes;
use flate2::write::GzEncoder;
use std::io::{self, Write};
use verge_config::site::Coding;

/// Levels at which a fill is not slowed down much.
const ZSTD_LEVEL: i32 = 3;
const BROTLI_LEVEL: u32 = 5;
const GZIP_LEVEL: u32 = 6;
/// The largest windows, in powers of two: they bound what a decoder needs, and an encoder a few times of
/// it. A zstd decoder may refuse more than 23 (RFC 9659).
const ZSTD_WINDOW: u32 = 20;
const BROTLI_WINDOW: u32 = 19;
/// The smallest that the formats have.
const LEAST_WINDOW: u32 = 10;
/// What brotli gathers before it writes, in bytes.
const BROTLI_BUFFER: usize = 4_096;

/// Compresses one content.
pub struct Encoder(Kind);

enum Kind {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// An encoder for content of `length` bytes, where that is known; it only saves memory then.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub fn new(coding: Coding, length: Option<u64>) -> io::Result<Encoder> {
        let window = |most: u32| {
            let bits = length.map_or(most, |length| u64::BITS - length.leading_zeros());
            bits.clamp(LEAST_WINDOW, most)
        };
        Ok(Encoder(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(window(ZSTD_WINDOW))?;
                Kind::Zstd(encoder)
            }
            Coding::Brotli => Kind::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_LEVEL,
                window(BROTLI_WINDOW),
            ))),
            Coding::Gzip => {
                let level = flate2::Compression::new(GZIP_LEVEL);
                Kind::Gzip(GzEncoder::new(Vec::new(), level))
            }
        }))
    }

    /// Takes content and gives what has been compressed by now, often nothing.
    ///
    /// # Errors
    /// When the compressor fails; the content cannot be completed then.
    pub fn push(&mut self, data: &[u8]) -> io::Result<Bytes> {
        self.write().write_all(data)?;
        Ok(self.take())
    }

    /// Gives all that was taken so far in a form that can be decoded up to here.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn flush(&mut self) -> io::Result<Bytes> {
        self.write().flush()?;
        Ok(self.take())
    }

    /// Gives the rest.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn finish(self) -> io::Result<Bytes> {
        Ok(match self.0 {
            Kind::Zstd(encoder) => encoder.finish()?,
            // Writing to memory does not fail, and that is all that could.
            Kind::Brotli(encoder) => encoder.into_inner(),
            Kind::Gzip(encoder) => encoder.finish()?,
        }
        .into())
    }

    fn write(&mut self) -> &mut dyn Write {
        match &mut self.0 {
            Kind::Zstd(encoder) => encoder,
            Kind::Brotli(encoder) => encoder,
            Kind::Gzip(encoder) => encoder,
        }
    }

    fn take(&mut self) -> Bytes {
        let out = match &mut self.0 {
            Kind::Zstd(encoder) => encoder.get_mut(),
            Kind::Brotli(encoder) => encoder.get_mut(),
            Kind::Gzip(encoder) => encoder.get_mut(),
        };
        std::mem::take(out).into()
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Zstd(_) => "Encoder(zstd)",
            Kind::Brotli(_) => "Encoder(br)",
            Kind::Gzip(_) => "Encoder(gzip)",
        })
    }
}
