//! An opened bundle.

use std::{collections::HashMap, fmt::Debug, path::Path, sync::Arc};

use ort::session::{RunOptions, Session as Graph, SessionOutputs};
use ort::value::{PrimitiveTensorElementType as Element, Tensor};

use crate::source::{GRAPHS, Part, Source};
use crate::{Completion, Error, Image, Info, Options, Result, SessionBuilder, library::Library};

pub(crate) type Name = &'static str;

/// Ends the calls of a session from any thread, within a step: see [`Session::cancel_handle`]. Clones are one and the
/// same.
#[derive(Clone)]
pub struct Cancel(Arc<RunOptions>);

impl Cancel {
    /// Ends the call that runs, and has later ones fail. It stays so.
    pub fn cancel(&self) {
        let _ = self.0.terminate(); // it cannot fail for options that live
    }
}

/// An opened bundle.
///
/// Graphs are checked and loaded when first needed, and stay loaded. Dropping a session frees everything.
///
/// Calls take `&mut self`, so one session runs one call at a time. Put it into a `Mutex` to share it among threads. It
/// is `Send`, as ONNX Runtime ties nothing to a thread. Two sessions run in two threads at the same time.
pub struct Session {
    pub(crate) source: Source,
    pub(crate) builder: SessionBuilder,
    library: Library,
    info: Info,
    pub(crate) graphs: HashMap<Name, Graph>,
    weights_sha256: String, // empty until it is computed
    cancel: Cancel,
}

