//! The golden pack, and that all ways to open a bundle or to draw give the same.

mod common;

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;

use common::*;
use igpt::random::{threefry2x32, uniform};
use igpt::{Cancel, Completion, Options, Run, Session};
use serde_json::Value;

fn options(case: &Value) -> Options {
    Options {
        n: case["n"].as_u64().unwrap() as usize,
        seed: case["seed"].as_str().unwrap().parse().unwrap(),
        temperature: case["temperature"].as_f64().unwrap() as f32,
        top_k: case["top_k"].as_i64().unwrap(),
        top_p: case["top_p"].as_f64().unwrap() as f32,
    }
}

fn words(value: &Value) -> [u32; 2] {
    [0, 1].map(|i| u32::from_str_radix(value[i].as_str().unwrap(), 16).unwrap())
}

/// A completion of the pack: its case, its tokens, and how many whole rows it keeps, if they are whole.
struct Expected<'a>(&'a Value, Vec<Vec<i64>>, Option<usize>);

fn completions(cases: &Value) -> impl Iterator<Item = Expected<'_>> {
    list(&cases["completions"]).iter().map(|case| {
        let keep = case["keep"].as_u64().unwrap() as usize;
        let by_rows = keep.is_multiple_of(8) && keep < 64;
        Expected(case, list(&case["tokens"]).iter().map(integers).collect(), by_rows.then_some(keep / 8))
    })
}

fn check(completion: Completion, tokens: &[Vec<i64>], session: &mut Session) {
    assert_eq!(completion.tokens, tokens);
    assert_eq!(completion.images, session.images(tokens).unwrap());
}

#[test]
fn random_numbers() {
    let cases = cases();
    for case in list(&cases["threefry"]) {
        assert_eq!(threefry2x32(words(&case["key"]), words(&case["counter"])), words(&case["result"]));
    }
    for case in list(&cases["uniforms"]) {
        let seed = case["seed"].as_str().unwrap().parse().unwrap();
        let [sample, position] = ["sample", "position"].map(|name| case[name].as_u64().unwrap() as u32);
        assert_eq!(f64::from(uniform(seed, sample, position)), case["uniform"].as_f64().unwrap());
    }
}

#[test]
fn tokens_and_images() {
    let (cases, mut session) = (cases(), open(golden()));
    for case in list(&cases["pictures"]) {
        assert_eq!(session.tokens(&photo(case)).unwrap(), integers(&case["tokens"]), "{}", case["name"]);
    }
    for case in list(&cases["images"]) {
        let images = session.images(&[integers(&case["tokens"])]).unwrap();
        assert_eq!((images[0].width, images[0].height), (8, 8));
        assert_eq!(images[0].data, base64(case["rgb"].as_str().unwrap()));
    }
    assert_eq!(session.images(&[[0; 64]; 0]), Ok(Vec::new()));
}

#[test]
fn classify_features_score() {
    let (cases, mut session) = (cases(), open(golden()));
    for case in list(&cases["model"]) {
        let photo = photo_named(&cases, &case["picture"]);
        let classes = session.classify(&photo).unwrap();
        assert!(classes.is_sorted_by(|(_, a), (_, b)| a >= b));
        let by_label = session.info().labels.iter().map(|label| classes.iter().find(|class| &class.0 == label));
        let probabilities: Vec<_> = by_label.map(|class| class.unwrap().1).collect();
        close(&probabilities, &case["probabilities"], 1e-4);
        let features = session.features(&photo).unwrap();
        assert_eq!([features.len(), features[0].len()], [4, 32]);
        close(&features.concat(), &case["features"], 1e-4);
        let (nats, mean) = session.score(&photo).unwrap();
        close(&nats, &case["nats"], 1e-3);
        close(&[mean], &case["nats_per_token"], 1e-4);
    }
}

#[test]
fn completions_in_one_call() {
    let (cases, mut session) = (cases(), open(golden()));
    let mut done = 0;
    for Expected(case, tokens, rows) in completions(&cases) {
        let photo = photo_named(&cases, &case["picture"]);
        if let Some(rows) = rows {
            let completion = session.complete(&photo, rows, &options(case)).unwrap();
            check(completion, &tokens, &mut session);
            done += 1;
        }
    }
    assert!(done >= 5);
}

#[test]
fn completions_in_steps() {
    let (cases, mut session) = (cases(), open(golden()));
    for Expected(case, tokens, rows) in completions(&cases) {
        let photo = photo_named(&cases, &case["picture"]);
        let primer = session.tokens(&photo).unwrap()[..case["keep"].as_u64().unwrap() as usize].to_vec();
        let completion = session.generate(&primer, &options(case)).unwrap().finish().unwrap();
        check(completion, &tokens, &mut session);
        if let Some(rows) = rows {
            let run = session.complete_steps(&photo, rows, &options(case)).unwrap();
            assert_eq!(steps(run), tokens);
        }
    }
}

