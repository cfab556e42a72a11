//! What a graph says of its bundle.

use std::{ops::RangeInclusive, str::FromStr};

use ort::session::ModelMetadata;

use crate::{Error, Image, Options, Result};

const MAX_SIZE: usize = 1 << 16; // of a dimension, so that no product overflows

/// What a bundle is, from the metadata of its graphs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Info {
    /// Name of the model.
    pub name: String,
    /// Of the model's pictures, in pixels.
    pub height: usize,
    /// Of the model's pictures, in pixels.
    pub width: usize,
    /// Tokens of a picture, `height * width`.
    pub n_positions: usize,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Heads of each block.
    pub n_head: usize,
    /// Channels of each head.
    pub head_dim: usize,
    /// Colours: a token is 0 .. `n_clusters - 1`.
    pub n_clusters: i64,
    /// Of the weights: `fp32`, `int8`, `int4` or `fp16`.
    pub precision: String,
    /// Of the cache: `fp32`, `int8` or `fp16`.
    pub kv_cache: String,
    /// Names of the classes; empty without a classifier.
    pub labels: Vec<String>,
    /// What makes results of a classifier's values: `softmax`, `sigmoid`, or `none` for a regression;
    /// `nothing` without a classifier.
    pub function_to_apply: String,
    /// The recommended temperature, top_k and top_p, with 8 pictures and seed 0.
    pub options: Options,
}

impl Info {
    /// From the metadata of a graph. A text that is not there becomes `nothing`.
    pub(crate) fn of(metadata: &ModelMetadata) -> Result<Self> {
        get(metadata, "format_version", |version: &u32| *version == 7)?;
        get(metadata, "sampling_version", |version: &u32| *version == 1)?;
        let size = |key: &str| get(metadata, key, |size| (1..=MAX_SIZE).contains(size));
        let text = |key: &str| get(metadata, key, |_: &String| true);
        let labels = if text("labels")? == "nothing" { 0 } else { size("labels")? };
        let (height, width) = (size("height")?, size("width")?);
        let [temperature, top_p] = ["temperature", "top_p"].map(|key| get(metadata, key, |_| true));
        let top_k = get(metadata, "top_k", |_| true)?;
        let options = Options { n: 8, seed: 0, temperature: temperature?, top_k, top_p: top_p? };
        options.check(0, height).map_err(|error| Error::Bundle(format!("a graph recommends otherwise: {error}")))?;
        Ok(Info {
            name: text("name")?,
            height,
            width,
            n_positions: get(metadata, "n_positions", |positions| *positions == height * width)?,
            n_layer: size("n_layer")?,
            n_head: size("n_head")?,
            head_dim: size("head_dim")?,
            n_clusters: size("sos")? as i64, // sos is the token after the last colour
            precision: text("precision")?,
            kv_cache: text("kv_cache")?,
            labels: (0..labels).map(|i| text(&format!("label.{i}"))).collect::<Result<_>>()?,
            function_to_apply: text("function_to_apply")?,
            options,
        })
    }

    /// Refuses what are not so many tokens of a picture.
    pub(crate) fn check_tokens(&self, tokens: &[i64], allowed: RangeInclusive<usize>) -> Result<()> {
        if allowed.contains(&tokens.len()) && tokens.iter().all(|token| (0..self.n_clusters).contains(token)) {
            return Ok(());
        }
        let words = format!("give {allowed:?} of 0 .. {}", self.n_clusters - 1);
        Err(Error::Option(format!("these {} are no tokens of a picture; {words}", tokens.len())))
    }

    /// Pictures of the levels `[n, height, width, 3]`.
    pub(crate) fn images(&self, levels: &[u8]) -> Vec<Image> {
        let image = |data: &[u8]| Image { width: self.width, height: self.height, data: data.to_vec() };
        levels.chunks_exact(3 * self.n_positions).map(image).collect()
    }
}

/// What a graph says for a key.
fn get<T: FromStr>(metadata: &ModelMetadata, key: &str, fits: impl Fn(&T) -> bool) -> Result<T> {
    let text = metadata.custom(&format!("igpt.{key}")).unwrap_or("nothing".into());
    let words = format!("a graph says {text} for igpt.{key}, which this cannot read; update igpt, or export again");
    text.parse().ok().filter(fits).ok_or(Error::Bundle(words))
}
