package igpt_test

import (
	"context"
	"errors"
	"image"
	"math"
	"testing"

	"igpt"
)

// FuzzComplete gives pictures of any type and size, and any options: an answer of the right shape, or a typed error.
func FuzzComplete(f *testing.F) {
	model := open(f, bundle(), igpt.Threads(1))
	info, ctx := model.Info(), context.Background()
	f.Add([]byte("levels"), uint8(0), uint16(8), uint16(8), 4, 2, uint64(1), 1.0, 0, 1.0)
	f.Add([]byte{255}, uint8(1), uint16(3), uint16(200), 0, 1, uint64(math.MaxUint64), 0.0, 5, 0.9)
	f.Add([]byte{}, uint8(2), uint16(0), uint16(1), 8, 0, uint64(0), math.NaN(), -1, 0.0)
	f.Add([]byte{7, 0}, uint8(3), uint16(1), uint16(1), 7, 65537, uint64(5), math.Inf(1), math.MaxInt, -1048576.0)
	f.Add([]byte{1, 2, 3}, uint8(4), uint16(61), uint16(97), 1, 3, uint64(6), math.SmallestNonzeroFloat64, 1, 1e300)
	f.Fuzz(func(t *testing.T, levels []byte, kind uint8, width, height uint16, keepRows, n int, seed uint64,
		temperature float64, topK int, topP float64) {
		if n > 4 && n <= 65536 {
			n = n%4 + 1 // to be fast
		}
		width, height = width%300, height%300
		picture := fuzzed(levels, kind, image.Rect(0, 0, int(width), int(height)))
		options := []igpt.SamplingOption{
			igpt.N(n), igpt.Seed(seed), igpt.Temperature(temperature), igpt.TopK(topK), igpt.TopP(topP),
		}
		right := n >= 1 && n <= 65536 && keepRows >= 0 && keepRows < info.Height && temperature >= 0 &&
			!math.IsInf(temperature, 0) && topK >= 0 && topP > 0 && topP <= 1
		completion, err := model.Complete(ctx, picture, keepRows, options...)
		steps, other := igpt.Collect(model.CompleteSteps(ctx, picture, keepRows, options...))
		for _, err := range []error{err, other} {
			switch {
			case errors.Is(err, igpt.ErrOption):
				if right {
					t.Fatal(err)
				}
			case errors.Is(err, igpt.ErrImage): // empty, or with levels missing
			case err != nil || !right:
				t.Fatal(err, right)
			}
		}
		if (err == nil) != (other == nil) {
			t.Fatal(err, other)
		}
		if err != nil {
			return
		}
		if len(completion.Tokens) != n || len(completion.Images) != n || len(steps) != n {
			t.Fatal("another number of pictures")
		}
		for row, tokens := range completion.Tokens {
			if len(tokens) != info.NPositions || len(steps[row]) != info.NPositions ||
				completion.Images[row].Bounds() != image.Rect(0, 0, info.Width, info.Height) {
				t.Fatal("another size")
			}
			for i, token := range tokens {
				if token != steps[row][i] || token < 0 || token >= int64(info.NClusters) {
					t.Fatal("one call and steps differ", tokens, steps[row])
				}
			}
		}
	})
}

// fuzzed is a picture with these levels, again and again, or with too few.
func fuzzed(levels []byte, kind uint8, bounds image.Rectangle) image.Image {
	fill := func(pix []byte) {
		for i := 0; i < len(pix) && len(levels) > 0; i += len(levels) {
			copy(pix[i:], levels)
		}
	}
	switch kind % 6 {
	case 0:
		picture := image.NewNRGBA(bounds)
		fill(picture.Pix)
		return picture
	case 1:
		picture := image.NewRGBA(bounds)
		fill(picture.Pix)
		return picture
	case 2:
		picture := image.NewGray16(bounds)
		fill(picture.Pix)
		return picture
	case 3:
		picture := image.NewNRGBA64(bounds)
		fill(picture.Pix)
		return picture
	case 4:
		picture := image.NewYCbCr(bounds, image.YCbCrSubsampleRatio420)
		fill(picture.Y)
		fill(picture.Cb)
		return picture
	}
	return &image.NRGBA{Pix: levels, Stride: 4 * bounds.Dx(), Rect: bounds}
}
