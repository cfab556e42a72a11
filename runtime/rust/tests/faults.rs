//! Bad input, damaged bundles, and calls that are ended: each gives its kind of error in one line.

mod common;

use std::error::Error as _;
use std::fs;
use std::thread;
use std::time::Duration;

use common::*;
use igpt::{Error, Image, Options, Session, SessionBuilder};

/// Checks the kind of an error, that its message is one line, and a part of it.
macro_rules! refused {
    ($kind:ident, $result:expr, $words:expr) => {{
        let error = $result.map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::$kind { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains($words), "{message}");
        assert!(message.lines().count() == 1 && !message.contains(char::is_control), "{message}");
        assert!(error.source().is_none());
    }};
}

#[test]
fn options() {
    let (mut session, photo) = (open(golden()), grey());
    let one = some(&session, 1);
    let bad = [
        (Options { n: 0, ..one }, "n must be 1 .. 65536, got 0"),
        (Options { n: 65537, ..one }, "n must be"),
        (Options { n: usize::MAX, ..one }, "n must be"),
        (Options { temperature: f32::NAN, ..one }, "temperature must be finite, got NaN"),
        (Options { temperature: f32::INFINITY, ..one }, "temperature"),
        (Options { temperature: -0.1, ..one }, "temperature must be at least 0, got -0.1"),
        (Options { top_k: -1, ..one }, "top_k must be at least 0, got -1"),
        (Options { top_p: 0.0, ..one }, "top_p must be above 0 and at most 1, got 0"),
        (Options { top_p: 1.5, ..one }, "top_p"),
        (Options { top_p: f32::NAN, ..one }, "top_p"),
    ];
    for (options, words) in bad {
        refused!(Option, session.complete(&photo, 1, &options), words);
        refused!(Option, session.complete_steps(&photo, 1, &options), words);
        refused!(Option, session.sample(&options), words);
        refused!(Option, session.generate(&[1], &options), words);
    }
    for rows in [8, 99, usize::MAX] {
        refused!(Option, session.complete(&photo, rows, &one), "keep_rows must be 0 .. 7");
        refused!(Option, session.complete_steps(&photo, rows, &one), "keep_rows");
    }
    refused!(Option, session.generate(&[0; 65], &one), "these 65 are no tokens of a picture; give 0..=64 of 0 .. 15");
    refused!(Option, session.generate(&[0, 16], &one), "these 2 are no tokens");
    refused!(Option, session.generate(&[-1], &one), "these 1 are no tokens");
    refused!(Option, session.images(&[[0; 63]]), "these 63 are no tokens of a picture; give 64..=64 of 0 .. 15");
    refused!(Option, session.images(&[[0; 64], [16; 64]]), "these 64 are no tokens");
    let many = SessionBuilder { threads: 5000, ..Session::builder() };
    refused!(Option, many.open(golden()), "threads must be 0 .. 1024, got 5000");
    let most = Options { top_k: i64::MAX, temperature: f32::MAX, seed: u64::MAX, ..one };
    assert!(session.complete(&photo, 1, &most).is_ok());
}

#[test]
fn pictures() {
    let mut session = open(golden());
    let sizes = [(2, 2, 11), (2, 2, 13), (0, 2, 0), (2, 0, 0), (usize::MAX, usize::MAX, 3), (65537, 1, 3 * 65537)];
    for (width, height, levels) in sizes {
        let image = Image { width, height, data: vec![0; levels] };
        let words = format!("and each side is 1 .. 65536; got {levels} levels for {width} x {height} pixels");
        refused!(Image, session.tokens(&image), &words);
        refused!(Image, session.complete(&image, 0, &some(&session, 1)), &words);
        refused!(Image, session.complete_steps(&image, 1, &some(&session, 1)), &words);
        refused!(Image, session.score(&image), &words);
    }
}

#[test]
fn no_bundle() {
    let place = Scratch::new("no-bundle");
    refused!(Bundle, Session::open(place.0.join("absent")), "absent\" has no postprocess.onnx");
    refused!(Bundle, Session::open(&place.0), "has no postprocess.onnx; export a bundle that has it, with --embed");
    refused!(Bundle, Session::builder().open_file(place.0.join("complete.onnx")), "is missing, or no regular file");
    refused!(
        Bundle,
        Session::builder().open_memory(&[("other", b"graph")], None),
        "what was given has no postprocess.onnx"
    );
    for text in ["", "this is a text, and no graph\n", "\u{12}\u{7f}short"] {
        let opened = Session::builder().open_memory(&[("complete", text.as_bytes())], None);
        refused!(Bundle, opened, "complete of what was given cannot be loaded: ONNX Runtime failed: ");
        fs::write(place.0.join("complete.onnx"), text).unwrap();
        refused!(Bundle, Session::open(&place.0), "cannot be loaded");
    }
    fs::remove_file(place.0.join("complete.onnx")).unwrap();
    fs::create_dir(place.0.join("complete.onnx")).unwrap();
    refused!(Bundle, Session::open(&place.0), "no regular file");
}

