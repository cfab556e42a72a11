//! Drawing token by token.

use ort::session::{IoBinding, Session as Graph};
use ort::{memory::AllocationDevice, memory::Allocator, value::Tensor};

use crate::cache::{self, Layers, Slot};
use crate::session::{scalar, values};
use crate::{Error, Image, Options, Provider, Result, Session, random::uniform};

const SHARED_ROWS: usize = 6; // from so many rows on, sharing the prefix is faster than a copy for each
const SHARED_PREFIX: usize = 16; // from so many given tokens on

/// The tokens of one position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// In the picture, in raster order, counted from 0.
    pub position: usize,
    /// One for each sample, `[n]`.
    pub tokens: Vec<i64>,
    /// Tokens drawn so far, of all samples together.
    pub drawn: usize,
    /// Tokens to draw, of all samples together.
    pub total: usize,
}

/// Pictures that were drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// One for each sample, `[n]`.
    pub images: Vec<Image>,
    /// Their tokens, given ones included, `[n][height * width]`.
    pub tokens: Vec<Vec<i64>>,
}

/// A request for samples: an iterator over the positions that are drawn. Nothing is computed before its first step.
///
/// It borrows the session, so that nothing else can be asked of that meanwhile. After an error it gives `None`.
/// Dropping it frees its cache.
pub struct Run<'s> {
    session: &'s mut Session,
    options: Options,
    tokens: Vec<Vec<i64>>, // of each sample, those that are known
    given: usize,
    decoder: Option<Decoder>,
    failure: Option<Error>,
}

impl Session {
    /// As [`Session::complete`], token by token. It needs no `complete.onnx`.
    ///
    /// ```
    /// # let mut session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
    /// # let pixels = vec![200; 40 * 30 * 3];
    /// # let image = igpt::Image { width: 40, height: 30, data: pixels };
    /// let options = session.info().options;
    /// let mut run = session.complete_steps(&image, 15, &options)?;
    /// for step in &mut run {
    ///     let step = step?;
    ///     println!("{} of {} tokens", step.drawn, step.total);
    /// }
    /// let images = run.finish()?.images;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn complete_steps(&mut self, image: &Image, keep_rows: usize, options: &Options) -> Result<Run<'_>> {
        options.check(keep_rows, self.info().height)?;
        let tokens = self.tokens(image)?;
        let given = keep_rows * self.info().width;
        self.generate(&tokens[..given], options)
    }

    /// Draws n whole pictures from nothing, token by token.
    pub fn sample(&mut self, options: &Options) -> Result<Run<'_>> {
        self.generate(&[], options)
    }

    /// Draws what follows the first tokens of a picture. `primer` has at most `n_positions` tokens, and may be empty.
    ///
    /// ```
    /// # let mut session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
    /// let options = igpt::Options { n: 3, ..session.info().options };
    /// let first = session.generate(&[7, 7, 9], &options)?.next().unwrap()?;
    /// assert_eq!((first.position, first.tokens.len()), (3, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate(&mut self, primer: &[i64], options: &Options) -> Result<Run<'_>> {
        options.check(0, self.info().height)?;
        self.info().check_tokens(primer, 0..=self.info().n_positions)?;
        let (tokens, given) = (vec![primer.to_vec(); options.n], primer.len());
        Ok(Run { session: self, options: *options, tokens, given, decoder: None, failure: None })
    }
}

impl Run<'_> {
    /// Draws what is left, and makes pictures of all tokens.
    ///
    /// # Errors
    /// As those of the steps. A run that failed before fails again.
    pub fn finish(mut self) -> Result<Completion> {
        self.by_ref().try_for_each(|step| step.map(drop))?;
        self.failure.map_or(Ok(()), Err)?;
        self.decoder = None; // which frees its cache
        Ok(Completion { images: self.session.images(&self.tokens)?, tokens: self.tokens })
    }

    /// Feeds each row its last token, or without one sos.
    fn draw(&mut self) -> Result<Step> {
        let (position, n, seed) = (self.tokens[0].len(), self.options.n, self.options.seed);
        let (graph, binding) = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(start(self.session, &self.tokens[0], &self.options)?),
        };
        let sos = &self.session.info().n_clusters;
        let last: Vec<_> = self.tokens.iter().map(|row| *row.last().unwrap_or(sos)).collect();
        let uniforms: Vec<_> = (0..n as u32).map(|sample| uniform(seed, sample, position as u32)).collect();
        // A GPU gets a copy of what is bound, so it is bound again.
        binding.bind_input("input_ids", &Tensor::from_array(([n, 1], last))?)?;
        binding.bind_input("past_length", &scalar(position as i64)?)?;
        binding.bind_input("uniform", &Tensor::from_array(([n], uniforms))?)?;
        let run = |graph: &mut Graph, run: &_| values(&graph.run_binding_with_options(binding, run)?, "next_ids", n);
        let tokens = self.session.call(graph, run)?;
        self.tokens.iter_mut().zip(&tokens).for_each(|(row, token)| row.push(*token));
        let total = n * (self.session.info().n_positions - self.given);
        Ok(Step { position, tokens, drawn: n * (position + 1 - self.given), total })
    }
}

