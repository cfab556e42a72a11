// onnxruntime-web's WebAssembly, which Node runs as a browser does. One thread: its workers want a browser.
import { TINY, replay } from './golden.mjs';
import { openInWasm } from './wasm.mjs';

replay('web', () => openInWasm(TINY));
