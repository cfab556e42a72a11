//go:build !libigpt

package igpt

// The sources are copies of ../c, made by go generate before the first build. Sources that are included from there would
// be missing in a vendor directory, and go build would not see that they changed.
//go:generate go run copy.go

// #cgo !windows LDFLAGS: -lm -lpthread
// #cgo linux LDFLAGS: -ldl
import "C"