#[test]
fn metadata() {
    let graph = fs::read(golden().join("postprocess.onnx")).unwrap();
    let opened = |key: &str, value: Option<&str>| {
        let altered = with_metadata(&graph, &format!("igpt.{key}"), value);
        Session::builder().open_memory(&[("postprocess", &altered)], None)
    };
    assert!(opened("license", Some("mit")).is_ok());
    refused!(Bundle, opened("graph", None), "postprocess is another graph, or of another bundle");
    refused!(
        Bundle,
        opened("format_version", Some("99")),
        "a graph says 99 for igpt.format_version, which this cannot"
    );
    refused!(Bundle, opened("sampling_version", None), "a graph says nothing for igpt.sampling_version");
    refused!(Bundle, opened("height", Some("0")), "says 0 for igpt.height");
    refused!(Bundle, opened("width", Some("-8")), "says -8 for igpt.width");
    refused!(Bundle, opened("n_layer", Some("99999999999999999999")), "igpt.n_layer");
    refused!(Bundle, opened("n_positions", Some("65")), "says 65 for igpt.n_positions");
    refused!(Bundle, opened("n_head", None), "says nothing for igpt.n_head");
    refused!(Bundle, opened("labels", Some("-4")), "igpt.labels");
    refused!(Bundle, opened("top_p", Some("NaN")), "a graph recommends otherwise: top_p");
    refused!(Runtime, opened("onnxruntime_minimum", Some("99.0")), "the bundle needs ONNX Runtime 99.0 or newer");
    let other = without_metadata(&graph);
    refused!(
        Bundle,
        Session::builder().open_memory(&[("postprocess", &other)], None),
        "says nothing for igpt.format_v"
    );
}

#[test]
fn weights() {
    let (place, photo) = (Scratch::bundle("weights"), grey());
    place.edit("weights.safetensors", |mut weights| {
        *weights.last_mut().unwrap() ^= 1;
        weights
    });
    let mut session = open(&place.0);
    let one = some(&session, 1);
    refused!(Bundle, session.score(&photo), "score has missing or altered weights; copy or export the bundle again");
    refused!(Bundle, session.sample(&one).unwrap().finish(), "decode has missing or altered weights");
    assert!(session.tokens(&photo).is_ok());
    refused!(Bundle, Session::builder().open_file(place.0.join("score.onnx")), "score has missing or altered weights");

    let graph = fs::read(place.0.join("score.onnx")).unwrap();
    let graphs = [("score", graph.as_slice())];
    let altered = fs::read(place.0.join("weights.safetensors")).unwrap();
    refused!(Bundle, Session::builder().open_memory(&graphs, Some(&altered)), "score has missing or altered weights");
    refused!(Bundle, Session::builder().open_memory(&graphs, Some(&altered[..999])), "cannot be loaded");
    refused!(
        Bundle,
        Session::builder().open_memory(&graphs, None),
        "score needs weights.safetensors, which was not given"
    );

    place.edit("weights.safetensors", |weights| weights[..999].to_vec());
    refused!(Bundle, open(&place.0).score(&photo), "cannot be loaded");
    fs::remove_file(place.0.join("weights.safetensors")).unwrap();
    refused!(Bundle, open(&place.0).score(&photo), "cannot be loaded");
}

#[test]
fn wrong_graphs() {
    let (place, photo) = (Scratch::bundle("wrong"), grey());
    fs::copy(golden().join("score.onnx"), place.0.join("classify.onnx")).unwrap();
    fs::copy(digits().join("preprocess.onnx"), place.0.join("preprocess.onnx")).unwrap();
    fs::remove_file(place.0.join("complete.onnx")).unwrap();
    place.edit("decode.onnx", |mut graph| {
        let damage = b"MatMul";
        let places: Vec<_> = (0..graph.len() - damage.len()).filter(|i| graph[*i..].starts_with(damage)).collect();
        places.iter().for_each(|i| graph[*i] = b'X');
        graph
    });
    let mut session = open(&place.0);
    let one = some(&session, 1);
    refused!(Bundle, session.classify(&photo), "classify is another graph, or of another bundle");
    refused!(Bundle, session.tokens(&photo), "preprocess is another graph, or of another bundle");
    refused!(Bundle, session.complete(&photo, 1, &one), "has no complete.onnx");
    refused!(Bundle, session.sample(&one).unwrap().finish(), "decode of ");
}