impl Iterator for Run<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failure.is_some() || self.tokens[0].len() == self.session.info().n_positions {
            return None;
        }
        Some(self.draw().inspect_err(|error| self.failure = Some(error.clone())))
    }
}

/// A decode graph and what is bound to it, such as its cache.
type Decoder = (&'static str, IoBinding);

/// Reads all of `primer` but its last token, which the first step feeds.
fn start(session: &mut Session, primer: &[i64], options: &Options) -> Result<Decoder> {
    match session.info().kv_cache.as_str() {
        "fp32" => start_cache(session, primer, options, 1_f32),
        "int8" => start_cache(session, primer, options, 127_i8),
        _ => start_cache(session, primer, options, half::f16::ONE),
    }
}

/// The same for a cache of K. one: the mark of the sentinel.
fn start_cache<K: Slot>(session: &mut Session, primer: &[i64], options: &Options, one: K) -> Result<Decoder> {
    let (info, length, n) = (session.info().clone(), primer.len(), options.n);
    let is_cpu = session.builder.provider == Provider::Cpu;
    // Where something is rounded to int8, the two decode graphs may round differently. One of them for any number of
    // rows draws the same pictures however many are drawn.
    let rounds = info.precision == "int8" || (info.precision == "fp32" && info.kv_cache == "int8");
    let pays = is_cpu && length >= SHARED_PREFIX && (rounds || n >= SHARED_ROWS);
    let name = if pays && session.source.graphs.contains_key("decode_shared") { "decode_shared" } else { "decode" };
    let given = prefill(session, primer)?;
    let graph = session.graph(name)?;
    let mut binding = graph.create_binding()?;
    let mut slots = if name == "decode_shared" {
        cache::bind_prefix(&mut binding, &info, &given, length)?;
        cache::own(&info, n, length, one)?
    } else {
        cache::repeated(&info, n, &given, length)?
    };
    if !is_cpu {
        // What is bound from the CPU's memory is copied at every step.
        slots = slots.iter().map(|part| part.to(AllocationDevice::CUDA, 0)).collect::<ort::Result<_>>()?;
    }
    cache::bind(&mut binding, &info, slots)?;
    binding.bind_input("temperature", &scalar(options.temperature)?)?;
    binding.bind_input("top_k", &scalar(options.top_k)?)?;
    binding.bind_input("top_p", &scalar(options.top_p)?)?;
    binding.bind_output("next_ids", Tensor::<i64>::new(&Allocator::default(), [n, 1])?)?;
    Ok((name, binding))
}

/// The slots of one row after sos and all of `primer` but its last token, `[1, n_head, length, head_dim]`. There are
/// none without a primer. Only this graph gives the slots that Python has: decode would read rounded ones.
fn prefill<K: Slot>(session: &mut Session, primer: &[i64]) -> Result<Layers<K>> {
    let Some((_, read)) = primer.split_last() else { return Ok(Vec::new()) };
    let (info, length) = (session.info().clone(), primer.len());
    let fed: Vec<_> = [&info.n_clusters].into_iter().chain(read).copied().collect();
    let mut slots = cache::empty(&info, 1, length, info.head_dim)?;
    let mut binding = session.graph("prefill")?.create_binding()?;
    binding.bind_input("input_ids", &Tensor::from_array(([1, length], fed))?)?;
    for (name, slots) in cache::names("present", &info).zip(&mut slots) {
        binding.bind_output(name, slots)?;
    }
    session
        .call("prefill", |graph, run| graph.run_binding_with_options(&binding, run).map(drop).map_err(Error::from))?;
    // Its memory is freed, but on a GPU, as sending the weights there again would take longer than all else.
    let is_cpu = session.builder.provider == Provider::Cpu;
    session.graphs.retain(|name, _| !is_cpu || *name != "prefill");
    Ok(slots)
}
