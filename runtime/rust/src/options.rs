//! How tokens are drawn.

use crate::{Error, Result};

const MAX_N: usize = 1 << 16; // samples of one request: a bound on the memory it takes, far above any use

/// How many pictures are drawn, and how. [`Info::options`](crate::Info::options) has what the bundle recommends, which
/// stands for what a request leaves out.
///
/// ```
/// # let session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
/// let options = igpt::Options { n: 4, seed: 7, ..session.info().options };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Number of pictures, 1 .. 65536. All are drawn at once, so memory grows with it.
    pub n: usize,
    /// The same seed gives the same pictures, as far as the precision of the bundle allows it.
    pub seed: u64,
    /// Divides the logits; 0 always takes the likeliest token. Finite and at least 0.
    pub temperature: f32,
    /// Draws among so many of the likeliest tokens, at least 0; 0 is off.
    pub top_k: i64,
    /// Draws among the likeliest tokens that reach this probability together; 1 is off. Above 0 and at most 1.
    pub top_p: f32,
}

impl Options {
    /// Refuses what is out of range; `keep_rows` of `height` rows are kept.
    pub(crate) fn check(&self, keep_rows: usize, height: usize) -> Result<()> {
        let Options { n, temperature, top_k, top_p, .. } = *self;
        let fit = [
            ((1..=MAX_N).contains(&n), format!("n must be 1 .. {MAX_N}, got {n}")),
            (keep_rows < height, format!("keep_rows must be 0 .. {}, got {keep_rows}", height - 1)),
            (temperature.is_finite(), format!("temperature must be finite, got {temperature}")),
            (temperature >= 0.0, format!("temperature must be at least 0, got {temperature}")),
            (top_k >= 0, format!("top_k must be at least 0, got {top_k}")),
            (top_p > 0.0 && top_p <= 1.0, format!("top_p must be above 0 and at most 1, got {top_p}")),
        ];
        fit.into_iter().find(|(fits, _)| !fits).map_or(Ok(()), |(_, words)| Err(Error::Option(words)))
    }
}
