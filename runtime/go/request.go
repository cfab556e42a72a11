package igpt

// #include <stdlib.h>
// #include "igpt.h"
// static igpt_sampling_options sampling_defaults(void) { return (igpt_sampling_options)IGPT_SAMPLING_OPTIONS_INIT; }
import "C"

import (
	"cmp"
	"context"
	"image"
	"runtime"
	"slices"
	"unsafe"
)

// A SamplingOption says how to draw. The same options give the same pictures, however many are drawn; SPEC section 5
// says where rounding may change this.
type SamplingOption func(*sampling)

type sampling = C.igpt_sampling_options

// N is the number of pictures, 1 .. 65536. All are drawn at once, so that memory grows with it. By default it is 8.
func N(n int) SamplingOption { return func(o *sampling) { o.n = C.int64_t(n) } }

// Seed chooses the random numbers. By default it is 0.
func Seed(seed uint64) SamplingOption {
	return func(o *sampling) { o.seed = C.uint64_t(seed) }
}

// Temperature divides the logits. It is finite and at least 0; 0 always takes the likeliest token. By default it is the
// recommended one, as TopK and TopP are: see [Info].
func Temperature(t float64) SamplingOption {
	return func(o *sampling) { o.temperature = C.double(max(t, -1)) }
}

// TopK draws among so many likeliest tokens; 0 is off.
func TopK(k int) SamplingOption {
	return func(o *sampling) { o.top_k = C.int64_t(max(k, -1)) }
}

// TopP draws among the likeliest tokens that reach this probability together. It is above 0 and at most 1; 1 is off.
func TopP(p float64) SamplingOption {
	return func(o *sampling) { o.top_p = C.double(max(p, -1)) }
}

// toSampling collects options. Those below -1 became -1: one such number is the library's word for "recommended".
func toSampling(options []SamplingOption) sampling {
	taken := C.sampling_defaults()
	for _, option := range options {
		option(&taken)
	}
	return taken
}

// watch lets a context end requests that have these options, until stop is called.
func watch(ctx context.Context, n *native, o *sampling) (stop func(), status C.igpt_status) {
	var canceller *C.igpt_canceller
	if status := C.igpt_canceller_create(n.model, &canceller, &n.error); status != C.IGPT_OK {
		return func() {}, status
	}
	o.canceller = canceller
	ended := make(chan struct{})
	forget := context.AfterFunc(ctx, func() { C.igpt_cancel(canceller); close(ended) })
	return func() {
		if !forget() {
			<-ended
		}
		C.igpt_canceller_free(&canceller)
	}, C.IGPT_OK
}

type imageFunction func(*native, *C.igpt_image) C.igpt_status

// withImage calls a function of the library that takes a picture.
func (m *Model) withImage(ctx context.Context, picture image.Image, function imageFunction) error {
	levels, width, height, err := readImage(picture)
	if err != nil {
		return err
	}
	var pins runtime.Pinner
	pins.Pin(&levels[0])
	defer pins.Unpin()
	given := C.igpt_image{size: C.size_t(len(levels)), height: C.int64_t(height), width: C.int64_t(width)}
	given.data = (*C.uint8_t)(&levels[0])
	return m.do(ctx, func(n *native) C.igpt_status { return function(n, &given) })
}

// A Completion is pictures and what they are made of.
type Completion struct {
	Images []*image.RGBA // [n], opaque, of the model's size
	Tokens [][]int64     // [n][NPositions], in raster order
}

// Complete keeps the top rows of a picture and draws the rest N times, in one call of the graph complete.
//
// The picture is of any size, 1 .. 65535 pixels a side and at most 89,478,485 in all. It is resized to the model's
// size, and what is transparent is laid over white. An [image.Image] knows nothing of a file's EXIF orientation: who
// reads photographs has to apply it. keepRows counts rows of the model's size, 0 .. Height - 1; 0 draws from nothing.
//
// Errors: ErrOption, ErrImage, ErrBundle, ErrRuntime, ErrMemory, ErrCancelled, ErrState.
func (m *Model) Complete(ctx context.Context, picture image.Image, keepRows int,
	options ...SamplingOption) (*Completion, error) {
	o := toSampling(options)
	rows, positions := int(o.n), m.info.NPositions
	if rows < 1 || rows > maxN {
		rows = 0 // which the library refuses
	}
	probe := C.calloc(C.size_t(rows), C.size_t(positions*(8+3+4))) // without memory Go would end the program
	C.free(probe)
	if probe == nil && rows > 0 {
		return nil, fail(ErrMemory, "no memory is left for %d pictures; draw fewer at once, or free some", rows)
	}
	levels, tokens := make([]byte, rows*positions*3), make([]int64, rows*positions)
	err := m.withImage(ctx, picture, func(n *native, given *C.igpt_image) C.igpt_status {
		stop, status := watch(ctx, n, &o)
		defer stop()
		if status != C.IGPT_OK {
			return status
		}
		return C.igpt_complete(n.model, given, C.int64_t(keepRows), &o, (*C.uint8_t)(unsafe.SliceData(levels)),
			C.size_t(len(levels)), (*C.int64_t)(unsafe.SliceData(tokens)), C.size_t(len(tokens)), &n.error)
	})
	if err != nil {
		return nil, err
	}
	return &Completion{toImages(levels, m.info.Height, m.info.Width), inRows(tokens, positions)}, nil
}

