//! ONNX Runtime's library: missing, too old, or another one. A process has one, so that this is one test.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use common::*;
use igpt::{Error, Session, SessionBuilder};

/// A library that says to be of another release, and is the real one else.
const IMPOSTOR: &str = r#"
#[repr(C)]
pub struct Base(extern "C" fn(u32) -> *const u8, extern "C" fn() -> *const u8);
static BASE: Base = Base(api, version);
unsafe extern "C" {
    fn dlopen(path: *const u8, how: i32) -> *mut u8;
    fn dlsym(library: *mut u8, name: *const u8) -> *mut u8;
}
extern "C" fn version() -> *const u8 { concat!(VERSION, "\0").as_ptr() }
extern "C" fn api(number: u32) -> *const u8 {
    unsafe {
        let entry = dlsym(dlopen(concat!(PATH, "\0").as_ptr(), 2), "OrtGetApiBase\0".as_ptr());
        (std::mem::transmute::<_, extern "C" fn() -> *const Base>(entry)().as_ref().unwrap().0)(number)
    }
}
#[unsafe(no_mangle)]
pub extern "C" fn OrtGetApiBase() -> *const Base { &BASE }
"#;

fn impostor(place: &Path, version: &str, library: &Path) -> PathBuf {
    let source =
        IMPOSTOR.replace("VERSION", &format!("{version:?}")).replace("PATH", &format!("{:?}", library.display()));
    let (file, made) = (place.join("impostor.rs"), place.join(format!("libimpostor-{version}.so")));
    fs::write(&file, source).unwrap();
    let compiler = env::var_os("RUSTC").unwrap_or("rustc".into());
    let arguments = ["--crate-type=cdylib", "--crate-name=impostor", "--edition=2024", "-Cpanic=abort", "-o"];
    assert!(Command::new(compiler).args(arguments).args([&made, &file]).status().unwrap().success());
    made
}

fn with(library: &Path) -> SessionBuilder {
    SessionBuilder { runtime_library: Some(library.to_path_buf()), ..Session::builder() }
}

fn refused(library: &Path, words: &str) {
    match with(library).open(golden()).map(|_| ()) {
        Err(Error::Runtime(message)) => assert!(message.contains(words) && message.lines().count() == 1, "{message}"),
        other => panic!("{other:?}"),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn library() {
    let place = Scratch::new("library");
    let real = PathBuf::from(env::var_os("IGPT_ORT_LIBRARY").expect("IGPT_ORT_LIBRARY names ONNX Runtime's library"));
    refused(&place.0.join("absent.so"), "absent.so\" cannot be loaded as ONNX Runtime: ");
    fs::write(place.0.join("text.so"), "this is a text").unwrap();
    refused(&place.0.join("text.so"), "give the path of libonnxruntime, or set IGPT_ORT_LIBRARY");
    refused(Path::new("libc.so.6"), "OrtGetApiBase");
    refused(&impostor(&place.0, "1.10.0", &real), "; update ONNX Runtime");

    // The golden bundle needs 1.25.
    let old = impostor(&place.0, "1.20.1", &real);
    refused(&old, "the bundle needs ONNX Runtime 1.25 or newer, and ");
    refused(&real, "a process can load one ONNX Runtime only, and ");
    assert!(igpt::environment(Some(&old)).is_ok());
    // A bundle that does not say what it needs runs.
    let graph = fs::read(golden().join("postprocess.onnx")).unwrap();
    let any = with_metadata(&graph, "igpt.onnxruntime_minimum", None);
    let mut session = with(&old).open_memory(&[("postprocess", &any)], None).unwrap();
    assert_eq!(session.images(&[[0; 64]]).unwrap().len(), 1);
}
