package igpt

// #include "igpt.h"
// static igpt_open_options open_defaults(void) { return (igpt_open_options)IGPT_OPEN_OPTIONS_INIT; }
// static igpt_model_info no_info(void) { return (igpt_model_info)IGPT_MODEL_INFO_INIT; }
import "C"

import (
	"context"
	"runtime"
	"strings"
	"unsafe"
)

// An OpenOption says how to open a model.
type OpenOption func(*native)

// RuntimeLibrary names the file of ONNX Runtime's shared library. By default, and if path is empty, the system finds it by its
// usual name. It stays loaded.
func RuntimeLibrary(path string) OpenOption {
	return func(n *native) { n.options.runtime_library = n.text(path) }
}

// Threads is how many threads compute one operator, 0 .. 1024. By default, and with 0, ONNX Runtime chooses: one for
// each physical core.
func Threads(n int) OpenOption {
	return func(held *native) { held.options.threads = C.int32_t(min(max(n, -1), 1<<30)) }
}

// Spinning lets idle threads wait busily, which is faster where nothing else runs. By default they sleep.
func Spinning() OpenOption { return func(n *native) { n.options.spinning = 1 } }

// CUDA computes on a GPU, with a library of ONNX Runtime that has this provider. By default the CPU computes.
func CUDA() OpenOption { return func(n *native) { n.options.provider = C.IGPT_CUDA } }

// NoMemoryArena gives freed memory of the CPU back to the system at once, which is slower.
func NoMemoryArena() OpenOption { return func(n *native) { n.options.no_memory_arena = 1 } }

// NoVerify does not compare the weights with the SHA-256 that the graphs name.
func NoVerify() OpenOption { return func(n *native) { n.options.no_verify = 1 } }

// Info is what a model says of itself.
type Info struct {
	Name            string
	Precision       string // "fp32", "int8", "int4" or "fp16"
	KVCache         string // "fp32", "int8" or "fp16"
	Profile         string // "fused" or "portable"
	ONNXRuntime     string // version of the library that runs it
	Height, Width   int    // of its pictures, in pixels
	NPositions      int    // tokens of a picture, Height x Width
	NClusters       int    // colours; tokens are 0 .. NClusters - 1
	NLayer, NHead   int
	NEmbd           int      // channels of its hidden states
	Labels          []string // of the classes; nil without a classifier
	FunctionToApply string   // "softmax" or "sigmoid": probabilities; "none": values; empty without a classifier
	Temperature     float64  // the recommended sampling, for options that a request leaves out
	TopK            int
	TopP            float64
	Graphs          []string // that it had when it was opened, by names such as "complete"
}

// A Model is an opened bundle. Its graphs are opened when they are first needed.
type Model struct {
	info    Info
	turn    chan struct{} // full while a call is in the library
	native  *native       // used by whoever has the turn
	cleanup runtime.Cleanup
}

// native is what a model keeps for the library.
type native struct {
	model   *C.igpt_model // nil once it is closed
	options C.igpt_open_options
	pins    runtime.Pinner
	error   C.igpt_error // of the call in progress
}

func (n *native) free() {
	C.igpt_close(&n.model)
	n.pins.Unpin()
}

// pin keeps bytes where they are while the model is open.
func (n *native) pin(data []byte) unsafe.Pointer {
	if len(data) == 0 {
		return nil
	}
	n.pins.Pin(&data[0])
	return unsafe.Pointer(&data[0])
}

// text is a text for C, nil if it is empty. C would end it at a zero, and take a path for another one.
func (n *native) text(text string) *C.char {
	if text == "" {
		return nil
	}
	return (*C.char)(n.pin([]byte(strings.ReplaceAll(text, "\x00", "\ufffd") + "\x00")))
}

// Open opens a bundle's directory, or the file of one graph that holds its weights.
//
// Errors: ErrOption, ErrBundle, ErrRuntime, ErrMemory.
func Open(path string, options ...OpenOption) (*Model, error) {
	return open(options, func(n *native) C.igpt_status {
		return C.igpt_open(n.text(path), &n.options, &n.model, &n.error)
	})
}

