package igpt

// #include "igpt.h"
import "C"

import (
	"context"
	"fmt"
	"strings"
)

// A Kind says what went wrong. It is an error for [errors.Is]:
//
//	if errors.Is(err, igpt.ErrBundle) {
type Kind int

const (
	ErrOption    Kind = C.IGPT_ERROR_OPTION    // an option or argument is out of range or does not fit the bundle
	ErrImage     Kind = C.IGPT_ERROR_IMAGE     // what was given is no picture
	ErrBundle    Kind = C.IGPT_ERROR_BUNDLE    // a bundle is missing, damaged, of an unknown version, or lacks a graph
	ErrRuntime   Kind = C.IGPT_ERROR_RUNTIME   // ONNX Runtime or a provider is missing, is too old, or failed
	ErrMemory    Kind = C.IGPT_ERROR_MEMORY    // there is not enough memory
	ErrCancelled Kind = C.IGPT_ERROR_CANCELLED // the context ended
	ErrState     Kind = C.IGPT_ERROR_STATE     // the model is closed
)

// Error is the kind in a word.
func (k Kind) Error() string {
	return "igpt: " + map[Kind]string{ErrOption: "option", ErrImage: "image", ErrBundle: "bundle",
		ErrRuntime: "runtime", ErrMemory: "memory", ErrCancelled: "cancelled", ErrState: "state"}[k]
}

// An Error is what all functions of this package fail with.
type Error struct {
	Kind    Kind
	Message string // one line: what, where, and what to do
	causes  []error
}

func (e *Error) Error() string { return "igpt: " + e.Message }

// Is compares the kind with a target that is one.
func (e *Error) Is(target error) bool { return target == e.Kind }

// Unwrap tells, of ErrCancelled, why the context ended: [context.Canceled] or [context.DeadlineExceeded], and the
// cause.
func (e *Error) Unwrap() []error { return e.causes }

func fail(kind Kind, format string, arguments ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, arguments...)}
}

func cancelled(ctx context.Context) error {
	message := fmt.Sprintf("the request was cancelled (%q); begin another one", context.Cause(ctx))
	return &Error{ErrCancelled, message, []error{ctx.Err(), context.Cause(ctx)}}
}

// toError makes an error of what a function of the library gives.
func (n *native) toError(ctx context.Context, status C.igpt_status) error {
	if status == C.IGPT_OK || status == C.IGPT_DONE {
		return nil
	}
	if status == C.IGPT_ERROR_CANCELLED && ctx.Err() != nil {
		return cancelled(ctx)
	}
	return fail(Kind(status), "%s", strings.ToValidUTF8(C.GoString(&n.error.message[0]), "?"))
}

// result is a value or, with an error, nothing.
func result[T any](value T, err error) (T, error) {
	if err != nil {
		return *new(T), err
	}
	return value, nil
}