/// The tokens of a run, from its steps, whose progress is checked, too.
fn steps(mut run: Run) -> Vec<Vec<i64>> {
    let (mut drawn, mut found) = (0, Vec::new());
    for step in &mut run {
        let step = step.unwrap();
        drawn += step.tokens.len();
        assert_eq!(step.drawn, drawn);
        found.push(step);
    }
    let tokens = run.finish().unwrap().tokens;
    for (i, step) in found.iter().rev().enumerate() {
        assert_eq!((step.position, step.total), (63 - i, drawn));
        assert!(tokens.iter().zip(&step.tokens).all(|(row, token)| row[step.position] == *token));
    }
    tokens
}

#[test]
fn any_number_of_samples() {
    let (photo, mut digits) = (grey(), open(digits()));
    for keep_rows in [0, 9, 15] {
        let recommended = digits.info().options;
        let options = |n| Options { n, seed: 3, ..recommended };
        let eight = digits.complete(&photo, keep_rows, &options(8)).unwrap();
        for n in [1, 3, 8] {
            let found = digits.complete_steps(&photo, keep_rows, &options(n)).unwrap().finish().unwrap();
            assert_eq!(found.tokens, eight.tokens[..n], "{keep_rows} rows, {n} samples");
            assert_eq!(found.images, eight.images[..n]);
        }
    }
}

#[test]
fn from_memory_and_single_file() {
    let (photo, mut directory) = (grey(), open(golden()));
    let options = some(&directory, 2);
    let expected = directory.complete(&photo, 3, &options).unwrap();
    let features = directory.features(&photo).unwrap();

    let read = |name: &str| fs::read(golden().join(name)).unwrap();
    let names = ["complete", "preprocess", "postprocess", "prefill", "decode", "features"];
    let graphs = names.map(|name| (name, read(&format!("{name}.onnx"))));
    let graphs = graphs.each_ref().map(|(name, graph)| (*name, graph.as_slice()));
    let mut memory = Session::builder().open_memory(&graphs, Some(&read("weights.safetensors"))).unwrap();
    assert_eq!(memory.info(), directory.info());
    assert_eq!(memory.complete(&photo, 3, &options), Ok(expected.clone()));
    assert_eq!(memory.complete_steps(&photo, 3, &options).unwrap().finish(), Ok(expected.clone()));
    assert_eq!(memory.features(&photo), Ok(features));

    let single = single_file(&golden(), "complete");
    let mut memory = Session::builder().open_memory(&[("complete", &single)], None).unwrap();
    assert_eq!(memory.complete(&photo, 3, &options), Ok(expected.clone()));
    let place = Scratch::new("single");
    fs::write(place.0.join("any name.onnx"), single).unwrap();
    let mut file = Session::builder().open_file(place.0.join("any name.onnx")).unwrap();
    assert_eq!(file.complete(&photo, 3, &options), Ok(expected.clone()));
    // A bundle may have such graphs, too.
    fs::rename(place.0.join("any name.onnx"), place.0.join("complete.onnx")).unwrap();
    assert_eq!(open(&place.0).complete(&photo, 3, &options), Ok(expected));
}

#[cfg(unix)]
#[test]
fn from_the_cache_of_the_hub() {
    let (photo, hub) = (grey(), Scratch::new("hub"));
    let (blobs, snapshot) = (hub.0.join("blobs"), hub.0.join("snapshots/1234"));
    fs::create_dir(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    for (i, entry) in fs::read_dir(golden()).unwrap().enumerate() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), blobs.join(i.to_string())).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), snapshot.join(entry.file_name())).unwrap();
    }
    let mut linked = open(&snapshot);
    let options = some(&linked, 1);
    assert_eq!(linked.score(&photo), open(golden()).score(&photo));
    assert!(linked.complete_steps(&photo, 1, &options).unwrap().finish().is_ok());
}

#[test]
fn info() {
    let session = open(digits());
    let info = session.info();
    assert_eq!((info.name.as_str(), info.height, info.width, info.n_positions), ("digits", 16, 16, 256));
    assert_eq!((info.n_layer, info.n_head, info.head_dim, info.n_clusters), (6, 4, 32, 256));
    assert_eq!((info.precision.as_str(), info.kv_cache.as_str()), ("fp32", "fp32"));
    assert_eq!((info.options.temperature, info.options.top_k, info.options.top_p), (0.8, 0, 1.0));
    assert!(!info.labels.is_empty());
    assert_eq!(open(golden()).info().labels, ["a", "b", "c"]);
}

#[test]
fn threads() {
    fn sent<T: Send>() {}
    sent::<Session>();
    sent::<Run>();
    sent::<Cancel>();
    let photo = grey();
    let expected = open(golden()).score(&photo).unwrap();
    let shared = Arc::new(Mutex::new(open(golden()))); // one session in two threads,
    thread::scope(|scope| {
        for _ in 0..2 {
            let (shared, photo, expected) = (Arc::clone(&shared), &photo, &expected);
            scope.spawn(move || assert_eq!(&shared.lock().unwrap().score(photo).unwrap(), expected));
            scope.spawn(move || assert_eq!(&open(golden()).score(photo).unwrap(), expected)); // and others
        }
    });
}
