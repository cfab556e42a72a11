//! Where the files of a bundle are.

use std::path::{Path, PathBuf, absolute};
use std::{collections::HashMap, fs, io, sync::Arc};

use ort::session::Session as Graph;
pub(crate) use ort::session::builder::SessionBuilder as Settings;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The graphs of a bundle. The first that there is says what the bundle is: the smallest ones lead.
pub(crate) const GRAPHS: [&str; 9] =
    ["postprocess", "preprocess", "features", "classify", "score", "complete", "decode", "decode_shared", "prefill"];
const WEIGHTS_FILE: &str = "weights.safetensors";
const LARGE: usize = 1 << 26; // bytes of a graph that holds its own weights
/// Where ONNX Runtime looks for weights of a graph in memory that were not given, in place of the working directory.
const NOWHERE: (&str, &str) = ("session.model_external_initializers_file_folder_path", "igpt-no-such-directory");

/// A file of a bundle.
pub(crate) enum Part {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

/// Graphs by their names, and their weights unless they hold them.
pub(crate) struct Source {
    place: String,
    pub graphs: HashMap<&'static str, Part>,
    pub weights: Option<Part>,
}

impl Source {
    pub fn directory(root: &Path) -> Self {
        let find = |file: &str| Some(root.join(file)).filter(|path| path.symlink_metadata().is_ok()).map(Part::File);
        let graphs = GRAPHS.into_iter().filter_map(|name| Some((name, find(&format!("{name}.onnx"))?))).collect();
        Source { place: format!("{root:?}"), graphs, weights: find(WEIGHTS_FILE) }
    }

    /// One graph of any name.
    pub fn file(path: &Path) -> Self {
        let graphs = [(GRAPHS[0], Part::File(path.into()))].into();
        Source { place: format!("{path:?}"), graphs, weights: None }
    }

    pub fn memory(graphs: &[(&str, &[u8])], weights: Option<&[u8]>) -> Self {
        let part = |bytes: &[u8]| Part::Memory(Arc::from(bytes));
        let given = |name| graphs.iter().find(|(given, _)| *given == name).map(|(_, bytes)| (name, part(bytes)));
        let graphs = GRAPHS.into_iter().filter_map(given).collect();
        Source { place: "what was given".into(), graphs, weights: weights.map(part) }
    }

    /// Has ONNX Runtime load a graph.
    pub fn commit(&self, name: &str, mut settings: Settings) -> Result<Graph> {
        let absent = format!("{} has no {name}.onnx; export a bundle that has it, with --embed", self.place);
        let graph = self.graphs.get(name).ok_or(Error::Bundle(absent))?;
        let failed = |error: ort::Error| match error.into() {
            Error::Runtime(words) => Error::Bundle(format!("{name} of {} cannot be loaded: {words}", self.place)),
            other => other,
        };
        let has_links = graph.is_link()? | self.weights.as_ref().map_or(Ok(false), Part::is_link)?;
        if let (Part::File(path), false) = (graph, has_links) {
            return settings.commit_from_file(path).map_err(failed);
        }
        settings = settings.with_config_entry(NOWHERE.0, NOWHERE.1)?;
        if let (None, Part::Memory(bytes)) = (&self.weights, graph)
            && bytes.len() < LARGE
            && bytes.windows(WEIGHTS_FILE.len()).any(|part| part == WEIGHTS_FILE.as_bytes())
        {
            let words = format!("{name} needs {WEIGHTS_FILE}, which was not given; give its content too");
            return Err(Error::Bundle(words));
        }
        if let Some(weights) = &self.weights {
            settings = settings.with_external_initializer_file_in_memory(WEIGHTS_FILE, weights.read()?)?;
        }
        settings.commit_from_memory(&graph.read()?).map_err(failed)
    }
}

impl Part {
    /// Of weights, in hexadecimal.
    pub fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let read = match self {
            Part::File(path) => fs::File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash)),
            Part::Memory(bytes) => io::copy(&mut &**bytes, &mut hash),
        };
        read.map_err(|error| Error::Bundle(format!("the weights cannot be read ({error}); copy them again")))?;
        Ok(format!("{:x}", hash.finalize()))
    }

    fn read(&self) -> Result<Arc<[u8]>> {
        let read = match self {
            Part::File(path) => fs::read(path).map(Arc::from),
            Part::Memory(bytes) => Ok(Arc::clone(bytes)),
        };
        read.map_err(|error| Error::Bundle(format!("a file of the bundle cannot be read ({error}); copy it again")))
    }

    /// Whether it is a link, whose weights ONNX Runtime refuses. One is allowed where the cache of the Hugging Face Hub
    /// has the files of the bundle: others could make foreign files a part of it. Nor may it be a pipe, which would be
    /// waited for.
    fn is_link(&self) -> Result<bool> {
        let Part::File(path) = self else { return Ok(false) };
        if path.symlink_metadata().is_ok_and(|kind| kind.is_file()) {
            return Ok(false);
        }
        let target = path.canonicalize().unwrap_or_default();
        let root = absolute(path).and_then(|path| path.with_file_name("").canonicalize()).unwrap_or_default();
        let mut stores = root.ancestors().skip(1).take(3).map(|above| above.join("blobs"));
        let is_stored = stores.any(|store| target.starts_with(&store) && store.read_link().is_err());
        let words = format!("{path:?} is missing, or no regular file of the bundle; copy the file itself to there");
        if is_stored && target.is_file() { Ok(true) } else { Err(Error::Bundle(words)) }
    }
}
