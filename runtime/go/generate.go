package igpt

// #include "igpt.h"
import "C"

import (
	"context"
	"image"
	"iter"
	"slices"
	"unsafe"
)

// A Step is the tokens of one position.
type Step struct {
	Position     int     // in the picture, in raster order from 0
	Tokens       []int64 // one for each picture, [n]
	Drawn, Total int     // tokens so far, and tokens in all, of all pictures together
	all          []int64 // [n, positions], filled up to Position
	positions    int
}

// Sequences gives the tokens so far of each picture, the primer included: [n][Position + 1]. They must not be changed.
func (s Step) Sequences() [][]int64 {
	rows := inRows(s.all, s.positions)
	for i, row := range rows {
		rows[i] = row[: s.Position+1 : s.Position+1]
	}
	return rows
}

// Collect runs a request to its end and gives the tokens of each picture, [n][NPositions], or the first error. It gives
// nothing if there is nothing to draw.
func Collect(steps iter.Seq2[Step, error]) ([][]int64, error) {
	var last Step
	for step, err := range steps {
		if err != nil {
			return nil, err
		}
		last = step
	}
	return last.Sequences(), nil
}

// Generate draws what follows the first tokens of a picture, position by position.
//
// primer has 0 .. NPositions tokens, without sos; without any it draws from nothing.
//
// Nothing happens before the first step, and each loop over the result begins a new request. An error is the last thing
// that a loop is given. To leave the loop early frees the request. Other calls on the model may be made between steps.
//
// Errors: ErrOption, ErrBundle, ErrRuntime, ErrMemory, ErrCancelled, ErrState.
func (m *Model) Generate(ctx context.Context, primer []int64, options ...SamplingOption) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		r, err := m.start(ctx, primer, toSampling(options))
		if err != nil {
			yield(Step{}, err)
			return
		}
		defer r.finish()
		for range m.info.NPositions - len(primer) {
			if step, err := r.next(ctx); !yield(step, err) || err != nil {
				return
			}
		}
	}
}

// Sample draws N whole pictures from nothing, as Generate does.
func (m *Model) Sample(ctx context.Context, options ...SamplingOption) iter.Seq2[Step, error] {
	return m.Generate(ctx, nil, options...)
}

// CompleteSteps draws what Complete does, as Generate does. [Model.Images] makes pictures of its tokens.
//
// Errors: as Complete.
func (m *Model) CompleteSteps(ctx context.Context, picture image.Image, keepRows int,
	options ...SamplingOption) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		tokens, err := m.Tokens(ctx, picture)
		if keepRows < 0 || keepRows >= m.info.Height {
			err = fail(ErrOption, "keepRows must be 0 .. %d, not %d", m.info.Height-1, keepRows)
		}
		if err != nil {
			yield(Step{}, err)
			return
		}
		m.Generate(ctx, tokens[:keepRows*m.info.Width], options...)(yield)
	}
}

// run is a request in progress.
type run struct {
	model  *Model
	handle *C.igpt_run
	stop   func()
	all    []int64 // [n, positions]
}

func (m *Model) start(ctx context.Context, primer []int64, o sampling) (*run, error) {
	r := &run{model: m, stop: func() {}}
	err := m.do(ctx, func(n *native) (status C.igpt_status) {
		if r.stop, status = watch(ctx, n, &o); status != C.IGPT_OK {
			return status
		}
		given, length := (*C.int64_t)(unsafe.SliceData(primer)), C.size_t(len(primer))
		return C.igpt_start(n.model, given, length, &o, &r.handle, &n.error)
	})
	if err != nil {
		r.stop()
		return nil, err
	}
	r.all = make([]int64, int(o.n)*m.info.NPositions) // far less than the cache, which there is memory for
	for row := range int(o.n) {
		copy(r.all[row*m.info.NPositions:], primer)
	}
	return r, nil
}

func (r *run) next(ctx context.Context) (Step, error) {
	var drawn C.igpt_step
	err := r.model.do(ctx, func(n *native) C.igpt_status { return C.igpt_next(r.handle, &drawn, &n.error) })
	if err != nil {
		return Step{}, err
	}
	tokens := slices.Clone(unsafe.Slice((*int64)(drawn.tokens), drawn.n))
	step := Step{int(drawn.position), tokens, int(drawn.drawn), int(drawn.total), r.all, r.model.info.NPositions}
	for row, token := range tokens {
		r.all[row*step.positions+step.Position] = token
	}
	return step, nil
}

// finish frees the request, also of a closed model.
func (r *run) finish() {
	r.model.turn <- struct{}{}
	defer r.model.leave()
	C.igpt_finish(&r.handle)
	r.stop()
}
