//! Pictures as they go in and come out.

use ort::value::TensorRef;

use crate::{Error, Result};

const MAX_SIDE: usize = 1 << 16; // pixels: a bound on the tables of resizing, far above any picture

/// A picture, 8 bits a channel. One that is read may have any size. Lay transparency over white first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels from left to right, 1 .. 65536.
    pub width: usize,
    /// Pixels from top to bottom, 1 .. 65536.
    pub height: usize,
    /// RGB, `[height, width, 3]`, rows from the top.
    pub data: Vec<u8>,
}

impl Image {
    /// The input of a graph.
    pub(crate) fn tensor(&self) -> Result<TensorRef<'_, u8>> {
        let Image { width, height, ref data } = *self;
        let fits = [width, height].iter().all(|side| (1..=MAX_SIDE).contains(side)); // so that no product overflows
        if !fits || data.len() as u64 != 3 * width as u64 * height as u64 {
            let words = format!("a picture has 3 levels a pixel, and each side is 1 .. {MAX_SIDE}");
            return Err(Error::Image(format!("{words}; got {} levels for {width} x {height} pixels", data.len())));
        }
        Ok(TensorRef::from_array_view(([height, width, 3], &**data))?)
    }
}