// inRows cuts an array [n, size] into its rows.
func inRows[T any](all []T, size int) [][]T { return slices.Collect(slices.Chunk(all, max(1, size))) }

// A Class is a label with its probability, 0 .. 1, or the value of a regression: see FunctionToApply of [Info].
type Class struct {
	Label string
	Value float32
}

// Classify gives every label, the one of the largest probability or value first.
//
// Errors: as Complete, and ErrBundle of a model without a classifier.
func (m *Model) Classify(ctx context.Context, picture image.Image) ([]Class, error) {
	values := make([]float32, len(m.info.Labels))
	err := m.withImage(ctx, picture, func(n *native, given *C.igpt_image) C.igpt_status {
		return C.igpt_classify(n.model, given, (*C.float)(unsafe.SliceData(values)), C.size_t(len(values)), &n.error)
	})
	classes := make([]Class, len(values))
	for i, label := range m.info.Labels {
		classes[i] = Class{label, values[i]}
	}
	slices.SortStableFunc(classes, func(a, b Class) int { return cmp.Compare(b.Value, a.Value) })
	return result(classes, err)
}

// Features gives hidden states, averaged over the picture: [NLayer + 1][NEmbd].
//
// Errors: as Complete.
func (m *Model) Features(ctx context.Context, picture image.Image) ([][]float32, error) {
	states := make([]float32, (m.info.NLayer+1)*m.info.NEmbd)
	err := m.withImage(ctx, picture, func(n *native, given *C.igpt_image) C.igpt_status {
		return C.igpt_features(n.model, given, (*C.float)(unsafe.SliceData(states)), C.size_t(len(states)), &n.error)
	})
	return result(inRows(states, m.info.NEmbd), err)
}

// A Score is minus the log-likelihood of a picture, in nats.
type Score struct {
	Nats         [][]float32 // of each token, [Height][Width]
	NatsPerToken float64     // their mean
}

// Score tells how likely a picture is.
//
// Errors: as Complete.
func (m *Model) Score(ctx context.Context, picture image.Image) (*Score, error) {
	nats, mean := make([]float32, m.info.NPositions), C.double(0)
	err := m.withImage(ctx, picture, func(n *native, given *C.igpt_image) C.igpt_status {
		return C.igpt_score(n.model, given, (*C.float)(unsafe.SliceData(nats)), C.size_t(len(nats)), &mean, &n.error)
	})
	return result(&Score{inRows(nats, m.info.Width), float64(mean)}, err)
}

// Tokens gives the tokens of a picture, [NPositions] in raster order.
//
// Errors: as Complete.
func (m *Model) Tokens(ctx context.Context, picture image.Image) ([]int64, error) {
	tokens := make([]int64, m.info.NPositions)
	err := m.withImage(ctx, picture, func(n *native, given *C.igpt_image) C.igpt_status {
		return C.igpt_tokens(n.model, given, (*C.int64_t)(unsafe.SliceData(tokens)), C.size_t(len(tokens)), &n.error)
	})
	return result(tokens, err)
}

// Images makes opaque pictures of tokens, [n][NPositions].
//
// Errors: ErrOption, ErrBundle, ErrRuntime, ErrMemory, ErrCancelled, ErrState.
func (m *Model) Images(ctx context.Context, tokens [][]int64) ([]*image.RGBA, error) {
	for i, row := range tokens {
		if len(row) != m.info.NPositions {
			return nil, fail(ErrOption, "picture %d has %d tokens; give %d", i, len(row), m.info.NPositions)
		}
	}
	all := slices.Concat(tokens...)
	levels := make([]byte, len(all)*3)
	err := m.do(ctx, func(n *native) C.igpt_status {
		return C.igpt_images(n.model, (*C.int64_t)(unsafe.SliceData(all)), C.size_t(len(tokens)),
			(*C.uint8_t)(unsafe.SliceData(levels)), C.size_t(len(levels)), &n.error)
	})
	return result(toImages(levels, m.info.Height, m.info.Width), err)
}

// Uniform is the random number in [0, 1) of a sample at a position: SPEC section 5.
func Uniform(seed uint64, sample, position uint32) float32 {
	return float32(C.igpt_uniform(C.uint64_t(seed), C.uint32_t(sample), C.uint32_t(position)))
}