// A Graph is a graph in memory.
type Graph struct {
	Name string // such as "complete"
	Data []byte // the content of its .onnx file
}

// OpenMemory opens graphs that are in memory, such as embedded files. Nothing is copied: what is given must not be
// changed until the model is closed.
//
// weights is the content of weights.safetensors; nil if the graphs hold their weights or have none.
//
// Errors: as Open.
func OpenMemory(graphs []Graph, weights []byte, options ...OpenOption) (*Model, error) {
	return open(options, func(n *native) C.igpt_status {
		given := make([]C.igpt_graph, len(graphs))
		for i, graph := range graphs {
			given[i] = C.igpt_graph{n.text(graph.Name), n.pin(graph.Data), C.size_t(len(graph.Data))}
		}
		first, count, size := unsafe.SliceData(given), C.size_t(len(given)), C.size_t(len(weights))
		return C.igpt_open_memory(first, count, n.pin(weights), size, &n.options, &n.model, &n.error)
	})
}

func open(options []OpenOption, function func(*native) C.igpt_status) (*Model, error) {
	n := &native{options: C.open_defaults()}
	for _, option := range options {
		option(n)
	}
	if err := n.toError(context.Background(), function(n)); err != nil {
		n.pins.Unpin()
		return nil, err
	}
	m := &Model{info: readInfo(n.model), turn: make(chan struct{}, 1), native: n}
	m.cleanup = runtime.AddCleanup(m, (*native).free, n)
	return m, nil
}

func readInfo(model *C.igpt_model) Info {
	from := C.no_info()
	C.igpt_info(model, &from, nil) // it can only fail of wrong arguments
	info := Info{
		Name: C.GoString(from.name), Precision: C.GoString(from.precision), KVCache: C.GoString(from.kv_cache),
		Profile: C.GoString(from.profile), ONNXRuntime: C.GoString(from.onnxruntime),
		Height: int(from.height), Width: int(from.width), NPositions: int(from.n_positions),
		NClusters: int(from.n_clusters), NLayer: int(from.n_layer), NHead: int(from.n_head), NEmbd: int(from.n_embd),
		FunctionToApply: C.GoString(from.function_to_apply),
		Temperature:     float64(from.temperature), TopK: int(from.top_k), TopP: float64(from.top_p),
	}
	for _, label := range unsafe.Slice(from.labels, from.n_labels) {
		info.Labels = append(info.Labels, C.GoString(label))
	}
	for _, name := range []string{"prefill", "decode", "decode_shared", "preprocess", "postprocess", "complete",
		"classify", "features", "score"} {
		if C.igpt_has_graph(model, (*C.char)(unsafe.Pointer(unsafe.StringData(name+"\x00")))) != 0 {
			info.Graphs = append(info.Graphs, name)
		}
	}
	return info
}

// Info is what the model says of itself, also when it is closed. Its slices are shared, and must not be changed.
func (m *Model) Info() Info { return m.info }

// Close frees the model, once the call in progress has ended. Later calls and steps fail with ErrState. To close a
// model twice is no error. The garbage collector closes, at some time, a model that nothing refers to any more.
//
// The error is always nil: the result makes a model an [io.Closer].
func (m *Model) Close() error {
	if m != nil && m.turn != nil {
		m.turn <- struct{}{}
		defer m.leave()
		m.cleanup.Stop()
		m.native.free()
	}
	return nil
}

// do calls a function of the library, while no other goroutine does on the same model.
func (m *Model) do(ctx context.Context, function func(*native) C.igpt_status) error {
	if m.turn == nil {
		return fail(ErrState, "the model was not opened; use Open")
	}
	if ctx.Err() != nil { // select may choose otherwise
		return cancelled(ctx)
	}
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return cancelled(ctx)
	}
	defer m.leave()
	if m.native.model == nil {
		return fail(ErrState, "the model is closed; open it again")
	}
	return m.native.toError(ctx, function(m.native))
}

func (m *Model) leave() { <-m.turn }
