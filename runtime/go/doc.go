// Package igpt completes, draws, classifies, embeds and scores pictures with ImageGPT bundles, on ONNX Runtime.
//
// A bundle is a directory of ONNX graphs and their weights, which igpt-export of igpt-onnx makes. It is opened as
// a [Model]:
//
//	model, err := igpt.Open("bundle")
//	if err != nil {
//		return err
//	}
//	defer model.Close()
//	completion, err := model.Complete(ctx, picture, 16, igpt.N(4), igpt.Seed(7))
//
// One call draws ([Model.Complete]), or each position is a step of an iterator ([Model.CompleteSteps], [Model.Sample],
// [Model.Generate]). Nothing is printed, and there is no state outside of models. Every error is an [*Error], which has
// a [Kind].
//
// # Contexts
//
// A context that ends stops Complete and the iterators within a step. All other calls are one short run of a graph: a
// context ends their wait for the model, and not the run.
//
// # Goroutines
//
// Any number of goroutines may use one model. Their calls take turns. Two models run beside each other.
//
// # Building
//
// The package is the C library igpt behind cgo, and needs a C compiler. By default it compiles the library's sources,
// which go generate copies from runtime/c into this folder. With -tags libigpt it uses an installed library instead, which
// pkg-config finds. ONNX Runtime's shared library, 1.18 or newer, is opened at run time: see [RuntimeLibrary].
//
// Another way to run the graphs is the package github.com/yalue/onnxruntime_go. It asks for the version of the API that
// its own release was written for, so that it and the shared library must be updated together. The C library asks for
// the version 18, which every newer release of ONNX Runtime serves.
package igpt
