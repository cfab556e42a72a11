//! What the tests share: where the golden pack is, and how a graph is altered.
#![allow(dead_code)] // each test program uses a part

use std::path::{Path, PathBuf};
use std::{env, fs};

use igpt::{Image, Options, Session, SessionBuilder};
use serde_json::Value;

const GRAPH: u64 = 7; // fields of ONNX's ModelProto,
const METADATA: u64 = 14;
const INITIALIZER: u64 = 5; // of its GraphProto,
const RAW_DATA: u64 = 9; // of its TensorProto
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;

fn place(variable: &str, default: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join(default);
    env::var_os(variable).map_or(default, PathBuf::from)
}

pub fn golden() -> PathBuf {
    place("IGPT_GOLDEN", "../../tests/golden").join("bundle")
}

pub fn digits() -> PathBuf {
    place("IGPT_DIGITS", "../python/igpt_runtime/digits")
}

pub fn open(bundle: impl AsRef<Path>) -> Session {
    SessionBuilder { threads: 1, ..Session::builder() }.open(bundle).unwrap()
}

/// What a bundle recommends, for other numbers of samples.
pub fn some(session: &Session, n: usize) -> Options {
    Options { n, ..session.info().options }
}

pub fn cases() -> Value {
    let file = place("IGPT_GOLDEN", "../../tests/golden").join("cases.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

pub fn integers(value: &Value) -> Vec<i64> {
    list(value).iter().map(|number| number.as_i64().unwrap()).collect()
}

/// All numbers of a nested array.
pub fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(parts) => parts.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

pub fn close(found: &[f32], expected: &Value, most: f64) {
    let expected = floats(expected);
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() < most, "{a} is not {b}");
    }
}

/// A picture of the golden pack.
pub fn photo(case: &Value) -> Image {
    let side = |name: &str| case[name].as_u64().unwrap() as usize;
    Image { width: side("width"), height: side("height"), data: base64(case["rgb"].as_str().unwrap()) }
}

pub fn photo_named(cases: &Value, name: &Value) -> Image {
    photo(list(&cases["pictures"]).iter().find(|case| &case["name"] == name).unwrap())
}

pub fn grey() -> Image {
    Image { width: 5, height: 4, data: vec![90; 60] }
}

pub fn base64(text: &str) -> Vec<u8> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | digits.iter().position(|other| *other == digit).unwrap() as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// A directory of its own, removed in the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("igpt-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// A copy of the golden bundle.
    pub fn bundle(name: &str) -> Self {
        let copy = Self::new(name);
        for entry in fs::read_dir(golden()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.0.join(entry.file_name())).unwrap();
        }
        copy
    }

    pub fn edit(&self, file: &str, edit: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let path = self.0.join(file);
        fs::write(&path, edit(fs::read(&path).unwrap())).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A field of a message of Protocol Buffers: its number, content (none of a number), and whole.
struct Field<'a>(u64, &'a [u8], &'a [u8]);

fn fields(message: &[u8]) -> Vec<Field<'_>> {
    let mut found = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let tag = varint(&mut rest);
        let value = if matches!(tag & 7, 0 | 2) { varint(&mut rest) } else { 0 };
        let length = [0, 8, value, 0, 0, 4][tag as usize & 7]; // by the wire type
        let (content, after) = rest.split_at(length as usize);
        rest = after;
        found.push(Field(tag >> 3, content, &start[..start.len() - rest.len()]));
    }
    found
}

fn varint(rest: &mut &[u8]) -> u64 {
    let length = 1 + rest.iter().position(|byte| byte & 0x80 == 0).unwrap();
    let (bytes, after) = rest.split_at(length);
    *rest = after;
    bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

fn put(message: &mut Vec<u8>, number: u64, content: &[u8]) {
    for mut value in [number << 3 | 2, content.len() as u64] {
        while value >= 0x80 {
            message.push(value as u8 | 0x80);
            value >>= 7;
        }
        message.push(value as u8);
    }
    message.extend_from_slice(content);
}

fn entry(content: &[u8]) -> (String, String) {
    let text = |number| {
        let field = fields(content).into_iter().find(|field| field.0 == number);
        field.map_or(String::new(), |field| String::from_utf8(field.1.to_vec()).unwrap())
    };
    (text(1), text(2))
}

/// A graph with another value of its metadata, or without it.
pub fn with_metadata(model: &[u8], key: &str, value: Option<&str>) -> Vec<u8> {
    let mut altered = Vec::new();
    for Field(number, content, whole) in fields(model) {
        if number != METADATA || entry(content).0 != key {
            altered.extend_from_slice(whole);
        }
    }
    if let Some(value) = value {
        let mut entry = Vec::new();
        put(&mut entry, 1, key.as_bytes());
        put(&mut entry, 2, value.as_bytes());
        put(&mut altered, METADATA, &entry);
    }
    altered
}

/// A graph without any metadata.
pub fn without_metadata(model: &[u8]) -> Vec<u8> {
    fields(model).iter().filter(|field| field.0 != METADATA).flat_map(|field| field.2).copied().collect()
}

/// A graph that holds its weights, as `igpt-export --single-file` makes it.
pub fn single_file(bundle: &Path, name: &str) -> Vec<u8> {
    let weights = fs::read(bundle.join("weights.safetensors")).unwrap();
    let model = fs::read(bundle.join(format!("{name}.onnx"))).unwrap();
    let mut single = Vec::new();
    for Field(number, content, whole) in fields(&with_metadata(&model, "igpt.weights_sha256", None)) {
        if number != GRAPH {
            single.extend_from_slice(whole);
            continue;
        }
        let mut graph = Vec::new();
        for Field(number, content, whole) in fields(content) {
            match number {
                INITIALIZER => put(&mut graph, number, &with_data(content, &weights)),
                _ => graph.extend_from_slice(whole),
            }
        }
        put(&mut single, GRAPH, &graph);
    }
    single
}

fn with_data(tensor: &[u8], weights: &[u8]) -> Vec<u8> {
    let (mut altered, mut span) = (Vec::new(), [None, None]);
    for Field(number, content, whole) in fields(tensor) {
        match number {
            EXTERNAL_DATA => match entry(content) {
                (key, value) if key == "offset" => span[0] = Some(value.parse::<usize>().unwrap()),
                (key, value) if key == "length" => span[1] = Some(value.parse().unwrap()),
                _ => {}
            },
            DATA_LOCATION => {}
            _ => altered.extend_from_slice(whole),
        }
    }
    if let [Some(offset), Some(length)] = span {
        put(&mut altered, RAW_DATA, &weights[offset..offset + length]);
    }
    altered
}