#[cfg(unix)]
#[test]
fn links() {
    use std::os::unix::fs::symlink;
    let (place, photo) = (Scratch::bundle("links"), grey());
    let elsewhere = Scratch::bundle("links-elsewhere");
    for file in ["score.onnx", "weights.safetensors"] {
        fs::remove_file(place.0.join(file)).unwrap();
        symlink(elsewhere.0.join(file), place.0.join(file)).unwrap();
    }
    refused!(Bundle, Session::open(&place.0), "weights.safetensors\" is missing, or no regular file of the bundle");
    fs::remove_file(place.0.join("weights.safetensors")).unwrap();
    fs::copy(golden().join("weights.safetensors"), place.0.join("weights.safetensors")).unwrap();
    refused!(Bundle, open(&place.0).score(&photo), "score.onnx\" is missing, or no regular file of the bundle");
    fs::remove_file(place.0.join("score.onnx")).unwrap();
    symlink(elsewhere.0.join("absent"), place.0.join("score.onnx")).unwrap();
    refused!(Bundle, open(&place.0).score(&photo), "score.onnx");
}

#[test]
fn no_provider() {
    let gpu = SessionBuilder { provider: igpt::Provider::Cuda, ..Session::builder() };
    if let Err(error) = gpu.open(golden()) {
        refused!(Runtime, Err::<(), _>(error), "CUDA");
    }
}

#[test]
fn cancelled_within_a_call() {
    let (mut session, photo) = (open(digits()), grey());
    let many = some(&session, 4096); // minutes of work
    let cancel = session.cancel_handle().unwrap();
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(500));
        cancel.cancel();
    });
    refused!(Cancelled, session.complete(&photo, 0, &many), "was cancelled");
    later.join().unwrap();
    refused!(Cancelled, session.score(&photo), "was cancelled"); // it stays so
    session.cancel_handle().unwrap();
    assert!(session.score(&photo).is_ok());
}

#[test]
fn cancelled_in_steps() {
    let mut session = open(golden());
    let (one, cancel) = (some(&session, 1), session.cancel_handle().unwrap());
    let mut run = session.sample(&one).unwrap();
    for _ in 0..3 {
        assert!(run.next().unwrap().is_ok());
    }
    cancel.clone().cancel();
    refused!(Cancelled, run.next().unwrap(), "was cancelled");
    assert_eq!(run.next(), None);
    refused!(Cancelled, run.finish(), "was cancelled");
    session.cancel_handle().unwrap();
    drop(session.sample(&one).unwrap().next()); // one that is left early
    assert!(session.sample(&one).unwrap().finish().is_ok());
    cancel.cancel(); // it has no more effect
    assert!(session.sample(&one).unwrap().finish().is_ok());
}

#[test]
fn cancelled_within_a_step() {
    let mut session = open(digits());
    let (many, cancel) = (some(&session, 64), session.cancel_handle().unwrap());
    let mut run = session.generate(&[0], &many).unwrap();
    assert!(run.next().unwrap().is_ok());
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        cancel.cancel();
    });
    refused!(Cancelled, run.find(Result::is_err).unwrap(), "was cancelled");
    later.join().unwrap();
}

/// Runs `short_of_memory` in a process with 1 GB of addresses.
#[cfg(target_os = "linux")]
#[test]
fn memory() {
    let command = "ulimit -v 1000000 && exec \"$0\" --exact short_of_memory --ignored --test-threads=1";
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new("sh").args(["-c", command]).arg(this).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "memory runs it"]
fn short_of_memory() {
    let (mut session, photo) = (open(digits()), grey());
    let most = some(&session, 65536);
    refused!(Memory, session.sample(&most).unwrap().finish(), "65536 samples need 103.1 GB of cache");
    refused!(Memory, session.complete(&photo, 8, &most), "there is not enough memory");
    assert!(session.complete(&photo, 15, &some(&session, 1)).is_ok());
}
