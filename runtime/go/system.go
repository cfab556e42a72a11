//go:build libigpt

package igpt

// #cgo pkg-config: igpt
import "C"