impl Session {
    /// Opens the bundle in a directory with default options. See [`SessionBuilder::open`].
    ///
    /// ```
    /// # let bundle = std::env::var("IGPT_DIGITS")?;
    /// let session = igpt::Session::open(bundle)?;
    /// println!("{} draws {} x {}", session.info().name, session.info().width, session.info().height);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(directory)
    }

    /// Options to open a bundle with.
    ///
    /// ```
    /// # let bundle = std::env::var("IGPT_DIGITS")?;
    /// let session = igpt::SessionBuilder { threads: 1, ..igpt::Session::builder() }.open(bundle)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> SessionBuilder {
        SessionBuilder::default()
    }

    pub(crate) fn new(source: Source, builder: SessionBuilder, library: Library) -> Result<Self> {
        let key = GRAPHS.into_iter().find(|name| source.graphs.contains_key(name)).unwrap_or(GRAPHS[0]);
        let first = source.commit(key, builder.settings(&library, key, "int4")?)?;
        let (info, found) = (Info::of(&first.metadata()?)?, first.metadata()?.custom("igpt.graph").unwrap_or_default());
        let alone = source.graphs.len() == 1 && source.weights.is_none(); // such as a file of any name
        let name = GRAPHS.into_iter().find(|name| alone && *name == found).unwrap_or(key);
        let (graphs, cancel) = (HashMap::new(), Cancel(RunOptions::new()?.into()));
        let mut session = Session { source, builder, library, info, graphs, weights_sha256: String::new(), cancel };
        session.check(&first, name)?;
        session.graphs.insert(name, first);
        Ok(session)
    }

    /// What the bundle is.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// A handle that ends the calls from now on with [`Error::Cancelled`], from any thread and within a step. Once used
    /// it ends every later call, too, until a new one is taken. Those taken before have no more effect.
    ///
    /// # Errors
    /// [`Error::Runtime`] if ONNX Runtime cannot make it.
    ///
    /// ```
    /// # let mut session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
    /// let cancel = session.cancel_handle()?;
    /// let options = session.info().options;
    /// let worker = std::thread::spawn(move || session.sample(&options)?.finish());
    /// cancel.cancel();
    /// assert_eq!(worker.join().unwrap(), Err(igpt::Error::Cancelled));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_handle(&mut self) -> Result<Cancel> {
        self.cancel = Cancel(RunOptions::new()?.into());
        Ok(self.cancel.clone())
    }

    /// Keeps the top `keep_rows` rows of the resized picture, 0 .. `height - 1`, and draws the rest n times, in one
    /// call. With 0 it draws from nothing. It needs the bundle's `complete.onnx`.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Bundle`], [`Error::Runtime`], [`Error::Memory`] or [`Error::Cancelled`].
    ///
    /// ```
    /// # let mut session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
    /// let pixels = vec![200; 40 * 30 * 3]; // RGB, rows from the top
    /// let image = igpt::Image { width: 40, height: 30, data: pixels };
    /// let options = igpt::Options { n: 2, seed: 1, ..session.info().options };
    /// let completion = session.complete(&image, 8, &options)?;
    /// assert_eq!(completion.images.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn complete(&mut self, image: &Image, keep_rows: usize, options: &Options) -> Result<Completion> {
        options.check(keep_rows, self.info.height)?;
        let inputs = ort::inputs! {
            "image" => image.tensor()?,
            "keep_rows" => scalar(keep_rows as i64)?,
            "n" => scalar(options.n as i64)?,
            "seed" => scalar(options.seed as i64)?, // the same 64 bits
            "temperature" => scalar(options.temperature)?,
            "top_k" => scalar(options.top_k)?,
            "top_p" => scalar(options.top_p)?,
        };
        let size = options.n * self.info.n_positions;
        let (levels, tokens) = self.call("complete", |graph, run| {
            let outputs = graph.run_with_options(inputs, run)?;
            Ok((values::<u8>(&outputs, "images", 3 * size)?, values(&outputs, "tokens", size)?))
        })?;
        Ok(Completion { images: self.info.images(&levels), tokens: split(&tokens, self.info.n_positions) })
    }

    /// Every class with its probability, likeliest first; of a regression, every value, largest first. It needs the
    /// bundle's `classify.onnx`.
    ///
    /// ```
    /// # let mut session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
    /// # let pixels = vec![200; 40 * 30 * 3];
    /// for (label, probability) in session.classify(&igpt::Image { width: 40, height: 30, data: pixels })? {
    ///     println!("{label} ({:.0} %)", 100.0 * probability);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn classify(&mut self, image: &Image) -> Result<Vec<(String, f32)>> {
        let output = if self.info.function_to_apply == "none" { "values" } else { "probabilities" };
        let values = self.read("classify", image, output, self.info.labels.len())?;
        let mut classes: Vec<_> = self.info.labels.iter().cloned().zip(values).collect();
        classes.sort_by(|(_, a): &(_, f32), (_, b)| b.total_cmp(a));
        Ok(classes)
    }

    /// Hidden states, averaged over the tokens, `[n_layer + 1][n_embd]`. Row i is the input of block i; the last row is
    /// the output of the final norm. It needs the bundle's `features.onnx`.
    ///
    /// ```
    /// # let mut session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
    /// # let pixels = vec![200; 40 * 30 * 3];
    /// let features = session.features(&igpt::Image { width: 40, height: 30, data: pixels })?;
    /// let middle = &features[session.info().n_layer / 2];
    /// # assert_eq!(middle.len(), 128);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn features(&mut self, image: &Image) -> Result<Vec<Vec<f32>>> {
        let n_embd = self.info.n_head * self.info.head_dim;
        let features = self.read("features", image, "features", (self.info.n_layer + 1) * n_embd)?;
        Ok(split(&features, n_embd))
    }

    /// Minus the log-likelihood of each token in nats, `[height * width]`, and their mean. It needs the bundle's
    /// `score.onnx`.
    ///
    /// ```
    /// # let mut session = igpt::Session::open(std::env::var("IGPT_DIGITS")?)?;
    /// # let pixels = vec![200; 40 * 30 * 3];
    /// let (nats, mean) = session.score(&igpt::Image { width: 40, height: 30, data: pixels })?;
    /// println!("{mean:.2} nats per token, {:.2} for the first", nats[0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn score(&mut self, image: &Image) -> Result<(Vec<f32>, f32)> {
        let nats: Vec<f32> = self.read("score", image, "nats", self.info.n_positions)?;
        let mean = nats.iter().sum::<f32>() / nats.len() as f32;
        Ok((nats, mean))
    }

    /// Tokens of a picture, resized to the model's size, `[height * width]`.
    pub fn tokens(&mut self, image: &Image) -> Result<Vec<i64>> {
        self.read("preprocess", image, "tokens", self.info.n_positions)
    }

    /// Pictures of tokens, each row `[height * width]`.
    ///
    /// # Errors
    /// [`Error::Option`] for a row of another length or with no token of the model, and those of a call.
    pub fn images(&mut self, tokens: &[impl AsRef<[i64]>]) -> Result<Vec<Image>> {
        let (n, size) = (tokens.len(), self.info.n_positions);
        tokens.iter().try_for_each(|row| self.info.check_tokens(row.as_ref(), size..=size))?;
        let all: Vec<_> = tokens.iter().flat_map(|row| row.as_ref()).copied().collect();
        let inputs = ort::inputs! { "tokens" => Tensor::from_array(([n, size], all))? };
        let run = |graph: &mut Graph, run: &_| values(&graph.run_with_options(inputs, run)?, "images", 3 * n * size);
        let levels: Vec<u8> = self.call("postprocess", run)?;
        Ok(self.info.images(&levels))
    }

    /// A graph, which is loaded and checked if it was not yet.
    pub(crate) fn graph(&mut self, name: Name) -> Result<&mut Graph> {
        if !self.graphs.contains_key(name) {
            // Each decoder packs the weights, and one copy is enough.
            self.graphs.retain(|other, _| !(other.starts_with("decode") && name.starts_with("decode")));
            let settings = self.builder.settings(&self.library, name, &self.info.precision)?;
            let graph = self.source.commit(name, settings)?;
            self.check(&graph, name)?;
            self.graphs.insert(name, graph);
        }
        Ok(self.graphs.get_mut(name).expect("it is there"))
    }

    /// Refuses a graph that is not the one of that name, or whose weights are others.
    fn check(&mut self, graph: &Graph, name: &str) -> Result<()> {
        let metadata = graph.metadata()?;
        let text = |key: &str| metadata.custom(key).unwrap_or_default();
        self.library.check(&text("igpt.onnxruntime_minimum"))?;
        let expected = text("igpt.weights_sha256");
        if self.weights_sha256.is_empty() && !expected.is_empty() {
            self.weights_sha256 = self.source.weights.as_ref().map_or(Ok("missing".into()), Part::sha256)?;
        }
        let is_own = text("igpt.graph") == name && Info::of(&metadata)? == self.info;
        if is_own && (expected.is_empty() || expected == self.weights_sha256) {
            return Ok(());
        }
        let words = if is_own { "has missing or altered weights" } else { "is another graph, or of another bundle" };
        Err(Error::Bundle(format!("{name} {words}; copy or export the bundle again")))
    }

    /// Runs a graph in a way that can be cancelled.
    pub(crate) fn call<T, F: FnOnce(&mut Graph, &RunOptions) -> Result<T>>(&mut self, name: Name, run: F) -> Result<T> {
        let cancel = self.cancel.clone();
        run(self.graph(name)?, &cancel.0)
    }

    /// An output of a graph that takes a picture.
    fn read<T: Element + Copy>(&mut self, name: Name, image: &Image, output: &str, size: usize) -> Result<Vec<T>> {
        let inputs = ort::inputs! { "image" => image.tensor()? };
        self.call(name, |graph, run| values(&graph.run_with_options(inputs, run)?, output, size))
    }
}

pub(crate) fn scalar<T: Element + Debug + Clone + 'static>(value: T) -> ort::Result<Tensor<T>> {
    Tensor::from_array(((), vec![value]))
}

fn split<T: Clone>(values: &[T], size: usize) -> Vec<Vec<T>> {
    values.chunks_exact(size).map(<[T]>::to_vec).collect()
}

/// The values of an output, whose number must be `size`.
pub(crate) fn values<T: Element + Copy>(outputs: &SessionOutputs, name: &str, size: usize) -> Result<Vec<T>> {
    match outputs.get(name).map(|value| value.try_extract_tensor()).transpose()? {
        Some((_, found)) if found.len() == size => Ok(found.to_vec()),
        _ => Err(Error::Bundle(format!("the output {name} is missing, or of another size; export the bundle again"))),
    }
}
